// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

extension SystemTests {
  @Suite("Devices that are killed")
  struct KillTests {
    static func text(lines: Int) -> String {
      (0..<lines).map { line in
        let number = String(0x10000 + line, radix: 16, uppercase: true).dropFirst()
        return "\(number) the quick brown fox jumps over the lazy dog\n"
      }.joined()
    }

    /// Kills the serial process several times while `count` grows to `total`.
    private func harass(_ machine: RunningMachine, total: Int, _ count: () -> Int) throws {
      for step in 1...4 {
        #expect(machine.waits(120) { count() >= total * step / 6 }, "\(machine.errors)")
        try machine.killDevice("vmdev-serial")
      }
    }

    @Test("text to a file arrives once and in order", .timeLimit(.minutes(5)))
    func file() throws {
      let scratch = try Scratch()
      let lines = 3000
      let machine = try RunningMachine(
        MachineFile(firmware: try scratch.assemble("stream", "LINES=\(lines)")), in: scratch)
      defer { machine.end() }
      let expected = Self.text(lines: lines)
      try harass(machine, total: expected.utf8.count) { machine.serialBytes.count }
      #expect(machine.exitCode() == exitCode(of: 0x15), "\(machine.errors)")
      #expect(machine.restarts("vmdev-serial") == 4)
      #expect(machine.serial == expected)
    }

    @Test("text to a pipe on standard output arrives once and in order", .timeLimit(.minutes(5)))
    func pipe() throws {
      let scratch = try Scratch()
      let lines = 3000
      var file = MachineFile(serial: "stdio")
      file.firmware = try scratch.assemble("stream", "LINES=\(lines)", "WAIT")
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      let expected = "g" + Self.text(lines: lines)
      try machine.type("g")
      try harass(machine, total: expected.utf8.count) { machine.serialBytes.count }
      #expect(machine.exitCode() == exitCode(of: 0x15), "\(machine.errors)")
      #expect(machine.restarts("vmdev-serial") == 4)
      #expect(machine.serial == expected)
    }

    @Test("text to a pseudo-terminal arrives once and in order", .timeLimit(.minutes(5)))
    func pty() throws {
      let scratch = try Scratch()
      let lines = 3000
      var file = MachineFile(serial: "pty")
      file.firmware = try scratch.assemble("stream", "LINES=\(lines)", "WAIT")
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      #expect(machine.hasSaid("/dev/pts/"), "\(machine.errors)")
      let start = try #require(machine.errors.range(of: "/dev/pts/"))
      let number = machine.errors[start.upperBound...].prefix { $0.isNumber }
      let terminal = try Files.open(
        "/dev/pts/\(number)", [.readWrite, .noTerminal, .noWait])
      var received: [UInt8] = []
      func read() -> Int {
        while let bytes = try? terminal.read(65536), !bytes.isEmpty { received += bytes }
        return received.count
      }
      let expected = "g" + Self.text(lines: lines)
      #expect(machine.isUp())
      try terminal.writeAll(Array("g".utf8))
      try harass(machine, total: expected.utf8.count) { read() }
      #expect(
        eventually(120) { read() >= expected.utf8.count || !machine.process.isRunning })
      #expect(machine.exitCode() == exitCode(of: 0x15), "\(machine.errors)")
      _ = read()
      #expect(machine.restarts("vmdev-serial") == 4)
      #expect(String(decoding: received, as: UTF8.self) == expected)
    }

    @Test(
      "SeaBIOS goes on when a device is killed under it", .timeLimit(.minutes(5)),
      arguments: ["vmdev-piix", "vmdev-vga"])
    func firmware(role: String) throws {
      let scratch = try Scratch()
      let machine = try RunningMachine(MachineFile(), in: scratch)
      defer { machine.end() }
      #expect(machine.hasLogged("SeaBIOS (version"), "\(machine.errors)")
      try machine.killDevice(role)
      HostClock.sleep(300_000_000)
      try machine.killDevice(role)
      #expect(machine.hasLogged("No bootable device"), "\(machine.errors)\n\(machine.console)")
      #expect(machine.starts == 1)
      #expect(try machine.shows("SeaBIOS (version"))
      #expect(try machine.shows("No bootable device"))
      #expect(
        machine.restarts(role) == 2,
        "\(machine.errors)")
    }
  }
}
