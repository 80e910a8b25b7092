// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The PC's two 8259A, the second at input 2 of the first.
public struct I8259Pair: Sendable {
  var master = I8259(isMaster: true)
  var slave = I8259(isMaster: false)

  public init() {}

  /// Sets the level of a line, 0 to 15.
  public mutating func setLine(_ line: UInt8, _ raised: Bool) {
    if line < 8 {
      if line != 2 { master.setLine(line, raised) }
    } else if line < 16 {
      slave.setLine(line - 8, raised)
    }
    cascade()
  }

  private mutating func cascade() {
    // The slave's output is an edge for each of its requests.
    if slave.hasInterrupt {
      master.setLine(2, true)
    } else {
      master.setLine(2, false)
    }
  }

  /// The INTR output.
  public var hasInterrupt: Bool { master.hasInterrupt }

  /// The lines whose interrupts are in service, as bits.
  var inService: UInt16 { UInt16(slave.inService) << 8 | UInt16(master.inService) }

  /// Lines that the end of their service lowers, as bits.
  var resampled: UInt16 {
    get { UInt16(slave.resampled) << 8 | UInt16(master.resampled) }
    set {
      master.resampled = UInt8(truncatingIfNeeded: newValue)
      slave.resampled = UInt8(newValue >> 8)
    }
  }

  /// The lines whose service has ended since the last call, as bits.
  mutating func takeEnded() -> UInt16 {
    UInt16(slave.takeEnded()) << 8 | UInt16(master.takeEnded())
  }

  /// Whether line 0's last interrupt, not masked, waits or is in service.
  var isTimerBusy: Bool { (master.requests | master.inService) & ~master.mask & 1 != 0 }

  /// The interrupt acknowledge cycles; returns the vector.
  public mutating func acknowledge() -> UInt8 {
    let first = master.acknowledge()
    guard first.input == 2, !first.isSpurious else { return master.vector(first.input) }
    let second = slave.acknowledge()
    // The request is taken: another of the slave's makes a new edge.
    master.setLine(2, false)
    cascade()
    return slave.vector(second.input)
  }

  /// Reads a port: 20h, 21h, A0h, A1h, 4D0h, 4D1h.
  public mutating func read(_ port: UInt16) -> UInt8 {
    defer { cascade() }
    switch port {
    case 0x20, 0x21: return master.read(port & 1)
    case 0xA0, 0xA1: return slave.read(port & 1)
    case 0x4D0: return master.edgeLevelControl
    default: return slave.edgeLevelControl
    }
  }

  /// Writes one of them.
  public mutating func write(_ port: UInt16, _ value: UInt8) {
    switch port {
    case 0x20, 0x21: master.write(port & 1, value)
    case 0xA0, 0xA1: slave.write(port & 1, value)
    case 0x4D0: master.edgeLevelControl = value
    default: slave.edgeLevelControl = value
    }
    cascade()
  }
}

extension I8259Pair: DeviceState {
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("master", &master)
    visitor.part("slave", &slave)
  }
}
