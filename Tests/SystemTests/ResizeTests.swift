// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

extension SystemTests {
  @Suite(
    "Disks that get another size",
    .enabled(if: Python.isThere, "missing: .build/python with qemu.qmp (deploy/test makes it)"))
  struct ResizeTests {
    /// Gives an order by QMP; the whole reply.
    private func order(
      _ command: String, _ arguments: String, _ machine: RunningMachine
    ) throws -> String {
      let scratch = machine.scratch
      return try Tool.run(
        Python.path, [Python.scripts + "/order.py", scratch["qmp.sock"], command, arguments],
        in: scratch)
    }

    private func resize(_ size: Int, _ machine: RunningMachine) throws -> String {
      try order("block_resize", "{\"device\": \"ide0-hd0\", \"size\": \(size)}", machine)
    }

    /// Types one letter; what the guest answers.
    private func ask(_ letter: String, _ machine: RunningMachine) throws -> String {
      let before = machine.serialBytes.count
      try machine.type(letter)
      try #require(
        machine.waits(60) {
          let last = machine.serialBytes.count > before ? machine.serialBytes.last : nil
          return last == UInt8(ascii: ">") || last == UInt8(ascii: "]")
        }, "\(machine.errors)\n\(machine.serial)")
      return String(decoding: machine.serialBytes[before...], as: UTF8.self)
    }

    private func sectors(_ byteCount: Int) -> String {
      let digits = String(byteCount / 512, radix: 16, uppercase: true)
      return "<" + String(repeating: "0", count: 8 - digits.count) + digits + ">"
    }

    /// What qemu-img says of the size, while the machine has the image, too.
    private func size(_ format: String, in scratch: Scratch) throws -> Int {
      let text = try Tool.run(
        "qemu-img", ["info", "-U", "-f", format, "--output=json", scratch["disk"]], in: scratch)
      let found = text.firstMatch(of: /"virtual-size": (\d+)/)?.1
      return try #require(found.flatMap { Int($0) }, "\(text)")
    }

    @Test(
      "the guest, the image and a new process agree about the size, whenever vmdev-ide dies",
      .timeLimit(.minutes(5)),
      arguments: Requirements.accelerators.flatMap { one in ["raw", "qcow2"].map { (one, $0) } })
    func sizes(accelerator: String, format: String) throws {
      let scratch = try Scratch()
      _ = try scratch.assemble("resize")
      let mebibyte = 1 << 20
      try Tool.run(
        "qemu-img", ["create", "-q", "-f", format, scratch["disk"], "\(4 * mebibyte)"], in: scratch)
      var file = MachineFile(
        accelerator: accelerator, firmware: "resize.bin",
        monitor: ["qmp = \"unix:qmp.sock\"", "hmp = \"unix:hmp.sock\""])
      file.drives = [("ide0.0", "disk", format)]
      file.serial = "stdio"
      file.extra = "[[drive]]\nslot = \"ide1.0\"\nmedia = \"cdrom\""
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      #expect(try ask("i", machine) == sectors(4 * mebibyte))

      // It grows under the guest's hands, and its new end can be used.
      #expect(try resize(8 * mebibyte, machine).contains("\"return\": {}"))
      #expect(try ask("i", machine) == sectors(8 * mebibyte))
      #expect(try ask("r", machine) == "[no]")
      #expect(try ask("w", machine) == "[yes]")
      #expect(try ask("r", machine) == "[yes]")
      #expect(try size(format, in: scratch) == 8 * mebibyte)
      #expect(
        try order("query-block", "{}", machine).contains("\"virtual-size\": \(8 * mebibyte)"))
      try machine.killDevice("vmdev-ide")
      #expect(try ask("i", machine) == sectors(8 * mebibyte))
      #expect(try ask("r", machine) == "[yes]")

      // What the format does not allow is refused, and nothing has changed then.
      let odd = try resize(9 * mebibyte + 100, machine)
      #expect(odd.contains(format == "raw" ? "\"return\"" : "must be a multiple of 512"), "\(odd)")
      if format == "raw" { #expect(try resize(8 * mebibyte, machine).contains("\"return\"")) }
      let disc = try order(
        "block_resize", "{\"device\": \"ide1-cd0\", \"size\": 4096}", machine)
      #expect(disc.contains("GenericError") && disc.contains("CD-ROM"), "\(disc)")
      #expect(try ask("i", machine) == sectors(8 * mebibyte))

      // The process dies before, while and after it changes the size.
      for round in 0..<6 {
        let target = (9 + round) * mebibyte
        let process = Process()
        process.executableURL = URL(fileURLWithPath: Python.path)
        process.arguments = [
          Python.scripts + "/order.py", scratch["qmp.sock"], "block_resize",
          "{\"device\": \"ide0-hd0\", \"size\": \(target)}",
        ]
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        // Python takes some 200 ms until the order is out.
        HostClock.sleep(UInt64(150 + 20 * round) * 1_000_000)
        try machine.killDevice("vmdev-ide")
        process.waitUntilExit()
        let now = try size(format, in: scratch)
        #expect(now == target || now == (8 + round) * mebibyte, "round \(round): \(now)")
        #expect(try ask("i", machine) == sectors(now), "round \(round)")
        #expect(try resize(target, machine).contains("\"return\": {}"), "\(machine.errors)")
        #expect(try ask("w", machine) == "[yes]")
        // The budget of restarts is for ten seconds.
        HostClock.sleep(2_500_000_000)
      }

      // Smaller, as with QEMU: what was behind the new end is lost.
      let text = try Tool.run(
        Python.path,
        [
          Python.scripts + "/order.py", scratch["qmp.sock"], "human-monitor-command",
          "{\"command-line\": \"block_resize ide0-hd0 4\"}",
        ], in: scratch)
      #expect(text.contains("\"return\": \"\""), "\(text)")
      #expect(try ask("i", machine) == sectors(4 * mebibyte))
      #expect(try ask("r", machine) == "[no]")
      #expect(try ask("w", machine) == "[yes]")
      try machine.type("q")
      #expect(machine.exitCode(30) == exitCode(of: 0x16), "\(machine.errors)")
      #expect(try size(format, in: scratch) == 4 * mebibyte)
      if format == "qcow2" {
        let check = try Tool.result(
          "qemu-img", ["check", "-f", format, scratch["disk"]], in: scratch)
        #expect(check.code == 0 && check.output.contains("No errors"), "\(check.output)")
      }
      try Tool.run(
        "qemu-img", ["convert", "-f", format, "-O", "raw", scratch["disk"], scratch["plain"]],
        in: scratch)
      let plain = scratch.bytes("plain")
      #expect(plain.count == 4 * mebibyte)
      #expect(plain.suffix(512).elementsEqual((0..<512).map { $0 % 2 == 0 ? 0x5A : 0xA5 }))
    }
  }
}
