// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import LinuxSystem
internal import SoftCPU
internal import Synchronization

/// The time-stamp counter of a machine without KVM, and the time of its interrupt hardware.
///
/// The counter is the host's with an offset, so that it is cheap to read; the offset changes
/// only while no vCPU runs, so that it stands still while the machine is paused. The time of
/// timers is the counter in nanoseconds: what the guest computes from one agrees with the other
/// however long the machine runs.
final class GuestClock: Sendable {
  /// The counter's frequency in kHz.
  var frequency: UInt64 { counterFrequency.load(ordering: .relaxed) }
  private let counterFrequency: Atomic<UInt64>

  private let runs = Atomic<Bool>(false)
  /// The counter minus the host's while it runs, else the counter.
  private let value = Atomic<UInt64>(0)
  /// Odd while the two above are being changed.
  private let changes = Atomic<UInt32>(0)

  init() { counterFrequency = Atomic(Self.hostFrequency) }

  /// The frequency of the host's counter in kHz, measured against its clock.
  static let hostFrequency: UInt64 = {
    // Each end is taken where the two reads of the clock around it are closest.
    func sample() -> (time: UInt64, count: UInt64) {
      var best: (time: UInt64, count: UInt64) = (0, 0)
      var least = UInt64.max
      for _ in 0..<16 {
        let before = HostClock.monotonic()
        let count = HostTimeStamp.now
        let after = HostClock.monotonic()
        if after - before < least {
          least = after - before
          best = (before + (after - before) / 2, count)
        }
      }
      return best
    }
    let first = sample()
    HostClock.sleep(10_000_000)
    let second = sample()
    let time = max(1, second.time &- first.time)
    let count = (second.count &- first.count).multipliedFullWidth(by: 1_000_000)
    guard count.high < time else { return 1_000_000 }
    return max(1000, time.dividingFullWidth(count).quotient)
  }()

  /// The guest's time-stamp counter.
  var timeStamp: UInt64 {
    while true {
      // The two words are taken as a pair: the interrupts' thread reads while they change.
      let before = changes.load(ordering: .acquiring)
      let isRunning = runs.load(ordering: .acquiring)
      let value = value.load(ordering: .acquiring)
      guard before & 1 == 0, changes.load(ordering: .acquiring) == before else { continue }
      return isRunning ? HostTimeStamp.now &+ value : value
    }
  }

  /// What the guest's counter has over the host's while it runs; `nil` while it stands still.
  var timeStampOffset: UInt64? {
    runs.load(ordering: .acquiring) ? value.load(ordering: .acquiring) : nil
  }

  /// Whether it runs.
  var isRunning: Bool { runs.load(ordering: .acquiring) }

  /// The virtual time.
  var now: VMTime { time(at: timeStamp) }

  /// The virtual time when the counter has some value.
  func time(at count: UInt64) -> VMTime {
    let product = count.multipliedFullWidth(by: 1_000_000)
    let frequency = frequency
    guard product.high < frequency else { return VMTime(nanoseconds: .max) }
    return VMTime(nanoseconds: frequency.dividingFullWidth(product).quotient)
  }

  /// Lets the counter run on; no vCPU runs yet.
  func start() {
    guard !runs.load(ordering: .relaxed) else { return }
    changes.add(1, ordering: .sequentiallyConsistent)
    value.store(
      value.load(ordering: .relaxed) &- HostTimeStamp.now, ordering: .sequentiallyConsistent)
    runs.store(true, ordering: .sequentiallyConsistent)
    changes.add(1, ordering: .sequentiallyConsistent)
  }

  /// Makes the counter stand still; no vCPU runs any more.
  func stop() {
    guard runs.load(ordering: .relaxed) else { return }
    let count = timeStamp
    changes.add(1, ordering: .sequentiallyConsistent)
    runs.store(false, ordering: .sequentiallyConsistent)
    value.store(count, ordering: .sequentiallyConsistent)
    changes.add(1, ordering: .sequentiallyConsistent)
  }

  /// Sets the counter, which stands still, and the frequency that its time is reckoned by.
  ///
  /// That is the one measured where it was saved: of the same host it differs a little each time.
  func set(_ count: UInt64, frequency: UInt64) {
    precondition(!runs.load(ordering: .relaxed) && frequency > 0, "a running clock is not set")
    changes.add(1, ordering: .sequentiallyConsistent)
    value.store(count, ordering: .sequentiallyConsistent)
    counterFrequency.store(frequency, ordering: .sequentiallyConsistent)
    changes.add(1, ordering: .sequentiallyConsistent)
  }
}
