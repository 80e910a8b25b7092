// SPDX-License-Identifier: Apache-2.0

internal import DeviceHost
internal import DeviceProtocol
internal import Sandbox

/// The serial ports of a machine.
@main
struct Main {
  static func main() {
    let setup = DeviceProcess.setUp()
    do {
      let settings = try SerialSettings(wireBytes: setup.settings)
      let server = DeviceServer(setup, .serial, settings.common)
      let endpoint = try SerialEndpoint(
        settings, setup.descriptors, launcher: setup.launcher)
      server.serve(endpoint, role: "serial")
    } catch {
      DeviceProcess.end("\(error)")
    }
  }
}
