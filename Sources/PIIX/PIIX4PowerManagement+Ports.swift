// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

extension PIIX4PowerManagement {
  /// Reads one of the 64 power management ports (7.2).
  public mutating func readPort(at offset: UInt16, now: VMTime) -> UInt8 {
    advance(to: now)
    switch offset {
    case 0x00, 0x01: return Self.byte(offset, of: status.rawValue)
    case 0x02, 0x03: return Self.byte(offset, of: enable)
    case 0x04, 0x05: return Self.byte(offset, of: control)
    case 0x06, 0x07: return 0
    case 0x08...0x0A:
      return UInt8(truncatingIfNeeded: Self.timer(at: now) >> (8 * UInt32(offset - 8)))
    case 0x0B: return 0
    case 0x14, 0x15: return 0  // PLVL2, PLVL3: a read would stop the clock; it returns zero
    case 0x0C..<0x40: return storage[Int(offset)]
    default: return 0xFF
    }
  }

  /// Writes one of the 64 power management ports; returns the sleeping state that it entered.
  public mutating func writePort(_ byte: UInt8, at offset: UInt16, now: VMTime) -> SleepingState? {
    advance(to: now)
    switch offset {
    case 0x00, 0x01:  // PM1_STS: a one clears
      status = PM1Status(rawValue: status.rawValue & ~(UInt16(byte) << (8 * offset)))
    case 0x02, 0x03: enable = Self.replacing(byte, offset, in: enable) & Self.enableMask
    case 0x04: control = control & 0xFF00 | UInt16(byte & 0x03)  // GBL_RLS raises an SMI: none
    case 0x05:
      control = control & 0x00FF | UInt16(byte & 0x1C) << 8
      guard byte & 0x20 != 0 else { break }  // SUS_EN; it reads as zero
      return enter(SleepingState(rawValue: byte >> 2 & 7))
    case 0x0C, 0x0D, 0x18, 0x19, 0x1C...0x1F:  // GPSTS, GLBSTS, DEVSTS: a one clears
      storage[Int(offset)] &= ~byte
    case 0x0E...0x13, 0x20...0x2F, 0x34...0x37: storage[Int(offset)] = byte
    default: break  // the timer, PLVL2, PLVL3 and GPIREG are read-only
    }
    return nil
  }

  /// Reads general purpose event block 0, four bytes at AFE0h: status, then enable.
  public func readEvents(at offset: UInt16) -> UInt8 {
    switch offset {
    case 0, 1: Self.byte(offset, of: gpeStatus)
    case 2, 3: Self.byte(offset, of: gpeEnable)
    default: 0xFF
    }
  }

  /// Writes general purpose event block 0; a one clears a status bit.
  public mutating func writeEvents(_ byte: UInt8, at offset: UInt16) {
    switch offset {
    case 0, 1: gpeStatus &= ~(UInt16(byte) << (8 * offset))
    case 2, 3: gpeEnable = Self.replacing(byte, offset, in: gpeEnable)
    default: break
    }
  }

  /// Reads APMC (offset 0, B2h) or APMS (offset 1, B3h).
  public func readAPM(at offset: UInt16) -> UInt8 {
    switch offset {
    case 0: apmControl
    case 1: apmStatus
    default: 0xFF
    }
  }

  /// Writes APMC or APMS; APMC switches ACPI mode on and off, as a BIOS's SMI handler would.
  public mutating func writeAPM(_ byte: UInt8, at offset: UInt16) {
    switch offset {
    case 0:
      apmControl = byte
      if byte == Self.acpiEnable { control |= 1 }
      if byte == Self.acpiDisable { control &= ~1 }
    case 1: apmStatus = byte
    default: break
    }
  }

  private static func byte(_ offset: UInt16, of word: UInt16) -> UInt8 {
    UInt8(truncatingIfNeeded: word >> (8 * (offset & 1)))
  }

  private static func replacing(_ byte: UInt8, _ offset: UInt16, in word: UInt16) -> UInt16 {
    offset & 1 == 0 ? word & 0xFF00 | UInt16(byte) : word & 0x00FF | UInt16(byte) << 8
  }
}
