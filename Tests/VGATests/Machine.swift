// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import VGA

/// Video memory made of an array.
struct ArrayMemory: VideoMemory {
  var bytes: [UInt8]
  init(byteCount: Int) { bytes = [UInt8](repeating: 0, count: byteCount) }
  var byteCount: Int { bytes.count }
  func load(_ offset: Int) -> UInt8 { bytes.indices.contains(offset) ? bytes[offset] : 0xFF }
  mutating func store(_ value: UInt8, at offset: Int) {
    if bytes.indices.contains(offset) { bytes[offset] = value }
  }
  mutating func fill(_ range: Range<Int>, with value: UInt8) {
    let existing = range.clamped(to: 0..<bytes.count)
    bytes.replaceSubrange(existing, with: [UInt8](repeating: value, count: existing.count))
  }
}

/// A controller with its memory, in the shape that guests use it.
struct Machine {
  var vga = VGAController(memoryByteCount: 1 << 20)
  var memory = ArrayMemory(byteCount: 1 << 20)
  var now = VMTime.zero

  mutating func get(_ port: UInt16) -> UInt8 {
    UInt8(truncatingIfNeeded: vga.read(at: port, width: .byte, now: now))
  }

  mutating func put(_ value: UInt8, _ port: UInt16) {
    _ = vga.write(UInt64(value), at: port, width: .byte, now: now)
  }

  mutating func get(_ port: UInt16, index: UInt8) -> UInt8 {
    put(index, port)
    return get(port + 1)
  }

  mutating func put(_ value: UInt8, _ port: UInt16, index: UInt8) {
    _ = vga.write(UInt64(value) << 8 | UInt64(index), at: port, width: .word, now: now)
  }

  mutating func putAttribute(_ value: UInt8, index: UInt8) {
    _ = get(0x3DA)
    put(index, 0x3C0)
    put(value, 0x3C0)
  }

  mutating func getAttribute(_ index: UInt8) -> UInt8 {
    _ = get(0x3DA)
    put(index, 0x3C0)
    return get(0x3C1)
  }

  mutating func putVBE(_ value: UInt16, index: UInt16) {
    _ = vga.write(UInt64(index), at: 0x1CE, width: .word, now: now)
    if let range = vga.write(UInt64(value), at: 0x1CF, width: .word, now: now) {
      memory.fill(range, with: 0)
    }
  }

  mutating func getVBE(_ index: UInt16) -> UInt16 {
    _ = vga.write(UInt64(index), at: 0x1CE, width: .word, now: now)
    return UInt16(truncatingIfNeeded: vga.read(at: 0x1CF, width: .word, now: now))
  }

  mutating func setVBE(_ width: UInt16, _ height: UInt16, _ bits: UInt16, enable: UInt16 = 0x41) {
    putVBE(0, index: 4)
    putVBE(width, index: 1)
    putVBE(height, index: 2)
    putVBE(bits, index: 3)
    putVBE(enable, index: 4)
  }

  mutating func peek(_ address: Int) -> UInt8 {
    UInt8(
      truncatingIfNeeded: vga.readWindow(at: address - 0xA0000, width: .byte, memory: memory))
  }

  mutating func poke(_ value: UInt8, _ address: Int) {
    vga.writeWindow(UInt64(value), at: address - 0xA0000, width: .byte, memory: &memory)
  }

  func pixels(_ line: Int) -> [UInt32] {
    let frame = vga.frame(now: now)
    var row = [UInt32](repeating: 0xDEAD, count: frame.width)
    frame.render(line: line, memory: memory, into: &row)
    return row
  }

  /// Sets a mode from its tables: misc, sequencer 0–4, CRTC, graphics 0–8, attribute 10–14.
  mutating func setMode(
    misc: UInt8, sequencer: [UInt8], crtc: [UInt8], graphics: [UInt8], attribute: [UInt8]
  ) {
    put(misc, 0x3C2)
    for (index, value) in sequencer.enumerated() { put(value, 0x3C4, index: UInt8(index)) }
    put(0, 0x3D4, index: 0x11)
    for (index, value) in crtc.enumerated() { put(value, 0x3D4, index: UInt8(index)) }
    for (index, value) in graphics.enumerated() { put(value, 0x3CE, index: UInt8(index)) }
    for index in UInt8(0)..<16 { putAttribute(index, index: index) }
    for (index, value) in attribute.enumerated() { putAttribute(value, index: 0x10 + UInt8(index)) }
    _ = get(0x3DA)
    put(0x20, 0x3C0)
    // Entry i of the DAC is i in red, twice that in green, three times in blue.
    put(0xFF, 0x3C6)
    put(0, 0x3C8)
    for index in UInt8(0)...255 {
      put(index & 0x3F, 0x3C9)
      put(index &* 2 & 0x3F, 0x3C9)
      put(index &* 3 & 0x3F, 0x3C9)
    }
  }

  /// The colour that ``setMode(misc:sequencer:crtc:graphics:attribute:)`` gave a DAC entry.
  static func color(_ index: UInt8) -> UInt32 {
    var color: UInt32 = 0
    for factor in UInt8(1)...3 {
      let six = UInt32(index &* factor & 0x3F)
      color = color << 8 | six << 2 | six >> 4
    }
    return color
  }

  /// Mode 3: 80 × 25 characters of 9 × 16 dots.
  static var text: Machine {
    var machine = Machine()
    machine.setMode(
      misc: 0x67, sequencer: [3, 0, 3, 0, 2],
      crtc: [
        0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0, 0x4F, 0x0D, 0x0E, 0, 0, 0, 0, 0x9C,
        0x8E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF,
      ],
      graphics: [0, 0, 0, 0, 0, 0x10, 0x0E, 0, 0xFF], attribute: [0x0C, 0, 0x0F, 8, 0])
    machine.put(0x20, 0x3D4, index: 0x0A)  // no cursor
    return machine
  }

  /// Mode 12h: 640 × 480 in 16 colours.
  static var planar: Machine {
    var machine = Machine()
    machine.setMode(
      misc: 0xE3, sequencer: [3, 1, 0x0F, 0, 6],
      crtc: [
        0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0x0B, 0x3E, 0, 0x40, 0, 0, 0, 0, 0, 0, 0xEA, 0x8C,
        0xDF, 0x28, 0, 0xE7, 4, 0xE3, 0xFF,
      ],
      graphics: [0, 0, 0, 0, 0, 0, 5, 0x0F, 0xFF], attribute: [1, 0, 0x0F, 0, 0])
    return machine
  }

  /// Mode 13h: 320 × 200 in 256 colours.
  static var packed: Machine {
    var machine = Machine()
    machine.setMode(
      misc: 0x63, sequencer: [3, 1, 0x0F, 0, 0x0E],
      crtc: [
        0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0xBF, 0x1F, 0, 0x41, 0, 0, 0, 0, 0, 0, 0x9C, 0x8E,
        0x8F, 0x28, 0x40, 0x96, 0xB9, 0xA3, 0xFF,
      ],
      graphics: [0, 0, 0, 0, 0, 0x40, 5, 0x0F, 0xFF], attribute: [0x41, 0, 0x0F, 0, 0])
    return machine
  }

  /// Mode 4: 320 × 200 in four colours, as the CGA had it.
  static var cga: Machine {
    var machine = Machine()
    machine.setMode(
      misc: 0x63, sequencer: [3, 9, 3, 0, 2],
      crtc: [
        0x2D, 0x27, 0x28, 0x90, 0x2B, 0x80, 0xBF, 0x1F, 0, 0xC1, 0, 0, 0, 0, 0, 0, 0x9C, 0x8E,
        0x8F, 0x14, 0, 0x96, 0xB9, 0xA2, 0xFF,
      ],
      graphics: [0, 0, 0, 0, 0, 0x30, 0x0F, 0, 0xFF], attribute: [1, 0, 3, 0, 0])
    return machine
  }

  /// Mode 6: 640 × 200 in two colours.
  static var cgaFine: Machine {
    var machine = Machine()
    machine.setMode(
      misc: 0x63, sequencer: [3, 1, 1, 0, 6],
      crtc: [
        0x5F, 0x4F, 0x50, 0x82, 0x54, 0x80, 0xBF, 0x1F, 0, 0xC1, 0, 0, 0, 0, 0, 0, 0x9C, 0x8E,
        0x8F, 0x28, 0, 0x96, 0xB9, 0xC2, 0xFF,
      ],
      graphics: [0, 0, 0, 0, 0, 0, 0x0D, 0, 0xFF], attribute: [1, 0, 1, 0, 0])
    return machine
  }
}
