// SPDX-License-Identifier: Apache-2.0

/// A name that an image gives to one of its feature bits.
public struct QCOW2FeatureName: Equatable, Sendable {
  /// 0 incompatible, 1 compatible, 2 autoclear.
  public var kind: UInt8
  /// The number of the bit.
  public var bit: UInt8
  /// The name, of at most 46 bytes.
  public var name: String
}

extension QCOW2Header {
  /// Reads the header extensions ("Header extensions" in the specification).
  mutating func parseExtensions(_ first: [UInt8], backingOffset: UInt64) throws(BlockImageError) {
    // The backing file's name may follow the extensions; they end where it starts.
    let end =
      backingOffset != 0 && backingOffset < UInt64(first.count) ? Int(backingOffset) : first.count
    var position = Int(headerLength)
    while position + 8 <= end {
      let type = first.bigEndian32(at: position)
      let length = Int(first.bigEndian32(at: position + 4))
      if type == QCOW2.extensionEnd { return }
      position += 8
      try require(
        length <= end - position, "header extension 0x\(String(type, radix: 16)) length", length,
        "the extension must fit the first cluster")
      let range = position..<position + length
      switch type {
      case QCOW2.extensionBackingFormat:
        try require(length <= 15, "backing format name length", length, "must be at most 15")
        backingFormat = String(decoding: first[range], as: UTF8.self)
      case QCOW2.extensionFeatureNames: parseFeatureNames(first, range)
      case QCOW2.extensionEncryption:
        try require(length == 16, "encryption extension length", length, "must be 16")
        encryptionOffset = first.bigEndian64(at: position)
        encryptionByteCount = first.bigEndian64(at: position + 8)
        try require(
          encryptionByteCount > 0, "encryption header length", encryptionByteCount, "must not be 0")
      case QCOW2.extensionDataFile:
        try require(
          length > 0 && length <= 1023, "data file name length", length, "must be 1 to 1023")
        dataFileName = String(validating: first[range], as: UTF8.self)
        try require(
          dataFileName?.utf8.contains(0) == false, "data file name", position,
          "must be UTF-8 without a zero byte")
      case QCOW2.extensionBitmaps: try parseBitmaps(first, range)
      default: break
      }
      position += (length + 7) & ~7
    }
  }

  /// Reads where the bitmap directory is ("Bitmaps extension"); it counts with its autoclear bit.
  private mutating func parseBitmaps(_ first: [UInt8], _ range: Range<Int>)
    throws(BlockImageError)
  {
    try require(range.count >= 24, "bitmaps extension length", range.count, "must be 24")
    let size = first.bigEndian64(at: range.lowerBound + 8)
    let offset = first.bigEndian64(at: range.lowerBound + 16)
    guard autoclearFeatures & QCOW2.bitmaps != 0 else { return }
    try require(
      size <= QCOW2.largestBitmapDirectory, "bitmap_directory_size", size,
      "must be at most \(QCOW2.largestBitmapDirectory)")
    try require(
      offset & (clusterSize - 1) == 0 && offset != 0 && offset < 1 << 56,
      "bitmap_directory_offset", offset, "must be a multiple of the cluster size below 2^56")
    bitmapDirectoryOffset = offset
    bitmapDirectorySize = size
  }

  private mutating func parseFeatureNames(_ first: [UInt8], _ range: Range<Int>) {
    var position = range.lowerBound
    while position + 48 <= range.upperBound {
      let text = first[position + 2..<position + 48].prefix { $0 != 0 }
      featureNames.append(
        QCOW2FeatureName(
          kind: first[position], bit: first[position + 1],
          name: String(decoding: text, as: UTF8.self)))
      position += 48
    }
  }

  /// Reads the name of the backing file, of at most 1023 bytes in the first cluster.
  mutating func parseBackingName(_ first: [UInt8], offset: UInt64, length: UInt32)
    throws(BlockImageError)
  {
    guard offset != 0 else { return }
    try require(
      offset >= UInt64(headerLength), "backing_file_offset", offset,
      "must lie behind the header")
    try require(length <= 1023, "backing_file_size", length, "must be at most 1023")
    try require(length > 0, "backing_file_size", length, "must not be 0")
    try require(
      offset < UInt64(first.count) && UInt64(length) <= UInt64(first.count) - offset,
      "backing_file_offset", offset, "the name must lie inside the first cluster")
    let bytes = first[Int(offset)..<Int(offset) + Int(length)]
    try require(!bytes.contains(0), "backing file name", offset, "must not hold a zero byte")
    guard let name = String(validating: bytes, as: UTF8.self) else {
      throw .malformed(field: "backing file name", value: offset, rule: "it must be UTF-8")
    }
    backingFileName = name
  }

  /// Refuses incompatible features by name.
  func checkFeatures() throws(BlockImageError) {
    let unknown = incompatibleFeatures & ~QCOW2.knownIncompatible
    guard unknown != 0 else { return }
    let bit = unknown.trailingZeroBitCount
    let name = featureNames.first { $0.kind == 0 && Int($0.bit) == bit }?.name
    throw .unsupported(
      feature: name.map { "the feature \"\($0)\"" } ?? "incompatible feature bit \(bit)")
  }
}

/// Numbers of the qcow2 format.
enum QCOW2 {
  static let magic: UInt32 = 0x5146_49FB

  static let dirty: UInt64 = 1 << 0
  static let corrupt: UInt64 = 1 << 1
  static let externalData: UInt64 = 1 << 2
  static let compressionType: UInt64 = 1 << 3
  static let extendedL2: UInt64 = 1 << 4
  static let knownIncompatible = dirty | corrupt | externalData | compressionType | extendedL2

  static let lazyRefcounts: UInt64 = 1 << 0
  static let bitmaps: UInt64 = 1 << 0
  static let rawExternalData: UInt64 = 1 << 1

  static let extensionEnd: UInt32 = 0
  static let extensionBackingFormat: UInt32 = 0xE279_2ACA
  static let extensionFeatureNames: UInt32 = 0x6803_F857
  static let extensionEncryption: UInt32 = 0x0537_BE77
  static let extensionDataFile: UInt32 = 0x4441_5441

  static let extensionBitmaps: UInt32 = 0x2385_2875

  /// The largest active L1 table, in bytes, as QEMU has it.
  static let largestL1Table: UInt64 = 32 << 20
  /// The largest refcount table, in bytes, as QEMU has it.
  static let largestRefcountTable: UInt64 = 8 << 20
  /// The largest directory of bitmaps, in bytes: 65535 of 1 KiB.
  static let largestBitmapDirectory: UInt64 = 64 << 20
  /// The largest snapshot table, in bytes, as QEMU has it.
  static let largestSnapshotTable: UInt64 = 64 << 20
  /// How many images may lie below one another.
  static let largestDepth = 64

  /// The refcount is exactly one: the cluster may be written in place.
  static let copied: UInt64 = 1 << 63
  static let compressed: UInt64 = 1 << 62
  static let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00
  static let readsAsZero: UInt64 = 1
  /// Bits of an L1 entry and a refcount table entry's neighbours that must be zero.
  static let reservedL1: UInt64 = ~(copied | offsetMask)
  static let reservedL2: UInt64 = ~(copied | compressed | offsetMask | readsAsZero)
}

extension [UInt8] {
  /// Returns the big-endian 32-bit number at `position`.
  func bigEndian32(at position: Int) -> UInt32 {
    UInt32(self[position]) << 24 | UInt32(self[position + 1]) << 16
      | UInt32(self[position + 2]) << 8 | UInt32(self[position + 3])
  }

  /// Returns the big-endian 64-bit number at `position`.
  func bigEndian64(at position: Int) -> UInt64 {
    UInt64(bigEndian32(at: position)) << 32 | UInt64(bigEndian32(at: position + 4))
  }

  /// Stores `value` big-endian at `position`.
  mutating func storeBigEndian<T: FixedWidthInteger>(_ value: T, at position: Int) {
    for index in 0..<T.bitWidth / 8 {
      self[position + index] = UInt8(
        truncatingIfNeeded: value >> (T.bitWidth - 8 - 8 * index))
    }
  }
}

extension BlockStorage where Self: ~Copyable {
  /// Fills `bytes` from `offset`.
  mutating func fill(_ bytes: inout [UInt8], at offset: UInt64) throws(BlockImageError) {
    var span = bytes.mutableSpan
    do throws(StorageError) { try read(into: &span, at: offset) } catch { throw .storage(error) }
  }

  /// Fills a range of `bytes` from `offset`.
  mutating func fill(_ bytes: inout [UInt8], _ range: Range<Int>, at offset: UInt64)
    throws(BlockImageError)
  {
    var span = bytes.mutableSpan
    var part = span._mutatingExtracting(range)
    do throws(StorageError) { try read(into: &part, at: offset) } catch { throw .storage(error) }
  }

  /// Writes all of `bytes` at `offset`.
  mutating func store(_ bytes: [UInt8], at offset: UInt64) throws(BlockImageError) {
    try store(bytes.span, at: offset)
  }

  /// Writes all of `bytes` at `offset`.
  mutating func store(_ bytes: Span<UInt8>, at offset: UInt64) throws(BlockImageError) {
    do throws(StorageError) { try write(bytes, at: offset) } catch { throw .storage(error) }
  }
}
