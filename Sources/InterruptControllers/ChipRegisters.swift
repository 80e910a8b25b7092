// SPDX-License-Identifier: Apache-2.0

/// The registers of the two 8259A and of the I/O APIC, for an operator to look at.
public struct ChipRegisters: Equatable, Sendable {
  /// One 8259A.
  public struct Controller: Equatable, Sendable {
    public var requests: UInt8
    public var mask: UInt8
    public var inService: UInt8
    /// The input with the highest priority.
    public var first: UInt8
    public var vectorBase: UInt8
    public var readsInService: Bool
    /// The inputs that are level-triggered (ELCR).
    public var levels: UInt8
    public var isFullyNested: Bool
  }

  /// The first and the second.
  public var controllers: [Controller]
  public var ioAPICID: UInt8
  public var selected: UInt8
  /// The I/O APIC's inputs that are high, as bits.
  public var lines: UInt32
  public var redirections: [UInt64]
  /// How often each line was raised.
  public var counts: [UInt64]
}

extension I8259 {
  var registers: ChipRegisters.Controller {
    ChipRegisters.Controller(
      requests: requests, mask: mask, inService: inService, first: (lowest &+ 1) & 7,
      vectorBase: vectorBase, readsInService: readsInService, levels: levelTriggered,
      isFullyNested: isFullyNested)
  }
}

extension InterruptSystem {
  /// What the chips hold now.
  public var registers: ChipRegisters {
    ChipRegisters(
      controllers: [pics.master.registers, pics.slave.registers],
      ioAPICID: UInt8(truncatingIfNeeded: ioapic.id),
      selected: UInt8(truncatingIfNeeded: ioapic.selected), lines: ioapic.lines,
      redirections: ioapic.entries, counts: counts)
  }
}
