// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// Transfers straight between a file and a caller's buffer.
extension Descriptor {
  /// Fills `buffer` from `offset`; returns how much, fewer only at the end of the file.
  public func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(SystemError) -> Int
  {
    var done = 0
    var failure: Int32 = 0
    let file = raw
    // SAFETY: the kernel writes only into the rest of the buffer, which outlives the calls.
    unsafe buffer.withUnsafeMutableBufferPointer { buffer in
      while done < buffer.count, let start = buffer.baseAddress {
        let got = unsafe bh_read_at(
          file, start + done, buffer.count - done, Int64(offset) + Int64(done), 0)
        if got == -Int64(EINTR) { continue }
        if got < 0 { failure = Int32(-got) }
        guard got > 0 else { break }
        done += Int(got)
      }
    }
    guard failure == 0 else { throw SystemError("preadv2", failure) }
    return done
  }

  /// Fills `buffer` from `offset` when the host has all of it in its page cache (RWF_NOWAIT).
  ///
  /// Where it has not, or the file system cannot say, the buffer holds anything.
  public func readCached(into buffer: inout MutableSpan<UInt8>, at offset: UInt64) -> Bool {
    let file = raw
    let count = buffer.count
    // SAFETY: the kernel writes only into the buffer, which outlives the call.
    return unsafe buffer.withUnsafeMutableBufferPointer { buffer in
      unsafe bh_read_at(file, buffer.baseAddress, count, Int64(offset), 8 /* RWF_NOWAIT */)
        == Int64(count)
    }
  }

  /// Reads some bytes from a stream; returns how many, 0 at its end.
  public func read(into buffer: inout MutableSpan<UInt8>) throws(SystemError) -> Int {
    let file = raw
    // SAFETY: the kernel writes only into the buffer, which outlives the call.
    return try unsafe buffer.withUnsafeMutableBufferPointer { (buffer) throws(SystemError) in
      while true {
        let got = unsafe Glibc.read(file, buffer.baseAddress, buffer.count)
        if got < 0 && errno == EINTR { continue }
        guard got >= 0 else { throw SystemError("read", errno) }
        return got
      }
    }
  }

  /// Writes all of `bytes` at `offset`.
  public func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(SystemError) {
    // SAFETY: bytes are bytes: the view has no padding and outlives the call.
    try write(unsafe bytes.bytes, at: offset)
  }
}

extension SystemError {
  /// Whether the file system or the quota is full (ENOSPC, EDQUOT).
  public var isOutOfSpace: Bool { number == ENOSPC || number == EDQUOT }

  /// Whether this file or file system cannot do what was asked (EOPNOTSUPP, ENOSYS).
  public var isUnsupported: Bool { number == EOPNOTSUPP || number == ENOSYS }
}
