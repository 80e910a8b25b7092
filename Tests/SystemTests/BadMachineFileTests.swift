// SPDX-License-Identifier: Apache-2.0

import Foundation
import KVM
import LinuxSystem
import Monitor
import Testing

/// A machine file that the launcher must refuse.
struct BadMachine: Sendable, CustomTestStringConvertible {
  /// What comes behind the name.
  var text: String
  /// The end of the error line, or a part of it, where the rest depends on the host.
  var error: String

  init(_ text: String, _ error: String) {
    self.text = text
    self.error = error
  }

  var testDescription: String { error }

  static func drive(_ text: String, _ error: String) -> BadMachine {
    BadMachine("[[drive]]\nslot = \"ide0.0\"\n" + text, error)
  }
}

extension SystemTests {
  @Suite("Machine files that are wrong")
  struct BadMachineFileTests {
    static let cases: [BadMachine] = [
      BadMachine("colour = 1", ":2:1: colour: unknown key"),
      BadMachine("[machine]\ncpu = 2", ":3:1: machine.cpu: unknown key; did you mean cpus?"),
      BadMachine("[machine]\ncpus = 0", ":3:8: machine.cpus: 0 is out of range"),
      BadMachine("[machine]\ncpus = 256", ":3:8: machine.cpus: 256 is out of range"),
      BadMachine("[machine]\ncpus = \"2\"", ":3:8: machine.cpus: must be an integer"),
      BadMachine("[machine]\nmemory = \"0MiB\"", ":3:10: machine.memory: "),
      BadMachine("[machine]\nmemory = \"3MiB\"", ":3:10: machine.memory: "),
      BadMachine("[machine]\nmemory = 256", ":3:10: machine.memory: must be a string"),
      BadMachine(
        "[machine]\nmemory = \"16TiB\"", ":3:10: machine.memory: 16TiB, but this host has"),
      BadMachine("[machine]\naccelerator = \"xen\"", ":3:15: machine.accelerator: \"xen\""),
      BadMachine("[machine]\naccelerator = \"none\"", ":3:15: machine.accelerator: "),
      BadMachine("[machine]\nfirmware = \"none.bin\"", ":3:12: machine.firmware: "),
      BadMachine("[machine]\nfirmware = \"folder\"", ":3:12: machine.firmware: "),
      BadMachine("[machine]\nfirmware = \"short.bin\"", ":3:12: machine.firmware: "),
      BadMachine("[machine]\nfirmware = \"empty\"", ":3:12: machine.firmware: "),
      BadMachine("[machine]\nfirmware = \"pipe\"", ":3:12: machine.firmware: "),
      BadMachine("[machine]\nvga-bios = \"none.bin\"", ":3:12: machine.vga-bios: "),
      BadMachine("[machine]\nvga-bios = \"odd.bin\"", ":3:12: machine.vga-bios: "),
      BadMachine("[boot]\norder = [\"floppy\"]", ":3:10: boot.order[0]: "),
      BadMachine("[boot]\norder = [\"disk\", \"disk\"]", ":3:18: boot.order[1]: "),
      BadMachine("[boot]\nkernel = \"short.bin\"", ":3:10: boot.kernel: "),
      BadMachine("[boot]\nmenu = \"yes\"", ":3:8: boot.menu: must be a boolean"),
      .drive("format = \"raw\"", "drive[0].image: required but missing"),
      .drive("image = \"disk\"", "drive[0].format: required but missing"),
      .drive("image = \"none\"\nformat = \"raw\"", ":4:9: drive[0].image: "),
      .drive("image = \"folder\"\nformat = \"raw\"", ":4:9: drive[0].image: "),
      .drive("image = \"pipe\"\nformat = \"raw\"", ":4:9: drive[0].image: "),
      .drive("image = \"disk\"\nformat = \"vmdk\"", ":5:10: drive[0].format: \"vmdk\""),
      .drive("image = \"disk\"\nformat = \"raw\"\nreadonly = 1", ":6:12: drive[0].readonly: "),
      .drive(
        "image = \"disk\"\nformat = \"raw\"\nbacking = \"same-folder\"", ":6:1: drive[0].backing: "
      ),
      .drive(
        "image = \"disk\"\nformat = \"raw\"\n[[drive]]\nslot = \"ide0.0\"\nimage = \"short.bin\"\n"
          + "format = \"raw\"", ":7:8: drive[1].slot: "),
      .drive(
        "image = \"disk\"\nformat = \"raw\"\n[[drive]]\nslot = \"ide0.1\"\nimage = \"disk\"\n"
          + "format = \"raw\"", ":8:9: drive[1].image: "),
      .drive(
        "image = \"disk\"\nformat = \"raw\"\n[[drive]]\nslot = \"ide0.1\"\nimage = \"link\"\n"
          + "format = \"raw\"", ":8:9: drive[1].image: "),
      BadMachine(
        "[[drive]]\nslot = \"ide2.0\"\nimage = \"disk\"\nformat = \"raw\"",
        ":3:8: drive[0].slot: \"ide2.0\" is not a slot"),
      BadMachine("[[serial]]\nbackend = \"tty\"", ":3:11: serial[0].backend: "),
      BadMachine(
        "[[serial]]\nbackend = \"stdio\"\n[debug]\nconsole = \"stdio\"", ":5:11: debug.console: "),
      BadMachine("[[serial]]\nbackend = \"file:none/log\"", ":3:11: serial[0].backend: "),
      BadMachine("[[serial]]\nbackend = \"file:folder\"", ":3:11: serial[0].backend: "),
      BadMachine("[[serial]]\nbackend = \"unix:none/sock\"", ":3:11: serial[0].backend: "),
      BadMachine("[[serial]]\nbackend = \"connect:none\"", ":3:11: serial[0].backend: "),
      BadMachine(
        String(repeating: "[[serial]]\nbackend = \"null\"\n", count: 5), "serial: "),
      BadMachine("[display]\nvnc = \"127.0.0.1:5900\"", ":3:1: display.vnc: not supported"),
      BadMachine("[monitor]\nhmp = \"pty\"", "monitor.hmp: "),
      BadMachine(
        "[monitor]\ncontrol = \"unix:none/control.sock\"", "monitor.control: "),
      BadMachine("[debug]\nexit-port = 65536", ":3:13: debug.exit-port: 65536 is out of range"),
      BadMachine("[debug]\nexit-port = 0x3F8", ":3:13: debug.exit-port: "),
      BadMachine("[isolation]\nlevel = \"lax\"", ":3:9: isolation.level: \"lax\""),
      BadMachine("[device.nvme]\ndma = \"shared\"", ":2:9: device.nvme: unknown key"),
      BadMachine("[device.ide]\ndma = \"shared\"", ":3:7: device.ide.dma: "),
      BadMachine("[device.vga]\ndeadline = \"1ms\"", ":3:12: device.vga.deadline: "),
      BadMachine("[device.vga]\non-fault = \"ignore\"", ":3:12: device.vga.on-fault: "),
      BadMachine("[machine\ncpus = 1", ":2:"),
      BadMachine("[machine]\ncpus = 1\ncpus = 2", ":4:1: "),
    ]

    /// A folder with the launcher and, in the place of what it starts, a program that leaves a mark.
    private func prepare() throws -> Scratch {
      let scratch = try Scratch()
      // The children may be other users.
      try scratch.allow(0o777, scratch.path)
      try FileManager.default.copyItem(
        atPath: Built.path("vmlaunch"), toPath: scratch["vmlaunch"])
      let mark = try scratch.assemble("mark", "MARK='\(scratch.path)/started'")
      try scratch.allow(0o755, mark)
      for role in RunningMachine.roles {
        try FileManager.default.copyItem(atPath: mark, toPath: scratch[role])
      }
      try scratch.write("disk", [UInt8](repeating: 0, count: 1 << 20))
      try scratch.write("short.bin", [UInt8](repeating: 0, count: 1000))
      try scratch.write("odd.bin", [UInt8](repeating: 0, count: 700))
      try scratch.write("empty", [])
      try scratch.write("precious.log", "precious")
      try FileManager.default.createDirectory(
        atPath: scratch["folder"], withIntermediateDirectories: false)
      try FileManager.default.createSymbolicLink(
        atPath: scratch["link"], withDestinationPath: "disk")
      try Tool.run("mkfifo", [scratch["pipe"]], in: scratch)
      return scratch
    }

    /// Starts the launcher on a file that is wrong, and checks that it only says so.
    private func expectRefusal(_ bad: BadMachine, in scratch: Scratch) throws {
      let file = try scratch.write("m.toml", "name = \"refused\"\n\(bad.text)\n")
      let before = Set(try FileManager.default.contentsOfDirectory(atPath: scratch.path))
      let (code, output) = try Tool.result(scratch["vmlaunch"], [file], in: scratch, seconds: 20)
      #expect(code == 1, "\(output)")
      let lines = output.split(separator: "\n")
      #expect(lines.count == 1, "\(output)")
      #expect(output.hasPrefix(file + ":"), "\(output)")
      #expect(output.contains(bad.error), "\(output)")
      #expect(output.utf8.count < 600, "\(output)")
      let after = Set(try FileManager.default.contentsOfDirectory(atPath: scratch.path))
      #expect(after == before)
    }

    @Test("is refused in one line, and nothing starts", .timeLimit(.minutes(1)), arguments: cases)
    func refused(bad: BadMachine) throws {
      let scratch = try prepare()
      try expectRefusal(bad, in: scratch)
    }

    @Test("a good machine file starts all processes, which these tests would see")
    func good() throws {
      let scratch = try prepare()
      let file = try scratch.write(
        "m.toml", "name = \"good\"\n[monitor]\ncontrol = \"unix:control.sock\"\n")
      let (code, _) = try Tool.result(scratch["vmlaunch"], [file], in: scratch, seconds: 30)
      #expect(code == 2)
      #expect(scratch.exists("started"))
    }

    @Test("a file that cannot be read is refused", .timeLimit(.minutes(1)))
    func unreadable() throws {
      let scratch = try prepare()
      for file in ["none.toml", "folder"] {
        let (code, output) = try Tool.result(
          scratch["vmlaunch"], [scratch[file]], in: scratch, seconds: 20)
        #expect(code == 1)
        #expect(output.split(separator: "\n").count == 1)
        #expect(output.contains(scratch[file]) && output.contains("cannot be read"), "\(output)")
      }
      #expect(!scratch.exists("started"))
    }

    @Test("no file is emptied when another key is wrong", .timeLimit(.minutes(1)))
    func precious() throws {
      let scratch = try prepare()
      try expectRefusal(
        BadMachine(
          "[[serial]]\nbackend = \"file:precious.log\"\n[debug]\nconsole = \"file:none/log\"",
          ":5:11: debug.console: "), in: scratch)
      #expect(scratch.text("precious.log") == "precious")
    }

    @Test("an image that QEMU writes is in use", .timeLimit(.minutes(1)))
    func inUse() throws {
      let scratch = try prepare()
      let holder = Process()
      let input = Pipe()
      holder.executableURL = URL(fileURLWithPath: try #require(Tool.find("qemu-io")))
      holder.arguments = ["-f", "raw", scratch["disk"]]
      holder.standardInput = input
      let output = Pipe()
      holder.standardOutput = output
      holder.standardError = FileHandle.nullDevice
      try holder.run()
      defer {
        kill(holder.processIdentifier, SIGKILL)
        holder.waitUntilExit()
      }
      // Its prompt says that it has the image.
      #expect(!output.fileHandleForReading.availableData.isEmpty)
      try expectRefusal(
        .drive("image = \"disk\"\nformat = \"raw\"", ":4:9: drive[0].image: "), in: scratch)
      let (_, text) = try Tool.result(
        scratch["vmlaunch"], [scratch["m.toml"]], in: scratch, seconds: 20)
      #expect(text.contains("in use"), "\(text)")
    }

    @Test("an image of a running machine is in use, also for QEMU", .timeLimit(.minutes(1)))
    func inUseByMachine() throws {
      let scratch = try prepare()
      var file = MachineFile(firmware: try scratch.assemble("idle"))
      file.drives = [("ide0.0", "disk", "raw")]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.isUp(), "\(machine.errors)")
      try expectRefusal(
        .drive("image = \"disk\"\nformat = \"raw\"", "in use by another process"), in: scratch)
      let qemu = try Tool.result(
        "qemu-io", ["-f", "raw", "-c", "write 0 512", scratch["disk"]], in: scratch)
      #expect(qemu.code != 0 && qemu.output.contains("lock"), "\(qemu.output)")
      // The same machine file a second time: its socket is taken.
      var other = MachineFile(firmware: scratch["idle.bin"])
      other.serial = "null"
      let again = try scratch.write(
        "again.toml",
        other.text(name: "again").replacingOccurrences(
          of: "file:console.log", with: "null"))
      let (code, output) = try Tool.result(
        Built.path("vmlaunch"), [again], in: scratch, seconds: 20)
      #expect(code == 1)
      #expect(output.contains("is running already"), "\(output)")
      #expect(try machine.status().state == "running")
    }

    @Test("more CPUs than KVM has are refused with both numbers", .timeLimit(.minutes(1)))
    func tooManyCPUs() throws {
      let most = try KVMSystem(descriptor: Files.open("/dev/kvm", .readWrite)).maximumVCPUs
      let scratch = try prepare()
      if most < 255 {
        try expectRefusal(
          BadMachine(
            "[machine]\ncpus = 255",
            "255 virtual CPUs, but KVM here gives a machine at most \(most)"),
          in: scratch)
      } else {
        // The machine file's own limit is the smaller one.
        try expectRefusal(
          BadMachine(
            "[machine]\ncpus = \(most + 1)", "\(most + 1) is out of range; accepted: 1 to 255"),
          in: scratch)
      }
    }
  }
}
