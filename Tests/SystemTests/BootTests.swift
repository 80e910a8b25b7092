// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

extension SystemTests {
  @Suite("Firmware and boot loader")
  struct BootTests {
    @Test(
      "SeaBIOS shows its banner on the debug console and on the screen", .timeLimit(.minutes(5)),
      arguments: [1, 2])
    func seaBIOS(cpus: Int) throws {
      let scratch = try Scratch()
      let machine = try RunningMachine(MachineFile(cpus: cpus), in: scratch)
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
      "GRUB starts from a qcow2 disk, on the serial port and on the screen, and obeys",
      .timeLimit(.minutes(8)))
    func grub() throws {
      let scratch = try Scratch()
      try scratch.makeGRUBDisk("grub.qcow2")
      var file = MachineFile(serial: "stdio")
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
    let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent().path
    try Tool.run("\(repository)/deploy/make-demo-disk", [self[name]], in: self)
  }
}
