// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import InterruptControllers

@Suite struct LocalAPICTests {
  @Test func `The state after a reset is the manual's`() {
    var bench = SystemBench(isOpen: false)
    for cpu in 0..<2 {
      #expect(bench.readMSR(cpu, 0x1B) == (cpu == 0 ? 0xFEE0_0900 : 0xFEE0_0800))
      #expect(bench.read(cpu, 0x20) == UInt32(cpu) << 24)
      #expect(bench.read(cpu, 0x30) == 0x0105_0014)
      for offset: UInt32 in [0x80, 0x90, 0xA0, 0xC0, 0xD0, 0x280, 0x300, 0x310, 0x380, 0x390] {
        #expect(bench.read(cpu, offset) == 0)
      }
      #expect(bench.read(cpu, 0xE0) == 0xFFFF_FFFF)
      #expect(bench.read(cpu, 0xF0) == 0xFF)
      for offset in stride(from: 0x100 as UInt32, to: 0x280, by: 16) {
        #expect(bench.read(cpu, offset) == 0)
      }
      for offset: UInt32 in [0x320, 0x330, 0x340, 0x360, 0x370] {
        #expect(bench.read(cpu, offset) == 0x1_0000)
      }
      // The firmware's virtual wire: the first processor takes the 8259A's.
      #expect(bench.read(cpu, 0x350) == (cpu == 0 ? 0x700 : 0x1_0000))
      #expect(bench.read(cpu, 0x3E0) == 0)
    }
  }

  @Test(
    arguments: [
      (0x80, 0xFF), (0xD0, 0xFF00_0000), (0xE0, 0xFFFF_FFFF), (0xF0, 0x11FF),
      (0x310, 0xFF00_0000), (0x320, 0x7_00FF), (0x330, 0x1_07FF), (0x340, 0x1_07FF),
      (0x350, 0x1_A7FF), (0x360, 0x1_A7FF), (0x370, 0x1_00FF), (0x3E0, 0xB), (0x20, 0),
      (0x30, 0x0105_0014), (0xA0, 0), (0x390, 0),
    ] as [(UInt32, UInt32)])
  func `Only the bits that exist can be written`(offset: UInt32, wanted: UInt32) {
    var bench = SystemBench()
    bench.write(0, offset, 0xFFFF_FFFF)
    #expect(bench.read(0, offset) == wanted)
    if wanted != 0x0105_0014 { bench.write(0, offset, 0) }
    let least: UInt32 = offset == 0xE0 ? 0x0FFF_FFFF : wanted == 0x0105_0014 ? wanted : 0
    #expect(bench.read(0, offset) == least)
  }

  @Test func `Disabled by software it masks its vectors and refuses, but serves what it has`() {
    var bench = SystemBench()
    bench.write(0, 0x320, 0x40)
    bench.write(0, 0x370, 0x41)
    bench.write(0, 0x300, 0x4_0050)
    bench.write(0, 0xF0, 0xFF)
    #expect(bench.read(0, 0x320) == 0x1_0040)
    #expect(bench.read(0, 0x370) == 0x1_0041)
    bench.write(0, 0x320, 0x40)
    #expect(bench.read(0, 0x320) == 0x1_0040)
    bench.write(0, 0x300, 0x4_0051)
    #expect(bench.take(0) == 0x50)
    #expect(bench.take(0) == nil)
    // NMI and INIT are taken all the same (10.4.7.2).
    bench.write(1, 0x300, 0xC_4400)
    bench.write(1, 0x300, 0xC_4500)
    #expect(bench.system.takeEvents(0) == .init(hasNMI: true, hasInit: true))
  }

  @Test func `Higher vectors come first, by classes of sixteen and the task priority`() {
    var bench = SystemBench()
    for vector: UInt32 in [0x41, 0x6F, 0x62] { bench.write(0, 0x300, 0x4_0000 | vector) }
    #expect(bench.read(0, 0x220) == 1 << 1)
    #expect(bench.read(0, 0x230) == 1 << 15 | 1 << 2)
    #expect(bench.system.acknowledge(0) == 0x6F)
    #expect(bench.read(0, 0x130) == 1 << 15)
    #expect(bench.read(0, 0xA0) == 0x60)
    // The same class does not interrupt.
    #expect(bench.system.acknowledge(0) == nil)
    bench.write(0, 0x300, 0x4_0070)
    #expect(bench.system.acknowledge(0) == 0x70)
    bench.write(0, 0xB0, 0)
    bench.write(0, 0x80, 0x6A)
    #expect(bench.read(0, 0xA0) == 0x6A)
    bench.write(0, 0xB0, 0)
    #expect(bench.system.acknowledge(0) == nil)
    bench.system.setControl8(0, 4)
    #expect(bench.read(0, 0x80) == 0x40)
    #expect(bench.take(0) == 0x62)
    #expect(bench.take(0) == nil)
    bench.write(0, 0x80, 0)
    #expect(bench.take(0) == 0x41)
  }

  @Test func `The command's shorthands and destinations reach whom they say`() {
    var bench = SystemBench(cpus: 4)
    bench.write(1, 0x300, 0x4_0041)
    #expect(bench.takeAll() == [nil, 0x41, nil, nil])
    bench.write(1, 0x300, 0x8_0042)
    #expect(bench.takeAll() == [0x42, 0x42, 0x42, 0x42])
    bench.write(1, 0x300, 0xC_0043)
    #expect(bench.takeAll() == [0x43, nil, 0x43, 0x43])
    bench.write(1, 0x310, 3 << 24)
    bench.write(1, 0x300, 0x44)
    #expect(bench.takeAll() == [nil, nil, nil, 0x44])
    // Flat: a bit for each.
    for cpu in 0..<4 { bench.write(cpu, 0xD0, 1 << (24 + UInt32(cpu))) }
    bench.write(1, 0x310, 0x05 << 24)
    bench.write(1, 0x300, 0x845)
    #expect(bench.takeAll() == [0x45, nil, 0x45, nil])
    // Clusters: the high half names one.
    for cpu in 0..<4 {
      bench.write(cpu, 0xE0, 0)
      bench.write(cpu, 0xD0, UInt32(cpu / 2) << 28 | 1 << (24 + UInt32(cpu % 2)))
    }
    bench.write(1, 0x310, 0x13 << 24)
    bench.write(1, 0x300, 0x846)
    #expect(bench.takeAll() == [nil, nil, 0x46, 0x46])
    bench.write(1, 0x310, 0x02 << 24)
    bench.write(1, 0x300, 0x847)
    #expect(bench.takeAll() == [nil, 0x47, nil, nil])
    // ExtINT and SMI do nothing.
    bench.startPICs(mask: 0xFFFE)
    bench.system.setLine(0, true)
    bench.write(1, 0x300, 0xC_0700)
    bench.write(1, 0x300, 0xC_0200)
    #expect(bench.read(2, 0x210) == 0)
    #expect(bench.system.acknowledge(0) == 0x20)
  }

  @Test func `INIT and start-up messages reach who is named, a de-assertion nobody`() {
    var bench = SystemBench()
    bench.write(0, 0x310, 1 << 24)
    bench.write(0, 0x300, 0x8500)
    #expect(bench.system.takeEvents(1) == .init())
    bench.write(0, 0x300, 0xC500)
    #expect(bench.system.takeEvents(1) == .init(hasInit: true))
    bench.write(0, 0x300, 0x4699)
    #expect(bench.system.takeEvents(1) == .init(startUp: 0x99))
    bench.write(1, 0x80, 0x30)
    bench.system.initialize(1)
    #expect(bench.read(1, 0x80) == 0)
    #expect(bench.read(1, 0xF0) == 0xFF)
  }

  @Test func `Illegal vectors and registers are errors, shown after a write, and interrupt`() {
    var bench = SystemBench()
    bench.write(0, 0x370, 0x5F)
    bench.write(0, 0x300, 0x4_0007)
    #expect(bench.read(0, 0x280) == 0)
    bench.write(0, 0x280, 0)
    #expect(bench.read(0, 0x280) == 0x20)
    #expect(bench.take(0) == 0x5F)
    bench.write(0, 0x280, 0)
    #expect(bench.read(0, 0x280) == 0)
    // Received.
    bench.system.deliver(
      InterruptMessage(address: 0xFEE0_0000, data: 0x0F))
    bench.write(0, 0x280, 0)
    #expect(bench.read(0, 0x280) == 0x40)
    #expect(bench.take(0) == 0x5F)
    // No such register.
    _ = bench.read(0, 0x3D0)
    bench.write(0, 0x2A0, 1)
    bench.write(0, 0x280, 0)
    #expect(bench.read(0, 0x280) == 0x80)
    #expect(bench.take(0) == 0x5F)
  }

  @Test func `LINT1 takes the NMI as its entry says`() {
    var bench = SystemBench()
    bench.system.sendNMI(0)
    #expect(!bench.system.takeEvents(0).hasNMI)
    bench.write(0, 0x360, 0x400)
    bench.system.sendNMI(0)
    #expect(bench.system.takeEvents(0).hasNMI)
    bench.write(0, 0x360, 0x55)
    bench.system.sendNMI(0)
    #expect(bench.take(0) == 0x55)
    _ = bench.writeMSR(0, 0x1B, 0xFEE0_0000)
    bench.system.sendNMI(0)
    #expect(bench.system.takeEvents(0).hasNMI)
  }

  @Test func `LINT0 takes the 8259A's as ExtINT, as a fixed vector, or not at all`() {
    var bench = SystemBench()
    bench.startPICs(mask: 0xFFF7)
    bench.write(0, 0x350, 0x1_0700)
    bench.system.pulse(3)
    #expect(!bench.system.hasInterrupt(0))
    bench.write(0, 0x350, 0x700)
    #expect(bench.system.acknowledge(0) == 0x23)
    bench.out(0x20, 0x20)
    bench.write(0, 0x350, 0x58)
    bench.system.pulse(3)
    #expect(bench.take(0) == 0x58)
    #expect(bench.take(0) == nil)
    // As a level it asks until the 8259A has been served.
    bench.write(0, 0x350, 0x8059)
    bench.system.setLine(4, true)
    bench.out(0x20, 0x0C)
    #expect(bench.in(0x20) == 0x83)
    bench.out(0x20, 0x20)
    bench.out(0x21, 0xE7)
    #expect(bench.read(0, 0x350) == 0xC059)
    #expect(bench.take(0) == 0x59)
    #expect(bench.take(0) == 0x59)
    bench.out(0x20, 0x0C)
    #expect(bench.in(0x20) == 0x84)
    #expect(bench.take(0) == 0x59)
    #expect(bench.take(0) == nil)
  }

  @Test func `The base register's changes of mode are those that are allowed`() {
    var bench = SystemBench()
    #expect(bench.writeMSR(0, 0x1B, 0xFEE0_0D00 & ~0x800) == false)
    #expect(bench.writeMSR(0, 0x1B, 0xFEE0_0901) == false)
    #expect(bench.writeMSR(0, 0x1B, 1 << 52 | 0xFEE0_0900) == false)
    #expect(bench.writeMSR(0, 0x1B, 0xFEE0_0D00) == true)
    #expect(bench.writeMSR(0, 0x1B, 0xFEE0_0900) == false)
    #expect(bench.writeMSR(0, 0x1B, 0xFEE0_0100) == true)
    #expect(bench.writeMSR(0, 0x1B, 0xFEE0_0D00) == false)
    #expect(bench.writeMSR(0, 0x1B, 0xFEE0_0800) == true)
    #expect(bench.readMSR(0, 0x1B) == 0xFEE0_0900)
    #expect(bench.read(0, 0xF0) == 0xFF)
  }
}
