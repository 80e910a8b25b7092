// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import Testing

@Suite("vmdev-serial as a process", .serialized, .timeLimit(.minutes(3)))
struct SerialProcessTests {
  /// A machine whose port is two streams; the pipe in between stays here, as in the launcher.
  private struct Streams {
    let machine: SerialMachine
    let input: Descriptor
    var output: OutputReader

    init() throws {
      let (inReading, inWriting) = try Descriptor.pipe()
      let (outReading, outWriting) = try Descriptor.pipe()
      let journal = try Descriptor.pipe()
      input = inWriting
      output = try OutputReader(outReading)
      machine = try SerialMachine(
        .streams, [inReading, outWriting, journal.reading, journal.writing])
      try machine.start()
    }
  }

  /// A machine and the only descriptor of the other end of its port.
  private struct Far {
    var end: Descriptor?
    let machine: SerialMachine
  }

  @Test("claims four ports with their lines when there are four")
  func claims() throws {
    let machine = try FakeMachine(role: "serial")
    let settings = SerialSettings(
      common: CommonSettings(machine: "test", isStrict: false),
      ports: (0..<4).map { _ in SerialSettings.Port(backend: .null) })

    let claims = try machine.start(settings: settings.wireBytes, [])

    #expect(claims.ports.map(\.base) == [0x3F8, 0x2F8, 0x3E8, 0x2E8])
    #expect(claims.ports.allSatisfy { $0.count == 8 && !$0.isMovable })
    #expect(claims.lines.map(\.interrupt) == [4, 3])
    #expect(claims.lines.allSatisfy { !$0.isLevel })
    #expect(claims.registers.filter { $0.write == .posted }.map(\.offset) == [0, 0, 0, 0])
    #expect(
      claims.registers.filter { $0.read == .mirrored }.map(\.offset) == [5, 6, 5, 6, 5, 6, 5, 6])
    #expect(try machine.quit() == .exited(code: 0))
  }

  @Test("keeps registers, and shows LSR and MSR without being asked")
  func registers() throws {
    let machine = try SerialMachine(.null)
    try machine.start()

    try machine.write(0x5A, 7)
    try machine.write(0x83, 3)
    try machine.write(0x01, 0)
    let divisor = try machine.read(0)
    try machine.write(0x03, 3)

    #expect(try machine.read(7) == 0x5A)
    #expect(divisor == 0x01)
    #expect(machine.mirrored(0) == 0x60)
    #expect(machine.mirrored(1) == UInt32(try machine.read(6)))
    #expect(try machine.live(LaneAccess(.read, width: 2, region: 3, offset: 0)) == 0xFFFF)
    #expect(try machine.live(LaneAccess(.read, width: 1, region: 0, offset: 1 << 16)) == 0xFF)
  }

  @Test("writes a file in order, once each, over thirty deaths in the middle of the stream")
  func file() throws {
    let folder = try Descriptor.open("/tmp", 0o20200000 | 2)  // O_TMPFILE
    try folder.writeAll(Array("before\n".utf8))
    let machine = try SerialMachine(.file, [folder], start: 7)
    let text = SerialMachine.text(4000)
    try machine.start()

    try deaths(30, machine, text)

    try machine.serve { try folder.size() >= UInt64(7 + text.count) }
    #expect(try machine.quit() == .exited(code: 0))
    #expect(try folder.size() == UInt64(7 + text.count))
    #expect(try folder.read(7 + text.count, at: 0) == Array("before\n".utf8) + text)
  }

  @Test("writes a stream in order, once each, over thirty deaths in the middle of it")
  func stream() throws {
    var streams = try Streams()
    let text = SerialMachine.text(4000)

    try deaths(30, streams.machine, text) { streams.output.take() }
    streams.output.take(until: text.count)

    #expect(streams.output.bytes == text)
  }

  @Test("loses and doubles nothing with a slow reader, over thirty deaths")
  func slowReader() throws {
    var streams = try Streams()
    let text = SerialMachine.text(8000)

    try deaths(30, streams.machine, text) { streams.output.take(1500) }
    #expect(streams.output.bytes.count < text.count)
    streams.output.take(until: text.count)

    #expect(streams.output.bytes == text)
  }

  @Test("stops the guest while nobody reads, and goes on after deaths at that moment")
  func stoppedReader() throws {
    var streams = try Streams()
    let machine = streams.machine
    let text = SerialMachine.text(8000)

    let sent = try machine.sendUntilStopped(text)
    for _ in 0..<5 {
      try machine.replace()
      HostClock.sleep(5_000_000)
      #expect(try !machine.canSend())
      // A little room only: the chunk at the head goes on in pieces.
      streams.output.take(700)
    }
    try machine.send(text[sent...]) { streams.output.take() }
    streams.output.take(until: text.count)

    #expect(sent < text.count)
    #expect(streams.output.bytes == text)
  }

  @Test("goes on when the reader is gone")
  func readerGone() throws {
    let journal = try Descriptor.pipe()
    let null = try Descriptor.open("/dev/null", 0)
    func make() throws -> Far {
      let (reading, writing) = try Descriptor.pipe()
      return Far(
        end: reading,
        machine: try SerialMachine(.streams, [null, writing, journal.reading, journal.writing]))
    }
    var far = try make()
    let machine = far.machine
    try machine.start()
    try machine.send(SerialMachine.text(10)[...])
    far.end = nil

    try machine.send(SerialMachine.text(2000)[...])

    try machine.write(0x33, 7)
    #expect(try machine.read(7) == 0x33)
    #expect(try machine.quit() == .exited(code: 0))
  }

  @Test("ends soon when it is told to while nobody reads")
  func quitWhileStopped() throws {
    let streams = try Streams()
    _ = try streams.machine.sendUntilStopped(SerialMachine.text(8000))

    let start = HostClock.monotonic()
    let status = try streams.machine.quit()

    #expect(status == .exited(code: 0))
    #expect(HostClock.monotonic() - start < 5_000_000_000)
  }

  @Test("puts everything out before it ends when the reader reads again")
  func quitWhileSlow() throws {
    var streams = try Streams()
    let text = SerialMachine.text(8000)
    let sent = try streams.machine.sendUntilStopped(text)

    try streams.machine.send(.quit, Empty())
    let end = HostClock.monotonic() + FakeMachine.patience
    while try streams.machine.process?.status() == nil, HostClock.monotonic() < end {
      streams.output.take()
      HostClock.sleep(1_000_000)
    }
    streams.output.take(until: sent)

    #expect(streams.output.bytes == Array(text[..<sent]))
  }

  @Test("gives the guest input with interrupt 4, as fast as it reads, and lives on at its end")
  func input() throws {
    let null = try Descriptor.open("/dev/null", 1)
    let journal = try Descriptor.pipe()
    func make() throws -> Far {
      let (reading, writing) = try Descriptor.pipe()
      return Far(
        end: writing,
        machine: try SerialMachine(.streams, [reading, null, journal.reading, journal.writing]))
    }
    var far = try make()
    let machine = far.machine
    try machine.start()
    let text = Array("what the operator types, longer than any buffer of the port. ".utf8)
    try machine.write(0x01, 2)
    try machine.write(0x0B, 4)
    try machine.write(0x01, 1)
    #expect(try machine.lineStatus() & 0x01 == 0)
    #expect(!EventFile.drain(machine.events[0]))

    var got: [UInt8] = []
    for round in 1...4 {
      try far.end?.writeAll(text)
      try machine.serve { EventFile.drain(machine.events[0]) }
      try machine.serve {
        while try machine.lineStatus() & 0x01 != 0 { got.append(try machine.read(0)) }
        return got.count == round * text.count
      }
    }
    far.end = nil
    HostClock.sleep(20_000_000)

    #expect(got == text + text + text + text)
    try machine.write(0x77, 7)
    #expect(try machine.read(7) == 0x77)
    #expect(try machine.quit() == .exited(code: 0))
  }

  @Test("speaks both ways with a terminal, exactly, also when its reader is slow")
  func terminal() throws {
    let terminal = try TestTerminal()
    let journal = try Descriptor.pipe()
    let machine = try SerialMachine(
      .duplex, [terminal.controller, journal.reading, journal.writing])
    try machine.start()
    var output = try OutputReader(terminal.terminal)
    let text = SerialMachine.text(1500)

    try deaths(10, machine, text) { output.take(400) }
    output.take(until: text.count)
    try terminal.terminal.writeAll(Array("k".utf8))
    try machine.serve { try machine.lineStatus() & 0x01 != 0 }

    #expect(output.bytes == text)
    #expect(try machine.read(0) == UInt8(ascii: "k"))
  }

  /// Sends `text` in as many pieces as there are deaths, each soon after its piece.
  private func deaths(
    _ count: Int, _ machine: SerialMachine, _ text: [UInt8], idle: () throws -> Void = {}
  ) throws {
    let piece = text.count / (count + 1)
    for round in 0..<count {
      try machine.send(text[(round * piece)..<((round + 1) * piece)], idle: idle)
      HostClock.sleep(UInt64(round * 7919 % 13) * 50_000)
      try machine.replace()
      try idle()
    }
    try machine.send(text[(count * piece)...], idle: idle)
  }
}
