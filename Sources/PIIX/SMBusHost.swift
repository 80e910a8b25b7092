// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The PIIX4's SMBus host controller with nothing on its bus (82371AB, 7.3).
///
/// Every transaction ends at once with a device error: no address acknowledges.
public struct SMBusHost: DeviceState, Sendable {
  /// 00h SMBHSTSTS, 02h SMBHSTCNT, 03h to 0Dh command, address and data.
  private var registers = [16 of UInt8](repeating: 0)

  public init() {}

  /// Whether a finished transaction interrupts (SMBHSTCNT bit 0).
  public var interrupt: Bool { registers[2] & 1 != 0 && registers[0] & 0x1E != 0 }

  public func read(at offset: UInt16) -> UInt8 { offset < 16 ? registers[Int(offset)] : 0xFF }

  public mutating func write(_ byte: UInt8, at offset: UInt16) {
    switch offset {
    case 0: registers[0] &= ~(byte & 0x1E)
    case 1: registers[1] &= ~(byte & 0x3E)
    case 2:
      registers[2] = byte & 0x1D  // START (bit 6) reads as zero, KILL (bit 1) ends what runs
      if byte & 0x02 != 0 {
        registers[0] |= 0x10  // FAILED
      } else if byte & 0x40 != 0 {
        registers[0] |= 0x04  // DEV_ERR: nobody acknowledged
      }
    case 3...8: registers[Int(offset)] = byte
    case 10, 11: registers[Int(offset)] = byte
    default: break
    }
  }

  public mutating func reset() { self = SMBusHost() }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.bytes("registers", &registers)
  }
}
