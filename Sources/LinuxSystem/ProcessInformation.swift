// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// What a process knows of itself.
public enum ThisProcess {
  /// The value of an environment variable.
  public static func environment(_ name: String) -> String? {
    // SAFETY: nothing in this program changes the environment after start; the value is copied.
    guard let value = unsafe getenv(name) else { return nil }
    return unsafe String(cString: value)
  }

  /// Its process id in its own pid namespace.
  public static var id: Int32 { getpid() }

  /// Its effective user id in its own user namespace.
  public static var user: UInt32 { geteuid() }

  /// Ends the process at once, running no exit handlers.
  public static func exit(_ code: Int32) -> Never { _exit(code) }
}
