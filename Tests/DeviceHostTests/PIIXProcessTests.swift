// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import LinuxSystem
import Testing

@Suite("vmdev-piix as a process", .serialized)
struct PIIXProcessTests {
  @Test("claims the chips' ports, functions, lines and the fw_cfg descriptor")
  func claims() throws {
    let machine = try PIIXMachine()

    let claims = try machine.start()

    #expect(claims.functions.map(\.devfn) == [0x08, 0x0B])
    #expect(claims.functions.map(\.device) == [0x7000, 0x7113])
    #expect(claims.lines.map(\.interrupt) == [1, 8, 12, 9])
    #expect(claims.lines.map(\.isLevel) == [false, false, false, true])
    #expect(claims.ports.filter(\.isMovable).map(\.count) == [64, 16])
    #expect(
      Set(claims.ports.filter { !$0.isMovable }.map(\.base)) == [
        0x00, 0x60, 0x61, 0x64, 0x70, 0x80, 0x81, 0x92, 0xB2, 0xC0, 0x402, 0x4D0, 0x501, 0x510,
        0xCF9, 0xAFE0,
      ])
    #expect(claims.descriptors.map(\.offset) == [4])
    let clocked = claims.registers.filter { $0.read == .clocked }
    #expect(clocked.map(\.frequency) == [3_579_545])
    #expect(clocked.map(\.bits) == [24])
  }

  @Test("gives the fw_cfg signature byte by byte, and the directory and zeros by DMA")
  func firmware() throws {
    let machine = try PIIXMachine()
    try machine.start()

    try machine.out(0x510, 0, .word)
    let signature = try (0..<5).map { _ in UInt8(truncatingIfNeeded: try machine.in(0x511)) }
    try machine.firmware(control: 0x0019_000A, byteCount: 600_000)

    #expect(signature == Array("QEMU".utf8) + [0])
    let guest = machine.guest
    #expect(Array(guest[0..<4]) == [0, 0, 0, 0])
    let count = Int(guest[7])
    #expect(Array(guest[4..<7]) == [0, 0, 0])
    let names = (0..<count).map { index in
      let start = 8 + 64 * index + 8
      return String(decoding: guest[start..<start + 56].prefix { $0 != 0 }, as: UTF8.self)
    }
    #expect(names == names.sorted())
    #expect(names.contains("etc/e820") && names.contains("bootorder"))
    #expect(guest[(8 + 64 * count)..<(4 + 600_000)].allSatisfy { $0 == 0 })
    #expect(guest[4 + 600_000] == 0xCC)
    // The result is the last thing before the window closes.
    #expect(machine.transfers.suffix(2).map(\.direction) == [.toGuest, .close])
    #expect(machine.transfers.dropLast().last?.windowOffset == 0)
  }

  @Test("fails a fw_cfg write by DMA with the error bit")
  func firmwareWrite() throws {
    let machine = try PIIXMachine()
    try machine.start()

    try machine.firmware(control: 0x0019_0018, byteCount: 4)

    #expect(Array(machine.guest[0..<8]) == [0, 0, 0, 1, 0xCC, 0xCC, 0xCC, 0xCC])
  }

  @Test("shows the wall clock, which runs with the virtual clock")
  func realTime() throws {
    let machine = try PIIXMachine()
    try machine.start()

    let date = try [0x32, 0x09, 0x08, 0x07, 0x04, 0x02, 0x00].map(machine.clockRegister)
    machine.clock.start()
    try machine.serve { machine.clock.now().nanoseconds > 2_100_000_000 }
    machine.clock.stop()

    #expect(date == [0x20, 0x00, 0x02, 0x29, 0x23, 0x59, 0x58])
    #expect(try [0x08, 0x07, 0x04].map(machine.clockRegister) == [0x03, 0x01, 0x00])
  }

  @Test("raises interrupt 8 for the clock's periodic interrupt")
  func periodic() throws {
    let machine = try PIIXMachine()
    try machine.start()
    machine.clock.start()

    try machine.out(0x70, 0x0B)
    try machine.out(0x71, 0x42)
    try machine.serve { machine.wasRaised(1) }
    let flags = try machine.clockRegister(0x0C)
    try machine.serve { machine.wasRaised(1) }

    #expect(flags & 0xC0 == 0xC0)
  }

  @Test("fires no timer while the clock stands still, and then the one that is due")
  func stoppedClock() throws {
    let machine = try PIIXMachine()
    try machine.start()
    try machine.out(0x70, 0x0B)
    try machine.out(0x71, 0x42)

    HostClock.sleep(100_000_000)
    let wasRaised = machine.wasRaised(1)
    machine.clock.start()
    // The clock page rings no bell: the core's resume does.
    try machine.ask(.resume, Empty())
    try machine.serve { machine.wasRaised(1) }
    machine.clock.stop()
    try machine.ask(.pause, Empty())
    _ = try machine.clockRegister(0x0C)
    _ = machine.wasRaised(1)
    HostClock.sleep(100_000_000)

    #expect(!wasRaised)
    #expect(!machine.wasRaised(1))
  }

  @Test("passes the keyboard controller's self-test and takes keys as QMP names them")
  func keyboard() throws {
    let machine = try PIIXMachine()
    try machine.start()

    try machine.out(0x64, 0xAA)
    let status = try machine.in(0x64)
    let result = try machine.in(0x60)
    try machine.out(0x64, 0x60)
    try machine.out(0x60, 0x41)
    _ = machine.wasRaised(0)
    let keys = [("a", true), ("no such key", true), ("a", false)]
    try machine.ask(
      .input, InputRequest(keys: keys.map { InputRequest.Key(name: $0.0, isDown: $0.1) }))

    #expect(status & 0x01 == 1)
    #expect(result == 0x55)
    #expect(machine.wasRaised(0))
    #expect(try machine.in(0x60) == 0x1E)
    #expect(machine.wasRaised(0))
    #expect(try machine.in(0x60) == 0x9E)
    #expect(!machine.wasRaised(0))
  }

  @Test("tells the core where the movable ports and the PCI interrupts are")
  func places() throws {
    let machine = try PIIXMachine()
    try machine.start()

    try machine.configure(0x0B, 0x40, 0x601, .long)
    try machine.configure(0x0B, 0x80, 1, .byte)
    try machine.configure(0x08, 0x60, 0x0B0A_800B, .long)

    #expect(machine.moves.last == MoveRegion(region: 13, isEnabled: true, base: 0x600))
    #expect(machine.routes.last == [11, 0xFF, 10, 11])
    try machine.out(0x604, 0x2000, .word)
    #expect(machine.power == [PowerRequest(.powerOff)])
  }

  @Test("asks to suspend, and once to wake, also when it dies in between")
  func suspend() throws {
    let machine = try PIIXMachine()
    try machine.start()
    try machine.configure(0x0B, 0x40, 0x601, .long)
    try machine.configure(0x0B, 0x80, 1, .byte)

    try machine.out(0x604, 0x2401, .word)
    #expect(machine.power == [PowerRequest(.suspend)])
    try machine.out(0x70, 0x0F)
    #expect(try machine.in(0x71) == 0xFE)
    try machine.kill()
    try machine.start(isRestart: true)
    try machine.ask(.powerButton, Empty())
    try machine.ask(.powerButton, Empty())
    #expect(machine.power.last == PowerRequest(.wake))
    #expect(machine.power.filter { $0 == PowerRequest(.wake) }.count == 1)

    try machine.ask(.reset, Empty())
    try machine.configure(0x0B, 0x40, 0x601, .long)
    try machine.configure(0x0B, 0x80, 1, .byte)
    #expect(try machine.in(0x601) == 0x81)
    try machine.ask(.powerButton, Empty())
    #expect(machine.power.filter { $0 == PowerRequest(.wake) }.count == 1)
  }

  @Test("asks for each reset once, and for the debug exit with its code")
  func power() throws {
    let machine = try PIIXMachine()
    try machine.start()

    try machine.out(0x64, 0xFE)
    try machine.out(0xCF9, 0x06)
    let resets = machine.power
    try machine.ask(.reset, Empty())
    try machine.out(0x92, 0x01)
    try machine.out(0x501, 0x11)

    #expect(resets == [PowerRequest(.reset)])
    #expect(
      machine.power == [
        PowerRequest(.reset), PowerRequest(.reset), PowerRequest(.exit, code: 0x23),
      ])
  }

  @Test("writes the debug console in order, once each, over deaths at any time")
  func console() throws {
    let machine = try PIIXMachine()
    try machine.start()
    machine.clock.start()
    let text = (0..<2000).map { "line \($0) of the firmware's log\n" }.joined()
    let bytes = Array(text.utf8)
    let deaths = [999, 17_000, 17_001, 40_000]

    for (index, byte) in bytes.enumerated() {
      try machine.out(0x402, UInt64(byte))
      guard deaths.contains(index) else { continue }
      try machine.kill()
      try machine.start(isRestart: true)
    }

    try machine.serve { try machine.log.size() >= UInt64(bytes.count) }
    #expect(try machine.logged() == text)
  }

  @Test("drops what a stuck debug console does not take, and goes on")
  func stuckConsole() throws {
    let machine = try PIIXMachine()
    let (reader, writer) = try PacketSocket.pair()
    try machine.start(console: writer.descriptor)

    for _ in 0..<300_000 { try machine.out(0x402, 0x0A) }

    #expect(try machine.clockRegister(0x0D) == 0x80)
    #expect(try reader.receive(256).bytes.allSatisfy { $0 == 0x0A })
  }

  @Test("goes on exactly where its predecessor was killed")
  func restart() throws {
    let machine = try PIIXMachine()
    try machine.start()
    try machine.configure(0x0B, 0x40, 0x601, .long)
    try machine.configure(0x0B, 0x80, 1, .byte)
    try machine.configure(0x08, 0x60, 0x0B0A_800B, .long)
    try machine.out(0x510, 0, .word)
    let first = try machine.in(0x511)
    try machine.out(0x70, 0x40)
    try machine.out(0x71, 0x5A)
    try machine.out(0x80, 0x77)
    try machine.out(0x64, 0x20)

    try machine.kill()
    try machine.start(isRestart: true)

    let rest = try (0..<3).map { _ in UInt8(truncatingIfNeeded: try machine.in(0x511)) }
    #expect([UInt8(truncatingIfNeeded: first)] + rest == Array("QEMU".utf8))
    #expect(try machine.in(0x71) == 0x5A)
    #expect(try machine.in(0x80) == 0x77)
    #expect(try machine.in(0x60) == 0x03)
    #expect(machine.moves.last { $0.region == 13 }?.base == 0x600)
    #expect(machine.routes == [[255, 255, 255, 255], [11, 255, 10, 11], [11, 255, 10, 11]])
  }
}
