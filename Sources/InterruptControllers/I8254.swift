// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The 8254 programmable interval timer (Intel 8254 data sheet), as a function of time.
public struct I8254: Sendable {
  /// The frequency of the PC's timer clock in hertz.
  public static let frequency: UInt64 = 1_193_182

  private var channels = [Channel](repeating: Channel(), count: 3)

  public init() { channels[2].gate = false }

  /// How many clock pulses there have been at a time.
  private static func pulse(_ time: VMTime) -> Int64 { Int64(time.ticks(frequency: frequency)) }

  /// The first time at which there have been so many pulses.
  private static func time(_ pulse: Int64) -> VMTime {
    let product = UInt64(max(0, pulse)).multipliedFullWidth(by: 1_000_000_000)
    guard product.high < frequency else { return VMTime(nanoseconds: .max) }
    let (nanoseconds, rest) = frequency.dividingFullWidth(product)
    return VMTime(nanoseconds: nanoseconds + (rest > 0 && nanoseconds < .max ? 1 : 0))
  }

  // MARK: - Outputs

  /// The OUT pin of a channel.
  public func output(_ channel: Int, at now: VMTime) -> Bool {
    channels[channel].output(Self.pulse(now))
  }

  /// When channel 0's OUT rises next after `now`: the next timer interrupt.
  public func nextInterrupt(after now: VMTime) -> VMTime? {
    channels[0].nextRise(after: Self.pulse(now)).map(Self.time)
  }

  /// Whether channel 0 counts over and over.
  var isPeriodic: Bool { channels[0].isPeriodic }

  /// The GATE pin of channel 2, which port 61h drives.
  public var gate2: Bool { channels[2].gate }

  /// Sets the GATE pin of channel 2.
  public mutating func setGate2(_ high: Bool, at now: VMTime) {
    channels[2].setGate(high, Self.pulse(now))
  }

  // MARK: - Ports

  /// Reads port 40h + `offset`; the control word cannot be read.
  public mutating func read(_ offset: UInt16, at now: VMTime) -> UInt8 {
    guard offset < 3 else { return 0xFF }
    return channels[Int(offset)].read(Self.pulse(now))
  }

  /// Writes port 40h + `offset`.
  public mutating func write(_ offset: UInt16, _ value: UInt8, at now: VMTime) {
    let pulse = Self.pulse(now)
    guard offset == 3 else {
      if offset < 3 { channels[Int(offset)].write(value, pulse) }
      return
    }
    let number = Int(value >> 6)
    guard number < 3 else {
      readBack(value, pulse)
      return
    }
    let access = value >> 4 & 3
    guard access != 0 else {
      channels[number].latch(pulse)
      return
    }
    channels[number].setControl(access: access, mode: value >> 1 & 7, isBCD: value & 1 != 0)
  }

  private mutating func readBack(_ value: UInt8, _ pulse: Int64) {
    for index in 0..<3 where value >> UInt8(index + 1) & 1 != 0 {
      if value & 0x20 == 0 { channels[index].latch(pulse) }
      if value & 0x10 == 0 { channels[index].latchStatus(pulse) }
    }
  }
}

extension I8254: DeviceState {
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.parts("channels", &channels)
  }
}
