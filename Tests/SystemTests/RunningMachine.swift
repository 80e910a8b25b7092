// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Foundation
import LinuxSystem
import Monitor
import Testing

/// A machine file in parts.
struct MachineFile {
  var accelerator = Requirements.hasKVM ? "kvm" : "soft"
  var cpus = 1
  var memory = "64MiB"
  var firmware: String?
  /// More keys of the table `machine`.
  var machine: [String] = []
  /// Slot, image and format of each drive.
  var drives: [(slot: String, image: String, format: String)] = []
  /// More lines for each drive.
  var driveLines: [String] = []
  var serial = "file:serial.log"
  var hasExitPort = true
  /// More keys of the table `monitor`.
  var monitor: [String] = []
  /// More lines, after everything else.
  var extra = ""

  func text(name: String) -> String {
    var lines = [
      "name = \"\(name)\"", "[machine]", "accelerator = \"\(accelerator)\"",
      "cpus = \(cpus)", "memory = \"\(memory)\"",
    ]
    if let firmware { lines.append("firmware = \"\(firmware)\"") }
    lines += machine
    for drive in drives {
      lines += [
        "[[drive]]", "slot = \"\(drive.slot)\"", "image = \"\(drive.image)\"",
        "format = \"\(drive.format)\"",
      ]
      lines += driveLines
    }
    lines += ["[[serial]]", "backend = \"\(serial)\"", "[monitor]"]
    lines += ["control = \"unix:control.sock\""] + monitor
    lines += ["[debug]", "console = \"file:console.log\""]
    if hasExitPort { lines.append("exit-port = 0xF4") }
    return lines.joined(separator: "\n") + "\n" + extra + "\n"
  }
}

/// What the launcher ends with when the guest writes a value to the debug exit port.
func exitCode(of value: Int) -> Int32 { Int32(value) << 1 | 1 }

/// A machine that the real launcher runs in a folder of its own.
///
/// Call ``end()`` before the test ends, in any case.
final class RunningMachine {
  static let roles = ["vmcore", "vmdev-piix", "vmdev-ide", "vmdev-serial", "vmdev-vga"]

  let scratch: Scratch
  let name: String
  let process = Process()
  /// The serial port's input and output, when that is on stdio.
  private var input: FileHandle?
  private var output: Descriptor?
  private var pipes: [Pipe] = []
  /// The launcher's standard input and output, as whoever started it shares them.
  private var shared: [Descriptor] = []
  private var received: [UInt8] = []
  private var known: [Int32] = []

  /// Starts a machine; `prefix` is a program, with arguments, that starts the launcher.
  init(
    _ file: MachineFile, in scratch: Scratch, executables: String = Built.folder,
    prefix: [String] = [], name: String? = nil
  ) throws {
    self.scratch = scratch
    self.name = name ?? "system-\(UUID().uuidString.prefix(8).lowercased())"
    let path = try scratch.write("machine.toml", file.text(name: self.name))
    let command = prefix + ["\(executables)/vmlaunch", path]
    process.executableURL = URL(fileURLWithPath: command[0])
    process.arguments = Array(command.dropFirst())
    process.standardError = FileHandle(forWritingAtPath: try scratch.write("stderr.log", []))
    if file.serial == "stdio" {
      let down = Pipe()
      let up = Pipe()
      process.standardInput = down
      process.standardOutput = up
      shared = [down.fileHandleForReading, up.fileHandleForWriting].map {
        Descriptor(owning: dup($0.fileDescriptor))
      }
      try process.run()
      input = down.fileHandleForWriting
      pipes = [down, up]
      let reading = dup(up.fileHandleForReading.fileDescriptor)
      output = Descriptor(owning: reading)
      try output?.setNonBlocking(true)
    } else {
      process.standardInput = FileHandle.nullDevice
      process.standardOutput = FileHandle(forWritingAtPath: try scratch.write("stdout.log", []))
      try process.run()
    }
  }

  deinit { end() }

  /// Whether the streams that the launcher was given are left without waiting (O_NONBLOCK).
  var leavesStreamsNonBlocking: Bool {
    shared.contains { fcntl($0.raw, F_GETFL) & O_NONBLOCK != 0 }
  }

  /// Kills what is left of the machine.
  func end() {
    let left = known + children
    if process.isRunning {
      kill(process.processIdentifier, SIGKILL)
      process.waitUntilExit()
    }
    // They die with their launcher; this is for a launcher that is broken.
    for pid in left where Self.role(pid) != nil { kill(pid, SIGKILL) }
  }

  // MARK: What it says

  /// The launcher's standard error.
  var errors: String { scratch.text("stderr.log") }
  /// The firmware's debug console.
  var console: String { scratch.text("console.log") }
  /// What the guest has sent to COM1 so far.
  var serial: String { String(decoding: serialBytes, as: UTF8.self) }

  var serialBytes: [UInt8] {
    guard let output else { return scratch.bytes("serial.log") }
    while let bytes = try? output.read(65536), !bytes.isEmpty { received += bytes }
    return received
  }

  /// Sends something to COM1 on stdio.
  func type(_ text: String) throws {
    try #require(input).write(contentsOf: Data(text.utf8))
  }

  /// How often the firmware has started.
  var starts: Int { console.components(separatedBy: "max supported").count - 1 }

  /// How often the launcher has started a device anew.
  func restarts(_ role: String) -> Int {
    errors.split(separator: "\n").count {
      $0.hasPrefix("\(name) vmlaunch: \(role): ") && $0.hasSuffix("; starting it anew")
    }
  }

  /// Waits until the guest has sent a text to COM1, `times` times.
  func hasSent(_ text: String, times: Int = 1, seconds: Double = 300) -> Bool {
    waits(seconds) { self.serial.components(separatedBy: text).count > times }
  }

  /// Waits until the firmware has written a text to its debug console, `times` times.
  func hasLogged(_ text: String, times: Int = 1, seconds: Double = 300) -> Bool {
    waits(seconds) { self.console.components(separatedBy: text).count > times }
  }

  /// Waits until the launcher has said something.
  func hasSaid(_ text: String, times: Int = 1, seconds: Double = 60) -> Bool {
    waits(seconds) { self.errors.components(separatedBy: text).count > times }
  }

  /// Waits until something holds, at most `seconds`, and not beyond the end of the launcher.
  func waits(_ seconds: Double, _ condition: () -> Bool) -> Bool {
    eventually(seconds) { condition() || !process.isRunning } && condition()
  }

  // MARK: Its processes

  /// The launcher's children, some of which may be on their way.
  var children: [Int32] {
    let pid = process.processIdentifier
    let path = "/proc/\(pid)/task/\(pid)/children"
    let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
    return text.split(separator: " ").compactMap { Int32($0) }
  }

  /// What a process of a machine is, such as `vmdev-ide`.
  static func role(_ pid: Int32) -> String? {
    guard let bytes = try? Data(contentsOf: URL(fileURLWithPath: "/proc/\(pid)/cmdline")) else {
      return nil
    }
    let first = String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    return roles.contains(first) || first == "vmmonitor" ? first : nil
  }

  /// The process of a role, once there is one other than `old`.
  func pid(_ role: String, not old: Int32 = 0) throws -> Int32 {
    var found: Int32?
    let isThere = eventually(30) {
      found = children.first { $0 != old && Self.role($0) == role }
      return found != nil
    }
    try #require(isThere, "there is no \(role): \(errors)")
    let pid = try #require(found)
    known.append(pid)
    return pid
  }

  /// Waits until all five processes are locked down.
  func isUp() -> Bool {
    guard hasSaid("isolation: ", times: 5) else { return false }
    for role in Self.roles { _ = try? pid(role) }
    return true
  }

  /// Kills the process of a role, and waits for its successor to be in the core's service.
  func killDevice(_ role: String) throws {
    let old = try pid(role)
    let before = errors.components(separatedBy: "\(role): isolation: ").count
    kill(old, SIGKILL)
    try #require(
      hasSaid("\(role): isolation: ", times: before), "no new \(role): \(errors)")
    _ = try pid(role, not: old)
  }

  /// Waits for the launcher's end and returns its exit code; minus the signal, if it was killed.
  func exitCode(_ seconds: Double = 120) -> Int32? {
    let hasEnded = eventually(seconds) {
      // A guest waits for somebody to read what it sends.
      if output != nil { _ = serialBytes }
      return !process.isRunning
    }
    guard hasEnded else { return nil }
    return process.terminationReason == .exit
      ? process.terminationStatus : -process.terminationStatus
  }

  /// Whether none of the processes that the test has seen is there any more.
  func isGone(_ seconds: Double = 2) -> Bool {
    eventually(seconds) { known.allSatisfy { Self.role($0) == nil } }
  }

  // MARK: Its control socket

  func client() throws -> ControlClient { try ControlClient(machine: scratch["control.sock"]) }

  func status() throws -> StatusReply { try client().ask(.status, Empty()) }

  /// Runs vmctl with this machine as its operand.
  func control(_ command: [String], _ more: String...) throws -> (code: Int32, output: String) {
    try Tool.result(
      Built.path("vmctl"), command + [scratch["control.sock"]] + more, in: scratch)
  }

  /// The text on the screen.
  func screen() throws -> String {
    let (code, output) = try control(["screendump"], "--text")
    return code == 0 ? output : ""
  }

  /// Waits until the screen shows a text.
  func shows(_ text: String, seconds: Double = 120) throws -> Bool {
    try eventually(seconds) { try screen().contains(text) }
  }
}

/// The executables that SwiftPM has built beside the tests.
enum Built {
  static let folder: String = {
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    return (own as NSString).deletingLastPathComponent
  }()

  static func path(_ name: String) -> String { "\(folder)/\(name)" }
}
