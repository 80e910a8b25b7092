// SPDX-License-Identifier: Apache-2.0

internal import CHostCPU

/// Vector instructions that the host's processor executes.
extension SoftCPU {
  // MARK: - Exceptions

  /// A unit with the guest's rounding, all exceptions masked and no flags.
  ///
  /// Results are flushed to zero only where underflow is masked.
  private var unit: VectorUnit {
    VectorUnit(mxcsr: mxcsr & (isUnderflowMasked ? 0xE040 : 0x6040) | 0x1F80)
  }

  private var isUnderflowMasked: Bool { mxcsr & 0x800 != 0 }

  /// Takes the exception flags over; throws for one that the guest has not masked, before the
  /// result is taken.
  private mutating func takeFlags(_ unit: VectorUnit, isTiny: Bool = false) throws(Fault) {
    var raised = unit.mxcsr & 0x3F | (isTiny ? 0x10 : 0)
    let unmasked = raised & ~(mxcsr >> 7) & 0x3F
    // Invalid, denormal and divide-by-zero are found before overflow, underflow and precision.
    if unmasked & 7 != 0 { raised &= 7 }
    mxcsr |= raised
    guard unmasked != 0 else { return }
    throw cr4 & 1 << 10 != 0 ? .simd : .undefined
  }

  /// Whether an arithmetic instruction has a denormal result.
  ///
  /// That is an underflow even when it
  /// is exact, but only where underflow is not masked (SDM volume 1, 11.5.2.5).
  private func hasTinyResult(_ i: Instruction, _ result: Pair) -> Bool {
    let isArithmetic =
      switch i.map & 15 {
      case 1:
        [0x58, 0x59, 0x5C, 0x5E, 0x7C, 0x7D, 0xD0].contains(i.opcode)
          || i.opcode == 0x5A && i.vectorPrefix & 1 != 0
      case 3: i.opcode == 0x40 || i.opcode == 0x41
      default: false
      }
    guard isArithmetic else { return false }
    func isTiny(_ word: UInt64) -> Bool { word << 1 != 0 && word >> 52 & 0x7FF == 0 }
    func isTiny32(_ word: UInt64) -> Bool { word << 33 != 0 && word >> 23 & 0xFF == 0 }
    // The narrowing conversions have results of 32 bits.
    let isNarrowing = i.map & 15 == 1 && i.opcode == 0x5A
    switch (i.map & 15 == 3 ? (i.opcode == 0x40 ? 0 : 1) : i.vectorPrefix, isNarrowing) {
    case (2, _), (3, true): return isTiny32(result.0)
    case (3, false):
      // ADDSUBPS, HADDPS and HSUBPS have this prefix too.
      guard i.opcode >= 0x7C else { return isTiny(result.0) }
    case (1, false): return isTiny(result.0) || isTiny(result.1)
    default: break
    }
    return [result.0, result.0 >> 32, result.1, result.1 >> 32].contains { isTiny32($0) }
  }

  // MARK: - Two operands

  /// How many bytes of memory an instruction of the first map reads as its second operand; zero
  /// when there is none such.
  private static func sourceSize(_ opcode: UInt8, _ prefix: UInt8) -> Int {
    switch prefix {
    case 0:
      switch opcode {
      case 0x14, 0x15, 0x51...0x53, 0x58, 0x59, 0x5B...0x5F: return 16
      case 0x5A: return 8
      default: return 0
      }
    case 1:
      switch opcode {
      case 0x14, 0x15, 0x51, 0x58...0x6D, 0x74...0x76, 0x7C, 0x7D, 0xD0...0xD5, 0xD8...0xE6,
        0xE8...0xEF, 0xF1...0xF6, 0xF8...0xFE:
        return 16
      default: return 0
      }
    case 2:
      switch opcode {
      case 0x51...0x53, 0x58...0x5A, 0x5C...0x5F: return 4
      case 0x5B, 0x12, 0x16: return 16
      case 0xE6: return 8
      default: return 0
      }
    default:
      switch opcode {
      case 0x51, 0x58...0x5A, 0x5C...0x5F, 0x12: return 8
      case 0x7C, 0x7D, 0xD0, 0xE6: return 16
      default: return 0
      }
    }
  }

  mutating func executeArithmetic(_ i: Instruction) throws(Fault) {
    let prefix = i.vectorPrefix
    switch (i.opcode, prefix) {
    case (0x70, 1...3):
      let which = prefix == 1 ? BH_PSHUFD : prefix == 2 ? BH_PSHUFHW : BH_PSHUFLW
      return try immediate(i, which, 16)
    case (0xC6, 0), (0xC6, 1): return try immediate(i, prefix == 0 ? BH_SHUFPS : BH_SHUFPD, 16)
    case (0xC2, _):
      let kinds = [BH_CMPPS, BH_CMPPD, BH_CMPSS, BH_CMPSD]
      let sizes = [16, 16, 4, 8]
      return try immediate(
        i, kinds[Int(prefix)], sizes[Int(prefix)], value: UInt8(i.immediate & 7))
    case (0x2A, _), (0x2C, _), (0x2D, _): return try convert(i)
    case (0x2E, 0), (0x2E, 1), (0x2F, 0), (0x2F, 1): return try compareScalar(i)
    default: break
    }
    let size = Self.sourceSize(i.opcode, prefix)
    guard size > 0 else { throw .undefined }
    try run(i, 0, prefix, size)
  }

  /// Runs an instruction of two XMM operands.
  private mutating func run(_ i: Instruction, _ map: UInt8, _ prefix: UInt8, _ size: Int)
    throws(Fault)
  {
    var unit = unit
    unit.first = xmm(i.reg)
    unit.second = try operand(i, size)
    unit.run(map, prefix, i.opcode)
    try takeFlags(unit, isTiny: !isUnderflowMasked && hasTinyResult(i, unit.first))
    setXMM(i.reg, unit.first)
  }

  private mutating func immediate(
    _ i: Instruction, _ which: bh_immediate, _ size: Int, value: UInt8? = nil
  ) throws(Fault) {
    var unit = unit
    unit.first = xmm(i.reg)
    unit.second = try operand(i, size)
    unit.run(which, value ?? UInt8(truncatingIfNeeded: i.immediate))
    try takeFlags(unit, isTiny: !isUnderflowMasked && hasTinyResult(i, unit.first))
    setXMM(i.reg, unit.first)
  }

  // MARK: - Conversions and comparisons

  private mutating func convert(_ i: Instruction) throws(Fault) {
    let prefix = i.vectorPrefix
    var unit = unit
    if prefix >= 2 {
      // With a general register; the wide table has REX.W.
      let map: UInt8 = i.size == 8 ? 2 : 0
      if i.opcode == 0x2A {
        unit.first = xmm(i.reg)
        unit.rcx = try loadRM(i, size: i.size)
        unit.run(map, prefix, i.opcode)
        try takeFlags(unit)
        setXMM(i.reg, unit.first)
      } else {
        unit.second = try operand(i, prefix == 2 ? 4 : 8)
        unit.run(map, prefix, i.opcode)
        try takeFlags(unit)
        setReg(i.reg, size: i.size, truncated(unit.rax, i.size))
      }
      return
    }
    // With an MMX register: by way of the host's conversions of two 32-bit integers.
    if i.opcode == 0x2A {
      let value: UInt64
      if i.isRegister {
        if x87.isPending { throw .x87 }
        x87.beginMMX()
        value = x87.mm(Int(i.rm & 7))
      } else {
        value = try loadOperand(UInt64.self, i)
      }
      unit.second = (value, 0)
      if prefix == 0 {
        unit.run(0, 0, 0x5B)
        try takeFlags(unit)
        setXMM(i.reg, (unit.first.0, xmm(i.reg).1))
      } else {
        unit.run(0, 2, 0xE6)
        try takeFlags(unit)
        setXMM(i.reg, unit.first)
      }
      return
    }
    if x87.isPending { throw .x87 }
    let isTruncating = i.opcode == 0x2C
    if prefix == 0 {
      unit.second = try operand(i, 8)
      // The upper two lanes are zeroes, which raise nothing.
      unit.second.1 = 0
      unit.run(0, isTruncating ? 2 : 1, 0x5B)
    } else {
      unit.second = try operand(i, 16)
      unit.run(0, isTruncating ? 1 : 3, 0xE6)
    }
    // The registers are MMX's even where the conversion raises an exception.
    x87.beginMMX()
    try takeFlags(unit)
    x87.setMM(Int(i.reg & 7), unit.first.0)
  }

  private mutating func compareScalar(_ i: Instruction) throws(Fault) {
    var unit = unit
    unit.first = xmm(i.reg)
    unit.second = try operand(i, i.vectorPrefix == 0 ? 4 : 8)
    unit.run(0, i.vectorPrefix, i.opcode)
    try takeFlags(unit)
    flags.set(unit.flags & LazyFlags.mask)
  }

  // MARK: - 0F 38

  private func has(_ feature: VectorFeatures) -> Bool { vectorFeatures.contains(feature) }

  mutating func executeMap2(_ i: Instruction) throws(Fault) {
    let prefix = i.vectorPrefix
    switch (i.opcode, prefix) {
    case (0x00...0x0B, 1), (0x1C...0x1E, 1): try run(i, 1, 1, 16)
    case (0x20...0x25, 1), (0x30...0x35, 1):
      let sizes = [8, 4, 2, 8, 4, 8]
      try run(i, 1, 1, sizes[Int(i.opcode & 7)])
    case (0x28, 1), (0x29, 1), (0x2B, 1), (0x37...0x41, 1): try run(i, 1, 1, 16)
    case (0x2A, 1):
      guard !i.isRegister else { throw .undefined }
      setXMM(i.reg, try load128(i, aligned: true))
    case (0x10, 1), (0x14, 1), (0x15, 1): try blend(i)
    case (0x17, 1):
      let (a, b) = (xmm(i.reg), try operand(i, 16))
      let isZero = a.0 & b.0 == 0 && a.1 & b.1 == 0
      let isCarry = ~a.0 & b.0 == 0 && ~a.1 & b.1 == 0
      flags.set((isZero ? LazyFlags.zero : 0) | (isCarry ? LazyFlags.carry : 0))
    case (0xDB...0xDF, 1):
      guard has(.aes) else { throw .undefined }
      try run(i, 1, 1, 16)
    case (0xCB, 0):
      guard has(.sha) else { throw .undefined }
      var unit = unit
      unit.first = xmm(0)
      unit.third = xmm(i.reg)
      unit.second = try operand(i, 16)
      unit.runSHA256()
      setXMM(i.reg, unit.third)
    case (0xC8...0xCA, 0), (0xCC, 0), (0xCD, 0):
      guard has(.sha) else { throw .undefined }
      try run(i, 1, 0, 16)
    default: throw .undefined
    }
  }

  /// PBLENDVB, BLENDVPS, BLENDVPD: by the signs in XMM0.
  private mutating func blend(_ i: Instruction) throws(Fault) {
    let size = i.opcode == 0x10 ? 1 : i.opcode == 0x14 ? 4 : 8
    let other = try operand(i, 16)
    let mask = xmm(0)
    var result = xmm(i.reg)
    for place in 0..<(16 / size)
    where Self.extracted(mask, place, size) >> UInt64(8 * size - 1) != 0 {
      result = Self.inserted(result, Self.extracted(other, place, size), place, size)
    }
    setXMM(i.reg, result)
  }

  // MARK: - 0F 3A

  mutating func executeMap3(_ i: Instruction) throws(Fault) {
    let index = Int(i.immediate)
    switch (i.opcode, i.vectorPrefix) {
    case (0x08, 1): try immediate(i, BH_ROUNDPS, 16)
    case (0x09, 1): try immediate(i, BH_ROUNDPD, 16)
    case (0x0A, 1): try immediate(i, BH_ROUNDSS, 4)
    case (0x0B, 1): try immediate(i, BH_ROUNDSD, 8)
    case (0x0C, 1): try immediate(i, BH_BLENDPS, 16)
    case (0x0D, 1): try immediate(i, BH_BLENDPD, 16)
    case (0x0E, 1): try immediate(i, BH_PBLENDW, 16)
    case (0x0F, 1): try immediate(i, BH_PALIGNR, 16)
    case (0x14, 1): try extract(i, Self.extracted(xmm(i.reg), index & 15, 1), 1)
    case (0x15, 1): try extract(i, Self.extracted(xmm(i.reg), index & 7, 2), 2)
    case (0x16, 1):
      let isWide = i.size == 8
      let value = Self.extracted(xmm(i.reg), index & (isWide ? 1 : 3), isWide ? 8 : 4)
      try storeRM(i, size: isWide ? 8 : 4, value)
    case (0x17, 1): try extract(i, Self.extracted(xmm(i.reg), index & 3, 4), 4)
    case (0x20, 1):
      let value =
        i.isRegister ? UInt64(UInt8(truncatingIfNeeded: reg64(i.rm))) : try loadOperand(size: 1, i)
      setXMM(i.reg, Self.inserted(xmm(i.reg), value, index & 15, 1))
    case (0x21, 1): try insertSingle(i)
    case (0x22, 1):
      let isWide = i.size == 8
      let value = try loadRM(i, size: isWide ? 8 : 4)
      setXMM(i.reg, Self.inserted(xmm(i.reg), value, index & (isWide ? 1 : 3), isWide ? 8 : 4))
    case (0x40, 1): try immediate(i, BH_DPPS, 16)
    case (0x41, 1): try immediate(i, BH_DPPD, 16)
    case (0x42, 1): try immediate(i, BH_MPSADBW, 16)
    case (0x44, 1):
      guard has(.pclmul) else { throw .undefined }
      try immediate(i, BH_PCLMULQDQ, 16)
    case (0x60...0x63, 1): try compareStrings(i)
    case (0xCC, 0):
      guard has(.sha) else { throw .undefined }
      try immediate(i, BH_SHA1RNDS4, 16)
    case (0xDF, 1):
      guard has(.aes) else { throw .undefined }
      try immediate(i, BH_AESKEYGENASSIST, 16)
    default: throw .undefined
    }
  }

  /// An element to a register, extended with zeroes, or to memory of its own size.
  private mutating func extract(_ i: Instruction, _ value: UInt64, _ size: UInt8) throws(Fault) {
    if i.isRegister {
      setReg64(i.rm, value)
    } else {
      try storeOperand(size: size, value, i)
    }
  }

  /// INSERTPS: from memory it takes the first element whatever the immediate says.
  private mutating func insertSingle(_ i: Instruction) throws(Fault) {
    let control = Int(i.immediate & 0xFF)
    let value =
      i.isRegister
      ? Self.extracted(xmm(i.rm), control >> 6, 4) : UInt64(try loadOperand(UInt32.self, i))
    var result = Self.inserted(xmm(i.reg), value, control >> 4 & 3, 4)
    for place in 0..<4 where control >> place & 1 != 0 {
      result = Self.inserted(result, 0, place, 4)
    }
    setXMM(i.reg, result)
  }

  /// PCMPESTRM, PCMPESTRI, PCMPISTRM, PCMPISTRI.
  private mutating func compareStrings(_ i: Instruction) throws(Fault) {
    var unit = unit
    unit.first = xmm(i.reg)
    unit.second = try operand(i, 16, aligned: false)
    // Lengths beyond sixteen count as sixteen, in 64 bits too.
    func length(_ value: UInt64) -> UInt64 {
      guard i.size == 8 else { return value & 0xFFFF_FFFF }
      let signed = max(-16, min(16, Int64(bitPattern: value)))
      return UInt64(UInt32(bitPattern: Int32(signed)))
    }
    unit.rax = length(gpr[0])
    unit.rdx = length(gpr[2])
    let kinds = [BH_PCMPESTRM, BH_PCMPESTRI, BH_PCMPISTRM, BH_PCMPISTRI]
    unit.run(kinds[Int(i.opcode & 3)], UInt8(truncatingIfNeeded: i.immediate))
    if i.opcode & 1 == 0 {
      setXMM(0, unit.first)
    } else {
      setReg64(1, unit.rcx & 0xFFFF_FFFF)
    }
    flags.set(unit.flags & LazyFlags.mask)
  }
}
