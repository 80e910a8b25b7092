// SPDX-License-Identifier: Apache-2.0

/// What reads and writes memory in one go: with the host's own locked instructions on the guest's
/// memory.
extension BlockTranslation {
  /// Whether it was such an instruction.
  mutating func emitAtomic(_ i: Instruction) -> Bool {
    switch i.op {
    case .lockedALU: lockedArithmetic(i)
    case .lockedUnary:
      operand(i, i.size, isWrite: true)
      if i.vvvv < 2 { needCarry() }
      e.byte(0xF0)
      let isCount = i.vvvv < 2
      e.memory(
        i.size, Self.byteForm(isCount ? 0xFF : 0xF7, i.size), reg: i.vvvv, base: Self.rax)
      if i.vvvv == 2 { wrote(Self.rax, i.size, rip: next) } else { changed(i.size) }
    case .xchgM:
      operand(i, i.size, isWrite: true)
      copy(i.reg)
      e.memory(i.size, Self.byteForm(0x87, i.size), reg: Self.rcx, base: Self.rax)
      put(i.reg, i.size, from: Self.rcx)
      wrote(Self.rax, i.size, rip: next)
    case .xadd:
      operand(i, i.size, isWrite: true)
      e.store(Self.rax, slot: Slot.scratch)
      copy(i.reg)
      e.byte(0xF0)
      e.memory(i.size, 0x0F, Self.byteForm(0xC1, i.size), reg: Self.rcx, base: Self.rax)
      put(i.reg, i.size, from: Self.rcx)
      made()
      e.load(Self.rcx, slot: Slot.scratch)
      wrote(Self.rcx, i.size, rip: next)
    case .cmpxchg: compareExchange(i)
    case .cmpxchg16b: compareExchange16(i)
    default: return false
    }
    return true
  }

  private mutating func lockedArithmetic(_ i: Instruction) {
    operand(i, i.size, isWrite: true)
    let takesCarry = i.vvvv == 2 || i.vvvv == 3
    if i.scale & 0x80 != 0 {
      let source = use(i.reg, Self.rcx)
      if takesCarry { needCarry() }
      e.byte(0xF0)
      e.memory(
        i.size, Self.byteForm(i.vvvv << 3 | 1, i.size), reg: source, base: Self.rax)
    } else {
      if takesCarry { needCarry() }
      e.byte(0xF0)
      e.memory(i.size, Self.byteForm(0x81, i.size), reg: i.vvvv, base: Self.rax)
      immediate(i, i.size)
    }
    changed(i.size)
  }

  private mutating func compareExchange(_ i: Instruction) {
    operand(i, i.size, isWrite: true)
    // RAX is the accumulator, so the address moves to RDX and the mark to the file.
    e.store(Self.rdx, slot: Slot.mark)
    e.registers(8, 0x8B, reg: Self.rdx, rm: Self.rax)
    e.registers(8, 0x8B, reg: Self.rax, rm: use(0, Self.rax))
    let source = use(i.reg, Self.rcx)
    e.byte(0xF0)
    e.memory(i.size, 0x0F, Self.byteForm(0xB1, i.size), reg: source, base: Self.rdx)
    // The accumulator takes a whole register's write only when it changes.
    let isEqual = e.jump(condition: 4)
    put(0, i.size, from: Self.rax)
    e.aim(isEqual)
    made()
    e.registers(8, 0x8B, reg: Self.rcx, rm: Self.rdx)
    e.load(Self.rdx, slot: Slot.mark)
    wrote(Self.rcx, i.size, rip: next)
  }

  private mutating func compareExchange16(_ i: Instruction) {
    operand(i, 16, isWrite: true)
    e.append([0xA8, 15])
    leaveSlowly(5, i)
    e.store(Self.rdx, slot: Slot.mark)
    // RBX is the guest's RAX, and the new value's lower half must be there; R12 is lent.
    let (lent, rbx): (UInt8, UInt8) = (12, 3)
    e.store(lent, slot: 7)
    e.registers(8, 0x8B, reg: lent, rm: Self.rax)
    e.registers(8, 0x8B, reg: Self.rax, rm: use(0, Self.rax))
    e.registers(8, 0x8B, reg: Self.rdx, rm: use(2, Self.rdx))
    e.registers(8, 0x8B, reg: Self.rcx, rm: use(1, Self.rcx))
    e.registers(8, 0x8B, reg: rbx, rm: use(3, rbx))
    e.byte(0xF0)
    e.memory(8, 0x0F, 0xC7, reg: 1, base: lent)
    // What is there now; what was expected, if it was equal.
    e.registers(8, 0x8B, reg: use(0, Self.rax), rm: Self.rax)
    e.registers(8, 0x8B, reg: use(2, Self.rdx), rm: Self.rdx)
    madeZero()
    e.registers(8, 0x8B, reg: Self.rcx, rm: lent)
    e.load(lent, slot: 7)
    e.load(Self.rdx, slot: Slot.mark)
    wrote(Self.rcx, 16, rip: next)
  }

  // MARK: - Bits

  /// BT and its kin on memory: the word that has the bit, which a register may put far away.
  mutating func bitTestInMemory(_ i: Instruction) {
    let group: UInt8 = i.op == .bt ? 4 : i.op == .bts ? 5 : i.op == .btr ? 6 : 7
    let isWrite = i.op != .bt
    if i.vvvv == 1 {
      operand(i, i.size, isWrite: isWrite)
    } else {
      address(i)
      let index = use(i.reg, Self.rcx)
      e.registers(8, i.size == 8 ? 0x8B : 0x63, reg: Self.rcx, rm: index)
      e.registers(8, 0xC1, reg: 7, rm: Self.rcx)
      e.byte(i.size == 8 ? 6 : 5)
      e.lea(Self.rax, base: Self.rax, index: Self.rcx, scale: i.size == 8 ? 3 : 2, 0)
      addSegment(i)
      translate(i, i.size, isWrite: isWrite)
    }
    e.store(Self.rax, slot: Slot.scratch)
    if i.vvvv == 1 {
      e.constant(Self.rcx, i.immediate & UInt64(8 * i.size - 1))
    } else {
      copy(i.reg)
      e.registers(4, 0x83, reg: 4, rm: Self.rcx)
      e.byte(8 * i.size - 1)
    }
    if isWrite, i.prefixes.contains(.lock) { e.byte(0xF0) }
    e.memory(i.size, 0x0F, 0x83 | group << 3, reg: Self.rcx, base: Self.rax)
    madeCarry(both: false)
    guard isWrite else { return }
    e.load(Self.rcx, slot: Slot.scratch)
    wrote(Self.rcx, i.size, rip: next)
  }

  /// Whether it counts bits, divides, or shifts two registers.
  mutating func emitBits(_ i: Instruction) -> Bool {
    switch i.op {
    case .bsf, .bsr, .tzcnt, .lzcnt, .popcnt: count(i)
    case .div, .idiv: divide(i)
    case .shld, .shrd:
      guard !wantsFlags else {
        // What the overflow flag is after more than one bit is the interpreter's choice.
        slow.append((e.jump(), number, next &- UInt64(i.length)))
        break
      }
      let target = use(i.rm, Self.rax)
      let source = use(i.reg, Self.rcx)
      e.registers(i.size, 0x0F, i.op == .shld ? 0xA4 : 0xAC, reg: source, rm: target)
      e.byte(UInt8(truncatingIfNeeded: i.immediate))
      finish(i.rm, target)
      made()
    case .movnti:
      operand(i, i.size, isWrite: true)
      e.memory(i.size, 0x89, reg: use(i.reg, Self.rcx), base: Self.rax)
      wrote(Self.rax, i.size, rip: next)
    // MFENCE, which is stronger than the other two.
    case .fence: e.append([0x0F, 0xAE, 0xF0])
    case .prefetch: break
    default: return false
    }
    return true
  }

  private mutating func count(_ i: Instruction) {
    if i.isRegister {
      copy(i.rm)
    } else {
      operand(i, i.size, isWrite: false)
      e.memory(i.size, 0x8B, reg: Self.rcx, base: Self.rax)
    }
    let op = Effect.meaning(i.op, common.abilities)
    if op == .bsf || op == .bsr {
      e.registers(i.size, 0x0F, op == .bsf ? 0xBC : 0xBD, reg: Self.rax, rm: Self.rcx)
      // For zero the destination is left alone.
      let isZero = e.jump(condition: 4)
      put(i.reg, i.size, from: Self.rax)
      e.aim(isZero)
      return madeZero()
    }
    e.byte(0xF3)
    e.registers(
      i.size, 0x0F, op == .popcnt ? 0xB8 : op == .tzcnt ? 0xBC : 0xBD, reg: Self.rax,
      rm: Self.rcx)
    put(i.reg, i.size, from: Self.rax)
    if op == .popcnt { return made() }
    // Carry and zero; the others stay.
    e.append([0x9F])
    e.registers(4, 0x8B, reg: Self.rcx, rm: Self.rax)
    e.registers(4, 0x81, reg: 4, rm: Self.rcx)
    e.word32(0x4100)
    merge(keeping: 0xBEFF)
  }

  /// DIV and IDIV by 32 and 64 bits, where the quotient fits for sure; the rest is the
  /// interpreter's, which raises #DE.
  private mutating func divide(_ i: Instruction) {
    let size = i.size
    if i.isRegister {
      copy(i.rm)
    } else {
      operand(i, size, isWrite: false)
      e.memory(size, 0x8B, reg: Self.rcx, base: Self.rax)
    }
    areFlagsInHost = false
    let (low, high) = (use(0, Self.rax), use(2, Self.rdx))
    if i.op == .div {
      e.registers(size, 0x3B, reg: high, rm: Self.rcx)
      leaveSlowly(3, i)
    } else {
      // The dividend is a sign-extended word, and the divisor neither 0 nor -1.
      e.registers(size, 0x8B, reg: Self.rdx, rm: low)
      e.registers(size, 0xC1, reg: 7, rm: Self.rdx)
      e.byte(size * 8 - 1)
      e.registers(size, 0x3B, reg: Self.rdx, rm: high)
      leaveSlowly(5, i)
      e.memory(8, 0x8D, reg: Self.rdx, base: Self.rcx, displacement: 1)
      e.registers(size, 0x83, reg: 7, rm: Self.rdx)
      e.byte(1)
      leaveSlowly(6, i)
    }
    e.registers(8, 0x8B, reg: Self.rax, rm: low)
    e.registers(8, 0x8B, reg: Self.rdx, rm: high)
    e.registers(size, 0xF7, reg: i.op == .div ? 6 : 7, rm: Self.rcx)
    put(0, size, from: Self.rax)
    put(2, size, from: Self.rdx)
  }
}
