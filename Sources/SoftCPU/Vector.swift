// SPDX-License-Identifier: Apache-2.0

internal import CHostCPU

/// MMX and SSE to SSE4.2, AES, PCLMUL, SHA: moves here, arithmetic by the host's processor.
extension SoftCPU {
  typealias Pair = (UInt64, UInt64)

  @inline(__always)
  func xmm(_ number: UInt8) -> Pair {
    (vectors[4 * Int(number & 15)], vectors[4 * Int(number & 15) + 1])
  }

  @inline(__always)
  mutating func setXMM(_ number: UInt8, _ value: Pair) {
    vectors[4 * Int(number & 15)] = value.0
    vectors[4 * Int(number & 15) + 1] = value.1
  }

  // MARK: - Operands

  /// Reads 16 bytes; what is not aligned is #GP where the instruction says so.
  @inline(__always)
  mutating func load128(_ i: Instruction, aligned: Bool) throws(Fault) -> Pair {
    let place = try linear(i, 16, isWrite: false)
    if place & 15 != 0 { try noteUnaligned(place, isError: aligned) }
    let low = try load(UInt64.self, place)
    return (low, try load(UInt64.self, wrapped(place &+ 8)))
  }

  /// Sixteen bytes are not aligned.
  private mutating func noteUnaligned(_ place: UInt64, isError: Bool) throws(Fault) {
    if isError { throw .protection() }
    try checkAlignment(place, 16)
  }

  @inline(__always)
  mutating func store128(_ value: Pair, _ i: Instruction, aligned: Bool) throws(Fault) {
    let place = try linear(i, 16, isWrite: true)
    if place & 15 != 0 { try noteUnaligned(place, isError: aligned) }
    if place & 0xFFF > 0xFF0 { try checkWrite(place, 16) }
    try store(value.0, place)
    try store(value.1, wrapped(place &+ 8))
  }

  /// The second operand of an instruction on XMM registers: a register, or 2 to 16 bytes.
  mutating func operand(_ i: Instruction, _ size: Int, aligned: Bool = true) throws(Fault)
    -> Pair
  {
    if i.isRegister { return xmm(i.rm) }
    if size == 16 { return try load128(i, aligned: aligned) }
    return (try loadOperand(size: UInt8(size), i), 0)
  }

  // MARK: - Dispatch

  @inline(never)
  mutating func executeVector(_ i: Instruction) throws(Fault) {
    guard !i.prefixes.contains(.vex) else { throw .undefined }
    if isMMX(i) { return try executeMMX(i) }
    guard cr0 & 4 == 0, cr4 & 1 << 9 != 0 else { throw .undefined }
    guard cr0 & 8 == 0 else { throw .deviceNotAvailable }
    switch i.map & 15 {
    case 1: try executeMap1(i)
    case 2: try executeMap2(i)
    default: try executeMap3(i)
    }
  }

  /// Whether an instruction works on MMX registers alone.
  private func isMMX(_ i: Instruction) -> Bool {
    guard i.vectorPrefix == 0 else { return false }
    switch (i.map & 15, i.opcode) {
    case (1, 0x60...0x77), (1, 0x7E), (1, 0x7F), (1, 0xC4), (1, 0xC5), (1, 0xD0...0xFE),
      (2, 0x00...0x1F), (3, 0x0F):
      return true
    default: return false
    }
  }

  private mutating func executeMap1(_ i: Instruction) throws(Fault) {
    let prefix = i.vectorPrefix
    switch (i.opcode, prefix) {
    // Moves, the frequent first.
    case (0x6F, 1), (0x28, 0), (0x28, 1):
      setXMM(i.reg, i.isRegister ? xmm(i.rm) : try load128(i, aligned: true))
    case (0x6F, 2), (0x10, 0), (0x10, 1):
      setXMM(i.reg, i.isRegister ? xmm(i.rm) : try load128(i, aligned: false))
    case (0x7F, 1), (0x29, 0), (0x29, 1):
      if i.isRegister {
        setXMM(i.rm, xmm(i.reg))
      } else {
        try store128(xmm(i.reg), i, aligned: true)
      }
    case (0x7F, 2), (0x11, 0), (0x11, 1):
      if i.isRegister {
        setXMM(i.rm, xmm(i.reg))
      } else {
        try store128(xmm(i.reg), i, aligned: false)
      }
    case (0xE7, 1), (0x2B, 0), (0x2B, 1):
      guard !i.isRegister else { throw .undefined }
      try store128(xmm(i.reg), i, aligned: true)
    case (0xF0, 3):
      guard !i.isRegister else { throw .undefined }
      setXMM(i.reg, try load128(i, aligned: false))
    case (0x10, 2), (0x10, 3):
      if i.isRegister {
        let mask: UInt64 = prefix == 2 ? 0xFFFF_FFFF : .max
        let old = xmm(i.reg)
        setXMM(i.reg, (old.0 & ~mask | xmm(i.rm).0 & mask, old.1))
      } else {
        setXMM(i.reg, try operand(i, prefix == 2 ? 4 : 8))
      }
    case (0x11, 2), (0x11, 3):
      let mask: UInt64 = prefix == 2 ? 0xFFFF_FFFF : .max
      if i.isRegister {
        let old = xmm(i.rm)
        setXMM(i.rm, (old.0 & ~mask | xmm(i.reg).0 & mask, old.1))
      } else if prefix == 2 {
        try storeOperand(UInt32(truncatingIfNeeded: xmm(i.reg).0), i)
      } else {
        try storeOperand(xmm(i.reg).0, i)
      }
    case (0x6E, 1):
      setXMM(i.reg, (try loadRM(i, size: i.size), 0))
    case (0x7E, 1): try storeRM(i, size: i.size, truncated(xmm(i.reg).0, i.size))
    case (0x7E, 2): setXMM(i.reg, (i.isRegister ? xmm(i.rm).0 : try loadOperand(UInt64.self, i), 0))
    case (0xD6, 1):
      if i.isRegister { setXMM(i.rm, (xmm(i.reg).0, 0)) } else { try storeOperand(xmm(i.reg).0, i) }
    case (0xD6, 2), (0xD6, 3):
      guard i.isRegister else { throw .undefined }
      if x87.isPending { throw .x87 }
      x87.beginMMX()
      if prefix == 2 {
        setXMM(i.reg, (x87.mm(Int(i.rm & 7)), 0))
      } else {
        x87.setMM(Int(i.reg & 7), xmm(i.rm).0)
      }
    case (0x12, 0), (0x12, 1), (0x16, 0), (0x16, 1):
      // MOVLPS, MOVHLPS, MOVHPS, MOVLHPS.
      guard !i.isRegister || prefix == 0 else { throw .undefined }
      let value =
        i.isRegister
        ? (i.opcode == 0x12 ? xmm(i.rm).1 : xmm(i.rm).0) : try loadOperand(UInt64.self, i)
      let old = xmm(i.reg)
      setXMM(i.reg, i.opcode == 0x12 ? (value, old.1) : (old.0, value))
    case (0x13, 0), (0x13, 1), (0x17, 0), (0x17, 1):
      guard !i.isRegister else { throw .undefined }
      try storeOperand(i.opcode == 0x13 ? xmm(i.reg).0 : xmm(i.reg).1, i)
    case (0xEF, 1), (0x57, 0), (0x57, 1):
      let (a, b) = (xmm(i.reg), try operand(i, 16))
      setXMM(i.reg, (a.0 ^ b.0, a.1 ^ b.1))
    case (0xEB, 1), (0x56, 0), (0x56, 1):
      let (a, b) = (xmm(i.reg), try operand(i, 16))
      setXMM(i.reg, (a.0 | b.0, a.1 | b.1))
    case (0xDB, 1), (0x54, 0), (0x54, 1):
      let (a, b) = (xmm(i.reg), try operand(i, 16))
      setXMM(i.reg, (a.0 & b.0, a.1 & b.1))
    case (0xDF, 1), (0x55, 0), (0x55, 1):
      let (a, b) = (xmm(i.reg), try operand(i, 16))
      setXMM(i.reg, (~a.0 & b.0, ~a.1 & b.1))
    case (0xD7, 1), (0x50, 0), (0x50, 1):
      guard i.isRegister else { throw .undefined }
      var unit = VectorUnit(mxcsr: 0x1F80)
      unit.second = xmm(i.rm)
      unit.run(0, prefix, i.opcode)
      setReg64(i.reg, unit.rax & 0xFFFF_FFFF)
    case (0xC4, 1):
      let value = try loadRM(i, size: i.isRegister ? 4 : 2) & 0xFFFF
      setXMM(i.reg, Self.inserted(xmm(i.reg), value, Int(i.immediate & 7), 2))
    case (0xC5, 1):
      guard i.isRegister else { throw .undefined }
      setReg64(i.reg, Self.extracted(xmm(i.rm), Int(i.immediate & 7), 2))
    case (0xF7, 1): try maskedMove(i, xmm(i.reg), xmm(i.rm), 16)
    case (0x71...0x73, 1): try shiftByImmediate(i)
    default: try executeArithmetic(i)
    }
  }

  // MARK: - Words of registers

  static func extracted(_ value: Pair, _ index: Int, _ size: Int) -> UInt64 {
    let place = index * size
    let word = place < 8 ? value.0 : value.1
    let mask = size == 8 ? UInt64.max : 1 << UInt64(8 * size) &- 1
    return word >> UInt64(8 * (place & 7)) & mask
  }

  static func inserted(_ value: Pair, _ new: UInt64, _ index: Int, _ size: Int) -> Pair {
    let place = index * size
    let shift = UInt64(8 * (place & 7))
    let mask: UInt64 = (size == 8 ? UInt64.max : 1 << UInt64(8 * size) &- 1) << shift
    return place < 8
      ? (value.0 & ~mask | new << shift & mask, value.1)
      : (value.0, value.1 & ~mask | new << shift & mask)
  }

  /// MASKMOVDQU and MASKMOVQ: the bytes whose mask has its sign set, to DS:rDI.
  private mutating func maskedMove(_ i: Instruction, _ value: Pair, _ mask: Pair, _ count: Int)
    throws(Fault)
  {
    guard i.isRegister else { throw .undefined }
    let first = truncated(gpr[7], i.addressSize)
    // All that is chosen or nothing.
    for isStore in [false, true] {
      for place in 0..<count where Self.extracted(mask, place, 1) & 0x80 != 0 {
        let at = try linear(
          Int(i.segment), truncated(first &+ UInt64(place), i.addressSize), 1, isWrite: true)
        if isStore {
          try store(UInt8(Self.extracted(value, place, 1)), at)
        } else {
          try checkWrite(at)
        }
      }
    }
  }

  /// The groups 71h to 73h on XMM registers.
  private mutating func shiftByImmediate(_ i: Instruction) throws(Fault) {
    guard i.isRegister else { throw .undefined }
    let count = i.immediate & 0xFF
    if i.opcode == 0x73, i.group == 3 || i.group == 7 {
      // PSRLDQ and PSLLDQ: by bytes.
      let value = xmm(i.rm)
      let bits = min(count, 16) * 8
      let result: Pair
      if i.group == 3 {
        result =
          bits < 64
          ? (bits == 0 ? value : (value.0 >> bits | value.1 << (64 - bits), value.1 >> bits))
          : (value.1 >> (bits - 64), 0)
      } else {
        result =
          bits < 64
          ? (bits == 0 ? value : (value.0 << bits, value.1 << bits | value.0 >> (64 - bits)))
          : (0, value.0 << (bits - 64))
      }
      setXMM(i.rm, result)
      return
    }
    guard let opcode = Self.shiftOpcode(i) else { throw .undefined }
    var unit = VectorUnit(mxcsr: 0x1F80)
    unit.first = xmm(i.rm)
    unit.second = (count, 0)
    unit.run(0, 1, opcode)
    setXMM(i.rm, unit.first)
  }

  /// The form by a register of a shift by an immediate.
  static func shiftOpcode(_ i: Instruction) -> UInt8? {
    switch (i.opcode, i.group) {
    case (0x71, 2): 0xD1
    case (0x71, 4): 0xE1
    case (0x71, 6): 0xF1
    case (0x72, 2): 0xD2
    case (0x72, 4): 0xE2
    case (0x72, 6): 0xF2
    case (0x73, 2): 0xD3
    case (0x73, 6): 0xF3
    default: nil
    }
  }

  // MARK: - MMX

  private mutating func executeMMX(_ i: Instruction) throws(Fault) {
    guard cr0 & 4 == 0 else { throw .undefined }
    guard cr0 & 8 == 0 else { throw .deviceNotAvailable }
    guard Self.hasMMX(i) else { throw .undefined }
    if x87.isPending { throw .x87 }
    if i.map & 15 == 1, i.opcode == 0x77 {
      x87.emms()
      return
    }
    let reg = Int(i.reg & 7)
    let rm = Int(i.rm & 7)
    // What memory has is read before the registers change hands.
    var value: UInt64 = 0
    let isStore = i.map & 15 == 1 && (i.opcode == 0x7E || i.opcode == 0x7F || i.opcode == 0xE7)
    if !i.isRegister, !isStore {
      switch (i.map & 15, i.opcode) {
      case (1, 0x6E): value = try loadOperand(size: i.size, i)
      case (1, 0x60...0x62): value = UInt64(try loadOperand(UInt32.self, i))
      case (1, 0xC4): value = UInt64(try loadOperand(UInt16.self, i))
      default: value = try loadOperand(UInt64.self, i)
      }
    }
    if isStore, !i.isRegister {
      let size = i.opcode == 0x7E ? i.size : 8
      let place = try linear(i, Int(size), isWrite: true)
      try checkWrite(place, Int(size))
      x87.beginMMX()
      try storeSized(x87.mm(reg), place, size)
      return
    }
    x87.beginMMX()
    if i.isRegister { value = x87.mm(rm) }
    switch (i.map & 15, i.opcode) {
    case (1, 0x6E): x87.setMM(reg, i.isRegister ? self.reg(i.rm, size: i.size) : value)
    case (1, 0x7E): setReg(i.rm, size: i.size, truncated(x87.mm(reg), i.size))
    case (1, 0x6F): x87.setMM(reg, value)
    case (1, 0x7F): x87.setMM(rm, x87.mm(reg))
    case (1, 0xC4):
      if i.isRegister { value = UInt64(reg16(i.rm)) }
      x87.setMM(reg, Self.inserted((x87.mm(reg), 0), value, Int(i.immediate & 3), 2).0)
    case (1, 0xC5): setReg64(i.reg, Self.extracted((value, 0), Int(i.immediate & 3), 2))
    case (1, 0xF7): try maskedMove(i, (x87.mm(reg), 0), (value, 0), 8)
    default:
      var unit = VectorUnit(mxcsr: 0x1F80)
      unit.first = (x87.mm(reg), 0)
      unit.second = (value, 0)
      if i.map & 15 == 1, let opcode = Self.shiftOpcode(i) {
        unit.first = (value, 0)
        unit.second = (i.immediate & 0xFF, 0)
        unit.runMMX(0, opcode)
        x87.setMM(rm, unit.first.0)
        return
      }
      if i.map & 15 == 1, i.opcode == 0x70 {
        unit.runMMX(BH_MMX_PSHUFW, UInt8(truncatingIfNeeded: i.immediate))
      } else if i.map & 15 == 3 {
        unit.runMMX(BH_MMX_PALIGNR, UInt8(truncatingIfNeeded: i.immediate))
      } else {
        unit.runMMX(i.map & 15 == 2 ? 1 : 0, i.opcode)
      }
      if i.map & 15 == 1, i.opcode == 0xD7 {
        setReg64(i.reg, unit.rax & 0xFFFF_FFFF)
      } else {
        x87.setMM(reg, unit.first.0)
      }
    }
  }

  /// Whether an instruction on MMX registers exists.
  private static func hasMMX(_ i: Instruction) -> Bool {
    switch (i.map & 15, i.opcode) {
    case (1, 0x60...0x6B), (1, 0x6E...0x70), (1, 0x74...0x77), (1, 0x7E), (1, 0x7F), (1, 0xC4),
      (1, 0xD1...0xD5), (1, 0xD8...0xE5), (1, 0xE8...0xEF), (1, 0xF1...0xF6), (1, 0xF8...0xFE),
      (2, 0x00...0x0B), (2, 0x1C...0x1E), (3, 0x0F):
      true
    case (1, 0xC5), (1, 0xD7), (1, 0xF7): i.isRegister
    case (1, 0xE7): !i.isRegister
    case (1, 0x71...0x73): i.isRegister && shiftOpcode(i) != nil
    default: false
    }
  }
}
