// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The function's own configuration registers, 40h to FFh (82371SB, 2.3.9 to 2.3.11).
///
/// The timings are stored and read back; no timing is modelled.
public struct IDEPCIConfiguration: DeviceState, Sendable {
  private var primaryTiming: UInt16 = 0
  private var secondaryTiming: UInt16 = 0
  private var slaveTiming: UInt8 = 0
  private var ultraControl: UInt8 = 0
  private var ultraTiming: UInt16 = 0

  public init() {}

  /// Whether IDETIM bit 15 of the channel lets its ports decode.
  ///
  /// The controller answers either way, as firmware that is not there can't set the bit;
  /// guests look at it to see which channels the firmware enabled.
  public func isDecodeEnabled(channel: Int) -> Bool {
    (channel == 0 ? primaryTiming : secondaryTiming) & 0x8000 != 0
  }

  /// Reads a byte; reserved ones are 0.
  public func read(at offset: UInt8) -> UInt8 {
    switch offset {
    case 0x40: UInt8(truncatingIfNeeded: primaryTiming)
    case 0x41: UInt8(truncatingIfNeeded: primaryTiming >> 8)
    case 0x42: UInt8(truncatingIfNeeded: secondaryTiming)
    case 0x43: UInt8(truncatingIfNeeded: secondaryTiming >> 8)
    case 0x44: slaveTiming
    case 0x48: ultraControl
    case 0x4A: UInt8(truncatingIfNeeded: ultraTiming)
    case 0x4B: UInt8(truncatingIfNeeded: ultraTiming >> 8)
    default: 0
    }
  }

  /// Writes a byte; reserved bits stay 0.
  public mutating func write(_ value: UInt8, at offset: UInt8) {
    switch offset {
    case 0x40: primaryTiming = primaryTiming & 0xFF00 | UInt16(value)
    case 0x41: primaryTiming = primaryTiming & 0x00FF | UInt16(value & 0xF3) << 8
    case 0x42: secondaryTiming = secondaryTiming & 0xFF00 | UInt16(value)
    case 0x43: secondaryTiming = secondaryTiming & 0x00FF | UInt16(value & 0xF3) << 8
    case 0x44: slaveTiming = value
    case 0x48: ultraControl = value & 0x0F
    case 0x4A: ultraTiming = ultraTiming & 0xFF00 | UInt16(value & 0x33)
    case 0x4B: ultraTiming = ultraTiming & 0x00FF | UInt16(value & 0x33) << 8
    default: break
    }
  }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("primary-timing", &primaryTiming)
    visitor.field("secondary-timing", &secondaryTiming)
    visitor.field("slave-timing", &slaveTiming)
    visitor.field("ultra-control", &ultraControl)
    visitor.field("ultra-timing", &ultraTiming)
  }
}
