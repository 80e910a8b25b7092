// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

extension SystemTests {
  @Suite(
    "Hardware, as an operator reaches it",
    .enabled(if: Python.isThere, "missing: .build/python with qemu.qmp (deploy/test makes it)"))
  struct HardwareTests {
    private static let uuid = "6f2a1c3e-58b4-4d0f-9a77-0c1d2e3f4a5b"

    @Test(
      "ports, controllers, drives, discs, keys, the mouse and a dump are reached by QMP",
      .timeLimit(.minutes(5)), .enabled(if: Tool.find("gdb") != nil),
      arguments: Requirements.accelerators)
    func hardware(accelerator: String) throws {
      let scratch = try Scratch()
      for folder in ["out", "discs"] {
        try FileManager.default.createDirectory(
          atPath: scratch[folder], withIntermediateDirectories: false)
      }
      try scratch.write("discs/a.iso", [UInt8](repeating: 7, count: 1 << 20))
      try scratch.write("discs/short", [UInt8](repeating: 7, count: 100))
      try FileManager.default.createSymbolicLink(
        atPath: scratch["discs/link.iso"], withDestinationPath: "/etc/passwd")
      try scratch.write("disk.raw", [UInt8](repeating: 0, count: 1 << 20))
      var file = MachineFile(
        accelerator: accelerator,
        monitor: [
          "qmp = \"unix:qmp.sock\"", "output = \"\(scratch["out"])\"",
          "media = \"\(scratch["discs"])\"",
        ])
      file.machine = ["uuid = \"\(Self.uuid)\""]
      file.drives = [("ide0.0", "disk.raw", "raw")]
      file.driveLines = ["cache = \"writethrough\""]
      file.extra = "[[drive]]\nslot = \"ide1.0\"\nmedia = \"cdrom\""
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.hasLogged("No bootable device", seconds: 100), "\(machine.console)")
      let result = try Tool.result(
        Python.path,
        [
          Python.scripts + "/hardware.py", scratch["qmp.sock"], Python.schema, scratch["out"],
          scratch["discs"], accelerator, Self.uuid,
        ], in: scratch, seconds: 150)
      #expect(result.code == 0, "\(result.output)\n\(machine.errors)")
      #expect(machine.exitCode(20) == 0, "\(machine.errors)")
    }

    @Test(
      "Linux finds the panic port by ACPI and says there that it has panicked",
      .timeLimit(.minutes(5)),
      .enabled(
        if: LinuxGuests.missing.isEmpty && FileManager.default.fileExists(atPath: Self.modules),
        "missing: a kernel with its modules (deploy/test fetches both)"))
    func linuxPanic() throws {
      let scratch = try Scratch()
      try Tool.run(
        "gcc",
        [
          "-O2", "-static", "\(Requirements.repository)/Tests/SystemTests/Guests/panic.c", "-o",
          scratch["program"],
        ], in: scratch)
      try Tool.run(
        "\(Requirements.repository)/deploy/make-linux-initrd",
        [
          scratch["initrd.img"], scratch["program"], Self.modules + "/pvpanic.ko",
          Self.modules + "/pvpanic-mmio.ko",
        ], in: scratch)
      var file = LinuxGuests.machine(kernel: LinuxGuests.cloudKernel, cpus: 1, arguments: "")
      file.machine = ["on-panic = \"pause\""]
      file.monitor = ["qmp = \"unix:qmp.sock\""]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      let event = try Tool.result(
        Python.path,
        [
          Python.scripts + "/events.py", scratch["qmp.sock"], Python.schema, "", "GUEST_PANICKED",
          "action=pause",
        ], in: scratch, seconds: 110)
      #expect(event.code == 0, "\(event.output)\n\(machine.serial.suffix(2000))")
      #expect(machine.waits(20) { (try? machine.status().state) == "paused" })
      #expect(machine.serial.contains("PANIC-NOW"), "\(machine.serial.suffix(2000))")
    }

    private static let modules =
      "\(Requirements.repository)/.build/guests/modules/kernel/drivers/misc/pvpanic"

    @Test(
      "a guest's panic is an event, and holds or ends the machine as the machine file says",
      .timeLimit(.minutes(2)), arguments: ["run", "pause", "stop"])
    func panic(policy: String) throws {
      let scratch = try Scratch()
      _ = try scratch.assemble("panic")
      var file = MachineFile(
        firmware: "panic.bin", monitor: ["qmp = \"unix:qmp.sock\""])
      file.machine = ["on-panic = \"\(policy)\""]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      switch policy {
      case "stop":
        #expect(machine.exitCode(60) == 2, "\(machine.errors)")
        #expect(machine.errors.contains("the guest has panicked"), "\(machine.errors)")
      case "pause":
        #expect(machine.waits(60) { (try? machine.status().state) == "paused" })
        #expect(try machine.status().reason == "the guest has panicked")
        // It panics for ever.
        let event = try Tool.result(
          Python.path,
          [
            Python.scripts + "/events.py", scratch["qmp.sock"], Python.schema, "cont",
            "GUEST_PANICKED", "action=pause",
          ], in: scratch)
        #expect(event.code == 0, "\(event.output)")
        #expect(machine.waits(20) { (try? machine.status().state) == "paused" })
      default:
        let event = try Tool.result(
          Python.path,
          [
            Python.scripts + "/events.py", scratch["qmp.sock"], Python.schema, "",
            "GUEST_PANICKED", "action=run",
          ], in: scratch)
        #expect(event.code == 0, "\(event.output)")
        #expect(try machine.status().state == "running")
      }
    }
  }
}
