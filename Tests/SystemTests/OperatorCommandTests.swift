// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

extension SystemTests {
  @Suite("vmctl's top, trace, console and kill")
  struct OperatorCommandTests {
    private static let vmctl = Built.path("vmctl")

    private func objects(_ text: String) throws -> [[String: Any]] {
      try text.split(separator: "\n").map { line in
        let object = try JSONSerialization.jsonObject(with: Data(line.utf8))
        return try #require(object as? [String: Any], "\(line)")
      }
    }

    /// Runs vmctl on a terminal of its own.
    private func onTerminal(
      _ machine: RunningMachine, _ steps: [String], _ command: [String]
    ) throws -> (code: Int32, output: String) {
      try Tool.result(
        "python3",
        [Python.scripts + "/terminal.py"] + steps + ["--", Self.vmctl] + command,
        in: machine.scratch, seconds: 120)
    }

    @Test(
      "they show and steer a machine, and it is killed at once", .timeLimit(.minutes(5)),
      .enabled(if: Tool.find("python3") != nil), arguments: Requirements.accelerators)
    func commands(accelerator: String) throws {
      let scratch = try Scratch()
      let machine = try RunningMachine(
        MachineFile(
          accelerator: accelerator, cpus: 2, firmware: try scratch.assemble("echo"),
          serial: "pty"), in: scratch)
      defer { machine.end() }
      try #require(machine.isUp(), "\(machine.errors)")
      let socket = scratch["control.sock"]
      try trace(machine, socket)
      try top(machine, socket)

      let port = try machine.control(["console", "--port", "2"])
      #expect(port.code == 1 && port.output.contains("has no COM2; it has 1 "), "\(port.output)")

      let launcher = machine.process.processIdentifier
      let killed = try machine.control(["kill"])
      #expect(killed.code == 0, "\(killed.output)")
      #expect(!scratch.exists("control.sock"))
      #expect(machine.exitCode(10) == -SIGKILL)
      #expect(machine.isGone(5))
      #expect(kill(launcher, 0) != 0)
      let again = try machine.control(["kill"])
      #expect(again.code == 1 && again.output.contains("no machine "), "\(again.output)")
    }

    /// A trace of one port while somebody types at the console.
    private func trace(_ machine: RunningMachine, _ socket: String) throws {
      let scratch = machine.scratch
      // When the guest reads the line status it has set the port up.
      let start = try machine.control(["trace"], "--ports", "0x3fd", "--count", "1")
      #expect(start.code == 0, "\(start.output)")
      let tracer = Process()
      tracer.executableURL = URL(fileURLWithPath: Self.vmctl)
      tracer.arguments = [
        "trace", socket, "--ports", "0x3f8", "--kind", "live,posted", "--count", "12", "--json",
        "-o", scratch["trace.json"],
      ]
      try tracer.run()
      defer { if tracer.isRunning { kill(tracer.processIdentifier, SIGKILL) } }
      try #require(eventually(20) { scratch.exists("trace.json") })
      HostClock.sleep(300_000_000)
      let other = try machine.control(["trace"], "--count", "1")
      #expect(other.code == 1 && other.output.contains("another client traces already"))

      let console = try onTerminal(
        machine, ["expect:ctrl-] leaves", "send:x\\x03z", "expect:<x><\u{3}><z>", "send:\\x1d"],
        ["console", socket])
      #expect(console.code == 0, "\(console.output)")

      try #require(eventually(20) { !tracer.isRunning })
      #expect(tracer.terminationStatus == 0)
      let records = try objects(scratch.text("trace.json"))
      try #require(records.count == 12)
      let values = records.map { $0["value"] as? Int ?? 0 }
      #expect(values == Array("x<x>\u{3}<\u{3}>z<z>".utf8).map { Int($0) })
      for (index, record) in records.enumerated() {
        let isRead = index % 4 == 0
        #expect(record["direction"] as? String == (isRead ? "read" : "write"))
        #expect(record["kind"] as? String == (isRead ? "live" : "posted"))
        #expect(record["register"] as? String == (isRead ? "COM1 RBR" : "COM1 THR"))
        #expect(record["device"] as? String == "serial" && record["address"] as? Int == 0x3F8)
        #expect(record["cpu"] as? Int == 0 && record["space"] as? String == "ports")
        #expect((record["latency"] as? Int ?? 0 > 0) == isRead)
      }
      let times = records.map { $0["time"] as? Int ?? 0 }
      #expect(times == times.sorted() && times[0] > 0)

      // The guest waits for input: nothing but the line status is read, and the core answers it.
      let polls = try machine.control(["trace"], "--device", "serial", "--count", "20")
      #expect(polls.code == 0, "\(polls.output)")
      let lines = polls.output.split(separator: "\n").filter { $0.contains("port 0x") }
      #expect(lines.count == 20)
      #expect(
        lines.allSatisfy {
          $0.contains("serial mirrored read  port 0x03fd (COM1 LSR) = 0x60")
        }, "\(polls.output)")
      for (words, complaint) in [
        (["--memory", "0x1000"], "no device's registers are there"),
        (["--kind", "dead"], "accepted: --kind"), (["--ports", "7-3"], "accepted: --ports"),
      ] {
        let result = try Tool.result(Self.vmctl, ["trace", socket] + words, in: scratch)
        #expect(result.code != 0 && result.output.contains(complaint), "\(result.output)")
      }
    }

    private func top(_ machine: RunningMachine, _ socket: String) throws {
      let once = try machine.control(["top", "--once", "--json", "--interval", "0.5"])
      #expect(once.code == 0, "\(once.output)")
      let table = try #require(try objects(once.output).first)
      #expect(table["machine"] as? String == machine.name)
      let processes = try #require(table["processes"] as? [[String: Any]])
      let names = processes.compactMap { $0["name"] as? String }
      #expect(names == ["vmlaunch"] + RunningMachine.roles + ["janitor"])
      for process in processes {
        #expect(process["rss"] as? Int ?? 0 > 100_000, "\(process)")
        #expect(!Requirements.isRoot || process["pss"] as? Int ?? 0 > 100_000, "\(process)")
        #expect(kill(Int32(process["pid"] as? Int ?? 0), 0) == 0, "\(process)")
      }
      func number(_ name: String, _ key: String) -> Double {
        processes.first { $0["name"] as? String == name }?[key] as? Double ?? -1
      }
      // It polls the line status as fast as it can.
      #expect(number("vmcore", "cpu") > 20 && number("vmcore", "cpu") < 250)
      #expect(number("vmdev-serial", "mirrored") > 1000)
      #expect(number("vmdev-serial", "live") >= 0 && number("vmdev-serial", "restarts") == 0)

      let twice = try machine.control(["top", "--count", "2", "--interval", "0.2"])
      #expect(twice.code == 0)
      #expect(twice.output.components(separatedBy: "PROCESS ").count == 3, "\(twice.output)")
      #expect(!twice.output.contains("\u{1B}"))
      for key in ["q", "\\x03"] {
        let live = try onTerminal(
          machine, ["expect:PROCESS ", "expect:PROCESS ", "send:\(key)"],
          ["top", socket, "--interval", "0.2"])
        #expect(live.code == 0, "\(live.output)")
        #expect(live.output.contains("\u{1B}[?1049l"))
      }
    }

    @Test(
      "lines are for the journal when it is there, and as many as the level says",
      .timeLimit(.minutes(3)))
    func log() throws {
      let scratch = try Scratch()
      // The journal tells who writes to it which file it is.
      let errors = try Files.open(try scratch.write("stderr.log", []), .readOnly).identity()
      var file = MachineFile()
      file.extra = "[log]\nlevel = \"warning\""
      let machine = try RunningMachine(
        file, in: scratch,
        prefix: ["/usr/bin/env", "JOURNAL_STREAM=\(errors.device):\(errors.inode)"])
      defer { machine.end() }
      func isUp(_ restarts: UInt32) -> Bool {
        eventually(60) {
          let status = try? machine.status()
          return status?.state == "running"
            && status?.devices.first { $0.role == "ide" }?.restarts == restarts
        }
      }
      try #require(isUp(0), "\(machine.errors)")
      #expect(try machine.control(["log-level"]).output == "warning\n")
      let first = try machine.pid("vmdev-ide")
      kill(first, SIGKILL)
      try #require(isUp(1), "\(machine.errors)")
      let reason = "\(machine.name) vmlaunch: vmdev-ide: ended by signal 9"
      #expect(machine.errors.hasPrefix("<4>\(reason)"), "\(machine.errors)")
      #expect(!machine.errors.contains("isolation: "), "\(machine.errors)")

      let json = try machine.control(["log-level", "--json"], "info")
      #expect(json.code == 0 && json.output == "{\"level\":\"info\"}\n", "\(json.output)")
      kill(try machine.pid("vmdev-ide", not: first), SIGKILL)
      try #require(isUp(2), "\(machine.errors)")
      let isolation = "<6>\(machine.name) vmlaunch: vmdev-ide: isolation: "
      #expect(machine.hasSaid(isolation), "\(machine.errors)")
      let lines = machine.errors.split(separator: "\n")
      #expect(lines.count >= 3)
      for line in lines {
        #expect(line.contains(/^<[3-7]>[a-z0-9-]+ vm[a-z-]+: ./), "\(line)")
        #expect(line.contains(" vmlaunch: ") || line.contains(" vmdev-ide: "), "\(line)")
      }
      let loud = try machine.control(["log-level"], "loud")
      #expect(loud.code == 64 && loud.output.contains("accepted: error, warning"), "\(loud.output)")
      #expect(try machine.control(["log-level"], "error").output == "error\n")
      #expect(try machine.control(["stop"]).code == 0)
      #expect(machine.exitCode() == 0)
      #expect(machine.errors.split(separator: "\n").count == lines.count, "\(machine.errors)")
    }
  }
}
