// SPDX-License-Identifier: Apache-2.0

/// The hash functions of LUKS headers, by the names that these give.
public enum LUKSHash: String, Sendable, CaseIterable {
  case sha1
  case sha224
  case sha256
  case sha384
  case sha512

  /// Bytes in a digest.
  public var byteCount: Int {
    switch self {
    case .sha1: 20
    case .sha224: 28
    case .sha256: 32
    case .sha384: 48
    case .sha512: 64
    }
  }
}

/// A header of LUKS version 1, checked ("LUKS1 On-Disk Format Specification", 1.2.3).
///
/// What opening it costs is bounded: the key has at most 64 bytes, a slot's material at most
/// 250 KiB, and all iterations together are at most ``mostIterations``.
public struct LUKSHeader: Equatable, Sendable {
  /// One of the eight places that hold the key, each under a password of its own.
  public struct Slot: Equatable, Sendable {
    public var iterations: UInt32
    public var salt: [UInt8]
    /// Where its material begins, in bytes from the header's start.
    public var offset: UInt64
  }

  /// Whether sectors are numbered with 32 bits ("plain") instead of 64 ("plain64").
  public var hasNarrowSectors: Bool
  public var hash: LUKSHash
  /// The length of the disk's key: 32 or 64, for AES-128 and AES-256 in XTS mode.
  public var keyByteCount: Int
  /// What tells whether a key is the disk's.
  public var digest: [UInt8]
  public var digestSalt: [UInt8]
  public var digestIterations: UInt32
  /// The slots that are in use.
  public var slots: [Slot]

  /// The length of the fixed part in bytes.
  public static let byteCount = 592
  /// How many pieces a key is split into; no program uses another number.
  public static let stripes = 4000
  /// The most iterations of one slot, and of the digest.
  public static let mostSlotIterations: UInt32 = 1 << 24
  /// The most iterations of all slots and the digest together: some ten seconds of work.
  public static let mostIterations: UInt64 = 1 << 25
  /// The longest header with the material of its slots, in bytes.
  public static let longest: UInt64 = 8 << 20

  /// The first bytes of a header.
  public static let magic: [UInt8] = [0x4C, 0x55, 0x4B, 0x53, 0xBA, 0xBE]
  /// The state of a slot that holds the key.
  public static let slotInUse: UInt32 = 0x00AC_71F3
  /// The state of a slot that does not.
  public static let slotUnused: UInt32 = 0x0000_DEAD
  /// Where the first slot is described.
  public static let slotPlace = 208
  /// The length of a slot's description.
  public static let slotLength = 48

  /// The length of a slot's material in bytes.
  public var materialByteCount: Int { keyByteCount * Self.stripes }

  /// Checks a header.
  ///
  /// - Parameters:
  ///   - bytes: Its fixed part.
  ///   - length: How long it is with the material of its slots.
  /// - Throws: An error that names the field at fault.
  public init(_ bytes: [UInt8], length: UInt64) throws(BlockImageError) {
    try require(
      bytes.count >= Self.byteCount, "LUKS header length", bytes.count,
      "must be at least \(Self.byteCount)")
    guard bytes.starts(with: Self.magic) else { throw .wrongFormat(expected: "LUKS") }
    let version = UInt64(bytes[6]) << 8 | UInt64(bytes[7])
    guard version == 1 else { throw .unsupported(feature: "LUKS version \(version)") }
    let cipher = try Self.name(bytes, at: 8, "LUKS cipher-name")
    let mode = try Self.name(bytes, at: 40, "LUKS cipher-mode")
    guard cipher == "aes", mode == "xts-plain64" || mode == "xts-plain" else {
      throw .unsupported(feature: "LUKS encryption with \(cipher)-\(mode)")
    }
    hasNarrowSectors = mode == "xts-plain"
    let hashName = try Self.name(bytes, at: 72, "LUKS hash-spec")
    guard let hash = LUKSHash(rawValue: hashName) else {
      throw .unsupported(feature: "LUKS encryption with the hash \(hashName)")
    }
    self.hash = hash
    keyByteCount = Int(bytes.bigEndian32(at: 108))
    try require(
      keyByteCount == 32 || keyByteCount == 64, "LUKS key-bytes", keyByteCount,
      "must be 32 or 64 for AES in XTS mode")
    digest = Array(bytes[112..<132])
    digestSalt = Array(bytes[132..<164])
    digestIterations = bytes.bigEndian32(at: 164)
    try Self.checkIterations(digestIterations, "LUKS mk-digest-iter")
    slots = []
    for index in 0..<8 { try parseSlot(bytes, index, length: length) }
    try checkWork()
  }

  private mutating func parseSlot(_ bytes: [UInt8], _ index: Int, length: UInt64)
    throws(BlockImageError)
  {
    let place = Self.slotPlace + index * Self.slotLength
    let state = bytes.bigEndian32(at: place)
    try require(
      state == Self.slotInUse || state == Self.slotUnused, "LUKS key slot \(index) active", state,
      "must be 0x\(String(Self.slotInUse, radix: 16)) or 0x\(String(Self.slotUnused, radix: 16))")
    guard state == Self.slotInUse else { return }
    let iterations = bytes.bigEndian32(at: place + 4)
    try Self.checkIterations(iterations, "LUKS key slot \(index) iterations")
    let stripes = bytes.bigEndian32(at: place + 44)
    try require(
      stripes == Self.stripes, "LUKS key slot \(index) stripes", stripes,
      "must be \(Self.stripes)")
    let offset = UInt64(bytes.bigEndian32(at: place + 40)) * 512
    try require(
      offset >= Self.byteCount && offset <= length
        && UInt64(materialByteCount) <= length - offset,
      "LUKS key slot \(index) key-material-offset", offset / 512,
      "the material must lie behind the header, inside its \(length) bytes")
    slots.append(
      Slot(iterations: iterations, salt: Array(bytes[place + 8..<place + 40]), offset: offset))
  }

  private func checkWork() throws(BlockImageError) {
    let ranges = slots.map { $0.offset..<$0.offset + UInt64(materialByteCount) }
      .sorted { $0.lowerBound < $1.lowerBound }
    for (left, right) in zip(ranges, ranges.dropFirst()) {
      try require(
        left.upperBound <= right.lowerBound, "LUKS key-material-offset", right.lowerBound / 512,
        "the material of two key slots overlaps")
    }
    let work = slots.reduce(UInt64(digestIterations) * UInt64(slots.count)) {
      $0 + UInt64($1.iterations)
    }
    try require(
      work <= Self.mostIterations, "LUKS iterations", work,
      "all key slots together may take at most \(Self.mostIterations)")
  }

  private static func checkIterations(_ count: UInt32, _ field: String) throws(BlockImageError) {
    try require(
      count >= 1 && count <= mostSlotIterations, field, count,
      "must be 1 to \(mostSlotIterations)")
  }

  /// Reads a name of at most 31 characters that a zero byte ends.
  private static func name(_ bytes: [UInt8], at place: Int, _ field: String)
    throws(BlockImageError) -> String
  {
    let text = bytes[place..<place + 32].prefix { $0 != 0 }
    try require(
      text.count < 32 && text.allSatisfy { (0x20..<0x7F).contains($0) }, field, place,
      "must be printable text that a zero byte ends")
    return String(decoding: text, as: UTF8.self)
  }
}

extension QCOW2Header {
  /// Reads the LUKS header of an encrypted image.
  ///
  /// - Parameter storage: The image file.
  /// - Returns: The header.
  /// - Throws: An error that names the field at fault.
  public func encryptionHeader<Storage: BlockStorage & ~Copyable>(on storage: inout Storage)
    throws(BlockImageError) -> LUKSHeader
  {
    var bytes = [UInt8](repeating: 0, count: LUKSHeader.byteCount)
    try storage.fill(&bytes, at: encryptionOffset)
    return try LUKSHeader(bytes, length: encryptionByteCount)
  }
}
