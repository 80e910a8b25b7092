// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel

/// The A20 gate: who holds address line 20 of the processors open.
///
/// The chips are in vmdev-piix, but their posted registers must take effect before the guest's
/// next instruction; so the core watches what the guest writes to them. The line is the OR of
/// port 92h's bit 1 and the keyboard controller's output port (82371SB, 2.5.5.2), which is high
/// after a reset.
struct A20Gate: Equatable, Sendable {
  private var isFastOpen = false
  private var isControllerOpen = true
  /// The keyboard controller's command D1h came: the next data byte is its output port.
  private var awaitsOutputPort = false

  /// Whether address line 20 is let through.
  var isOpen: Bool { isFastOpen || isControllerOpen }

  /// Whether what is written to a port can change the gate.
  static func watches(_ port: UInt16) -> Bool { port == 0x60 || port == 0x64 || port == 0x92 }

  /// The guest has written a byte to a port.
  mutating func note(_ port: UInt16, _ byte: UInt8) {
    switch port {
    case 0x92: isFastOpen = byte & 2 != 0
    case 0x64:
      awaitsOutputPort = byte == 0xD1
      switch byte {
      case 0xDD: isControllerOpen = false
      // The self test makes the output port's pins high.
      case 0xDF, 0xAA: isControllerOpen = true
      default: break
      }
    case 0x60:
      if awaitsOutputPort { isControllerOpen = byte & 2 != 0 }
      awaitsOutputPort = false
    default: break
    }
  }
}

extension A20Gate: DeviceState {
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("isFastOpen", &isFastOpen)
    visitor.field("isControllerOpen", &isControllerOpen)
    visitor.field("awaitsOutputPort", &awaitsOutputPort)
  }
}
