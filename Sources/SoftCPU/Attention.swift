// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// What others want of a software vCPU; it looks between blocks.
public final class Attention: Sendable {
  let bits = Atomic<UInt32>(0)

  public init() {}

  /// An interrupt may be taken from the bus.
  public static let interrupt: UInt32 = 1
  public static let nmi: UInt32 = 2
  public static let smi: UInt32 = 4
  /// Leave ``SoftCPU/run()``: to park, for INIT or a start-up message, or to end.
  public static let leave: UInt32 = 8
  /// The memory map has changed: translations and decoded code are void.
  public static let mapChanged: UInt32 = 16

  /// What is asked for now.
  public var pending: UInt32 { bits.load(ordering: .acquiring) }

  /// Asks for something; returns what was asked for before.
  @discardableResult
  public func raise(_ mask: UInt32) -> UInt32 {
    bits.bitwiseOr(mask, ordering: .sequentiallyConsistent).oldValue
  }

  /// Takes something back, or as done.
  public func clear(_ mask: UInt32) {
    _ = bits.bitwiseAnd(~mask, ordering: .sequentiallyConsistent)
  }
}
