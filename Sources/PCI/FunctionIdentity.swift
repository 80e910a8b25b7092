// SPDX-License-Identifier: Apache-2.0

/// The fixed part of a PCI function's header: who it is and which command bits it has.
public struct FunctionIdentity: Sendable, Equatable {
  public var vendor: UInt16
  public var device: UInt16
  public var revision: UInt8
  /// Base class, subclass and programming interface, as 24 bits.
  public var classCode: UInt32
  public var subsystemVendor: UInt16
  public var subsystem: UInt16
  /// Bit 7 of the header type; function 0 of a device with more than one sets it.
  public var isMultifunction: Bool
  /// 1 to 4 for INTA# to INTD#, 0 for none.
  public var interruptPin: UInt8
  /// The command register after reset.
  public var command: UInt16
  /// The command bits that software may change.
  public var writableCommand: UInt16
  /// The status register after reset.
  public var status: UInt16
  /// The status bits that a written one clears.
  public var clearableStatus: UInt16
  /// Whether the latency timer (0Dh) can be written.
  public var hasLatencyTimer: Bool

  /// Makes an identity; without further arguments, that of a plain PCI 2.2 device with
  /// I/O, memory, bus master, parity and SERR# bits and medium DEVSEL timing.
  public init(
    vendor: UInt16, device: UInt16, revision: UInt8, classCode: UInt32,
    subsystemVendor: UInt16 = 0, subsystem: UInt16 = 0, isMultifunction: Bool = false,
    interruptPin: UInt8 = 0, command: UInt16 = 0, writableCommand: UInt16 = 0x0147,
    status: UInt16 = 0x0280, clearableStatus: UInt16 = 0xF900, hasLatencyTimer: Bool = true
  ) {
    self.vendor = vendor
    self.device = device
    self.revision = revision
    self.classCode = classCode & 0xFF_FFFF
    self.subsystemVendor = subsystemVendor
    self.subsystem = subsystem
    self.isMultifunction = isMultifunction
    self.interruptPin = min(interruptPin, 4)
    self.command = command
    self.writableCommand = writableCommand
    self.status = status
    self.clearableStatus = clearableStatus
    self.hasLatencyTimer = hasLatencyTimer
  }
}
