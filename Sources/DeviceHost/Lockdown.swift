// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
public import LinuxSystem
public import Sandbox

/// Locking down a child of the launcher, and saying what was had.
public enum Lockdown {
  /// The exit code of a process that could not have a layer of strict isolation.
  public static let layerMissing: Int32 = 3

  /// Enters the sandbox of `profile`, with threads started on the way, and reports.
  ///
  /// With strict isolation, a layer that cannot be had ends the process with exit code 3.
  public static func enter(
    _ profile: SandboxProfile, _ common: CommonSettings, launcher: Channel,
    threads: () throws(SystemError) -> Void
  ) {
    let report: IsolationReport
    do throws(SandboxError) {
      let sandbox = try Sandbox.enclose(profile, common.isStrict ? .strict : .relaxed)
      do throws(SystemError) {
        try threads()
      } catch {
        DeviceProcess.end("\(error)")
      }
      report = try sandbox.seal()
    } catch {
      DeviceProcess.end("\(error)", code: layerMissing)
    }
    let missing = report.missing.map { "\($0.layer.title): \($0.reason)" }
    let message = IsolationMessage(
      summary: report.description, missing: missing.joined(separator: "\n"))
    do throws(ChannelError) {
      try launcher.send(
        LaunchRequest.report.rawValue, sequence: 0, payload: message.wireBytes)
    } catch {
      DeviceProcess.end("no launcher to report to: \(error)")
    }
  }

  /// Takes away what a process no longer needs once it serves, before the guest can reach it.
  ///
  /// With strict isolation, a filter that cannot be had ends the process with exit code 3.
  public static func narrow(_ profile: SandboxProfile, _ level: IsolationLevel) {
    do throws(SandboxError) {
      try Sandbox.narrow(profile, level)
    } catch {
      DeviceProcess.end("\(error)", code: layerMissing)
    }
  }
}
