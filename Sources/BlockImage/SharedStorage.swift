// SPDX-License-Identifier: Apache-2.0

/// What reads and writes the bytes of a storage, by several threads at once.
public protocol StoragePort: Sendable {
  /// Fills `buffer` with the bytes from `offset`; bytes past the end read as zero.
  func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64) throws(StorageError)

  /// Writes all of `bytes` at `offset`.
  func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError)

  /// Makes everything written so far durable.
  func flush() throws(StorageError)
}

/// A storage whose data may be read and written past it, while others use the storage itself.
public protocol SharedStorage: BlockStorage, ~Copyable {
  associatedtype Port: StoragePort

  var port: Port { get }

  /// Takes note that bytes up to `end` were written through the port.
  mutating func noteWritten(upTo end: UInt64)
}

/// Where the bytes of a part of a disk are read from.
public enum ReadSource<Port: StoragePort>: Sendable {
  case zero
  /// Bytes of a file, decrypted where there is a cipher.
  case data(Port, offset: UInt64, cipher: (any SectorCipher)?)
  /// A cluster that was decompressed before; the bytes begin at `start`.
  case inflated([UInt8], start: Int)
  case compressed(CompressedCluster<Port>)
}

/// A compressed cluster, and which of its bytes are meant.
public struct CompressedCluster<Port: StoragePort>: Sendable {
  public var port: Port
  /// Where it is in the file.
  public var offset: UInt64
  /// How many bytes it has there at most.
  public var count: Int
  public var kind: QCOW2Compression
  public var clusterSize: Int
  /// Where in the cluster the bytes begin.
  public var start: Int
  /// The place of the cluster on the disk, for an error.
  public var guestOffset: UInt64
  /// The image of the chain that it is in, the first being 0.
  var depth: Int
  var entry: UInt64
}

/// A part of a disk that is read from one place.
public struct ReadPlan<Port: StoragePort>: Sendable {
  public var source: ReadSource<Port>
  /// Its length in bytes, at least 1.
  public var count: Int
}

extension BlockImage where Storage: SharedStorage & ~Copyable {
  /// What reads and writes the file that the data is in.
  public var dataPort: Storage.Port {
    switch self {
    case .raw(let image): image.storage.port
    case .qcow2(let image): image.dataPort
    }
  }

  /// Does something with a qcow2 image; `nil` for a raw one.
  public mutating func withQCOW2<Result>(
    _ body: (inout QCOW2Image<Storage, Decompressor>) throws(BlockImageError) -> Result
  ) throws(BlockImageError) -> Result? {
    switch consume self {
    case .raw(let image):
      self = .raw(image)
      return nil
    case .qcow2(var image):
      do throws(BlockImageError) {
        let result = try body(&image)
        self = .qcow2(image)
        return result
      } catch {
        self = .qcow2(image)
        throw error
      }
    }
  }

  /// Says where the bytes at `offset` are read from, and how many of `limit` from there.
  mutating func planRead(at offset: UInt64, limit: Int, depth: Int) throws(BlockImageError)
    -> ReadPlan<Storage.Port>
  {
    let plan = try withQCOW2 { (image) throws(BlockImageError) in
      try image.planRead(at: offset, limit: limit, depth: depth)
    }
    return plan
      ?? ReadPlan(source: .data(dataPort, offset: offset, cipher: nil), count: limit)
  }

  /// Keeps a decompressed cluster for the next read.
  mutating func keep(
    _ bytes: [UInt8], of cluster: CompressedCluster<Storage.Port>, depth: Int
  ) {
    _ = try? withQCOW2 { (image) throws(BlockImageError) in
      image.keep(bytes, of: cluster, depth: depth)
    }
  }
}

extension QCOW2Image where Storage: SharedStorage & ~Copyable {
  /// What reads and writes the file that the data is in.
  public var dataPort: Storage.Port {
    switch dataFile {
    case .some(let file): file.port
    case .none: storage.port
    }
  }

  /// What has to be flushed, in this order.
  var ports: [Storage.Port] {
    switch dataFile {
    case .some(let file): [file.port, storage.port]
    case .none: [storage.port]
    }
  }

  /// What encrypts the data.
  public func dataCipher() throws(BlockImageError) -> (any SectorCipher)? {
    guard header.isEncrypted else { return nil }
    guard let cipher else { throw .keyMissing }
    return cipher
  }

  /// Says where the bytes at `offset` are read from, and how many of `limit` from there.
  ///
  /// It holds for as long as nobody changes how these clusters are kept.
  ///
  /// - Parameters:
  ///   - offset: Inside the disk, or in its last cluster.
  ///   - limit: The most bytes, at least 1.
  ///   - depth: How many images lie in front of this one.
  /// - Returns: The part, from `offset` on.
  /// - Throws: An error that names the field at fault; the image is then marked as corrupt.
  public mutating func planRead(at offset: UInt64, limit: Int, depth: Int = 0)
    throws(BlockImageError) -> ReadPlan<Storage.Port>
  {
    try markingCorrupt { (image) throws(BlockImageError) in
      let (source, count) = try image.run(at: offset, limit: limit)
      switch source {
      case .zero: return ReadPlan(source: .zero, count: count)
      case .unallocated:
        guard let backing = image.backing, offset < image.backingSize else {
          return ReadPlan(source: .zero, count: count)
        }
        let inside = Int(min(UInt64(count), image.backingSize - offset))
        return try backing.image.planRead(at: offset, limit: inside, depth: depth + 1)
      case .data(let host):
        return ReadPlan(
          source: .data(
            image.dataPort, offset: host + offset % image.header.clusterSize,
            cipher: try image.dataCipher()), count: count)
      case .compressed(let entry):
        return ReadPlan(source: try image.compressed(entry, offset, depth), count: count)
      }
    }
  }

  private func compressed(_ entry: UInt64, _ offset: UInt64, _ depth: Int) throws(BlockImageError)
    -> ReadSource<Storage.Port>
  {
    let within = Int(offset % header.clusterSize)
    if inflatedEntry == entry { return .inflated(inflated, start: within) }
    let (place, count) = try compressedPlace(entry, guestOffset: offset)
    return .compressed(
      CompressedCluster(
        port: storage.port, offset: place, count: count, kind: header.compression,
        clusterSize: Int(header.clusterSize), start: within, guestOffset: offset, depth: depth,
        entry: entry))
  }

  /// Keeps a decompressed cluster for the next read.
  public mutating func keep(
    _ bytes: [UInt8], of cluster: CompressedCluster<Storage.Port>, depth: Int = 0
  ) {
    guard depth < cluster.depth else {
      inflated = bytes
      inflatedEntry = cluster.entry
      return
    }
    backing?.image.keep(bytes, of: cluster, depth: depth + 1)
  }

  /// Prepares the start of a write, as far as that changes no table; `nil` where one has to.
  public mutating func planSharedWrite(at offset: UInt64, count: Int) throws(BlockImageError)
    -> WritePlan?
  {
    try checkWritable()
    return try markingCorrupt { (image) throws(BlockImageError) in
      try image.planInPlace(at: offset, count: count)
    }
  }

  /// Prepares the start of a write for one who has its clusters alone.
  public mutating func planExclusiveWrite(at offset: UInt64, count: Int) throws(BlockImageError)
    -> WritePlan
  {
    try checkWritable()
    return try markingCorrupt { (image) throws(BlockImageError) in
      try image.planWrite(at: offset, count: count)
    }
  }

  /// Ends a write that was done through the port.
  public mutating func finish(_ plan: WritePlan) throws(BlockImageError) {
    for step in plan.steps { noteWritten(upTo: step.host + UInt64(step.count)) }
    try markingCorrupt { (image) throws(BlockImageError) in try image.commit(plan) }
  }

  /// Gives up what was taken for a write that failed.
  public mutating func giveUp(_ plan: WritePlan) { abandon(plan) }

  private mutating func noteWritten(upTo end: UInt64) {
    if header.hasDataFile {
      dataFile?.noteWritten(upTo: end)
    } else {
      storage.noteWritten(upTo: end)
    }
  }

  /// Begins a flush: what is returned has to be flushed then, in this order.
  ///
  /// - Returns: What flushes the files, and the clusters to give up afterwards.
  /// - Throws: When a table can't be written.
  public mutating func beginFlush() throws(BlockImageError) -> FlushPlan<Storage.Port> {
    if hasUnwrittenTables() { try writeTables() }
    let plan = FlushPlan(ports: ports, releases: pendingReleases)
    pendingReleases = []
    return plan
  }

  /// Ends a flush, well or not.
  public mutating func endFlush(_ plan: FlushPlan<Storage.Port>, isDurable: Bool)
    throws(BlockImageError)
  {
    guard isDurable else {
      pendingReleases = plan.releases + pendingReleases
      return
    }
    for release in plan.releases { try releaseNow(release) }
    if !plan.releases.isEmpty { try refcountCache.writeDirty(to: &storage) }
  }

  private mutating func markingCorrupt<Result>(
    _ body: (inout Self) throws(BlockImageError) -> Result
  ) throws(BlockImageError) -> Result {
    do throws(BlockImageError) { return try body(&self) } catch {
      if case .malformed = error { markCorrupt() }
      throw error
    }
  }
}

/// A flush that was begun.
public struct FlushPlan<Port: StoragePort>: Sendable {
  /// What has to be flushed, in this order.
  public var ports: [Port]
  var releases: [PendingRelease]
}

extension ClusterDecompressor {
  /// Decompresses `input` so that it fills `output`.
  public mutating func decompress(
    _ kind: QCOW2Compression, _ input: [UInt8], intoAll output: inout [UInt8]
  ) -> Bool {
    var span = output.mutableSpan
    switch kind {
    case .deflate: return inflate(input.span, into: &span)
    case .zstd: return decompressZstd(input.span, into: &span)
    }
  }
}
