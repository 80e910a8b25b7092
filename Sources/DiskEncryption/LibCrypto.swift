// SPDX-License-Identifier: Apache-2.0

public import BlockImage
internal import CCrypto
internal import Synchronization

/// Bytes that are overwritten when they are no longer needed.
@safe
public struct Secret: ~Copyable, @unchecked Sendable {
  // SAFETY: the memory is this value's alone.
  private let place: UnsafeMutablePointer<UInt8>
  /// How many bytes there are, at least one.
  public let count: Int

  /// Makes a secret of zeros.
  ///
  /// - Precondition: `count` is at least 1.
  public init(count: Int) {
    precondition(count > 0, "a secret without bytes")
    self.count = count
    unsafe place = .allocate(capacity: count)
    unsafe place.initialize(repeating: 0, count: count)
  }

  /// Makes a secret of other bytes.
  ///
  /// - Precondition: There is at least one.
  public init(_ bytes: Span<UInt8>) {
    self.init(count: bytes.count)
    var span = mutableSpan
    for index in 0..<bytes.count { span[index] = bytes[index] }
  }

  deinit {
    // SAFETY: the memory is this value's alone, and of that length.
    unsafe OPENSSL_cleanse(place, count)
    unsafe place.deallocate()
  }

  /// The bytes.
  public var span: Span<UInt8> {
    @_lifetime(borrow self)
    borrowing get {
      // SAFETY: the memory is initialised and lives as long as this value, which the span borrows.
      let span = unsafe Span<UInt8>(_unsafeStart: UnsafePointer(place), count: count)
      return unsafe _overrideLifetime(span, borrowing: self)
    }
  }

  /// The bytes, to be changed.
  public var mutableSpan: MutableSpan<UInt8> {
    @_lifetime(&self)
    mutating get {
      // SAFETY: as above; the span has the value to itself.
      let span = unsafe MutableSpan<UInt8>(_unsafeStart: place, count: count)
      return unsafe _overrideLifetime(span, mutating: &self)
    }
  }
}

/// What libcrypto does for disks.
enum LibCrypto {
  /// Keeps the library from reading its configuration, which a sandbox does not let it.
  static let start: Bool = {
    OPENSSL_init_crypto(
      UInt64(OPENSSL_INIT_NO_LOAD_CONFIG) | UInt64(OPENSSL_INIT_NO_ATEXIT), nil) == 1
  }()

  private static func algorithm(_ hash: LUKSHash) -> OpaquePointer? {
    switch hash {
    case .sha1: unsafe EVP_sha1()
    case .sha224: unsafe EVP_sha224()
    case .sha256: unsafe EVP_sha256()
    case .sha384: unsafe EVP_sha384()
    case .sha512: unsafe EVP_sha512()
    }
  }

  /// Derives a key from a password (PBKDF2 with HMAC, RFC 8018, 5.2); fills `output`.
  static func deriveKey(
    _ password: Span<UInt8>, salt: [UInt8], iterations: UInt32, _ hash: LUKSHash,
    into output: inout MutableSpan<UInt8>
  ) -> Bool {
    guard start, let passwordCount = Int32(exactly: password.count),
      let saltCount = Int32(exactly: salt.count), let rounds = Int32(exactly: iterations),
      let count = Int32(exactly: output.count)
    else { return false }
    // SAFETY: all pointers are used inside the scopes that hand them out, with their counts; a
    // byte is a char.
    return unsafe password.withUnsafeBytes { text in
      unsafe salt.withUnsafeBufferPointer { salt in
        unsafe output.withUnsafeMutableBufferPointer { key in
          unsafe PKCS5_PBKDF2_HMAC(
            text.baseAddress?.assumingMemoryBound(to: CChar.self), passwordCount,
            salt.baseAddress, saltCount, rounds, algorithm(hash), count, key.baseAddress) == 1
        }
      }
    }
  }

  /// Hashes `input`; fills `output`, which has the length of a digest.
  static func digest(_ input: Span<UInt8>, _ hash: LUKSHash, into output: inout MutableSpan<UInt8>)
    -> Bool
  {
    guard start, output.count == hash.byteCount else { return false }
    // SAFETY: both pointers are used inside their scopes; the output has room for the digest.
    return unsafe input.withUnsafeBytes { input in
      unsafe output.withUnsafeMutableBufferPointer { output in
        unsafe EVP_Digest(
          input.baseAddress, input.count, output.baseAddress, nil, algorithm(hash), nil) == 1
      }
    }
  }

  /// Fills `output` with bytes that nobody can guess.
  static func random(into output: inout MutableSpan<UInt8>) -> Bool {
    guard start, let count = Int32(exactly: output.count) else { return false }
    // SAFETY: the pointer is used inside its scope, with its count.
    return unsafe output.withUnsafeMutableBufferPointer {
      unsafe RAND_priv_bytes($0.baseAddress, count) == 1
    }
  }
}

/// AES in XTS mode over sectors of 512 bytes (IEEE 1619); the number of a sector is its tweak.
///
/// Each thread that uses it at the same time has contexts of its own. They overwrite the key when
/// they are freed.
public final class XTSCipher: SectorCipher {
  private let idle: Mutex<[XTSContexts]>
  private let hasNarrowSectors: Bool

  /// Takes a key; there is no cipher for one of another length or with two equal halves.
  ///
  /// - Parameters:
  ///   - key: Two keys of AES-128 or AES-256, one behind the other, which have to differ.
  ///   - hasNarrowSectors: Whether numbers of sectors are cut to 32 bits.
  public init?(key: Span<UInt8>, hasNarrowSectors: Bool = false) {
    guard LibCrypto.start, key.count == 32 || key.count == 64,
      let contexts = XTSContexts(key: key), let first = contexts.copy()
    else { return nil }
    // One pair always stays, for more to be copied from it.
    idle = Mutex([contexts, first])
    self.hasNarrowSectors = hasNarrowSectors
  }

  public func decrypt(_ bytes: inout MutableSpan<UInt8>, sector: UInt64) -> Bool {
    run(&bytes, sector, encrypts: false)
  }

  public func encrypt(_ bytes: inout MutableSpan<UInt8>, sector: UInt64) -> Bool {
    run(&bytes, sector, encrypts: true)
  }

  private func run(_ bytes: inout MutableSpan<UInt8>, _ first: UInt64, encrypts: Bool) -> Bool {
    let taken = idle.withLock { idle in idle.count > 1 ? idle.removeLast() : idle[0].copy() }
    guard let taken else { return false }
    defer { idle.withLock { $0.append(taken) } }
    return taken.run(&bytes, first, encrypts: encrypts, narrow: hasNarrowSectors)
  }
}

/// What the library needs for one thread's work with a key.
@safe
private final class XTSContexts: @unchecked Sendable {
  // SAFETY: used by one thread at a time, which has taken it from the cipher's list.
  private let encryptor: OpaquePointer
  private let decryptor: OpaquePointer

  private init?(_ encryptor: OpaquePointer?, _ decryptor: OpaquePointer?, isReady: Bool) {
    // SAFETY: the contexts are the caller's to give, and freed once.
    guard let encryptor = unsafe encryptor, let decryptor = unsafe decryptor, isReady else {
      unsafe EVP_CIPHER_CTX_free(encryptor)
      unsafe EVP_CIPHER_CTX_free(decryptor)
      return nil
    }
    unsafe self.encryptor = encryptor
    unsafe self.decryptor = decryptor
  }

  convenience init?(key: Span<UInt8>) {
    // SAFETY: a key has the length that the cipher reads.
    let encryptor = unsafe EVP_CIPHER_CTX_new()
    let decryptor = unsafe EVP_CIPHER_CTX_new()
    let isReady = unsafe key.withUnsafeBufferPointer { bytes in
      let kind = unsafe bytes.count == 32 ? EVP_aes_128_xts() : EVP_aes_256_xts()
      return unsafe EVP_CipherInit_ex2(encryptor, kind, bytes.baseAddress, nil, 1, nil) == 1
        && EVP_CipherInit_ex2(decryptor, kind, bytes.baseAddress, nil, 0, nil) == 1
    }
    unsafe self.init(encryptor, decryptor, isReady: isReady)
  }

  /// Makes contexts with the same key.
  func copy() -> XTSContexts? {
    // SAFETY: the library copies between contexts that are both there.
    let newEncryptor = unsafe EVP_CIPHER_CTX_new()
    let newDecryptor = unsafe EVP_CIPHER_CTX_new()
    let isReady =
      unsafe EVP_CIPHER_CTX_copy(newEncryptor, encryptor) == 1
      && EVP_CIPHER_CTX_copy(newDecryptor, decryptor) == 1
    return unsafe XTSContexts(newEncryptor, newDecryptor, isReady: isReady)
  }

  deinit {
    unsafe EVP_CIPHER_CTX_free(encryptor)
    unsafe EVP_CIPHER_CTX_free(decryptor)
  }

  func run(_ bytes: inout MutableSpan<UInt8>, _ first: UInt64, encrypts: Bool, narrow: Bool) -> Bool
  {
    guard bytes.count % 512 == 0 else { return false }
    let context = unsafe encrypts ? encryptor : decryptor
    // SAFETY: each step reads and writes 512 bytes inside the span, in place, which the mode
    // allows; a tweak has the 16 bytes that the cipher reads.
    return unsafe bytes.withUnsafeMutableBufferPointer { buffer in
      guard let start = buffer.baseAddress else { return true }
      for index in 0..<buffer.count / 512 {
        let number = first &+ UInt64(index)
        let sector = narrow ? number & 0xFFFF_FFFF : number
        let tweak: [2 of UInt64] = [sector.littleEndian, 0]
        var count: Int32 = 0
        let place = unsafe start + index * 512
        let isDone = unsafe withUnsafeBytes(of: tweak) { tweak in
          unsafe EVP_CipherInit_ex2(
            context, nil, nil, tweak.baseAddress?.assumingMemoryBound(to: UInt8.self), -1, nil)
            == 1 && EVP_CipherUpdate(context, place, &count, place, 512) == 1
        }
        guard isDone, count == 512 else { return false }
      }
      return true
    }
  }
}
