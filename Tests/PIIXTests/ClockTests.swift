// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import ModelTestSupport
import Testing

@testable import PIIX

@Suite("CalendarTime")
struct CalendarTimeTests {
  @Test(
    "Unix seconds become dates and back",
    arguments: [
      (Int64(0), [1970, 1, 1, 0, 0, 0, 5]), (951_782_399, [2000, 2, 28, 23, 59, 59, 2]),
      (951_868_800, [2000, 3, 1, 0, 0, 0, 4]), (4_107_542_399, [2100, 2, 28, 23, 59, 59, 1]),
      (4_107_542_400, [2100, 3, 1, 0, 0, 0, 2]), (1_795_377_600, [2026, 11, 22, 20, 0, 0, 1]),
      (253_402_300_799, [9999, 12, 31, 23, 59, 59, 6]),
    ] as [(Int64, [Int])])
  func dates(seconds: Int64, fields: [Int]) {
    let time = CalendarTime(unixSeconds: seconds)
    #expect(
      [time.year, time.month, time.day, time.hour, time.minute, time.second, time.weekday]
        == fields)
    #expect(
      CalendarTime.unixSeconds(
        year: fields[0], month: fields[1], day: fields[2], hour: fields[3], minute: fields[4],
        second: fields[5]) == seconds)
  }
}

@Suite("MC146818")
struct MC146818Tests {
  /// 22 November 2026, 20:00:00, a Sunday.
  static let start: Int64 = 1_795_377_600

  static func at(_ seconds: Double) -> VMTime { VMTime(nanoseconds: UInt64(seconds * 1e9)) }

  static func get(_ register: UInt8, _ clock: inout MC146818, _ time: Double = 0) -> UInt8 {
    clock.write(register, at: 0, now: at(time))
    return clock.read(at: 1, now: at(time))
  }

  static func set(
    _ register: UInt8, _ value: UInt8, _ clock: inout MC146818, _ time: Double = 0
  ) {
    clock.write(register, at: 0, now: at(time))
    clock.write(value, at: 1, now: at(time))
  }

  static func time(_ clock: inout MC146818, _ time: Double) -> [UInt8] {
    [0x32, 9, 8, 7, 4, 2, 0, 6].map { get($0, &clock, time) }
  }

  @Test(
    "registers after power-on",
    arguments: [
      (UInt8(0x0A), UInt8(0x26)), (0x0B, 0x02), (0x0C, 0x00), (0x0D, 0x80),
    ] as [(UInt8, UInt8)])
  func reset(register: UInt8, value: UInt8) {
    var clock = MC146818(unixSeconds: Self.start)
    #expect(Self.get(register, &clock) == value)
    #expect(clock.read(at: 0, now: .zero) == 0xFF)
    #expect(!clock.interrupt)
    #expect(clock.nextDeadline == nil)
  }

  @Test("the time is told in BCD and 24 hours, and goes on")
  func time() {
    var clock = MC146818(unixSeconds: Self.start)
    #expect(Self.time(&clock, 0) == [0x20, 0x26, 0x11, 0x22, 0x20, 0x00, 0x00, 0x01])
    #expect(Self.time(&clock, 3661.5) == [0x20, 0x26, 0x11, 0x22, 0x21, 0x01, 0x01, 0x01])
    #expect(Self.time(&clock, 14_400) == [0x20, 0x26, 0x11, 0x23, 0x00, 0x00, 0x00, 0x02])
  }

  @Test(
    "binary and 12 hours",
    arguments: [
      (UInt8(0x06), [UInt8(20), 26, 11, 22, 20, 0, 0, 1]),
      (0x04, [20, 26, 11, 22, 0x88, 0, 0, 1]), (0x00, [0x20, 0x26, 0x11, 0x22, 0x88, 0, 0, 1]),
    ] as [(UInt8, [UInt8])])
  func modes(mode: UInt8, fields: [UInt8]) {
    var clock = MC146818(unixSeconds: Self.start)
    Self.set(0x0B, mode, &clock)
    #expect(Self.time(&clock, 0) == fields)
  }

  @Test(
    "noon and midnight are 12",
    arguments: [
      (-20 * 3600, UInt8(0x12)), (-8 * 3600, 0x92), (-7 * 3600, 0x81), (-19 * 3600, 0x01),
    ] as [(Int, UInt8)])
  func twelveHours(offset: Int, hour: UInt8) {
    var clock = MC146818(unixSeconds: Self.start + Int64(offset))
    Self.set(0x0B, 0x00, &clock)
    #expect(Self.get(0x04, &clock) == hour)
  }

  @Test("SET holds the time for writing; the clock goes on from what was written")
  func setTime() {
    var clock = MC146818(unixSeconds: Self.start)
    Self.set(0x0B, 0x82, &clock, 10.25)
    #expect(Self.get(0x00, &clock, 99) == 0x10)
    for (register, value) in [
      (UInt8(0x32), UInt8(0x19)), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59),
      (0, 0x58), (6, 0x06),
    ] {
      Self.set(register, value, &clock, 99)
    }
    #expect(Self.get(0x09, &clock, 120) == 0x99)
    Self.set(0x0B, 0x02, &clock, 120.5)
    #expect(Self.time(&clock, 120.9) == [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58, 0x06])
    #expect(Self.time(&clock, 122.1) == [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 0x07])
  }

  @Test("a write while running sets that field alone")
  func writeRunning() {
    var clock = MC146818(unixSeconds: Self.start)
    Self.set(0x02, 0x30, &clock, 5)
    #expect(Self.time(&clock, 6) == [0x20, 0x26, 0x11, 0x22, 0x20, 0x30, 0x06, 0x01])
  }

  @Test("update in progress leads each second by 2228 us, not while SET")
  func updateInProgress() {
    var clock = MC146818(unixSeconds: Self.start)
    #expect(Self.get(0x0A, &clock, 0.9977) == 0x26)
    #expect(Self.get(0x0A, &clock, 0.9978) == 0xA6)
    #expect(Self.get(0x00, &clock, 0.9999) == 0x00)
    #expect(Self.get(0x0A, &clock, 1.0) == 0x26)
    Self.set(0x0B, 0x82, &clock, 1.5)
    #expect(Self.get(0x0A, &clock, 1.999) == 0x26)
  }

  @Test("the first update follows half a second after the divider is let go")
  func divider() {
    var clock = MC146818(unixSeconds: Self.start)
    Self.set(0x0A, 0x76, &clock, 1.1)
    #expect(Self.get(0x00, &clock, 9) == 0x01)
    Self.set(0x0A, 0x26, &clock, 9.3)
    #expect(Self.get(0x00, &clock, 9.79) == 0x01)
    #expect(Self.get(0x00, &clock, 9.81) == 0x02)
  }

  @Test("the update interrupt comes each second and is cleared by reading C")
  func updateInterrupt() {
    var clock = MC146818(unixSeconds: Self.start)
    Self.set(0x0B, 0x12, &clock, 0.5)
    #expect(clock.nextDeadline == Self.at(1))
    clock.advance(to: Self.at(0.99))
    #expect(!clock.interrupt)
    clock.advance(to: Self.at(1))
    #expect(clock.interrupt)
    #expect(Self.get(0x0C, &clock, 1.1) & 0x90 == 0x90)
    #expect(!clock.interrupt)
    #expect(Self.get(0x0C, &clock, 1.1) == 0)
    #expect(clock.nextDeadline == Self.at(2))
  }

  @Test(
    "periodic rates",
    arguments: [
      (UInt8(1), UInt64(3_906_250)), (2, 7_812_500), (3, 122_071), (6, 976_563), (15, 500_000_000),
    ] as [(UInt8, UInt64)])
  func periodic(rate: UInt8, period: UInt64) {
    var clock = MC146818(unixSeconds: Self.start)
    Self.set(0x0A, 0x20 | rate, &clock)
    Self.set(0x0B, 0x42, &clock)
    #expect(clock.nextDeadline == VMTime(nanoseconds: period))
    clock.advance(to: VMTime(nanoseconds: period - 1))
    #expect(!clock.interrupt)
    clock.advance(to: VMTime(nanoseconds: period))
    #expect(clock.interrupt)
  }

  @Test("the periodic flag is set without its enable, too")
  func periodicFlag() {
    var clock = MC146818(unixSeconds: Self.start)
    #expect(Self.get(0x0C, &clock, 0.01) == 0x40)
    #expect(Self.get(0x0C, &clock, 0.01) == 0x00)
  }

  @Test(
    "the alarm matches its time, or any where both upper bits are set",
    arguments: [
      ([UInt8(0x30), 0x00, 0x20], 30.0), ([0x00, 0x01, 0x20], 60.0), ([0x05, 0xFF, 0xFF], 5.0),
      ([0x00, 0x00, 0x21], 3600.0), ([0xC0, 0xC0, 0xC0], 1.0), ([0x00, 0x00, 0x20], 86_400.0),
      ([0x59, 0x59, 0x19], 86_399.0),
    ] as [([UInt8], Double)])
  func alarm(registers: [UInt8], seconds: Double) {
    var clock = MC146818(unixSeconds: Self.start)
    for index in 0..<3 { Self.set(UInt8(2 * index + 1), registers[index], &clock) }
    Self.set(0x0B, 0x22, &clock)
    #expect(clock.nextDeadline == Self.at(seconds))
    clock.advance(to: Self.at(seconds - 0.5))
    #expect(!clock.interrupt)
    clock.advance(to: Self.at(seconds))
    #expect(clock.interrupt)
    #expect(Self.get(0x0C, &clock, seconds) & 0xA0 == 0xA0)
  }

  @Test("an alarm that is no time never comes")
  func impossibleAlarm() {
    var clock = MC146818(unixSeconds: Self.start)
    for register: UInt8 in [1, 3, 5] { Self.set(register, 0x7F, &clock) }
    Self.set(0x0B, 0x22, &clock)
    #expect(clock.nextDeadline == nil)
    clock.advance(to: Self.at(200_000))
    #expect(!clock.interrupt)
  }

  @Test("SET clears the update enable; reset clears enables and flags but not modes")
  func enables() {
    var clock = MC146818(unixSeconds: Self.start)
    Self.set(0x0B, 0x96, &clock)
    #expect(Self.get(0x0B, &clock) == 0x86)
    Self.set(0x0B, 0x7E, &clock)
    clock.reset()
    #expect(Self.get(0x0B, &clock) == 0x06)
  }

  @Test("the index port's bit 7 masks NMIs and is no part of the index")
  func nmiMask() {
    var clock = MC146818(unixSeconds: Self.start)
    clock.write(0x8D, at: 0, now: .zero)
    #expect(clock.isNMIMasked)
    #expect(clock.read(at: 1, now: .zero) == 0x80)
  }

  @Test(
    "memory bytes say what the machine has",
    arguments: [
      (UInt8(0x15), UInt8(0x80)), (0x16, 0x02), (0x17, 0xFF), (0x18, 0xFF), (0x30, 0xFF),
      (0x31, 0xFF), (0x34, 0x00), (0x35, 0xBF), (0x5B, 0x00), (0x5C, 0x40), (0x5D, 0x00),
      (0x5F, 0x03), (0x10, 0x00), (0x14, 0x06), (0x3D, 0x32), (0x38, 0x00), (0x39, 0x09),
    ] as [(UInt8, UInt8)])
  func setup(address: UInt8, value: UInt8) {
    var clock = MC146818(unixSeconds: Self.start)
    clock.apply(
      CMOSSetup(
        memoryBelow4G: 3 << 30, memoryAbove4G: 1 << 30, cpuCount: 4,
        translations: [.lba, .large]))
    #expect(Self.get(address, &clock) == value)
  }

  @Test("small machines have their size in the bytes above 1 MiB")
  func smallMachine() {
    var clock = MC146818(unixSeconds: Self.start)
    clock.apply(CMOSSetup(memoryBelow4G: 16 << 20))
    #expect([0x17, 0x18, 0x34, 0x35].map { clock.peek($0) } == [0x00, 0x3C, 0x00, 0x00])
  }

  @Test("state survives a round trip")
  func state() {
    var clock = MC146818(unixSeconds: Self.start)
    Self.set(0x0B, 0x72, &clock, 3.3)
    Self.set(0x06, 0x05, &clock, 4)
    Self.set(0x70, 0xA5, &clock, 4)
    var other = MC146818(unixSeconds: 0)
    restore(encoded(clock), into: &other)
    #expect(encoded(other) == encoded(clock))
    #expect(Self.time(&other, 1000) == Self.time(&clock, 1000))
    #expect(other.nextDeadline == clock.nextDeadline)
  }

  @Test("no access or restored state traps")
  func hostile() {
    var random = SeededGenerator(seed: 146_818)
    var clock = MC146818(unixSeconds: .max)
    var now: UInt64 = 0
    for round in 0..<200_000 {
      let word = random.next()
      now = word & 0xFF00 == 0 ? random.next() : now &+ (word >> 40)
      let time = VMTime(nanoseconds: now)
      switch word & 3 {
      case 0: clock.write(UInt8(truncatingIfNeeded: word >> 2) & 0x3F, at: 0, now: time)
      case 1: clock.write(UInt8(truncatingIfNeeded: word >> 8), at: 1, now: time)
      case 2: _ = clock.read(at: UInt16(word >> 2 & 3), now: time)
      default: clock.advance(to: time)
      }
      _ = clock.nextDeadline
      if round % 1000 == 0 {
        restore((0..<200).map { _ in UInt8(truncatingIfNeeded: random.next()) }, into: &clock)
      }
    }
    #expect(Self.get(0x0D, &clock) == 0x80)
  }
}
