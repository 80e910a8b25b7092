// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Monitor
import Sandbox

/// A machine's processes, as this host's kernel knows them.
struct MachineProcesses {
  /// One process.
  struct Entry {
    var name: String
    var pid: Int32
  }

  let launcher: Int32

  /// Finds the launcher: whoever made the control socket listen; the kernel remembers.
  init(_ machine: MachineName) throws(ControlClient.Failure) {
    do throws(SystemError) {
      launcher = try PacketSocket.connect(ControlClient.path(machine.name)).peerProcess()
    } catch {
      throw ControlClient.Failure(
        "no machine \"\(VisibleText.escape(machine.name))\" is running: \(error)")
    }
  }

  private static let order = [
    "vmlaunch", "vmcore", "vmdev-piix", "vmdev-ide", "vmdev-serial", "vmdev-vga", "vmmonitor",
    "janitor",
  ]

  /// The processes that there are now, the launcher first.
  func entries() -> [Entry] {
    var entries = [Entry(name: "vmlaunch", pid: launcher)]
    for child in (try? ProcessAudit.children(of: launcher)) ?? [] {
      // Of another user's processes the kernel tells no more than the name they have.
      var name = (try? ProcessAudit.executableName(child)) ?? ""
      if name.isEmpty {
        let bytes = try? Files.open("/proc/\(child)/comm", .readOnly).readToEnd(most: 64)
        name = VisibleText.escape(
          String(decoding: (bytes ?? []).prefix { $0 != 10 }, as: UTF8.self))
      }
      entries.append(Entry(name: name == "vmlaunch" ? "janitor" : name, pid: child))
    }
    return entries.sorted {
      (Self.order.firstIndex(of: $0.name) ?? 99, $0.pid)
        < (Self.order.firstIndex(of: $1.name) ?? 99, $1.pid)
    }
  }
}
