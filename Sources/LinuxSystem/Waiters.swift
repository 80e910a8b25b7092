// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Synchronization

/// A count that threads of this process sleep on until it changes; needs no file, as a gate does.
@safe
public final class Waiters: @unchecked Sendable {
  // SAFETY: a word of this object's own, changed atomically only.
  private let word: UnsafeMutablePointer<Atomic<UInt32>>

  public init() {
    unsafe word = .allocate(capacity: 1)
    unsafe word.initialize(to: Atomic(0))
  }

  deinit {
    unsafe word.deinitialize(count: 1)
    unsafe word.deallocate()
  }

  /// The count; what happens after it is read ends a ``wait(while:)`` for it.
  public var count: UInt32 { unsafe word.pointee.load(ordering: .sequentiallyConsistent) }

  /// Changes the count and wakes whoever waits.
  public func wakeAll() { wake(Int32.max) }

  /// Changes the count and wakes one of those who wait.
  public func wakeOne() { wake(1) }

  private func wake(_ most: Int32) {
    unsafe word.pointee.wrappingAdd(1, ordering: .sequentiallyConsistent)
    // SAFETY: the kernel uses the address only.
    _ = unsafe bh_futex_wake(word, most)
  }

  /// Sleeps while the count is `count`; may return early.
  public func wait(while count: UInt32) {
    // SAFETY: the word is there as long as this object; the kernel only compares it.
    _ = unsafe bh_futex_wait(word, count, -1)
  }
}
