// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import ModelTestSupport
import Testing

@testable import InterruptControllers

/// Collects the full names of a state's fields, as a state page has them.
private struct Names: StateVisitor {
  var all: [String] = []
  private var prefix = ""
  private var seen: [String: Int] = [:]

  mutating func field<T: FixedWidthInteger>(_ name: StaticString, _ value: inout T) {
    all.append(prefix + "\(name)")
  }
  mutating func field(_ name: StaticString, _ value: inout Bool) { all.append(prefix + "\(name)") }
  mutating func field(_ name: StaticString, _ value: inout [UInt8], capacity: Int) {
    all.append(prefix + "\(name)")
  }
  mutating func part<S: DeviceState>(_ name: StaticString, _ value: inout S) {
    let outer = prefix
    let number = seen[outer + "\(name)", default: 0]
    seen[outer + "\(name)"] = number + 1
    prefix = outer + "\(name)#\(number)."
    value.visitState(&self)
    prefix = outer
  }
}

@Suite struct SystemStateTests {
  @Test func `Every field has a name of its own, by which a snapshot finds it`() {
    var names = Names()
    var system = InterruptSystem(cpus: 2, tscKHz: 1_000_000)
    system.visitState(&names)
    #expect(Set(names.all).count == names.all.count)
  }

  /// A machine after many random accesses.
  private func stirred(_ generator: inout SeededGenerator, steps: Int = 400) -> SystemBench {
    var bench = SystemBench(cpus: 2)
    bench.startPICs(mask: 0)
    for _ in 0..<steps { step(&bench, &generator) }
    return bench
  }

  private func step(_ bench: inout SystemBench, _ generator: inout SeededGenerator) {
    let value = UInt32(truncatingIfNeeded: generator.next())
    let cpu = Int.random(in: 0..<2, using: &generator)
    switch Int.random(in: 0..<9, using: &generator) {
    case 0:
      let ports: [UInt16] = [0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0x61, 0xA0, 0xA1, 0x4D0, 0x4D1]
      bench.out(ports.randomElement(using: &generator) ?? 0x20, UInt8(truncatingIfNeeded: value))
    case 1: bench.write(cpu, UInt32.random(in: 0..<64, using: &generator) << 4, value)
    case 2: bench.setIOAPIC(UInt32.random(in: 0..<0x42, using: &generator), value)
    case 3:
      bench.system.setLine(Int.random(in: 0..<24, using: &generator), value & 1 != 0)
    case 4: bench.pass(UInt64(value % 5_000_000))
    case 5: _ = bench.system.acknowledge(cpu)
    case 6: bench.write(cpu, 0xB0, 0)
    case 7:
      _ = bench.writeMSR(cpu, UInt32.random(in: 0x800..<0x840, using: &generator), UInt64(value))
    default: bench.write(cpu, 0xF0, 0x1FF)
    }
  }

  @Test(arguments: 0..<20 as Range<UInt64>)
  func `A state that is restored is the same, and goes on the same way`(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var bench = stirred(&generator)
    var other = SystemBench(cpus: 2)
    other.now = bench.now
    let bytes = encoded(bench.system)
    #expect(StateBytes.decode(bytes, into: &other.system) == 0)
    #expect(encoded(other.system) == bytes)
    var generators = (generator, generator)
    for _ in 0..<200 {
      step(&bench, &generators.0)
      step(&other, &generators.1)
      #expect(bench.system.nextDeadline == other.system.nextDeadline)
    }
    #expect(encoded(other.system) == encoded(bench.system))
  }

  @Test(arguments: 0..<40 as Range<UInt64>)
  func `A state that cannot be is made one that can, and traps nothing`(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var bench = SystemBench(cpus: 2)
    let count = encoded(bench.system).count
    let bytes = (0..<count).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
    restore(bytes, into: &bench.system)
    let once = encoded(bench.system)
    var again = SystemBench(cpus: 2)
    restore(once, into: &again.system)
    #expect(encoded(again.system) == once)
    for _ in 0..<300 { step(&bench, &generator) }
  }

  @Test func `The local APIC's page can be read and put back`() {
    var bench = SystemBench(cpus: 2)
    bench.write(1, 0x80, 0x10)
    bench.write(1, 0xD0, 0x0200_0000)
    bench.write(1, 0xE0, 0x0FFF_FFFF)
    bench.write(1, 0x320, 0x2_0040)
    bench.write(1, 0x360, 0x400)
    bench.write(1, 0x3E0, 0xB)
    bench.write(1, 0x380, 1_000_000)
    bench.write(1, 0x300, 0x4_0077)
    bench.write(1, 0x300, 0x4_0055)
    _ = bench.system.acknowledge(1)
    bench.pass(300_000)
    let page = bench.system.apics[1].page(at: bench.now)
    var other = LocalAPIC(id: 1, isBoot: false)
    #expect(other.setPage([UInt8](page.dropLast()), at: bench.now) == false)
    #expect(other.setPage(page, at: bench.now) == true)
    #expect(other.page(at: bench.now) == page)
    #expect(other.deadline == bench.system.apics[1].deadline)
    #expect(other.endOfInterrupt()?.vector == 0x77)
  }

  @Test func `The end of a level is told for every way to end it`() {
    // Automatic, and the initialisation that clears what is in service.
    for fourth: UInt8 in [1, 3] {
      var bench = SystemBench(cpus: 1)
      bench.system.setResampled(10)
      bench.out(0x4D1, 4)
      bench.startPICs(mask: 0, fourth: fourth)
      bench.system.setLine(10, true)
      #expect(bench.system.acknowledge(0) == 0x2A)
      if fourth == 1 {
        #expect(bench.system.takeResamples() == 0)
        bench.out(0xA0, 0x11)
      }
      #expect(bench.system.takeResamples() == 1 << 10)
      #expect(!bench.system.hasInterrupt(0))
    }
  }

  @Test func `A reset puts everything back but the wiring`() {
    var generator = SeededGenerator(seed: 7)
    var bench = stirred(&generator)
    bench.system.setResampled(20)
    bench.system.reset()
    #expect(encoded(bench.system) == encoded(SystemBench(cpus: 2, isOpen: false).system))
    bench.write(0, 0xF0, 0x1FF)
    bench.route(20, 0x8044)
    bench.system.setLine(20, true)
    #expect(bench.take(0) == 0x44)
    #expect(bench.system.takeResamples() == 1 << 20)
  }
}
