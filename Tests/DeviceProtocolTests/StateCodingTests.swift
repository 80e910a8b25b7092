// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import TestSupport
import Testing

struct Part: DeviceState, Equatable {
  var level = false
  var count: UInt16 = 0
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("level", &level)
    visitor.field("count", &count)
  }
}

struct Whole: DeviceState, Equatable {
  var wide: UInt64 = 0
  var signed: Int32 = 0
  var bytes: [UInt8] = []
  var part = Part()
  var parts = [Part(), Part()]
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("wide", &wide)
    visitor.field("signed", &signed)
    visitor.field("bytes", &bytes, capacity: 8)
    visitor.part("part", &part)
    visitor.parts("parts", &parts)
  }
}

/// What ``Whole`` might become: a field narrower, one wider, one gone, one new.
struct Changed: DeviceState {
  var wide: UInt16 = 1
  var signed: UInt64 = 1
  var new: UInt8 = 99
  var part = Part()
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("new", &new)
    visitor.part("part", &part)
    visitor.field("signed", &signed)
    visitor.field("wide", &wide)
  }
}

@Suite struct StateCodingTests {
  static let whole = Whole(
    wide: 0x1122_3344_5566_7788, signed: -5, bytes: [1, 2, 3], part: Part(level: true, count: 7),
    parts: [Part(level: false, count: 8), Part(level: true, count: 9)])

  static func encode<S: DeviceState>(_ state: S) -> [UInt8] {
    var encoder = StateEncoder()
    var copy = state
    copy.visitState(&encoder)
    return encoder.bytes
  }

  @Test func `A state comes back as it was, with nested parts and arrays of them`() throws {
    var decoder = try StateDecoder(
      layout: StateLayout.of(Self.whole), values: Self.encode(Self.whole))
    var found = Whole()
    found.visitState(&decoder)
    #expect(found == Self.whole)
  }

  @Test func `The values are little-endian in the order of the fields`() {
    #expect(Self.encode(Part(level: true, count: 0x1234)) == [1, 0x34, 0x12])
    #expect(StateLayout.of(Part()) == [1, 5] + Array("level".utf8) + [2, 5] + Array("count".utf8))
  }

  @Test func `Fields are found by name: new ones stay, wider ones are extended`() throws {
    var decoder = try StateDecoder(
      layout: StateLayout.of(Self.whole), values: Self.encode(Self.whole))
    var found = Changed()
    found.visitState(&decoder)
    #expect(found.wide == 0x7788 && found.signed == 0xFFFF_FFFB)
    #expect(found.new == 99 && found.part == Self.whole.part)
  }

  @Test func `Values cut or extended anywhere are refused`() {
    let layout = StateLayout.of(Self.whole)
    let values = Self.encode(Self.whole)
    for count in values.indices {
      #expect(throws: ProtocolError.self) {
        try StateDecoder(layout: layout, values: Array(values.prefix(count)))
      }
    }
    #expect(throws: ProtocolError.self) { try StateDecoder(layout: layout, values: values + [0]) }
    #expect(throws: ProtocolError.self) {
      try StateDecoder(layout: Array(layout.dropLast()), values: values)
    }
    #expect(throws: ProtocolError.self) {
      try StateDecoder(layout: [255, 1, 65], values: [0xFF, 0xFF, 0xFF, 0xFF])
    }
  }
}
