// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// Holes of files, and bytes that are zero.
extension Descriptor {
  /// Says whether the byte at `offset` is in a hole, and where that or the data ends (lseek).
  ///
  /// - Throws: When the file system does not know; ENXIO past the end of the file.
  public func extent(at offset: UInt64) throws(SystemError) -> (isHole: Bool, end: UInt64) {
    let data = lseek(raw, off_t(offset), 3 /* SEEK_DATA */)
    if data < 0 {
      guard errno == ENXIO else { throw SystemError("lseek(SEEK_DATA)", errno) }
      // No data follows: a hole up to the end.
      return (true, UInt64.max)
    }
    if UInt64(data) > offset { return (true, UInt64(data)) }
    let hole = lseek(raw, off_t(offset), 4 /* SEEK_HOLE */)
    guard hole >= 0 else { throw SystemError("lseek(SEEK_HOLE)", errno) }
    return (false, UInt64(hole))
  }

  /// Has the host reserve the space of a part of a file, which it grows to hold (fallocate).
  public func reserve(at offset: UInt64, count: UInt64) throws(SystemError) {
    let code = posix_fallocate(raw, off_t(offset), off_t(count))
    guard code == 0 else { throw SystemError("fallocate", code) }
  }

  /// The space that the file takes on its file system, in bytes (st_blocks).
  public func usedSpace() throws(SystemError) -> UInt64 {
    var status = stat()
    // SAFETY: fstat fills the structure it is given.
    guard unsafe fstat(raw, &status) == 0 else { throw SystemError("fstat", errno) }
    return UInt64(max(0, status.st_blocks)) * 512
  }
}

/// Looking at many bytes at once.
public enum Bytes {
  /// Whether all bytes are zero.
  public static func areZero(_ bytes: Span<UInt8>) -> Bool {
    guard bytes.count > 0 else { return true }
    guard bytes[0] == 0, bytes[bytes.count - 1] == 0 else { return false }
    // SAFETY: both ranges lie inside the span, which stays alive for the call.
    return unsafe bytes.withUnsafeBufferPointer {
      guard let start = $0.baseAddress else { return true }
      return unsafe memcmp(start, start + 1, $0.count - 1) == 0
    }
  }

  /// Whether two spans hold the same bytes.
  public static func areEqual(_ left: Span<UInt8>, _ right: Span<UInt8>) -> Bool {
    guard left.count == right.count else { return false }
    // SAFETY: both spans stay alive for the call and are of the count that is compared.
    return unsafe left.withUnsafeBufferPointer { left in
      unsafe right.withUnsafeBufferPointer { right in
        guard let a = left.baseAddress, let b = right.baseAddress else { return true }
        return unsafe memcmp(a, b, left.count) == 0
      }
    }
  }
}

/// The time of day.
public enum Clock {
  /// The time since 1970 (clock_gettime).
  public static func now() -> (seconds: UInt32, nanoseconds: UInt32) {
    var time = timespec()
    // SAFETY: the call fills the structure it is given.
    _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
    return (UInt32(truncatingIfNeeded: time.tv_sec), UInt32(truncatingIfNeeded: time.tv_nsec))
  }
}
