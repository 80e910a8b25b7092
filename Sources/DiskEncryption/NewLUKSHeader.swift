// SPDX-License-Identifier: Apache-2.0

public import BlockImage

extension LUKSHeader {
  /// Makes the header of a new disk, with a key of its own that one password opens.
  ///
  /// It is what qemu-img makes: AES-256 in XTS mode with plain64, SHA-256, and the places of the
  /// eight slots, of which the first is in use.
  ///
  /// - Parameters:
  ///   - password: The password.
  ///   - iterations: What deriving a key from the password takes.
  /// - Returns: The header with the material of all slots.
  /// - Throws: When the library fails.
  public static func make(_ password: borrowing Secret, iterations: UInt32 = usualIterations)
    throws(BlockImageError) -> [UInt8]
  {
    let keyByteCount = 64
    let material = keyByteCount * stripes
    let slotSectors = (material / 512 + 7) & ~7
    var bytes = [UInt8](repeating: 0, count: (8 + 8 * slotSectors) * 512)
    bytes.put(magic, at: 0)
    bytes.put([0, 1], at: 6)
    bytes.put(Array("aes".utf8), at: 8)
    bytes.put(Array("xts-plain64".utf8), at: 40)
    bytes.put(Array(LUKSHash.sha256.rawValue.utf8), at: 72)
    bytes.putNumber(UInt32(bytes.count / 512), at: 104)
    bytes.putNumber(UInt32(keyByteCount), at: 108)
    try bytes.putUUID(at: 168)

    var key = Secret(count: keyByteCount)
    try fill(&key)
    let digestSalt = try randomBytes(32)
    let digestIterations = max(1000, iterations / 8)
    bytes.put(digestSalt, at: 132)
    bytes.putNumber(digestIterations, at: 164)
    var digest = [UInt8](repeating: 0, count: 20)
    var digestSpan = digest.mutableSpan
    guard
      LibCrypto.deriveKey(
        key.span, salt: digestSalt, iterations: digestIterations, .sha256, into: &digestSpan)
    else { throw .cipherFailed }
    bytes.put(digest, at: 112)

    for slot in 0..<8 {
      let place = slotPlace + slot * slotLength
      bytes.putNumber(slot == 0 ? slotInUse : slotUnused, at: place)
      bytes.putNumber(UInt32(8 + slot * slotSectors), at: place + 40)
      bytes.putNumber(UInt32(stripes), at: place + 44)
    }
    let salt = try randomBytes(32)
    bytes.putNumber(iterations, at: slotPlace + 4)
    bytes.put(salt, at: slotPlace + 8)
    bytes.put(
      try lock(key, with: password, salt: salt, iterations: iterations), at: 8 * 512)
    return bytes
  }

  /// What a password's key takes, some tenths of a second.
  public static let usualIterations: UInt32 = 1_000_000

  /// Splits the disk's key and encrypts the stripes with a key made of the password.
  private static func lock(
    _ key: borrowing Secret, with password: borrowing Secret, salt: [UInt8], iterations: UInt32
  ) throws(BlockImageError) -> [UInt8] {
    var slotKey = Secret(count: key.count)
    var output = slotKey.mutableSpan
    guard
      LibCrypto.deriveKey(
        password.span, salt: salt, iterations: iterations, .sha256, into: &output),
      let cipher = XTSCipher(key: slotKey.span)
    else { throw .cipherFailed }
    var material = try AntiForensicSplit.split(key, .sha256)
    var span = material.mutableSpan
    guard cipher.encrypt(&span, sector: 0) else { throw .cipherFailed }
    return (0..<material.count).map { material.span[$0] }
  }

  private static func fill(_ secret: inout Secret) throws(BlockImageError) {
    var span = secret.mutableSpan
    guard LibCrypto.random(into: &span) else { throw .cipherFailed }
  }

  private static func randomBytes(_ count: Int) throws(BlockImageError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var span = bytes.mutableSpan
    guard LibCrypto.random(into: &span) else { throw .cipherFailed }
    return bytes
  }
}

extension AntiForensicSplit {
  /// Splits a key into stripes; ``merge(_:_:into:)`` makes it of them again.
  static func split(_ key: borrowing Secret, _ hash: LUKSHash) throws(BlockImageError) -> Secret {
    let length = key.count
    var material = Secret(count: length * LUKSHeader.stripes)
    let last = length * (LUKSHeader.stripes - 1)
    var mixed = Secret(count: length)
    do {
      var span = material.mutableSpan
      var random = span._mutatingExtracting(0..<last)
      guard LibCrypto.random(into: &random) else { throw .cipherFailed }
    }
    for stripe in 0..<LUKSHeader.stripes - 1 {
      var span = mixed.mutableSpan
      for index in 0..<length { span[index] ^= material.span[stripe * length + index] }
      try diffuse(&span, hash)
    }
    var span = material.mutableSpan
    for index in 0..<length { span[last + index] = mixed.span[index] ^ key.span[index] }
    return material
  }
}

extension [UInt8] {
  fileprivate mutating func put(_ other: [UInt8], at place: Int) {
    replaceSubrange(place..<place + other.count, with: other)
  }

  fileprivate mutating func putNumber(_ value: UInt32, at place: Int) {
    for byte in 0..<4 {
      self[place + byte] = UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * byte))
    }
  }

  /// Puts a random UUID as text (RFC 9562, 5.4).
  fileprivate mutating func putUUID(at place: Int) throws(BlockImageError) {
    var raw = [UInt8](repeating: 0, count: 16)
    var span = raw.mutableSpan
    guard LibCrypto.random(into: &span) else { throw .cipherFailed }
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    for (index, byte) in raw.enumerated() {
      if [4, 6, 8, 10].contains(index) { text.append(0x2D) }
      text += [digits[Int(byte >> 4)], digits[Int(byte & 15)]]
    }
    put(text, at: place)
  }
}
