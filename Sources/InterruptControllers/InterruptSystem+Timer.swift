// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// Time: the local APICs' timers, and channel 0 of the 8254 at line 0.
///
/// A tick of the 8254 that the guest has not ended its interrupt of holds back the next ones:
/// they are owed, and given one by one, as KVM's reinjection does, so that a guest that counts
/// ticks keeps the time while its vCPU does not run. Nothing is owed while nobody listens to
/// the line, nor what is older than a second.
extension InterruptSystem {
  /// The shortest time between two ticks; faster ones are fewer (KVM's `min_timer_period_us`).
  private static let shortestPeriod = LocalAPIC.shortestPeriod
  /// Ticks that are later than this are dropped.
  private static let mostBacklog: UInt64 = 1_000_000_000
  static let mostOwed = UInt32(mostBacklog / shortestPeriod)

  /// When ``advance(to:)`` has something to do next.
  public var nextDeadline: VMTime? {
    var next = timerDue
    for apic in apics {
      guard let due = apic.deadline else { continue }
      if let other = next, other <= due { continue }
      next = due
    }
    return next
  }

  mutating func advanceAPIC(_ cpu: Int, _ now: VMTime) -> Bool {
    guard apics[cpu].advance(to: now) else { return false }
    mark(cpu)
    return true
  }

  /// Lets every timer that is due fire.
  public mutating func advance(to time: VMTime) {
    // Who calls has read the clock before it had the lock: another may have been faster.
    let now = max(time, latest)
    latest = now
    for cpu in apics.indices { _ = advanceAPIC(cpu, now) }
    guard let due = timerDue, due <= now else { return }
    if now.nanoseconds - due.nanoseconds > Self.mostBacklog {
      owedTicks = Self.mostOwed
      timerDue = nextTick(after: now)
    }
    while let due = timerDue, due <= now {
      owedTicks = min(owedTicks + 1, Self.mostOwed)
      timerDue = nextTick(after: due)
    }
    deliverOwedTicks()
  }

  private func nextTick(after tick: VMTime) -> VMTime? {
    timer.nextInterrupt(after: tick).map { max($0, tick.advanced(by: Self.shortestPeriod)) }
  }

  /// Channel 0 has a new control word or count.
  mutating func restartTicks(_ now: VMTime, hasRisen: Bool) {
    owedTicks = 0
    timerDue = timer.nextInterrupt(after: now)
    if hasRisen { pulse(0) }
  }

  /// Whether the guest has a tick that it has not ended the interrupt of.
  private var isTickBusy: Bool {
    if pics.isTimerBusy, apics.contains(where: { $0.acceptsExternal }) { return true }
    guard let vector = ioapic.openVector(2) else { return false }
    return apics.contains { $0.isBusy(vector) }
  }

  /// Gives the guest the next tick that it is owed, if it has done with the last.
  mutating func deliverOwedTicks() {
    guard owedTicks > 0, !isTickBusy else { return }
    owedTicks -= 1
    pulse(0)
    // Whoever does not listen is owed nothing.
    if !isTickBusy { owedTicks = 0 }
  }
}
