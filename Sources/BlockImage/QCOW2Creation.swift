// SPDX-License-Identifier: Apache-2.0

/// What a new qcow2 image is to be like.
public struct QCOW2Creation: Equatable, Sendable {
  /// The size of the disk in bytes.
  public var virtualSize: UInt64
  /// 2 or 3.
  public var version: UInt32 = 3
  /// Log 2 of the cluster size, 9 to 21.
  public var clusterBits: UInt32 = 16
  /// Log 2 of the refcount width in bits, 0 to 6.
  public var refcountOrder: UInt32 = 4
  /// Whether writers may leave refcounts behind and mark the image as dirty meanwhile.
  public var hasLazyRefcounts = false
  /// Whether L2 entries say for each 32nd of a cluster whether it is allocated.
  public var hasExtendedL2 = false
  /// How compressed clusters are compressed.
  public var compression = QCOW2Compression.deflate
  /// The name of the backing file as it goes into the image.
  public var backingFileName: String?
  /// The format of the backing file as it goes into the image.
  public var backingFormat: String?
  /// The name of the external data file as it goes into the image.
  public var dataFileName: String?
  /// Whether the external data file alone is to be a whole raw image.
  public var isDataFileRaw = false

  /// The LUKS header of an image that is to be encrypted, with the material of its slots.
  public var encryptionHeader: [UInt8]?

  public init(virtualSize: UInt64) { self.virtualSize = virtualSize }

  /// Bytes in a cluster.
  public var clusterSize: UInt64 { 1 << UInt64(clusterBits) }
  var l2EntrySize: UInt64 { hasExtendedL2 ? 16 : 8 }
  var l2Bits: UInt64 { UInt64(clusterBits) - (hasExtendedL2 ? 4 : 3) }
  var l1Entries: UInt64 {
    let bits = UInt64(clusterBits) + l2Bits
    return virtualSize >> bits + (virtualSize & ((1 << bits) - 1) == 0 ? 0 : 1)
  }

  /// Checks that the parts fit each other.
  ///
  /// - Throws: An error that names the part at fault.
  public func check() throws(BlockImageError) {
    try require(version == 2 || version == 3, "version", version, "must be 2 or 3")
    try require(
      (9...21).contains(clusterBits), "cluster size", clusterSize,
      "must be a power of two from 512 to 2 MiB")
    try require(refcountOrder <= 6, "refcount bits", refcountOrder, "must be 1 to 64")
    let needs3 =
      hasLazyRefcounts || hasExtendedL2 || refcountOrder != 4 || compression != .deflate
      || dataFileName != nil
    try require(
      version == 3 || !needs3, "version", version,
      "lazy refcounts, extended L2 entries, other refcount widths than 16, zstd and external "
        + "data files need version 3 (compat=1.1)")
    try require(
      !hasExtendedL2 || clusterBits >= 14, "cluster size", clusterSize,
      "extended L2 entries need clusters of at least 16 KiB")
    try require(
      !isDataFileRaw || dataFileName != nil, "data_file_raw", 1, "it needs an external data file")
    try require(
      !isDataFileRaw || backingFileName == nil, "data_file_raw", 1,
      "a raw external data file can't have a backing file")
    try require(
      virtualSize <= 1 << 62 && l1Entries * 8 <= QCOW2.largestL1Table, "size", virtualSize,
      "it is too large for this cluster size")
    try require(
      (backingFileName?.utf8.count ?? 0) <= 1023, "backing file name",
      backingFileName?.utf8.count ?? 0, "must be at most 1023 bytes")
    try require(
      encryptionHeader == nil || !isDataFileRaw, "data_file_raw", 1,
      "a raw external data file can't be encrypted")
    _ = try headerBytes(QCOW2Places())
  }

  /// Builds the first cluster of the image, up to where zeros follow.
  func headerBytes(_ places: QCOW2Places) throws(BlockImageError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: version == 2 ? 72 : 112)
    bytes.storeBigEndian(QCOW2.magic, at: 0)
    bytes.storeBigEndian(version, at: 4)
    bytes.storeBigEndian(clusterBits, at: 20)
    bytes.storeBigEndian(virtualSize, at: 24)
    bytes.storeBigEndian(UInt32(l1Entries), at: 36)
    bytes.storeBigEndian(places.l1Table, at: 40)
    bytes.storeBigEndian(places.refcountTable, at: 48)
    bytes.storeBigEndian(places.refcountTableClusters, at: 56)
    bytes.storeBigEndian(UInt32(encryptionHeader == nil ? 0 : 2), at: 32)
    if version == 3 {
      var incompatible: UInt64 = 0
      if dataFileName != nil { incompatible |= QCOW2.externalData }
      if compression != .deflate { incompatible |= QCOW2.compressionType }
      if hasExtendedL2 { incompatible |= QCOW2.extendedL2 }
      bytes.storeBigEndian(incompatible, at: 72)
      bytes.storeBigEndian(hasLazyRefcounts ? QCOW2.lazyRefcounts : 0, at: 80)
      bytes.storeBigEndian(isDataFileRaw ? QCOW2.rawExternalData : 0, at: 88)
      bytes.storeBigEndian(refcountOrder, at: 96)
      bytes.storeBigEndian(UInt32(112), at: 100)
      bytes[104] = compression.rawValue
    }
    var extensions: [(UInt32, [UInt8])] = []
    if let encryptionHeader {
      var field = [UInt8](repeating: 0, count: 16)
      field.storeBigEndian(places.encryption, at: 0)
      field.storeBigEndian(UInt64(encryptionHeader.count), at: 8)
      extensions.append((QCOW2.extensionEncryption, field))
    }
    if let dataFileName { extensions.append((QCOW2.extensionDataFile, Array(dataFileName.utf8))) }
    if version == 3 { extensions.append((QCOW2.extensionFeatureNames, QCOW2.featureNameTable)) }
    return try QCOW2.assembleHeader(
      bytes, extensions, backing: backingFileName, format: backingFormat,
      clusterSize: Int(clusterSize))
  }
}

/// Where the tables of a new image are.
struct QCOW2Places {
  var l1Table: UInt64 = 0
  var refcountTable: UInt64 = 0
  var refcountTableClusters: UInt32 = 0
  /// Where the LUKS header is.
  var encryption: UInt64 = 0
}

extension QCOW2 {
  /// The names of the feature bits, for programs that don't know them ("Feature name table").
  static let featureNameTable: [UInt8] = {
    let names: [(UInt8, UInt8, String)] = [
      (0, 0, "dirty bit"), (0, 1, "corrupt bit"), (0, 2, "external data file"),
      (0, 3, "compression type"), (0, 4, "extended L2 entries"), (1, 0, "lazy refcounts"),
      (2, 0, "bitmaps"), (2, 1, "raw external data"),
    ]
    var bytes: [UInt8] = []
    for (kind, bit, name) in names {
      let text = Array(name.utf8)
      bytes += [kind, bit] + text + [UInt8](repeating: 0, count: 46 - text.count)
    }
    return bytes
  }()

  /// Puts header extensions and the backing file's name behind the fixed part of a header.
  ///
  /// The table of feature names is left out where there is no room for it.
  static func assembleHeader(
    _ fixed: [UInt8], _ extensions: [(UInt32, [UInt8])], backing: String?, format: String?,
    clusterSize: Int
  ) throws(BlockImageError) -> [UInt8] {
    var all = extensions
    if backing != nil, let format {
      all.insert((extensionBackingFormat, Array(format.utf8)), at: 0)
    }
    let name = Array((backing ?? "").utf8)
    while true {
      var bytes = fixed
      for (type, content) in all {
        var field = [UInt8](repeating: 0, count: 8)
        field.storeBigEndian(type, at: 0)
        field.storeBigEndian(UInt32(content.count), at: 4)
        bytes += field + content + [UInt8](repeating: 0, count: (8 - content.count % 8) % 8)
      }
      bytes += [UInt8](repeating: 0, count: 8)
      bytes.storeBigEndian(UInt64(name.isEmpty ? 0 : bytes.count), at: 8)
      bytes.storeBigEndian(UInt32(name.count), at: 16)
      bytes += name
      if bytes.count <= clusterSize { return bytes }
      guard let index = all.firstIndex(where: { $0.0 == extensionFeatureNames }) else {
        throw .malformed(
          field: "header", value: UInt64(bytes.count),
          rule: "with the names of other files it must fit a cluster")
      }
      all.remove(at: index)
    }
  }
}
