// SPDX-License-Identifier: Apache-2.0

/// A point on the machine's virtual clock, in nanoseconds since the machine started.
///
/// It stands still while the machine is paused; models never ask a host clock.
public struct VMTime: Comparable, Hashable, Sendable {
  /// Nanoseconds since the machine started.
  public var nanoseconds: UInt64

  @inlinable
  public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

  /// The moment the machine started.
  public static let zero = VMTime(nanoseconds: 0)

  @inlinable
  public static func < (left: VMTime, right: VMTime) -> Bool {
    left.nanoseconds < right.nanoseconds
  }

  /// Returns the time `nanoseconds` later.
  @inlinable
  public func advanced(by nanoseconds: UInt64) -> VMTime {
    VMTime(nanoseconds: self.nanoseconds &+ nanoseconds)
  }

  /// Returns how many ticks of a clock of `frequency` hertz have passed since time zero.
  ///
  /// The product is taken in 128 bits, so it is exact for every time and frequency.
  @inlinable
  public func ticks(frequency: UInt64) -> UInt64 {
    let product = nanoseconds.multipliedFullWidth(by: frequency)
    // The quotient fits while the frequency is at most 1 GHz; a faster clock wraps.
    guard product.high < 1_000_000_000 else { return UInt64.max }
    return UInt64(1_000_000_000).dividingFullWidth(product).quotient
  }
}
