// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem
internal import Synchronization

extension Mutex where Value: ~Copyable {
  /// Does something that takes no longer than a look into a table, with the value locked.
  ///
  /// It asks again for a while before it sleeps: a mutex that somebody sleeps on is handed from
  /// one thread to the next by the kernel, at the cost of a switch each time.
  func withShortLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout sending Value) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    for _ in 0..<200 {
      if let result = try withLockIfAvailable(body) { return result }
      Thread.relax()
    }
    return try withLock(body)
  }
}
