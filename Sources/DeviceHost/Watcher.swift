// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem
internal import Synchronization

/// A thread that waits for descriptors and rings the device's doorbell when one is ready.
///
/// It never reads or writes them: the lane thread owns the device and all of its I/O. A
/// source that was reported is left out until the lane thread has seen to it.
public final class Watcher: Sendable {
  private struct Watch {
    var descriptor: Descriptor
    var events: Poller.Events
    var isOn: Bool
  }

  private let watches = Mutex<[Watch]>([])
  private let pending = Atomic<UInt64>(0)
  private let reported = Atomic<UInt64>(0)
  private let kick: Descriptor
  private let ring: @Sendable () -> Void

  /// The most sources that can be watched; the numbers above are for ``notify(_:)`` alone.
  public static let mostSources = 48

  /// Makes a watcher that calls `ring` when something is ready.
  init(ring: @escaping @Sendable () -> Void) throws(SystemError) {
    self.ring = ring
    kick = try EventFile.make()
  }

  /// Starts the waiting thread; before the seccomp filter is loaded.
  func start() throws(SystemError) {
    try Thread.start("watcher") { [self] in run() }
  }

  /// Adds a source and returns its number.
  @discardableResult
  public func add(_ descriptor: Descriptor, _ events: Poller.Events, isOn: Bool = true) -> Int {
    let number = watches.withLock {
      $0.append(Watch(descriptor: descriptor, events: events, isOn: isOn))
      return $0.count - 1
    }
    precondition(number < Self.mostSources, "too many sources")
    EventFile.signal(kick)
    return number
  }

  /// Watches another descriptor for a source.
  public func set(_ number: Int, to descriptor: Descriptor) {
    watches.withLock { $0[number].descriptor = descriptor }
    EventFile.signal(kick)
  }

  /// Turns the watching of a source on or off.
  public func set(_ number: Int, isOn: Bool) {
    let changed = watches.withLock { watches in
      let old = watches[number].isOn
      watches[number].isOn = isOn
      return old != isOn
    }
    if changed { EventFile.signal(kick) }
  }

  /// Reports a source from another thread, such as a worker that has finished.
  public func notify(_ number: Int) {
    pending.bitwiseOr(1 << UInt64(number), ordering: .sequentiallyConsistent)
    ring()
  }

  /// Whether something was reported and not yet taken.
  @inline(__always)
  var hasPending: Bool { pending.load(ordering: .acquiring) != 0 }

  /// Takes what was reported, one bit for each source.
  func take() -> UInt64 { pending.exchange(0, ordering: .sequentiallyConsistent) }

  /// Watches the sources again that ``take()`` gave.
  func rearm(_ sources: UInt64) {
    let watched = reported.bitwiseAnd(~sources, ordering: .sequentiallyConsistent).oldValue
    if watched & sources != 0 { EventFile.signal(kick) }
  }

  private func run() {
    while true {
      var poller = Poller()
      poller.add(kick, .readable)
      var numbers: [Int] = []
      let busy = reported.load(ordering: .sequentiallyConsistent)
      watches.withLock {
        for (number, watch) in $0.enumerated() where watch.isOn && busy & 1 << UInt64(number) == 0 {
          poller.add(watch.descriptor, watch.events)
          numbers.append(number)
        }
      }
      guard (try? poller.wait()) != nil else { continue }
      EventFile.drain(kick)
      var found: UInt64 = 0
      for (place, number) in numbers.enumerated() where poller[place + 1] != [] {
        found |= 1 << UInt64(number)
      }
      guard found != 0 else { continue }
      reported.bitwiseOr(found, ordering: .sequentiallyConsistent)
      pending.bitwiseOr(found, ordering: .sequentiallyConsistent)
      ring()
    }
  }
}
