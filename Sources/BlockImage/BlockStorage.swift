// SPDX-License-Identifier: Apache-2.0

/// The bytes an image is kept in: a file, a block device, or memory in a test.
///
/// The image formats do all their I/O through this protocol, so that they hold no
/// descriptors and tests can inject faults. Buffers are spans: a transfer goes from the
/// caller's buffer to the storage without a copy in between.
public protocol BlockStorage: ~Copyable {
  /// The current length in bytes; a write past it makes a growable storage longer.
  var byteCount: UInt64 { get }

  /// Fills `buffer` with the bytes from `offset`; bytes past the end read as zero.
  mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(StorageError)

  /// Writes all of `bytes` at `offset`, growing the storage where it can grow.
  ///
  /// A gap between the old end and `offset` reads as zero afterwards.
  mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError)

  /// Lets the host have the space of `count` bytes from `offset` back.
  ///
  /// They read as zero afterwards, or as before.
  mutating func discard(at offset: UInt64, count: UInt64) throws(StorageError)

  /// Makes everything written so far durable.
  mutating func flush() throws(StorageError)

  /// Makes `count` bytes at `offset` read as zero, growing the storage where it can grow.
  mutating func zero(at offset: UInt64, count: UInt64) throws(StorageError)

  /// Makes the storage `count` bytes long; what is new reads as zero.
  mutating func resize(to count: UInt64) throws(StorageError)
}

extension BlockStorage where Self: ~Copyable {
  /// Writes zeros.
  public mutating func zero(at offset: UInt64, count: UInt64) throws(StorageError) {
    let zeros = [UInt8](repeating: 0, count: Int(min(count, 64 << 10)))
    var done: UInt64 = 0
    while done < count {
      let piece = Int(min(count - done, UInt64(zeros.count)))
      try write(zeros.span.extracting(0..<piece), at: offset + done)
      done += UInt64(piece)
    }
  }

}

extension BlockStorage where Self: ~Copyable {
  /// Keeps what there is.
  public mutating func discard(at offset: UInt64, count: UInt64) throws(StorageError) {}
}

extension BlockStorage where Self: ~Copyable {
  /// Refuses: a storage has the length that it has, unless it says otherwise.
  public mutating func resize(to count: UInt64) throws(StorageError) {
    throw .pastEnd(offset: count)
  }
}

/// Why a storage could not do what it was asked to.
public enum StorageError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The host reported an error; `code` is its errno.
  case failed(code: Int32)
  /// The host has no space left.
  case noSpace
  /// The storage was opened for reading only.
  case readOnly
  /// The storage cannot grow to hold this offset.
  case pastEnd(offset: UInt64)
  /// The storage's length has to be a multiple of so many bytes.
  case misaligned(block: Int)

  public var description: String {
    switch self {
    case .failed(let code): "host error \(code)"
    case .noSpace: "no space left on the host"
    case .readOnly: "the storage is read-only"
    case .pastEnd(let offset): "the storage ends before byte \(offset)"
    case .misaligned(let block): "the length must be a multiple of \(block) bytes"
    }
  }
}
