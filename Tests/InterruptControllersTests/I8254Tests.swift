// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import InterruptControllers
import Testing

/// A timer, and a time that is counted in its clock pulses.
private struct Bench {
  var timer = I8254()
  var pulse: UInt64 = 1000

  /// The first nanosecond of a pulse.
  static func time(_ pulse: UInt64) -> VMTime {
    VMTime(nanoseconds: (pulse * 1_000_000_000 + I8254.frequency - 1) / I8254.frequency)
  }

  var now: VMTime { Self.time(pulse) }

  mutating func write(_ port: UInt16, _ value: UInt8) { timer.write(port, value, at: now) }

  /// A control word and a count, low byte first.
  mutating func start(_ channel: UInt8, mode: UInt8, _ count: UInt16, bcd: Bool = false) {
    write(3, channel << 6 | 0x30 | mode << 1 | (bcd ? 1 : 0))
    setCount(channel, count)
  }

  mutating func setCount(_ channel: UInt8, _ count: UInt16) {
    write(UInt16(channel), UInt8(truncatingIfNeeded: count))
    write(UInt16(channel), UInt8(count >> 8))
  }

  mutating func count(_ channel: UInt8) -> UInt16 {
    write(3, channel << 6)
    let low = timer.read(UInt16(channel), at: now)
    return UInt16(timer.read(UInt16(channel), at: now)) << 8 | UInt16(low)
  }

  mutating func status(_ channel: UInt8) -> UInt8 {
    write(3, 0xE0 | 2 << channel)
    return timer.read(UInt16(channel), at: now)
  }

  /// OUT in each of the next pulses, as a text of H and L; the first is the present one.
  mutating func outputs(_ channel: Int, _ count: Int) -> String {
    var text = ""
    for _ in 0..<count {
      text += timer.output(channel, at: now) ? "H" : "L"
      pulse += 1
    }
    return text
  }

  /// The pulses of the next rises of channel 0's OUT.
  func rises(_ count: Int) -> [UInt64] {
    var found: [UInt64] = []
    var at = now
    while found.count < count, let next = timer.nextInterrupt(after: at) {
      found.append(next.ticks(frequency: I8254.frequency) - pulse)
      at = next
    }
    return found
  }
}

@Suite struct I8254Tests {
  @Test func `Mode 0 rises once, a pulse for the load and the count later`() {
    var bench = Bench()
    bench.write(3, 0x30)
    #expect(!bench.timer.output(0, at: bench.now))
    bench.start(0, mode: 0, 4)
    #expect(bench.rises(2) == [5])
    #expect(bench.outputs(0, 8) == "LLLLLHHH")
    // It counts on from the largest value.
    #expect(bench.count(0) == 0xFFFD)
    // A new count starts it again; the first byte already makes it low.
    bench.write(0, 3)
    #expect(bench.outputs(0, 5) == "LLLLL")
    bench.write(0, 0)
    #expect(bench.outputs(0, 5) == "LLLLH")
  }

  @Test func `A low gate stops modes 0 and 4, and they go on where they stood`() {
    for mode: UInt8 in [0, 4] {
      var bench = Bench()
      bench.timer.setGate2(true, at: bench.now)
      bench.start(2, mode: mode, 100)
      bench.pulse += 11
      #expect(bench.count(2) == 90)
      bench.timer.setGate2(false, at: bench.now)
      bench.pulse += 50
      #expect(bench.count(2) == 90)
      bench.timer.setGate2(true, at: bench.now)
      bench.pulse += 10
      #expect(bench.count(2) == 80)
    }
  }

  @Test func `Mode 1 starts with the gate's rise only, and starts again with each`() {
    var bench = Bench()
    bench.start(2, mode: 1, 3)
    #expect(bench.outputs(2, 6) == "HHHHHH")
    #expect(bench.status(2) == 0xF2)
    bench.timer.setGate2(true, at: bench.now)
    #expect(bench.status(2) == 0x32)
    #expect(bench.outputs(2, 6) == "LLLLHH")
    bench.timer.setGate2(false, at: bench.now)
    bench.timer.setGate2(true, at: bench.now)
    #expect(bench.outputs(2, 2) == "LL")
    bench.timer.setGate2(false, at: bench.now)
    bench.timer.setGate2(true, at: bench.now)
    // A new count is for the next shot.
    bench.setCount(2, 1)
    #expect(bench.status(2) & 0x40 != 0)
    #expect(bench.outputs(2, 6) == "LLLLHH")
    bench.timer.setGate2(false, at: bench.now)
    bench.timer.setGate2(true, at: bench.now)
    #expect(bench.outputs(2, 4) == "LLHH")
  }

  @Test func `Without a count the gate's rise starts nothing`() {
    var bench = Bench()
    bench.write(3, 0xB2)
    bench.timer.setGate2(true, at: bench.now)
    #expect(bench.outputs(2, 4) == "HHHH")
  }

  @Test func `Mode 2 is low for the last pulse of each period`() {
    var bench = Bench()
    bench.start(0, mode: 2, 4)
    #expect(bench.rises(3) == [5, 9, 13])
    #expect(bench.outputs(0, 10) == "HHHHLHHHLH")
    #expect(bench.count(0) == 3)
  }

  @Test func `A new count of mode 2 waits for the end of the period`() {
    var bench = Bench()
    bench.start(0, mode: 2, 10)
    bench.pulse += 4
    bench.setCount(0, 3)
    #expect(bench.status(0) == 0xF4)
    #expect(bench.rises(3) == [7, 10, 13])
    bench.pulse += 6
    #expect(bench.count(0) == 1)
    bench.pulse += 1
    #expect(bench.status(0) == 0xB4)
    #expect(bench.count(0) == 3)
  }

  @Test(arguments: [(4, "HHHLLHHLLH"), (5, "HHHHLLHHHL")] as [(UInt16, String)])
  func `Mode 3 is high for half of the period, and one more of an odd one`(
    count: UInt16, wanted: String
  ) {
    var bench = Bench()
    bench.start(0, mode: 3, count)
    #expect(bench.outputs(0, 10) == wanted)
  }

  @Test func `Mode 3 counts down by two, and reloads an odd count less one`() {
    var bench = Bench()
    bench.start(0, mode: 3, 7)
    bench.pulse += 1
    var counts: [UInt16] = []
    for _ in 0..<8 {
      counts.append(bench.count(0))
      bench.pulse += 1
    }
    #expect(counts == [6, 4, 2, 0, 6, 4, 2, 6])
  }

  @Test func `A new count of mode 3 waits for the end of the half`() {
    var bench = Bench()
    bench.start(0, mode: 3, 8)
    bench.pulse += 2
    bench.setCount(0, 4)
    #expect(bench.rises(3) == [5, 9, 13])
    #expect(bench.outputs(0, 10) == "HHHLLHHLLH")
  }

  @Test func `A low gate makes modes 2 and 3 high, and its rise starts the period`() {
    for mode: UInt8 in [2, 3] {
      var bench = Bench()
      bench.timer.setGate2(true, at: bench.now)
      bench.start(2, mode: mode, 4)
      bench.pulse += 4
      #expect(!bench.timer.output(2, at: bench.now))
      bench.timer.setGate2(false, at: bench.now)
      #expect(bench.outputs(2, 6) == "HHHHHH")
      bench.timer.setGate2(true, at: bench.now)
      #expect(bench.outputs(2, 6) == (mode == 2 ? "HHHHLH" : "HHHLLH"))
    }
  }

  @Test func `Mode 4 strobes once after each count`() {
    var bench = Bench()
    bench.start(0, mode: 4, 3)
    #expect(bench.rises(2) == [5])
    #expect(bench.outputs(0, 8) == "HHHHLHHH")
    bench.setCount(0, 1)
    #expect(bench.outputs(0, 4) == "HHLH")
  }

  @Test func `Mode 5 strobes after the gate's rise only`() {
    var bench = Bench()
    bench.start(2, mode: 5, 3)
    #expect(bench.outputs(2, 8) == "HHHHHHHH")
    bench.timer.setGate2(true, at: bench.now)
    #expect(bench.outputs(2, 8) == "HHHHLHHH")
    bench.timer.setGate2(false, at: bench.now)
    #expect(bench.outputs(2, 8) == "HHHHHHHH")
  }

  @Test func `Modes 6 and 7 are 2 and 3`() {
    var bench = Bench()
    bench.write(3, 0x3C)
    #expect(bench.status(0) & 0x0E == 4)
    bench.write(3, 0x3E)
    #expect(bench.status(0) & 0x0E == 6)
  }

  @Test func `Counts can be decimal`() {
    var bench = Bench()
    bench.start(0, mode: 2, 0x1000, bcd: true)
    bench.pulse += 2
    #expect(bench.count(0) == 0x0999)
    #expect(bench.status(0) == 0xB5)
    bench.start(0, mode: 0, 0, bcd: true)
    #expect(bench.rises(1) == [10001])
    bench.start(0, mode: 0, 0)
    #expect(bench.rises(1) == [65537])
  }

  @Test func `Single bytes are read and written as the control word says`() {
    var bench = Bench()
    bench.write(3, 0x14)
    bench.write(0, 0x80)
    bench.pulse += 1
    #expect(bench.timer.read(0, at: bench.now) == 0x80)
    bench.pulse += 1
    #expect(bench.timer.read(0, at: bench.now) == 0x7F)
    bench.write(3, 0x24)
    bench.write(0, 0x12)
    bench.pulse += 1
    #expect(bench.timer.read(0, at: bench.now) == 0x12)
    bench.pulse += 1
    #expect(bench.timer.read(0, at: bench.now) == 0x11)
  }

  @Test func `A latched count stays until it is read, and a second latch changes nothing`() {
    var bench = Bench()
    bench.start(0, mode: 2, 1000)
    bench.pulse += 101
    bench.write(3, 0)
    bench.pulse += 100
    bench.write(3, 0)
    bench.pulse += 100
    let low = bench.timer.read(0, at: bench.now)
    bench.pulse += 100
    #expect(UInt16(bench.timer.read(0, at: bench.now)) << 8 | UInt16(low) == 900)
    #expect(bench.count(0) == 600)
  }

  @Test func `Read-back latches counts and states of several counters, the state first`() {
    var bench = Bench()
    bench.start(0, mode: 2, 1000)
    bench.start(1, mode: 0, 500)
    bench.pulse += 11
    bench.write(3, 0xC6)
    bench.pulse += 50
    #expect(bench.timer.read(0, at: bench.now) == 0xB4)
    #expect(bench.timer.read(0, at: bench.now) == 0xDE)
    #expect(bench.timer.read(0, at: bench.now) == 3)
    #expect(bench.timer.read(1, at: bench.now) == 0x30)
    #expect(bench.timer.read(1, at: bench.now) == 0xEA)
    #expect(bench.timer.read(1, at: bench.now) == 1)
    #expect(bench.timer.read(3, at: bench.now) == 0xFF)
  }

  @Test func `The null count is there between the control word and the count`() {
    var bench = Bench()
    bench.write(3, 0x34)
    #expect(bench.status(0) == 0xF4)
    bench.write(0, 10)
    #expect(bench.status(0) == 0xF4)
    bench.write(0, 0)
    #expect(bench.status(0) == 0xB4)
  }
}
