// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

/// A picture of 8 bits per colour, read from a binary PPM.
struct Pixels {
  var width: Int
  var height: Int
  var bytes: [UInt8]

  init(_ ppm: [UInt8]) throws {
    // "P6", width, height and 255, each followed by one white space.
    let parts = ppm.split(maxSplits: 4, omittingEmptySubsequences: false) { $0 == 10 || $0 == 32 }
    try #require(parts.count == 5)
    let header = parts.prefix(4).map { String(decoding: $0, as: UTF8.self) }
    try #require(header[0] == "P6" && header[3] == "255")
    width = try #require(Int(header[1]))
    height = try #require(Int(header[2]))
    bytes = Array(parts[4])
    try #require(bytes.count == width * height * 3)
  }

  /// A picture that may be written just now; `nil` while it is not whole.
  init?(complete ppm: [UInt8]) {
    let parts = ppm.split(maxSplits: 4, omittingEmptySubsequences: false) { $0 == 10 || $0 == 32 }
    guard parts.count == 5 else { return nil }
    let header = parts.prefix(4).map { String(decoding: $0, as: UTF8.self) }
    guard header[0] == "P6", let width = Int(header[1]), let height = Int(header[2]),
      parts[4].count == width * height * 3
    else { return nil }
    (self.width, self.height, bytes) = (width, height, Array(parts[4]))
  }

  subscript(x: Int, y: Int) -> [UInt8] {
    Array(bytes[(y * width + x) * 3..<(y * width + x) * 3 + 3])
  }
}

extension SystemTests {
  @Suite("The operator's commands")
  struct ControlTests {
    private func picture(_ machine: RunningMachine, _ name: String) throws -> Pixels {
      let scratch = machine.scratch
      for kind in ["png", "ppm"] {
        let result = try machine.control(["screendump"], scratch["\(name).\(kind)"])
        #expect(result.code == 0, "\(result.output)")
      }
      try Tool.run(
        "convert", [scratch["\(name).png"], "-depth", "8", "ppm:\(scratch["other.ppm"])"],
        in: scratch)
      let pixels = try Pixels(scratch.bytes("other.ppm"))
      let own = try Pixels(scratch.bytes("\(name).ppm"))
      #expect(own.bytes == pixels.bytes)
      return pixels
    }

    @Test("status, pause, resume, reset, restart and stop", .timeLimit(.minutes(5)))
    func commands() throws {
      let scratch = try Scratch()
      let machine = try RunningMachine(MachineFile(cpus: 2), in: scratch)
      defer { machine.end() }
      try #require(machine.isUp(), "\(machine.errors)")
      let text = try machine.control(["status"])
      #expect(text.code == 0)
      #expect(text.output.contains("machine      \(machine.name)\n"))
      #expect(text.output.contains("memory       64MiB\n"))
      let json = try machine.control(["status", "--json"])
      let object = try JSONSerialization.jsonObject(with: Data(json.output.utf8))
      let fields = try #require(object as? [String: Any])
      #expect(fields["cpus"] as? Int == 2)
      #expect((fields["devices"] as? [[String: Any]])?.count == 4)

      // The folder that machines' own sockets lie in, with this one's and a dead one.
      let folder = scratch["bulkhead"]
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
      try FileManager.default.createSymbolicLink(
        atPath: "\(folder)/one.sock", withDestinationPath: scratch["control.sock"])
      _ = try PacketSocket.listen("\(folder)/two.sock")
      let list = try Tool.result(
        "env", ["XDG_RUNTIME_DIR=\(scratch.path)", Built.path("vmctl"), "list", "--json"],
        in: scratch)
      #expect(list.code == 0, "\(list.output)")
      let listed = try JSONSerialization.jsonObject(with: Data(list.output.utf8))
      let machines = try #require(listed as? [[String: Any]])
      #expect(machines.map { $0["machine"] as? String } == [machine.name])
      #expect(machines.first?["state"] as? String == "running")

      #expect(try machine.control(["pause"]).code == 0)
      #expect(try eventually(10) { try machine.status().state == "paused" })
      let first = try machine.status().clock
      let log = machine.console
      HostClock.sleep(500_000_000)
      #expect(try machine.status().clock == first, "the clock of a paused machine goes on")
      #expect(machine.console == log)
      #expect(try machine.control(["resume"]).code == 0)
      #expect(try eventually(10) { try machine.status().clock > first })
      #expect(try machine.status().state == "running")

      for role in ["piix", "ide", "serial", "vga"] {
        let old = try machine.pid("vmdev-\(role)")
        let result = try Tool.result(
          Built.path("vmctl"), ["device", "restart", scratch["control.sock"], role], in: scratch)
        #expect(result.code == 0, "\(result.output)")
        _ = try machine.pid("vmdev-\(role)", not: old)
        #expect(
          try eventually(30) {
            let device = try machine.status().devices.first { $0.role == role }
            return device?.state == "up" && device?.restarts == 1
          }, "\(machine.errors)")
      }
      #expect(machine.hasLogged("No bootable device"), "\(machine.console)\n\(machine.errors)")
      #expect(machine.starts == 1)

      #expect(try machine.control(["reset"]).code == 0)
      #expect(machine.hasLogged("No bootable device", times: 2), "\(machine.errors)")
      #expect(machine.starts == 2)

      #expect(try machine.control(["stop"]).code == 0)
      #expect(machine.exitCode(15) == 0, "\(machine.errors)")
      #expect(!scratch.exists("control.sock"))
    }

    @Test("a pause holds a guest between two bytes", .timeLimit(.minutes(5)))
    func pause() throws {
      let scratch = try Scratch()
      let lines = 3000
      let machine = try RunningMachine(
        MachineFile(firmware: try scratch.assemble("stream", "LINES=\(lines)")), in: scratch)
      defer { machine.end() }
      let expected = KillTests.text(lines: lines)
      for step in 1...3 {
        #expect(machine.waits(60) { machine.serialBytes.count >= expected.utf8.count * step / 5 })
        #expect(try machine.control(["pause"]).code == 0)
        HostClock.sleep(200_000_000)
        let count = machine.serialBytes.count
        HostClock.sleep(300_000_000)
        #expect(machine.serialBytes.count == count)
        #expect(count < expected.utf8.count)
        #expect(try machine.control(["resume"]).code == 0)
      }
      #expect(machine.exitCode() == exitCode(of: 0x15), "\(machine.errors)")
      #expect(machine.serial == expected)
    }

    @Test("pictures of graphics modes show what the guest drew", .timeLimit(.minutes(5)))
    func graphics() throws {
      let scratch = try Scratch()
      try scratch.disk("disk.raw", try scratch.assemble("graphics"))
      var file = MachineFile(serial: "stdio")
      file.drives = [("ide0.0", "disk.raw", "raw")]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.hasSent("mode 13h"), "\(machine.errors)")
      let small = try picture(machine, "small")
      let scale = small.width / 320
      #expect(small.width == 320 * scale && (1...2).contains(scale))
      #expect(small.height == 200 * (small.height / 200))
      let tall = small.height / 200
      let colour = small[40 * scale, 10 * tall]
      #expect(colour[0] >= 252 && (128...130).contains(colour[1]) && colour[2] == 0, "\(colour)")
      var drawn = 0
      for y in 0..<200 {
        for x in 0..<320 where small[x * scale, y * tall] == colour {
          #expect((40..<60).contains(x) && (10..<20).contains(y))
          drawn += 1
        }
      }
      #expect(drawn == 200)
      // There is no text in this mode, and vmctl says so.
      let text = try machine.control(["screendump"], "--text")
      #expect(text.code == 1)
      #expect(text.output.contains("graphics mode"))

      try machine.type("g")
      try #require(machine.hasSent("vbe\n"), "\(machine.errors)")
      // A device that is started anew shows the same.
      for _ in 0..<2 {
        let large = try picture(machine, "large")
        #expect(large.width == 1024 && large.height == 768)
        for x in 300..<316 { #expect(large[x, 200] == [0xF0, 0x80, 0x10]) }
        let others = large.bytes.count { $0 != 0 }
        #expect(others == 16 * 3)
        try machine.killDevice("vmdev-vga")
        #expect(
          try eventually(30) {
            try machine.status().devices.first { $0.role == "vga" }?.state == "up"
          })
      }
    }
  }
}
