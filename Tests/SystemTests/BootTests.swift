// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

extension SystemTests {
  @Suite("Firmware and boot loader")
  struct BootTests {
    @Test(
      "SeaBIOS shows its banner on the debug console and on the screen", .timeLimit(.minutes(5)),
      arguments: [1, 2], Requirements.accelerators)
    func seaBIOS(cpus: Int, accelerator: String) throws {
      let scratch = try Scratch()
      let machine = try RunningMachine(
        MachineFile(accelerator: accelerator, cpus: cpus), in: scratch)
      defer { machine.end() }
      #expect(machine.hasLogged("SeaBIOS (version"), "\(machine.errors)")
      #expect(machine.hasLogged("Found \(cpus) cpu(s)"))
      #expect(try machine.shows("SeaBIOS (version"))
      // Nothing to start from: the firmware says so at its end.
      #expect(try machine.shows("No bootable device"))
      let picture = try machine.control(["screendump"], scratch["screen.png"])
      #expect(picture.code == 0, "\(picture.output)")
      let size = try Tool.run(
        "convert", [scratch["screen.png"], "-format", "%w %h %k", "info:"], in: scratch)
      let numbers = size.split(separator: " ").compactMap { Int($0) }
      #expect(numbers.prefix(2) == [720, 400])
      #expect(numbers.last ?? 0 >= 2, "the picture has one colour")
    }

    @Test(
      "a guest that waits for interrupts uses next to no time of the host",
      .timeLimit(.minutes(2)), arguments: Requirements.accelerators)
    func idle(accelerator: String) throws {
      let scratch = try Scratch()
      let file = MachineFile(
        accelerator: accelerator, cpus: 2, firmware: try scratch.assemble("idle"))
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.isUp(), "\(machine.errors)")
      let isRunning = eventually(10) { (try? machine.status().state) == "running" }
      try #require(isRunning)
      HostClock.sleep(300_000_000)
      let core = try machine.pid("vmcore")
      let before = try processorTime(core)
      HostClock.sleep(1_000_000_000)
      // In ticks of 10 ms: a vCPU that spins takes a hundred.
      #expect(try processorTime(core) - before <= 10)
    }

    /// The time of the processor that a process has used, in ticks of 10 ms.
    private func processorTime(_ pid: Int32) throws -> Int {
      let text = try String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)
      let fields = (text.split(separator: ")").last ?? "").split(separator: " ")
      return (Int(fields[11]) ?? 0) + (Int(fields[12]) ?? 0)
    }

    @Test(
      "GRUB starts from a qcow2 disk, on the serial port and on the screen, and obeys",
      .timeLimit(.minutes(8)), arguments: Requirements.accelerators)
    func grub(accelerator: String) throws {
      let scratch = try Scratch()
      try scratch.makeGRUBDisk("grub.qcow2")
      var file = MachineFile(accelerator: accelerator, serial: "stdio")
      file.drives = [("ide0.0", "grub.qcow2", "qcow2")]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      #expect(machine.hasSent("GNU GRUB", seconds: 240), "\(machine.errors)")
      #expect(try machine.shows("GNU GRUB"))
      #expect(machine.hasSent("Press c for the GRUB shell"))
      #expect(try machine.shows("Press c for the GRUB shell"))
      try machine.type("c")
      #expect(machine.hasSent("grub>"))
      #expect(try machine.shows("grub>"))
      try machine.type("set answer=4711\r")
      #expect(machine.hasSent("grub>", times: 2))
      // The answer differs from what the shell echoes.
      try machine.type("echo hello-$answer\r")
      #expect(machine.hasSent("hello-4711"))
      #expect(try machine.shows("hello-4711"))
      try machine.type("ls\r")
      #expect(machine.hasSent("(hd0,msdos1)"), "\(machine.serial.suffix(500))")
      // New processes of all devices serve the same shell.
      for role in RunningMachine.roles.dropFirst() { try machine.killDevice(role) }
      try machine.type("echo again-$answer\r")
      #expect(machine.hasSent("again-4711"), "\(machine.errors)")
      #expect(try machine.shows("again-4711"))
      let before = machine.serial.components(separatedBy: "grub.cfg").count
      try machine.type("ls (hd0,msdos1)/boot/grub\r")
      #expect(machine.hasSent("grub.cfg", times: before), "\(machine.serial.suffix(500))")
      let stopped = try machine.control(["stop"])
      #expect(stopped.code == 0)
      #expect(machine.exitCode(20) == 0)
      #expect(
        try Tool.run("qemu-img", ["check", scratch["grub.qcow2"]], in: scratch)
          .contains("No errors"))
    }
  }
}

extension Scratch {
  /// Makes the demo disk.
  func makeGRUBDisk(_ name: String) throws {
    try Tool.run("\(Requirements.repository)/deploy/make-demo-disk", [self[name]], in: self)
  }
}
