// SPDX-License-Identifier: Apache-2.0

extension StateVisitor {
  /// Visits a block of bytes whose length is fixed; missing bytes keep their values.
  @inlinable
  public mutating func bytes<let count: Int>(_ name: StaticString, _ value: inout [count of UInt8])
  {
    var array: [UInt8] = []
    array.reserveCapacity(count)
    for index in 0..<count { array.append(value[index]) }
    field(name, &array, capacity: count)
    for index in 0..<min(count, array.count) { value[index] = array[index] }
  }
}
