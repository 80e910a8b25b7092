// SPDX-License-Identifier: Apache-2.0

/// Registers and memory operands as instructions name them.
extension SoftCPU {
  // MARK: - Registers

  @inline(__always)
  func reg64(_ number: UInt8) -> UInt64 { gpr[Int(number & 31)] }

  @inline(__always)
  func reg32(_ number: UInt8) -> UInt32 { UInt32(truncatingIfNeeded: gpr[Int(number & 31)]) }

  @inline(__always)
  func reg16(_ number: UInt8) -> UInt16 { UInt16(truncatingIfNeeded: gpr[Int(number & 31)]) }

  /// A byte register; 20 to 23 are AH, CH, DH, BH.
  @inline(__always)
  func reg8(_ number: UInt8) -> UInt8 {
    number < 16
      ? UInt8(truncatingIfNeeded: gpr[Int(number & 15)])
      : UInt8(truncatingIfNeeded: gpr[Int(number & 3)] >> 8)
  }

  @inline(__always)
  mutating func setReg64(_ number: UInt8, _ value: UInt64) { gpr[Int(number & 31)] = value }

  /// Writes 32 bits; the upper half becomes zero.
  @inline(__always)
  mutating func setReg32(_ number: UInt8, _ value: UInt32) {
    gpr[Int(number & 31)] = UInt64(value)
  }

  @inline(__always)
  mutating func setReg16(_ number: UInt8, _ value: UInt16) {
    gpr[Int(number & 31)] = gpr[Int(number & 31)] & ~0xFFFF | UInt64(value)
  }

  @inline(__always)
  mutating func setReg8(_ number: UInt8, _ value: UInt8) {
    if number < 16 {
      gpr[Int(number & 15)] = gpr[Int(number & 15)] & ~0xFF | UInt64(value)
    } else {
      gpr[Int(number & 3)] = gpr[Int(number & 3)] & ~0xFF00 | UInt64(value) << 8
    }
  }

  /// A register by size in bytes.
  ///
  /// It is inlined because a call that only reads `self` copies the whole of it first (Swift 6.3).
  @inline(__always)
  func reg(_ number: UInt8, size: UInt8) -> UInt64 {
    switch size {
    case 1: UInt64(reg8(number))
    case 2: UInt64(reg16(number))
    case 4: UInt64(reg32(number))
    default: reg64(number)
    }
  }

  /// Writes a register by size in bytes; 32 bits clear the upper half.
  mutating func setReg(_ number: UInt8, size: UInt8, _ value: UInt64) {
    switch size {
    case 1: setReg8(number, UInt8(truncatingIfNeeded: value))
    case 2: setReg16(number, UInt16(truncatingIfNeeded: value))
    case 4: setReg32(number, UInt32(truncatingIfNeeded: value))
    default: setReg64(number, value)
    }
  }

  /// The instruction pointer.
  var rip: UInt64 {
    @inline(__always) get { gpr[17] }
    @inline(__always) set { gpr[17] = newValue }
  }

  // MARK: - Memory operands

  /// The offset of the memory operand in its segment.
  @inline(__always)
  func offset(_ i: Instruction) -> UInt64 {
    let sum =
      gpr[Int(i.base & 31)] &+ (gpr[Int(i.index & 31)] &<< UInt64(i.scale & 3)) &+ i.displacement
    if i.addressSize == 8 { return sum }
    return i.addressSize == 4 ? sum & 0xFFFF_FFFF : sum & 0xFFFF
  }

  /// The linear address of the memory operand, checked against its segment.
  @inline(__always)
  mutating func linear(_ i: Instruction, _ size: Int, isWrite: Bool) throws(Fault) -> UInt64 {
    try linear(Int(i.segment), offset(i), size, isWrite: isWrite)
  }

  /// The linear address of an offset in a segment, checked against it.
  @inline(__always)
  mutating func linear(_ segment: Int, _ offset: UInt64, _ size: Int, isWrite: Bool)
    throws(Fault) -> UInt64
  {
    if checkedSegments & (1 << UInt8(segment & 7)) != 0 {
      try checkSegment(segment, offset, size, isWrite: isWrite)
    }
    return wrapped(offset &+ segmentBase[segment & 7])
  }

  /// Reads the memory operand.
  @inline(__always)
  mutating func loadOperand<T: FixedWidthInteger & BitwiseCopyable & UnsignedInteger>(
    _ type: T.Type, _ i: Instruction
  ) throws(Fault) -> T {
    try load(type, try linear(i, MemoryLayout<T>.size, isWrite: false))
  }

  /// Writes the memory operand.
  @inline(__always)
  mutating func storeOperand<T: FixedWidthInteger & BitwiseCopyable & UnsignedInteger>(
    _ value: T, _ i: Instruction
  ) throws(Fault) {
    try store(value, try linear(i, MemoryLayout<T>.size, isWrite: true))
  }

  /// Reads the memory operand by size in bytes: 1, 2, 4 or 8.
  mutating func loadOperand(size: UInt8, _ i: Instruction) throws(Fault) -> UInt64 {
    try loadSized(try linear(i, Int(size), isWrite: false), size)
  }

  /// Writes the memory operand by size in bytes: 1, 2, 4 or 8.
  mutating func storeOperand(size: UInt8, _ value: UInt64, _ i: Instruction) throws(Fault) {
    try storeSized(value, try linear(i, Int(size), isWrite: true), size)
  }

  /// Reads 1, 2, 4 or 8 bytes.
  mutating func loadSized(_ linear: UInt64, _ size: UInt8) throws(Fault) -> UInt64 {
    switch size {
    case 1: UInt64(try load(UInt8.self, linear))
    case 2: UInt64(try load(UInt16.self, linear))
    case 4: UInt64(try load(UInt32.self, linear))
    default: try load(UInt64.self, linear)
    }
  }

  /// Writes 1, 2, 4 or 8 bytes.
  mutating func storeSized(_ value: UInt64, _ linear: UInt64, _ size: UInt8) throws(Fault) {
    switch size {
    case 1: try store(UInt8(truncatingIfNeeded: value), linear)
    case 2: try store(UInt16(truncatingIfNeeded: value), linear)
    case 4: try store(UInt32(truncatingIfNeeded: value), linear)
    default: try store(value, linear)
    }
  }

  /// Reads ModRM's rm operand, register or memory, by the instruction's size.
  mutating func loadRM(_ i: Instruction, size: UInt8) throws(Fault) -> UInt64 {
    i.isRegister ? reg(i.rm, size: size) : try loadOperand(size: size, i)
  }

  /// Writes ModRM's rm operand, register or memory.
  mutating func storeRM(_ i: Instruction, size: UInt8, _ value: UInt64) throws(Fault) {
    if i.isRegister {
      setReg(i.rm, size: size, value)
    } else {
      try storeOperand(size: size, value, i)
    }
  }
}
