// SPDX-License-Identifier: Apache-2.0

/// The arithmetic of the eight operations that share their encodings, and its flags.
extension SoftCPU {
  /// In the order of their encoding.
  enum ALU: UInt8 {
    case add, or, adc, sbb, and, sub, xor, cmp
  }

  typealias Operand = BitwiseCopyable & FixedWidthInteger & UnsignedInteger

  /// A value sign-extended.
  @inline(__always)
  static func extended<T: Operand>(_ value: T) -> Int64 {
    let shift = Int64(64 - T.bitWidth)
    return (Int64(truncatingIfNeeded: value) &<< shift) &>> shift
  }

  /// Notes the flags of a result and the carries out of its bits.
  @inline(__always)
  mutating func setFlags<T: Operand>(_ result: T, carries: T) {
    flags.result = Self.extended(result)
    let high = UInt64(carries) &<< UInt64(64 - T.bitWidth)
    flags.aux = UInt64(carries) & 8 | high & (3 << 62)
  }

  /// Notes the flags of a logical result: no carry, no overflow.
  @inline(__always)
  mutating func setLogicFlags<T: Operand>(_ result: T) {
    flags.result = Self.extended(result)
    flags.aux = 0
  }

  @inline(__always)
  mutating func add<T: Operand>(_ a: T, _ b: T, carry: T = 0) -> T {
    let result = a &+ b &+ carry
    setFlags(result, carries: (a & b) | ((a | b) & ~result))
    return result
  }

  @inline(__always)
  mutating func subtract<T: Operand>(_ a: T, _ b: T, borrow: T = 0) -> T {
    let result = a &- b &- borrow
    setFlags(result, carries: (~a & b) | ((~a | b) & result))
    return result
  }

  /// Does one of the eight; CMP gives `a` back.
  @inline(__always)
  mutating func alu<T: Operand>(_ operation: ALU, _ a: T, _ b: T) -> T {
    switch operation {
    case .add: return add(a, b)
    case .or:
      setLogicFlags(a | b)
      return a | b
    case .adc: return add(a, b, carry: flags.cf ? 1 : 0)
    case .sbb: return subtract(a, b, borrow: flags.cf ? 1 : 0)
    case .and:
      setLogicFlags(a & b)
      return a & b
    case .sub: return subtract(a, b)
    case .xor:
      setLogicFlags(a ^ b)
      return a ^ b
    case .cmp:
      _ = subtract(a, b)
      return a
    }
  }

  /// INC and DEC leave the carry.
  @inline(__always)
  mutating func increment<T: Operand>(_ a: T) -> T {
    let carry = flags.cf
    let result = add(a, 1)
    flags.setCarry(carry, overflow: flags.of)
    return result
  }

  @inline(__always)
  mutating func decrement<T: Operand>(_ a: T) -> T {
    let carry = flags.cf
    let result = subtract(a, 1)
    flags.setCarry(carry, overflow: flags.of)
    return result
  }

  @inline(__always)
  mutating func negate<T: Operand>(_ a: T) -> T { subtract(0, a) }

  // MARK: - Typed registers

  @inline(__always)
  func get<T: Operand>(_ number: UInt8, _ type: T.Type) -> T {
    if T.bitWidth == 8 { return T(truncatingIfNeeded: reg8(number)) }
    return T(truncatingIfNeeded: gpr[Int(number & 31)])
  }

  @inline(__always)
  mutating func put<T: Operand>(_ number: UInt8, _ value: T) {
    switch T.bitWidth {
    case 8: setReg8(number, UInt8(truncatingIfNeeded: value))
    case 16: setReg16(number, UInt16(truncatingIfNeeded: value))
    default: gpr[Int(number & 31)] = UInt64(value)
    }
  }

  // MARK: - Forms

  @inline(__always)
  mutating func aluRR<T: Operand>(_ operation: ALU, _ type: T.Type, _ i: Instruction) {
    let result = alu(operation, get(i.rm, type), get(i.reg, type))
    if operation != .cmp { put(i.rm, result) }
  }

  @inline(__always)
  mutating func aluRI<T: Operand>(_ operation: ALU, _ type: T.Type, _ i: Instruction) {
    let result = alu(operation, get(i.rm, type), T(truncatingIfNeeded: i.immediate))
    if operation != .cmp { put(i.rm, result) }
  }

  @inline(__always)
  mutating func aluRM<T: Operand>(_ operation: ALU, _ type: T.Type, _ i: Instruction)
    throws(Fault)
  {
    let source = try loadOperand(type, i)
    let result = alu(operation, get(i.reg, type), source)
    if operation != .cmp { put(i.reg, result) }
  }

  @inline(__always)
  mutating func aluMR<T: Operand>(_ operation: ALU, _ type: T.Type, _ i: Instruction)
    throws(Fault)
  {
    try aluMemory(operation, get(i.reg, type), i)
  }

  @inline(__always)
  mutating func aluMI<T: Operand>(_ operation: ALU, _ type: T.Type, _ i: Instruction)
    throws(Fault)
  {
    try aluMemory(operation, T(truncatingIfNeeded: i.immediate), i)
  }

  @inline(__always)
  private mutating func aluMemory<T: Operand>(_ operation: ALU, _ b: T, _ i: Instruction)
    throws(Fault)
  {
    if operation == .cmp {
      _ = subtract(try loadOperand(T.self, i), b)
      return
    }
    let place = try linear(i, MemoryLayout<T>.size, isWrite: true)
    let a = try loadForWrite(T.self, place)
    let saved = flags
    let result = alu(operation, a, b)
    do throws(Fault) {
      try store(result, place)
    } catch {
      flags = saved
      throw error
    }
  }

  /// Reads what will be written: the fault, if there is one, is that of the write.
  @inline(__always)
  mutating func loadForWrite<T: Operand>(_ type: T.Type, _ linear: UInt64) throws(Fault) -> T {
    try checkWrite(linear, MemoryLayout<T>.size)
    return try load(type, linear)
  }

  /// Reads, changes and writes the memory operand, not atomically.
  @inline(__always)
  mutating func modify<T: Operand>(
    _ type: T.Type, _ i: Instruction, _ body: (inout SoftCPU, T) -> T
  ) throws(Fault) {
    let place = try linear(i, MemoryLayout<T>.size, isWrite: true)
    let old = try loadForWrite(type, place)
    try store(body(&self, old), place)
  }

  // MARK: - Conditions

  /// Whether a condition code holds (SDM volume 1, appendix B).
  @inline(__always)
  func condition(_ code: UInt8) -> Bool {
    let holds =
      switch code >> 1 & 7 {
      case 0: flags.of
      case 1: flags.cf
      case 2: flags.zf
      case 3: flags.cf || flags.zf
      case 4: flags.sf
      case 5: flags.pf
      case 6: flags.sf != flags.of
      default: flags.zf || flags.sf != flags.of
      }
    return holds != (code & 1 != 0)
  }
}
