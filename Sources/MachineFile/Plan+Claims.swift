// SPDX-License-Identifier: Apache-2.0

extension Plan {
  /// Something of the machine that a device process answers for or may use.
  public struct Claim: Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
      /// A PCI function; its base address registers are the guest's to place.
      case function(device: UInt8, function: UInt8)
      /// Ports that stay where they are.
      case ports(first: UInt16, count: UInt16)
      /// Ports that the guest may move; these are where firmware puts them.
      case movablePorts(first: UInt16, count: UInt16)
      /// Guest-physical addresses, without those behind base address registers.
      case memory(first: UInt64, byteCount: UInt64)
      case interrupt(UInt8)
      /// Guest memory by way of the core, which copies each piece through a buffer.
      case mediatedDMA
    }

    public var kind: Kind
    /// What it is for; empty where that goes without saying.
    public var purpose: String

    public init(_ kind: Kind, _ purpose: String = "") {
      self.kind = kind
      self.purpose = purpose
    }
  }

  static func piixClaims(_ machine: Machine) -> [Claim] {
    var claims = [
      Claim(.function(device: 1, function: 0), "ISA bridge"),
      Claim(.function(device: 1, function: 3), "power management"),
      Claim(.ports(first: 0x00, count: 16), "DMA controller"),
      Claim(.ports(first: 0x60, count: 1), "keyboard data"),
      Claim(.ports(first: 0x61, count: 1), "system control B"),
      Claim(.ports(first: 0x64, count: 1), "keyboard command"),
      Claim(.ports(first: 0x70, count: 2), "clock"),
      Claim(.ports(first: 0x80, count: 1), "POST code"),
      Claim(.ports(first: 0x81, count: 15), "DMA pages"),
      Claim(.ports(first: 0x92, count: 1), "system control A"),
      Claim(.ports(first: 0xB2, count: 2), "advanced power management"),
      Claim(.ports(first: 0xC0, count: 32), "second DMA controller"),
      Claim(.ports(first: 0x4D0, count: 2), "edge or level of interrupts"),
      Claim(.ports(first: 0x510, count: 12), "fw_cfg"),
      Claim(.movablePorts(first: 0x600, count: 64), "power management"),
      Claim(.movablePorts(first: 0x700, count: 16), "SMBus"),
      Claim(.ports(first: 0xCF9, count: 1), "reset"),
      Claim(.ports(first: 0xAFE0, count: 4), "general events"),
    ]
    if machine.debug.console != nil {
      claims.append(Claim(.ports(first: 0x402, count: 1), "debug console"))
    }
    if machine.onPanic != nil {
      claims.append(Claim(.ports(first: 0x505, count: 1), "panic"))
    }
    if let port = machine.debug.exitPort {
      // At the very end of the port space it is a single port.
      claims.append(Claim(.ports(first: port, count: port <= 0xFFFC ? 4 : 1), "debug exit"))
    }
    claims += [
      Claim(.interrupt(1), "keyboard"), Claim(.interrupt(8), "clock"),
      Claim(.interrupt(9), "system control"), Claim(.interrupt(12), "mouse"),
    ]
    return claims + [Claim(.mediatedDMA, "fw_cfg")]
  }

  static func ideClaims(_ machine: Machine) -> [Claim] {
    [
      Claim(.function(device: 1, function: 1), "IDE, with 16 ports for the bus master"),
      Claim(.ports(first: 0x1F0, count: 8), "first channel"),
      Claim(.ports(first: 0x3F6, count: 1), "first channel's control"),
      Claim(.ports(first: 0x170, count: 8), "second channel"),
      Claim(.ports(first: 0x376, count: 1), "second channel's control"),
      Claim(.interrupt(14), "first channel"), Claim(.interrupt(15), "second channel"),
      Claim(.mediatedDMA, "bus master"),
    ]
  }

  static func serialClaims(_ machine: Machine) -> [Claim] {
    let places: [(base: UInt16, interrupt: UInt8)] = [
      (0x3F8, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3),
    ]
    let ports = places.prefix(machine.serial.count)
    var claims = ports.enumerated().map {
      Claim(.ports(first: $0.element.base, count: 8), "COM\($0.offset + 1)")
    }
    // COM1 and COM3 share a line, and COM2 and COM4.
    claims += ports.prefix(2).map { Claim(.interrupt($0.interrupt)) }
    return claims
  }

  static func vgaClaims(_ machine: Machine) -> [Claim] {
    [
      Claim(.function(device: 2, function: 0), "VGA, with video memory, registers and ROM"),
      Claim(.ports(first: 0x3B0, count: 0x30)),
      Claim(.ports(first: 0x1CE, count: 4), "VBE"),
      Claim(.memory(first: 0xA0000, byteCount: 0x20000)),
    ]
  }
}

extension Plan.Claim: CustomStringConvertible {
  /// The claim as text, such as `ports 70h-71h clock`.
  public var description: String {
    let place: String =
      switch kind {
      case .function(let device, let function):
        "PCI 00:\(device < 16 ? "0" : "")\(String(device, radix: 16)).\(function)"
      case .ports(let first, 1): "port \(Self.hex(first))"
      case .ports(let first, let count): "ports \(Self.range(first, count))"
      case .movablePorts(let first, let count): "movable ports \(Self.range(first, count))"
      case .memory(let first, let byteCount): "memory \(Self.range(first, byteCount))"
      case .interrupt(let line): "IRQ \(line)"
      case .mediatedDMA: "mediated DMA"
      }
    return purpose.isEmpty ? place : place + " " + purpose
  }

  private static func hex<T: FixedWidthInteger>(_ value: T) -> String {
    (value < 16 ? "0" : "") + String(value, radix: 16, uppercase: true) + "h"
  }

  private static func range<T: FixedWidthInteger>(_ first: T, _ count: T) -> String {
    "\(hex(first))-\(hex(first &+ (count &- 1)))"
  }
}
