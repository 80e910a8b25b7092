// SPDX-License-Identifier: Apache-2.0

/// Instructions that are atomic: with LOCK, and XCHG with memory always.
///
/// XADD and CMPXCHG take the same way without LOCK, which is stronger than asked.
extension SoftCPU {
  mutating func executeLocked(_ i: Instruction) throws(Fault) {
    switch i.op {
    case .cmpxchg8b: return try compareExchange8(i)
    case .cmpxchg16b: return try compareExchange16(i)
    default: break
    }
    switch i.size {
    case 1: try locked(UInt8.self, i)
    case 2: try locked(UInt16.self, i)
    case 4: try locked(UInt32.self, i)
    default: try locked(UInt64.self, i)
    }
  }

  private mutating func locked<T: Operand>(_ type: T.Type, _ i: Instruction) throws(Fault) {
    switch i.op {
    case .lockedALU:
      let operand =
        i.scale & 0x80 != 0 ? get(i.reg, type) : T(truncatingIfNeeded: i.immediate)
      let place = try lockedPlace(i)
      let operation = ALU(rawValue: i.vvvv) ?? .add
      let carry: T = flags.cf ? 1 : 0
      let old = try exchange(type, place) { old in
        switch operation {
        case .add: old &+ operand
        case .or: old | operand
        case .adc: old &+ operand &+ carry
        case .sbb: old &- operand &- carry
        case .and: old & operand
        case .sub: old &- operand
        case .xor: old ^ operand
        case .cmp: old
        }
      }
      _ = alu(operation, old, operand)
    case .lockedUnary:
      let place = try lockedPlace(i)
      switch i.vvvv {
      case 0:
        let old = try exchange(type, place) { $0 &+ 1 }
        _ = increment(old)
      case 1:
        let old = try exchange(type, place) { $0 &- 1 }
        _ = decrement(old)
      case 2: _ = try exchange(type, place) { ~$0 }
      default:
        let old = try exchange(type, place) { 0 &- $0 }
        _ = negate(old)
      }
    case .xchgM:
      let value = get(i.reg, type)
      let old = try exchange(type, try lockedPlace(i)) { _ in value }
      put(i.reg, old)
    case .xadd:
      let value = get(i.reg, type)
      let old: T
      if i.isRegister {
        old = get(i.rm, type)
        put(i.reg, old)
        put(i.rm, old &+ value)
      } else {
        old = try exchange(type, try lockedPlace(i)) { $0 &+ value }
        put(i.reg, old)
      }
      _ = add(old, value)
    default: try compareExchange(type, i)
    }
  }

  /// The linear address of a locked operand.
  private mutating func lockedPlace(_ i: Instruction) throws(Fault) -> UInt64 {
    var plain = i
    plain.scale &= 3
    return try linear(plain, Int(i.size), isWrite: true)
  }

  private mutating func compareExchange<T: Operand>(_ type: T.Type, _ i: Instruction)
    throws(Fault)
  {
    let expected = get(0, type)
    let value = get(i.reg, type)
    let old: T
    if i.isRegister {
      old = get(i.rm, type)
      _ = subtract(expected, old)
      if old == expected {
        put(i.rm, value)
      } else {
        // The accumulator takes a whole register's write only when it changes.
        put(0, old)
      }
      return
    }
    old = try exchange(type, try lockedPlace(i)) { $0 == expected ? value : $0 }
    _ = subtract(expected, old)
    if old != expected { put(0, old) }
  }

  private mutating func compareExchange8(_ i: Instruction) throws(Fault) {
    let expected = UInt64(reg32(2)) << 32 | UInt64(reg32(0))
    let value = UInt64(reg32(1)) << 32 | UInt64(reg32(3))
    let place = try linear(i, 8, isWrite: true)
    let old = try exchange(UInt64.self, place) { $0 == expected ? value : $0 }
    flags.setZero(old == expected)
    guard old != expected else { return }
    setReg32(0, UInt32(truncatingIfNeeded: old))
    setReg32(2, UInt32(truncatingIfNeeded: old >> 32))
  }

  private mutating func compareExchange16(_ i: Instruction) throws(Fault) {
    guard has(.cmpxchg16b) else { throw .undefined }
    let place = try linear(i, 16, isWrite: true)
    guard place & 15 == 0 else { throw .protection() }
    let expected = (gpr[0], gpr[2])
    let old = try exchange16(place, expected: expected, new: (gpr[3], gpr[1]))
    flags.setZero(old == expected)
    guard old != expected else { return }
    (gpr[0], gpr[2]) = old
  }
}
