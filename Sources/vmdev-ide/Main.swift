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
    var setup = DeviceProcess.setUp()
    var handed = setup.descriptors
    setup.descriptors = []
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
    let dataFiles = settings.drives.count { $0.hasDataFile }
    let keys = settings.drives.count { $0.hasKey }
    guard handed.count == images + dataFiles + keys else {
      DeviceProcess.end(
        "\(images) images, \(dataFiles) data files and \(keys) keys, but "
          + "\(handed.count) descriptors")
    }
    var policies = [ErrorPolicies](repeating: ErrorPolicies(), count: 4)
    for drive in settings.drives {
      policies[Int(drive.slot & 3)] = ErrorPolicies(
        onRead: drive.onReadError, onWrite: drive.onWriteError)
    }
    let server = DeviceServer(
      setup, .ide, settings.common, workers: min(max(settings.drives.count, 1), 4))
    // An image is parsed by a process that can do no harm any more.
    let (controller, drives) = open(settings.drives, &handed, setup.launcher)
    let endpoint = IDEEndpoint(
      controller: controller, drives: drives, policies: policies, workers: server.workers,
      completions: completions)
    server.serve(endpoint, role: "ide")
  }

  private static func open(
    _ settings: [IDESettings.Drive], _ handed: inout [Descriptor], _ launcher: Channel
  ) -> (
    IDEController, [Drive?]
  ) {
    var controller = IDEController()
    var drives = [Drive?](repeating: nil, count: 4)
    var seen: Set<Int> = []
    var images = handed[...]
    // A key's file is closed when its images are open.
    handed = []
    for (index, drive) in settings.enumerated() {
      let slot = Int(drive.slot & 3)
      let name = "ide\(slot / 2).\(slot % 2)"
      guard seen.insert(slot).inserted else { DeviceProcess.end("\(name) is there twice") }
      var opened: Drive?
      if drive.hasMedium {
        do throws(OpenError) {
          let image = images.removeFirst()
          let dataFile = drive.hasDataFile ? images.removeFirst() : nil
          var opener = try ImageOpener(
            launcher: launcher, drive: index, key: drive.hasKey ? images.removeFirst() : nil,
            isDirect: drive.cache == .none)
          opened = Drive(
            name: name,
            image: try opener.open(
              image, drive.format, isWritable: !drive.isReadOnly && !drive.isCDROM,
              dataFile: dataFile))
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
        model: drive.isCDROM ? "BULKHEAD CD-ROM" : "BULKHEAD HARDDISK",
        isWriteThrough: drive.cache == .writethrough)
    }
    return (controller, drives)
  }
}
