// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import ModelTestSupport
import Testing

@Suite struct VMTimeTests {
  @Test(
    "Ticks are exact, rounded down",
    arguments: [
      (0, 3_579_545, 0), (1_000_000_000, 3_579_545, 3_579_545), (279, 3_579_545, 0),
      (280, 3_579_545, 1), (86_400_000_000_000, 32_768, 2_831_155_200),
      // A year at 1 GHz: the product needs more than 64 bits.
      (31_536_000_000_000_000, 1_000_000_000, 31_536_000_000_000_000),
    ] as [(UInt64, UInt64, UInt64)])
  func ticks(nanoseconds: UInt64, frequency: UInt64, ticks: UInt64) {
    #expect(VMTime(nanoseconds: nanoseconds).ticks(frequency: frequency) == ticks)
  }

  @Test("A clock too fast to count does not trap")
  func extremes() {
    #expect(VMTime(nanoseconds: .max).ticks(frequency: .max) == .max)
    #expect(VMTime(nanoseconds: .max).advanced(by: 1) == .zero)
  }
}

@Suite struct AccessWidthTests {
  @Test(
    "A width says what it carries",
    arguments: [
      (AccessWidth.byte, 0xFF, 1), (.word, 0xFFFF, 2), (.long, 0xFFFF_FFFF, 4), (.quad, .max, 8),
    ] as [(AccessWidth, UInt64, Int)])
  func masks(width: AccessWidth, mask: UInt64, byteCount: Int) {
    #expect(width.mask == mask)
    #expect(width.floating == mask)
    #expect(width.byteCount == byteCount)
  }
}

/// A state with a field of every kind.
private struct Sample: DeviceState {
  enum Mode: UInt8 {
    case off = 0
    case on = 3
  }
  struct Part: DeviceState {
    var value: UInt16
    mutating func visitState<V: StateVisitor>(_ visitor: inout V) { visitor.field("v", &value) }
  }

  var mode = Mode.off
  var flag = false
  var block = [4 of UInt8](repeating: 0)
  var parts = [Part(value: 1), Part(value: 2)]

  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("mode", &mode)
    visitor.field("flag", &flag)
    visitor.bytes("block", &block)
    visitor.parts("part", &parts)
  }
}

@Suite struct DeviceStateTests {
  @Test("Enumerations, blocks and parts come back as they were")
  func roundTrip() {
    var sample = Sample()
    sample.mode = .on
    sample.flag = true
    sample.block[3] = 9
    sample.parts[1].value = 0xABCD

    var other = Sample()
    restore(encoded(sample), into: &other)

    #expect(other.mode == .on && other.flag && other.block[3] == 9)
    #expect(other.parts.map(\.value) == [1, 0xABCD])
  }

  @Test("A raw value that an enumeration does not have leaves it as it was")
  func unknownCase() {
    var sample = Sample()
    sample.mode = .on
    restore([7], into: &sample)
    #expect(sample.mode == .on)
  }

  @Test("A block that is too short keeps the bytes that are missing")
  func shortBlock() {
    var sample = Sample()
    sample.block[2] = 5
    restore([0, 0, 2, 0, 0, 0, 1, 1], into: &sample)
    #expect(sample.block[0] == 1 && sample.block[1] == 1 && sample.block[2] == 5)
  }
}
