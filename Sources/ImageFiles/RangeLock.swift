// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem
internal import Synchronization

/// Locks on ranges of bytes for the threads of a process, shared or exclusive.
///
/// Who asks first has them first, so that nobody waits for ever.
final class RangeLock: Sendable {
  private struct Holder {
    var ticket: UInt64
    var range: Range<UInt64>
    var isExclusive: Bool

    func excludes(_ other: Holder) -> Bool {
      (isExclusive || other.isExclusive) && range.overlaps(other.range)
    }
  }

  private struct State {
    var last: UInt64 = 0
    /// In the order of their coming; some of them wait.
    var holders: [Holder] = []
    var waiting = 0
  }

  private let state = Shared(State())
  private let waiters = Waiters()

  /// Waits until the range is free; returns what it is given back with.
  func lock(_ range: Range<UInt64>, isExclusive: Bool) -> UInt64 {
    let (ticket, isFree) = state.withLock { state in
      state.last += 1
      let holder = Holder(ticket: state.last, range: range, isExclusive: isExclusive)
      let isFree = !state.holders.contains { $0.excludes(holder) }
      state.holders.append(holder)
      if !isFree { state.waiting += 1 }
      return (state.last, isFree)
    }
    guard !isFree else { return ticket }
    while true {
      let seen = waiters.count
      let isFree = state.withLock { state in
        guard let place = state.holders.firstIndex(where: { $0.ticket == ticket }) else {
          return true
        }
        let holder = state.holders[place]
        guard !state.holders[..<place].contains(where: { $0.excludes(holder) }) else {
          return false
        }
        state.waiting -= 1
        return true
      }
      if isFree { return ticket }
      waiters.wait(while: seen)
    }
  }

  /// Takes the range if it is free.
  func lockNow(_ range: Range<UInt64>, isExclusive: Bool) -> UInt64? {
    state.withLock { state in
      let holder = Holder(ticket: state.last + 1, range: range, isExclusive: isExclusive)
      guard !state.holders.contains(where: { $0.excludes(holder) }) else { return nil }
      state.last += 1
      state.holders.append(holder)
      return state.last
    }
  }

  /// Gives a range back.
  func unlock(_ ticket: UInt64) {
    let isAwaited = state.withLock { state in
      state.holders.removeAll { $0.ticket == ticket }
      return state.waiting > 0
    }
    if isAwaited { waiters.wakeAll() }
  }
}
