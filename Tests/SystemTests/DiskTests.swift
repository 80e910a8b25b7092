// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Testing

/// The disk of the guest disk.asm, before and after.
struct DiskGuest {
  static let byteCount = 128 << 20
  let rounds: Int
  private(set) var expected: [UInt8]

  /// Fills the parts of the disk that the guest reads with a pattern.
  init(program: [UInt8], rounds: Int) {
    self.rounds = rounds
    expected = [UInt8](repeating: 0, count: Self.byteCount)
    var random: UInt64 = 0x9E37_79B9_7F4A_7C15
    for range in [64..<256, 1000..<5000, 200_000..<200_200] {
      for index in range.lowerBound * 512..<range.upperBound * 512 {
        random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        expected[index] = UInt8(truncatingIfNeeded: random >> 56)
      }
    }
    expected.replaceSubrange(0..<program.count, with: program)
  }

  private func sectors(_ first: Int, _ count: Int) -> [UInt8] {
    Array(expected[first * 512..<(first + count) * 512])
  }

  private mutating func write(_ bytes: [UInt8], _ first: Int) {
    expected.replaceSubrange(first * 512..<first * 512 + bytes.count, with: bytes)
  }

  private static func inverted(_ bytes: [UInt8]) -> [UInt8] { bytes.map { $0 ^ 0xA5 } }

  /// Does what the guest does.
  mutating func run() {
    write(Self.inverted(sectors(64, 8)), 128)
    write(sectors(200_000, 8), 200_064)
    write(sectors(72, 4), 136)
    // Three pieces of memory, written in another order than they were read.
    let pieces = sectors(80, 16)
    write(Array(pieces[5118...]) + Array(pieces[..<4096]) + Array(pieces[4096..<5118]), 144)
    write(Array(pieces[..<4096]), 200_100)
    for round in 0..<rounds {
      write(Self.inverted(sectors(1000 + 16 * round, 16)), 3000 + 16 * round)
    }
  }
}

extension SystemTests {
  @Suite("Disks")
  struct DiskTests {
    /// Makes the disk, and the machine file for it.
    private func prepare(
      _ format: String, rounds: Int, isPaced: Bool = false, hasDataFile: Bool = false,
      in scratch: Scratch
    ) throws -> (DiskGuest, MachineFile) {
      _ = try scratch.assemble("disk", "ROUNDS=\(rounds)", isPaced ? "PACE" : "FAST")
      let guest = DiskGuest(program: scratch.bytes("disk.bin"), rounds: rounds)
      try scratch.write("before.raw", guest.expected)
      if format == "raw" {
        try FileManager.default.moveItem(atPath: scratch["before.raw"], toPath: scratch["disk"])
      } else {
        let option = hasDataFile ? ["-o", "data_file=\(scratch["data"])"] : []
        try Tool.run(
          "qemu-img",
          ["convert", "-f", "raw", "-O", format] + option
            + [scratch["before.raw"], scratch["disk"]],
          in: scratch)
      }
      var file = MachineFile()
      file.drives = [("ide0.0", "disk", format)]
      if hasDataFile { file.driveLines = ["data-file = \"data\""] }
      return (guest, file)
    }

    private func check(_ guest: DiskGuest, _ format: String, in scratch: Scratch) throws {
      var guest = guest
      guest.run()
      try scratch.write("after.raw", guest.expected)
      if format == "qcow2" {
        let check = try Tool.result(
          "qemu-img", ["check", "-f", format, scratch["disk"]], in: scratch)
        #expect(check.code == 0 && check.output.contains("No errors"), "\(check.output)")
      }
      let comparison = try Tool.result(
        "qemu-img",
        ["compare", "-f", "raw", "-F", format, scratch["after.raw"], scratch["disk"]], in: scratch)
      #expect(comparison.code == 0, "\(comparison.output)")
    }

    @Test(
      "a guest's BIOS calls and bus-master DMA read and write the right sectors",
      .timeLimit(.minutes(5)), arguments: ["raw", "qcow2", "qcow2 with a data file"])
    func transfers(kind: String) throws {
      let scratch = try Scratch()
      let format = kind == "raw" ? "raw" : "qcow2"
      let (guest, file) = try prepare(
        format, rounds: 4, hasDataFile: kind.hasSuffix("data file"), in: scratch)
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      #expect(machine.exitCode() == exitCode(of: 0x10), "\(machine.errors)\n\(machine.serial)")
      #expect(machine.serial == "disk\n....\ndone\n")
      try check(guest, format, in: scratch)
    }

    @Test(
      "a disk process that is killed costs the guest a pause and no data",
      .timeLimit(.minutes(5)), arguments: ["raw", "qcow2"])
    func kills(format: String) throws {
      let scratch = try Scratch()
      let (guest, file) = try prepare(format, rounds: 120, isPaced: true, in: scratch)
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      #expect(machine.hasSent("disk\n"), "\(machine.errors)")
      for dots in [5, 25, 45, 65] {
        #expect(
          machine.waits(60) { machine.serialBytes.count { $0 == UInt8(ascii: ".") } >= dots },
          "\(machine.errors)")
        try machine.killDevice("vmdev-ide")
      }
      #expect(machine.exitCode() == exitCode(of: 0x10), "\(machine.errors)\n\(machine.serial)")
      #expect(machine.restarts("vmdev-ide") == 4)
      try check(guest, format, in: scratch)
    }
  }
}
