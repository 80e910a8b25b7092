// SPDX-License-Identifier: Apache-2.0

import DeviceModel

extension MC146818 {
  /// The period of the periodic interrupt in ticks of 32768 Hz, or `nil` when it is off.
  ///
  /// Rate selection for a 32.768 kHz time base: 1 and 2 are 256 and 128 Hz, 3 to 15 fall
  /// from 8192 to 2 Hz (data sheet, table 5).
  var periodTicks: UInt64? {
    guard memory[0x0A] & 0x60 != 0x60 else { return nil }
    switch memory[0x0A] & 0x0F {
    case 0: return nil
    case 1: return 128
    case 2: return 256
    case let rate: return 1 << UInt64(rate - 1)
    }
  }

  /// Returns when tick `tick` of 32768 Hz has passed, in nanoseconds, rounded up.
  static func nanoseconds(ofTick tick: UInt64) -> UInt64 {
    let product = tick.multipliedFullWidth(by: second)
    let whole = product.high << 49 | product.low >> 15
    return product.low & 0x7FFF == 0 ? whole : whole &+ 1
  }

  /// Returns the first second after `second` (of the second counter) at which the alarm
  /// matches, or `nil` if it never does.
  ///
  /// An alarm register with both upper bits set matches any value.
  func nextAlarm(after second: UInt64) -> UInt64? {
    let day: Int64 = 86_400
    let clock = origin &+ Int64(truncatingIfNeeded: second)
    let start = ((clock &+ 1) % day + day) % day
    let wanted = (
      hour: alarm(Register.hoursAlarm), minute: alarm(Register.minutesAlarm),
      second: alarm(Register.secondsAlarm)
    )
    var time = start
    // Each step jumps to the next hour, minute or second, so a day takes few of them.
    while time < start + day {
      let (hour, minute) = (time / 3600 % 24, time / 60 % 60)
      if let want = wanted.hour, want != hour {
        time += 3600 - time % 3600
      } else if let want = wanted.minute, want != minute {
        time += 60 - time % 60
      } else if let want = wanted.second, want != time % 60 {
        time += 1
      } else {
        return second &+ 1 &+ UInt64(time - start)
      }
    }
    return nil
  }

  /// Returns an alarm register's value, or `nil` if it matches any.
  private func alarm(_ register: UInt8) -> Int64? {
    let byte = memory[Int(register)]
    guard byte & 0xC0 != 0xC0 else { return nil }
    return Int64(register == Register.hoursAlarm ? decodeHour(byte) : decode(byte))
  }

  /// Writes the running clock's time into the memory.
  mutating func storeTime(at now: VMTime) {
    let seconds = now.advanced(by: phase).nanoseconds / Self.second
    let time = CalendarTime(unixSeconds: origin &+ Int64(truncatingIfNeeded: seconds))
    memory[0x00] = encode(time.second)
    memory[0x02] = encode(time.minute)
    memory[0x04] = encodeHour(time.hour)
    memory[0x06] = encode((time.weekday - 1 + Int(weekdayBias)) % 7 + 1)
    memory[0x07] = encode(time.day)
    memory[0x08] = encode(time.month)
    memory[0x09] = encode(time.year % 100)
    memory[0x32] = encode(time.year / 100)
  }

  /// Lets the clock go on from the time in the memory.
  mutating func loadTime(at now: VMTime) {
    let unixSeconds = CalendarTime.unixSeconds(
      year: decode(memory[0x32]) * 100 + decode(memory[0x09]), month: decode(memory[0x08]),
      day: decode(memory[0x07]), hour: decodeHour(memory[0x04]), minute: decode(memory[0x02]),
      second: decode(memory[0x00]))
    let seconds = now.advanced(by: phase).nanoseconds / Self.second
    origin = unixSeconds &- Int64(truncatingIfNeeded: seconds)
    let weekday = CalendarTime(unixSeconds: unixSeconds).weekday
    weekdayBias = UInt8((decode(memory[0x06]) + 14 - weekday) % 7)
  }

  private var isBinary: Bool { memory[0x0B] & 0x04 != 0 }
  private var is24Hours: Bool { memory[0x0B] & 0x02 != 0 }

  private func encode(_ value: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: isBinary ? value : (value / 10 % 10) * 16 + value % 10)
  }

  private func decode(_ byte: UInt8) -> Int {
    isBinary ? Int(byte) : Int(byte >> 4) * 10 + Int(byte & 0x0F)
  }

  /// With 12 hours, bit 7 says PM and noon and midnight are 12.
  private func encodeHour(_ hour: Int) -> UInt8 {
    guard !is24Hours else { return encode(hour) }
    return encode((hour + 11) % 12 + 1) | (hour >= 12 ? 0x80 : 0)
  }

  private func decodeHour(_ byte: UInt8) -> Int {
    guard !is24Hours else { return decode(byte) }
    return decode(byte & 0x7F) % 12 + (byte & 0x80 != 0 ? 12 : 0)
  }
}
