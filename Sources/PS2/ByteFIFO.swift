// SPDX-License-Identifier: Apache-2.0

import DeviceModel

/// A first-in, first-out queue of at most `capacity` bytes.
struct ByteFIFO<let capacity: Int>: DeviceState, Sendable {
  private var storage = [capacity of UInt8](repeating: 0)
  private var head: UInt8 = 0
  private(set) var count: UInt8 = 0

  var isEmpty: Bool { count == 0 }
  var free: Int { capacity - Int(count) }

  /// Appends a byte; returns whether there was room.
  @discardableResult
  mutating func push(_ byte: UInt8) -> Bool {
    guard free > 0 else { return false }
    storage[(Int(head) + Int(count)) % capacity] = byte
    count += 1
    return true
  }

  /// Removes and returns the oldest byte.
  mutating func pop() -> UInt8? {
    guard count > 0 else { return nil }
    let byte = storage[Int(head)]
    head = UInt8((Int(head) + 1) % capacity)
    count -= 1
    return byte
  }

  mutating func removeAll() {
    head = 0
    count = 0
  }

  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    var bytes: [UInt8] = []
    for index in 0..<Int(count) { bytes.append(storage[(Int(head) + index) % capacity]) }
    visitor.field("bytes", &bytes, capacity: capacity)
    removeAll()
    for byte in bytes { push(byte) }
  }
}
