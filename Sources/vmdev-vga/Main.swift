// SPDX-License-Identifier: Apache-2.0

internal import DeviceHost
internal import DeviceProtocol
internal import LinuxSystem
internal import Sandbox

/// The VGA as a process of its own.
@main
struct Main {
  static func main() {
    let setup = DeviceProcess.setUp()
    do {
      let settings = try VGASettings(wireBytes: setup.settings)
      guard let firmware = setup.descriptors.first else {
        throw ProtocolError("the VGA BIOS is missing")
      }
      let endpoint = try VGAEndpoint(
        videoByteCount: settings.videoByteCount, firmwareByteCount: firmware.size())
      DeviceServer(setup, .vga, settings.common)
        .serve(endpoint, role: "vga", claimDescriptors: [firmware])
    } catch {
      DeviceProcess.end("\(error)")
    }
  }
}
