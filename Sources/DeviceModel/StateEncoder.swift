// SPDX-License-Identifier: Apache-2.0

/// Packs the fields of a device's state one after the other, little-endian.
///
/// A device does so after every transaction: the models' functions are specialised for it,
/// because generic calls for each field cost several times what the fields do.
public struct StateEncoder: StateVisitor {
  /// The values so far; arrays have their length in 32 bits in front.
  public private(set) var bytes: [UInt8] = []

  public init() {}

  /// Forgets the values and keeps the room.
  public mutating func reset() { bytes.removeAll(keepingCapacity: true) }

  @inlinable
  public mutating func field<T: FixedWidthInteger>(_ name: StaticString, _ value: inout T) {
    append(UInt64(truncatingIfNeeded: value), count: T.bitWidth / 8)
  }

  @usableFromInline
  mutating func append(_ value: UInt64, count: Int) {
    for index in 0..<count {
      bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * index)))
    }
  }

  public mutating func field(_ name: StaticString, _ value: inout Bool) {
    bytes.append(value ? 1 : 0)
  }

  public mutating func field(_ name: StaticString, _ value: inout [UInt8], capacity: Int) {
    append(UInt64(value.count), count: 4)
    bytes += value
  }

  @inlinable
  public mutating func part<S: DeviceState>(_ name: StaticString, _ value: inout S) {
    value.visitState(&self)
  }
}
