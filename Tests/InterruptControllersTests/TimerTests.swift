// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import InterruptControllers

@Suite struct LocalTimerTests {
  @Test(
    arguments: [
      (0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1),
    ] as [(UInt32, UInt64)])
  func `One shot fires once after the count times the divisor`(code: UInt32, divisor: UInt64) {
    var bench = SystemBench()
    bench.write(0, 0x320, 0x40)
    bench.write(0, 0x3E0, code)
    bench.write(0, 0x380, 1000)
    #expect(bench.system.nextDeadline == bench.now.advanced(by: 1000 * divisor))
    bench.pass(400 * divisor)
    #expect(bench.read(0, 0x390) == 600)
    #expect(bench.take(0) == nil)
    bench.pass(600 * divisor)
    #expect(bench.read(0, 0x390) == 0)
    #expect(bench.take(0) == 0x40)
    bench.pass(5000 * divisor)
    #expect(bench.take(0) == nil)
    #expect(bench.system.nextDeadline == nil)
  }

  @Test func `Periodic fires over and over; several missed are one`() {
    var bench = SystemBench()
    bench.write(0, 0x320, 0x2_0040)
    bench.write(0, 0x3E0, 0xB)
    bench.write(0, 0x380, 1_000_000)
    for _ in 0..<3 {
      bench.pass(1_000_000)
      #expect(bench.take(0) == 0x40)
    }
    bench.pass(3_400_000)
    #expect(bench.take(0) == 0x40)
    #expect(bench.take(0) == nil)
    #expect(bench.read(0, 0x390) == 600_000)
    bench.write(0, 0x380, 0)
    #expect(bench.system.nextDeadline == nil)
  }

  @Test func `A period that would keep the host busy is as long as KVM makes it`() {
    var bench = SystemBench()
    bench.write(0, 0x320, 0x2_0040)
    bench.write(0, 0x3E0, 0xB)
    bench.write(0, 0x380, 1)
    #expect(bench.system.nextDeadline == bench.now.advanced(by: 200_000))
    bench.pass(200_000)
    #expect(bench.system.nextDeadline == bench.now.advanced(by: 200_000))
    #expect(bench.read(0, 0x390) <= 1)
  }

  @Test func `A masked timer counts and does not interrupt`() {
    var bench = SystemBench()
    bench.write(0, 0x320, 0x1_0040)
    bench.write(0, 0x3E0, 0xB)
    bench.write(0, 0x380, 1000)
    bench.pass(500)
    #expect(bench.read(0, 0x390) == 500)
    bench.pass(500)
    bench.write(0, 0x320, 0x40)
    #expect(bench.take(0) == nil)
  }

  @Test func `A new divisor goes on with the count`() {
    var bench = SystemBench()
    bench.write(0, 0x320, 0x40)
    bench.write(0, 0x3E0, 0xB)
    bench.write(0, 0x380, 1000)
    bench.pass(400)
    bench.write(0, 0x3E0, 0)
    #expect(bench.read(0, 0x390) == 600)
    bench.pass(1199)
    #expect(bench.take(0) == nil)
    bench.pass(1)
    #expect(bench.take(0) == 0x40)
  }

  @Test func `An illegal vector of the timer is an error`() {
    var bench = SystemBench()
    bench.write(0, 0x320, 0x05)
    bench.write(0, 0x380, 1)
    bench.pass(10)
    bench.write(0, 0x280, 0)
    #expect(bench.read(0, 0x280) == 0x40)
  }

  @Test func `The deadline mode fires at a value of the counter, and shows it until then`() {
    var bench = SystemBench()
    #expect(bench.writeMSR(0, 0x6E0, 5_000_000) == true)
    #expect(bench.readMSR(0, 0x6E0) == 0)
    bench.write(0, 0x320, 0x4_0040)
    // 2 GHz: 2.5 ms.
    #expect(bench.writeMSR(0, 0x6E0, 5_000_001) == true)
    #expect(bench.readMSR(0, 0x6E0) == 5_000_001)
    #expect(bench.system.nextDeadline == VMTime(nanoseconds: 2_500_001))
    bench.write(0, 0x380, 7)
    #expect(bench.read(0, 0x390) == 0)
    bench.pass(1_500_000)
    #expect(bench.take(0) == nil)
    bench.pass(1)
    #expect(bench.take(0) == 0x40)
    #expect(bench.readMSR(0, 0x6E0) == 0)
    // One that has passed fires at once, zero disarms, and the end of time never comes.
    #expect(bench.writeMSR(0, 0x6E0, 1) == true)
    #expect(bench.take(0) == 0x40)
    #expect(bench.writeMSR(0, 0x6E0, 50_000_000) == true)
    #expect(bench.writeMSR(0, 0x6E0, 0) == true)
    #expect(bench.system.nextDeadline == nil)
    #expect(bench.writeMSR(0, 0x6E0, .max) == true)
    #expect(bench.system.nextDeadline ?? .zero > VMTime(nanoseconds: 1 << 62))
    bench.write(0, 0x320, 0x40)
    #expect(bench.system.nextDeadline == nil)
  }

  @Test func `Times of counters round up, and stay at the last one`() {
    let slow = InterruptSystem(cpus: 1, tscKHz: 1_000_000)
    #expect(slow.time(ofCounter: .max) == VMTime(nanoseconds: .max))
    let other = InterruptSystem(cpus: 1, tscKHz: 999_999)
    #expect(other.time(ofCounter: .max) == VMTime(nanoseconds: .max))
    // Rounded down this is the last nanosecond that there is.
    #expect(other.time(ofCounter: 18_446_725_626_965_477_906) == VMTime(nanoseconds: .max))
    #expect(other.time(ofCounter: 999_999) == VMTime(nanoseconds: 1_000_000))
    #expect(other.time(ofCounter: 1) == VMTime(nanoseconds: 2))
  }
}

@Suite struct TickTests {
  /// Channel 0 in mode 2 with a count, and line 0 open at the first 8259A.
  private func ticking(_ count: UInt16, fourth: UInt8 = 1) -> SystemBench {
    var bench = SystemBench(cpus: 1)
    bench.startPICs(mask: 0xFFFE, fourth: fourth)
    bench.out(0x43, 0x34)
    bench.out(0x40, UInt8(truncatingIfNeeded: count))
    bench.out(0x40, UInt8(count >> 8))
    return bench
  }

  /// How many ticks the guest gets when it takes all that there are.
  private func taken(_ bench: inout SystemBench) -> Int {
    var count = 0
    while bench.system.acknowledge(0) == 0x20 {
      bench.out(0x20, 0x20)
      count += 1
    }
    return count
  }

  @Test func `Each tick interrupts once`() {
    var bench = ticking(11932)
    for _ in 0..<10 {
      bench.pass(10_001_000)
      #expect(taken(&bench) == 1)
    }
  }

  @Test func `Ticks that the guest has missed are given one by one`() {
    var bench = ticking(11932)
    for _ in 0..<5 { bench.pass(10_001_000) }
    #expect(bench.system.acknowledge(0) == 0x20)
    // Not before the end of the one before.
    #expect(bench.system.acknowledge(0) == nil)
    bench.out(0x20, 0x20)
    #expect(taken(&bench) == 4)
    // Also when nobody looked at the timer meanwhile.
    bench.pass(70_003_000)
    #expect(taken(&bench) == 7)
    // What is older than a second is lost.
    bench.pass(3_600_000_000_000)
    #expect(taken(&bench) <= 5001)
  }

  @Test func `What is owed stays when other channels are programmed, not when this one is`() {
    for (word, wanted) in [(0xB6, 5), (0x00, 5), (0xE2, 5), (0x34, 1)] as [(UInt8, Int)] {
      var bench = ticking(11932)
      bench.pass(50_003_000)
      bench.out(0x43, word)
      #expect(taken(&bench) == wanted)
    }
  }

  @Test func `They are with automatic end, and by the I/O APIC`() {
    var bench = ticking(11932, fourth: 3)
    bench.pass(50_003_000)
    #expect(taken(&bench) == 5)
    bench = ticking(11932)
    bench.out(0x21, 0xFF)
    bench.route(2, 0x31)
    bench.pass(50_003_000)
    var count = 0
    while bench.take(0) == 0x31 { count += 1 }
    #expect(count == 5)
  }

  @Test func `Nothing is owed to a guest that has masked the line`() {
    var bench = ticking(11932)
    bench.out(0x21, 0xFF)
    bench.pass(50_003_000)
    bench.out(0x21, 0xFE)
    #expect(taken(&bench) == 1)
  }

  @Test func `A count that would keep the host busy ticks as often as KVM lets it`() {
    for count: UInt16 in [1, 2, 100] {
      var bench = ticking(count)
      var wakes = 0
      let end = bench.now.advanced(by: 10_000_000)
      while let due = bench.system.nextDeadline, due < end {
        bench.pass(max(due, bench.now).nanoseconds - bench.now.nanoseconds)
        wakes += 1
        guard wakes < 1000 else { break }
      }
      #expect((25...51).contains(wakes), "\(count): \(wakes)")
    }
  }

  @Test func `Mode 0 interrupts once, and other channels never`() {
    var bench = ticking(11932)
    bench.out(0x43, 0x30)
    bench.out(0x40, 0x10)
    bench.out(0x40, 0)
    bench.pass(1_000_000)
    #expect(taken(&bench) == 1)
    bench.pass(100_000_000)
    #expect(taken(&bench) == 0)
    for word: UInt8 in [0x70, 0xB0, 0xC2, 0x00] { bench.out(0x43, word) }
    #expect(bench.system.nextDeadline == nil)
    bench.pass(100_000_000)
    #expect(taken(&bench) == 0)
  }

  @Test func `Port 61h has the gate, the speaker, the masks, refresh and the output`() {
    var bench = SystemBench(cpus: 1)
    #expect(bench.in(0x61) & 0xEF == 0x20)
    bench.out(0x61, 0xFF)
    #expect(bench.in(0x61) & 0xCF == 0x0F)
    bench.out(0x61, 0x0C)
    #expect(bench.in(0x61) & 0xCF == 0x0C)
    bench.out(0x43, 0xB0)
    bench.out(0x42, 0x10)
    bench.out(0x42, 0)
    bench.pass(1_000_000)
    #expect(bench.in(0x61) & 0x20 == 0)
    bench.out(0x61, 1)
    bench.pass(1_000_000)
    #expect(bench.in(0x61) & 0x21 == 0x21)
    let before = bench.in(0x61) & 0x10
    bench.pass(15_085)
    #expect(bench.in(0x61) & 0x10 != before)
  }
}
