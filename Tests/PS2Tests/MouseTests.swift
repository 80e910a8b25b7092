// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import PS2
import Testing

@Suite("PS2Mouse")
struct PS2MouseTests {
  static func drain(_ mouse: inout PS2Mouse) -> [UInt8] {
    var bytes: [UInt8] = []
    while let byte = mouse.next() { bytes.append(byte) }
    return bytes
  }

  static func send(_ bytes: [UInt8], to mouse: inout PS2Mouse) -> [UInt8] {
    var replies: [UInt8] = []
    for byte in bytes {
      mouse.receive(byte)
      replies += drain(&mouse)
    }
    return replies
  }

  static let wheel: [UInt8] = [0xF3, 200, 0xF3, 100, 0xF3, 80]
  static let fiveButtons: [UInt8] = [0xF3, 200, 0xF3, 200, 0xF3, 80]

  @Test(
    "commands answer as IBM's mouse does",
    arguments: [
      ([UInt8(0xFF)], [UInt8(0xFA), 0xAA, 0x00]), ([0xF2], [0xFA, 0x00]),
      ([0xE9], [0xFA, 0x00, 0x02, 0x64]), ([0xE8, 0x03, 0xE9], [0xFA, 0xFA, 0xFA, 0, 3, 0x64]),
      ([0xE8, 0x04], [0xFA, 0xFE]), ([0xF3, 40, 0xE9], [0xFA, 0xFA, 0xFA, 0, 2, 40]),
      ([0xE7, 0xF4, 0xE9], [0xFA, 0xFA, 0xFA, 0x30, 2, 0x64]),
      ([0xF0, 0xE9], [0xFA, 0xFA, 0x40, 2, 0x64]),
      ([0xEB], [0xFA, 0x08, 0, 0]), ([0xEE, 0xF2, 0xEC], [0xFA, 0xF2, 0xFA]), ([0x12], [0xFE]),
      ([0xF2, 0xFE], [0xFA, 0x00, 0x00]),
    ] as [([UInt8], [UInt8])])
  func commands(bytes: [UInt8], replies: [UInt8]) {
    var mouse = PS2Mouse()
    #expect(Self.send(bytes, to: &mouse) == replies)
  }

  @Test("the rate sequences make a wheel mouse, then one with five buttons")
  func ids() {
    var mouse = PS2Mouse()
    _ = Self.send(Self.fiveButtons, to: &mouse)
    #expect(mouse.id == 0)
    _ = Self.send(Self.wheel, to: &mouse)
    #expect(Self.send([0xF2], to: &mouse) == [0xFA, 0x03])
    _ = Self.send(Self.fiveButtons, to: &mouse)
    #expect(Self.send([0xF2], to: &mouse) == [0xFA, 0x04])
    _ = Self.send([0xFF], to: &mouse)
    #expect(mouse.id == 0)
  }

  @Test("motion is sent only while reporting, with signs in the first byte")
  func packets() {
    var mouse = PS2Mouse()
    mouse.move(dx: 5, dy: 3)
    #expect(!mouse.hasOutput)
    _ = Self.send([0xF4], to: &mouse)
    mouse.move(dx: 5, dy: 3)
    mouse.setButtons([.left, .middle])
    #expect(Self.drain(&mouse) == [0x2D, 5, 0xFD])
    mouse.move(dx: -2, dy: -1)
    #expect(Self.drain(&mouse) == [0x1D, 0xFE, 1])
  }

  @Test("long motion is split into packets")
  func longMotion() {
    var mouse = PS2Mouse()
    _ = Self.send([0xF4], to: &mouse)
    mouse.move(dx: 300, dy: 0)
    #expect(Self.drain(&mouse) == [0x08, 255, 0, 0x08, 45, 0])
  }

  @Test("the wheel and the fourth and fifth buttons are in a fourth byte")
  func wheelPackets() {
    var mouse = PS2Mouse()
    _ = Self.send(Self.wheel + [0xF4], to: &mouse)
    mouse.move(dx: 0, dy: 0, wheel: -1)
    #expect(Self.drain(&mouse) == [0x08, 0, 0, 0xFF])
    _ = Self.send(Self.fiveButtons, to: &mouse)
    mouse.setButtons([.side, .extra])
    #expect(Self.drain(&mouse) == [0x08, 0, 0, 0x30])
  }

  @Test("remote mode sends a packet only when asked")
  func remote() {
    var mouse = PS2Mouse()
    _ = Self.send([0xF0, 0xF4], to: &mouse)
    mouse.move(dx: 1, dy: 0)
    #expect(!mouse.hasOutput)
    #expect(Self.send([0xEB], to: &mouse) == [0xFA, 0x08, 1, 0])
  }

  @Test(
    "2:1 scaling follows IBM's table in stream mode",
    arguments: [
      (Int32(1), UInt8(1)), (2, 1), (3, 3), (4, 6), (5, 9), (6, 12), (200, 255),
    ] as [(Int32, UInt8)])
  func scaling(counts: Int32, sent: UInt8) {
    var mouse = PS2Mouse()
    _ = Self.send([0xE7, 0xF4], to: &mouse)
    mouse.move(dx: counts, dy: 0)
    #expect(Self.drain(&mouse) == [0x08, sent, 0])
  }

  @Test("any motion is taken without a trap")
  func extremes() {
    var mouse = PS2Mouse()
    mouse.receive(0xF4)
    for value in [Int32.min, .max, -1, 0, 1] {
      mouse.move(dx: value, dy: .min, wheel: .max)
      mouse.move(dx: .max, dy: value, wheel: .min)
    }
    #expect(!Self.drain(&mouse).isEmpty)
  }
}
