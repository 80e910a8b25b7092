// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import VGA

@Suite("VGA window")
struct VGAWindowTests {
  /// A planar machine with one address's planes filled and latched.
  private func latched(_ planes: [UInt8]) -> Machine {
    var machine = Machine.planar
    machine.memory.bytes.replaceSubrange(40..<44, with: planes)
    _ = machine.peek(0xA000A)
    return machine
  }

  private func planes(_ machine: Machine, at address: Int = 10) -> [UInt8] {
    Array(machine.memory.bytes[(4 * address)..<(4 * address + 4)])
  }

  @Test(
    "the memory map decodes its part of the window",
    arguments: [0, 1, 2, 3] as [UInt8],
    [[0xA0000, 0xAFFFF], [0xB0000, 0xB7FFF], [0xB8000, 0xBFFFF]])
  func maps(map: UInt8, places: [Int]) {
    var machine = Machine.packed
    machine.put(map << 2 | 1, 0x3CE, index: 6)
    let isDecoded = map == 0 || places[0] == [0xA0000, 0xB0000, 0xB8000][Int(map) - 1]
    for place in places { #expect((machine.peek(place) != 0xFF) == isDecoded) }
    machine.put(0x61, 0x3C2)  // display memory off
    for place in places { #expect(machine.peek(place) == 0xFF) }
  }

  @Test("a chain-4 address is a byte of video memory, under the map mask")
  func chain4() {
    var machine = Machine.packed
    for address in 0..<8 { machine.poke(UInt8(address + 1), 0xA0000 + address) }
    #expect(Array(machine.memory.bytes[..<8]) == [1, 2, 3, 4, 5, 6, 7, 8])
    machine.put(0x05, 0x3C4, index: 2)
    for address in 0..<4 { machine.poke(0xEE, 0xA0000 + address) }
    #expect(Array(machine.memory.bytes[..<4]) == [0xEE, 2, 0xEE, 4])
    #expect(machine.vga.linearWindow == nil)
  }

  @Test("in text modes even bytes go to plane 0 and odd ones to plane 1")
  func oddEven() {
    var machine = Machine.text
    machine.vga.writeWindow(0x1F42_1E41, at: 0x18000, width: .long, memory: &machine.memory)
    #expect(Array(machine.memory.bytes[..<8]) == [0x41, 0x1E, 0, 0, 0x42, 0x1F, 0, 0])
    let back = machine.vga.readWindow(at: 0x18000, width: .long, memory: machine.memory)
    #expect(back == 0x1F42_1E41)
  }

  @Test("write mode 0 rotates, sets and resets, and goes to the planes of the map mask")
  func mode0() {
    var machine = latched([0, 0, 0, 0])
    machine.put(0x01, 0x3CE, index: 3)
    machine.put(0x0C, 0x3CE, index: 1)
    machine.put(0x04, 0x3CE, index: 0)
    machine.put(0x0D, 0x3C4, index: 2)
    machine.poke(0x81, 0xA000A)
    #expect(planes(machine) == [0xC0, 0, 0xFF, 0])
  }

  @Test(
    "the logical functions combine with the latches",
    arguments: [
      (UInt8(0), UInt8(0x3C)), (1, 0x14), (2, 0x7D), (3, 0x69),
    ])
  func functions(function: UInt8, result: UInt8) {
    var machine = latched([0x55, 0x55, 0x55, 0x55])
    machine.put(function << 3, 0x3CE, index: 3)
    machine.poke(0x3C, 0xA000A)
    #expect(planes(machine) == [result, result, result, result])
  }

  @Test("the bit mask takes the other bits from the latches")
  func bitMask() {
    var machine = latched([0xF0, 0x0F, 0xAA, 0x55])
    machine.put(0x3C, 0x3CE, index: 8)
    machine.poke(0xFF, 0xA000A)
    #expect(planes(machine) == [0xFC, 0x3F, 0xBE, 0x7D])
  }

  @Test("write mode 1 copies the latches, whatever is written")
  func mode1() {
    var machine = latched([1, 2, 3, 4])
    machine.put(0x01, 0x3CE, index: 5)
    machine.poke(0xFF, 0xA0014)
    #expect(planes(machine, at: 20) == [1, 2, 3, 4])
  }

  @Test("write mode 2 paints a colour through the bit mask")
  func mode2() {
    var machine = latched([0, 0xFF, 0, 0xFF])
    machine.put(0x02, 0x3CE, index: 5)
    machine.put(0x80, 0x3CE, index: 8)
    machine.poke(0x05, 0xA000A)
    #expect(planes(machine) == [0x80, 0x7F, 0x80, 0x7F])
  }

  @Test("write mode 3 uses the rotated byte as a mask for set/reset")
  func mode3() {
    var machine = latched([0, 0, 0xFF, 0xFF])
    machine.put(0x03, 0x3CE, index: 5)
    machine.put(0x09, 0x3CE, index: 0)
    machine.put(0x04, 0x3CE, index: 3)
    machine.put(0x0F, 0x3CE, index: 8)
    machine.poke(0xF3, 0xA000A)  // rotated by four: 3Fh, masked: 0Fh
    #expect(planes(machine) == [0x0F, 0x00, 0xF0, 0xFF])
  }

  @Test("read mode 0 gives one plane", arguments: [UInt8(0), 1, 2, 3])
  func readMode0(plane: UInt8) {
    var machine = latched([0x10, 0x21, 0x32, 0x43])
    machine.put(plane, 0x3CE, index: 4)
    #expect(machine.peek(0xA000A) == 0x10 + plane * 0x11)
  }

  @Test("read mode 1 shows where the colour matches in the planes that matter")
  func readMode1() {
    var machine = latched([0b1100_0000, 0b1010_0000, 0, 0xFF])
    machine.put(0x08, 0x3CE, index: 5)
    machine.put(0x0B, 0x3CE, index: 2)
    machine.put(0x0F, 0x3CE, index: 7)
    #expect(machine.peek(0xA000A) == 0b1000_0000)
    machine.put(0x01, 0x3CE, index: 7)
    #expect(machine.peek(0xA000A) == 0b1100_0000)
    machine.put(0x00, 0x3CE, index: 7)
    #expect(machine.peek(0xA000A) == 0xFF)
  }

  @Test("a place outside of the window or of video memory floats")
  func outside() {
    var machine = Machine.planar
    #expect(machine.vga.readWindow(at: -1, width: .byte, memory: machine.memory) == 0xFF)
    #expect(machine.vga.readWindow(at: Int.max, width: .quad, memory: machine.memory) == UInt64.max)
    machine.vga.writeWindow(0, at: Int.min, width: .quad, memory: &machine.memory)
    let small = ArrayMemory(byteCount: 16)
    #expect(machine.vga.readWindow(at: 100, width: .byte, memory: small) == 0xFF)
  }
}

/// Memory with nothing of its own but single bytes, to test the protocol's defaults.
private struct PlainMemory: VideoMemory {
  var bytes = [UInt8](repeating: 0, count: 8)
  var byteCount: Int { 8 }
  func load(_ offset: Int) -> UInt8 { bytes.indices.contains(offset) ? bytes[offset] : 0xFF }
  mutating func store(_ value: UInt8, at offset: Int) {
    if bytes.indices.contains(offset) { bytes[offset] = value }
  }
}

@Suite("VideoMemory")
struct VideoMemoryTests {
  @Test("longs are little-endian, and what does not exist is FFh")
  func longs() {
    var memory = PlainMemory()
    memory.storeLong(0x4433_2211, at: 6)
    #expect(memory.bytes == [0, 0, 0, 0, 0, 0, 0x11, 0x22])
    #expect(memory.loadLong(6) == 0xFFFF_2211)
    #expect(memory.loadLong(Int.max) == 0xFFFF_FFFF)
  }

  @Test("fills and copies stay within the memory")
  func bulk() {
    var memory = PlainMemory()
    memory.fill(5..<1_000_000_000, with: 7)
    var row = [UInt8](repeating: 0, count: 4)
    memory.copy(from: 4, into: &row)
    #expect(row == [0, 7, 7, 7])
    memory.copy(from: -2, into: &row)
    #expect(row == [0xFF, 0xFF, 0, 0])
  }
}
