// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// Ports, memory and MSRs.
extension InterruptSystem {
  /// Reads a vCPU's local APIC page.
  public mutating func readAPIC(_ cpu: Int, _ offset: UInt32, at now: VMTime) -> UInt32 {
    defer { if apics[cpu].pendingVector != nil { mark(cpu) } }
    return apics[cpu].readPage(offset & 0xFF0, at: now)
  }

  /// Writes a vCPU's local APIC page.
  public mutating func writeAPIC(_ cpu: Int, _ offset: UInt32, _ value: UInt32, at now: VMTime) {
    see(to: apics[cpu].writePage(offset & 0xFF0, value, at: now), cpu)
  }

  private mutating func see(to effect: LocalAPIC.Effect, _ cpu: Int) {
    switch effect {
    case .none: mark(cpu)
    case .endOfInterrupt: endOfInterrupt(cpu)
    case .command(let value): command(value, from: cpu)
    case .openness:
      mark(cpu)
      serviceLevels()
    }
    deliverOwedTicks()
  }

  /// Reads an MSR of a vCPU's local APIC; `nil` means #GP.
  public func readMSR(_ cpu: Int, _ index: UInt32, at now: VMTime) -> UInt64? {
    switch index {
    case 0x1B: apics[cpu].base
    case 0x6E0: apics[cpu].deadlineCounter
    case 0x800...0x8FF where apics[cpu].isX2: apics[cpu].readX2(index - 0x800, at: now)
    default: nil
    }
  }

  /// Writes an MSR of a vCPU's local APIC; `false` means #GP.
  public mutating func writeMSR(_ cpu: Int, _ index: UInt32, _ value: UInt64, at now: VMTime)
    -> Bool
  {
    switch index {
    case 0x1B:
      guard apics[cpu].setBase(value) else { return false }
      see(to: .openness, cpu)
    case 0x6E0:
      apics[cpu].setDeadline(value, due: time(ofCounter: value))
      _ = advanceAPIC(cpu, now)
    case 0x800...0x8FF where apics[cpu].isX2:
      guard let effect = apics[cpu].writeX2(index - 0x800, value, at: now) else { return false }
      see(to: effect, cpu)
    default: return false
    }
    return true
  }

  /// The virtual time at which the time-stamp counter has a value, at the latest.
  func time(ofCounter counter: UInt64) -> VMTime {
    let product = counter.multipliedFullWidth(by: 1_000_000)
    guard product.high < tscKHz else { return VMTime(nanoseconds: .max) }
    let (nanoseconds, rest) = tscKHz.dividingFullWidth(product)
    return VMTime(nanoseconds: rest > 0 && nanoseconds < .max ? nanoseconds + 1 : nanoseconds)
  }

  /// Reads the I/O APIC's page.
  public func readIOAPIC(_ offset: UInt64) -> UInt32 { ioapic.read(offset & 0xF0) }

  /// Writes the I/O APIC's page.
  public mutating func writeIOAPIC(_ offset: UInt64, _ value: UInt32) {
    switch ioapic.write(offset & 0xF0, value) {
    case .none: return
    case .changed: serviceLevels()
    case .endOfInterrupt(let vector):
      noteEnd(pins: ioapic.endOfInterrupt(vector, isLevel: true))
    }
    deliverOwedTicks()
  }

  // MARK: - Ports

  /// Whether a port is one of the interrupt hardware's.
  public static func hasPort(_ port: UInt16) -> Bool {
    switch port {
    case 0x20, 0x21, 0x40...0x43, 0x61, 0xA0, 0xA1, 0x4D0, 0x4D1: true
    default: false
    }
  }

  /// Reads a port for which ``hasPort(_:)`` is true.
  public mutating func readPort(_ port: UInt16, at now: VMTime) -> UInt8 {
    switch port {
    case 0x40...0x43: return timer.read(port - 0x40, at: now)
    case 0x61:
      // The refresh bit toggles every 15 microseconds.
      let refresh: UInt8 = now.nanoseconds / 15_085 & 1 != 0 ? 0x10 : 0
      return systemControlB | refresh | (timer.output(2, at: now) ? 0x20 : 0)
    default:
      // A poll is an acknowledgement.
      defer {
        picsHaveChanged()
        deliverOwedTicks()
      }
      return pics.read(port)
    }
  }

  /// Writes a port for which ``hasPort(_:)`` is true.
  public mutating func writePort(_ port: UInt16, _ value: UInt8, at now: VMTime) {
    switch port {
    case 0x40...0x43:
      // A tick that is due is not lost by what is written now.
      advance(to: now)
      let isHigh = timer.output(0, at: now)
      timer.write(port - 0x40, value, at: now)
      if port == 0x40 || port == 0x43 && value >> 6 == 0 && value & 0x30 != 0 {
        restartTicks(now, hasRisen: !isHigh && timer.output(0, at: now))
      }
    case 0x61:
      // NMISC (82371SB, 2.5.5.1): the speaker's gate and the two NMI masks.
      systemControlB = value & 0x0F
      timer.setGate2(value & 1 != 0, at: now)
    default:
      pics.write(port, value)
      picsHaveChanged()
      deliverOwedTicks()
    }
  }
}
