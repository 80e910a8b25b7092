// SPDX-License-Identifier: Apache-2.0

internal import DeviceHost
internal import DeviceProtocol
internal import Sandbox

/// The PIIX chips of a machine: bridge, power management, clock, keyboard controller, fw_cfg.
@main
struct Main {
  static func main() {
    let setup = DeviceProcess.setUp()
    do throws(ProtocolError) {
      let settings = try PIIXSettings(wireBytes: setup.settings)
      guard !settings.hasDebugConsole || !setup.descriptors.isEmpty else {
        throw ProtocolError("the debug console's descriptor is missing")
      }
      let output = settings.hasDebugConsole ? setup.descriptors.first : nil
      let files = try KernelFiles(settings, setup.descriptors)
      let endpoint = PIIXEndpoint(settings, console: DebugOutput(output), files: files)
      DeviceServer(setup, .piix, settings.common).serve(endpoint, role: "piix")
    } catch {
      DeviceProcess.end("bad settings: \(error)")
    }
  }
}
