// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The real-time clock and its 128 bytes of battery-backed memory, ports 70h and 71h.
///
/// Motorola MC146818 data sheet, with a 32.768 kHz time base; the century at 32h (the FADT
/// says so) counts with the clock. While the clock runs, its registers are worked out from
/// the virtual clock; while SET or a divider reset holds it, they are plain memory. Call
/// ``advance(to:)`` at ``nextDeadline``; every access does so by itself.
public struct MC146818: DeviceState, Sendable {
  /// The memory; the time registers in it are stale while the clock runs.
  var memory = [128 of UInt8](repeating: 0)
  var index: UInt8 = 0
  /// Bit 7 of the last write to port 70h: NMIs are masked.
  public private(set) var isNMIMasked = false
  /// The clock's Unix seconds when the second counter is zero.
  var origin: Int64 = 0
  /// What is added to the virtual time so that seconds begin at whole multiples of 1e9.
  var phase: UInt64 = 0
  /// What software set the weekday to, as days after the right one.
  var weekdayBias: UInt8 = 0
  /// The second counter and periodic counter that ``advance(to:)`` has seen.
  var lastSecond: UInt64 = 0
  var lastPeriod: UInt64 = 0

  static let second: UInt64 = 1_000_000_000
  /// Update in progress rises 244 us before an update cycle, which takes 1984 us.
  static let updateTime: UInt64 = 244_000 + 1_984_000

  enum Register {
    static let secondsAlarm: UInt8 = 0x01
    static let minutesAlarm: UInt8 = 0x03
    static let hoursAlarm: UInt8 = 0x05
    static let a: UInt8 = 0x0A
    static let b: UInt8 = 0x0B
    static let c: UInt8 = 0x0C
    static let d: UInt8 = 0x0D
    static let century: UInt8 = 0x32
  }

  /// Makes a clock that shows `unixSeconds`, in UTC or local time as the caller has it, at
  /// virtual time zero; 24 hours, BCD, 1024 Hz selected, no interrupts enabled.
  public init(unixSeconds: Int64) {
    origin = max(0, min(unixSeconds, CalendarTime.lastSecond))
    memory[Int(Register.a)] = 0x26
    memory[Int(Register.b)] = 0x02
  }

  // MARK: Lines and time

  /// The level of IRQ 8: a flag of register C whose enable in B is set.
  public var interrupt: Bool { memory[0x0C] & memory[0x0B] & 0x70 != 0 }

  /// When ``interrupt`` may rise by itself next, or `nil` if only an access can raise it.
  public var nextDeadline: VMTime? {
    guard !interrupt else { return nil }
    let enables = memory[0x0B] & ~memory[0x0C]
    var next: UInt64?
    if enables & 0x40 != 0, let period = periodTicks {
      next = Self.nanoseconds(ofTick: (lastPeriod &+ 1) &* period)
    }
    if !isHeld {
      if enables & 0x10 != 0 { next = min(next ?? .max, (lastSecond &+ 1) &* Self.second) }
      if enables & 0x20 != 0, let alarm = nextAlarm(after: lastSecond) {
        next = min(next ?? .max, alarm &* Self.second)
      }
    }
    guard let next else { return nil }
    return VMTime(nanoseconds: next > phase ? next - phase : 0)
  }

  /// Latches the flags that time has brought up to `now`.
  public mutating func advance(to now: VMTime) {
    let shifted = now.advanced(by: phase)
    let second = shifted.nanoseconds / Self.second
    if !isHeld, second > lastSecond {
      memory[0x0C] |= 0x10
      if let alarm = nextAlarm(after: lastSecond), alarm <= second { memory[0x0C] |= 0x20 }
    }
    lastSecond = second
    if let period = periodTicks {
      let count = shifted.ticks(frequency: 32_768) / period
      if count > lastPeriod { memory[0x0C] |= 0x40 }
      lastPeriod = count
    }
  }

  // MARK: Access

  /// Reads port 70h (offset 0, write-only: ones) or 71h (offset 1).
  public mutating func read(at offset: UInt16, now: VMTime) -> UInt8 {
    guard offset == 1 else { return 0xFF }
    advance(to: now)
    switch index {
    case Register.a: return memory[0x0A] & 0x7F | (isUpdating(at: now) ? 0x80 : 0)
    case Register.c:
      let flags = memory[0x0C] | (interrupt ? 0x80 : 0)
      memory[0x0C] = 0
      return flags
    case Register.d: return 0x80  // VRT: the battery is good
    default:
      if Self.isTime(index), !isHeld { storeTime(at: now) }
      return memory[Int(index)]
    }
  }

  /// Writes port 70h (offset 0) or 71h (offset 1).
  public mutating func write(_ byte: UInt8, at offset: UInt16, now: VMTime) {
    if offset == 0 {
      index = byte & 0x7F
      isNMIMasked = byte & 0x80 != 0
    }
    guard offset == 1 else { return }
    advance(to: now)
    switch index {
    case Register.a: writeA(byte, now: now)
    case Register.b: writeB(byte, now: now)
    case Register.c, Register.d: break  // read-only
    default:
      let isLive = Self.isTime(index) && !isHeld
      if isLive { storeTime(at: now) }
      memory[Int(index)] = byte
      if isLive { loadTime(at: now) }
    }
  }

  /// Returns a byte of the memory without side effects; time registers may be stale.
  public func peek(_ address: UInt8) -> UInt8 { memory[Int(address & 0x7F)] }

  /// Sets a byte of the memory, as an owner of the machine does before it runs.
  public mutating func poke(_ byte: UInt8, at address: UInt8) {
    let address = address & 0x7F
    guard address > Register.d, address != Register.century else { return }
    memory[Int(address)] = byte
  }

  /// Leaves the shutdown status (0Fh) by which the firmware knows a wake from suspend to RAM.
  public mutating func noteSuspend() { memory[0x0F] = 0xFE }

  /// RESET#: clears the interrupt enables and flags; time, modes and memory stay.
  public mutating func reset() {
    memory[0x0B] &= ~0x78
    memory[0x0C] = 0
    isNMIMasked = false
    index = 0
  }

  /// SET in register B or a divider reset (DV = 11x) in register A: no updates.
  var isHeld: Bool { memory[0x0B] & 0x80 != 0 || isDividerReset }
  private var isDividerReset: Bool { memory[0x0A] & 0x60 == 0x60 }

  static func isTime(_ index: UInt8) -> Bool {
    switch index {
    case 0, 2, 4, 6, 7, 8, 9, Register.century: true
    default: false
    }
  }

  private func isUpdating(at now: VMTime) -> Bool {
    let fraction = now.advanced(by: phase).nanoseconds % Self.second
    return !isHeld && fraction >= Self.second - Self.updateTime
  }

  private mutating func writeA(_ byte: UInt8, now: VMTime) {
    let wasHeld = isHeld
    let wasReset = isDividerReset
    if !wasHeld { storeTime(at: now) }
    memory[0x0A] = byte & 0x7F
    if wasReset, !isDividerReset {
      // The first update follows half a second after the divider is let go.
      let fraction = now.nanoseconds % Self.second
      phase = (Self.second / 2 + Self.second - fraction) % Self.second
    }
    changeHold(from: wasHeld, now: now)
  }

  private mutating func writeB(_ byte: UInt8, now: VMTime) {
    let wasHeld = isHeld
    if !wasHeld, byte & 0x80 != 0 { storeTime(at: now) }
    memory[0x0B] = byte & 0x80 != 0 ? byte & ~0x10 : byte  // SET clears UIE
    changeHold(from: wasHeld, now: now)
  }

  /// Starts the clock from its registers when it is let go, and forgets time passed.
  private mutating func changeHold(from wasHeld: Bool, now: VMTime) {
    let shifted = now.advanced(by: phase)
    lastSecond = shifted.nanoseconds / Self.second
    if let period = periodTicks { lastPeriod = shifted.ticks(frequency: 32_768) / period }
    if wasHeld, !isHeld { loadTime(at: now) }
  }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.bytes("memory", &memory)
    visitor.field("index", &index)
    visitor.field("isNMIMasked", &isNMIMasked)
    visitor.field("origin", &origin)
    visitor.field("phase", &phase)
    visitor.field("weekdayBias", &weekdayBias)
    visitor.field("lastSecond", &lastSecond)
    visitor.field("lastPeriod", &lastPeriod)
    index &= 0x7F
    phase %= Self.second
    weekdayBias %= 7
    memory[0x0C] &= 0x70
  }
}
