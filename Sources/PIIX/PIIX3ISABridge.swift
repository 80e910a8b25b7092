// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The registers of the PIIX3's PCI-to-ISA bridge, function 01.0, from 40h up.
///
/// Intel 82371SB data sheet (order number 290550), 2.1. Only the PCI interrupt routing has
/// an effect here; bus timing, chip selects and SMI sources are kept for software to read.
public struct PIIX3ISABridge: DeviceState, Sendable {
  var registers = ConfigRegisters(Self.layout)

  public init() {}

  /// How many PCI interrupt inputs there are: PIRQA# to PIRQD#.
  public static let linkCount = 4

  public func readConfig(at offset: UInt8, width: AccessWidth) -> UInt32 {
    registers.read(at: offset, width: width)
  }

  /// Writes configuration registers; returns whether the interrupt routing changed.
  public mutating func writeConfig(_ value: UInt32, at offset: UInt8, width: AccessWidth) -> Bool {
    let before = routes
    registers.write(value, at: offset, width: width)
    return before != routes
  }

  /// The four route control registers, PIRQA first in the low byte (PIRQRC, 60h to 63h).
  public var routes: UInt32 { registers.read(at: 0x60, width: .long) }

  /// Returns the ISA interrupt that PIRQ `link` (0 for A) is routed to, or `nil` for none.
  ///
  /// Routing is off with bit 7; interrupts 0, 1, 2, 8 and 13 are reserved (2.1.10).
  public func interrupt(forLink link: Int) -> UInt8? {
    guard (0..<Self.linkCount).contains(link) else { return nil }
    let register = registers[0x60 + UInt8(link)]
    let line = register & 0x0F
    guard register & 0x80 == 0, Self.routable & (1 << UInt16(line)) != 0 else { return nil }
    return line
  }

  /// Interrupts 3 to 7, 9 to 12, 14 and 15.
  private static let routable: UInt16 = 0b1101_1110_1111_1000

  /// Returns the PIRQ link that INT `pin` (0 for INTA#) of a device in `slot` is wired to.
  ///
  /// As on the `pc` machine: slot 1 begins with PIRQA, each further slot one later.
  public static func link(slot: UInt8, pin: UInt8) -> Int {
    (Int(slot & 0x1F) + Int(pin & 3) + 3) & 3
  }

  public mutating func reset() { registers.reset() }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("registers", &registers)
  }

  private static let layout: [ConfigRegisters.Byte] = [
    .init(0x4C, 0x4D, 0x7F),  // IORT
    .init(0x4E, 0x03, 0xFF), .init(0x4F, 0x00, 0x01),  // XBCS
    .init(0x60, 0x80, 0x8F), .init(0x61, 0x80, 0x8F),  // PIRQRCA, B
    .init(0x62, 0x80, 0x8F), .init(0x63, 0x80, 0x8F),  // PIRQRCC, D
    .init(0x69, 0x02, 0xFE),  // TOM
    .init(0x6A, 0x00, 0xD5), .init(0x6B, 0x00, 0x00, clearable: 0x80),  // MSTAT
    .init(0x70, 0x80, 0xEF),  // MBIRQ0
    .init(0x76, 0x0C, 0x8F), .init(0x77, 0x0C, 0x8F),  // MBDMA
    .init(0x78, 0x02, 0xFF), .init(0x79, 0x00, 0xFF),  // PCSC
    .init(0x80, 0x00, 0x7F),  // APICBASE
    .init(0x82, 0x00, 0x0F),  // DLC
    .init(0xA0, 0x08, 0x1F),  // SMICNTL
    .init(0xA2, 0x00, 0xFF), .init(0xA3, 0x00, 0x01),  // SMIEN
    .init(0xA4, 0x00, 0xFF), .init(0xA5, 0x00, 0xFF),  // SEE
    .init(0xA6, 0x00, 0xFF), .init(0xA7, 0x00, 0xE0),
    .init(0xA8, 0x0F, 0xFF),  // FTMR
    .init(0xAA, 0x00, 0x00, clearable: 0xFF), .init(0xAB, 0x00, 0x00, clearable: 0x01),  // SMIREQ
    .init(0xAC, 0x00, 0xFF), .init(0xAE, 0x00, 0xFF),  // CTLTMR, CTHTMR
  ]
}

/// The edge/level control registers of the two interrupt controllers, 4D0h and 4D1h.
///
/// 82371SB, 2.5.3.5. Where KVM has the controllers, KVM answers these ports.
public struct EdgeLevelControl: DeviceState, Sendable {
  /// Bit n set: interrupt n is level-triggered.
  public private(set) var levels: UInt16 = 0

  /// Interrupts 0, 1, 2, 8 and 13 are always edge-triggered.
  private static let mask: UInt16 = 0xDEF8

  public init() {}

  public func read(at offset: UInt16) -> UInt8 {
    switch offset {
    case 0: UInt8(truncatingIfNeeded: levels)
    case 1: UInt8(levels >> 8)
    default: 0xFF
    }
  }

  public mutating func write(_ byte: UInt8, at offset: UInt16) {
    switch offset {
    case 0: levels = (levels & 0xFF00 | UInt16(byte)) & Self.mask
    case 1: levels = (levels & 0x00FF | UInt16(byte) << 8) & Self.mask
    default: break
    }
  }

  public mutating func reset() { levels = 0 }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("levels", &levels)
    levels &= Self.mask
  }
}
