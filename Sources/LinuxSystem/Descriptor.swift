// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// An open file description that this process owns and closes when nothing refers to it.
public final class Descriptor: Sendable {
  /// The number in this process's table; valid as long as the object lives.
  public let raw: Int32

  /// Takes over `raw`, which nobody else may close.
  public init(owning raw: Int32) { self.raw = raw }

  deinit { close(raw) }

  /// Opens a path, close-on-exec.
  public static func open(_ path: String, _ flags: Int32, mode: UInt32 = 0o600)
    throws(SystemError) -> Descriptor
  {
    // SAFETY: the path is a NUL-terminated copy that outlives the call.
    let result = unsafe Glibc.open(path, flags | O_CLOEXEC, mode)
    guard result >= 0 else { throw SystemError("open \(path)", errno) }
    return Descriptor(owning: result)
  }

  /// Makes reads and writes return EAGAIN instead of waiting, or the reverse.
  public func setNonBlocking(_ on: Bool) throws(SystemError) {
    let flags = try SystemError.check("fcntl(F_GETFL)", bh_fcntl(raw, F_GETFL, 0))
    let new = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK
    _ = try SystemError.check("fcntl(F_SETFL)", bh_fcntl(raw, F_SETFL, Int(new)))
  }

  /// The size of the file in bytes (fstat).
  public func size() throws(SystemError) -> UInt64 {
    var status = stat()
    // SAFETY: fstat fills the structure it is given.
    guard unsafe fstat(raw, &status) == 0 else { throw SystemError("fstat", errno) }
    return UInt64(max(0, status.st_size))
  }

  /// The kind of the file: the S_IFMT bits of st_mode.
  public func kind() throws(SystemError) -> UInt32 {
    var status = stat()
    // SAFETY: fstat fills the structure it is given.
    guard unsafe fstat(raw, &status) == 0 else { throw SystemError("fstat", errno) }
    return status.st_mode & S_IFMT
  }

  /// Sets the size of the file in bytes.
  public func truncate(to size: UInt64) throws(SystemError) {
    guard ftruncate(raw, off_t(size)) == 0 else { throw SystemError("ftruncate", errno) }
  }

  /// Lets the file system have the space of `count` bytes from `offset` back; they read as zero
  /// afterwards, and the file is as long as before.
  public func punchHole(at offset: UInt64, count: UInt64) throws(SystemError) {
    guard let offset = Int64(exactly: offset), let count = Int64(exactly: count) else {
      throw SystemError("fallocate", EFBIG)
    }
    _ = try SystemError.check("fallocate", bh_punch_hole(raw, offset, count))
  }

  /// Reads at most `count` bytes; an empty array is the end of the file.
  public func read(_ count: Int) throws(SystemError) -> [UInt8] {
    var failure: Int32 = 0
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      // SAFETY: the kernel writes at most `count` bytes into a buffer of that capacity.
      let got = unsafe Glibc.read(raw, buffer.baseAddress, count)
      filled = max(0, got)
      failure = got < 0 ? errno : 0
    }
    guard failure == 0 else { throw SystemError("read", failure) }
    return bytes
  }

  /// Reads exactly `count` bytes from `offset`, fewer only at the end of the file.
  public func read(_ count: Int, at offset: UInt64) throws(SystemError) -> [UInt8] {
    var failure: Int32 = 0
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      filled = 0
      while filled < count {
        // SAFETY: the rest of the buffer has `count - filled` bytes.
        let got = unsafe pread(
          raw, buffer.baseAddress.map { unsafe $0 + filled }, count - filled,
          off_t(offset) + off_t(filled))
        if got < 0 && errno == EINTR { continue }
        if got < 0 { failure = errno }
        guard got > 0 else { break }
        filled += got
      }
    }
    guard failure == 0 else { throw SystemError("pread", failure) }
    return bytes
  }

  /// Writes some of `bytes` and returns how many; waits unless the descriptor is non-blocking.
  public func write(_ bytes: RawSpan) throws(SystemError) -> Int {
    // SAFETY: the span's bytes stay valid for the call.
    let sent = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(raw, $0.baseAddress, $0.count) }
    guard sent >= 0 else { throw SystemError("write", errno) }
    return sent
  }

  /// Writes all of `bytes`, going on after signals and partial writes.
  public func writeAll(_ bytes: RawSpan) throws(SystemError) {
    var done = 0
    while done < bytes.byteCount {
      do {
        done += try write(bytes.extracting(done..<bytes.byteCount))
      } catch  where error.isInterrupted {
        continue
      }
    }
  }

  /// Writes all of `bytes` at `offset`.
  public func write(_ bytes: RawSpan, at offset: UInt64) throws(SystemError) {
    var done = 0
    while done < bytes.byteCount {
      let rest = bytes.extracting(done..<bytes.byteCount)
      // SAFETY: the span's bytes stay valid for the call.
      let sent = unsafe rest.withUnsafeBytes {
        unsafe pwrite(raw, $0.baseAddress, $0.count, off_t(offset) + off_t(done))
      }
      if sent < 0 && errno == EINTR { continue }
      guard sent >= 0 else { throw SystemError("pwrite", errno) }
      done += sent
    }
  }

  /// Writes some of an array and returns how many bytes.
  public func write(_ bytes: [UInt8]) throws(SystemError) -> Int {
    // SAFETY: bytes are bytes: the view has no padding and outlives the call.
    try write(unsafe bytes.span.bytes)
  }

  /// Writes all of an array.
  public func writeAll(_ bytes: [UInt8]) throws(SystemError) {
    // SAFETY: as above.
    try writeAll(unsafe bytes.span.bytes)
  }

  /// Writes all of an array at `offset`.
  public func write(_ bytes: [UInt8], at offset: UInt64) throws(SystemError) {
    // SAFETY: as above.
    try write(unsafe bytes.span.bytes, at: offset)
  }

  /// Flushes data and what is needed to read it back (fdatasync).
  public func synchronize() throws(SystemError) {
    guard fdatasync(raw) == 0 else { throw SystemError("fdatasync", errno) }
  }

  /// Calls an ioctl whose argument is an integer.
  @discardableResult
  public func control(_ name: @autoclosure () -> String, _ request: UInt, _ argument: UInt = 0)
    throws(SystemError) -> Int32
  {
    try SystemError.check(name(), bh_ioctl(raw, request, argument))
  }

  /// Calls an ioctl whose argument is a structure, read and written by the kernel.
  ///
  /// - Precondition: `request` is one whose argument has the layout of `T`.
  @discardableResult
  public func control<T: BitwiseCopyable>(
    _ name: @autoclosure () -> String, _ request: UInt, _ argument: inout T
  ) throws(SystemError) -> Int32 {
    // SAFETY: the request's argument has T's layout (the caller's promise), so the kernel
    // stays within the value.
    let result = unsafe withUnsafeMutableBytes(of: &argument) {
      unsafe bh_ioctl_pointer(raw, request, $0.baseAddress)
    }
    return try SystemError.check(name(), result)
  }

  /// Calls an ioctl whose argument is a structure with a tail, as bytes.
  ///
  /// - Precondition: `bytes` is as long as the request and the counts inside it say.
  @discardableResult
  public func control(_ name: @autoclosure () -> String, _ request: UInt, bytes: inout [UInt8])
    throws(SystemError) -> Int32
  {
    // SAFETY: the array is as long as the counts inside it say (the caller's promise).
    let result = unsafe bytes.withUnsafeMutableBytes {
      unsafe bh_ioctl_pointer(raw, request, $0.baseAddress)
    }
    return try SystemError.check(name(), result)
  }
}

extension Descriptor {
  /// Moves bytes from this pipe to `output` inside the kernel (splice).
  ///
  /// What has left the pipe has reached the output, and nothing else has, even when the
  /// process is killed at that moment.
  public func splice(to output: Descriptor, count: Int) throws(SystemError) -> Int {
    // SPLICE_F_NONBLOCK, for the pipe's side.
    Int(try SystemError.check("splice", bh_splice(raw, output.raw, count, 2)))
  }

  /// How many bytes can be read without waiting (FIONREAD).
  public func readableCount() throws(SystemError) -> Int {
    var count: Int32 = 0
    try control("ioctl(FIONREAD)", 0x541B, &count)
    return Int(count)
  }

  /// Makes a pipe, reading end first.
  public static func pipe() throws(SystemError) -> (reading: Descriptor, writing: Descriptor) {
    var ends: (Int32, Int32) = (0, 0)
    // SAFETY: the tuple has the layout of int[2].
    let result = unsafe withUnsafeMutableBytes(of: &ends) {
      guard let start = $0.baseAddress else { return Int32(-1) }
      return unsafe Glibc.pipe(start.assumingMemoryBound(to: Int32.self))
    }
    guard result == 0 else { throw SystemError("pipe", errno) }
    let pair = (Descriptor(owning: ends.0), Descriptor(owning: ends.1))
    for end in [pair.0, pair.1] {
      _ = try SystemError.check("fcntl(F_SETFD)", bh_fcntl(end.raw, F_SETFD, Int(FD_CLOEXEC)))
    }
    return pair
  }
}
