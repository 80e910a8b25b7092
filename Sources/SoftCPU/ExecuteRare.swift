// SPDX-License-Identifier: Apache-2.0

internal import Processor

/// The integer instructions that have no case of their own in the loop.
extension SoftCPU {
  @inline(never)
  mutating func executeRare(_ i: Instruction) throws(Fault) {
    switch i.op {
    case .incM8: try modify(UInt8.self, i) { $0.increment($1) }
    case .incM16: try modify(UInt16.self, i) { $0.increment($1) }
    case .incM32: try modify(UInt32.self, i) { $0.increment($1) }
    case .incM64: try modify(UInt64.self, i) { $0.increment($1) }
    case .decM8: try modify(UInt8.self, i) { $0.decrement($1) }
    case .decM16: try modify(UInt16.self, i) { $0.decrement($1) }
    case .decM32: try modify(UInt32.self, i) { $0.decrement($1) }
    case .decM64: try modify(UInt64.self, i) { $0.decrement($1) }
    case .negM8: try modify(UInt8.self, i) { $0.negate($1) }
    case .negM16: try modify(UInt16.self, i) { $0.negate($1) }
    case .negM32: try modify(UInt32.self, i) { $0.negate($1) }
    case .negM64: try modify(UInt64.self, i) { $0.negate($1) }
    case .notM8: try modify(UInt8.self, i) { ~$1 }
    case .notM16: try modify(UInt16.self, i) { ~$1 }
    case .notM32: try modify(UInt32.self, i) { ~$1 }
    case .notM64: try modify(UInt64.self, i) { ~$1 }
    case .shift: try shift(i)
    case .movsxd:
      let value = UInt32(truncatingIfNeeded: try loadRM(i, size: i.size))
      setReg(i.reg, size: i.size, UInt64(value))
    case .xchgRR:
      let a = reg(i.reg, size: i.size)
      setReg(i.reg, size: i.size, reg(i.rm, size: i.size))
      setReg(i.rm, size: i.size, a)
    case .moffsLoad:
      let place = try linear(Int(i.segment), offset(i), Int(i.size), isWrite: false)
      setReg(0, size: i.size, try loadSized(place, i.size))
    case .moffsStore:
      let place = try linear(Int(i.segment), offset(i), Int(i.size), isWrite: true)
      try storeSized(reg(0, size: i.size), place, i.size)
    case .cbw:
      let half = i.size / 2
      setReg(0, size: i.size, Self.signed(reg(0, size: half), half))
    case .cwd:
      let isNegative = Self.signed(reg(0, size: i.size), i.size) >> 63 != 0
      setReg(2, size: i.size, isNegative ? ~0 : 0)
    case .lahf, .sahf: try moveFlags(i)
    case .cmc: flags.setCarry(!flags.cf)
    case .clc: flags.setCarry(false)
    case .stc: flags.setCarry(true)
    case .cld: systemFlags &= ~0x400
    case .std: systemFlags |= 0x400
    case .xlat:
      let offset = truncated(reg64(3) &+ UInt64(reg8(0)), i.addressSize)
      setReg8(0, try load(UInt8.self, try linear(Int(i.segment), offset, 1, isWrite: false)))
    case .salc: setReg8(0, flags.cf ? 0xFF : 0)
    case .loop, .loope, .loopne, .jcxz: loop(i)
    case .inPort, .outPort, .ins, .outs: try executePort(i)
    case .movs, .cmps, .stos, .lods, .scas: try executeString(i)
    case .lockedALU, .lockedUnary, .xchgM, .xadd, .cmpxchg, .cmpxchg8b, .cmpxchg16b:
      try executeLocked(i)
    case .fence, .prefetch: break
    case .pause: break
    case .clflush: try checkRead(try linear(i, 1, isWrite: false))
    case .movnti: try storeOperand(size: i.size, reg(i.reg, size: i.size), i)
    case .rdrand, .rdseed: try random(i)
    case .undefined: throw .undefined
    case .imul2, .imul3: try executeBits(i)
    default:
      if i.opNumber < Op.shift.rawValue || Self.isStackOp(i.op) {
        try executeStack(i)
      } else {
        try executeBits(i)
      }
    }
  }

  private static func isStackOp(_ op: Op) -> Bool {
    switch op {
    case .pushf, .popf, .enter, .leave, .pusha, .popa, .bound: true
    default: false
    }
  }

  /// A value of a size in bytes, sign-extended.
  static func signed(_ value: UInt64, _ size: UInt8) -> UInt64 {
    let shift = Int64(64 - 8 * Int64(size))
    return UInt64(bitPattern: (Int64(bitPattern: value) &<< shift) &>> shift)
  }

  /// The low bytes of a value.
  @inline(__always)
  func truncated(_ value: UInt64, _ size: UInt8) -> UInt64 {
    size == 8 ? value : value & (1 << (8 * UInt64(size)) &- 1)
  }

  // MARK: - Control

  /// Goes where an operand or the stack says, unless that is no address.
  @inline(__always)
  mutating func jumpIndirect(_ target: UInt64, _ size: UInt8) throws(Fault) {
    if size == 8, !Self.isCanonical(target) { throw .protection() }
    jump(target, size)
  }

  /// Goes to an offset in CS, of the operand's size.
  @inline(__always)
  mutating func jump(_ target: UInt64, _ size: UInt8) {
    rip = size == 8 ? target : size == 4 ? target & 0xFFFF_FFFF : target & 0xFFFF
  }

  private mutating func loop(_ i: Instruction) {
    let counter = truncated(reg64(1), i.addressSize)
    if i.op == .jcxz {
      if counter == 0 { jump(rip &+ i.immediate, i.size) }
      return
    }
    let left = truncated(counter &- 1, i.addressSize)
    setReg(1, size: i.addressSize, left)
    let goes =
      switch i.op {
      case .loope: left != 0 && flags.zf
      case .loopne: left != 0 && !flags.zf
      default: left != 0
      }
    if goes { jump(rip &+ i.immediate, i.size) }
  }

  private mutating func moveFlags(_ i: Instruction) throws(Fault) {
    if mode == .bits64, !has(.lahf64) { throw .undefined }
    if i.op == .lahf {
      setReg8(20, UInt8(truncatingIfNeeded: flags.bits & 0xD5 | 2))
    } else {
      flags.set(UInt64(reg8(20)) & 0xD5 | flags.bits & LazyFlags.overflow)
    }
  }

  private mutating func random(_ i: Instruction) throws(Fault) {
    guard has(i.op == .rdrand ? .rdrand : .rdseed) else { throw .undefined }
    var generator = SystemRandomNumberGenerator()
    setReg(i.rm, size: i.size, truncated(generator.next(), i.size))
    flags.set(LazyFlags.carry)
  }

  // MARK: - Features

  /// Features of CPUID that decide whether an instruction exists, by their place in
  /// ``instructionSets``.
  enum Feature: UInt32 {
    case lahf64, rdrand, rdseed, movbe, popcnt, lzcnt, bmi1, bmi2, adx, crc32, cmpxchg16b
    case gigantic, monitor, smap, smep, fsgsbase, invpcid, pku, umip, pcid, xsave, rdtscp, rdpid
  }

  @inline(__always)
  func has(_ feature: Feature) -> Bool { instructionSets >> feature.rawValue & 1 != 0 }

  /// The features of a table, a bit for each ``Feature`` in its order.
  static func instructionSets(of table: CPUIDTable) -> UInt32 {
    let one = table.entry(1)
    let seven = table.entry(7)
    let extended = table.entry(0x8000_0001)
    let bits: [Bool] = [
      (extended?.ecx ?? 0) >> 0 & 1 != 0,  // LAHF in 64-bit mode
      (one?.ecx ?? 0) >> 30 & 1 != 0,  // RDRAND
      (seven?.ebx ?? 0) >> 18 & 1 != 0,  // RDSEED
      (one?.ecx ?? 0) >> 22 & 1 != 0,  // MOVBE
      (one?.ecx ?? 0) >> 23 & 1 != 0,  // POPCNT
      (extended?.ecx ?? 0) >> 5 & 1 != 0,  // LZCNT
      (seven?.ebx ?? 0) >> 3 & 1 != 0,  // BMI1
      (seven?.ebx ?? 0) >> 8 & 1 != 0,  // BMI2
      (seven?.ebx ?? 0) >> 19 & 1 != 0,  // ADX
      (one?.ecx ?? 0) >> 20 & 1 != 0,  // SSE4.2
      (one?.ecx ?? 0) >> 13 & 1 != 0,  // CMPXCHG16B
      (extended?.edx ?? 0) >> 26 & 1 != 0,  // pages of 1 GiB
      (one?.ecx ?? 0) >> 3 & 1 != 0,  // MONITOR
      (seven?.ebx ?? 0) >> 20 & 1 != 0,  // SMAP
      (seven?.ebx ?? 0) >> 7 & 1 != 0,  // SMEP
      (seven?.ebx ?? 0) >> 0 & 1 != 0,  // FSGSBASE
      (seven?.ebx ?? 0) >> 10 & 1 != 0,  // INVPCID
      (seven?.ecx ?? 0) >> 3 & 1 != 0,  // PKU
      (seven?.ecx ?? 0) >> 2 & 1 != 0,  // UMIP
      (one?.ecx ?? 0) >> 17 & 1 != 0,  // PCID
      (one?.ecx ?? 0) >> 26 & 1 != 0,  // XSAVE
      (extended?.edx ?? 0) >> 27 & 1 != 0,  // RDTSCP
      (seven?.ecx ?? 0) >> 22 & 1 != 0,  // RDPID
    ]
    return bits.enumerated().reduce(0) { $0 | ($1.element ? 1 << UInt32($1.offset) : 0) }
  }
}
