// SPDX-License-Identifier: Apache-2.0

/// MUL, IMUL, DIV, IDIV.
extension SoftCPU {
  mutating func multiply(_ i: Instruction) throws(Fault) {
    let value = try loadRM(i, size: i.size)
    let isSigned = i.op == .imul1
    if i.size == 1 {
      let product =
        isSigned
        ? UInt16(
          bitPattern: Int16(Int8(truncatingIfNeeded: value)) * Int16(Int8(bitPattern: reg8(0))))
        : UInt16(value) * UInt16(reg8(0))
      setReg16(0, product)
      let low = UInt8(truncatingIfNeeded: product)
      setProductFlags(
        Self.extended(low),
        isSigned ? product != UInt16(bitPattern: Int16(Int8(bitPattern: low))) : product > 0xFF)
      return
    }
    let a = reg(0, size: i.size)
    let low: UInt64
    let high: UInt64
    let overflow: Bool
    if i.size == 8 {
      if isSigned {
        let product = Int64(bitPattern: a).multipliedFullWidth(by: Int64(bitPattern: value))
        (low, high) = (product.low, UInt64(bitPattern: product.high))
        overflow = high != (low >> 63 != 0 ? ~0 : 0)
      } else {
        let product = a.multipliedFullWidth(by: value)
        (low, high) = (product.low, product.high)
        overflow = high != 0
      }
    } else {
      let width = UInt64(i.size) * 8
      let product =
        isSigned
        ? Self.signed(a, i.size) &* Self.signed(value, i.size) : a &* value
      low = truncated(product, i.size)
      high = truncated(product >> width, i.size)
      overflow = isSigned ? Self.signed(low, i.size) != product : high != 0
    }
    setReg(0, size: i.size, low)
    setReg(2, size: i.size, high)
    setProductFlags(Int64(bitPattern: Self.signed(low, i.size)), overflow)
  }

  /// IMUL with two or three operands.
  mutating func multiplyShort(_ i: Instruction) throws(Fault) {
    let value = try loadRM(i, size: i.size)
    let other = i.op == .imul3 ? i.immediate : reg(i.reg, size: i.size)
    if i.size == 8 {
      let product = Int64(bitPattern: value).multipliedFullWidth(by: Int64(bitPattern: other))
      let low = Int64(bitPattern: product.low)
      setReg64(i.reg, product.low)
      setProductFlags(low, product.high != low >> 63)
      return
    }
    let product = Self.signed(value, i.size) &* Self.signed(other, i.size)
    setReg(i.reg, size: i.size, truncated(product, i.size))
    let low = Self.signed(product, i.size)
    setProductFlags(Int64(bitPattern: low), low != product)
  }

  /// Carry and overflow are defined; sign, zero, parity and adjust are left as AMD's
  /// processors leave them.
  private mutating func setProductFlags(_ low: Int64, _ overflow: Bool) {
    flags.setCarry(overflow, overflow: overflow)
  }

  mutating func divide(_ i: Instruction) throws(Fault) {
    let divisor = try loadRM(i, size: i.size)
    guard divisor != 0 else { throw .divide }
    if i.op == .div {
      switch i.size {
      case 1:
        let (quotient, rest) = UInt64(reg16(0)).quotientAndRemainder(dividingBy: divisor)
        guard quotient <= 0xFF else { throw .divide }
        setReg16(0, UInt16(rest << 8 | quotient))
      case 8:
        guard gpr[2] < divisor else { throw .divide }
        (gpr[0], gpr[2]) = divisor.dividingFullWidth((gpr[2], gpr[0]))
      default:
        let width = UInt64(i.size) * 8
        let dividend = reg(2, size: i.size) << width | reg(0, size: i.size)
        let (quotient, rest) = dividend.quotientAndRemainder(dividingBy: divisor)
        guard truncated(quotient, i.size) == quotient else { throw .divide }
        setReg(0, size: i.size, quotient)
        setReg(2, size: i.size, rest)
      }
      return
    }
    try divideSigned(i, divisor)
  }

  private mutating func divideSigned(_ i: Instruction, _ divisor: UInt64) throws(Fault) {
    let by = Int64(bitPattern: Self.signed(divisor, i.size))
    if i.size == 8 {
      let (quotient, rest) = try Self.divide(high: gpr[2], low: gpr[0], by: by)
      gpr[0] = UInt64(bitPattern: quotient)
      gpr[2] = UInt64(bitPattern: rest)
      return
    }
    let dividend: Int64 =
      i.size == 1
      ? Int64(Int16(bitPattern: reg16(0)))
      : i.size == 2
        ? Int64(Int32(bitPattern: UInt32(reg16(2)) << 16 | UInt32(reg16(0))))
        : Int64(bitPattern: UInt64(reg32(2)) << 32 | UInt64(reg32(0)))
    let (quotient, overflow) = dividend.dividedReportingOverflow(by: by)
    let (rest, _) = dividend.remainderReportingOverflow(dividingBy: by)
    let bits = UInt64(bitPattern: quotient)
    guard !overflow, Self.signed(bits, i.size) == bits else { throw .divide }
    if i.size == 1 {
      setReg16(0, UInt16(truncatingIfNeeded: rest) << 8 | UInt16(bits & 0xFF))
    } else {
      setReg(0, size: i.size, truncated(bits, i.size))
      setReg(2, size: i.size, truncated(UInt64(bitPattern: rest), i.size))
    }
  }

  /// Divides 128 bits by 64, signed; #DE when the quotient does not fit.
  private static func divide(high: UInt64, low: UInt64, by divisor: Int64) throws(Fault)
    -> (Int64, Int64)
  {
    let isNegative = high >> 63 != 0
    var (upper, lower) = (high, low)
    if isNegative {
      lower = ~low &+ 1
      upper = ~high &+ (lower == 0 ? 1 : 0)
    }
    let magnitude = divisor.magnitude
    guard upper < magnitude else { throw .divide }
    let (quotient, rest) = magnitude.dividingFullWidth((upper, lower))
    let quotientIsNegative = isNegative != (divisor < 0)
    guard quotient <= (quotientIsNegative ? 1 << 63 : UInt64(Int64.max)) else { throw .divide }
    let signed = Int64(bitPattern: quotientIsNegative ? 0 &- quotient : quotient)
    return (signed, Int64(bitPattern: isNegative ? 0 &- rest : rest))
  }
}
