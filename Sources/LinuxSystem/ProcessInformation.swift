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

  /// Unmaps the pages of this program's code; those that are used again come back by themselves.
  ///
  /// Called when a process has started: most of what it has run until then it never runs again.
  public static func forgetStartCode() { bh_forget_code() }

  /// Ends the process at once, running no exit handlers.
  public static func exit(_ code: Int32) -> Never { _exit(code) }
}

/// A request of ioctl(2), by name and number.
public struct KernelRequest: Sendable, Hashable {
  public var name: String
  public var number: UInt32

  /// The requests of KVM that the core makes.
  public static let kvm: [KernelRequest] = {
    var all: [KernelRequest] = []
    var number: UInt32 = 0
    // SAFETY: the table's names are constants of the C shim.
    while let name = unsafe bh_kvm_request(all.count, &number) {
      all.append(KernelRequest(name: unsafe String(cString: name), number: number))
    }
    return all
  }()
}
