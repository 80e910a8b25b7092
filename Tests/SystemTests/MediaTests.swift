// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

extension Scratch {
  /// Makes a bootable disc with GRUB, whose shell is on the serial port, and one more file.
  func disc(_ name: String, holding file: String, _ text: String) throws {
    let folder = self["\(name).d"]
    try FileManager.default.createDirectory(
      atPath: folder + "/boot/grub", withIntermediateDirectories: true)
    try write("\(name).d/\(file)", text)
    try write(
      "\(name).d/boot/grub/grub.cfg",
      """
      serial --unit=0 --speed=115200
      terminal_input serial
      terminal_output serial
      echo a disc with \(file)
      """)
    try Tool.run(
      "grub-mkrescue", ["-d", "/usr/lib/grub/i386-pc", "-o", self[name], folder], in: self)
  }
}

extension SystemTests {
  @Suite("Discs, and disks of a host that fails")
  struct MediaTests {
    /// Types a line into GRUB's shell; what it says up to the next prompt.
    private func ask(_ line: String, _ machine: RunningMachine) throws -> String {
      let before = machine.serialBytes.count
      let prompts = machine.serial.components(separatedBy: "grub> ").count
      try machine.type(line + "\r")
      try #require(
        machine.hasSent("grub> ", times: prompts, seconds: 60), "\(machine.serial.suffix(800))")
      return String(decoding: machine.serialBytes[before...], as: UTF8.self)
    }

    /// Waits until GRUB's cache of a disk is too old for it: two seconds.
    private func forget() { HostClock.sleep(3_000_000_000) }

    @Test(
      "a disc boots, and the guest sees it go and another one come",
      .timeLimit(.minutes(10)), arguments: Requirements.accelerators)
    func discs(accelerator: String) throws {
      let scratch = try Scratch()
      try scratch.disc("one.iso", holding: "first.txt", "one\n")
      try scratch.disc("two.iso", holding: "second.txt", "two\n")
      var file = MachineFile(accelerator: accelerator)
      file.drives = [("ide1.0", "one.iso", "raw")]
      file.driveLines = ["media = \"cdrom\""]
      file.serial = "stdio"
      file.extra = "[boot]\norder = [\"cdrom\"]"
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(
        machine.hasSent("grub> ", seconds: 400), "\(machine.serial.suffix(800)) \(machine.errors)")
      #expect(machine.serial.contains("a disc with first.txt"))
      #expect(try ask("cat (cd)/first.txt", machine).contains("one\n"))

      #expect(try machine.control(["eject"], "ide1.0").code == 0)
      #expect(machine.hasSaid("ide1.0: the disc was taken out"))
      forget()
      #expect(try !ask("cat (cd)/first.txt", machine).contains("one\n"))

      // A writer keeps an image to itself; a folder and a short file are none.
      let second = try Files.open(scratch["two.iso"], .readWrite)
      try ImageLock.take(second, isReadOnly: false)
      let locked = try machine.control(["change"], "ide1.0", scratch["two.iso"])
      #expect(locked.code == 1 && locked.output.contains("open for writing in another process"))
      withExtendedLifetime(second) {}
      for bad in [scratch.path, "/dev/null", scratch["nothing"]] {
        #expect(try machine.control(["change"], "ide1.0", bad).code == 1)
      }
      #expect(try machine.control(["change"], "ide0.0", scratch["one.iso"]).code == 1)
      #expect(try machine.control(["eject"], "ide7.0").code == 64)
    }

    @Test(
      "a changed disc stays when the drive's process is killed", .timeLimit(.minutes(10)))
    func changed() throws {
      let scratch = try Scratch()
      try scratch.disc("one.iso", holding: "first.txt", "one\n")
      try scratch.disc("two.iso", holding: "second.txt", "two\n")
      var file = MachineFile(accelerator: "soft")
      file.drives = [("ide1.0", "one.iso", "raw")]
      file.driveLines = ["media = \"cdrom\""]
      file.serial = "stdio"
      file.extra = "[boot]\norder = [\"cdrom\"]"
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(
        machine.hasSent("grub> ", seconds: 400), "\(machine.serial.suffix(800)) \(machine.errors)")
      let result = try machine.control(["change"], "ide1.0", scratch["two.iso"])
      #expect(result.code == 0, "\(result.output)")
      #expect(machine.hasSaid("ide1.0: another disc is in the drive"))
      // The first read gets the unit attention, and GRUB keeps what it made of that.
      forget()
      #expect(try !ask("cat (cd)/second.txt", machine).contains("two\n"))
      forget()
      #expect(try ask("cat (cd)/second.txt", machine).contains("two\n"))
      try machine.killDevice("vmdev-ide")
      forget()
      #expect(try ask("cat (cd)/second.txt", machine).contains("two\n"))
      #expect(machine.restarts("vmdev-ide") == 1)
      #expect(try machine.control(["isolation"]).code == 0)
      #expect(try machine.control(["stop"]).code == 0)
      #expect(machine.exitCode() == 0, "\(machine.errors)")
    }

    @Test("a drive may start empty, and get its disc later", .timeLimit(.minutes(10)))
    func empty() throws {
      let scratch = try Scratch()
      try scratch.disc("one.iso", holding: "first.txt", "one\n")
      var file = MachineFile()
      file.serial = "stdio"
      file.extra = """
        [boot]
        order = ["cdrom"]
        [[drive]]
        slot = "ide1.0"
        media = "cdrom"
        """
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.isUp(), "\(machine.errors)")
      try #require(machine.hasLogged("No bootable device", seconds: 60), "\(machine.console)")
      #expect(try machine.control(["change"], "ide1.0", scratch["one.iso"]).code == 0)
      #expect(try machine.control(["reset"]).code == 0)
      #expect(machine.hasSent("a disc with first.txt", seconds: 400), "\(machine.console)")
    }

    @Test(
      "a full host holds the machine, and nothing is lost when it goes on",
      .timeLimit(.minutes(5)), .enabled(if: Requirements.isRoot, "only root may mount"))
    func full() throws {
      let scratch = try Scratch()
      _ = try scratch.assemble("disk", "ROUNDS=60", "FAST")
      var guest = DiskGuest(program: scratch.bytes("disk.bin"), rounds: 60)
      try scratch.write("base", guest.expected)
      let small = scratch["small"]
      try FileManager.default.createDirectory(atPath: small, withIntermediateDirectories: false)
      try Tool.run(
        "mount", ["-t", "tmpfs", "-o", "size=700k,mode=755", "bulkhead-test", small], in: scratch)
      defer { _ = try? Tool.run("umount", ["-l", small], in: scratch) }
      try Tool.run(
        "qemu-img",
        [
          "create", "-q", "-f", "qcow2", "-F", "raw", "-b", scratch["base"], small + "/disk",
        ], in: scratch)
      var file = MachineFile()
      file.drives = [("ide0.0", "small/disk", "qcow2")]
      file.driveLines = ["backing = [\"\(scratch["base"])\"]"]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      for _ in 0..<2 {
        #expect(machine.waits(60) { (try? machine.status().state) == "paused" })
        let reason = try machine.status().reason
        #expect(reason.contains("ide0.0") && reason.contains("no space left"), "\(reason)")
        // Nothing has changed: it is held again.
        #expect(try machine.control(["resume"]).code == 0)
      }
      #expect(machine.waits(60) { (try? machine.status().state) == "paused" })
      try Tool.run("mount", ["-o", "remount,size=64m", small], in: scratch)
      #expect(try machine.control(["resume"]).code == 0)
      #expect(machine.exitCode() == exitCode(of: 0x10), "\(machine.errors)\n\(machine.serial)")

      guest.run()
      try scratch.write("after.raw", guest.expected)
      let check = try Tool.run("qemu-img", ["check", small + "/disk"], in: scratch)
      #expect(check.contains("No errors"), "\(check)")
      try Tool.run(
        "qemu-img", ["compare", "-f", "raw", "-F", "qcow2", scratch["after.raw"], small + "/disk"],
        in: scratch)
    }

    @Test(
      "a sector that the host cannot read is an error, zeroes or a halt, as the machine file says",
      .timeLimit(.minutes(2)), arguments: ["report", "ignore", "stop"])
    func unreadable(policy: String) throws {
      let scratch = try Scratch()
      let guest = try scratch.assemble("badsector")
      try scratch.write("raw", scratch.bytes("badsector.bin"))
      _ = guest
      try Files.open(scratch["raw"], .readWrite).truncate(to: 8 << 20)
      // The sectors from 128 on are in the second cluster.
      try Tool.run(
        "qemu-io", ["-f", "raw", "-c", "write -P 1 63k 4k", scratch["raw"]], in: scratch)
      try Tool.run(
        "qemu-img", ["convert", "-O", "qcow2", scratch["raw"], scratch["disk"]], in: scratch)
      var bytes = scratch.bytes("disk")
      func number(_ place: Int) -> Int {
        bytes[place..<place + 8].reduce(0) { $0 << 8 | Int($1) } & 0x00FF_FFFF_FFFF_FE00
      }
      // The second entry of the first L2 table gets an address between two clusters.
      let table = number(number(40))
      bytes[table + 8 + 6] |= 0x02
      try scratch.write("disk", bytes)

      var file = MachineFile()
      file.drives = [("ide0.0", "disk", "qcow2")]
      file.driveLines = ["rerror = \"\(policy)\""]
      file.monitor = ["qmp = \"unix:qmp.sock\""]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      if policy == "stop" {
        #expect(machine.waits(60) { (try? machine.status().state) == "paused" })
        #expect(try machine.status().reason.contains("read at sector 128"), "\(machine.errors)")
        #expect(machine.serial == "")
        guard Python.isThere else { return }
        // The request is done again, and fails again.
        let event = try Tool.result(
          Python.path,
          [
            Python.scripts + "/events.py", scratch["qmp.sock"], Python.schema, "cont",
            "BLOCK_IO_ERROR", "device=ide0-hd0", "operation=read", "action=stop",
            "nospace=false",
          ], in: scratch)
        #expect(event.code == 0, "\(event.output)")
        #expect(event.output.contains("read at sector 128"), "\(event.output)")
        return
      }
      #expect(machine.exitCode() == exitCode(of: 0x10), "\(machine.errors)\n\(machine.serial)")
      // Sectors, status, error, address.
      #expect(
        machine.serial
          == (policy == "report"
            ? " 0002 0051 0040 0000 0000 0080\n" : " 0004 0050 0000 0000 0000 0081\n"))
    }
  }
}
