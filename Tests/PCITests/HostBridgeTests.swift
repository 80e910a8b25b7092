// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import PCI
import ModelTestSupport
import Testing

@Suite("ConfigurationMechanism1")
struct ConfigurationMechanism1Tests {
  @Test("the latch keeps no reserved bits")
  func latch() {
    var mechanism = ConfigurationMechanism1()
    mechanism.writeAddress(0xFFFF_FFFF)
    #expect(mechanism.address == 0x80FF_FFFC)
  }

  @Test(
    "only a long at CF8h is the latch",
    arguments: [
      (UInt16(0), AccessWidth.long, true), (0, .byte, false), (0, .word, false),
      (1, .byte, false), (1, .long, false), (4, .long, false),
    ] as [(UInt16, AccessWidth, Bool)])
  func addressAccess(offset: UInt16, width: AccessWidth, isAddress: Bool) {
    #expect(ConfigurationMechanism1.isAddress(at: offset, width: width) == isAddress)
  }

  @Test("the data ports name bus, device, function and lane")
  func target() {
    var mechanism = ConfigurationMechanism1()
    mechanism.writeAddress(0x8000_0B40)
    #expect(
      mechanism.target(at: 6, width: .word)
        == ConfigurationTarget(bus: 0, device: 1, function: 3, offset: 0x42))
    mechanism.writeAddress(0x8012_FFFC)
    #expect(
      mechanism.target(at: 7, width: .byte)
        == ConfigurationTarget(bus: 0x12, device: 31, function: 7, offset: 0xFF))
  }

  @Test("no target without the enable bit, off the data ports or past their end")
  func noTarget() {
    var mechanism = ConfigurationMechanism1()
    mechanism.writeAddress(0x0000_0B40)
    #expect(mechanism.target(at: 4, width: .long) == nil)
    mechanism.writeAddress(0x8000_0B40)
    #expect(mechanism.target(at: 0, width: .byte) == nil)
    #expect(mechanism.target(at: 5, width: .long) == nil)
    #expect(mechanism.target(at: 8, width: .byte) == nil)
    #expect(mechanism.target(at: 0xFFFF, width: .quad) == nil)
  }

  @Test("state survives a round trip")
  func state() {
    var mechanism = ConfigurationMechanism1()
    mechanism.writeAddress(0x8000_1234)
    var other = ConfigurationMechanism1()
    restore(encoded(mechanism), into: &other)
    #expect(other.address == mechanism.address)
  }
}

@Suite("I440FXHostBridge")
struct I440FXHostBridgeTests {
  @Test(
    "registers after reset are the data sheet's",
    arguments: [
      (UInt8(0x00), AccessWidth.long, UInt32(0x1237_8086)), (0x04, .long, 0x0280_0006),
      (0x08, .long, 0x0600_0002), (0x0E, .byte, 0), (0x2C, .long, 0x1100_1AF4),
      (0x53, .byte, 0x80), (0x57, .byte, 0x01), (0x59, .byte, 0), (0x5F, .byte, 0),
      (0x60, .long, 0x0101_0101), (0x64, .long, 0x0101_0101), (0x71, .byte, 0x10),
      (0x72, .byte, 0x02), (0x91, .byte, 0x00), (0x93, .byte, 0x00),
    ] as [(UInt8, AccessWidth, UInt32)])
  func reset(offset: UInt8, width: AccessWidth, value: UInt32) {
    #expect(I440FXHostBridge().read(at: offset, width: width) == value)
  }

  @Test("all segments start on PCI and cover C0000h to FFFFFh once")
  func segments() {
    let bridge = I440FXHostBridge()
    let segments = (0..<13).map { bridge.segment($0) }
    #expect(segments.allSatisfy { !$0.readsDRAM && !$0.writesDRAM })
    #expect(segments[0].base == 0xF_0000)
    #expect(segments[0].size == 0x1_0000)
    #expect(segments[1...].map(\.base) == (0..<12).map { 0xC_0000 + UInt32($0) * 0x4000 })
    #expect(segments[1...].allSatisfy { $0.size == 0x4000 })
  }

  @Test(
    "each PAM nibble governs its segment",
    arguments: [
      (UInt8(0x59), UInt32(0x30), 0), (0x5A, 0x03, 1), (0x5A, 0x30, 2), (0x5B, 0x03, 3),
      (0x5B, 0x30, 4), (0x5C, 0x03, 5), (0x5C, 0x30, 6), (0x5D, 0x03, 7), (0x5D, 0x30, 8),
      (0x5E, 0x03, 9), (0x5E, 0x30, 10), (0x5F, 0x03, 11), (0x5F, 0x30, 12),
    ] as [(UInt8, UInt32, Int)])
  func attributes(offset: UInt8, value: UInt32, index: Int) {
    var bridge = I440FXHostBridge()
    #expect(bridge.write(value, at: offset, width: .byte) == .segments)
    for other in 0..<13 {
      #expect(bridge.segment(other).readsDRAM == (other == index))
      #expect(bridge.segment(other).writesDRAM == (other == index))
    }
  }

  @Test("read and write enable are apart, and reserved bits stay zero")
  func attributeBits() {
    var bridge = I440FXHostBridge()
    _ = bridge.write(0xFF, at: 0x59, width: .byte)
    #expect(bridge.read(at: 0x59, width: .byte) == 0x30)
    _ = bridge.write(0x10, at: 0x59, width: .byte)
    #expect(bridge.segment(0).readsDRAM && !bridge.segment(0).writesDRAM)
    _ = bridge.write(0x20, at: 0x59, width: .byte)
    #expect(!bridge.segment(0).readsDRAM && bridge.segment(0).writesDRAM)
    #expect(bridge.write(0x20, at: 0x59, width: .byte) == [])
  }

  @Test("SMRAM opens with DOPEN and G_SMRAME, and DLCK closes and freezes it")
  func systemManagementRAM() {
    var bridge = I440FXHostBridge()
    #expect(bridge.write(0x48, at: 0x72, width: .byte) == .systemManagementRAM)
    #expect(bridge.read(at: 0x72, width: .byte) == 0x4A)
    #expect(bridge.isSystemManagementRAMOpen)
    _ = bridge.write(0x58, at: 0x72, width: .byte)
    #expect(bridge.read(at: 0x72, width: .byte) == 0x1A)
    #expect(!bridge.isSystemManagementRAMOpen)
    _ = bridge.write(0x40, at: 0x72, width: .byte)
    #expect(bridge.read(at: 0x72, width: .byte) == 0x1A)
    bridge.reset()
    #expect(bridge.read(at: 0x72, width: .byte) == 0x02)
  }

  @Test("the turbo reset control register resets once as bit 2 rises")
  func turboReset() {
    var bridge = I440FXHostBridge()
    #expect(bridge.write(0x04, at: 0x93, width: .byte) == .softReset)
    #expect(bridge.write(0x06, at: 0x93, width: .byte) == [])
    _ = bridge.write(0x02, at: 0x93, width: .byte)
    #expect(bridge.write(0x06, at: 0x93, width: .byte) == .hardReset)
  }

  @Test("the command register keeps memory and bus master on")
  func command() {
    var bridge = I440FXHostBridge()
    _ = bridge.write(0x0000, at: 0x04, width: .word)
    #expect(bridge.read(at: 0x04, width: .word) == 0x0006)
    _ = bridge.write(0xFFFF, at: 0x04, width: .word)
    #expect(bridge.read(at: 0x04, width: .word) == 0x0146)
  }

  @Test("state survives a round trip")
  func state() {
    var bridge = I440FXHostBridge()
    _ = bridge.write(0x3333_3333, at: 0x5A, width: .long)
    _ = bridge.write(0x5A, at: 0x72, width: .byte)
    var other = I440FXHostBridge()
    restore(encoded(bridge), into: &other)
    #expect(encoded(other) == encoded(bridge))
    #expect(other.segment(8) == bridge.segment(8))
  }

  @Test("no access traps")
  func hostile() {
    var random = SeededGenerator(seed: 440)
    var bridge = I440FXHostBridge()
    for _ in 0..<200_000 {
      let word = random.next()
      let offset = UInt8(truncatingIfNeeded: word)
      let width = AccessWidth.allCases[Int(word >> 8 & 3)]
      if word & 0x400 != 0 {
        _ = bridge.write(UInt32(truncatingIfNeeded: word >> 32), at: offset, width: width)
      } else {
        _ = bridge.read(at: offset, width: width)
      }
    }
    #expect(bridge.read(at: 0x00, width: .long) == 0x1237_8086)
    #expect(bridge.read(at: 0x72, width: .byte) & 0x07 == 0x02)
  }
}
