// SPDX-License-Identifier: Apache-2.0

/// The one-byte opcodes (SDM volume 2, table A-2).
extension Decoder {
  mutating func oneByte(_ opcode: UInt8) throws(Stop) {
    if opcode < 0x40, opcode & 7 < 6 { return try arithmetic(opcode) }
    let is64 = mode == .bits64
    switch opcode {
    case 0x0F: try twoByte()
    case 0x06, 0x0E, 0x16, 0x1E, 0x07, 0x17, 0x1F:
      guard !is64 else { return undefine() }
      i.reg = opcode >> 3 & 3
      ends(opcode & 1 == 0 ? .pushSegment : .popSegment)
    case 0x27: only32(.daa)
    case 0x2F: only32(.das)
    case 0x37: only32(.aaa)
    case 0x3F: only32(.aas)
    case 0x40...0x47: unaryRegister(.incR8, opcode)
    case 0x48...0x4F: unaryRegister(.decR8, opcode)
    case 0x50...0x57: stackRegister(opcode, .pushR16)
    case 0x58...0x5F: stackRegister(opcode, .popR16)
    case 0x60: only32(.pusha)
    case 0x61: only32(.popa)
    case 0x62:
      guard !is64 else { return undefine() }
      try modrm()
      i.isRegister ? undefine() : set(.bound)
    case 0x63:
      guard is64 else {
        i.size = 2
        try modrm()
        return ends(.arpl)
      }
      try modrm()
      if i.size == 8 {
        set(i.isRegister ? .movsxdR64 : .movsxdM64)
      } else {
        set(.movsxd)
      }
    case 0x68:
      default64()
      try immediate()
      set(.pushImmediate)
    case 0x6A:
      default64()
      try byteImmediate()
      set(.pushImmediate)
    case 0x69:
      try modrm()
      try immediate()
      set(.imul3)
    case 0x6B:
      try modrm()
      try byteImmediate()
      set(.imul3)
    case 0x6C, 0x6D: stringOp(.ins, opcode)
    case 0x6E, 0x6F: stringOp(.outs, opcode)
    case 0x70...0x7F:
      force64()
      i.immediate = try signed(1)
      ends(.jcc)
    case 0x80, 0x82:
      guard opcode == 0x80 || !is64 else { return undefine() }
      try byteModRM()
      try byteImmediate()
      set(.addRR8, operation: i.group, form: i.isRegister ? 3 : 4)
    case 0x81:
      try modrm()
      try immediate()
      set(.addRR8, operation: i.group, form: i.isRegister ? 3 : 4)
    case 0x83:
      try modrm()
      try byteImmediate()
      set(.addRR8, operation: i.group, form: i.isRegister ? 3 : 4)
    default: try oneByteHigh(opcode)
    }
  }

  private mutating func oneByteHigh(_ opcode: UInt8) throws(Stop) {
    let is64 = mode == .bits64
    switch opcode {
    case 0x84, 0x85:
      opcode == 0x84 ? try byteModRM() : try modrm()
      // TEST has no form with the register first: forms RR, MR, RI, MI.
      set(.testRR8, operation: 0, form: i.isRegister ? 0 : 1, forms: 4)
    case 0x86, 0x87:
      opcode == 0x86 ? try byteModRM() : try modrm()
      set(i.isRegister ? .xchgRR : .xchgM)
    case 0x88, 0x89:
      opcode == 0x88 ? try byteModRM() : try modrm()
      set(.movRR8, operation: 0, form: i.isRegister ? 0 : 2)
    case 0x8A, 0x8B:
      opcode == 0x8A ? try byteModRM() : try modrm()
      if i.isRegister { swapOperands() }
      set(.movRR8, operation: 0, form: i.isRegister ? 0 : 1)
    case 0x8C, 0x8E:
      try modrm()
      i.reg &= 7
      guard i.reg < 6, !(opcode == 0x8E && i.reg == 1) else { return undefine() }
      ends(opcode == 0x8C ? .movFromSegment : .movToSegment)
    case 0x8D:
      try modrm()
      guard !i.isRegister else { return undefine() }
      set(i.size == 8 ? .lea64 : i.size == 4 ? .lea32 : .lea16)
    case 0x8F:
      default64()
      try modrm()
      guard i.group == 0 else { return undefine() }
      if i.isRegister {
        set(popRegister)
      } else {
        // The stack pointer counts as already popped: a base of RSP is seen after it.
        set(.popMemory)
      }
    case 0x90:
      if rex & 1 != 0 { return exchangeAccumulator(opcode) }
      set(repeatPrefix == 0xF3 ? .pause : .nop)
    case 0x91...0x97: exchangeAccumulator(opcode)
    case 0x98: set(.cbw)
    case 0x99: set(.cwd)
    case 0x9A, 0xEA:
      guard !is64 else { return undefine() }
      i.displacement = try unsigned(i.size == 2 ? 2 : 4)
      i.immediate = try unsigned(2)
      // A direct far pointer: there is no ModRM.
      i.modrm = 0xC0
      ends(opcode == 0x9A ? .callFar : .jmpFar)
    case 0x9B: set(.fwait)
    case 0x9C:
      default64()
      ends(.pushf)
    case 0x9D:
      default64()
      ends(.popf)
    case 0x9E: set(.sahf)
    case 0x9F: set(.lahf)
    case 0xA0...0xA3: try moffs(opcode)
    case 0xA4, 0xA5: stringOp(.movs, opcode)
    case 0xA6, 0xA7: stringOp(.cmps, opcode)
    case 0xA8, 0xA9:
      if opcode == 0xA8 { i.size = 1 }
      try immediate()
      i.modrm = 0xC0
      i.rm = 0
      set(.testRR8, operation: 0, form: 2, forms: 4)
    case 0xAA, 0xAB: stringOp(.stos, opcode)
    case 0xAC, 0xAD: stringOp(.lods, opcode)
    case 0xAE, 0xAF: stringOp(.scas, opcode)
    case 0xB0...0xB7:
      i.size = 1
      i.rm = byteRegister(opcode & 7 | (rex & 1) << 3)
      i.modrm = 0xC0
      try byteImmediate()
      set(.movRR8, operation: 0, form: 3)
    case 0xB8...0xBF:
      i.rm = opcode & 7 | (rex & 1) << 3
      i.modrm = 0xC0
      i.immediate = try i.size == 8 ? unsigned(8) : signed(Int(i.size))
      set(.movRR8, operation: 0, form: 3)
    default: try oneByteLast(opcode)
    }
  }

  private mutating func oneByteLast(_ opcode: UInt8) throws(Stop) {
    let is64 = mode == .bits64
    switch opcode {
    case 0xC0, 0xC1, 0xD0...0xD3: try shift(opcode)
    case 0xC2:
      force64()
      i.immediate = try unsigned(2)
      ends(.retImmediate)
    case 0xC3:
      force64()
      ends(.ret)
    case 0xC4, 0xC5:
      // In 64-bit mode always VEX; elsewhere where LES and LDS would name a register.
      let second = try peek()
      if is64 || second >= 0xC0 {
        guard mode != .bits16 else {
          _ = try next()
          return undefine()
        }
        return try vex(opcode)
      }
      try modrm()
      i.vvvv = opcode == 0xC4 ? 0 : 3
      ends(.loadFarPointer)
    case 0xC6, 0xC7:
      opcode == 0xC6 ? try byteModRM() : try modrm()
      guard i.group == 0 else { return undefine() }
      try immediate()
      set(.movRR8, operation: 0, form: i.isRegister ? 3 : 4)
    case 0xC8:
      default64()
      i.immediate = try unsigned(2)
      i.immediate |= try unsigned(1) << 16
      set(.enter)
    case 0xC9:
      default64()
      set(.leave)
    case 0xCA:
      i.immediate = try unsigned(2)
      ends(.retFar)
    case 0xCB: ends(.retFar)
    case 0xCC: ends(.int3)
    case 0xCD:
      i.immediate = try unsigned(1)
      ends(.int)
    case 0xCE: is64 ? undefine() : ends(.intO)
    case 0xCF: ends(.iret)
    case 0xD4, 0xD5:
      try byteImmediate()
      only32(opcode == 0xD4 ? .aam : .aad)
    case 0xD6: only32(.salc)
    case 0xD7: set(.xlat)
    case 0xD8...0xDF:
      try modrm()
      set(.x87)
    case 0xE0...0xE3:
      force64()
      i.immediate = try signed(1)
      let ops: [4 of Op] = [.loopne, .loope, .loop, .jcxz]
      ends(ops[Int(opcode & 3)])
    case 0xE4, 0xE5, 0xEC, 0xED: try port(opcode, .inPort)
    case 0xE6, 0xE7, 0xEE, 0xEF: try port(opcode, .outPort)
    case 0xE8:
      force64()
      i.immediate = try signed(i.size == 2 ? 2 : 4)
      ends(.callRelative)
    case 0xE9:
      force64()
      i.immediate = try signed(i.size == 2 ? 2 : 4)
      ends(.jmp)
    case 0xEB:
      force64()
      i.immediate = try signed(1)
      ends(.jmp)
    case 0xF1: ends(.int1)
    case 0xF4: ends(.hlt)
    case 0xF5: set(.cmc)
    case 0xF6, 0xF7: try group3(opcode)
    case 0xF8: set(.clc)
    case 0xF9: set(.stc)
    case 0xFA: ends(.cli)
    case 0xFB: ends(.sti)
    case 0xFC: set(.cld)
    case 0xFD: set(.std)
    case 0xFE:
      try byteModRM()
      guard i.group < 2 else { return undefine() }
      unary(i.group == 0 ? .incR8 : .decR8)
    case 0xFF: try group5()
    default: undefine()
    }
  }

  // MARK: - Groups

  private mutating func arithmetic(_ opcode: UInt8) throws(Stop) {
    let operation = opcode >> 3
    switch opcode & 7 {
    case 0, 1:
      opcode & 1 == 0 ? try byteModRM() : try modrm()
      set(.addRR8, operation: operation, form: i.isRegister ? 0 : 2)
    case 2, 3:
      opcode & 1 == 0 ? try byteModRM() : try modrm()
      if i.isRegister { swapOperands() }
      set(.addRR8, operation: operation, form: i.isRegister ? 0 : 1)
    default:
      if opcode & 1 == 0 { i.size = 1 }
      try immediate()
      i.modrm = 0xC0
      i.rm = 0
      set(.addRR8, operation: operation, form: 3)
    }
  }

  /// Form RR has its destination in rm.
  private mutating func swapOperands() { (i.reg, i.rm) = (i.rm, i.reg) }

  private mutating func only32(_ op: Op) { mode == .bits64 ? undefine() : set(op) }

  private mutating func unary(_ first: Op) {
    // Listed by size, then operation, then register and memory.
    let number = first.rawValue + sizeIndex * 8 + (i.isRegister ? 0 : 1)
    i.op = Op(rawValue: number) ?? .undefined
  }

  private mutating func unaryRegister(_ first: Op, _ opcode: UInt8) {
    i.rm = opcode & 7
    i.modrm = 0xC0
    unary(first)
  }

  private mutating func stackRegister(_ opcode: UInt8, _ first: Op) {
    default64()
    i.rm = opcode & 7 | (rex & 1) << 3
    i.modrm = 0xC0
    let isPush = first == .pushR16
    switch i.size {
    case 2: set(isPush ? .pushR16 : .popR16)
    case 4: set(isPush ? .pushR32 : .popR32)
    default: set(isPush ? .pushR64 : .popR64)
    }
  }

  private var popRegister: Op { i.size == 2 ? .popR16 : i.size == 4 ? .popR32 : .popR64 }

  private mutating func exchangeAccumulator(_ opcode: UInt8) {
    i.rm = opcode & 7 | (rex & 1) << 3
    i.reg = 0
    i.modrm = 0xC0
    set(.xchgRR)
  }

  private mutating func moffs(_ opcode: UInt8) throws(Stop) {
    if opcode & 1 == 0 { i.size = 1 }
    i.displacement = try unsigned(Int(i.addressSize))
    set(opcode < 0xA2 ? .moffsLoad : .moffsStore)
  }

  private mutating func stringOp(_ op: Op, _ opcode: UInt8) {
    if opcode & 1 == 0 { i.size = 1 }
    if (op == .ins || op == .outs) && i.size == 8 { i.size = 4 }
    set(op)
    // A batch may stop early for an interrupt; INS and OUTS leave for a device.
    if op == .ins || op == .outs { i.prefixes.insert(.endsBlock) }
  }

  private mutating func shift(_ opcode: UInt8) throws(Stop) {
    opcode & 1 == 0 ? try byteModRM() : try modrm()
    switch opcode {
    case 0xC0, 0xC1:
      i.immediate = try unsigned(1)
      let count = i.immediate & (i.size == 8 ? 63 : 31)
      i.immediate = count
      if i.isRegister, i.size > 1, count != 0, count < UInt64(i.size) * 8 {
        switch i.group {
        case 4, 6: return setShift(.shlRI16)
        case 5: return setShift(.shrRI16)
        case 7: return setShift(.sarRI16)
        default: break
        }
      }
      i.vvvv = 0
    case 0xD0, 0xD1:
      i.immediate = 1
      i.vvvv = 0
      if i.isRegister, i.size > 1 {
        switch i.group {
        case 4, 6: return setShift(.shlRI16)
        case 5: return setShift(.shrRI16)
        case 7: return setShift(.sarRI16)
        default: break
        }
      }
    default: i.vvvv = 1  // by CL
    }
    set(.shift)
  }

  private mutating func setShift(_ first: Op) {
    i.op = Op(rawValue: first.rawValue + (sizeIndex - 1) * 3) ?? .undefined
  }

  private mutating func port(_ opcode: UInt8, _ op: Op) throws(Stop) {
    i.size = opcode & 1 == 0 ? 1 : i.size == 2 ? 2 : 4
    if opcode < 0xE8 {
      i.immediate = try unsigned(1)
      i.vvvv = 0
    } else {
      i.vvvv = 1  // the port is in DX
    }
    // A device may change the memory map, or raise an interrupt.
    ends(op)
  }

  private mutating func group3(_ opcode: UInt8) throws(Stop) {
    opcode == 0xF6 ? try byteModRM() : try modrm()
    switch i.group {
    case 0, 1:
      try immediate()
      set(.testRR8, operation: 0, form: i.isRegister ? 2 : 3, forms: 4)
    case 2: unary(.notR8)
    case 3: unary(.negR8)
    case 4: set(.mul)
    case 5: set(.imul1)
    case 6: set(.div)
    default: set(.idiv)
    }
  }

  private mutating func group5() throws(Stop) {
    let size = i.size
    try modrm()
    switch i.group {
    case 0: unary(.incR8)
    case 1: unary(.decR8)
    case 2:
      force64()
      ends(.callIndirect)
    case 4:
      force64()
      ends(.jmpIndirect)
    case 3, 5:
      guard !i.isRegister else { return undefine() }
      i.size = size
      ends(i.group == 3 ? .callFar : .jmpFar)
    case 6:
      default64()
      if i.isRegister {
        set(i.size == 2 ? .pushR16 : i.size == 4 ? .pushR32 : .pushR64)
      } else {
        set(.pushMemory)
      }
    default: undefine()
    }
  }
}
