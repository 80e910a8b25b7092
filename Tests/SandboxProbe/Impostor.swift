// SPDX-License-Identifier: Apache-2.0

internal import CSandboxProbe
internal import Glibc
internal import LinuxSystem

/// A device's program that has been tampered with: it holds one descriptor too many.
enum Impostor {
  /// Opens one more descriptor, and becomes the real program, in the folder `real` beside this.
  static func run(_ name: String) -> Never {
    guard let own = try? Descriptor.open("/proc/self", O_RDONLY | O_DIRECTORY).link("exe") else {
      ThisProcess.exit(1)
    }
    let folder = own.split(separator: "/").dropLast().joined(separator: "/")
    // SAFETY: the texts are NUL-terminated copies that outlive the calls.
    unsafe probe_become("/\(folder)/real/\(name)", name)
    ThisProcess.exit(1)
  }
}
