// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Testing

extension SystemTests {
  @Suite("Snapshots of a running machine, and overlays of its disks")
  struct SnapshotTests {
    /// Makes the guest's disk, and the machine file for it.
    private func prepare(
      _ accelerator: String, format: String = "qcow2", in scratch: Scratch
    ) throws -> MachineFile {
      try scratch.disk("raw", try scratch.assemble("snapshot"))
      try Tool.run(
        "qemu-img", ["convert", "-O", format, scratch["raw"], scratch["disk"]], in: scratch)
      try FileManager.default.createDirectory(
        atPath: scratch["states"], withIntermediateDirectories: false)
      var file = MachineFile(accelerator: accelerator, cpus: 2)
      file.drives = [("ide0.0", "disk", format)]
      file.serial = "stdio"
      file.monitor = ["snapshots = \"states\"", "qmp = \"unix:qmp.sock\""]
      return file
    }

    private func start(_ file: MachineFile, in scratch: Scratch) throws -> RunningMachine {
      let machine = try RunningMachine(file, in: scratch)
      try #require(
        machine.hasSent("ready\n", seconds: 100), "\(machine.errors)\n\(machine.console)")
      return machine
    }

    /// Sends the guest a byte; what it says of its two numbers.
    private func ask(_ key: String, _ machine: RunningMachine) throws -> String {
      let count = machine.serial.count { $0 == ">" }
      try machine.type(key)
      let hasAnswered = machine.waits(60) { machine.serial.count { $0 == ">" } > count }
      try #require(hasAnswered, "\(machine.serial)\n\(machine.errors)")
      return String(machine.serial.suffix(11))
    }

    private func snapshot(
      _ command: String, _ tag: String, _ machine: RunningMachine
    ) throws -> (code: Int32, output: String) {
      try machine.control(["snapshot", command], tag)
    }

    @Test(
      "memory and disk are as they were, the guest goes on, and a new launcher can load it, too",
      .timeLimit(.minutes(5)), arguments: Requirements.accelerators)
    func roundTrip(accelerator: String) throws {
      let scratch = try Scratch()
      let file = try prepare(accelerator, in: scratch)
      let machine = try start(file, in: scratch)
      defer { machine.end() }
      for _ in 0..<2 { _ = try ask("i", machine) }
      #expect(try ask("i", machine) == "<0003:0003>")
      let saved = try snapshot("create", "before", machine)
      #expect(saved.code == 0, "\(saved.output)\n\(machine.errors)")
      let mode = try FileManager.default.attributesOfItem(atPath: scratch["states/before.vmstate"])
      #expect(mode[.posixPermissions] as? Int == 0o600)
      _ = try ask("i", machine)
      #expect(try ask("i", machine) == "<0005:0005>")
      for round in 0..<2 {
        let loaded = try snapshot("apply", "before", machine)
        try #require(loaded.code == 0, "\(loaded.output)\n\(machine.errors)")
        #expect(try ask("r", machine) == "<0003:0003>", "round \(round)")
        #expect(try ask("i", machine) == "<0004:0004>")
        try machine.killDevice("vmdev-ide")
        #expect(try ask("i", machine) == "<0005:0005>")
      }
      let list = try machine.control(["snapshot", "list"], "--json").output
      #expect(list.contains("\"tag\":\"before\""), "\(list)")
      #expect(list.contains("\"drives\":[\"ide0.0\"]"), "\(list)")
      let audit = try machine.control(["isolation"])
      #expect(audit.code == 0, "\(audit.output)")
      let again = try snapshot("create", "before", machine)
      #expect(again.code == 1 && again.output.contains("already"), "\(again.output)")
      try machine.type("q")
      #expect(machine.exitCode() == exitCode(of: 0x16), "\(machine.errors)")

      let tags = try Tool.run("qemu-img", ["snapshot", "-l", scratch["disk"]], in: scratch)
      #expect(tags.contains(" before "), "\(tags)")
      let check = try Tool.run("qemu-img", ["check", scratch["disk"]], in: scratch)
      #expect(check.contains("No errors"), "\(check)")

      // The name of the machine is part of what is saved: it has to be the same.
      let other = try RunningMachine(file, in: scratch, name: machine.name)
      defer { other.end() }
      try #require(other.hasSent("ready\n", seconds: 100), "\(other.errors)")
      #expect(try ask("r", other) == "<0000:0005>")
      let loaded = try snapshot("apply", "before", other)
      try #require(loaded.code == 0, "\(loaded.output)\n\(other.errors)")
      #expect(try ask("r", other) == "<0003:0003>")
      #expect(try ask("i", other) == "<0004:0004>")
      let deleted = try snapshot("delete", "before", other)
      #expect(deleted.code == 0, "\(deleted.output)")
      #expect(!scratch.exists("states/before.vmstate"))
      #expect(try snapshot("delete", "before", other).code == 1)
      try other.type("q")
      #expect(other.exitCode() == exitCode(of: 0x16), "\(other.errors)")
      let end = try Tool.run("qemu-img", ["check", scratch["disk"]], in: scratch)
      #expect(end.contains("No errors"), "\(end)")
    }

    @Test(
      "a state file that is damaged, cut short or foreign is refused, and the machine goes on",
      .timeLimit(.minutes(5)), arguments: Requirements.accelerators)
    func damaged(accelerator: String) throws {
      let scratch = try Scratch()
      let machine = try start(try prepare(accelerator, in: scratch), in: scratch)
      defer { machine.end() }
      _ = try ask("i", machine)
      #expect(try snapshot("create", "good", machine).code == 0, "\(machine.errors)")
      #expect(try ask("i", machine) == "<0002:0002>")
      let good = scratch.bytes("states/good.vmstate")
      let core = try machine.pid("vmcore")
      func isRefused(_ bytes: [UInt8], _ words: String) throws {
        try scratch.write("states/good.vmstate", bytes)
        let result = try snapshot("apply", "good", machine)
        #expect(result.code == 1 && result.output.contains(words), "\(words): \(result.output)")
        #expect(try ask("r", machine) == "<0002:0002>")
      }
      for place in [8, 17, 24, 45, 60, 3000, good.count / 2, good.count - 30, good.count - 1] {
        var bytes = good
        bytes[place] ^= 0x10
        try isRefused(bytes, "the state file")
      }
      for count in [0, 15, 16, 100, good.count / 2, good.count - 1] {
        try isRefused(Array(good.prefix(count)), count < 16 ? "no file" : "cut short")
      }
      try isRefused(good + [0], "behind its end")
      try isRefused(Array("no state at all, but long enough for one".utf8), "no file with")
      try isRefused([UInt8](repeating: 0, count: 100_000), "no file with")
      let missing = try snapshot("apply", "other", machine)
      #expect(missing.code == 1 && missing.output.contains("there is no snapshot 'other'"))
      for bad in ["", ".x", "a/b", String(repeating: "x", count: 200)] {
        #expect(try snapshot("create", bad, machine).code == 1)
      }
      // The whole file is good still, and nothing was started anew but for it.
      #expect(try machine.pid("vmcore") == core && machine.restarts("vmdev-ide") == 0)
      try scratch.write("states/good.vmstate", good)
      let result = try snapshot("apply", "good", machine)
      #expect(result.code == 0, "\(result.output)\n\(machine.errors)")
      #expect(try ask("r", machine) == "<0001:0001>")

      // One of another snapshot of the disk is refused before the disk is touched.
      #expect(try snapshot("delete", "good", machine).code == 0)
      #expect(try snapshot("create", "good", machine).code == 0)
      try scratch.write("states/good.vmstate", good)
      let stale = try snapshot("apply", "good", machine)
      #expect(stale.code == 1 && stale.output.contains("was not taken with"), "\(stale.output)")
      #expect(try ask("i", machine) == "<0002:0002>")
    }

    @Test(
      "Linux on two vCPUs goes on from a snapshot, its memory and its clock as they were",
      .timeLimit(.minutes(5)),
      .enabled(
        if: LinuxGuests.missing.isEmpty,
        "missing: \(LinuxGuests.missing.joined(separator: ", "))"))
    func linux() throws {
      let scratch = try Scratch()
      _ = try LinuxGuests.build("Tests/SystemTests/Guests/ticker.c", in: scratch)
      try FileManager.default.createDirectory(
        atPath: scratch["states"], withIntermediateDirectories: false)
      var file = LinuxGuests.machine(kernel: LinuxGuests.cloudKernel, cpus: 2, arguments: "")
      file.monitor = ["snapshots = \"states\""]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.hasSent("TICK 5 ok", seconds: 100), "\(machine.serial.suffix(800))")
      #expect(try snapshot("create", "a", machine).code == 0, "\(machine.errors)")
      #expect(machine.hasSent("TICK 40 ok", seconds: 60))
      for times in 2...3 {
        let loaded = try snapshot("apply", "a", machine)
        try #require(loaded.code == 0, "\(loaded.output)\n\(machine.errors)")
        #expect(
          machine.hasSent("TICK 40 ok 1", times: times, seconds: 60),
          "\(machine.serial.suffix(800))")
      }
      // The log grows on: what was sent before a snapshot was loaded is not written over.
      #expect(!machine.serial.contains("BAD"), "\(machine.serial.suffix(2000))")
    }

    @Test("a disk that is raw is named, and nothing is left behind", .timeLimit(.minutes(2)))
    func raw() throws {
      let scratch = try Scratch()
      let machine = try start(
        try prepare(Requirements.accelerators[0], format: "raw", in: scratch), in: scratch)
      defer { machine.end() }
      let result = try snapshot("create", "a", machine)
      #expect(result.code == 1, "\(result.output)")
      #expect(
        result.output.contains("Device 'ide0-hd0' is writable but does not support snapshots"),
        "\(result.output)")
      let left = try FileManager.default.contentsOfDirectory(atPath: scratch["states"])
      #expect(left.isEmpty, "\(left)")
      #expect(try ask("i", machine) == "<0001:0001>")
    }

    @Test(
      "QMP's jobs and the human monitor save, load, delete and list", .timeLimit(.minutes(5)),
      .enabled(if: Python.isThere), arguments: Requirements.accelerators)
    func jobs(accelerator: String) throws {
      let scratch = try Scratch()
      let machine = try start(try prepare(accelerator, in: scratch), in: scratch)
      defer { machine.end() }
      #expect(try ask("i", machine) == "<0001:0001>")
      let result = try Tool.result(
        Python.path, [Python.scripts + "/snapshot.py", scratch["qmp.sock"], Python.schema],
        in: scratch, seconds: 120)
      #expect(result.code == 0, "\(result.output)\n\(machine.errors)")
      #expect(try ask("i", machine) == "<0002:0002>")
    }

    @Test(
      "a disk goes on in an overlay, which its process's death does not change",
      .timeLimit(.minutes(3)), .enabled(if: Python.isThere), arguments: ["raw", "qcow2"])
    func overlay(format: String) throws {
      let scratch = try Scratch()
      let machine = try start(
        try prepare(Requirements.accelerators[0], format: format, in: scratch), in: scratch)
      defer { machine.end() }
      #expect(try ask("i", machine) == "<0001:0001>")
      let top = scratch["states/top.qcow2"]
      let result = try Tool.result(
        Python.path, [Python.scripts + "/overlay.py", scratch["qmp.sock"], Python.schema, top],
        in: scratch, seconds: 100)
      try #require(result.code == 0, "\(result.output)\n\(machine.errors)")
      let base = scratch.bytes("disk")
      #expect(try ask("r", machine) == "<0001:0001>")
      #expect(try ask("i", machine) == "<0002:0002>")
      try machine.killDevice("vmdev-ide")
      #expect(try ask("i", machine) == "<0003:0003>")
      #expect(machine.restarts("vmdev-ide") == 1)
      let audit = try machine.control(["isolation"])
      #expect(audit.code == 0, "\(audit.output)")
      try machine.type("q")
      #expect(machine.exitCode() == exitCode(of: 0x16), "\(machine.errors)")

      #expect(scratch.bytes("disk") == base)
      let info = try Tool.run("qemu-img", ["info", top], in: scratch)
      #expect(info.contains("backing file: \(scratch["disk"])"), "\(info)")
      #expect(info.contains("backing file format: \(format)"), "\(info)")
      let check = try Tool.run("qemu-img", ["check", top], in: scratch)
      #expect(check.contains("No errors"), "\(check)")
      // Only sector 40 is different.
      try Tool.run(
        "qemu-img", ["convert", "-O", "raw", top, scratch["after.raw"]], in: scratch)
      try Tool.run(
        "qemu-img", ["convert", "-O", "raw", scratch["disk"], scratch["before.raw"]], in: scratch)
      var expected = scratch.bytes("before.raw")
      #expect(expected[40 * 512] == 1)
      expected[40 * 512] = 3
      #expect(scratch.bytes("after.raw") == expected)
    }
  }
}
