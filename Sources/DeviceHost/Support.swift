// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem
internal import Synchronization

/// A value that is set once and read by other threads.
final class OnceBox<T: Sendable>: Sendable {
  private let box = Mutex<T?>(nil)
  func set(_ value: T) { box.withLock { $0 = value } }
  var value: T? { box.withLock { $0 } }
}
