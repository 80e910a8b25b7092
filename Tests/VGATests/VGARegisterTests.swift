// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import VGA

@Suite("VGA registers")
struct VGARegisterTests {
  @Test(
    "sequencer and graphics registers keep the bits that exist",
    arguments: [
      (UInt16(0x3C4), UInt8(0), UInt8(0x03)), (0x3C4, 1, 0x3D), (0x3C4, 2, 0x0F),
      (0x3C4, 3, 0x3F), (0x3C4, 4, 0x0E), (0x3C4, 5, 0x00), (0x3CE, 0, 0x0F), (0x3CE, 1, 0x0F),
      (0x3CE, 2, 0x0F), (0x3CE, 3, 0x1F), (0x3CE, 4, 0x03), (0x3CE, 5, 0x7B), (0x3CE, 6, 0x0F),
      (0x3CE, 7, 0x0F), (0x3CE, 8, 0xFF), (0x3CE, 9, 0x00),
    ])
  func files(port: UInt16, index: UInt8, kept: UInt8) {
    var machine = Machine()
    machine.put(0xFF, port, index: index)
    #expect(machine.get(port, index: index) == kept)
    #expect(machine.get(port) == index)
  }

  @Test("all 25 CRTC registers hold a byte, and there is nothing after them")
  func crtc() {
    var machine = Machine()
    machine.put(0x01, 0x3C2)
    for index in UInt8(0)..<0x19 { machine.put(index + 0x40 & 0x7F, 0x3D4, index: index) }
    for index in UInt8(0)..<0x19 {
      #expect(machine.get(0x3D4, index: index) == index + 0x40 & 0x7F)
    }
    machine.put(0x55, 0x3D4, index: 0x19)
    #expect(machine.get(0x3D4, index: 0x19) == 0)
  }

  @Test("CR11 bit 7 protects CR0 to CR7 but for the line compare bit")
  func protection() {
    var machine = Machine()
    machine.put(0x01, 0x3C2)
    machine.put(0x12, 0x3D4, index: 0)
    machine.put(0x80, 0x3D4, index: 0x11)
    machine.put(0xFF, 0x3D4, index: 0)
    machine.put(0xFF, 0x3D4, index: 7)
    machine.put(0x77, 0x3D4, index: 8)
    #expect(machine.get(0x3D4, index: 0) == 0x12)
    #expect(machine.get(0x3D4, index: 7) == 0x10)
    #expect(machine.get(0x3D4, index: 8) == 0x77)
  }

  @Test("miscellaneous output moves the CRTC between 3Bxh and 3Dxh")
  func colorSelect() {
    var machine = Machine()
    machine.put(0x01, 0x3C2)
    #expect(machine.get(0x3CC) == 0x01)
    machine.put(0x0E, 0x3D4)
    #expect(machine.get(0x3D4) == 0x0E)
    #expect(machine.get(0x3B4) == 0xFF)
    #expect(machine.get(0x3BA) == 0xFF)
    machine.put(0x00, 0x3C2)
    #expect(machine.get(0x3B4) == 0x0E)
    #expect(machine.get(0x3D4) == 0xFF)
  }

  @Test("the attribute controller alternates between index and data, and 3DAh restarts it")
  func flipFlop() {
    var machine = Machine()
    machine.put(0x01, 0x3C2)
    _ = machine.get(0x3DA)
    machine.put(0x05, 0x3C0)
    machine.put(0x2A, 0x3C0)
    #expect(machine.get(0x3C1) == 0x2A)
    machine.put(0x06, 0x3C0)
    _ = machine.get(0x3DA)
    machine.put(0x05, 0x3C0)
    #expect(machine.get(0x3C1) == 0x2A)
    machine.put(0x15, 0x3C0)
    #expect(machine.get(0x3C1) == 0x15)
    #expect(machine.get(0x3C0) == 0x05)
  }

  @Test(
    "attribute registers keep the bits that exist",
    arguments: [
      (UInt8(0x00), UInt8(0x3F)), (0x0F, 0x3F), (0x10, 0xEF), (0x11, 0xFF), (0x12, 0x3F),
      (0x13, 0x0F), (0x14, 0x0F), (0x15, 0x00), (0x1F, 0x00),
    ])
  func attributeBits(index: UInt8, kept: UInt8) {
    var machine = Machine()
    machine.put(0x01, 0x3C2)
    machine.putAttribute(0xFF, index: index)
    #expect(machine.getAttribute(index) == kept)
  }

  @Test("the DAC takes three six-bit components and goes on to the next entry")
  func dacWrite() {
    var machine = Machine()
    machine.put(0xFE, 0x3C8)
    for value: UInt8 in [0xFF, 0x02, 0x03, 4, 5, 6, 7, 8, 9] { machine.put(value, 0x3C9) }
    #expect(machine.get(0x3C8) == 0x01)
    #expect(machine.get(0x3C7) == 0)
    machine.put(0xFE, 0x3C7)
    #expect(machine.get(0x3C7) == 3)
    #expect((0..<6).map { _ in machine.get(0x3C9) } == [0x3F, 2, 3, 4, 5, 6])
    #expect((0..<3).map { _ in machine.get(0x3C9) } == [7, 8, 9])
  }

  @Test("an incomplete colour is forgotten when a new index is written")
  func dacPartial() {
    var machine = Machine()
    machine.put(3, 0x3C8)
    machine.put(0x11, 0x3C9)
    machine.put(3, 0x3C8)
    for value: UInt8 in [1, 2, 3] { machine.put(value, 0x3C9) }
    machine.put(3, 0x3C7)
    #expect((0..<3).map { _ in machine.get(0x3C9) } == [1, 2, 3])
  }

  @Test("VBE's wide DAC keeps all eight bits")
  func wideDAC() {
    var machine = Machine()
    machine.setVBE(640, 480, 8, enable: 0x61)
    machine.put(0, 0x3C8)
    for value: UInt8 in [0xFE, 0x81, 0x40] { machine.put(value, 0x3C9) }
    machine.put(0, 0x3C7)
    #expect((0..<3).map { _ in machine.get(0x3C9) } == [0xFE, 0x81, 0x40])
    #expect(machine.pixels(0)[0] == 0xFE8140)
  }

  @Test("the pel mask and feature control read back")
  func simple() {
    var machine = Machine()
    machine.put(0x01, 0x3C2)
    machine.put(0x5A, 0x3C6)
    machine.put(0xFF, 0x3DA)
    #expect(machine.get(0x3C6) == 0x5A)
    #expect(machine.get(0x3CA) == 0x10)
    #expect(machine.get(0x3C2) == 0x00)
    #expect(machine.get(0x3D9) == 0xFF)
  }

  @Test("vertical retrace comes once a frame, at the line that CR10 names")
  func retrace() {
    var machine = Machine.text
    let line = VGAController.lineNanoseconds
    var retraceLines: [Int] = []
    for number in 0..<449 {
      machine.now = VMTime(nanoseconds: (449 * 5 + UInt64(number)) * line + 100)
      let status = machine.get(0x3DA)
      if status & 0x08 != 0 { retraceLines.append(number) }
      #expect(status & 0x01 == (number >= 400 ? 1 : 0))
    }
    #expect(retraceLines == [412, 413])
    // At the end of each line is the horizontal blank.
    machine.now = VMTime(nanoseconds: line * 98 / 100)
    #expect(machine.get(0x3DA) == 0x01)
  }

  @Test("only the VBE data ports are not posted")
  func posted() {
    for range in VGAController.Claims.ports {
      for port in range {
        #expect(VGAController.isPostedWrite(to: port) == !(0x1CF...0x1D1).contains(port))
      }
    }
  }
}

@Suite("Bochs VBE")
struct VBETests {
  @Test("IDs B0C0h to B0C5h are taken, others are not")
  func id() {
    var machine = Machine()
    #expect(machine.getVBE(0) == 0xB0C5)
    machine.putVBE(0xB0C2, index: 0)
    #expect(machine.getVBE(0) == 0xB0C2)
    machine.putVBE(0xB0C6, index: 0)
    #expect(machine.getVBE(0) == 0xB0C2)
    #expect(machine.getVBE(10) == 16)
    #expect(machine.getVBE(11) == 0)
  }

  @Test("GETCAPS shows the limits in place of the mode")
  func capabilities() {
    var machine = Machine()
    machine.putVBE(0x02, index: 4)
    #expect([1, 2, 3].map { machine.getVBE($0) } == [16000, 12000, 32])
    machine.putVBE(0, index: 4)
    #expect([1, 2, 3].map { machine.getVBE($0) } == [0, 0, 0])
  }

  @Test("enabling a mode clears the picture unless NOCLEARMEM is set")
  func clear() {
    var machine = Machine()
    machine.memory.bytes = [UInt8](repeating: 0x77, count: 1 << 20)
    machine.setVBE(64, 16, 32, enable: 0xC1)
    #expect(machine.memory.bytes[0] == 0x77)
    machine.setVBE(64, 16, 32)
    #expect(machine.memory.bytes.firstIndex { $0 != 0 } == 64 * 16 * 4)
    #expect(machine.getVBE(6) == 64)
    #expect(machine.getVBE(7) == 4096)
  }

  @Test("a mode that video memory can't hold is cut to its lines")
  func tooLarge() {
    var machine = Machine()
    machine.setVBE(0xFFFF, 0xFFFF, 32)
    #expect(machine.getVBE(1) == 16000)
    #expect(machine.getVBE(2) == 16)
    let frame = machine.vga.frame(now: .zero)
    #expect(frame.width == 16000 && frame.height == 16)
    machine.setVBE(0, 0, 7)
    #expect([1, 2, 3].map { machine.getVBE($0) } == [8, 1, 8])
  }

  @Test("offsets beyond the memory go back to zero")
  func offsets() {
    var machine = Machine()
    machine.setVBE(512, 256, 8)
    machine.putVBE(256, index: 9)
    #expect(machine.getVBE(9) == 256)
    machine.putVBE(0xFFFF, index: 9)
    #expect(machine.getVBE(9) == 0)
  }

  @Test("the bank moves the 64 KiB window through video memory")
  func bank() {
    var machine = Machine()
    machine.put(0x03, 0x3C2)
    machine.setVBE(512, 256, 8)
    machine.putVBE(3, index: 5)
    machine.poke(0x5A, 0xA0010)
    #expect(machine.memory.bytes[3 << 16 | 0x10] == 0x5A)
    #expect(machine.peek(0xA0010) == 0x5A)
    #expect(machine.vga.linearWindow?.memoryOffset == 3 << 16)
    machine.putVBE(19, index: 5)
    #expect(machine.getVBE(5) == 3)
  }

  @Test(
    "linear pixels have their format's colours",
    arguments: [
      (UInt16(8), [UInt8(5)], UInt32(0)), (15, [0x00, 0x7C], 0xFF0000), (16, [0xE0, 0x07], 0xFF00),
      (24, [0x33, 0x22, 0x11], 0x112233), (32, [0x33, 0x22, 0x11, 0x99], 0x112233),
      (16, [0x10, 0x84], 0x848284),
    ])
  func formats(bits: UInt16, bytes: [UInt8], color: UInt32) {
    var machine = Machine()
    machine.setVBE(16, 4, bits)
    for (index, byte) in bytes.enumerated() {
      machine.memory.store(byte, at: (2 * 16 + 3) * bytes.count + index)
    }
    #expect(machine.pixels(2)[3] == color)
    #expect(machine.pixels(2)[4] == 0)
  }

  @Test("virtual width and offsets choose the part that is shown")
  func panning() {
    var machine = Machine()
    machine.setVBE(16, 4, 32)
    machine.putVBE(32, index: 6)
    machine.putVBE(5, index: 8)
    machine.putVBE(7, index: 9)
    machine.memory.store(0xAB, at: (8 * 32 + 6) * 4)
    #expect(machine.pixels(1)[1] == 0xAB)
  }

  @Test("BAR 2 has the EDID, the VGA ports, the VBE registers and the byte order")
  func region() {
    var machine = Machine()
    let edid = (UInt16(0)..<128).map {
      UInt8(truncatingIfNeeded: machine.vga.readRegion(at: $0, width: .byte, now: .zero))
    }
    #expect(Array(edid[..<8]) == [0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0])
    #expect(edid.reduce(0) { $0 &+ $1 } == 0)
    #expect(machine.vga.readRegion(at: 0x80, width: .long, now: .zero) == 0)
    _ = machine.vga.writeRegion(0x01, at: 0x402, width: .byte, now: .zero)
    #expect(machine.get(0x3CC) == 0x01)
    #expect(machine.vga.readRegion(at: 0x40C, width: .byte, now: .zero) == 0x01)
    #expect(machine.vga.readRegion(at: 0x500, width: .word, now: .zero) == 0xB0C5)
    _ = machine.vga.writeRegion(0x0123, at: 0x502, width: .word, now: .zero)
    #expect(machine.getVBE(1) == 0x0123)
    #expect(machine.vga.readRegion(at: 0x600, width: .long, now: .zero) == 8)
    _ = machine.vga.writeRegion(0xBEBE_BEBE, at: 0x604, width: .long, now: .zero)
    #expect(machine.vga.readRegion(at: 0x604, width: .long, now: .zero) == 0xBEBE_BEBE)
    machine.setVBE(16, 4, 32)
    machine.memory.bytes.replaceSubrange(0..<4, with: [0, 0x11, 0x22, 0x33])
    #expect(machine.pixels(0)[0] == 0x112233)
    _ = machine.vga.writeRegion(0x1E1E_1E1E, at: 0x604, width: .long, now: .zero)
    #expect(machine.vga.readRegion(at: 0x604, width: .byte, now: .zero) == 0x1E)
    #expect(machine.vga.readRegion(at: 0xFFF, width: .word, now: .zero) == 0xFFFF)
  }
}
