// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// A first-in, first-out queue of at most `depth` bytes, stored inline.
///
/// It never grows and never allocates while bytes go through it.
public struct ByteFIFO<let depth: Int>: Sendable {
  private var bytes = [depth of UInt8](repeating: 0)
  private var head = 0
  /// The number of bytes that wait.
  public private(set) var count = 0

  public init() {}

  /// Whether nothing waits.
  public var isEmpty: Bool { count == 0 }

  /// Whether another byte would be refused.
  public var isFull: Bool { count == depth }

  /// The byte that leaves next.
  public var first: UInt8? { isEmpty ? nil : bytes[head] }

  /// Appends `byte` and returns `true`, or returns `false` when there is no room.
  public mutating func push(_ byte: UInt8) -> Bool {
    guard count < depth else { return false }
    bytes[(head + count) % depth] = byte
    count += 1
    return true
  }

  /// Removes and returns the oldest byte.
  public mutating func pop() -> UInt8? {
    guard count > 0 else { return nil }
    let byte = bytes[head]
    head = (head + 1) % depth
    count -= 1
    return byte
  }

  /// Removes the oldest `number` bytes, or all when fewer wait.
  public mutating func drop(_ number: Int) {
    let dropped = min(max(number, 0), count)
    head = (head + dropped) % depth
    count -= dropped
  }

  /// Removes everything.
  public mutating func removeAll() {
    head = 0
    count = 0
  }

  /// The waiting bytes, oldest first, at most `limit` of them.
  public func prefix(_ limit: Int) -> [UInt8] {
    let taken = min(max(limit, 0), count)
    var result: [UInt8] = []
    result.reserveCapacity(taken)
    for index in 0..<taken { result.append(bytes[(head + index) % depth]) }
    return result
  }

  /// Whether any waiting byte is not zero.
  var hasNonZero: Bool {
    for index in 0..<count where bytes[(head + index) % depth] != 0 { return true }
    return false
  }

  /// Replaces the byte that leaves next; without one nothing happens.
  mutating func replaceFirst(_ byte: UInt8) {
    if count > 0 { bytes[head] = byte }
  }
}

extension ByteFIFO: DeviceState {
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    var waiting = prefix(depth)
    visitor.field("bytes", &waiting, capacity: depth)
    removeAll()
    for byte in waiting where !push(byte) { break }
  }
}
