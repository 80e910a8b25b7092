// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc
public import Synchronization

/// A shared mapping of a file, with every access checked against its bounds.
///
/// Another process, or the guest, may change the bytes at any time: every method copies.
/// An access outside the mapping is the programmer's mistake and traps; who computes an
/// offset from what a guest or a peer said checks it first.
@safe
public final class Mapping: @unchecked Sendable {
  // SAFETY: the object only holds an address; all accesses go to memory that is shared with
  // others by its nature, and copy in or out, atomically where it matters.
  @usableFromInline let base: UnsafeMutableRawPointer

  /// The length in bytes.
  public let byteCount: Int

  /// What may be done with the pages.
  public enum Protection: Sendable {
    case readOnly
    case readWrite
  }

  /// Maps the first `byteCount` bytes of a file, shared with everybody else who maps it.
  public init(
    _ file: Descriptor, byteCount: Int, _ protection: Protection, offset: UInt64 = 0
  ) throws(SystemError) {
    let bits = protection == .readOnly ? PROT_READ : PROT_READ | PROT_WRITE
    // SAFETY: a new mapping at an address that the kernel chooses overlaps nothing.
    let address = unsafe mmap(nil, byteCount, bits, MAP_SHARED, file.raw, off_t(offset))
    guard let address = unsafe address, unsafe address != MAP_FAILED else {
      throw SystemError("mmap", errno)
    }
    unsafe base = address
    self.byteCount = byteCount
  }

  deinit { _ = unsafe munmap(base, byteCount) }

  /// The address in this process, for KVM's memory slots.
  public var address: UInt64 { unsafe UInt64(UInt(bitPattern: base)) }

  @inlinable
  func check(_ offset: Int, _ count: Int) {
    precondition(
      offset >= 0 && count >= 0 && offset <= byteCount && count <= byteCount - offset,
      "access outside a mapping")
  }

  /// Reads an integer, little-endian as the machine is.
  @inlinable
  public func load<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, at offset: Int) -> T {
    check(offset, MemoryLayout<T>.size)
    // SAFETY: the bounds were checked; any bit pattern is an integer.
    return unsafe base.loadUnaligned(fromByteOffset: offset, as: type)
  }

  /// Writes an integer, little-endian as the machine is.
  @inlinable
  public func store<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at offset: Int) {
    check(offset, MemoryLayout<T>.size)
    // SAFETY: the bounds were checked.
    unsafe base.storeBytes(of: value, toByteOffset: offset, as: T.self)
  }

  /// Copies bytes out.
  public func copy(at offset: Int, into bytes: inout MutableRawSpan) {
    let count = bytes.byteCount
    check(offset, count)
    // SAFETY: the bounds were checked; source and destination are different memory.
    unsafe bytes.withUnsafeMutableBytes {
      guard let start = $0.baseAddress else { return }
      unsafe memcpy(start, base + offset, count)
    }
  }

  /// Copies `count` bytes out into a new array.
  public func bytes(at offset: Int, count: Int) -> [UInt8] {
    check(offset, count)
    return unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      // SAFETY: the bounds were checked and the buffer holds `count` bytes.
      if let start = buffer.baseAddress { unsafe memcpy(start, base + offset, count) }
      filled = count
    }
  }

  /// Lends bytes for reading into, straight from a file.
  ///
  /// The caller shares them with a process that it trusts, and that uses them only when told.
  public func withMutableSpan<Result, Failure: Error>(
    at offset: Int, count: Int,
    _ body: (inout MutableSpan<UInt8>) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    check(offset, count)
    // SAFETY: the bounds were checked; the span ends with the call, and the mapping outlives it.
    var span = unsafe MutableSpan(
      _unsafeStart: (base + offset).assumingMemoryBound(to: UInt8.self), count: count)
    return try body(&span)
  }

  /// Copies bytes in.
  public func copy(_ bytes: RawSpan, to offset: Int) {
    let count = bytes.byteCount
    check(offset, count)
    // SAFETY: the bounds were checked; source and destination are different memory.
    unsafe bytes.withUnsafeBytes {
      guard let start = $0.baseAddress else { return }
      unsafe memcpy(base + offset, start, count)
    }
  }

  /// Copies an array in.
  public func copy(_ bytes: [UInt8], to offset: Int) {
    // SAFETY: bytes are bytes: the view has no padding and outlives the call.
    copy(unsafe bytes.span.bytes, to: offset)
  }

  /// Copies between two mappings.
  public func copy(from other: Mapping, at source: Int, count: Int, to offset: Int) {
    check(offset, count)
    other.check(source, count)
    // SAFETY: the bounds were checked; memmove allows two views of one file.
    unsafe memmove(base + offset, other.base + source, count)
  }

  /// Sets `count` bytes to one value.
  public func fill(_ byte: UInt8, at offset: Int, count: Int) {
    check(offset, count)
    // SAFETY: the bounds were checked.
    unsafe memset(base + offset, Int32(byte), count)
  }

  /// Reads from a file at a position of its own, straight into the mapping.
  ///
  /// Returns how many bytes came; fewer than `count` only at the end of the file.
  public func read(from file: Descriptor, at position: UInt64, count: Int, to offset: Int)
    throws(SystemError) -> Int
  {
    check(offset, count)
    var done = 0
    while done < count {
      // SAFETY: the bounds were checked; the kernel writes within them.
      let got = unsafe pread(
        file.raw, base + offset + done, count - done, off_t(position) + off_t(done))
      if got < 0 && errno == EINTR { continue }
      guard got >= 0 else { throw SystemError("pread", errno) }
      guard got > 0 else { break }
      done += got
    }
    return done
  }

  /// Writes to a file at a position of its own, straight from the mapping.
  public func write(to file: Descriptor, at position: UInt64, count: Int, from offset: Int)
    throws(SystemError)
  {
    check(offset, count)
    var done = 0
    while done < count {
      // SAFETY: the bounds were checked; the kernel only reads.
      let sent = unsafe pwrite(
        file.raw, base + offset + done, count - done, off_t(position) + off_t(done))
      if sent < 0 && errno == EINTR { continue }
      guard sent >= 0 else { throw SystemError("pwrite", errno) }
      done += sent
    }
  }
}

// MARK: - Words that several threads and processes use at once

extension Mapping {
  @inlinable
  func word32(_ offset: Int) -> UnsafeMutablePointer<Atomic<UInt32>> {
    check(offset, 4)
    precondition(offset & 3 == 0, "unaligned atomic")
    // SAFETY: bounds and alignment were checked; Atomic<UInt32> has the layout of UInt32, and
    // every bit pattern is one.
    return unsafe (base + offset).assumingMemoryBound(to: Atomic<UInt32>.self)
  }

  @inlinable
  func word64(_ offset: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
    check(offset, 8)
    precondition(offset & 7 == 0, "unaligned atomic")
    // SAFETY: as for word32.
    return unsafe (base + offset).assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  /// Reads a word; later accesses stay after it.
  @inlinable
  public func acquire32(at offset: Int) -> UInt32 {
    unsafe word32(offset).pointee.load(ordering: .acquiring)
  }

  /// Writes a word; earlier accesses stay before it.
  @inlinable
  public func release32(_ value: UInt32, at offset: Int) {
    unsafe word32(offset).pointee.store(value, ordering: .releasing)
  }

  /// Writes a word, then orders it before every later access of this thread.
  @inlinable
  public func storeSequential32(_ value: UInt32, at offset: Int) {
    unsafe word32(offset).pointee.store(value, ordering: .sequentiallyConsistent)
  }

  /// Reads a word in one order with every ``storeSequential32(_:at:)``.
  @inlinable
  public func loadSequential32(at offset: Int) -> UInt32 {
    unsafe word32(offset).pointee.load(ordering: .sequentiallyConsistent)
  }

  /// Adds to a word and returns the new value.
  @inlinable
  @discardableResult
  public func add32(_ value: UInt32, at offset: Int) -> UInt32 {
    unsafe word32(offset).pointee.wrappingAdd(value, ordering: .sequentiallyConsistent).newValue
  }

  /// Reads a 64-bit word; later accesses stay after it.
  @inlinable
  public func acquire64(at offset: Int) -> UInt64 {
    unsafe word64(offset).pointee.load(ordering: .acquiring)
  }

  /// Writes a 64-bit word; earlier accesses stay before it.
  @inlinable
  public func release64(_ value: UInt64, at offset: Int) {
    unsafe word64(offset).pointee.store(value, ordering: .releasing)
  }

  /// Sleeps while the word at `offset` is `expected`, until woken or `timeout` nanoseconds
  /// are over; may return early for no reason.
  public func wait(at offset: Int, while expected: UInt32, timeout: UInt64?) {
    check(offset, 4)
    let limit = timeout.map { Int64(clamping: $0) } ?? -1
    // SAFETY: the word is inside the mapping; the kernel only compares it.
    _ = unsafe bh_futex_wait(base + offset, expected, limit)
  }

  /// Wakes every thread that sleeps on the word at `offset`.
  public func wake(at offset: Int) {
    check(offset, 4)
    // SAFETY: the word is inside the mapping; the kernel uses its address only.
    _ = unsafe bh_futex_wake(base + offset, Int32.max)
  }
}
