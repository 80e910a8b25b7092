// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

/// Where RAM lies in the guest's physical address space (i440FX: a hole below 4 GiB).
public struct RAMLayout: Equatable, Sendable {
  /// RAM from address 0 on, in bytes.
  public let low: UInt64
  /// RAM from 4 GiB on, in bytes.
  public let high: UInt64

  /// Splits an amount of RAM as the `pc` machine does.
  ///
  /// From 3.5 GiB on, the low part is 3 GiB and the rest lies above 4 GiB.
  public init(byteCount: UInt64) {
    let wantsSplit = byteCount >= 0xE000_0000
    low = wantsSplit ? 0xC000_0000 : byteCount
    high = byteCount - low
  }

  /// All RAM in bytes.
  public var byteCount: UInt64 { low + high }

  /// Where the high part starts.
  public static let highStart: UInt64 = 1 << 32

  /// The VGA window: the graphics adapter's, whatever RAM is underneath.
  public static let vgaWindow: Range<UInt64> = 0xA0000..<0xC0000

  /// Returns the offset in RAM of `count` bytes at a physical address; `nil` unless all of
  /// them are RAM.
  @inlinable
  public func offset(of address: UInt64, count: UInt64) -> UInt64? {
    if address < low {
      guard count <= low - address else { return nil }
      // An access ends before the VGA window or starts after it.
      guard address + count <= 0xA0000 || address >= 0xC0000 else { return nil }
      return address
    }
    let start = address &- (1 << 32)
    guard address >= 1 << 32, start < high, count <= high - start else { return nil }
    return low + start
  }
}

/// An access by this machine's own side to guest memory where there is no RAM.
public struct GuestMemoryError: Error, Equatable, Sendable, CustomStringConvertible {
  public var address: UInt64
  public var byteCount: Int

  public init(address: UInt64, byteCount: Int) {
    self.address = address
    self.byteCount = byteCount
  }

  public var description: String {
    "\(byteCount) bytes at physical address 0x\(String(address, radix: 16)) are not all RAM"
  }
}

/// The guest's RAM: one sealed memfd, mapped once.
///
/// The guest may change every byte at any time, so everything copies, and nothing here gives
/// out an address. The PAM registers do not apply: the RAM under C0000h to FFFFFh is RAM.
public final class GuestMemory: Sendable {
  public let layout: RAMLayout
  /// The file, for a device whose `dma` is `shared`.
  public let file: Descriptor
  /// The mapping, for memory slots: a byte at an offset in RAM is at that offset here.
  public let mapping: Mapping

  /// Makes RAM of `byteCount` bytes, all zero.
  ///
  /// - Precondition: `byteCount` is a multiple of 4096, and not zero.
  public init(byteCount: UInt64) throws(SystemError) {
    precondition(byteCount > 0 && byteCount & 0xFFF == 0, "RAM is whole pages")
    layout = RAMLayout(byteCount: byteCount)
    file = try MemoryFile.make("guest-ram", byteCount: Int(byteCount))
    mapping = try Mapping(file, byteCount: Int(byteCount), .readWrite)
  }

  @inlinable
  func place(_ address: UInt64, _ count: Int) throws(GuestMemoryError) -> Int {
    guard count >= 0, let offset = layout.offset(of: address, count: UInt64(count)) else {
      throw GuestMemoryError(address: address, byteCount: count)
    }
    return Int(offset)
  }

  /// Copies RAM into `bytes`.
  public func read(into bytes: inout MutableRawSpan, at address: UInt64)
    throws(GuestMemoryError)
  {
    mapping.copy(at: try place(address, bytes.byteCount), into: &bytes)
  }

  /// Returns a copy of `count` bytes of RAM.
  public func bytes(at address: UInt64, count: Int) throws(GuestMemoryError) -> [UInt8] {
    mapping.bytes(at: try place(address, count), count: count)
  }

  /// Copies `bytes` into RAM.
  public func write(_ bytes: RawSpan, at address: UInt64) throws(GuestMemoryError) {
    mapping.copy(bytes, to: try place(address, bytes.byteCount))
  }

  /// Copies an array into RAM.
  public func write(_ bytes: [UInt8], at address: UInt64) throws(GuestMemoryError) {
    mapping.copy(bytes, to: try place(address, bytes.count))
  }

  /// Reads a little-endian integer from RAM.
  @inlinable
  public func load<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, at address: UInt64)
    throws(GuestMemoryError) -> T
  {
    mapping.load(type, at: try place(address, MemoryLayout<T>.size))
  }

  /// Writes a little-endian integer to RAM.
  @inlinable
  public func store<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at address: UInt64)
    throws(GuestMemoryError)
  {
    mapping.store(value, at: try place(address, MemoryLayout<T>.size))
  }

  /// Sets `count` bytes of RAM to one value.
  public func fill(_ byte: UInt8, at address: UInt64, count: Int) throws(GuestMemoryError) {
    mapping.fill(byte, at: try place(address, count), count: count)
  }

  /// Copies from a device's buffer into RAM.
  ///
  /// - Precondition: the range is inside `buffer`.
  public func copy(
    from buffer: Mapping, at offset: Int, count: Int, toGuest address: UInt64
  ) throws(GuestMemoryError) {
    mapping.copy(from: buffer, at: offset, count: count, to: try place(address, count))
  }

  /// Copies from RAM into a device's buffer.
  ///
  /// - Precondition: the range is inside `buffer`.
  public func copy(
    fromGuest address: UInt64, count: Int, to buffer: Mapping, at offset: Int
  ) throws(GuestMemoryError) {
    buffer.copy(from: mapping, at: try place(address, count), count: count, to: offset)
  }
}
