// SPDX-License-Identifier: Apache-2.0

/// The constant header fields of one of the chip's PCI functions, for the device's claims.
///
/// The core keeps the header (00h to 3Fh); this says what is in it.
public struct FunctionHeader: Sendable, Equatable {
  public var device: UInt8
  public var function: UInt8
  public var vendorID: UInt16
  public var deviceID: UInt16
  public var revision: UInt8
  /// Base class, subclass and programming interface, as 24 bits.
  public var classCode: UInt32
  public var isMultifunction: Bool
  /// 1 for INTA#, 0 for none.
  public var interruptPin: UInt8
  /// The command register after reset, and its bits that software may change.
  public var command: UInt16
  public var writableCommand: UInt16
  /// The status register after reset, and its bits that a written one clears.
  public var status: UInt16
  public var clearableStatus: UInt16
  /// The size in ports of base address register 4, 0 for none.
  public var busMasterPorts: UInt16

  /// The PIIX3's PCI-to-ISA bridge (82371SB, 2.1).
  public static let isaBridge = FunctionHeader(
    device: 1, function: 0, vendorID: 0x8086, deviceID: 0x7000, revision: 0,
    classCode: 0x06_01_00, isMultifunction: true, interruptPin: 0,
    command: 0x0007, writableCommand: 0x0108, status: 0x0200, clearableStatus: 0x7800,
    busMasterPorts: 0)

  /// The PIIX3's IDE controller (82371SB, 2.2).
  public static let ide = FunctionHeader(
    device: 1, function: 1, vendorID: 0x8086, deviceID: 0x7010, revision: 0,
    classCode: 0x01_01_80, isMultifunction: false, interruptPin: 0,
    command: 0x0000, writableCommand: 0x0005, status: 0x0280, clearableStatus: 0x3800,
    busMasterPorts: 16)

  /// The PIIX4's power management function (82371AB, 7.1).
  ///
  /// Its SCI is wired to IRQ 9; the pin says INTA# for software that looks.
  public static let powerManagement = FunctionHeader(
    device: 1, function: 3, vendorID: 0x8086, deviceID: 0x7113, revision: 3,
    classCode: 0x06_80_00, isMultifunction: false, interruptPin: 1,
    command: 0x0000, writableCommand: 0x0001, status: 0x0280, clearableStatus: 0x0800,
    busMasterPorts: 0)
}
