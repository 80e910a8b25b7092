// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import VGA

@Suite("VGA pictures")
struct VGAFrameTests {
  /// Mode 3 with glyphs for A (10000001b) and the line character C4h (11111111b).
  private func screen() -> Machine {
    var machine = Machine.text
    for line in 0..<16 {
      machine.memory.store(0x81, at: 4 * (32 * 0x41 + line) + 2)
      machine.memory.store(0xFF, at: 4 * (32 * 0xC4 + line) + 2)
      machine.memory.store(0xFF, at: 4 * (32 * 0xDB + line) + 2)
      machine.memory.store(0xFF, at: 4 * (32 * 0xE0 + line) + 2)
      machine.memory.store(0x18, at: 4 * (8192 + 32 * 0x41 + line) + 2)
    }
    return machine
  }

  private func put(_ character: UInt8, _ look: UInt8, at cell: Int, in machine: inout Machine) {
    machine.poke(character, 0xB8000 + 2 * cell)
    machine.poke(look, 0xB8001 + 2 * cell)
  }

  @Test("mode 3 is 720 × 400, and glyphs are nine dots wide")
  func text() {
    var machine = screen()
    put(0x41, 0x1E, at: 0, in: &machine)
    let frame = machine.vga.frame(now: .zero)
    #expect(frame.width == 720 && frame.height == 400 && frame.layout == .text)
    let ink = Machine.color(0x0E)
    let paper = Machine.color(0x01)
    let row = machine.pixels(15)
    #expect(Array(row[..<9]) == [ink] + [UInt32](repeating: paper, count: 6) + [ink, paper])
    #expect(Array(machine.pixels(16)[..<9]) == [UInt32](repeating: 0, count: 9))
  }

  @Test("only line graphics characters reach into the ninth dot")
  func ninthDot() {
    var machine = screen()
    for (cell, character) in [UInt8(0xC4), 0xDB, 0xE0].enumerated() {
      put(character, 0x0F, at: cell, in: &machine)
    }
    let ink = Machine.color(0x0F)
    let row = machine.pixels(0)
    #expect([8, 17, 26].map { row[$0] == ink } == [true, true, false])
    machine.putAttribute(0x08, index: 0x10)
    machine.put(0x20, 0x3C0)
    #expect(machine.pixels(0)[8] == 0)
  }

  @Test("the cursor is a block of ink in its lines, and blinks every eight frames")
  func cursor() {
    var machine = screen()
    put(0x20, 0x07, at: 81, in: &machine)
    machine.put(0x0D, 0x3D4, index: 0x0A)
    machine.put(0x0E, 0x3D4, index: 0x0B)
    machine.put(81, 0x3D4, index: 0x0F)
    let ink = Machine.color(0x07)
    #expect(machine.pixels(16 + 12)[9] == 0)
    #expect(machine.pixels(16 + 13)[9] == ink)
    #expect(machine.pixels(16 + 14)[17] == ink)
    #expect(machine.pixels(16 + 15)[9] == 0)
    machine.now = VMTime(nanoseconds: 9 * 1_000_000_000 / 70)
    #expect(machine.pixels(16 + 13)[9] == 0)
    machine.now = VMTime(nanoseconds: 17 * 1_000_000_000 / 70)
    #expect(machine.pixels(16 + 13)[9] == ink)
  }

  @Test("attribute bit 7 blinks, or is a brighter background")
  func blink() {
    var machine = screen()
    put(0x41, 0x9F, at: 0, in: &machine)
    #expect(machine.pixels(0)[0] == Machine.color(0x0F))
    #expect(machine.pixels(0)[1] == Machine.color(0x01))
    machine.now = VMTime(nanoseconds: 17 * 1_000_000_000 / 70)
    #expect(machine.pixels(0)[0] == Machine.color(0x01))
    machine.putAttribute(0x04, index: 0x10)
    machine.put(0x20, 0x3C0)
    #expect(machine.pixels(0)[0] == Machine.color(0x0F))
    #expect(machine.pixels(0)[1] == Machine.color(0x09))
  }

  @Test("attribute bit 3 chooses the second font")
  func secondFont() {
    var machine = screen()
    put(0x41, 0x07, at: 0, in: &machine)
    put(0x41, 0x0F, at: 1, in: &machine)
    machine.put(0x20, 0x3C4, index: 3)  // map A: font 1 (8 KiB)
    let row = machine.pixels(0)
    #expect(row[0] == Machine.color(7) && row[3] == 0)
    #expect(row[9] == 0 && row[12] == Machine.color(15))
  }

  @Test("the start address scrolls, and the line compare splits the screen")
  func split() {
    var machine = screen()
    put(0x41, 0x01, at: 0, in: &machine)
    put(0x41, 0x02, at: 80, in: &machine)
    machine.put(80, 0x3D4, index: 0x0D)
    machine.put(31, 0x3D4, index: 0x18)
    machine.put(0x8E, 0x3D4, index: 0x11)
    machine.put(0x0F, 0x3D4, index: 0x07)
    machine.put(0x0F, 0x3D4, index: 0x09)
    // CR7 is protected, so open it for the line compare's eighth bit.
    machine.put(0x0E, 0x3D4, index: 0x11)
    machine.put(0x0F, 0x3D4, index: 0x07)
    #expect(machine.pixels(0)[0] == Machine.color(2))
    #expect(machine.pixels(31)[0] == 0)
    #expect(machine.pixels(32)[0] == Machine.color(1))
  }

  @Test("dot panning moves the picture to the left")
  func panning() {
    var machine = screen()
    put(0x41, 0x07, at: 0, in: &machine)
    machine.putAttribute(6, index: 0x13)
    machine.put(0x20, 0x3C0)
    let row = machine.pixels(0)
    #expect(row[0] == Machine.color(7) && row[1] == 0)
  }

  @Test("the text of the screen comes as lines of Unicode")
  func lines() {
    var machine = screen()
    for (cell, character) in [UInt8(0x48), 0x69, 0x00, 0xC4, 0x81, 0xFF, 0x01, 0x7F].enumerated() {
      put(character, 7, at: 160 + cell, in: &machine)
    }
    let lines = machine.vga.frame(now: .zero).textLines(memory: machine.memory)
    #expect(lines.count == 25)
    #expect(lines[2] == "Hi ─ü ☺⌂" + String(repeating: " ", count: 72))
    #expect(lines.allSatisfy { $0.unicodeScalars.count == 80 })
    #expect(Machine.planar.vga.frame(now: .zero).textLines(memory: machine.memory) == [])
    let all = Set((UInt8(0)...255).map(CodePage437.scalar))
    #expect(all.count == 254)  // 0, 20h and FFh are one
  }

  @Test("mode 12h shows four planes")
  func planar() {
    var machine = Machine.planar
    machine.memory.bytes.replaceSubrange(0..<4, with: [0x80, 0x40, 0x80, 0x01])
    let frame = machine.vga.frame(now: .zero)
    #expect(frame.width == 640 && frame.height == 480 && frame.layout == .planar)
    let expected = [5, 2, 0, 0, 0, 0, 0, 8].map { Machine.color($0) }
    #expect(Array(machine.pixels(0)[..<8]) == expected)
    machine.memory.store(0x01, at: 4 * (80 * 479 + 79))
    #expect(machine.pixels(479)[639] == Machine.color(1))
    machine.putAttribute(0x04, index: 0x12)
    machine.put(0x20, 0x3C0)
    #expect(machine.pixels(0)[0] == Machine.color(4))
  }

  @Test("mode 13h shows each byte as two by two dots")
  func packed() {
    var machine = Machine.packed
    machine.poke(200, 0xA0000 + 320 + 5)
    let frame = machine.vga.frame(now: .zero)
    #expect(frame.width == 640 && frame.height == 400 && frame.layout == .packed)
    let color = Machine.color(200)
    #expect(machine.pixels(1)[10] == 0)
    #expect(Array(machine.pixels(2)[9...12]) == [0, color, color, 0])
    #expect(machine.pixels(3)[10] == color)
    #expect(machine.pixels(4)[10] == 0)
  }

  @Test("mode 4 has two bits a pixel and odd lines 8 KiB further on")
  func cga() {
    var machine = Machine.cga
    machine.poke(0b0001_1011, 0xB8000)
    machine.poke(0b1100_0000, 0xB8001)
    machine.poke(0b1000_0000, 0xBA000 + 80)
    let frame = machine.vga.frame(now: .zero)
    #expect(frame.width == 640 && frame.height == 400 && frame.layout == .interleaved)
    let expected = [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 0, 0].map { Machine.color($0) }
    #expect(Array(machine.pixels(0)[..<12]) == expected)
    #expect(Array(machine.pixels(1)[..<12]) == expected)
    #expect(machine.pixels(6)[0] == Machine.color(2))
    #expect(machine.pixels(4)[0] == 0)
  }

  @Test("mode 6 has one bit a pixel")
  func cgaFine() {
    var machine = Machine.cgaFine
    machine.poke(0b1010_0000, 0xB8000 + 80)
    machine.poke(0b0100_0000, 0xBA000)
    #expect(machine.vga.frame(now: .zero).layout == .planar)
    #expect(Array(machine.pixels(4)[..<4]) == [1, 0, 1, 0].map { Machine.color($0) })
    #expect(Array(machine.pixels(2)[..<4]) == [0, 1, 0, 0].map { Machine.color($0) })
  }

  @Test("a screen that is off is black, in its own size")
  func blank() {
    var machine = screen()
    put(0xDB, 0x0F, at: 0, in: &machine)
    machine.put(0x20, 0x3C4, index: 1)
    #expect(machine.pixels(0) == [UInt32](repeating: 0, count: 720))
    machine.put(0x00, 0x3C4, index: 1)
    #expect(machine.pixels(0)[0] != 0)
    _ = machine.get(0x3DA)
    machine.put(0x00, 0x3C0)
    #expect(machine.pixels(0)[0] == 0)
  }

  @Test("the RGB form has the same colours, and a short buffer is not overrun")
  func rgb() {
    var machine = screen()
    put(0x41, 0x1E, at: 0, in: &machine)
    var row = [UInt8](repeating: 0, count: 7)
    machine.vga.frame(now: .zero).renderRGB(line: 0, memory: machine.memory, into: &row)
    let ink = Machine.color(0x0E)
    #expect(row[0] == UInt8(ink >> 16) && row[1] == UInt8(ink >> 8 & 0xFF))
    #expect(row[2] == UInt8(ink & 0xFF) && row[6] == 0)
  }
}
