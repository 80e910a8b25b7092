// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// A process that this one started.
public final class ChildProcess: Sendable {
  /// How a process ended.
  public enum Status: Equatable, Sendable, CustomStringConvertible {
    /// It returned from main or called exit.
    case exited(code: Int32)
    /// A signal ended it; SIGSYS (31) is the system call filter's.
    case signalled(Int32)

    public var description: String {
      switch self {
      case .exited(let code): "exited with code \(code)"
      case .signalled(let signal): "ended by signal \(signal)"
      }
    }
  }

  /// The process id in the caller's pid namespace.
  public let pid: Int32

  /// The pidfd: readable once the process has ended.
  public let descriptor: Descriptor

  init(pid: Int32, descriptor: Descriptor) {
    self.pid = pid
    self.descriptor = descriptor
  }

  /// Waits until the process has ended, and takes its status; `nil` when the time was over.
  ///
  /// - Throws: ECHILD when the status has been taken before.
  public func wait(timeout: UInt64) throws(SystemError) -> Status? {
    var poller = Poller()
    poller.add(descriptor, .readable)
    let end = HostClock.monotonic() &+ timeout
    while true {
      if let status = try status() { return status }
      let now = HostClock.monotonic()
      guard now < end else { return nil }
      _ = try poller.wait(timeout: end - now)
    }
  }

  /// Waits until the process has ended, and takes its status.
  public func wait() throws(SystemError) -> Status {
    while true {
      if let status = try wait(timeout: 3_600_000_000_000) { return status }
    }
  }

  /// Takes the status if the process has ended; `nil` while it runs.
  public func status() throws(SystemError) -> Status? {
    var code: Int32 = 0
    var status: Int32 = 0
    // SAFETY: the call fills the two values.
    let result = unsafe bh_wait_pidfd(descriptor.raw, WNOHANG | WEXITED, &code, &status)
    if result == -EINTR { return nil }
    _ = try SystemError.check("waitid", result)
    switch code {
    case 0: return nil
    case 1 /* CLD_EXITED */: return .exited(code: status)
    default: return .signalled(status)
    }
  }

  /// Sends a signal; SIGKILL unless told otherwise.
  public func kill(_ signal: Int32 = 9) throws(SystemError) {
    _ = try SystemError.check(
      "pidfd_send_signal", bh_pidfd_send_signal(descriptor.raw, signal))
  }
}
