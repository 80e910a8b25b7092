// SPDX-License-Identifier: Apache-2.0

/// The six arithmetic flags, kept as what they are computed from.
///
/// `result` is the last result, sign-extended; `aux` has the carry in bit 63, carry xor overflow
/// in bit 62, the auxiliary carry in bit 3, what to flip in the parity byte in bits 8 to 15, and
/// in bit 16 whether the sign is the opposite of the result's.
struct LazyFlags: BitwiseCopyable, Sendable {
  var result: Int64 = 1
  var aux: UInt64 = 0

  static let carry: UInt64 = 1
  static let parity: UInt64 = 4
  static let adjust: UInt64 = 16
  static let zero: UInt64 = 64
  static let sign: UInt64 = 128
  static let overflow: UInt64 = 2048
  /// All six.
  static let mask: UInt64 = 0x8D5

  var cf: Bool { @inline(__always) get { Int64(bitPattern: aux) < 0 } }
  var of: Bool { @inline(__always) get { Int64(bitPattern: aux ^ aux << 1) < 0 } }
  var zf: Bool { @inline(__always) get { result == 0 } }
  var sf: Bool { @inline(__always) get { (result < 0) != (aux & 0x10000 != 0) } }
  var af: Bool { @inline(__always) get { aux & 8 != 0 } }
  var pf: Bool {
    @inline(__always) get {
      let byte = UInt8(truncatingIfNeeded: UInt64(bitPattern: result) ^ aux >> 8)
      return byte.nonzeroBitCount & 1 == 0
    }
  }

  /// The flags as bits of RFLAGS.
  var bits: UInt64 {
    (cf ? Self.carry : 0) | (pf ? Self.parity : 0) | (af ? Self.adjust : 0)
      | (zf ? Self.zero : 0) | (sf ? Self.sign : 0) | (of ? Self.overflow : 0)
  }

  /// Sets all six from bits of RFLAGS.
  mutating func set(_ bits: UInt64) {
    result = bits & Self.zero != 0 ? 0 : 0x100
    let carry = bits & Self.carry != 0
    let overflow = bits & Self.overflow != 0
    aux =
      (carry ? 1 << 63 : 0) | (carry != overflow ? 1 << 62 : 0)
      | (bits & Self.adjust != 0 ? 8 : 0) | (bits & Self.parity != 0 ? 0 : 0x100)
      | (bits & Self.sign != 0 ? 0x10000 : 0)
  }

  /// Sets carry and overflow and leaves the others.
  @inline(__always)
  mutating func setCarry(_ carry: Bool, overflow: Bool) {
    aux = aux & ~(3 << 62) | (carry ? 1 << 63 : 0) | (carry != overflow ? 1 << 62 : 0)
  }

  /// Sets the carry and leaves the others, overflow too.
  mutating func setCarry(_ carry: Bool) { setCarry(carry, overflow: of) }

  /// Sets the zero flag and leaves the others.
  mutating func setZero(_ zero: Bool) {
    let bits = self.bits
    set(zero ? bits | Self.zero : bits & ~Self.zero)
  }
}
