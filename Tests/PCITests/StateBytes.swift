// SPDX-License-Identifier: Apache-2.0

import DeviceModel

/// Encodes a device's state to bytes, for round-trip tests.
struct StateEncoder: StateVisitor {
  private(set) var bytes: [UInt8] = []
  private(set) var names: [String] = []

  mutating func field<T: FixedWidthInteger>(_ name: StaticString, _ value: inout T) {
    names.append("\(name)")
    for shift in stride(from: 0, to: T.bitWidth, by: 8) {
      bytes.append(UInt8(truncatingIfNeeded: value >> T(truncatingIfNeeded: shift)))
    }
  }

  mutating func field(_ name: StaticString, _ value: inout Bool) {
    names.append("\(name)")
    bytes.append(value ? 1 : 0)
  }

  mutating func field(_ name: StaticString, _ value: inout [UInt8], capacity: Int) {
    names.append("\(name)")
    var count = UInt32(min(value.count, capacity))
    field(name, &count)
    bytes += value.prefix(capacity)
  }

  mutating func part<S: DeviceState>(_ name: StaticString, _ value: inout S) {
    value.visitState(&self)
  }
}

/// Decodes what ``StateEncoder`` wrote; bytes past the end are zero.
struct StateDecoder: StateVisitor {
  private var bytes: ArraySlice<UInt8>

  init(_ bytes: [UInt8]) { self.bytes = bytes[...] }

  mutating func field<T: FixedWidthInteger>(_ name: StaticString, _ value: inout T) {
    var result: T = 0
    for shift in stride(from: 0, to: T.bitWidth, by: 8) {
      result |= T(truncatingIfNeeded: bytes.popFirst() ?? 0) << T(truncatingIfNeeded: shift)
    }
    value = result
  }

  mutating func field(_ name: StaticString, _ value: inout Bool) {
    value = (bytes.popFirst() ?? 0) != 0
  }

  mutating func field(_ name: StaticString, _ value: inout [UInt8], capacity: Int) {
    var count: UInt32 = 0
    field(name, &count)
    let taken = min(Int(count), capacity, bytes.count)
    value = Array(bytes.prefix(taken))
    bytes = bytes.dropFirst(taken)
  }

  mutating func part<S: DeviceState>(_ name: StaticString, _ value: inout S) {
    value.visitState(&self)
  }
}

/// Returns the encoded state of a device.
func encoded<S: DeviceState>(_ device: S) -> [UInt8] {
  var copy = device
  var encoder = StateEncoder()
  copy.visitState(&encoder)
  return encoder.bytes
}

/// Restores a state into a device.
func restore<S: DeviceState>(_ bytes: [UInt8], into device: inout S) {
  var decoder = StateDecoder(bytes)
  device.visitState(&decoder)
}

/// A small generator with a seed (SplitMix64), so that a failing run can be repeated.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var word = state
    word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
    word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
    return word ^ (word >> 31)
  }
}
