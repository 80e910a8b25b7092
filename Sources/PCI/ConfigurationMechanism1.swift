// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// One byte range in a function's configuration space, as mechanism #1 names it.
public struct ConfigurationTarget: Sendable, Equatable {
  public var bus: UInt8
  public var device: UInt8
  public var function: UInt8
  public var offset: UInt8

  public init(bus: UInt8, device: UInt8, function: UInt8, offset: UInt8) {
    self.bus = bus
    self.device = device
    self.function = function
    self.offset = offset
  }
}

/// The host bridge's two configuration ports: CF8h address, CFCh data (PCI 2.2, 3.2.2.3.2).
///
/// Offsets here count from port CF8h. Only a 32-bit access at CF8h itself is the address
/// latch; others at CF8h to CFBh are ordinary I/O (CF9h is the reset control register).
public struct ConfigurationMechanism1: DeviceState, Sendable {
  /// The latch; reserved bits 30:24 and 1:0 are zero.
  public private(set) var address: UInt32 = 0

  public init() {}

  /// Returns whether the access is one to the address latch.
  public static func isAddress(at offset: UInt16, width: AccessWidth) -> Bool {
    offset == 0 && width == .long
  }

  /// Latches an address.
  public mutating func writeAddress(_ value: UInt32) { address = value & 0x80FF_FFFC }

  /// Returns what an access at CFCh to CFFh reaches.
  ///
  /// `nil` means that it is no configuration access, and to be treated as any other I/O:
  /// the enable bit is off, the port is not one of the data ports, or the access runs past
  /// CFFh, which no bridge joins into one configuration cycle.
  public func target(at offset: UInt16, width: AccessWidth) -> ConfigurationTarget? {
    guard address & 0x8000_0000 != 0, (4..<8).contains(offset),
      Int(offset) + width.byteCount <= 8
    else { return nil }
    return ConfigurationTarget(
      bus: UInt8(truncatingIfNeeded: address >> 16),
      device: UInt8(truncatingIfNeeded: address >> 11) & 0x1F,
      function: UInt8(truncatingIfNeeded: address >> 8) & 0x07,
      offset: UInt8(truncatingIfNeeded: address) & 0xFC | UInt8(offset & 3))
  }

  public mutating func reset() { address = 0 }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("address", &address)
    address &= 0x80FF_FFFC
  }
}
