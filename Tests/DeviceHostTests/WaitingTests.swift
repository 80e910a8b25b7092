// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Synchronization
import Testing

@testable import DeviceHost

@Suite("When the lane thread spins")
struct SpinPolicyTests {
  @Test("sleeps until two sleeps in a row were short")
  func start() {
    var policy = SpinPolicy(processors: 2)
    #expect(!policy.shouldSpin)

    policy.slept(100_000)
    #expect(!policy.shouldSpin)
    policy.slept(1_000_000)
    policy.slept(100_000)
    #expect(!policy.shouldSpin)
    policy.slept(149_999)

    #expect(policy.shouldSpin)
  }

  @Test("goes on while no more spins are in vain than were not, four in a row at most")
  func stop() {
    var policy = SpinPolicy(processors: 2)
    for _ in 0..<2 { policy.slept(1) }
    policy.spinSucceeded()
    policy.spinFailed()
    #expect(policy.shouldSpin)

    policy.spinFailed()
    #expect(!policy.shouldSpin)
    policy.slept(1)
    #expect(!policy.shouldSpin)
    policy.slept(1)

    #expect(policy.shouldSpin)
    for _ in 0..<100 { policy.spinSucceeded() }
    for _ in 0..<4 { policy.spinFailed() }
    #expect(!policy.shouldSpin)
  }

  @Test("never spins where the guest would wait for the same processor")
  func single() {
    var policy = SpinPolicy(processors: 1)

    for _ in 0..<100 { policy.slept(1) }

    #expect(!policy.shouldSpin)
  }

  @Test("spins for less than the promised bound")
  func bound() { #expect(SpinPolicy.window <= 50_000) }
}

@Suite("What the lane thread is told by others", .timeLimit(.minutes(1)))
struct WatcherTests {
  /// Counts rings, and waits for them.
  private final class Bell: Sendable {
    let count = Atomic<Int>(0)
    func ring() { count.add(1, ordering: .sequentiallyConsistent) }

    func wait(for condition: () -> Bool) -> Bool {
      let end = HostClock.monotonic() + 10_000_000_000
      while !condition() {
        guard HostClock.monotonic() < end else { return false }
        HostClock.sleep(100_000)
      }
      return true
    }
  }

  @Test("reports a source once until it was seen to, and then again while it is ready")
  func rearm() throws {
    let bell = Bell()
    let watcher = try Watcher { bell.ring() }
    try watcher.start()
    let event = try EventFile.make()
    let number = watcher.add(event, .readable)
    EventFile.signal(event)

    #expect(bell.wait { watcher.hasPending })
    #expect(watcher.take() == 1 << UInt64(number))
    HostClock.sleep(20_000_000)
    #expect(!watcher.hasPending)
    watcher.rearm(1 << UInt64(number))
    #expect(bell.wait { watcher.hasPending })
    EventFile.drain(event)
    _ = watcher.take()
    watcher.rearm(1 << UInt64(number))
    HostClock.sleep(20_000_000)

    #expect(!watcher.hasPending)
  }

  @Test("leaves out what is turned off, and finds it ready when it is turned on")
  func off() throws {
    let bell = Bell()
    let watcher = try Watcher { bell.ring() }
    try watcher.start()
    let event = try EventFile.make()
    EventFile.signal(event)
    let number = watcher.add(event, .readable, isOn: false)
    HostClock.sleep(20_000_000)
    #expect(!watcher.hasPending)

    watcher.set(number, isOn: true)

    #expect(bell.wait { watcher.hasPending })
  }

  @Test("loses no event of many sources whose other ends run at the same time")
  func races() throws {
    let bell = Bell()
    let watcher = try Watcher { bell.ring() }
    try watcher.start()
    let workers = try WorkerPool(3)
    let rounds = 300
    let events = try (0..<8).map { _ in try EventFile.make() }
    let numbers = events.map { watcher.add($0, .readable) }
    for event in events {
      workers.submit { for _ in 0..<rounds { EventFile.signal(event) } }
    }
    let finished = Atomic<Int>(0)
    for _ in 0..<rounds {
      workers.submit {
        finished.add(1, ordering: .sequentiallyConsistent)
        watcher.notify(50)
      }
    }

    // What an event has counted, as the lane thread would take it.
    var counts = [Int](repeating: 0, count: events.count)
    var notified = 0
    let isDone = bell.wait {
      let sources = watcher.take()
      for (index, number) in numbers.enumerated() where sources & 1 << UInt64(number) != 0 {
        guard let bytes = try? events[index].read(8), bytes.count == 8 else { continue }
        counts[index] += Int(bytes[0]) + Int(bytes[1]) << 8
      }
      if sources & 1 << 50 != 0 { notified = finished.load(ordering: .sequentiallyConsistent) }
      watcher.rearm(sources)
      return notified == rounds && counts.allSatisfy { $0 == rounds }
    }

    #expect(isDone)
    #expect(counts == [Int](repeating: rounds, count: events.count))
  }

  @Test("does work in the order in which it was given, with one worker")
  func order() throws {
    let workers = try WorkerPool(1)
    let done = Mutex<[Int]>([])
    let bell = Bell()

    for number in 0..<200 {
      workers.submit {
        done.withLock { $0.append(number) }
        bell.ring()
      }
    }

    #expect(bell.wait { bell.count.load(ordering: .sequentiallyConsistent) == 200 })
    #expect(done.withLock { $0 } == Array(0..<200))
  }
}
