// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

extension SystemTests {
  /// The same guest here and in QEMU's `pc`.
  @Suite(
    "The same as in QEMU",
    .enabled(if: Tool.find(QEMUMachine.program) != nil, "missing: qemu-system-x86"))
  struct ScreenTests {
    /// The names of the modes that Guests/modes.asm draws.
    private static let modes = [
      "text 80", "two fonts", "eight dots", "text 40", "monochrome", "CGA 4", "CGA 5", "CGA 6",
      "planar 0D", "split", "planar 0E", "planar 10", "planar 12", "wide rows", "attributes",
      "write modes", "reads", "packed 13", "mode X", "page", "VBE 8", "VBE 8 wide", "VBE 15",
      "VBE 16", "VBE 24", "VBE 32", "VBE offset", "text again",
    ]

    /// How many pixels differ, and the first of them.
    ///
    /// QEMU and this VGA make eight bits of six in two ways, so what is compared is the upper six;
    /// it leaves those of 15-bit colours clear.
    private func difference(_ ours: Pixels, _ qemus: Pixels, bits: Int) -> String? {
      guard ours.width == qemus.width, ours.height == qemus.height else {
        return "\(ours.width) by \(ours.height), QEMU has \(qemus.width) by \(qemus.height)"
      }
      let shift = UInt8(8 - bits)
      var count = 0
      var first: Int?
      for index in ours.bytes.indices
      where ours.bytes[index] >> shift != qemus.bytes[index] >> shift {
        count += 1
        first = first ?? index / 3
      }
      guard let first else { return nil }
      let (x, y) = (first % ours.width, first / ours.width)
      return "\(count) bytes of \(ours.bytes.count), the first at \(x), \(y): "
        + "\(ours[x, y]), QEMU has \(qemus[x, y])"
    }

    /// On KVM the timer and the interrupt controllers are the kernel's.
    @Test(
      "what programs of the DOS age do to the chips has the same results there",
      .timeLimit(.minutes(5)))
    func tricks() throws {
      let scratch = try Scratch()
      let guest = try scratch.assemble("tricks")
      try scratch.disk("disk.raw", guest)
      try scratch.disk("qemu.raw", guest)
      var file = MachineFile(accelerator: "soft")
      file.drives = [("ide0.0", "disk.raw", "raw")]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      let drive = "file=\(scratch["qemu.raw"]),if=ide,format=raw"
      let qemu = try QEMUMachine(
        ["-m", "64", "-device", "isa-debug-exit,iobase=0xf4", "-drive", drive], in: scratch)
      defer { qemu.end() }
      #expect(machine.exitCode() == exitCode(of: 0x10), "\(machine.errors)\n\(machine.serial)")
      func isOver(_ bytes: [UInt8]) -> Bool { bytes.count { $0 == 10 } == 5 }
      #expect(qemu.waits(60) { isOver(qemu.serialBytes) } || isOver(qemu.serialBytes))
      let ours = machine.serial.split(separator: "\n").map(String.init)
      let qemus = String(decoding: qemu.serialBytes, as: UTF8.self).split(separator: "\n")
        .map(String.init)
      #expect(ours.count == 5)
      for (line, theirs) in zip(ours, qemus) { #expect(line == theirs) }
    }

    @Test(
      "a linear mode is drawn without a register access, and the mode's end is exact",
      .timeLimit(.minutes(3)), arguments: Requirements.accelerators)
    func linear(accelerator: String) throws {
      let scratch = try Scratch()
      try scratch.disk("disk.raw", scratch.assemble("fill"))
      var file = MachineFile(accelerator: accelerator)
      file.drives = [("ide0.0", "disk.raw", "raw")]
      file.serial = "stdio"
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      func accesses() throws -> UInt64 {
        let vga = try #require(try machine.status().devices.first { $0.role == "vga" })
        return vga.live + vga.posted
      }
      func colour(_ x: Int) throws -> [UInt8] {
        try #require(try machine.control(["screendump"], scratch["screen.ppm"]).code == 0)
        return try Pixels(scratch.bytes("screen.ppm"))[2 * x, 0]
      }
      try #require(machine.hasSent("READY\n", seconds: 60), "\(machine.errors)")
      let before = try accesses()
      try machine.type(" ")
      try #require(machine.hasSent("FILLED\n", seconds: 60), "\(machine.errors)")
      // 640,000 bytes were written.
      #expect(try accesses() - before < 20)
      let green = try colour(100)
      #expect(green[1] > green[0] && green[1] > green[2])
      try machine.type(" ")
      try #require(machine.hasSent("MASKED\n", seconds: 60), "\(machine.errors)")
      let colours = try (0..<6).map { try colour($0) }
      #expect(colours[1] == green && colours[2] == green)
      #expect(colours[0] != green && colours[4] != green && colours[4] == colours[5])
      #expect(colours[0] != colours[4])
      try machine.type(" ")
      #expect(machine.exitCode() == exitCode(of: 8), "\(machine.errors)")
    }

    @Test(
      "every mode of the VGA looks as it does there", .timeLimit(.minutes(10)),
      arguments: Requirements.accelerators)
    func modes(accelerator: String) throws {
      let scratch = try Scratch()
      let guest = try scratch.assemble("modes")
      try scratch.disk("disk.raw", guest)
      try scratch.disk("qemu.raw", guest)
      var file = MachineFile(accelerator: accelerator)
      file.drives = [("ide0.0", "disk.raw", "raw")]
      file.serial = "stdio"
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      let drive = "file=\(scratch["qemu.raw"]),if=ide,format=raw"
      let qemu = try QEMUMachine(["-m", "64", "-vga", "std", "-drive", drive], in: scratch)
      defer { qemu.end() }
      for (index, mode) in Self.modes.enumerated() {
        for console in [machine as any SerialConsole, qemu] {
          let isThere = console.waits(60) {
            String(decoding: console.serialBytes, as: UTF8.self).contains("\(mode)\n")
          }
          try #require(isThere, "\(mode): \(machine.errors)")
        }
        #expect(machine.serialBytes == qemu.serialBytes)
        try #require(
          try machine.control(["screendump"], scratch["ours.ppm"]).code == 0, "\(mode)")
        let ours = try Pixels(scratch.bytes("ours.ppm"))
        let qemus = try qemu.screendump("qemu\(index).ppm", in: scratch)
        let isWide = mode.hasPrefix("VBE 24") || mode.hasPrefix("VBE 32") || mode == "VBE 8 wide"
        let found = difference(ours, qemus, bits: isWide ? 8 : mode == "VBE 15" ? 5 : 6)
        #expect(found == nil, "\(mode): \(found ?? "")")
        // A picture of nothing would agree, too.
        #expect(Set(ours.bytes).count > 1, "\(mode)")
        try machine.type(" ")
        try qemu.type(" ")
      }
      #expect(machine.exitCode() == exitCode(of: 0x10), "\(machine.errors)")
    }
  }
}
