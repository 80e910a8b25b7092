// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
internal import LinuxSystem
public import Sandbox

/// Locking down a child of the launcher, and saying what was had.
public enum Lockdown {
  /// Enters the sandbox of `profile` and reports to the launcher.
  ///
  /// With `isStrict`, a layer that cannot be had ends the process with exit code 3.
  public static func enter(_ profile: SandboxProfile, isStrict: Bool, launcher: Channel) {
  }
}
