// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import InterruptControllers

@Suite struct X2APICTests {
  /// Registers that can be read and those that can be written (SDM volume 3, table 10-6).
  private static let readable: Set<UInt32> = Set(
    [0x802, 0x803, 0x808, 0x80A, 0x80D, 0x80F, 0x828, 0x830, 0x83E] + (0x810...0x827)
      + (0x832...0x839))
  private static let writable: Set<UInt32> = Set(
    [0x808, 0x80B, 0x80F, 0x828, 0x830, 0x838, 0x83E, 0x83F] + (0x832...0x837))

  @Test func `Registers that do not exist are faults, and so are the wrong directions`() {
    var bench = SystemBench()
    #expect(bench.readMSR(0, 0x802) == nil)
    #expect(bench.writeMSR(0, 0x808, 0) == false)
    bench.enterX2()
    for index: UInt32 in 0x800...0x8FF {
      #expect((bench.readMSR(0, index) != nil) == Self.readable.contains(index), "\(index)")
      let value: UInt64 = index == 0x83F ? 0x40 : index == 0x830 ? 0x40040 : 0
      #expect(bench.writeMSR(0, index, value) == Self.writable.contains(index), "\(index)")
    }
  }

  @Test(
    arguments: [
      (0x808, 0xFF), (0x80B, 0), (0x80F, 0x11FF), (0x828, 0), (0x830, 0xFFFF_FFFF_000C_CFFF),
      (0x832, 0x7_10FF), (0x833, 0x1_17FF), (0x834, 0x1_17FF), (0x835, 0x1_F7FF),
      (0x836, 0x1_F7FF), (0x837, 0x1_10FF), (0x838, 0xFFFF_FFFF), (0x83E, 0xB), (0x83F, 0xFF),
    ] as [(UInt32, UInt64)])
  func `Every reserved bit is a fault, and no other`(index: UInt32, allowed: UInt64) {
    for bit: UInt64 in 0..<64 {
      var bench = SystemBench()
      bench.enterX2()
      #expect(
        bench.writeMSR(0, index, 1 << bit) == (allowed >> bit & 1 != 0), "bit \(bit)")
    }
  }

  /// Who had this vector as the next interrupt.
  private func taken(_ bench: inout SystemBench, _ vector: UInt8) -> [Int] {
    let all = bench.takeAll()
    return all.indices.filter { all[$0] == vector }
  }

  @Test func `The logical ids are made of the ids, and reach a cluster's members`() {
    var bench = SystemBench(cpus: 34)
    bench.enterX2()
    #expect(bench.readMSR(0, 0x80D) == 1)
    #expect(bench.readMSR(17, 0x80D) == 0x1_0002)
    #expect(bench.readMSR(33, 0x80D) == 0x2_0002)
    #expect(bench.readMSR(33, 0x802) == 33)
    #expect(bench.writeMSR(0, 0x830, 0x0001_8002 << 32 | 0x841) == true)
    #expect(taken(&bench, 0x41) == [17, 31])
    #expect(bench.writeMSR(0, 0x830, 33 << 32 | 0x42) == true)
    #expect(taken(&bench, 0x42) == [33])
    #expect(bench.writeMSR(0, 0x830, 0xFFFF_FFFF << 32 | 0x43) == true)
    #expect(taken(&bench, 0x43) == Array(0..<34))
    #expect(bench.readMSR(0, 0x830) == 0xFFFF_FFFF_0000_0043)
  }

  @Test func `The self-IPI register interrupts its own processor`() {
    var bench = SystemBench()
    bench.enterX2()
    #expect(bench.writeMSR(1, 0x83F, 0x77) == true)
    #expect(bench.system.acknowledge(1) == 0x77)
    #expect(bench.system.acknowledge(0) == nil)
    #expect(bench.writeMSR(1, 0x80B, 0) == true)
    #expect(bench.writeMSR(1, 0x83F, 3) == true)
    #expect(bench.writeMSR(1, 0x828, 0) == true)
    #expect(bench.readMSR(1, 0x828) == 0x40)
  }

  @Test func `INIT keeps x2APIC and its logical id`() {
    var bench = SystemBench()
    bench.enterX2()
    #expect(bench.writeMSR(1, 0x808, 0x20) == true)
    bench.system.initialize(1)
    #expect(bench.readMSR(1, 0x808) == 0)
    #expect(bench.readMSR(1, 0x80D) == 2)
  }
}
