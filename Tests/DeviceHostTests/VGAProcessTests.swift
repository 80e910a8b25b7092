// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import LinuxSystem
import Sandbox
import Testing

@Suite("vmdev-vga as a process", .serialized)
struct VGAProcessTests {
  @Test("claims the ports, the window, the function and the memories of a VGA")
  func claims() throws {
    let machine = try VGAMachine()

    let claims = try machine.start(isRestart: false)

    #expect(claims.ports.map(\.base) == [0x3B0, 0x1CE])
    #expect(claims.memories.map(\.base) == [0xA0000])
    #expect(claims.functions.first?.vendor == 0x1234)
    #expect(claims.functions.first?.bars.map(\.index) == [0, 2, 6])
    #expect(claims.backings.map(\.byteCount) == [1 << 20, 1 << 16])
  }

  @Test("shows text that was written through posted window writes")
  func text() throws {
    let machine = try VGAMachine()
    _ = try machine.start(isRestart: false)

    try machine.showHello()

    let picture = try machine.screendump()
    #expect(picture.reply.width == 720)
    #expect(picture.reply.height == 400)
    #expect(picture.reply.text.hasPrefix("HELLO "))
    // Every row of H's glyph is 01001000, in grey on black.
    #expect(picture.pixel(0, 0) == [0, 0, 0, 0])
    #expect(picture.pixel(1, 0) == [0xAA, 0xAA, 0xAA, 0])
    #expect(picture.pixel(4, 15) == [0xAA, 0xAA, 0xAA, 0])
    #expect(picture.pixel(1, 16) == [0, 0, 0, 0])
  }

  @Test("shows the same picture after it was killed and started again")
  func restart() throws {
    let machine = try VGAMachine()
    _ = try machine.start(isRestart: false)
    try machine.showHello()
    let before = try machine.screendump()

    try machine.kill()
    _ = try machine.start(isRestart: true)

    let after = try machine.screendump()
    #expect(after.reply == before.reply)
    #expect(after.pixels == before.pixels)
    #expect(after.pixel(1, 0) == [0xAA, 0xAA, 0xAA, 0])
  }

  @Test("has a linear window mapped while somebody waits for it, and taken away before it changes")
  func linearWindow() throws {
    let machine = try VGAMachine()
    _ = try machine.start(isRestart: false)
    try machine.showHello()
    _ = try machine.in(0x3DA)
    #expect(machine.mappings.isEmpty)

    // Chain-4 with all planes at A0000h: posted, so nothing happens yet.
    try machine.set(0x3CE, 6, 5)
    try machine.set(0x3C4, 2, 0x0F)
    try machine.set(0x3C4, 4, 0x0E)
    try machine.put(0xA0000, 7)
    #expect(machine.mappings.isEmpty)
    _ = try machine.in(0x3DA)
    let mapping = try #require(machine.mappings.first)
    #expect(mapping.isMapped && mapping.region == 2 && mapping.memory == 0)
    #expect((mapping.offset, mapping.byteCount, mapping.memoryOffset) == (0, 0x10000, 0))
    #expect(mapping.guards.map(\.offset) == [0x12, 0x15, 0x1F])
    #expect(machine.video.load(UInt8.self, at: 0) == 7)
    _ = try machine.in(0x3DA)
    #expect(machine.mappings.count == 1)

    // A successor does not know what its predecessor had mapped.
    try machine.kill()
    _ = try machine.start(isRestart: true)
    _ = try machine.in(0x3DA)
    #expect(machine.mappings.map(\.isMapped) == [true, true])

    // A plane less: not a byte may go past the mask, also when the first to see it is a successor.
    try machine.kill()
    _ = try machine.start(isRestart: true)
    try machine.set(0x3C4, 2, 0x0D)
    _ = try machine.in(0x3DA)
    #expect(machine.mappings.map(\.isMapped) == [true, true, false])
  }

  @Test("does posted writes once that nobody had done when it was killed")
  func postsWhileGone() throws {
    let machine = try VGAMachine()
    _ = try machine.start(isRestart: false)
    try machine.showHello()
    try machine.kill()
    try machine.put(0xB8000 + 2, 0x41)

    _ = try machine.start(isRestart: true)

    #expect(try machine.screendump().reply.text.hasPrefix("HALLO "))
  }

  @Test("clears video memory before a mode switch is answered")
  func modeSwitch() throws {
    let machine = try VGAMachine()
    _ = try machine.start(isRestart: false)
    machine.video.fill(0x55, at: 0, count: machine.video.byteCount)

    for (index, value) in [(1, 320), (2, 200), (3, 32), (4, 0x41)] as [(UInt64, UInt64)] {
      try machine.out(0x1CE, index, .word)
      try machine.out(0x1CF, value, .word)
    }

    #expect(machine.video.bytes(at: 0, count: 4) == [0, 0, 0, 0])
    #expect(machine.video.bytes(at: 320 * 200 * 4 - 1, count: 2) == [0, 0x55])
    machine.video.store(UInt32(0x11_2233), at: 0)
    let picture = try machine.screendump()
    #expect(picture.reply.width == 320)
    #expect(picture.pixel(0, 0) == [0x33, 0x22, 0x11, 0])
  }

  @Test("refuses a screendump into memory that is too small")
  func smallMemory() throws {
    let machine = try VGAMachine()
    _ = try machine.start(isRestart: false)
    try machine.showHello()

    #expect(throws: ChannelError.self) { try machine.screendump(byteCount: 4096) }

    #expect(try machine.screendump().reply.width == 720)
  }

  @Test("splits a word to an index port into index and data")
  func wordAccess() throws {
    let machine = try VGAMachine()
    _ = try machine.start(isRestart: false)

    try machine.out(0x3CE, 0x5A_08, .word)

    #expect(try machine.in(0x3CE, .word) == 0x5A_08)
  }
}
