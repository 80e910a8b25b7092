// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import ModelTestSupport
import Testing

@testable import VGA

@Suite("VGA state and random access")
struct VGAStateTests {
  @Test("state goes to bytes and back, whatever it was", arguments: 1...6)
  func roundTrip(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var machine = Machine.text
    hammer(&machine, count: 3000, with: &generator)
    let encoded = StateBytes.encode(machine.vga)
    #expect(Set(encoded.names).count == encoded.names.count)
    var other = Machine()
    #expect(StateBytes.decode(encoded.bytes, into: &other.vga) == 0)
    #expect(StateBytes.encode(other.vga).bytes == encoded.bytes)
    // With the same memory both go on alike.
    other.memory = machine.memory
    other.now = machine.now
    var again = generator
    hammer(&machine, count: 1000, with: &generator)
    hammer(&other, count: 1000, with: &again)
    #expect(StateBytes.encode(other.vga).bytes == StateBytes.encode(machine.vga).bytes)
    #expect(other.memory.bytes == machine.memory.bytes)
  }

  @Test("damaged state is taken without a trap", arguments: 1...20)
  func damagedState(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    var machine = Machine()
    let garbage = (0..<2000).map { _ in UInt8.random(in: 0...255, using: &generator) }
    _ = StateBytes.decode(garbage, into: &machine.vga)
    hammer(&machine, count: 500, with: &generator)
    let frame = machine.vga.frame(now: machine.now)
    #expect((0...VGAFrame.maximumWidth).contains(frame.width))
  }

  @Test("random accesses and pictures never trap")
  func fuzz() {
    var generator = SeededGenerator(seed: 0x3DA)
    var machine = Machine.text
    hammer(&machine, count: 220_000, with: &generator)
    #expect(machine.memory.bytes.count == 1 << 20)
  }

  @Test("a reset brings back the state of a new controller")
  func reset() {
    var machine = Machine.packed
    machine.setVBE(640, 480, 8)
    machine.vga.reset()
    let fresh = VGAController(memoryByteCount: 1 << 20)
    #expect(StateBytes.encode(machine.vga).bytes == StateBytes.encode(fresh).bytes)
  }

  /// Makes random accesses to ports, region and window, and renders now and then.
  private func hammer(
    _ machine: inout Machine, count: Int, with generator: inout SeededGenerator
  ) {
    for step in 0..<count {
      let random = generator.next()
      let value = generator.next()
      machine.now = machine.now.advanced(by: random >> 36)
      let width = AccessWidth.allCases[Int(random & 3)]
      let port = 0x3B0 + UInt16(random >> 2 & 0x2F)
      let offset = UInt16(random >> 2 & 0x7FF)
      let place = Int(random >> 2 & 0x3FFFF) - 16
      switch random >> 24 & 15 {
      case 0...4: _ = machine.vga.write(value, at: port, width: width, now: machine.now)
      case 5, 6: _ = machine.vga.read(at: port, width: width, now: machine.now)
      case 7: machine.putVBE(UInt16(truncatingIfNeeded: value), index: UInt16(random >> 2 & 15))
      case 8: _ = machine.vga.readRegion(at: offset, width: width, now: machine.now)
      case 9: _ = machine.vga.writeRegion(value, at: offset, width: width, now: machine.now)
      case 10...12:
        machine.vga.writeWindow(value, at: place, width: width, memory: &machine.memory)
      case 13, 14: _ = machine.vga.readWindow(at: place, width: width, memory: machine.memory)
      default:
        _ = machine.vga.read(at: 0x1CE + UInt16(random >> 2 & 3), width: width, now: machine.now)
      }
      guard step % 1000 == 0 else { continue }
      let frame = machine.vga.frame(now: machine.now)
      var row = [UInt32](repeating: 0, count: frame.width)
      let line = frame.height == 0 ? 0 : Int(value % UInt64(frame.height))
      frame.render(line: line, memory: machine.memory, into: &row)
      if step % 40_000 == 0 { _ = frame.textLines(memory: machine.memory) }
    }
  }
}
