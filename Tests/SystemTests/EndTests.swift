// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

extension SystemTests {
  @Suite("The end of a machine")
  struct EndTests {
    /// A machine whose guest sleeps.
    private func idle(in scratch: Scratch, extra: String = "") throws -> RunningMachine {
      let file = MachineFile(firmware: try scratch.assemble("idle"), extra: extra)
      let machine = try RunningMachine(file, in: scratch)
      try #require(machine.isUp(), "\(machine.errors)")
      try #require(machine.hasSent("idle"), "\(machine.errors)")
      return machine
    }

    /// Checks that nothing but the test's own files is left.
    private func expectNothingLeft(_ machine: RunningMachine) throws {
      #expect(machine.isGone())
      let own: Set<String> = [
        "machine.toml", "stderr.log", "stdout.log", "serial.log", "console.log", "idle.bin",
        "breakpoint.bin", "triple.bin", "exit.bin",
      ]
      // After a SIGKILL it is the janitor that clears up, a moment later.
      var left: Set<String> = []
      for _ in 0..<200 {
        left = Set(try FileManager.default.contentsOfDirectory(atPath: machine.scratch.path))
          .subtracting(own)
        if left.isEmpty { break }
        HostClock.sleep(10_000_000)
      }
      #expect(left == [])
    }

    @Test(
      "a signal ends a machine in order and leaves nothing", .timeLimit(.minutes(2)),
      arguments: [SIGTERM, SIGINT, SIGHUP])
    func signals(signal: Int32) throws {
      let scratch = try Scratch()
      let machine = try idle(in: scratch)
      defer { machine.end() }
      #expect(scratch.exists("control.sock"))
      kill(machine.process.processIdentifier, signal)
      #expect(machine.exitCode(15) == 0, "\(machine.errors)")
      try expectNothingLeft(machine)
    }

    @Test("a machine goes with its launcher, within two seconds", .timeLimit(.minutes(2)))
    func launcherKilled() throws {
      let scratch = try Scratch()
      let machine = try idle(in: scratch)
      defer { machine.end() }
      kill(machine.process.processIdentifier, SIGKILL)
      #expect(machine.isGone(2))
      try expectNothingLeft(machine)
      #expect(throws: (any Error).self) { try machine.status() }
    }

    @Test("a core that is killed ends the machine with code 2", .timeLimit(.minutes(2)))
    func coreKilled() throws {
      let scratch = try Scratch()
      let machine = try idle(in: scratch)
      defer { machine.end() }
      kill(try machine.pid("vmcore"), SIGKILL)
      #expect(machine.exitCode(15) == 2)
      #expect(machine.errors.contains("vmlaunch: vmcore ended by signal 9"), "\(machine.errors)")
      try expectNothingLeft(machine)
    }

    @Test(
      "a device that dies again and again ends or holds the machine", .timeLimit(.minutes(2)),
      arguments: RunningMachine.roles.dropFirst())
    func deviceKilled(role: String) throws {
      let scratch = try Scratch()
      let machine = try idle(in: scratch)
      defer { machine.end() }
      var last: Int32 = 0
      var kills = 0
      let held = "vmlaunch: \(role): failed again and again"
      while kills < 10, machine.process.isRunning, !machine.errors.contains(held) {
        guard
          let pid = machine.children.first(where: { $0 != last && RunningMachine.role($0) == role })
        else {
          HostClock.sleep(2_000_000)
          continue
        }
        kill(pid, SIGKILL)
        last = pid
        kills += 1
      }
      // Too often within ten seconds, or again and again before it could answer.
      if machine.errors.contains(held) {
        #expect(try eventually(20) { try machine.status().state == "paused" })
        #expect(try machine.control(["stop"]).code == 0)
        #expect(machine.exitCode(20) == 0, "\(machine.errors)")
      } else {
        #expect(machine.exitCode(20) == 2, "\(machine.errors)")
        #expect(
          machine.errors.contains("vmlaunch: \(role) failed more than 5 times"),
          "\(machine.errors)")
      }
      #expect((3...7).contains(kills))
      try expectNothingLeft(machine)
    }

    @Test(
      "a device's death ends the machine where the machine file says so", .timeLimit(.minutes(2)))
    func onFaultStop() throws {
      let scratch = try Scratch()
      let machine = try idle(in: scratch, extra: "[device.serial]\non-fault = \"stop\"")
      defer { machine.end() }
      kill(try machine.pid("vmdev-serial"), SIGKILL)
      #expect(machine.exitCode(20) == 2, "\(machine.errors)")
      #expect(machine.errors.contains("vmdev-serial: ended by signal 9"), "\(machine.errors)")
      try expectNothingLeft(machine)
    }

    @Test(
      "a device's death holds the machine where the machine file says so", .timeLimit(.minutes(2)))
    func onFaultPause() throws {
      let scratch = try Scratch()
      let machine = try idle(in: scratch, extra: "[device.vga]\non-fault = \"pause\"")
      defer { machine.end() }
      let old = try machine.pid("vmdev-vga")
      kill(old, SIGKILL)
      #expect(try eventually(20) { try machine.status().state == "paused" }, "\(machine.errors)")
      #expect(try machine.status().reason.contains("vga"))
      let restart = try Tool.result(
        Built.path("vmctl"), ["device", "restart", scratch["control.sock"], "vga"], in: scratch)
      #expect(restart.code == 0, "\(restart.output)")
      _ = try machine.pid("vmdev-vga", not: old)
      #expect(
        try eventually(20) { try machine.status().devices.allSatisfy { $0.state == "up" } })
      // It goes on by itself, and the reply has waited for that.
      #expect(try machine.status().state == "running")
    }

    @Test("the guest's exit code is the launcher's", .timeLimit(.minutes(2)))
    func exitPort() throws {
      for _ in 0..<10 {
        let scratch = try Scratch()
        let machine = try RunningMachine(
          MachineFile(firmware: try scratch.assemble("exit")), in: scratch)
        defer { machine.end() }
        #expect(machine.exitCode() == exitCode(of: 0x2A), "\(machine.errors)")
        try expectNothingLeft(machine)
      }
    }

    @Test("without an exit port a guest's write there does nothing", .timeLimit(.minutes(2)))
    func noExitPort() throws {
      let scratch = try Scratch()
      var file = MachineFile(firmware: try scratch.assemble("exit"))
      file.hasExitPort = false
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.isUp(), "\(machine.errors)")
      #expect(machine.exitCode(1) == nil)
      #expect(try machine.status().state == "running")
    }

    @Test("an instruction that KVM cannot run ends with its registers", .timeLimit(.minutes(2)))
    func internalError() throws {
      let scratch = try Scratch()
      let machine = try RunningMachine(
        MachineFile(firmware: try scratch.assemble("breakpoint")), in: scratch)
      defer { machine.end() }
      // With hardware virtualisation it is a fault through the real mode's table, three times.
      #expect(machine.exitCode() == 2)
      let errors = machine.errors
      #expect(errors.contains("internal error") || errors.contains("triple fault"), "\(errors)")
      #expect(errors.contains("RBX=00000000b0a710ad"), "\(errors)")
      #expect(errors.contains("RIP="), "\(errors)")
      try expectNothingLeft(machine)
    }

    @Test(
      "a guest that faults for ever ends with code 2 and its registers", .timeLimit(.minutes(2)))
    func tripleFaults() throws {
      let scratch = try Scratch()
      let machine = try RunningMachine(
        MachineFile(firmware: try scratch.assemble("triple", "METHOD=1")), in: scratch)
      defer { machine.end() }
      #expect(machine.exitCode() == 2)
      let errors = machine.errors
      #expect(errors.contains("triple fault, the third within ten seconds"), "\(errors)")
      // Two that reset the machine, and the last.
      #expect(errors.components(separatedBy: "RBX=00000000b0a710ad").count == 4, "\(errors)")
      try expectNothingLeft(machine)
    }

    @Test("a guest turns the machine off through ACPI", .timeLimit(.minutes(5)))
    func powerOff() throws {
      let scratch = try Scratch()
      try scratch.disk("disk.raw", try scratch.assemble("poweroff"))
      var file = MachineFile()
      file.drives = [("ide0.0", "disk.raw", "raw")]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      #expect(machine.exitCode() == 0, "\(machine.errors)")
      #expect(machine.serial == "off\n")
    }

    /// Resets by port CF9h, port 92h, the keyboard controller, a triple fault, the reset register
    /// that the FADT names, and the operator.
    @Test(
      "a machine that is reset comes up as new", .timeLimit(.minutes(5)),
      arguments: [1, 2, 3, 4, 5, 6], Requirements.accelerators)
    func resets(method: Int, accelerator: String) throws {
      let scratch = try Scratch()
      try scratch.disk("disk.raw", try scratch.assemble("reset", "METHOD=\(method)"))
      var file = MachineFile(accelerator: accelerator)
      file.drives = [("ide0.0", "disk.raw", "raw")]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      if method == 6 {
        try #require(machine.hasSent("\n."), "\(machine.errors)")
        #expect(try machine.control(["reset"]).code == 0)
      }
      #expect(machine.exitCode() == exitCode(of: 0x20 + method), "\(machine.errors)")
      #expect(machine.starts == 2)
      // What the guest found in the chips before it upset them, and after the reset.
      let lines = machine.serial.split(whereSeparator: { $0 == "\n" || $0 == "." })
        .map { $0.split(separator: " ").map(String.init) }
      try #require(lines.count == 2 && lines.allSatisfy { $0.count == 2 }, "\(machine.serial)")
      #expect(lines[0][0] == "first" && lines[1][0] == "second")
      #expect(lines[0][1].count > 100)
      #expect(lines[0][1] == lines[1][1])
    }
  }
}
