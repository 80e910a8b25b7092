// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceProtocol
import LinuxSystem
import Monitor

struct List: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List the machines of this user that run.",
    discussion: "Machines whose machine file gives the socket a path of its own are not listed.")
  @Flag(help: "As a JSON array of what status says of each, or of the error.")
  var json = false

  private static let patience: UInt64 = 2_000_000_000

  func run() {
    var objects: [String] = []
    let names = ((try? Descriptor.entries(of: RuntimeFolder.path)) ?? []).sorted()
    for file in names where file.hasSuffix(".sock") {
      let name = String(file.dropLast(5))
      guard let client = try? ControlClient(machine: name) else { continue }
      do throws(ControlClient.Failure) {
        let status: StatusReply = try client.ask(.status, Empty(), patience: Self.patience)
        if json {
          objects.append(StatusText.json(status))
        } else {
          print(
            "\(VisibleText.escape(name))  \(VisibleText.escape(status.state))  \(size(status))")
        }
      } catch {
        if json {
          objects.append(
            "{\"machine\":\(StatusText.quoted(name)),\"error\":\(StatusText.quoted("\(error)"))}")
        } else {
          print("\(VisibleText.escape(name))  \(error)")
        }
      }
    }
    if json { print("[\(objects.joined(separator: ","))]") }
  }

  private func size(_ status: StatusReply) -> String {
    "\(status.cpus) CPU\(status.cpus == 1 ? "" : "s"), \(status.memoryByteCount >> 20)MiB"
  }
}

struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Show what a machine is doing.")
  @OptionGroup var machine: MachineName
  @Flag(help: "As one JSON object.")
  var json = false

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in
      let status: StatusReply = try machine.connect().ask(.status, Empty())
      print(json ? StatusText.json(status) : StatusText.plain(status))
    }
  }
}

/// A status as text; what comes from the machine is escaped.
enum StatusText {
  static func plain(_ status: StatusReply) -> String {
    var lines = [
      "machine      \(VisibleText.escape(status.machine))",
      "state        \(VisibleText.escape(status.state))",
    ]
    if !status.reason.isEmpty { lines.append("reason       \(VisibleText.escape(status.reason))") }
    let milliseconds = status.clock / 1_000_000
    let fraction = String(1000 + milliseconds % 1000).dropFirst()
    lines += [
      "accelerator  \(VisibleText.escape(status.accelerator))",
      "cpus         \(status.cpus)",
      "memory       \(status.memoryByteCount >> 20)MiB",
      "clock        \(milliseconds / 1000).\(fraction)s",
    ]
    for device in status.devices {
      lines.append(
        "device       \(VisibleText.escape(device.role)): \(VisibleText.escape(device.state)), "
          + "\(device.restarts) restarts, \(device.live) live, \(device.posted) posted, "
          + "\(device.mirrored) mirrored")
    }
    return lines.joined(separator: "\n")
  }

  static func json(_ status: StatusReply) -> String {
    let devices = status.devices.map { device in
      "{\"role\":\(quoted(device.role)),\"state\":\(quoted(device.state)),"
        + "\"restarts\":\(device.restarts),\"live\":\(device.live),"
        + "\"posted\":\(device.posted),\"mirrored\":\(device.mirrored)}"
    }
    return "{\"machine\":\(quoted(status.machine)),\"state\":\(quoted(status.state)),"
      + "\"reason\":\(quoted(status.reason)),\"accelerator\":\(quoted(status.accelerator)),"
      + "\"cpus\":\(status.cpus),\"memory\":\(status.memoryByteCount),"
      + "\"clock\":\(status.clock),\"devices\":[\(devices.joined(separator: ","))]}"
  }

  /// A string as JSON writes it, in ASCII (RFC 8259, section 7).
  static func quoted(_ text: String) -> String {
    var result = "\""
    for unit in text.utf16 {
      switch unit {
      case 0x22: result += "\\\""
      case 0x5C: result += "\\\\"
      case 0x20..<0x7F: result.unicodeScalars.append(Unicode.Scalar(UInt8(unit)))
      default: result += "\\u" + String(0x10000 + Int(unit), radix: 16).dropFirst()
      }
    }
    return result + "\""
  }
}
