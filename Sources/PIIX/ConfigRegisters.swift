// SPDX-License-Identifier: Apache-2.0

import DeviceModel

/// A function's own configuration registers, 40h to FFh; the core holds the header below.
///
/// Offsets are those of the configuration space. Each byte has a value, the bits that
/// software may change, and the bits that a written one clears.
struct ConfigRegisters: DeviceState, Sendable {
  private var value = [256 of UInt8](repeating: 0)
  private var writable = [256 of UInt8](repeating: 0)
  private var clearable = [256 of UInt8](repeating: 0)
  private var initial = [256 of UInt8](repeating: 0)

  /// One byte's offset, its value after reset and the bits that software may change.
  struct Byte {
    var offset: UInt8
    var value: UInt8
    var writable: UInt8
    var clearable: UInt8 = 0

    init(_ offset: UInt8, _ value: UInt8, _ writable: UInt8, clearable: UInt8 = 0) {
      self.offset = offset
      self.value = value
      self.writable = writable
      self.clearable = clearable
    }
  }

  init(_ bytes: [Byte]) {
    for byte in bytes {
      value[Int(byte.offset)] = byte.value
      initial[Int(byte.offset)] = byte.value
      writable[Int(byte.offset)] = byte.writable
      clearable[Int(byte.offset)] = byte.clearable
    }
  }

  subscript(offset: UInt8) -> UInt8 { value[Int(offset)] }

  /// Returns registers from 40h up; the header's place and what lies past FFh read as ones.
  func read(at offset: UInt8, width: AccessWidth) -> UInt32 {
    var result: UInt32 = 0
    for lane in 0..<min(width.byteCount, 4) {
      let byte = Int(offset) + lane
      result |= UInt32((0x40..<0x100).contains(byte) ? value[byte] : 0xFF) << (8 * lane)
    }
    return result
  }

  mutating func write(_ new: UInt32, at offset: UInt8, width: AccessWidth) {
    for lane in 0..<min(width.byteCount, 4, 256 - Int(offset)) {
      let byte = Int(offset) + lane
      guard byte >= 0x40 else { continue }
      let bits = UInt8(truncatingIfNeeded: new >> (8 * lane))
      let mask = writable[byte]
      value[byte] = (value[byte] & ~mask | bits & mask) & ~(bits & clearable[byte])
    }
  }

  mutating func reset() { value = initial }

  @specialized(where V == StateEncoder)
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    let before = value
    visitor.bytes("value", &value)
    for byte in 0..<256 {
      let free = writable[byte] | clearable[byte]
      value[byte] = before[byte] & ~free | value[byte] & free
    }
  }
}
