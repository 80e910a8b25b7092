// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem
internal import Synchronization

/// Whose turn it is at a lock that is held for a look into a table only.
///
/// The library's mutex is handed from one thread to the next by the kernel as soon as one sleeps
/// on it, at the cost of a switch for each turn. Here whoever runs may take it, and a thread asks
/// for a while before it sleeps.
final class Turn: Sendable {
  private let isTaken = Atomic(false)
  private let sleepers = Atomic(0)
  private let waiters = Waiters()

  private func take() -> Bool {
    isTaken.compareExchange(expected: false, desired: true, ordering: .sequentiallyConsistent)
      .exchanged
  }

  func lock() {
    for _ in 0..<100 {
      if !isTaken.load(ordering: .relaxed), take() { return }
      Thread.relax()
    }
    sleepers.add(1, ordering: .sequentiallyConsistent)
    while true {
      let seen = waiters.count
      if take() { break }
      waiters.wait(while: seen)
    }
    sleepers.subtract(1, ordering: .sequentiallyConsistent)
  }

  func unlock() {
    isTaken.store(false, ordering: .sequentiallyConsistent)
    if sleepers.load(ordering: .sequentiallyConsistent) > 0 { waiters.wakeAll() }
  }
}

/// A value that one thread uses at a time, for moments.
struct Shared<Value: ~Copyable>: ~Copyable, Sendable {
  private let turn = Turn()
  /// Never asked for by two threads at once.
  private let value: Mutex<Value>

  init(_ value: consuming sending Value) { self.value = Mutex(value) }

  func withLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout sending Value) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    turn.lock()
    defer { turn.unlock() }
    return try value.withLock(body)
  }
}

/// Lets a few threads at once do what the kernel does one after the other anyway, such as writes
/// through the page cache to one file, for which it has its waiting threads spin.
final class Narrows: Sendable {
  private let inside = Atomic(0)
  private let sleepers = Atomic(0)
  private let waiters = Waiters()
  /// One at work, and one that is ready to be next.
  private static let width = 2

  private func enter() -> Bool {
    var now = inside.load(ordering: .relaxed)
    while now < Self.width {
      let (isIn, seen) = inside.compareExchange(
        expected: now, desired: now + 1, ordering: .sequentiallyConsistent)
      if isIn { return true }
      now = seen
    }
    return false
  }

  /// Does something when it is this thread's turn.
  func pass<Failure: Error>(_ body: () throws(Failure) -> Void) throws(Failure) {
    if !enter() {
      sleepers.add(1, ordering: .sequentiallyConsistent)
      while true {
        let seen = waiters.count
        if enter() { break }
        waiters.wait(while: seen)
      }
      sleepers.subtract(1, ordering: .sequentiallyConsistent)
    }
    defer {
      inside.subtract(1, ordering: .sequentiallyConsistent)
      if sleepers.load(ordering: .sequentiallyConsistent) > 0 { waiters.wakeOne() }
    }
    try body()
  }
}
