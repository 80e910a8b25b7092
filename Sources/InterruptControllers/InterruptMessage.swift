// SPDX-License-Identifier: Apache-2.0

/// An interrupt on its way to local APICs.
public struct InterruptMessage: Equatable, Sendable {
  /// The delivery modes of ICR, LVT and redirection entries.
  public enum Mode: UInt8, Sendable {
    case fixed = 0
    case lowestPriority = 1
    case smi = 2
    case nmi = 4
    case initialize = 5
    case startUp = 6
    case external = 7
  }

  public var vector: UInt8
  public var mode: Mode
  public var destination: UInt32
  public var isLogical: Bool
  public var isLevel: Bool

  public init(
    vector: UInt8, mode: Mode, destination: UInt32, isLogical: Bool, isLevel: Bool
  ) {
    self.vector = vector
    self.mode = mode
    self.destination = destination
    self.isLogical = isLogical
    self.isLevel = isLevel
  }

  /// What a message-signalled interrupt's address and data say (SDM volume 3, 10.11).
  public init(address: UInt64, data: UInt32) {
    vector = UInt8(truncatingIfNeeded: data)
    mode = Mode(rawValue: UInt8(data >> 8 & 7)) ?? .fixed
    destination = UInt32(address >> 12 & 0xFF)
    isLogical = address & 4 != 0
    isLevel = data & 1 << 15 != 0
  }
}
