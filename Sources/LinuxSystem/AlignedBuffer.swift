// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// Memory that begins at a page, for transfers that pass the host's page cache (O_DIRECT).
@safe
public final class AlignedBuffer: @unchecked Sendable {
  // SAFETY: the memory is this object's alone; who shares the object keeps its users apart.
  private let memory: UnsafeMutableRawBufferPointer

  /// Makes a buffer of zeros.
  public init(byteCount: Int) {
    unsafe memory = .allocate(byteCount: byteCount, alignment: 4096)
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit { unsafe memory.deallocate() }

  public var byteCount: Int { unsafe memory.count }

  /// Reads `count` bytes of a file at once, to `place`; returns how many came.
  public func read(_ file: Descriptor, at offset: UInt64, count: Int, to place: Int)
    throws(SystemError) -> Int
  {
    precondition(place >= 0 && count >= 0 && count <= byteCount - place)
    while true {
      // SAFETY: the bounds were checked; the kernel writes within them.
      let got = unsafe bh_read_at(
        file.raw, memory.baseAddress.map { unsafe $0 + place }, count, Int64(offset), 0)
      if got == -Int64(EINTR) { continue }
      guard got >= 0 else { throw SystemError("preadv2", Int32(-got)) }
      return Int(got)
    }
  }

  /// Writes the first `count` bytes to a file.
  public func write(_ file: Descriptor, at offset: UInt64, count: Int) throws(SystemError) {
    precondition(count >= 0 && count <= byteCount)
    var done = 0
    while done < count {
      // SAFETY: the bounds were checked; the kernel only reads.
      let sent = unsafe pwrite(
        file.raw, memory.baseAddress.map { unsafe $0 + done }, count - done,
        off_t(offset) + off_t(done))
      if sent < 0 && errno == EINTR { continue }
      guard sent >= 0 else { throw SystemError("pwrite", errno) }
      done += sent
    }
  }

  /// Copies bytes out, from `place`.
  public func copy(at place: Int, into bytes: inout MutableSpan<UInt8>) {
    let count = bytes.count
    precondition(place >= 0 && count <= byteCount - place)
    // SAFETY: the bounds were checked; the two are different memory.
    unsafe bytes.withUnsafeMutableBufferPointer { target in
      guard let start = target.baseAddress, let base = unsafe memory.baseAddress else { return }
      unsafe memcpy(start, base + place, count)
    }
  }

  /// Copies bytes in, to `place`.
  public func copy(_ bytes: Span<UInt8>, to place: Int) {
    precondition(place >= 0 && bytes.count <= byteCount - place)
    // SAFETY: the bounds were checked; the two are different memory.
    unsafe bytes.withUnsafeBufferPointer { source in
      guard let start = source.baseAddress, let base = unsafe memory.baseAddress else { return }
      unsafe memcpy(base + place, start, source.count)
    }
  }

  /// Sets bytes to zero.
  public func clear(_ range: Range<Int>) {
    precondition(range.lowerBound >= 0 && range.upperBound <= byteCount)
    // SAFETY: the bounds were checked.
    unsafe UnsafeMutableRawBufferPointer(rebasing: memory[range])
      .initializeMemory(as: UInt8.self, repeating: 0)
  }
}

extension SystemError {
  /// Whether the call was refused for its arguments (EINVAL).
  public var isInvalid: Bool { number == EINVAL }
}
