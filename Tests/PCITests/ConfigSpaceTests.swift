// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import PCI
import ModelTestSupport
import Testing

@Suite("ConfigSpace")
struct ConfigSpaceTests {
  static func makeSpace() -> ConfigSpace {
    var space = ConfigSpace(
      FunctionIdentity(
        vendor: 0x1234, device: 0x1111, revision: 2, classCode: 0x03_00_00,
        subsystemVendor: 0x1AF4, subsystem: 0x1100, isMultifunction: true, interruptPin: 1))
    space.addMemoryRegion(0, size: 16 << 20, isPrefetchable: true)
    space.addPortRegion(1, size: 16)
    space.addMemoryRegion(2, size: 4096)
    space.addROM(size: 64 << 10)
    return space
  }

  @Test(
    "the header reads as it was made",
    arguments: [
      (UInt8(0x00), UInt32(0x1111_1234)), (0x04, 0x0280_0000), (0x08, 0x0300_0002),
      (0x0C, 0x0080_0000), (0x10, 0x0000_0008), (0x14, 0x0000_0001), (0x18, 0x0000_0000),
      (0x2C, 0x1100_1AF4), (0x30, 0x0000_0000), (0x34, 0x0000_0000), (0x3C, 0x0000_0100),
    ] as [(UInt8, UInt32)])
  func header(offset: UInt8, value: UInt32) {
    #expect(Self.makeSpace().read(at: offset, width: .long) == value)
  }

  @Test(
    "writing ones tells each region's size and kind",
    arguments: [
      (UInt8(0x10), UInt32(0xFF00_0008)), (0x14, 0xFFFF_FFF1), (0x18, 0xFFFF_F000),
      (0x1C, 0), (0x30, 0xFFFF_0001),
    ] as [(UInt8, UInt32)])
  func sizing(offset: UInt8, value: UInt32) {
    var space = Self.makeSpace()
    _ = space.write(0xFFFF_FFFF, at: offset, width: .long)
    #expect(space.read(at: offset, width: .long) == value)
  }

  @Test("ids and class cannot be written")
  func readOnly() {
    var space = Self.makeSpace()
    for offset: UInt8 in [0x00, 0x08, 0x28, 0x2C, 0x34, 0x38] {
      let before = space.read(at: offset, width: .long)
      #expect(space.write(0xFFFF_FFFF, at: offset, width: .long) == [])
      #expect(space.read(at: offset, width: .long) == before)
    }
  }

  @Test("the command register switches decoding and says so")
  func command() {
    var space = Self.makeSpace()
    #expect(!space.decodesPorts && !space.decodesMemory && !space.isBusMaster)
    #expect(space.write(0x0007, at: 0x04, width: .word) == .command)
    #expect(space.decodesPorts && space.decodesMemory && space.isBusMaster)
    #expect(space.write(0x0007, at: 0x04, width: .word) == [])
    #expect(space.write(0xFFFF, at: 0x04, width: .word) == .command)
    #expect(space.read(at: 0x04, width: .word) == 0x0147)
  }

  @Test("a one clears a status bit and a zero does not")
  func status() {
    var space = Self.makeSpace()
    space.raiseStatus(0xFFFF)
    #expect(space.read(at: 0x06, width: .word) == 0xFB80)
    _ = space.write(0x0000, at: 0x06, width: .word)
    #expect(space.read(at: 0x06, width: .word) == 0xFB80)
    _ = space.write(0x2000, at: 0x06, width: .word)
    #expect(space.read(at: 0x06, width: .word) == 0xDB80)
  }

  @Test("a region decodes only with an address and its space enabled")
  func regions() {
    var space = Self.makeSpace()
    #expect(space.write(0xC041, at: 0x14, width: .long) == .baseAddress)
    #expect(space.region(1) == nil)
    _ = space.write(0x0001, at: 0x04, width: .word)
    #expect(space.region(1) == DecodedRegion(kind: .port, base: 0xC040, size: 16))
    #expect(space.region(0) == nil)
    _ = space.write(0xFD12_3456, at: 0x10, width: .long)
    _ = space.write(0x0002, at: 0x04, width: .word)
    #expect(
      space.region(0)
        == DecodedRegion(kind: .prefetchableMemory, base: 0xFD00_0000, size: 16 << 20))
    #expect(space.region(1) == nil)
    #expect(space.region(2) == nil)
    #expect(space.region(3) == nil)
    #expect(space.region(-1) == nil)
  }

  @Test("a register being sized decodes nothing")
  func sizingDecodesNothing() {
    var space = Self.makeSpace()
    _ = space.write(0x0003, at: 0x04, width: .word)
    _ = space.write(0xFFFF_FFFF, at: 0x10, width: .long)
    _ = space.write(0xFFFF_FFFF, at: 0x14, width: .long)
    #expect(space.region(0) == nil)
    #expect(space.region(1) == nil)
  }

  @Test("the ROM needs its own enable bit and memory space")
  func rom() {
    var space = Self.makeSpace()
    _ = space.write(0xFEB0_0001, at: 0x30, width: .long)
    #expect(space.rom == nil)
    _ = space.write(0x0002, at: 0x04, width: .word)
    #expect(space.rom == DecodedRegion(kind: .rom, base: 0xFEB0_0000, size: 64 << 10))
    _ = space.write(0xFEB0_0000, at: 0x30, width: .long)
    #expect(space.rom == nil)
  }

  @Test("bytes and words reach single lanes of a base address")
  func lanes() {
    var space = Self.makeSpace()
    #expect(space.write(0xE0, at: 0x1B, width: .byte) == .baseAddress)
    #expect(space.write(0x1234, at: 0x19, width: .word) == .baseAddress)
    #expect(space.read(at: 0x18, width: .long) == 0xE012_3000)
    #expect(space.read(at: 0x1A, width: .word) == 0xE012)
    #expect(space.read(at: 0xFE, width: .long) == 0xFFFF_0000)
  }

  @Test("the interrupt line is software's, the pin is not")
  func interruptLine() {
    var space = Self.makeSpace()
    #expect(space.write(0xFF0B, at: 0x3C, width: .word) == .interruptLine)
    #expect(space.interruptLine == 0x0B)
    #expect(space.interruptPin == 1)
  }

  @Test("reset takes every register back")
  func reset() {
    var space = Self.makeSpace()
    let fresh = encoded(space)
    for offset in stride(from: 0, to: 256, by: 4) {
      _ = space.write(0xFFFF_FFFF, at: UInt8(offset), width: .long)
    }
    #expect(encoded(space) != fresh)
    space.reset()
    #expect(encoded(space) == fresh)
  }

  @Test("state survives a round trip, and a hostile one cannot move fixed bits")
  func state() {
    var space = Self.makeSpace()
    _ = space.write(0xE000_0000, at: 0x18, width: .long)
    _ = space.write(0x0006, at: 0x04, width: .word)
    var other = Self.makeSpace()
    restore(encoded(space), into: &other)
    #expect(encoded(other) == encoded(space))
    #expect(other.region(2) == space.region(2))
    restore([UInt8](repeating: 0xFF, count: 300), into: &other)
    #expect(other.read(at: 0x00, width: .long) == 0x1111_1234)
    #expect(other.read(at: 0x08, width: .long) == 0x0300_0002)
  }

  @Test("no access traps", arguments: [UInt64(1), 2] as [UInt64])
  func hostile(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var space = Self.makeSpace()
    for _ in 0..<200_000 {
      let word = random.next()
      let offset = UInt8(truncatingIfNeeded: word)
      let width = AccessWidth.allCases[Int(word >> 8 & 3)]
      if word & 0x400 != 0 {
        _ = space.write(UInt32(truncatingIfNeeded: word >> 32), at: offset, width: width)
      } else {
        _ = space.read(at: offset, width: width)
      }
      for index in 0..<6 {
        guard let region = space.region(index) else { continue }
        #expect(region.base % region.size == 0)
      }
      _ = space.rom
    }
    #expect(space.read(at: 0x00, width: .long) == 0x1111_1234)
  }
}
