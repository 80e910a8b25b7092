// SPDX-License-Identifier: Apache-2.0

public import BlockImage

extension LUKSHeader {
  /// Opens the disk's key with a password and makes the cipher of the disk from it.
  ///
  /// Each slot in use is tried in turn; that takes as long as their iterations say.
  ///
  /// - Parameters:
  ///   - password: The password.
  ///   - start: Where the header starts in the file.
  ///   - storage: The image file, for the material of the slots.
  /// - Returns: The cipher.
  /// - Throws: `wrongKey` when the password opens no slot.
  public func unlock<Storage: BlockStorage & ~Copyable>(
    _ password: borrowing Secret, at start: UInt64, on storage: inout Storage
  ) throws(BlockImageError) -> XTSCipher {
    for slot in slots {
      var key = Secret(count: keyByteCount)
      try open(slot, password, at: start, on: &storage, into: &key)
      guard try isRight(key) else { continue }
      guard let cipher = XTSCipher(key: key.span, hasNarrowSectors: hasNarrowSectors) else {
        throw .unsupported(feature: "an XTS key of two equal halves")
      }
      return cipher
    }
    throw .wrongKey
  }

  /// Decrypts a slot's material and merges it into what is the key if the password is right.
  private func open<Storage: BlockStorage & ~Copyable>(
    _ slot: Slot, _ password: borrowing Secret, at start: UInt64, on storage: inout Storage,
    into key: inout Secret
  ) throws(BlockImageError) {
    var slotKey = Secret(count: keyByteCount)
    var output = slotKey.mutableSpan
    guard
      LibCrypto.deriveKey(
        password.span, salt: slot.salt, iterations: slot.iterations, hash, into: &output)
    else { throw .cipherFailed }
    var material = Secret(count: materialByteCount)
    var span = material.mutableSpan
    do throws(StorageError) { try storage.read(into: &span, at: start + slot.offset) } catch {
      throw .storage(error)
    }
    // The key of a slot has halves that differ but for a chance of 2^-128.
    guard let cipher = XTSCipher(key: slotKey.span, hasNarrowSectors: hasNarrowSectors),
      cipher.decrypt(&span, sector: 0)
    else { throw .cipherFailed }
    try AntiForensicSplit.merge(material, hash, into: &key)
  }

  /// Whether a key is the disk's.
  private func isRight(_ key: borrowing Secret) throws(BlockImageError) -> Bool {
    var found = [UInt8](repeating: 0, count: digest.count)
    var span = found.mutableSpan
    guard
      LibCrypto.deriveKey(
        key.span, salt: digestSalt, iterations: digestIterations, hash, into: &span)
    else { throw .cipherFailed }
    return zip(found, digest).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
  }
}

/// The split of a key into stripes that are all needed (LUKS1 specification, 2.4).
enum AntiForensicSplit {
  /// Merges the stripes of `material` into `key`, which has the length of one.
  static func merge(_ material: borrowing Secret, _ hash: LUKSHash, into key: inout Secret)
    throws(BlockImageError)
  {
    let length = key.count
    var span = key.mutableSpan
    span.update(repeating: 0)
    for stripe in 0..<material.count / length {
      let part = material.span.extracting(stripe * length..<(stripe + 1) * length)
      for index in 0..<length { span[index] ^= part[index] }
      guard (stripe + 1) * length < material.count else { return }
      try diffuse(&span, hash)
    }
  }

  /// Replaces each piece of a digest's length by the digest of its number and itself.
  static func diffuse(_ bytes: inout MutableSpan<UInt8>, _ hash: LUKSHash)
    throws(BlockImageError)
  {
    var input = Secret(count: 4 + hash.byteCount)
    var output = Secret(count: hash.byteCount)
    var start = 0
    while start < bytes.count {
      let count = min(hash.byteCount, bytes.count - start)
      var source = input.mutableSpan
      let number = UInt32(start / hash.byteCount)
      for index in 0..<4 {
        source[index] = UInt8(truncatingIfNeeded: number >> UInt32(24 - 8 * index))
      }
      for index in 0..<count { source[4 + index] = bytes[start + index] }
      var target = output.mutableSpan
      guard LibCrypto.digest(input.span.extracting(0..<4 + count), hash, into: &target) else {
        throw .cipherFailed
      }
      for index in 0..<count { bytes[start + index] = output.span[index] }
      start += count
    }
  }
}
