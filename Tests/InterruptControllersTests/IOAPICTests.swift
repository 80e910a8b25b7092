// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import InterruptControllers

@Suite struct IOAPICTests {
  @Test func `After a reset everything is masked, and the version tells of 24 entries`() {
    var bench = SystemBench()
    #expect(bench.ioapic(0) == 0)
    #expect(bench.ioapic(1) == 0x0017_0020)
    for pin: UInt32 in 0..<24 {
      #expect(bench.ioapic(0x10 + 2 * pin) == 0x1_0000)
      #expect(bench.ioapic(0x11 + 2 * pin) == 0)
    }
    #expect(bench.ioapic(0x40) == 0)
  }

  @Test func `Only the bits that exist can be written`() {
    var bench = SystemBench()
    bench.setIOAPIC(0, 0xFFFF_FFFF)
    #expect(bench.ioapic(0) == 0x0F00_0000)
    #expect(bench.ioapic(2) == 0x0F00_0000)
    bench.setIOAPIC(1, 0)
    #expect(bench.ioapic(1) == 0x0017_0020)
    bench.setIOAPIC(0x20, 0xFFFF_FFFF)
    bench.setIOAPIC(0x21, 0xFFFF_FFFF)
    #expect(bench.ioapic(0x20) == 0x0001_AFFF)
    #expect(bench.ioapic(0x21) == 0xFF00_0000)
  }

  @Test func `An edge interrupts once, and is lost behind a mask`() {
    var bench = SystemBench()
    bench.route(5, 0x1_0035)
    bench.system.setLine(5, true)
    bench.route(5, 0x35)
    #expect(bench.take(0) == nil)
    bench.system.setLine(5, true)
    #expect(bench.take(0) == nil)
    bench.system.pulse(5)
    bench.system.pulse(5)
    #expect(bench.take(0) == 0x35)
    #expect(bench.take(0) == nil)
  }

  @Test func `A level waits behind a mask, sets remote IRR, and asks again after its end`() {
    var bench = SystemBench()
    bench.route(20, 0x1_8044)
    bench.system.setLine(20, true)
    #expect(bench.take(0) == nil)
    bench.route(20, 0x8044)
    #expect(bench.ioapic(0x38) == 0xC044)
    // Remote IRR can only be read.
    bench.setIOAPIC(0x38, 0x8044)
    #expect(bench.ioapic(0x38) == 0xC044)
    for _ in 0..<3 { #expect(bench.take(0) == 0x44) }
    bench.system.setLine(20, false)
    #expect(bench.take(0) == 0x44)
    #expect(bench.take(0) == nil)
    #expect(bench.ioapic(0x38) == 0x8044)
  }

  @Test func `A resampled level that its device holds no longer interrupts once`() {
    var bench = SystemBench()
    bench.system.setResampled(20)
    bench.route(20, 0x8044)
    bench.system.setLine(20, true)
    #expect(bench.take(0) == 0x44)
    #expect(bench.system.takeResamples() == 1 << 20)
    #expect(bench.take(0) == nil)
    #expect(bench.ioapic(0x38) == 0x8044)
    // The device holds it still, and says so again.
    bench.system.setLine(20, true)
    #expect(bench.take(0) == 0x44)
  }

  @Test func `The end of an edge is told as well where somebody waits for it`() {
    var bench = SystemBench()
    bench.system.setResampled(10)
    bench.route(10, 0x3A)
    bench.system.setLine(10, true)
    #expect(bench.take(0) == 0x3A)
    #expect(bench.system.takeResamples() == 1 << 10)
  }

  @Test func `Without an APIC that accepts it a level waits, and remote IRR stays clear`() {
    var bench = SystemBench(isOpen: false)
    bench.route(20, 0x8044)
    bench.system.setLine(20, true)
    #expect(bench.ioapic(0x38) == 0x8044)
    bench.write(0, 0xF0, 0x1FF)
    #expect(bench.ioapic(0x38) == 0xC044)
    #expect(bench.take(0) == 0x44)
  }

  @Test func `A change to edges clears remote IRR, as software uses it to end an interrupt`() {
    var bench = SystemBench()
    bench.route(20, 0x8044)
    bench.system.setLine(20, true)
    bench.system.setLine(20, false)
    #expect(bench.ioapic(0x38) == 0xC044)
    bench.route(20, 0x1_0044)
    bench.route(20, 0x8044)
    #expect(bench.ioapic(0x38) == 0x8044)
  }

  @Test func `The EOI register ends levels of its vector without a local APIC`() {
    var bench = SystemBench()
    bench.write(0, 0xF0, 0x11FF)
    bench.route(20, 0x8044)
    bench.system.setLine(20, true)
    bench.system.setLine(20, false)
    #expect(bench.take(0) == 0x44)
    // The local APIC has suppressed the broadcast.
    #expect(bench.ioapic(0x38) == 0xC044)
    bench.system.writeIOAPIC(0x40, 0x45)
    #expect(bench.ioapic(0x38) == 0xC044)
    bench.system.writeIOAPIC(0x40, 0x44)
    #expect(bench.ioapic(0x38) == 0x8044)
  }

  @Test(arguments: [(0x0444, true), (0x0544, false), (0x0744, false), (0x0344, false)])
  func `NMI and INIT go their way, reserved modes and ExtINT nowhere`(low: UInt32, isNMI: Bool) {
    var bench = SystemBench()
    bench.startPICs(mask: 0xFFFE)
    bench.system.setLine(0, true)
    bench.route(7, low, 1 << 24)
    bench.system.pulse(7)
    let events = bench.system.takeEvents(1)
    #expect(events.hasNMI == isNMI)
    #expect(events.hasInit == (low == 0x0544))
    #expect(bench.take(1) == nil)
    #expect(bench.read(1, 0x210) == 0)
    #expect(bench.system.acknowledge(0) == 0x20)
  }

  @Test func `Line 0 is at pin 2, and line 2 nowhere`() {
    var bench = SystemBench()
    bench.route(0, 0x30)
    bench.route(2, 0x32)
    bench.system.pulse(0)
    #expect(bench.take(0) == 0x32)
    bench.system.pulse(2)
    #expect(bench.take(0) == nil)
  }

  @Test func `A redirection entry reaches who it names, physically and logically`() {
    var bench = SystemBench(cpus: 4)
    for cpu in 0..<4 { bench.write(cpu, 0xD0, 1 << (24 + UInt32(cpu))) }
    bench.route(4, 0x34, 2 << 24)
    bench.system.pulse(4)
    #expect(bench.takeAll() == [nil, nil, 0x34, nil])
    bench.route(4, 0x834, 0x0A << 24)
    bench.system.pulse(4)
    #expect(bench.takeAll() == [nil, 0x34, nil, 0x34])
    bench.route(4, 0x34, 0xFF << 24)
    bench.system.pulse(4)
    #expect(bench.takeAll() == [0x34, 0x34, 0x34, 0x34])
    // Lowest priority: who has the least to do.
    bench.write(0, 0x80, 0x20)
    bench.write(1, 0x80, 0x20)
    bench.write(3, 0x80, 0x20)
    bench.route(4, 0x934, 0x0F << 24)
    bench.system.pulse(4)
    #expect(bench.takeAll() == [nil, nil, 0x34, nil])
  }
}
