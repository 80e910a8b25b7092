// SPDX-License-Identifier: Apache-2.0

/// How an image is opened, apart from its files.
public struct QCOW2Options: Equatable, Sendable {
  /// When changed tables are written to the storage.
  public enum TableWrites: Equatable, Sendable {
    /// Before a write returns: a process that is killed loses nothing that had finished.
    case through
    /// At a flush, or when there is no more room: faster, and lost by a kill before that.
    case back
  }

  public var tables = TableWrites.through
  /// Whether writes of tables wait for the durability of what they refer to.
  ///
  /// With it also a power cut leaves at worst leaked clusters; without it only a kill does.
  public var hasBarriers = false
  /// The memory for pieces of L2 tables, in bytes.
  public var l2CacheByteCount = 1 << 20
  /// The memory for pieces of refcount blocks, in bytes.
  public var refcountCacheByteCount = 256 << 10
  /// The internal snapshot to show instead of the disk as it is; only for reading.
  public var snapshot: QCOW2SnapshotName?

  public init() {}
}

/// A qcow2 image, versions 2 and 3, for reading and writing.
///
/// Reads and writes go straight between the caller's buffer and the storage in runs of
/// clusters that lie side by side. Tables are written in an order that leaves at worst leaked
/// clusters when the process is killed between two writes: first refcounts, then data, then
/// L2 and L1 entries, then releases.
public struct QCOW2Image<
  Storage: BlockStorage & ~Copyable, Decompressor: ClusterDecompressor
>: ~Copyable {
  /// The header, as checked when the image was opened and kept up to date since.
  public internal(set) var header: QCOW2Header
  var storage: Storage
  /// Where the guest's data is, when that is not in `storage`.
  var dataFile: Storage?
  var decompressor: Decompressor
  let backing: BackingImage<Storage, Decompressor>?
  let backingSize: UInt64
  let depth: Int
  let options: QCOW2Options
  /// What the guest's data is encrypted with.
  let cipher: (any SectorCipher)?
  var isWritable: Bool

  var l1: [UInt64]
  /// Entries of `l1` that are not in the storage yet.
  var dirtyL1: Set<Int> = []
  var l2Cache: TableCache
  /// Empty on a read-only image.
  var refcountTable: [UInt64]
  var refcountCache: TableCache
  /// Every cluster that holds metadata, for the overlap checks.
  var metadata: MetadataMap
  /// No cluster below this one is free.
  var firstFree: UInt64 = 1
  /// Past the end of the file, no cluster below this byte is sure to read as zero.
  var freshEnd: UInt64 = 0
  /// Whether something was written that the next L2 or L1 entry refers to.
  var needsBarrier = false
  /// Clusters to give up once the tables that no longer refer to them are durable.
  var pendingReleases: [PendingRelease] = []
  /// Clusters that are discarded and given up by somebody else, while there is one.
  var heldDiscards: [PendingRelease]?

  /// A cluster being put together, and the last one decompressed.
  var scratch: [UInt8] = []
  var inflated: [UInt8] = []
  var inflatedEntry: UInt64?

  /// Opens the image on `storage`.
  ///
  /// - Parameters:
  ///   - storage: The image file.
  ///   - writable: Whether the disk may be written. The autoclear bits of what this writer
  ///     does not keep up are then cleared, and the refcounts of an image that was not closed
  ///     cleanly are counted anew.
  ///   - backing: The image named by ``QCOW2Header/backingFileName``, opened read-only.
  ///   - dataFile: The file named by ``QCOW2Header/dataFileName``.
  ///   - decompressor: What inflates compressed clusters.
  ///   - cipher: What decrypts the data of an encrypted image; without it only its tables can
  ///     be used.
  ///   - options: How tables are cached and which snapshot is shown.
  /// - Throws: An error that names the field at fault.
  public init(
    storage: consuming Storage, writable: Bool,
    backing: BackingImage<Storage, Decompressor>? = nil, dataFile: consuming Storage? = nil,
    decompressor: Decompressor, cipher: (any SectorCipher)? = nil,
    options: QCOW2Options = QCOW2Options()
  ) throws(BlockImageError) {
    var storage = storage
    var header = try QCOW2Header.read(from: &storage)
    if writable, header.isDirty, !header.isCorrupt {
      storage = try Self.rebuilt(storage, header, decompressor)
      header = try QCOW2Header.read(from: &storage)
    }
    if let name = header.backingFileName, backing == nil {
      throw .backingFileMissing(name: name)
    }
    let hasData: Bool
    switch dataFile {
    case .some: hasData = true
    case .none: hasData = false
    }
    if header.hasDataFile, !hasData { throw .dataFileMissing(name: header.dataFileName) }
    let depth = (backing?.image.depth ?? -1) + 1
    guard depth <= QCOW2.largestDepth else {
      throw .unsupported(feature: "a chain of more than \(QCOW2.largestDepth) backing files")
    }
    if let name = options.snapshot {
      guard !writable else { throw .notWritable(reason: "a snapshot is only for reading") }
      try header.show(name, on: &storage)
    }
    if writable, header.isCorrupt { throw .notWritable(reason: "it is marked as corrupt") }
    let tables = try QCOW2Tables(header, writable: writable, on: &storage)
    if writable { try header.clearAutoclear(on: &storage) }
    self.init(
      storage, dataFile, header, tables, backing, decompressor, cipher, options, writable)
  }

  private init(
    _ storage: consuming Storage, _ dataFile: consuming Storage?, _ header: QCOW2Header,
    _ tables: QCOW2Tables, _ backing: BackingImage<Storage, Decompressor>?,
    _ decompressor: Decompressor, _ cipher: (any SectorCipher)?, _ options: QCOW2Options,
    _ writable: Bool
  ) {
    l1 = tables.l1
    refcountTable = tables.refcountTable
    metadata = tables.metadata
    l2Cache = TableCache(clusterSize: header.clusterSize, byteCount: options.l2CacheByteCount)
    refcountCache = TableCache(
      clusterSize: header.clusterSize,
      byteCount: writable ? options.refcountCacheByteCount : 4096)
    self.header = header
    self.storage = storage
    self.dataFile = dataFile
    self.decompressor = decompressor
    self.cipher = header.isEncrypted ? cipher : nil
    self.backing = header.backingFileName == nil ? nil : backing
    backingSize = self.backing?.image.virtualSize ?? 0
    depth = (self.backing?.image.depth ?? -1) + 1
    self.options = options
    isWritable = writable
  }

  /// The size of the disk in bytes.
  public var virtualSize: UInt64 { header.virtualSize }

  /// What the monitor shows about the image.
  public var info: ImageInfo {
    var info = ImageInfo(
      format: "qcow2", virtualSize: virtualSize, fileSize: storage.byteCount,
      isWritable: isWritable)
    info.version = header.version
    info.clusterSize = header.clusterSize
    info.refcountBits = 1 << Int(header.refcountOrder)
    info.snapshotCount = Int(header.snapshotCount)
    info.backingFileName = header.backingFileName
    info.backingFormat = header.backingFormat
    return info
  }

  /// Counts the refcounts of an image that was not closed cleanly anew.
  private static func rebuilt(
    _ storage: consuming Storage, _ header: QCOW2Header, _ decompressor: Decompressor
  ) throws(BlockImageError) -> Storage {
    var storage = storage
    let tables = try QCOW2Tables(header, writable: true, on: &storage)
    var image = Self(storage, nil, header, tables, nil, decompressor, nil, QCOW2Options(), true)
    try image.rebuildRefcounts()
    return image.storage
  }

  // MARK: The data, in the image or in its own file

  /// How long the file is that the data is in.
  var dataByteCount: UInt64 {
    guard header.hasDataFile else { return storage.byteCount }
    switch dataFile {
    case .some(let file): return file.byteCount
    case .none: return 0
    }
  }

  mutating func readData(into part: inout MutableSpan<UInt8>, at host: UInt64)
    throws(BlockImageError)
  {
    guard header.isEncrypted else { return try readAsIs(into: &part, at: host) }
    guard let cipher else { throw .keyMissing }
    try readEncrypted(into: &part, at: host, cipher)
  }

  mutating func storeData(_ bytes: Span<UInt8>, at host: UInt64) throws(BlockImageError) {
    guard header.isEncrypted else { return try storeAsIs(bytes, at: host) }
    guard let cipher else { throw .keyMissing }
    try storeEncrypted(bytes, at: host, cipher)
  }

  /// Reads data as it is in the file.
  mutating func readAsIs(into part: inout MutableSpan<UInt8>, at host: UInt64)
    throws(BlockImageError)
  {
    do throws(StorageError) {
      if header.hasDataFile {
        try dataFile?.read(into: &part, at: host)
      } else {
        try storage.read(into: &part, at: host)
      }
    } catch {
      throw .storage(error)
    }
  }

  /// Writes data as it is to be in the file.
  mutating func storeAsIs(_ bytes: Span<UInt8>, at host: UInt64) throws(BlockImageError) {
    do throws(StorageError) {
      if header.hasDataFile {
        try dataFile?.write(bytes, at: host)
      } else {
        try storage.write(bytes, at: host)
      }
    } catch {
      throw .storage(error)
    }
  }

  // MARK: Durability

  /// Makes everything written so far durable.
  mutating func barrier() throws(BlockImageError) {
    do throws(StorageError) {
      if header.hasDataFile { try dataFile?.flush() }
      try storage.flush()
    } catch {
      throw .storage(error)
    }
    needsBarrier = false
  }

  /// Waits for the durability of what the next table entry refers to.
  mutating func barrierIfNeeded() throws(BlockImageError) {
    if options.hasBarriers, needsBarrier { try barrier() }
  }

  /// Writes the tables that were changed, what is referred to before what refers to it.
  mutating func writeTables() throws(BlockImageError) {
    if refcountCache.dirtyCount > 0 {
      try refcountCache.writeDirty(to: &storage)
      needsBarrier = true
    }
    guard l2Cache.dirtyCount > 0 || !dirtyL1.isEmpty else { return }
    try barrierIfNeeded()
    try l2Cache.writeDirty(to: &storage)
    for index in dirtyL1.sorted() {
      try storeL1Entry(index)
      dirtyL1.remove(index)
    }
  }

  func hasUnwrittenTables() -> Bool {
    refcountCache.dirtyCount > 0 || l2Cache.dirtyCount > 0 || !dirtyL1.isEmpty
  }

  /// Makes every finished write durable.
  public mutating func flush() throws(BlockImageError) {
    if hasUnwrittenTables() { try writeTables() }
    try barrier()
    guard !pendingReleases.isEmpty else { return }
    let releases = pendingReleases
    pendingReleases = []
    for release in releases { try releaseNow(release) }
    try refcountCache.writeDirty(to: &storage)
  }

  /// Writes what is held back; without it a writer in the mode `back` loses its last writes.
  public mutating func close() throws(BlockImageError) {
    guard isWritable else { return }
    try flush()
  }

  /// Marks the image as corrupt, so that nobody writes to it before it was repaired.
  mutating func markCorrupt() {
    guard isWritable else { return }
    try? writeTables()
    isWritable = false
    guard header.version == 3 else { return }
    header.incompatibleFeatures |= QCOW2.corrupt
    var field = [UInt8](repeating: 0, count: 8)
    field.storeBigEndian(header.incompatibleFeatures, at: 0)
    try? storage.store(field, at: 72)
    try? barrier()
  }
}

extension QCOW2Header {
  /// Clears the autoclear bits of what this writer does not keep up.
  mutating func clearAutoclear<Storage: BlockStorage & ~Copyable>(on storage: inout Storage)
    throws(BlockImageError)
  {
    // One is kept up: that the data file is a raw image.
    let kept = autoclearFeatures & (hasDataFile ? QCOW2.rawExternalData : 0)
    guard version == 3, autoclearFeatures != kept else { return }
    var field = [UInt8](repeating: 0, count: 8)
    field.storeBigEndian(kept, at: 0)
    try storage.store(field, at: 88)
    autoclearFeatures = kept
  }

  /// Puts a snapshot's L1 table and disk size in the place of the active ones.
  mutating func show<Storage: BlockStorage & ~Copyable>(
    _ name: QCOW2SnapshotName, on storage: inout Storage
  ) throws(BlockImageError) {
    var found: QCOW2Snapshot?
    try forEachSnapshot(on: &storage) { (snapshot) throws(BlockImageError) in
      guard name.matches(snapshot) else { return true }
      found = snapshot
      return false
    }
    guard let found else { throw .snapshotMissing(name: name.text) }
    l1TableOffset = found.l1TableOffset
    l1Size = found.l1Size
    virtualSize = found.virtualSize
  }
}
