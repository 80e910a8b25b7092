// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

/// Python with the package qemu.qmp, as deploy/test makes it.
enum Python {
  static let path = Requirements.repository + "/.build/python/bin/python"
  static let isThere = Files.isExecutable(path)
  static let schema = Requirements.repository + "/protocols/qmp-schema.json"
  static let scripts = Requirements.repository + "/Tests/SystemTests/Monitor"
}

extension SystemTests {
  @Suite(
    "The monitor",
    .enabled(if: Python.isThere, "missing: .build/python with qemu.qmp (deploy/test makes it)"))
  struct MonitorTests {
    private func machine(
      _ accelerator: String, firmware: String? = nil, in scratch: Scratch
    ) throws -> RunningMachine {
      try FileManager.default.createDirectory(
        atPath: scratch["out"], withIntermediateDirectories: false)
      return try RunningMachine(
        MachineFile(
          accelerator: accelerator, cpus: 2, firmware: firmware,
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
      // A guest that reads a register of vmdev-piix for ever.
      _ = try scratch.assemble("reader")
      let machine = try machine(accelerator, firmware: "reader.bin", in: scratch)
      defer { machine.end() }
      try #require(machine.hasSaid("isolation: ", times: 6), "\(machine.errors)")
      let monitor = try machine.pid("vmmonitor")
      let core = try machine.pid("vmcore")
      func descriptors(_ process: Int32) -> Int {
        (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd").count) ?? 0
      }
      func residentPages(_ process: Int32) -> Int {
        let text = (try? String(contentsOfFile: "/proc/\(process)/statm", encoding: .utf8)) ?? ""
        return text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
      }
      func reads() throws -> (count: UInt64, at: UInt64) {
        let status = try machine.status()
        let piix = status.devices.first { $0.role == "piix" }
        return (piix?.live ?? 0, HostClock.monotonic())
      }
      func rate(from start: (count: UInt64, at: UInt64)) throws -> Double {
        let end = try reads()
        return Double(end.count - start.count) / Double(end.at - start.at) * 1e9
      }
      let start = try reads()
      HostClock.sleep(3_000_000_000)
      let quiet = try rate(from: start)
      let before = (descriptors(monitor), descriptors(core), residentPages(core))
      let clock = try machine.status().clock
      let middle = try reads()
      let result = try Tool.result(
        Python.path, [Python.scripts + "/garbage.py", scratch["qmp.sock"], scratch["hmp.sock"]],
        in: scratch, seconds: 200)
      #expect(result.code == 0, "\(result.output)\n\(machine.errors)")
      // The host's two processors are shared by all of them: a part of the rate is left.
      let disturbed = try rate(from: middle)
      #expect(quiet > 0 && disturbed > quiet / 10, "\(quiet) reads a second, then \(disturbed)")
      #expect(eventually(10) { descriptors(monitor) <= before.0 && descriptors(core) <= before.1 })
      #expect(residentPages(monitor) < 64 << 8, "more than 64 MiB")
      #expect(residentPages(core) < before.2 + (2 << 8), "the core has grown by 2 MiB")
      let status = try machine.status()
      #expect(status.state == "running" && status.clock > clock)
      #expect(try machine.pid("vmmonitor") == monitor, "it was started anew: \(machine.errors)")
    }

    @Test(
      "gdb sets breakpoints and a watchpoint, steps, shows frames and registers, and lets go",
      .timeLimit(.minutes(5)), .enabled(if: Tool.find("gdb") != nil))
    func debugger() throws {
      let scratch = try Scratch()
      try Self.buildDebugGuest(in: scratch)
      var file = MachineFile(
        accelerator: "soft", cpus: 2, monitor: ["gdb = \"unix:gdb.sock\""])
      file.extra = "[boot]\nkernel = \"kernel\""
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.hasLogged("Booting from ca00"), "\(machine.console)")
      HostClock.sleep(2_000_000_000)
      let output = try Self.debug("session.gdb", in: scratch, machine)
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
      #expect(output.contains("hit Hardware read watchpoint"), "\(output)")
      #expect(output.contains("hit Hardware access (read/write) watchpoint"), "\(output)")
      #expect(output.contains("xmm1 = 0x11223344556677889900aabbccddeeff\n"), "\(output)")
      #expect(output.contains("st0 = 2.5\n"), "\(output)")
      #expect(output.contains("gs_base = 0xffff800000001000\n"), "\(output)")
      #expect(output.contains("memory by physical address: 1\n"), "\(output)")
      #expect(try machine.status().state == "running")
    }

    @Test(
      "gdb does with KVM's debug registers what KVM can, and lets go", .timeLimit(.minutes(3)),
      .enabled(if: Tool.find("gdb") != nil && Requirements.hasKVM))
    func debuggerOfKVM() throws {
      let scratch = try Scratch()
      _ = try scratch.assemble("reader")
      let machine = try RunningMachine(
        MachineFile(
          accelerator: "kvm", cpus: 2, firmware: "reader.bin",
          monitor: ["gdb = \"unix:gdb.sock\""]), in: scratch)
      defer { machine.end() }
      try #require(machine.hasSaid("isolation: ", times: 6), "\(machine.errors)")
      HostClock.sleep(1_000_000_000)
      let output = try Self.debug("kvm.gdb", in: scratch, machine)
      for line in [
        "stepped: 1", "hit again: 1", "once around: 1", "software: 1", "rbx = 0x12345678",
        "went on: 1",
      ] {
        #expect(output.contains(line + "\n"), "\(line): \(output)")
      }
      // Four at most; the fifth is refused.
      #expect(output.contains("Cannot insert breakpoint 2."), "\(output)")
      let rip = output.firstMatch(of: /rip +0x([0-9a-f]+)/)?.1
      let same = output.firstMatch(of: /EIP=0*([0-9a-f]+)/)?.1
      #expect(
        rip.flatMap { UInt64($0, radix: 16) }.map { $0 & 0xFFFF }
          == same.flatMap { UInt64($0, radix: 16) }, "\(output)")
      #expect(try machine.status().state == "running")
    }

    @Test(
      "gdb follows the symbols of a guest on two vCPUs, and the guest goes on",
      .timeLimit(.minutes(5)), .enabled(if: Tool.find("gdb") != nil),
      arguments: Requirements.accelerators)
    func debuggerOfTwo(accelerator: String) throws {
      let scratch = try Scratch()
      try Self.buildDebugGuest("twocpus", in: scratch)
      try Tool.run(
        "objcopy", ["-O", "binary", scratch["debug.elf"], scratch["kernel"]], in: scratch)
      let symbols = try Tool.run("nm", [scratch["debug.elf"]], in: scratch)
      let start = try #require(symbols.firstMatch(of: /([0-9a-f]+) T start/)?.1)
      _ = try scratch.assemble("loader", "KERNEL=\"\(scratch["kernel"])\"", "START=0x\(start)")
      let machine = try RunningMachine(
        MachineFile(
          accelerator: accelerator, cpus: 2, firmware: "loader.bin",
          monitor: ["gdb = \"unix:gdb.sock\""]), in: scratch)
      defer { machine.end() }
      try #require(machine.hasSaid("isolation: ", times: 6), "\(machine.errors)")
      HostClock.sleep(3_000_000_000)
      let output = try Self.debug("twocpus.gdb", in: scratch, machine)
      for text in [
        "first_inner (value=", "in first_outer (value=", "in first_main ()", "stepped: 1\n",
        "symbol: first_inner + ", "second_inner (value=", "in second_outer (value=",
        "in second_main ()", "Value returned is", "the other stood: 1\n",
        "cr2 = 0x12345678\n", "CR2=0000000012345678", "cr4: 1\n", "es = 0\n", "fs = 0x2b\n",
        "ES =0000 ", "FS =002b ", "refused: $cr0", "refused: $cs", "refused: $es",
        "refused: $cr8", "refused: $efer", "both went on: 1\n",
      ] {
        #expect(output.contains(text), "\(text): \(output)")
      }
      #expect(!output.contains("taken: "), "\(output)")
      if accelerator == "soft" || Requirements.hasHardwareVirtualisation {
        #expect(output.contains("hit Hardware watchpoint"), "\(output)")
        #expect(output.contains("remainder 0\n"), "\(output)")
      }
      let threads = output.matches(of: /stopped in thread (\d)/).map { $0.1 }
      #expect(threads == ["1", "2"], "\(output)")
      // Both times the registers are those that `info registers` shows.
      let shown = output.matches(of: /rip +0x([0-9a-f]+)/).map { $0.1 }
      let same = output.matches(of: /RIP=0*([0-9a-f]+)/).map { $0.1 }
      #expect(shown.count == 2 && shown == Array(same.prefix(2)), "\(output)")
      #expect(try machine.status().state == "running")
    }

    @Test(
      "gdb looks at a kernel of Debian's while it boots on two vCPUs, and the boot goes on",
      .timeLimit(.minutes(5)),
      .enabled(if: Tool.find("gdb") != nil && LinuxGuests.missing.isEmpty))
    func debuggerOfLinux() throws {
      let scratch = try Scratch()
      _ = try LinuxGuests.build("Tests/SystemTests/Guests/stress.c", in: scratch)
      var file = LinuxGuests.machine(
        kernel: LinuxGuests.cloudKernel, cpus: 2, arguments: "nokaslr loglevel=7")
      file.monitor = ["gdb = \"unix:gdb.sock\""]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.hasSent("smp: Brought up 1 node, 2 CPUs", seconds: 100))
      let output = try Self.debug("linux.gdb", in: scratch, machine)
      #expect(output.contains("Thread 2 (CPU#1"), "\(output)")
      #expect(output.contains("hit: 1\n"), "\(output)")
      #expect(
        output.firstMatch(of: /hit Hardware access \(read\/write\) watchpoint/) != nil, "\(output)")
      #expect(output.firstMatch(of: /hit Hardware read watchpoint/) != nil, "\(output)")
      let rip = output.firstMatch(of: /rip +0x([0-9a-f]+)/)?.1
      let same = output.firstMatch(of: /RIP=0*([0-9a-f]+)/)?.1
      #expect(rip != nil && rip == same, "\(output)")
      #expect(output.contains("other vCPU stood: 1\n"), "\(output)")
      #expect(output.contains("paging: 1\n"), "\(output)")
      #expect(output.contains("same by physical address: 1\n"), "\(output)")
      let code = machine.exitCode(200)
      #expect(code == 0, "\(machine.errors)\n\(machine.serial.suffix(2000))")
      #expect(machine.serial.contains("STRESS-END"))
    }

    /// Runs gdb with a script of ours; what it says.
    private static func debug(
      _ name: String, in scratch: Scratch, _ machine: RunningMachine
    ) throws -> String {
      let script = try String(contentsOfFile: Python.scripts + "/" + name, encoding: .utf8)
        .replacing("FILE", with: scratch["debug.elf"])
        .replacing("SOCKET", with: scratch["gdb.sock"])
      let session = try scratch.write("session.gdb", script)
      let (code, output) = try Tool.result(
        "gdb", ["-nx", "-batch", "-x", session], in: scratch, seconds: 120)
      #expect(code == 0, "\(output)\n\(machine.errors)")
      return output
    }

    private static func buildDebugGuest(_ name: String = "debug", in scratch: Scratch) throws {
      let source = "\(Requirements.repository)/Tests/SystemTests/Guests/\(name).c"
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
