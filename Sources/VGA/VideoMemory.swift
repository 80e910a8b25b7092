// SPDX-License-Identifier: Apache-2.0

/// The video memory that a ``VGAController`` works on and does not own.
///
/// The device process gives a mapping, a test gives an array. The memory may change between
/// any two accesses. An offset outside of `0..<byteCount` never traps: loads give FFh and
/// stores are dropped.
public protocol VideoMemory: ~Copyable {
  /// The size of the memory in bytes.
  var byteCount: Int { get }
  /// Returns the byte at `offset`.
  func load(_ offset: Int) -> UInt8
  /// Stores a byte at `offset`.
  mutating func store(_ value: UInt8, at offset: Int)
  /// Returns the four bytes from `offset` on, the first in the lowest bits.
  func loadLong(_ offset: Int) -> UInt32
  /// Stores four bytes from `offset` on, the lowest bits first.
  mutating func storeLong(_ value: UInt32, at offset: Int)
  /// Copies the bytes from `offset` on into `row`.
  func copy(from offset: Int, into row: inout [UInt8])
  /// Sets the part of `range` that exists to `value`.
  mutating func fill(_ range: Range<Int>, with value: UInt8)
}

extension VideoMemory where Self: ~Copyable {
  @inlinable
  public func loadLong(_ offset: Int) -> UInt32 {
    UInt32(load(offset)) | UInt32(load(offset &+ 1)) << 8
      | UInt32(load(offset &+ 2)) << 16 | UInt32(load(offset &+ 3)) << 24
  }

  @inlinable
  public mutating func storeLong(_ value: UInt32, at offset: Int) {
    for lane in 0..<4 {
      store(UInt8(truncatingIfNeeded: value >> UInt32(8 * lane)), at: offset &+ lane)
    }
  }

  @inlinable
  public func copy(from offset: Int, into row: inout [UInt8]) {
    for index in row.indices { row[index] = load(offset &+ index) }
  }

  @inlinable
  public mutating func fill(_ range: Range<Int>, with value: UInt8) {
    for offset in range.clamped(to: 0..<byteCount) { store(value, at: offset) }
  }
}
