// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Foundation
import LinuxSystem
import TestSupport
import Testing

@Suite(.serialized, .timeLimit(.minutes(3))) struct ExampleDeviceTests {
  @Test func `It claims its ports and answers live accesses`() throws {
    let device = try ExampleDevice()
    let claims = try device.handshake()
    #expect(claims.ports == [PortClaim(region: 0, base: 0x560, count: 8)])
    #expect(claims.lines == [LineClaim(interrupt: 5)])
    #expect(claims.registers.map(\.offset) == [1, 2])
    try device.write(0, 0x1122_3344, width: 4)
    #expect(try device.read(0, width: 4) == 0x1122_3344)
    try device.write(0, 0xABCD, width: 2)
    #expect(try device.read(0, width: 4) == 0x1122_ABCD)
    #expect(try device.read(0, width: 1) == 0xCD)
    #expect(device.mirrored() == UInt32(0x5A ^ 0xCD))
  }

  @Test func `Ten thousand posted writes arrive before the read that follows`() throws {
    let device = try ExampleDevice()
    try device.handshake()
    var posted = 0
    for value in 0..<10_000 where try device.post(1, UInt64(value)) { posted += 1 }
    #expect(posted > 0)
    #expect(try device.read(1, width: 4) == 10_000)
  }

  @Test func `Posted writes keep their order with live ones`() throws {
    let device = try ExampleDevice()
    try device.handshake()
    for value in 0..<UInt64(500) {
      #expect(try device.post(0, value & 0x7F))
      #expect(try device.read(0, width: 1) == value & 0x7F)
    }
  }

  @Test func `Blocks go both ways`() throws {
    let device = try ExampleDevice()
    try device.handshake()
    device.submit(LaneAccess(.readBlock, width: 2, region: 0, offset: 4, items: 2048))
    #expect(try device.answer().items == 2048)
    let memory = device.lane.blockMemory
    let block = device.lane.blockOffset(0)
    for index in 0..<2048 {
      #expect(memory.load(UInt16.self, at: block + 2 * index) == UInt16(index))
    }
    for index in 0..<10 { memory.store(UInt16(index + 1), at: block + 2 * index) }
    device.submit(LaneAccess(.writeBlock, width: 2, region: 0, offset: 4, items: 10))
    #expect(try device.answer().items == 10)
    #expect(try device.read(6) == 55)
  }

  @Test func `Its line is signalled once for each cause`() throws {
    let device = try ExampleDevice()
    try device.handshake()
    #expect(!EventFile.drain(device.line))
    try device.write(0, 0xEE)
    #expect(EventFile.drain(device.line))
    try device.write(0, 0xED)
    #expect(!EventFile.drain(device.line))
  }

  @Test func `Reset, pause, resume and quit are answered`() throws {
    let device = try ExampleDevice()
    try device.handshake()
    try device.write(0, 0x77)
    for request in [Request.pause, .resume, .reset, .wake, .quit] {
      try device.channel.request(request, sequence: 9, Empty())
      let packet = try device.channel.receive(timeout: ExampleDevice.timeout)
      #expect(packet.header.sequence == 9)
      _ = try packet.reply(to: request, Empty.self)
      if request == .reset { #expect(try device.read(0) == 0) }
    }
    device.process.waitUntilExit()
    #expect(device.process.terminationStatus == 0)
    #expect(device.process.terminationReason == .exit)
  }

  @Test func `Killed again and again, it does each request exactly once`() throws {
    let device = try ExampleDevice()
    try device.handshake()
    try device.write(0, 0x42)
    var expected: UInt64 = 0
    for round in 0..<40 {
      for _ in 0..<(20 + round) {
        expected += 1
        #expect(try device.read(3, width: 4) == expected)
      }
      // Die with a request on its way, at a moment that varies.
      device.submit(LaneAccess(.read, width: 4, region: 0, offset: 3))
      for _ in 0..<(round * 37) { Thread.relax() }
      try device.restart()
      expected += 1
      #expect(try device.answer().value == expected)
    }
    #expect(try device.read(0) == 0x42)
    #expect(device.mirrored() == UInt32(0x5A ^ 0x42))
  }

  // MARK: - Hostile cores

  /// Gives a fresh device what a hostile core says, and expects a reason, not a crash.
  func expectExit(_ what: String, _ play: (ExampleDevice) throws -> Void) throws {
    let device = try ExampleDevice()
    try? play(device)
    // A device that took it for good waits for more; the end of the channel ends it.
    let end = HostClock.monotonic() + 300_000_000
    while device.process.isRunning, HostClock.monotonic() < end { HostClock.sleep(1_000_000) }
    let stayed = device.process.isRunning
    device.kill()
    #expect(!stayed, "\(what): the device went on")
    #expect(device.process.terminationReason == .exit, "\(what): ended by a signal")
    #expect(device.process.terminationStatus == 1, "\(what)")
  }

  @Test func `Malformed replies end it with a reason`() throws {
    let hello =
      Header(request: 1, flags: .reply, sequence: 1, size: 25).wireBytes
      + Hello(role: "example").wireBytes
    let selected = Mutator.mutations(of: hello, keepsSize: false).filter {
      $0.what.hasPrefix("cut") || $0.what.hasPrefix("word") || $0.what.hasSuffix("more")
    }
    var count = 0
    for mutation in selected.enumerated() where mutation.offset % 5 == 0 {
      // Features may have any value, and the device does not look at the role's bytes.
      guard !mutation.element.what.hasPrefix("word 3") || mutation.element.what < "word 31",
        (try? decodeMessage(mutation.element.bytes, as: "Hello")) == nil
      else { continue }
      count += 1
      try expectExit(mutation.element.what) {
        _ = try $0.channel.receive(timeout: ExampleDevice.timeout)
        try $0.channel.socket.send(mutation.element.bytes)
      }
    }
    #expect(count > 10)
  }

  @Test func `Wrong descriptors in a grant end it with a reason`() throws {
    let event = try EventFile.make()
    let short = try MemoryFile.make("short", byteCount: 4096)
    let blank = try MemoryFile.make("blank", byteCount: 1 << 20)
    let null = try Descriptor.open("/dev/null", 2)
    let lists: [(String, (ExampleDevice) -> [Descriptor])] = [
      ("none", { _ in [] }), ("one missing", { [$0.lane.file, $0.clock.file, $0.state] }),
      ("one more", { [$0.lane.file, $0.clock.file, $0.state, $0.line, $0.line] }),
      ("event for a lane", { [event, $0.clock.file, $0.state, $0.line] }),
      ("short lane", { [short, $0.clock.file, $0.state, $0.line] }),
      ("blank lane", { [blank, $0.clock.file, $0.state, $0.line] }),
      ("short state", { [$0.lane.file, $0.clock.file, short, $0.line] }),
      ("null clock", { [$0.lane.file, null, $0.state, $0.line] }),
      ("memory for a line", { [$0.lane.file, $0.clock.file, $0.state, short] }),
    ]
    for (what, list) in lists {
      try expectExit(what) { device in
        let hello = try device.channel.receive(timeout: ExampleDevice.timeout)
        try device.channel.reply(to: hello.header, Hello(role: "example"))
        let claim = try device.channel.receive(timeout: ExampleDevice.timeout)
        try device.channel.reply(
          to: claim.header,
          Grant(
            slots: 2, isRestart: false, stateByteCount: UInt32(ExampleDevice.stateBytes)),
          list(device))
      }
    }
  }
}
