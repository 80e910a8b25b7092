// SPDX-License-Identifier: Apache-2.0

/// A model whose whole state can be written down and read back, field by field.
///
/// One function describes the fields; visitors encode, decode or list them. Every field
/// has a name and a width, so that a state page or a snapshot does not depend on how
/// Swift lays a type out in memory.
public protocol DeviceState {
  /// Hands each field, in a fixed order, to `visitor`.
  mutating func visitState<V: StateVisitor>(_ visitor: inout V)
}

/// What is done with each field of a ``DeviceState``.
public protocol StateVisitor {
  /// Visits an integer, stored little-endian in its own width.
  mutating func field<T: FixedWidthInteger>(_ name: StaticString, _ value: inout T)
  /// Visits a truth value, stored as one byte.
  mutating func field(_ name: StaticString, _ value: inout Bool)
  /// Visits an array of bytes of at most `capacity`; it is stored with its length.
  mutating func field(_ name: StaticString, _ value: inout [UInt8], capacity: Int)
  /// Visits a part with fields of its own; names in it get `name` and a dot in front.
  mutating func part<S: DeviceState>(_ name: StaticString, _ value: inout S)
}

extension StateVisitor {
  /// Visits an enumeration or option set through its integer raw value.
  ///
  /// A raw value that the type does not have leaves `value` as it was.
  @inlinable
  public mutating func field<R: RawRepresentable>(_ name: StaticString, _ value: inout R)
  where R.RawValue: FixedWidthInteger {
    var raw = value.rawValue
    field(name, &raw)
    if let new = R(rawValue: raw) { value = new }
  }

  /// Visits the parts of an array whose length is part of the machine's shape.
  ///
  /// The count is not stored: both sides must have made the array equally long.
  @inlinable
  public mutating func parts<S: DeviceState>(_ name: StaticString, _ values: inout [S]) {
    for index in values.indices { part(name, &values[index]) }
  }
}
