// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel

/// A bit for each vector, such as IRR, ISR and TMR (SDM volume 3, 10.8.4).
struct VectorSet: Sendable, Equatable {
  private var a: UInt64 = 0
  private var b: UInt64 = 0
  private var c: UInt64 = 0
  private var d: UInt64 = 0

  subscript(vector: UInt8) -> Bool {
    get { word(vector >> 6) >> UInt64(vector & 63) & 1 != 0 }
    set {
      let bit = 1 << UInt64(vector & 63) as UInt64
      let old = word(vector >> 6)
      setWord(vector >> 6, newValue ? old | bit : old & ~bit)
    }
  }

  private func word(_ number: UInt8) -> UInt64 {
    switch number {
    case 0: a
    case 1: b
    case 2: c
    default: d
    }
  }

  private mutating func setWord(_ number: UInt8, _ value: UInt64) {
    switch number {
    case 0: a = value
    case 1: b = value
    case 2: c = value
    default: d = value
    }
  }

  /// The register at `offset`, a multiple of 16, of the eight that hold the bits.
  func register(_ offset: UInt32) -> UInt32 {
    let number = UInt8(truncatingIfNeeded: offset >> 4 & 7)
    return UInt32(truncatingIfNeeded: word(number >> 1) >> (number & 1 == 0 ? 0 : 32))
  }

  mutating func setRegister(_ offset: UInt32, _ value: UInt32) {
    let number = UInt8(truncatingIfNeeded: offset >> 4 & 7)
    let shift: UInt64 = number & 1 == 0 ? 0 : 32
    let kept = word(number >> 1) & ~(0xFFFF_FFFF << shift)
    setWord(number >> 1, kept | UInt64(value) << shift)
  }

  /// The highest vector, if there is one.
  var highest: UInt8? {
    if d != 0 { return 255 - UInt8(d.leadingZeroBitCount) }
    if c != 0 { return 191 - UInt8(c.leadingZeroBitCount) }
    if b != 0 { return 127 - UInt8(b.leadingZeroBitCount) }
    if a != 0 { return 63 - UInt8(a.leadingZeroBitCount) }
    return nil
  }

  /// Without the vectors 0 to 15, which no interrupt can have.
  mutating func removeReserved() { a &= ~0xFFFF }
}

extension VectorSet: DeviceState {
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("0", &a)
    visitor.field("64", &b)
    visitor.field("128", &c)
    visitor.field("192", &d)
    removeReserved()
  }
}
