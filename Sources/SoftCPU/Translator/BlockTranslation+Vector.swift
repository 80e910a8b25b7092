// SPDX-License-Identifier: Apache-2.0

/// SSE: the host's own instructions, on the guest's XMM registers in the host's.
///
/// They are loaded when a block needs them first, with the guest's MXCSR, and stored when
/// translated code is left; so code without them pays nothing.
extension BlockTranslation {
  /// Called with nothing in RAX: has the vector registers in the host's.
  static func loadVectors(_ e: inout Emitter) {
    e.load(rax, slot: Slot.vectorFile)
    for number in 0..<UInt8(16) {
      e.vector(0, 0x10, reg: number, base: rax, displacement: 32 * Int32(number))
    }
    // LDMXCSR.
    e.memory(4, 0x0F, 0xAE, reg: 2, base: context, displacement: Int32(8 * Slot.mxcsr))
    e.memory(4, 0xC7, reg: 0, base: context, displacement: Int32(8 * Slot.vectors))
    e.word32(1)
    e.byte(0xC3)
  }

  /// Puts the vector registers back into the file if they are in the host's; RCX is lost.
  static func storeVectors(_ e: inout Emitter) {
    e.memory(8, 0x83, reg: 7, base: context, displacement: Int32(8 * Slot.vectors))
    e.byte(1)
    let skip = e.jump(condition: 5)
    e.load(rcx, slot: Slot.vectorFile)
    for number in 0..<UInt8(16) {
      e.vector(0, 0x11, reg: number, base: rcx, displacement: 32 * Int32(number))
    }
    // STMXCSR, and LDMXCSR of the host's.
    e.memory(4, 0x0F, 0xAE, reg: 3, base: context, displacement: Int32(8 * Slot.mxcsr))
    e.append([0x68, 0x80, 0x1F, 0, 0, 0x0F, 0xAE, 0x14, 0x24, 0x59])
    e.memory(4, 0xC7, reg: 0, base: context, displacement: Int32(8 * Slot.vectors))
    e.word32(0)
    e.aim(skip)
  }

  /// Has the vector registers in the host's from here on; RAX may be lost.
  private mutating func needVectors(_ i: Instruction) {
    guard !hasVectors else { return }
    hasVectors = true
    e.memory(8, 0x83, reg: 7, base: Self.context, displacement: Int32(8 * Slot.vectors))
    e.byte(1)
    let site = e.jump(condition: 5)
    vectorLoads.append((site, number, next &- UInt64(i.length), e.count))
    areFlagsInHost = false
  }

  /// Whether it was a vector instruction.
  mutating func emitVector(_ i: Instruction) -> Bool {
    guard let form = VectorForm(i) else { return false }
    needVectors(i)
    if !i.isRegister {
      let isWrite = form.kind == .store || form.kind == .storeGeneral
      operand(i, form.size, isWrite: isWrite)
      if form.isAligned {
        e.append([0xA8, 15])
        leaveSlowly(5, i)
      }
      let reg = form.kind == .toGeneral ? use(i.reg, Self.rcx) : i.reg
      instruction(i, form, reg: reg, rm: Self.rax, isMemory: true)
      if form.kind == .toGeneral { finish(i.reg, reg) }
      if isWrite { wrote(Self.rax, form.size, rip: next) }
      if form.kind == .compare { made() }
      return true
    }
    switch form.kind {
    case .load, .store, .compare: instruction(i, form, reg: i.reg, rm: i.rm, isMemory: false)
    case .shift: instruction(i, form, reg: i.group, rm: i.rm, isMemory: false)
    case .toGeneral:
      let reg = use(i.reg, Self.rcx)
      instruction(i, form, reg: reg, rm: i.rm, isMemory: false)
      finish(i.reg, reg)
    case .fromGeneral:
      instruction(i, form, reg: i.reg, rm: use(i.rm, Self.rcx), isMemory: false)
    case .storeGeneral:
      let rm = use(i.rm, Self.rcx)
      instruction(i, form, reg: i.reg, rm: rm, isMemory: false)
      finish(i.rm, rm)
    }
    if form.kind == .compare { made() }
    return true
  }

  private mutating func instruction(
    _ i: Instruction, _ form: VectorForm, reg: UInt8, rm: UInt8, isMemory: Bool
  ) {
    let isGeneral =
      form.kind == .toGeneral || form.kind == .fromGeneral || form.kind == .storeGeneral
    e.vector(
      i.vectorPrefix, map: i.map & 15, i.opcode, isWide: isGeneral && i.size == 8, reg: reg,
      rm: rm, isMemory: isMemory)
    if form.hasImmediate { e.byte(UInt8(truncatingIfNeeded: i.immediate)) }
  }
}
