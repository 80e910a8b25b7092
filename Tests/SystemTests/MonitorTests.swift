// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

/// Python with the package qemu.qmp, as deploy/test makes it.
enum Python {
  static let path = Requirements.repository + "/.build/python/bin/python"
  static let isThere = Files.isExecutable(path)
  static let scripts = Requirements.repository + "/Tests/SystemTests/Monitor"
}

extension SystemTests {
  @Suite(
    "The monitor",
    .enabled(if: Python.isThere, "missing: .build/python with qemu.qmp (deploy/test makes it)"))
  struct MonitorTests {
    private func machine(_ accelerator: String, in scratch: Scratch) throws -> RunningMachine {
      try FileManager.default.createDirectory(
        atPath: scratch["out"], withIntermediateDirectories: false)
      return try RunningMachine(
        MachineFile(
          accelerator: accelerator, cpus: 2,
          monitor: [
            "qmp = \"unix:qmp.sock\"", "hmp = \"unix:hmp.sock\"",
            "output = \"\(scratch["out"])\"",
          ]), in: scratch)
    }

    /// The numbers of the vCPUs' threads, as /proc has them.
    private func threads(_ machine: RunningMachine) throws -> [String] {
      let folder = "/proc/\(try machine.pid("vmcore"))/task"
      return try FileManager.default.contentsOfDirectory(atPath: folder).filter {
        (try String(contentsOfFile: "\(folder)/\($0)/comm", encoding: .utf8)).hasPrefix("CPU ")
      }
    }

    @Test(
      "qemu.qmp drives a machine through its life, and QEMU's schema holds for the replies",
      .timeLimit(.minutes(5)), .enabled(if: Tool.find("qemu-system-x86_64") != nil),
      arguments: Requirements.accelerators)
    func life(accelerator: String) throws {
      let scratch = try Scratch()
      let machine = try machine(accelerator, in: scratch)
      defer { machine.end() }
      try #require(machine.hasSaid("isolation: ", times: 6), "\(machine.errors)")
      try #require(machine.hasLogged("max supported", times: 1))
      for name in ["qmp.sock", "hmp.sock"] {
        let mode = try FileManager.default.attributesOfItem(atPath: scratch[name])
        #expect(mode[.posixPermissions] as? Int == 0o600)
      }
      let audit = try machine.control(["isolation"])
      #expect(audit.code == 0, "\(audit.output)")
      #expect(audit.output.contains("vmmonitor"))
      let result = try Tool.result(
        Python.path,
        [
          Python.scripts + "/life.py", scratch["qmp.sock"],
          Requirements.repository + "/protocols/qmp-schema.json", scratch["out"],
          try threads(machine).joined(separator: ","),
        ], in: scratch, seconds: 150)
      #expect(result.code == 0, "\(result.output)\n\(machine.errors)")
      #expect(machine.exitCode(20) == 0, "\(machine.errors)")
      #expect(!FileManager.default.fileExists(atPath: scratch["qmp.sock"]))
    }

    @Test(
      "a hundred clients with garbage do not disturb it", .timeLimit(.minutes(5)),
      arguments: Requirements.accelerators)
    func garbage(accelerator: String) throws {
      let scratch = try Scratch()
      let machine = try machine(accelerator, in: scratch)
      defer { machine.end() }
      try #require(machine.hasSaid("isolation: ", times: 6), "\(machine.errors)")
      let monitor = try machine.pid("vmmonitor")
      func descriptors() -> Int {
        (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(monitor)/fd").count) ?? 0
      }
      func residentPages() -> Int {
        let text = (try? String(contentsOfFile: "/proc/\(monitor)/statm", encoding: .utf8)) ?? ""
        return text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
      }
      let before = descriptors()
      let clock = try machine.status().clock
      let result = try Tool.result(
        Python.path, [Python.scripts + "/garbage.py", scratch["qmp.sock"], scratch["hmp.sock"]],
        in: scratch, seconds: 200)
      #expect(result.code == 0, "\(result.output)\n\(machine.errors)")
      #expect(eventually(10) { descriptors() == before })
      #expect(residentPages() < 64 << 8, "more than 64 MiB")
      let status = try machine.status()
      #expect(status.state == "running" && status.clock > clock)
      #expect(try machine.pid("vmmonitor") == monitor, "it was started anew: \(machine.errors)")
    }

    @Test(
      "gdb sets breakpoints and a watchpoint, steps, shows frames and registers, and lets go",
      .timeLimit(.minutes(5)), .enabled(if: Tool.find("gdb") != nil))
    func debugger() throws {
      let scratch = try Scratch()
      let source = "\(Requirements.repository)/Tests/SystemTests/Guests/debug.c"
      try Tool.run(
        "gcc",
        [
          "-g", "-O1", "-ffreestanding", "-fno-pie", "-no-pie", "-mno-red-zone",
          "-mgeneral-regs-only", "-fno-asynchronous-unwind-tables", "-fno-omit-frame-pointer",
          "-fno-optimize-sibling-calls", "-fno-stack-protector", "-nostdlib", "-static",
          "-Wl,--build-id=none", "-Wl,-N", "-Wl,-Ttext=0x100000", "-Wl,-e,start", "-o",
          scratch["debug.elf"], source,
        ], in: scratch)
      // The loader takes 32-bit files.
      try Tool.run(
        "objcopy", ["-O", "elf32-i386", "-g", scratch["debug.elf"], scratch["kernel"]], in: scratch)
      var file = MachineFile(
        accelerator: "soft", cpus: 2, monitor: ["gdb = \"unix:gdb.sock\""])
      file.extra = "[boot]\nkernel = \"kernel\""
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.hasLogged("Booting from ca00"), "\(machine.console)")
      HostClock.sleep(2_000_000_000)
      let script = try String(contentsOfFile: Python.scripts + "/session.gdb", encoding: .utf8)
        .replacing("FILE", with: scratch["debug.elf"])
        .replacing("SOCKET", with: scratch["gdb.sock"])
      let session = try scratch.write("session.gdb", script)
      let (code, output) = try Tool.result(
        "gdb", ["-nx", "-batch", "-x", session], in: scratch, seconds: 120)
      #expect(code == 0, "\(output)\n\(machine.errors)")
      #expect(output.contains("Thread 2 (CPU#1 [halted])"), "\(output)")
      #expect(output.contains("hit Breakpoint 1, innermost (value="), "\(output)")
      for frame in ["in middle (value=", "in outer (value=", "in guest_main ()"] {
        #expect(output.contains(frame), "\(output)")
      }
      let rip = output.firstMatch(of: /rip +0x([0-9a-f]+)/)?.1
      let same = output.firstMatch(of: /RIP=0*([0-9a-f]+)/)?.1
      #expect(rip != nil && rip == same, "\(output)")
      #expect(output.contains("hit Breakpoint 2, middle (value="), "\(output)")
      let old = output.firstMatch(of: /Old value = (\d+)/).flatMap { Int($0.1) }
      let new = output.firstMatch(of: /New value = (\d+)/).flatMap { Int($0.1) }
      #expect(old.map { $0 + 7 } == new, "\(output)")
      #expect(output.contains("remainder 0\n"), "\(output)")
      #expect(output.contains("= 0x123456789a\n"), "\(output)")
      #expect(output.contains("went on: 1\n"), "\(output)")
      #expect(output.contains("watched grew from a million: 1\n"), "\(output)")
      #expect(try machine.status().state == "running")
    }

    @Test(
      "a monitor that is killed is started anew; the guest sees nothing", .timeLimit(.minutes(3)))
    func killed() throws {
      let scratch = try Scratch()
      let machine = try machine(Requirements.accelerators[0], in: scratch)
      defer { machine.end() }
      try #require(machine.hasSaid("isolation: ", times: 6), "\(machine.errors)")
      let old = try machine.pid("vmmonitor")
      kill(old, SIGKILL)
      try #require(machine.hasSaid("vmmonitor: isolation: ", times: 2), "\(machine.errors)")
      _ = try machine.pid("vmmonitor", not: old)
      let text = """
        import socket, sys
        s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1])
        f = s.makefile("rw"); f.write("info status\\n"); f.flush()
        f.readline(); line = f.readline(); assert "VM status: running" in line, line
        """
      let result = try Tool.result(Python.path, ["-c", text, scratch["hmp.sock"]], in: scratch)
      #expect(result.code == 0, "\(result.output)")
      #expect(try machine.status().state == "running")
    }
  }
}
