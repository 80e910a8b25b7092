// SPDX-License-Identifier: Apache-2.0

internal import CLinux

/// A process that this one did not start, held by a pidfd.
///
/// However long it is held, it names that process and never a later one with the same id.
public struct ProcessHandle: Sendable {
  /// The pidfd: readable once the process has ended.
  public let descriptor: Descriptor

  /// Takes hold of the process that has an id now.
  ///
  /// - Throws: ESRCH when there is none.
  public init(pid: Int32) throws(SystemError) {
    descriptor = Descriptor(
      owning: try SystemError.check("pidfd_open \(pid)", bh_pidfd_open(pid, 0)))
  }

  /// Sends a signal; SIGKILL unless told otherwise.
  public func signal(_ number: Int32 = 9) throws(SystemError) {
    _ = try SystemError.check(
      "pidfd_send_signal", bh_pidfd_send_signal(descriptor.raw, number))
  }

  /// Waits until the process has ended, at most `timeout` nanoseconds; whether it has.
  public func waitForEnd(timeout: UInt64) -> Bool {
    var poller = Poller()
    poller.add(descriptor, .readable)
    let end = HostClock.monotonic() &+ timeout
    while true {
      let now = HostClock.monotonic()
      guard now < end, let ready = try? poller.wait(timeout: end - now) else { return false }
      if ready > 0 { return true }
    }
  }
}
