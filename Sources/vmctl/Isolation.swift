// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import LinuxSystem
import Monitor
import Sandbox

struct Isolation: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show how a machine's processes are confined, and what differs from the profiles.",
    discussion: """
      Everything is read from the kernel's own view of the live processes in /proc, nothing is \
      asked of them. Exit code 1 says that something differs from the profiles. It takes root, or \
      the user who started the machine; as root the system call filters in force are compared \
      byte by byte. What a process alone can read of itself (Landlock, securebits, not being \
      dumpable) is in vmlaunch's messages.
      """)
  @OptionGroup var machine: MachineName
  @Flag(help: "As one JSON object.")
  var json = false

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in
      let audit = try audit()
      let text = json ? IsolationText.json(audit) : IsolationText.plain(audit)
      try? Files.standardStream(1).writeAll(Array((text + "\n").utf8))
      if !audit.holds { ThisProcess.exit(1) }
    }
  }

  private func audit() throws(ControlClient.Failure) -> MachineAudit {
    let title = VisibleText.escape(machine.name)
    let launcher = try MachineProcesses(machine).launcher
    do throws(SystemError) {
      return try MachineAudit(launcher: launcher)
    } catch {
      throw ControlClient.Failure("the processes of \"\(title)\" cannot be looked at: \(error)")
    }
  }
}

/// An audit as text.
enum IsolationText {
  /// A table of processes by layers, and a line for each difference.
  static func plain(_ audit: MachineAudit) -> String {
    let layers = audit.processes.first?.findings.map(\.layer) ?? []
    var rows = [["process", "pid"] + layers]
    for process in audit.processes {
      rows.append(
        [process.name, "\(process.pid)"]
          + process.findings.map { $0.difference == nil ? $0.value : "\($0.value) !" })
    }
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    var lines = rows.map { row in
      var line = ""
      for (cell, width) in zip(row, widths) {
        line += cell + String(repeating: " ", count: width - cell.count + 2)
      }
      while line.last == " " { line.removeLast() }
      return line
    }
    for process in audit.processes {
      for finding in process.differences {
        lines.append(
          "differs: \(process.name): \(finding.layer): "
            + VisibleText.escape(finding.difference ?? ""))
      }
    }
    lines += audit.differences.map { "differs: " + VisibleText.escape($0) }
    if audit.holds { lines.append("everything is as the profiles say") }
    return lines.joined(separator: "\n")
  }

  static func json(_ audit: MachineAudit) -> String {
    let processes = audit.processes.map { process in
      let layers = process.findings.map { finding in
        let difference = finding.difference.map { StatusText.quoted($0) } ?? "null"
        return "{\"layer\":\(StatusText.quoted(finding.layer)),"
          + "\"value\":\(StatusText.quoted(finding.value)),\"difference\":\(difference)}"
      }
      return "{\"name\":\(StatusText.quoted(process.name)),\"pid\":\(process.pid),"
        + "\"layers\":[\(layers.joined(separator: ","))]}"
    }
    let differences = audit.differences.map { StatusText.quoted($0) }
    return "{\"holds\":\(audit.holds),\"processes\":[\(processes.joined(separator: ","))],"
      + "\"differences\":[\(differences.joined(separator: ","))]}"
  }
}
