// SPDX-License-Identifier: Apache-2.0

import DeviceModel

@testable import InterruptControllers

/// The interrupt hardware of a machine, and a clock that the test sets.
struct SystemBench {
  var system: InterruptSystem
  var now = VMTime(nanoseconds: 1_000_000)

  /// With `isOpen` all APICs are enabled by software, and the 8259A masked.
  init(cpus: Int = 2, isOpen: Bool = true) {
    system = InterruptSystem(cpus: cpus, tscKHz: 2_000_000)
    guard isOpen else { return }
    for cpu in 0..<cpus { write(cpu, 0xF0, 0x1FF) }
    out(0x21, 0xFF)
    out(0xA1, 0xFF)
  }

  mutating func read(_ cpu: Int, _ offset: UInt32) -> UInt32 {
    system.readAPIC(cpu, offset, at: now)
  }

  mutating func write(_ cpu: Int, _ offset: UInt32, _ value: UInt32) {
    system.writeAPIC(cpu, offset, value, at: now)
  }

  mutating func writeMSR(_ cpu: Int, _ index: UInt32, _ value: UInt64) -> Bool {
    system.writeMSR(cpu, index, value, at: now)
  }

  func readMSR(_ cpu: Int, _ index: UInt32) -> UInt64? {
    system.readMSR(cpu, index, at: now)
  }

  mutating func enterX2() {
    for cpu in system.apics.indices {
      _ = writeMSR(cpu, 0x1B, system.apics[cpu].base | 0xC00)
    }
  }

  mutating func out(_ port: UInt16, _ value: UInt8) {
    system.writePort(port, value, at: now)
  }

  mutating func `in`(_ port: UInt16) -> UInt8 { system.readPort(port, at: now) }

  /// Sets a redirection entry.
  mutating func route(_ pin: UInt32, _ low: UInt32, _ high: UInt32 = 0) {
    setIOAPIC(0x11 + 2 * pin, high)
    setIOAPIC(0x10 + 2 * pin, low)
  }

  mutating func setIOAPIC(_ number: UInt32, _ value: UInt32) {
    system.writeIOAPIC(0, number)
    system.writeIOAPIC(0x10, value)
  }

  mutating func ioapic(_ number: UInt32) -> UInt32 {
    system.writeIOAPIC(0, number)
    return system.readIOAPIC(0x10)
  }

  /// Both 8259A at 20h and 28h, with the mask given, the automatic end as well.
  mutating func startPICs(mask: UInt16, fourth: UInt8 = 1) {
    for (port, value) in [
      (0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, fourth), (0xA0, 0x11), (0xA1, 0x28),
      (0xA1, 2), (0xA1, fourth),
    ] as [(UInt16, UInt8)] {
      out(port, value)
    }
    out(0x21, UInt8(truncatingIfNeeded: mask))
    out(0xA1, UInt8(mask >> 8))
  }

  /// Lets time pass.
  mutating func pass(_ nanoseconds: UInt64) {
    now = now.advanced(by: nanoseconds)
    system.advance(to: now)
  }

  /// Takes the next interrupt and ends it; its vector.
  mutating func take(_ cpu: Int) -> UInt8? {
    guard let vector = system.acknowledge(cpu) else { return nil }
    write(cpu, 0xB0, 0)
    return vector
  }

  /// Takes the next interrupt of every vCPU.
  mutating func takeAll() -> [UInt8?] {
    var taken: [UInt8?] = []
    for cpu in system.apics.indices { taken.append(take(cpu)) }
    return taken
  }
}
