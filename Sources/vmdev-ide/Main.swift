// SPDX-License-Identifier: Apache-2.0

import DeviceHost
import DeviceProtocol
import IDE
import LinuxSystem
import Sandbox

/// The IDE controller's process.
@main
struct Main {
  static func main() {
    let setup = DeviceProcess.setUp()
    let settings: IDESettings
    let completions: Completions
    do throws(ProtocolError) {
      settings = try IDESettings(wireBytes: setup.settings)
    } catch {
      DeviceProcess.end("the settings are malformed: \(error)")
    }
    do throws(SystemError) {
      completions = try Completions()
    } catch {
      DeviceProcess.end("\(error)")
    }
    let images = settings.drives.count { $0.hasMedium }
    guard setup.descriptors.count == images else {
      DeviceProcess.end("\(images) drives with images, but \(setup.descriptors.count) images")
    }
    var policies = [ErrorPolicies](repeating: ErrorPolicies(), count: 4)
    for drive in settings.drives {
      policies[Int(drive.slot & 3)] = ErrorPolicies(
        onRead: drive.onReadError, onWrite: drive.onWriteError)
    }
    let server = DeviceServer(
      setup, .ide, settings.common, workers: min(max(settings.drives.count, 1), 4))
    // An image is parsed by a process that can do no harm any more.
    let (controller, drives) = open(settings.drives, setup)
    let endpoint = IDEEndpoint(
      controller: controller, drives: drives, policies: policies, workers: server.workers,
      completions: completions)
    server.serve(endpoint, role: "ide")
  }

  private static func open(_ settings: [IDESettings.Drive], _ setup: DeviceProcess.Setup) -> (
    IDEController, [Drive?]
  ) {
    var controller = IDEController()
    var drives = [Drive?](repeating: nil, count: 4)
    var seen: Set<Int> = []
    var images = setup.descriptors[...]
    for (index, drive) in settings.enumerated() {
      let slot = Int(drive.slot & 3)
      let name = "ide\(slot / 2).\(slot % 2)"
      guard seen.insert(slot).inserted else { DeviceProcess.end("\(name) is there twice") }
      var opened: Drive?
      if drive.hasMedium {
        do throws(OpenError) {
          var opener = ImageOpener(launcher: setup.launcher, drive: index)
          opened = Drive(
            name: name,
            image: try opener.open(
              images.removeFirst(), drive.format,
              isWritable: !drive.isReadOnly && !drive.isCDROM))
        } catch {
          DeviceProcess.end("\(name): \(error.reason)")
        }
      }
      drives[slot] = opened
      controller.attach(
        drive.isCDROM
          ? .cdrom(sectorCount: opened.map { $0.virtualSize / 2048 })
          : .disk(sectorCount: (opened?.virtualSize ?? 0) / 512),
        channel: slot / 2, drive: slot % 2, serial: drive.serial,
        model: drive.isCDROM ? "BULKHEAD CD-ROM" : "BULKHEAD HARDDISK")
    }
    return (controller, drives)
  }
}
