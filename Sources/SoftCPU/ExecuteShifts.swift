// SPDX-License-Identifier: Apache-2.0

/// Shifts and rotates (SDM volume 2, SAL/SAR/SHL/SHR and RCL/RCR/ROL/ROR).
extension SoftCPU {
  // MARK: - Of a register by a constant, not zero and less than the width

  @inline(__always)
  mutating func shiftLeft<T: Operand>(_ type: T.Type, _ i: Instruction) {
    put(i.rm, shiftedLeft(get(i.rm, type), Int(truncatingIfNeeded: i.immediate)))
  }

  @inline(__always)
  mutating func shiftRight<T: Operand>(_ type: T.Type, _ i: Instruction) {
    put(i.rm, shiftedRight(get(i.rm, type), Int(truncatingIfNeeded: i.immediate)))
  }

  @inline(__always)
  mutating func shiftArithmetically<T: Operand>(_ type: T.Type, _ i: Instruction) {
    put(i.rm, shiftedArithmetically(get(i.rm, type), Int(truncatingIfNeeded: i.immediate)))
  }

  // MARK: - Values; the count is not zero

  @inline(__always)
  private mutating func shiftedLeft<T: Operand>(_ value: T, _ count: Int) -> T {
    let result = value << T(truncatingIfNeeded: count)
    // The last bit out; beyond the width it is zero, as AMD's and Intel's processors have it.
    let carry = count <= T.bitWidth ? value >> T(truncatingIfNeeded: T.bitWidth - count) & 1 : 0
    setLogicFlags(result)
    flags.setCarry(carry != 0, overflow: (result >> T(T.bitWidth - 1) != 0) != (carry != 0))
    return result
  }

  @inline(__always)
  private mutating func shiftedRight<T: Operand>(_ value: T, _ count: Int) -> T {
    let result = value >> T(truncatingIfNeeded: count)
    let carry = count <= T.bitWidth ? value >> T(truncatingIfNeeded: count - 1) & 1 : 0
    setLogicFlags(result)
    // The two highest bits of the result differ: for one bit, the sign that was shifted in.
    let top = result >> T(T.bitWidth - 2)
    flags.setCarry(carry != 0, overflow: top == 1 || top == 2)
    return result
  }

  @inline(__always)
  private mutating func shiftedArithmetically<T: Operand>(_ value: T, _ count: Int) -> T {
    let wide = Self.extended(value)
    let result = T(truncatingIfNeeded: wide >> Int64(min(count, 63)))
    let carry = wide >> Int64(min(count - 1, 63)) & 1
    setLogicFlags(result)
    flags.setCarry(carry != 0, overflow: false)
    return result
  }

  // MARK: - The group

  @inline(never)
  mutating func shift(_ i: Instruction) throws(Fault) {
    switch i.size {
    case 1: try shift(UInt8.self, i)
    case 2: try shift(UInt16.self, i)
    case 4: try shift(UInt32.self, i)
    default: try shift(UInt64.self, i)
    }
  }

  private mutating func shift<T: Operand>(_ type: T.Type, _ i: Instruction) throws(Fault) {
    let raw = i.vvvv == 0 ? UInt8(truncatingIfNeeded: i.immediate) : reg8(1)
    let count = Int(raw & (T.bitWidth == 64 ? 63 : 31))
    if i.isRegister {
      let value = get(i.rm, type)
      if count != 0 {
        put(i.rm, shifted(value, count, i.group))
      } else if T.bitWidth == 32 {
        put(i.rm, value)  // the upper half is cleared all the same
      }
      return
    }
    let place = try linear(i, MemoryLayout<T>.size, isWrite: true)
    let value = try loadForWrite(type, place)
    guard count != 0 else { return }
    let saved = flags
    let result = shifted(value, count, i.group)
    do throws(Fault) {
      try store(result, place)
    } catch {
      flags = saved
      throw error
    }
  }

  private mutating func shifted<T: Operand>(_ value: T, _ count: Int, _ group: UInt8) -> T {
    switch group {
    case 0: rotatedLeft(value, count)
    case 1: rotatedRight(value, count)
    case 2: rotatedLeftThroughCarry(value, count)
    case 3: rotatedRightThroughCarry(value, count)
    case 4, 6: shiftedLeft(value, count)
    case 5: shiftedRight(value, count)
    default: shiftedArithmetically(value, count)
    }
  }

  private mutating func rotatedLeft<T: Operand>(_ value: T, _ count: Int) -> T {
    let turn = count & (T.bitWidth - 1)
    let result =
      turn == 0 ? value : value << T(turn) | value >> T(truncatingIfNeeded: T.bitWidth - turn)
    let carry = result & 1 != 0
    flags.setCarry(carry, overflow: (result >> T(T.bitWidth - 1) != 0) != carry)
    return result
  }

  private mutating func rotatedRight<T: Operand>(_ value: T, _ count: Int) -> T {
    let turn = count & (T.bitWidth - 1)
    let result =
      turn == 0 ? value : value >> T(turn) | value << T(truncatingIfNeeded: T.bitWidth - turn)
    let top = result >> T(T.bitWidth - 2)
    flags.setCarry(top & 2 != 0, overflow: top == 1 || top == 2)
    return result
  }

  private mutating func rotatedLeftThroughCarry<T: Operand>(_ value: T, _ count: Int) -> T {
    let turn = count % (T.bitWidth + 1)
    var result = value
    var carry: T = flags.cf ? 1 : 0
    for _ in 0..<turn {
      let out = result >> T(T.bitWidth - 1)
      result = result << 1 | carry
      carry = out
    }
    flags.setCarry(carry != 0, overflow: (result >> T(T.bitWidth - 1) != 0) != (carry != 0))
    return result
  }

  private mutating func rotatedRightThroughCarry<T: Operand>(_ value: T, _ count: Int) -> T {
    let turn = count % (T.bitWidth + 1)
    var result = value
    var carry: T = flags.cf ? 1 : 0
    for _ in 0..<turn {
      let out = result & 1
      result = result >> 1 | carry << T(T.bitWidth - 1)
      carry = out
    }
    let top = result >> T(T.bitWidth - 2)
    flags.setCarry(carry != 0, overflow: top == 1 || top == 2)
    return result
  }

  // MARK: - Double shifts

  mutating func doubleShift(_ i: Instruction) throws(Fault) {
    switch i.size {
    case 2: try doubleShift(UInt16.self, i)
    case 4: try doubleShift(UInt32.self, i)
    default: try doubleShift(UInt64.self, i)
    }
  }

  private mutating func doubleShift<T: Operand>(_ type: T.Type, _ i: Instruction) throws(Fault) {
    let raw = i.vvvv == 0 ? UInt8(truncatingIfNeeded: i.immediate) : reg8(1)
    let count = Int(raw & (T.bitWidth == 64 ? 63 : 31))
    let filler = get(i.reg, type)
    if i.isRegister {
      let value = get(i.rm, type)
      guard count != 0 else {
        if T.bitWidth == 32 { put(i.rm, value) }
        return
      }
      put(i.rm, doubleShifted(value, filler, count, isLeft: i.op == .shld))
      return
    }
    let place = try linear(i, MemoryLayout<T>.size, isWrite: true)
    let value = try loadForWrite(type, place)
    guard count != 0 else { return }
    let saved = flags
    let result = doubleShifted(value, filler, count, isLeft: i.op == .shld)
    do throws(Fault) {
      try store(result, place)
    } catch {
      flags = saved
      throw error
    }
  }

  private mutating func doubleShifted<T: Operand>(
    _ value: T, _ filler: T, _ count: Int, isLeft: Bool
  ) -> T {
    var result: T
    var carry: Bool
    let width = T.bitWidth
    if count < width {
      if isLeft {
        result = value << T(count) | filler >> T(width - count)
        carry = value >> T(width - count) & 1 != 0
      } else {
        result = value >> T(count) | filler << T(width - count)
        carry = value >> T(count - 1) & 1 != 0
      }
    } else {
      // 16 bits by 16 to 31: undefined; what the processors do is a shift of the two as one,
      // with the value following again.
      let turn = count - width
      if isLeft {
        result = turn == 0 ? filler : filler << T(turn) | value >> T(width - turn)
        carry = turn == 0 ? value & 1 != 0 : filler >> T(width - turn) & 1 != 0
      } else {
        result = turn == 0 ? filler : filler >> T(turn) | value << T(width - turn)
        carry = turn == 0 ? value >> T(width - 1) != 0 : filler >> T(turn - 1) & 1 != 0
      }
    }
    setLogicFlags(result)
    let sign = result >> T(width - 1) != 0
    flags.setCarry(carry, overflow: sign != (value >> T(width - 1) != 0))
    return result
  }
}
