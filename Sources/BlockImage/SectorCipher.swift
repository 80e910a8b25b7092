// SPDX-License-Identifier: Apache-2.0

/// What encrypts the sectors of a disk; the process supplies one, this module is pure.
///
/// A class, because the key it holds is to be in memory once, and is wiped at the end. Several
/// threads may use it at once.
public protocol SectorCipher: AnyObject, Sendable {
  /// Decrypts whole sectors of 512 bytes, the first of them with the number `sector`.
  ///
  /// - Returns: Whether it was done.
  func decrypt(_ bytes: inout MutableSpan<UInt8>, sector: UInt64) -> Bool

  /// Encrypts whole sectors of 512 bytes, the first of them with the number `sector`.
  ///
  /// - Returns: Whether it was done.
  func encrypt(_ bytes: inout MutableSpan<UInt8>, sector: UInt64) -> Bool
}

extension QCOW2Image where Storage: ~Copyable {
  /// The most bytes that are encrypted at once.
  private static var cipherPiece: Int { 256 << 10 }

  /// The bytes of the whole sectors that `count` bytes from `host` on touch.
  private static func sectors(_ host: UInt64, _ count: Int) -> (head: Int, count: Int) {
    let head = Int(host % 512)
    return (head, (head + count + 511) & ~511)
  }

  /// Reads data that is kept encrypted; sectors count from the start of the file.
  mutating func readEncrypted(
    into part: inout MutableSpan<UInt8>, at host: UInt64, _ cipher: any SectorCipher
  ) throws(BlockImageError) {
    let (head, count) = Self.sectors(host, part.count)
    guard count != part.count else {
      try readAsIs(into: &part, at: host)
      guard cipher.decrypt(&part, sector: host / 512) else { throw .cipherFailed }
      return
    }
    var whole = [UInt8](repeating: 0, count: count)
    var span = whole.mutableSpan
    try readEncrypted(into: &span, at: host - UInt64(head), cipher)
    for index in 0..<part.count { part[index] = span[head + index] }
  }

  /// Writes data encrypted; sectors that are written in part are read first.
  mutating func storeEncrypted(_ bytes: Span<UInt8>, at host: UInt64, _ cipher: any SectorCipher)
    throws(BlockImageError)
  {
    var piece = [UInt8](
      repeating: 0, count: min(Self.cipherPiece, Self.sectors(host, bytes.count).count))
    var done = 0
    while done < bytes.count {
      let place = host + UInt64(done)
      let length = min(bytes.count - done, piece.count - Int(place % 512))
      let (head, count) = Self.sectors(place, length)
      var span = piece.mutableSpan
      var part = span._mutatingExtracting(0..<count)
      if count != length {
        try readEncrypted(into: &part, at: place - UInt64(head), cipher)
      }
      for index in 0..<length { part[head + index] = bytes[done + index] }
      guard cipher.encrypt(&part, sector: place / 512) else { throw .cipherFailed }
      try storeAsIs(part.span, at: place - UInt64(head))
      done += length
    }
  }
}
