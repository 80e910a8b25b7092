// SPDX-License-Identifier: Apache-2.0

/// How the compressed clusters of an image are compressed ("compression_type").
public enum QCOW2Compression: UInt8, Equatable, Sendable {
  /// Raw deflate streams, what qemu-img calls zlib.
  case deflate = 0
  case zstd = 1
}

/// The header of a qcow2 image, checked (docs/interop/qcow2.txt of QEMU, "Header").
///
/// Every field that is used later has been compared with the format's rules and with
/// the length of the file, so that later arithmetic on it can't overflow.
public struct QCOW2Header: Equatable, Sendable {
  /// 2 or 3.
  public var version: UInt32 = 3
  /// Log 2 of the cluster size, 9 to 21.
  public var clusterBits: UInt32 = 16
  /// The size of the disk in bytes.
  public var virtualSize: UInt64 = 0
  /// How many entries the active L1 table has.
  public var l1Size: UInt32 = 0
  /// Where the active L1 table starts.
  public var l1TableOffset: UInt64 = 0
  /// Where the refcount table starts.
  public var refcountTableOffset: UInt64 = 0
  /// How many clusters the refcount table fills.
  public var refcountTableClusters: UInt32 = 0
  /// Log 2 of the refcount width in bits, 0 to 6.
  public var refcountOrder: UInt32 = 4
  /// How many internal snapshots there are.
  public var snapshotCount: UInt32 = 0
  /// Where the snapshot table starts.
  public var snapshotTableOffset: UInt64 = 0
  /// Features an implementation must know to read the image.
  public var incompatibleFeatures: UInt64 = 0
  /// Features that may be ignored.
  public var compatibleFeatures: UInt64 = 0
  /// Features that a writer who doesn't know them must clear.
  public var autoclearFeatures: UInt64 = 0
  /// The length of the fixed part of the header.
  public var headerLength: UInt32 = 72
  /// The name of the backing file, for the launcher to open or refuse.
  public var backingFileName: String?
  /// The format of the backing file, when the image says it.
  public var backingFormat: String?
  /// Names of feature bits that the image itself supplies.
  public var featureNames: [QCOW2FeatureName] = []
  /// How compressed clusters are compressed.
  public var compression = QCOW2Compression.deflate
  /// The name of the external data file as the image gives it.
  public var dataFileName: String?
  /// Where the directory of persistent bitmaps starts; 0 when there is none.
  public var bitmapDirectoryOffset: UInt64 = 0
  /// The length of the directory of persistent bitmaps in bytes.
  public var bitmapDirectorySize: UInt64 = 0
  /// Whether the guest's data is encrypted; the LUKS header then says how.
  public var isEncrypted = false
  /// Where the LUKS header of an encrypted image starts.
  public var encryptionOffset: UInt64 = 0
  /// The length of the LUKS header with its key material in bytes; 0 when there is none.
  public var encryptionByteCount: UInt64 = 0

  init() {}

  /// Bytes in a cluster.
  public var clusterSize: UInt64 { 1 << UInt64(clusterBits) }
  /// Log 2 of the number of entries in an L2 table.
  var l2Bits: UInt64 { UInt64(clusterBits) - (hasExtendedL2 ? 4 : 3) }
  /// Bytes in an L2 entry.
  var l2EntrySize: UInt64 { hasExtendedL2 ? 16 : 8 }
  /// Whether L2 entries say for each 32nd of a cluster whether it is allocated.
  public var hasExtendedL2: Bool { incompatibleFeatures & QCOW2.extendedL2 != 0 }
  /// Whether the guest's data is in a file of its own.
  public var hasDataFile: Bool { incompatibleFeatures & QCOW2.externalData != 0 }
  /// Whether the external data file alone is a whole raw image.
  public var isDataFileRaw: Bool {
    hasDataFile && autoclearFeatures & QCOW2.rawExternalData != 0
  }
  /// Log 2 of the number of refcounts in a refcount block.
  var refcountBlockBits: UInt64 { UInt64(clusterBits) + 3 - UInt64(refcountOrder) }
  /// Whether the image was not closed cleanly: its refcounts can't be trusted.
  public var isDirty: Bool { incompatibleFeatures & QCOW2.dirty != 0 }
  /// Whether an implementation has marked the image as corrupt.
  public var isCorrupt: Bool { incompatibleFeatures & QCOW2.corrupt != 0 }

  /// Reads and checks the header at the start of `storage`.
  ///
  /// - Throws: An error that names the field at fault.
  public static func read<Storage: BlockStorage & ~Copyable>(from storage: inout Storage)
    throws(BlockImageError) -> QCOW2Header
  {
    guard storage.byteCount >= 72 else { throw .wrongFormat(expected: "qcow2") }
    var fixed = [UInt8](repeating: 0, count: 112)
    try storage.fill(&fixed, at: 0)
    guard fixed.bigEndian32(at: 0) == QCOW2.magic else { throw .wrongFormat(expected: "qcow2") }
    var header = QCOW2Header()
    try header.parseFixed(fixed, fileSize: storage.byteCount)
    var first = [UInt8](
      repeating: 0, count: Int(min(header.clusterSize, max(storage.byteCount, 112))))
    try storage.fill(&first, at: 0)
    try header.parseExtensions(first, backingOffset: fixed.bigEndian64(at: 8))
    try header.checkFeatures()
    try header.checkTables(fileSize: storage.byteCount)
    try header.parseBackingName(
      first, offset: fixed.bigEndian64(at: 8), length: fixed.bigEndian32(at: 16))
    return header
  }

  private mutating func parseFixed(_ bytes: [UInt8], fileSize: UInt64) throws(BlockImageError) {
    version = bytes.bigEndian32(at: 4)
    guard version == 2 || version == 3 else {
      throw .unsupported(feature: "qcow2 version \(version)")
    }
    clusterBits = bytes.bigEndian32(at: 20)
    try require((9...21).contains(clusterBits), "cluster_bits", clusterBits, "must be 9 to 21")
    virtualSize = bytes.bigEndian64(at: 24)
    let encryption = bytes.bigEndian32(at: 32)
    try require(encryption <= 2, "crypt_method", encryption, "must be 0, 1 or 2")
    l1Size = bytes.bigEndian32(at: 36)
    l1TableOffset = bytes.bigEndian64(at: 40)
    refcountTableOffset = bytes.bigEndian64(at: 48)
    refcountTableClusters = bytes.bigEndian32(at: 56)
    snapshotCount = bytes.bigEndian32(at: 60)
    snapshotTableOffset = bytes.bigEndian64(at: 64)
    if version == 3 { try parseVersion3(bytes, fileSize: fileSize) }
    guard encryption != 1 else { throw .unsupported(feature: "AES encryption") }
    isEncrypted = encryption == 2
  }

  private mutating func parseVersion3(_ bytes: [UInt8], fileSize: UInt64)
    throws(BlockImageError)
  {
    try require(fileSize >= 104, "header", fileSize, "version 3 needs 104 bytes")
    incompatibleFeatures = bytes.bigEndian64(at: 72)
    compatibleFeatures = bytes.bigEndian64(at: 80)
    autoclearFeatures = bytes.bigEndian64(at: 88)
    refcountOrder = bytes.bigEndian32(at: 96)
    headerLength = bytes.bigEndian32(at: 100)
    try require(refcountOrder <= 6, "refcount_order", refcountOrder, "must be at most 6")
    try require(headerLength >= 104, "header_length", headerLength, "must be at least 104")
    try require(
      UInt64(headerLength) <= clusterSize, "header_length", headerLength,
      "must fit the first cluster")
    try require(headerLength % 8 == 0, "header_length", headerLength, "must be a multiple of 8")
    let compression = headerLength > 104 ? bytes[104] : 0
    let hasCompressionBit = incompatibleFeatures & QCOW2.compressionType != 0
    try require(
      hasCompressionBit == (compression != 0), "compression_type", UInt64(compression),
      "must be 0 exactly when incompatible feature bit 3 is clear")
    guard let known = QCOW2Compression(rawValue: compression) else {
      throw .malformed(
        field: "compression_type", value: UInt64(compression), rule: "must be 0 or 1")
    }
    self.compression = known
  }

  private func checkTables(fileSize: UInt64) throws(BlockImageError) {
    let mask = clusterSize - 1
    try require(
      !hasExtendedL2 || clusterBits >= 14, "cluster_bits", clusterBits,
      "extended L2 entries need clusters of at least 16 KiB")
    try require(virtualSize <= 1 << 62, "size", virtualSize, "must be at most 2^62")
    try require(
      UInt64(l1Size) * 8 <= QCOW2.largestL1Table, "l1_size", l1Size,
      "must be at most \(QCOW2.largestL1Table / 8) entries")
    let perEntry = UInt64(clusterBits) + l2Bits
    let needed = (virtualSize >> perEntry) + (virtualSize & ((1 << perEntry) - 1) == 0 ? 0 : 1)
    try require(
      UInt64(l1Size) >= needed, "l1_size", l1Size, "the disk's size needs \(needed) entries")
    if l1Size > 0 {
      try checkTable("l1_table_offset", l1TableOffset, UInt64(l1Size) * 8, fileSize)
    }
    try require(
      refcountTableClusters > 0, "refcount_table_clusters", refcountTableClusters,
      "must not be 0")
    let tableBytes = UInt64(refcountTableClusters) << UInt64(clusterBits)
    try require(
      tableBytes <= max(QCOW2.largestRefcountTable, clusterSize), "refcount_table_clusters",
      refcountTableClusters, "the table may have at most \(QCOW2.largestRefcountTable) bytes")
    try checkTable("refcount_table_offset", refcountTableOffset, tableBytes, fileSize)
    try checkEncryption(fileSize: fileSize)
    let l1End = l1TableOffset + (UInt64(l1Size) * 8 + mask) & ~mask
    if l1Size > 0 {
      try require(
        l1End <= refcountTableOffset || refcountTableOffset + tableBytes <= l1TableOffset,
        "l1_table_offset", l1TableOffset, "the L1 table lies over the refcount table")
    }
    if snapshotCount > 0 {
      try require(
        snapshotCount <= 65536, "nb_snapshots", snapshotCount, "must be at most 65536")
      try checkTable("snapshots_offset", snapshotTableOffset, 40, fileSize)
    }
  }

  private func checkEncryption(fileSize: UInt64) throws(BlockImageError) {
    try require(
      isEncrypted == (encryptionByteCount != 0), "crypt_method", isEncrypted ? 2 : 0,
      "must be 2 exactly when there is a full disk encryption header")
    guard isEncrypted else { return }
    try require(
      encryptionByteCount <= LUKSHeader.longest, "encryption header length", encryptionByteCount,
      "must be at most \(LUKSHeader.longest)")
    try checkTable("encryption header offset", encryptionOffset, encryptionByteCount, fileSize)
    guard !isDataFileRaw else {
      throw .unsupported(feature: "encryption with a raw external data file")
    }
  }

  private func checkTable(
    _ field: String, _ offset: UInt64, _ byteCount: UInt64, _ fileSize: UInt64
  ) throws(BlockImageError) {
    try require(
      offset & (clusterSize - 1) == 0, field, offset, "must be a multiple of the cluster size")
    try require(offset != 0, field, offset, "cluster 0 holds the header")
    try require(
      offset <= fileSize && byteCount <= fileSize - offset, field, offset,
      "the table must lie inside the file of \(fileSize) bytes")
  }
}

/// Throws a `malformed` error that names `field` unless `condition` holds.
func require<T: BinaryInteger>(
  _ condition: Bool, _ field: @autoclosure () -> String, _ value: T,
  _ rule: @autoclosure () -> String
) throws(BlockImageError) {
  guard condition else {
    throw .malformed(field: field(), value: UInt64(truncatingIfNeeded: value), rule: rule())
  }
}
