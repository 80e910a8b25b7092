// SPDX-License-Identifier: Apache-2.0

/// What kernels do at every entry and exit: flags, bases and the time.
extension BlockTranslation {
  /// Emits one of these instructions, which end their blocks; returns whether it is one.
  mutating func emitSystem(_ i: Instruction) -> Bool {
    switch i.op {
    case .cli:
      require(Translator.Forbidden.interrupts, i)
      e.memory(8, 0x81, reg: 4, base: Self.context, displacement: Int32(8 * Slot.systemFlags))
      e.word32(~0x200)
    case .sti:
      require(Translator.Forbidden.interrupts, i)
      e.memory(4, 0xF7, reg: 0, base: Self.context, displacement: Int32(8 * Slot.systemFlags))
      e.word32(0x200)
      leaveSlowly(5, i)
      e.memory(8, 0x81, reg: 1, base: Self.context, displacement: Int32(8 * Slot.systemFlags))
      e.word32(0x200)
      e.constant(slot: Slot.rip, next)
      e.constant(Self.rax, Translator.Exit.enabled)
      goOut(to: common.leave)
      return true
    case .swapgs:
      require(Translator.Forbidden.supervisor, i)
      e.load(Self.rax, slot: Slot.gsBase)
      e.load(Self.rcx, slot: Slot.kernelGSBase)
      e.store(Self.rax, slot: Slot.kernelGSBase)
      e.store(Self.rcx, slot: Slot.gsBase)
    case .rdtsc, .rdtscp:
      require(Translator.Forbidden.time, i)
      // LFENCE first: a guest orders its reads by fences of its own, which come out as MFENCE, and
      // that holds no RDTSC back. Two processors would see the time run backwards.
      e.append([0x0F, 0xAE, 0xE8, 0x0F, 0x31])
      e.registers(8, 0xC1, reg: 4, rm: Self.rdx)
      e.byte(32)
      e.registers(8, 0x0B, reg: Self.rdx, rm: Self.rax)
      e.memory(
        8, 0x03, reg: Self.rdx, base: Self.context, displacement: Int32(8 * Slot.timeOffset))
      put(0, 4, from: Self.rdx)
      e.registers(8, 0xC1, reg: 5, rm: Self.rdx)
      e.byte(32)
      put(2, 4, from: Self.rdx)
      if i.op == .rdtscp {
        e.load(Self.rdx, slot: Slot.timeAux)
        put(1, 4, from: Self.rdx)
      }
    case .clac, .stac:
      require(Translator.Forbidden.supervisor, i)
      let bit: UInt32 = 1 << 18
      e.memory(
        8, 0x81, reg: i.op == .stac ? 1 : 4, base: Self.context,
        displacement: Int32(8 * Slot.systemFlags))
      e.word32(i.op == .stac ? bit : ~bit)
      // The entries with the rights that are in force now.
      e.load(Self.rax, slot: i.op == .stac ? Slot.openTLB : Slot.closedTLB)
      e.store(Self.rax, slot: Slot.tlb)
    case .pushf: pushFlags(i)
    default: return false
    }
    exit(to: next)
    return true
  }

  /// Leaves for the interpreter when what an instruction needs is forbidden now.
  private mutating func require(_ bit: UInt8, _ i: Instruction) {
    areFlagsInHost = false
    e.memory(1, 0xF6, reg: 0, base: Self.context, displacement: Int32(8 * Slot.forbidden))
    e.byte(bit)
    leaveSlowly(5, i)
  }

  /// PUSHF: RF and VM are pushed as zero.
  private mutating func pushFlags(_ i: Instruction) {
    areFlagsInHost = false
    e.memory(
      4, 0x0F, 0xB7, reg: Self.rax, base: Self.context, displacement: Int32(8 * Slot.flags))
    e.registers(4, 0x8B, reg: Self.rcx, rm: Self.rax)
    e.registers(4, 0xC1, reg: 5, rm: Self.rcx)
    e.byte(8)
    e.registers(4, 0x81, reg: 4, rm: Self.rcx)
    e.word32(0xD5)
    e.registers(4, 0x81, reg: 4, rm: Self.rax)
    e.word32(1)
    e.registers(4, 0xC1, reg: 4, rm: Self.rax)
    e.byte(11)
    e.registers(4, 0x0B, reg: Self.rcx, rm: Self.rax)
    e.memory(
      4, 0x0B, reg: Self.rcx, base: Self.context, displacement: Int32(8 * Slot.systemFlags))
    e.registers(4, 0x81, reg: 4, rm: Self.rcx)
    e.word32(0xFC_FFFF)
    pushMade(i)
  }
}
