// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

/// When to spin for the next access instead of sleeping.
///
/// A spin pays only while the gaps between accesses are shorter than the window and another
/// core runs the guest. A spin that was in vain costs about what one saves that was not, so
/// spinning goes on while no more of them fail than succeed; short sleeps start it again.
struct SpinPolicy {
  /// How long to spin, in nanoseconds: longer than a KVM exit with the guest's own work.
  static let window: UInt64 = 50_000

  /// How many spins in a row may be in vain after many that were not.
  static let mostCredit = 4

  private let isUseful: Bool
  private var credit = 0
  private var shortSleeps = 0

  var shouldSpin: Bool { credit > 0 }

  /// Makes a policy for some number of processors; with one there is nothing to wait for.
  init(processors: Int = Processors.online) { isUseful = processors > 1 }

  mutating func spinSucceeded() { credit = min(credit + 1, Self.mostCredit) }

  mutating func spinFailed() {
    credit -= 1
    shortSleeps = 0
  }

  /// Notes how long the device slept until it was woken.
  mutating func slept(_ nanoseconds: UInt64) {
    guard isUseful else { return }
    // A sleep costs up to 100 us itself where another core has to be woken.
    shortSleeps = nanoseconds < Self.window * 3 ? shortSleeps + 1 : 0
    if shortSleeps >= 2 { credit = max(credit, 1) }
  }
}
