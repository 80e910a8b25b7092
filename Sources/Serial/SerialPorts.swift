// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The PC's four serial ports, COM1 to COM4.
///
/// COM1 and COM3 share IRQ 4, COM2 and COM4 share IRQ 3; the board ORs their lines.
public struct SerialPorts: Sendable {
  /// Where one port decodes and which line it drives.
  public struct Claim: Equatable, Sendable {
    /// The first of the port's eight I/O ports.
    public let base: UInt16
    /// The number of I/O ports.
    public let portCount: UInt16
    /// The ISA interrupt line.
    public let irq: UInt8
  }

  /// The number of serial ports.
  public static let count = 4

  /// The claims, COM1 first.
  public static let claims: [Claim] = [
    Claim(base: 0x3F8, portCount: UART16550.portCount, irq: 4),
    Claim(base: 0x2F8, portCount: UART16550.portCount, irq: 3),
    Claim(base: 0x3E8, portCount: UART16550.portCount, irq: 4),
    Claim(base: 0x2E8, portCount: UART16550.portCount, irq: 3),
  ]

  /// The four chips, COM1 first.
  public var uarts: [4 of UART16550] = [4 of UART16550](repeating: UART16550())

  public init() {}

  /// Returns which chip decodes `port`, and the register there.
  public static func decode(_ port: UInt16) -> (index: Int, offset: UInt16)? {
    switch port & ~7 {
    case 0x3F8: (0, port & 7)
    case 0x2F8: (1, port & 7)
    case 0x3E8: (2, port & 7)
    case 0x2E8: (3, port & 7)
    default: nil
    }
  }

  /// Reads at an absolute port; each chip decodes its own eight ports, others float.
  public mutating func read(at port: UInt16, width: AccessWidth, now: VMTime) -> UInt64 {
    guard let place = Self.decode(port) else { return width.floating }
    return uarts[place.index].read(at: place.offset, width: width, now: now)
  }

  /// Writes at an absolute port; a port that is none of ours ignores it.
  public mutating func write(_ value: UInt64, at port: UInt16, width: AccessWidth, now: VMTime) {
    guard let place = Self.decode(port) else { return }
    uarts[place.index].write(value, at: place.offset, width: width, now: now)
  }

  /// The level of ISA line `irq`: 3 or 4, the OR of two chips; any other is low.
  public func interrupt(irq: UInt8) -> Bool {
    switch irq {
    case 4: uarts[0].interrupt || uarts[2].interrupt
    case 3: uarts[1].interrupt || uarts[3].interrupt
    default: false
    }
  }

  /// Returns whether line `irq` fell and rose again since the last call (``UART16550/takePulse()``).
  ///
  /// A shared line stays high while the other chip holds it, and shows no edge.
  public mutating func takePulse(irq: UInt8) -> Bool {
    let first = irq == 4 ? 0 : 1
    guard irq == 3 || irq == 4 else { return false }
    let pulses = (uarts[first].takePulse(), uarts[first + 2].takePulse())
    return pulses.0 && !uarts[first + 2].interrupt || pulses.1 && !uarts[first].interrupt
  }

  /// The earliest moment at which ``advance(to:)`` is due.
  public var deadline: VMTime? {
    var earliest: VMTime?
    for index in uarts.indices {
      guard let due = uarts[index].deadline else { continue }
      earliest = min(earliest ?? due, due)
    }
    return earliest
  }

  /// Lets time pass for all chips.
  public mutating func advance(to now: VMTime) {
    for index in uarts.indices { uarts[index].advance(to: now) }
  }

  /// Resets all chips; bytes already sent stay queued.
  public mutating func reset() {
    for index in uarts.indices { uarts[index].reset() }
  }
}

extension SerialPorts: DeviceState {
  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("com1", &uarts[0])
    visitor.part("com2", &uarts[1])
    visitor.part("com3", &uarts[2])
    visitor.part("com4", &uarts[3])
  }
}
