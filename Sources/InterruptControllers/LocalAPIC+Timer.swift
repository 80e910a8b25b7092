// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The timer (SDM volume 3, 10.5.4).
extension LocalAPIC {
  /// The shortest period in nanoseconds, as KVM's `min_timer_period_us`: a guest that asks for
  /// less must not keep the host busy with its timer alone.
  static let shortestPeriod: UInt64 = 200_000

  private var divisor: UInt64 {
    let code = divide & 3 | divide >> 1 & 4
    return code == 7 ? 1 : 2 << UInt64(code)
  }

  enum TimerMode { case oneShot, periodic, deadline }

  var timerMode: TimerMode {
    switch timerEntry >> 17 & 3 {
    case 1: .periodic
    case 2: .deadline
    default: .oneShot
    }
  }

  private var period: UInt64 {
    let period = UInt64(initialCount) * divisor
    return timerMode == .periodic ? max(period, Self.shortestPeriod) : period
  }

  mutating func setTimerEntry(_ value: UInt32) {
    let old = timerMode
    timerEntry = entry(value, 0x7_00FF)
    // Into the deadline mode and out of it the timer is disarmed (10.5.4.1); between the other
    // two it goes on with the count that it has.
    guard timerMode != old, timerMode == .deadline || old == .deadline else { return }
    deadline = nil
    tscDeadline = 0
    initialCount = 0
  }

  mutating func setInitialCount(_ value: UInt32, _ now: VMTime) {
    guard timerMode != .deadline else { return }
    initialCount = value
    deadline = value == 0 ? nil : now.advanced(by: period)
  }

  mutating func setDivide(_ value: UInt32, _ now: VMTime) {
    let count = UInt64(currentCount(now))
    divide = value & 0xB
    // The count goes on from where it is, at the new rate.
    if deadline != nil, timerMode != .deadline {
      deadline = now.advanced(by: max(1, count) * divisor)
    }
  }

  func currentCount(_ now: VMTime) -> UInt32 {
    guard timerMode != .deadline, initialCount != 0, let deadline else { return 0 }
    var rest: UInt64
    if deadline > now {
      rest = deadline.nanoseconds - now.nanoseconds
    } else {
      guard timerMode == .periodic else { return 0 }
      rest = period - (now.nanoseconds - deadline.nanoseconds) % period
    }
    rest = (rest + divisor - 1) / divisor
    return UInt32(min(rest, UInt64(initialCount)))
  }

  /// Lets the timer fire if it is due; returns whether it did.
  mutating func advance(to now: VMTime) -> Bool {
    guard let due = deadline, due <= now else { return false }
    switch timerMode {
    case .periodic:
      // Periods that were missed altogether are one interrupt.
      let missed = (now.nanoseconds - due.nanoseconds) / max(1, period)
      deadline = due.advanced(by: (missed + 1) * max(1, period))
    case .deadline:
      tscDeadline = 0
      deadline = nil
    case .oneShot: deadline = nil
    }
    guard timerEntry & Entry.masked == 0 else { return false }
    return accept(UInt8(truncatingIfNeeded: timerEntry), isLevel: false)
  }

  /// IA32_TSC_DEADLINE.
  var deadlineCounter: UInt64 { timerMode == .deadline ? tscDeadline : 0 }

  /// Arms the timer for a value of the time-stamp counter, which is at the time `due`.
  mutating func setDeadline(_ counter: UInt64, due: VMTime) {
    guard timerMode == .deadline else { return }
    tscDeadline = counter
    deadline = counter == 0 ? nil : due
  }
}

extension LocalAPIC {
  /// Sets the timer's counts together.
  mutating func restartTimer(_ initial: UInt32, current: UInt32, _ now: VMTime) {
    guard timerMode != .deadline else { return }
    initialCount = initial
    let left = UInt64(min(initial, current)) * divisor
    deadline = left == 0 ? nil : now.advanced(by: left)
  }
}

extension LocalAPIC: DeviceState {
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("base", &base)
    visitor.field("taskPriority", &taskPriority)
    visitor.field("logicalDestination", &logicalDestination)
    visitor.field("destinationFormat", &destinationFormat)
    visitor.field("spurious", &spurious)
    visitor.part("requests", &requests)
    visitor.part("inService", &inService)
    visitor.part("triggerModes", &triggerModes)
    visitor.field("errors", &errors)
    visitor.field("pendingErrors", &pendingErrors)
    visitor.field("command", &command)
    visitor.field("timerEntry", &timerEntry)
    visitor.field("thermalEntry", &thermalEntry)
    visitor.field("performanceEntry", &performanceEntry)
    visitor.field("line0Entry", &line0Entry)
    visitor.field("line1Entry", &line1Entry)
    visitor.field("errorEntry", &errorEntry)
    visitor.field("initialCount", &initialCount)
    visitor.field("divide", &divide)
    var due = deadline?.nanoseconds
    visitor.optional("deadline", &due)
    deadline = due.map { VMTime(nanoseconds: $0) }
    visitor.field("tscDeadline", &tscDeadline)
    sanitize()
  }

  /// Takes away what no guest can bring about.
  private mutating func sanitize() {
    base &= 0x0000_000F_FFFF_FC00
    if base >> 10 & 3 == 1 { base &= ~(1 << 10) }
    if isBoot { base |= 1 << 8 }
    destinationFormat |= 0x0FFF_FFFF
    spurious &= 0x11FF
    errors &= 0xFF
    pendingErrors &= 0xFF
    timerEntry &= 0x7_00FF
    thermalEntry &= 0x1_07FF
    performanceEntry &= 0x1_07FF
    line0Entry &= 0x1_E7FF
    line1Entry &= 0x1_A7FF
    errorEntry &= 0x1_00FF
    divide &= 0xB
  }
}
