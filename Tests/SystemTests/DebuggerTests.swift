// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

extension SystemTests {
  @Suite(
    "gdb's server",
    .enabled(if: Python.isThere, "missing: .build/python with qemu.qmp (deploy/test makes it)"),
    .enabled(if: Tool.find("gdb") != nil, "missing: gdb"))
  struct DebuggerTests {
    /// Gives the human monitor one line by QMP; what it says, in JSON.
    private func say(_ line: String, _ machine: RunningMachine) throws -> String {
      let scratch = machine.scratch
      return try Tool.run(
        Python.path,
        [
          Python.scripts + "/order.py", scratch["qmp.sock"], "human-monitor-command",
          "{\"command-line\": \"\(line)\"}",
        ], in: scratch)
    }

    private func connect(_ path: String, in scratch: Scratch) throws -> (Int32, String) {
      try Tool.result(
        "gdb",
        [
          "-nx", "-batch", "-ex", "set architecture i386:x86-64", "-ex",
          "target remote \(path)", "-ex", "printf \"connected: %d\\n\", $rip != 0", "-ex", "detach",
        ], in: scratch, seconds: 60)
    }

    @Test(
      "gdbserver begins and ends while the machine runs, and outlives vmmonitor",
      .timeLimit(.minutes(3)), arguments: Requirements.accelerators)
    func server(accelerator: String) throws {
      let scratch = try Scratch()
      _ = try scratch.assemble("reader")
      let machine = try RunningMachine(
        MachineFile(
          accelerator: accelerator, firmware: "reader.bin",
          monitor: ["qmp = \"unix:qmp.sock\""]), in: scratch)
      defer { machine.end() }
      try #require(machine.hasSaid("isolation: ", times: 6), "\(machine.errors)")
      let path = scratch["control.gdb"]
      #expect(!FileManager.default.fileExists(atPath: path))
      #expect(try say("gdbserver none", machine).contains("Disabled gdbserver"))

      let begun = try say("gdbserver", machine)
      #expect(
        begun.contains("Waiting for gdb connection on device 'unix:\(path)'\\r\\n"), "\(begun)")
      #expect(try Files.status(path)?.mode == 0o600)
      let first = try connect(path, in: scratch)
      #expect(first.0 == 0 && first.1.contains("connected: 1\n"), "\(first.1)")
      #expect(try machine.status().state == "running")

      // Nobody makes sockets elsewhere, and none by other names.
      for device in ["unix:/tmp/elsewhere.sock", "unix:other", "tcp::1234", "stdio"] {
        let answer = try say("gdbserver \(device)", machine)
        #expect(answer.contains("Could not open gdbserver on device '\(device)'"), "\(answer)")
      }
      #expect(!FileManager.default.fileExists(atPath: "/tmp/elsewhere.sock"))
      let audit = try machine.control(["isolation"])
      #expect(audit.code == 0, "\(audit.output)")

      // A new vmmonitor serves it, too.
      let old = try machine.pid("vmmonitor")
      kill(old, SIGKILL)
      try #require(machine.hasSaid("vmmonitor: isolation: ", times: 2), "\(machine.errors)")
      let second = try connect(path, in: scratch)
      #expect(second.0 == 0 && second.1.contains("connected: 1\n"), "\(second.1)")

      #expect(try say("gdbserver none", machine).contains("Disabled gdbserver"))
      #expect(!FileManager.default.fileExists(atPath: path))
      // And again; the machine's end clears it away.
      #expect(try say("gdbserver unix:\(path),server=on", machine).contains("'unix:\(path)'"))
      #expect(FileManager.default.fileExists(atPath: path))
      #expect(try machine.control(["stop"]).code == 0)
      #expect(machine.exitCode(20) == 0, "\(machine.errors)")
      #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test(
      "a machine file's socket can be closed and moved inside of its folder",
      .timeLimit(.minutes(2)))
    func moved() throws {
      let scratch = try Scratch()
      _ = try scratch.assemble("reader")
      let machine = try RunningMachine(
        MachineFile(
          firmware: "reader.bin",
          monitor: ["qmp = \"unix:qmp.sock\"", "gdb = \"unix:gdb.sock\""]), in: scratch)
      defer { machine.end() }
      try #require(machine.hasSaid("isolation: ", times: 6), "\(machine.errors)")
      #expect(try say("gdbserver unix:second.sock", machine).contains("second.sock"))
      #expect(!FileManager.default.fileExists(atPath: scratch["gdb.sock"]))
      let answer = try connect(scratch["second.sock"], in: scratch)
      #expect(answer.0 == 0 && answer.1.contains("connected: 1\n"), "\(answer.1)")
      #expect(try say("gdbserver none", machine).contains("Disabled"))
      #expect(!FileManager.default.fileExists(atPath: scratch["second.sock"]))
      #expect(try say("gdbserver", machine).contains("/gdb.sock'"))
      #expect(try say("gdbserver unix:qmp.sock", machine).contains("in use by another process"))
      #expect(try connect(scratch["gdb.sock"], in: scratch).0 == 0)
      kill(machine.process.processIdentifier, SIGKILL)
      #expect(eventually(10) { !FileManager.default.fileExists(atPath: scratch["gdb.sock"]) })
    }
  }
}
