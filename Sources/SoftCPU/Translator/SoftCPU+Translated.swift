// SPDX-License-Identifier: Apache-2.0

internal import Processor

/// Runs translated code, and what it leaves to the interpreter.
extension SoftCPU {
  /// Executes blocks, translated where they are, until somebody wants attention or an instruction
  /// asks for care.
  ///
  /// - Precondition: the code is 64-bit code, and no segment has to be checked.
  mutating func executeTranslated() throws(Fault) {
    var link = 0
    // What is asked for and cannot be done yet waits.
    var servable = servable
    prepare()
    var isFresh = false
    repeat {
      isFresh = false
      guard let code = translatedBlock(link) else {
        link = 0
        takeBack()
        guard let place = try block() else { return try executeOne() }
        try executeBlock(place)
        // What the interpreter has executed may have changed what was prepared.
        prepare()
        continue
      }
      let result = enter(code)
      link = result & Translator.Exit.link != 0 ? Int(result & 0xFFFF_FFFF) : 0
      if result == 0 || link != 0 { continue }
      if result & Translator.Exit.wroteCode != 0 {
        let mark = CodeMark.Reference(address: UInt(gpr[Translator.Slot.mark]))
        mark.wasWritten(Int(gpr[Translator.Slot.scratch] & 0xFFF), count: Int(result & 0xFF))
        continue
      }
      takeBack()
      if result & Translator.Exit.enabled != 0 {
        // Where somebody waits it is his turn after the next instruction; else that one is executed
        // before anybody looks again.
        guard attention.pending == 0 else {
          interruptShadow = 1
          return
        }
        servable = self.servable
        isFresh = true
        continue
      }
      var place = Int(result & 0xFFFF_FFFF)
      if result & Translator.Exit.single != 0 {
        self.code.setScratch(self.code[place])
        place = CodeCache.scratch
      }
      try executeBlock(place)
      prepare()
    } while isFresh || !leavesBlock && attention.pending & servable == 0
    takeBack()
  }

  /// Tells translated code what it needs to know of the translations, segments and flags.
  @inline(__always)
  private mutating func prepare() {
    gpr[Translator.Slot.epoch] = tlb.epoch
    gpr[Translator.Slot.tlb] = UInt64(tlb.address)
    gpr[Translator.Slot.jumps] = translator.jumpsAddress
    gpr[Translator.Slot.fsBase] = segmentBase[4]
    gpr[Translator.Slot.gsBase] = segmentBase[5]
    // With exceptions that are not masked, and without the right to use them, it is interpreted.
    let isUsable =
      cr0 & 0xC == 0 && cr4 & 1 << 9 != 0 && mxcsr & 0x1F80 == 0x1F80
    gpr[Translator.Slot.vectors] = isUsable ? 0 : 2
    gpr[Translator.Slot.mxcsr] = UInt64(mxcsr)
    gpr[Translator.Slot.vectorFile] = UInt64(vectors.address)
    let bits = flags.bits
    gpr[Translator.Slot.flags] = (bits & 0xD7) << 8 | bits >> 11 & 1
    gpr[Translator.Slot.systemFlags] = systemFlags
    gpr[Translator.Slot.kernelGSBase] = msrs.kernelGSBase
    gpr[Translator.Slot.timeAux] = msrs.tscAux
    gpr[Translator.Slot.openTLB] = UInt64(tlb.address(of: cr4 & 1 << 21 != 0 ? 2 : 1))
    gpr[Translator.Slot.closedTLB] = UInt64(tlb.address(of: 1))
    // While a device was waited for the machine may have been held, and the offset is another one.
    let timeOffset = bus.timeStampOffset
    gpr[Translator.Slot.timeOffset] = (timeOffset ?? 0) &+ msrs.timeStampAdjust
    var forbidden =
      timeOffset == nil || cr4 & 4 != 0 && cpl > 0 ? Translator.Forbidden.time : 0
    if cpl != 0 { forbidden |= Translator.Forbidden.supervisor }
    if UInt64(cpl) > systemFlags >> 12 & 3 { forbidden |= Translator.Forbidden.interrupts }
    gpr[Translator.Slot.forbidden] = UInt64(forbidden)
  }

  /// Takes the flags and MXCSR over from translated code, before anybody else looks at them.
  @inline(__always)
  private mutating func takeBack() {
    mxcsr = UInt32(truncatingIfNeeded: gpr[Translator.Slot.mxcsr])
    let made = gpr[Translator.Slot.flags]
    flags.set(made >> 8 & 0xD5 | (made & 1) << 11)
    let before = systemFlags
    systemFlags = gpr[Translator.Slot.systemFlags]
    if (before ^ systemFlags) & 1 << 18 != 0 { updateAccessRights() }
    if gpr[Translator.Slot.gsBase] != segmentBase[5] {
      segmentBase[5] = gpr[Translator.Slot.gsBase]
      segments[5].base = segmentBase[5]
      msrs.kernelGSBase = gpr[Translator.Slot.kernelGSBase]
    }
  }

  /// Enters the code at an offset; returns what it comes back with.
  @inline(__always)
  private mutating func enter(_ code: Int) -> UInt64 {
    gpr[Translator.Slot.budget] = Translator.budget
    let result = translator.enter(code, gpr.address)
    instructionCount &+= Translator.budget &- gpr[Translator.Slot.budget]
    return result
  }

  /// The code for the block at RIP, made when it is worth it; `nil` when it is interpreted.
  ///
  /// `link` is the site of a jump to be aimed at it, or zero.
  @inline(__always)
  private mutating func translatedBlock(_ link: Int) -> Int? {
    translator.follow(code.generation)
    let slot = unsafe tlb.slot(rip)
    guard unsafe slot.pointee.executeTag == tlb.tag(rip) else { return nil }
    let host = unsafe UInt(truncatingIfNeeded: rip) &+ slot.pointee.addend
    let mark = unsafe slot.pointee.mark
    let version = CodeMark.Reference(address: mark).version
    let block = translator.find(host, rip)
    guard block.code > 0, block.version == version else {
      if block.code < 0, block.version == version { return nil }
      return translate(block, mark, version)
    }
    if link != 0, gpr[Translator.Slot.linkPage] == UInt64(host & ~0xFFF) {
      translator.link(site: link, to: block.code)
    }
    translator.note(rip, host: host, code: block.code)
    return block.code
  }

  /// Counts a use of a block that has no code, and makes some when there were enough.
  @inline(never)
  private mutating func translate(_ old: Translator.Block, _ mark: UInt, _ version: UInt64)
    -> Int?
  {
    var block = old
    if block.version != version {
      block.version = version
      block.uses = 0
      if block.code > 0 { block.previous = block.code }
      block.code = 0
    }
    block.uses += 1
    guard block.uses > Translator.threshold,
      let first = code.find(block.host, mark: mark, mode: mode)
    else {
      translator.set(block)
      return nil
    }
    var instructions: [Instruction] = []
    while code[first + instructions.count].op != .endOfBlock,
      instructions.count < CodeCache.longestBlock
    {
      instructions.append(code[first + instructions.count])
    }
    guard !instructions.isEmpty, staysInSpace(instructions) else { return nil }
    let added = translator.add(
      instructions,
      BlockTranslation.Place(rip: rip, host: block.host, mark: mark, version: version, first: first)
    )
    // All code had to go: this block is counted anew.
    guard let added else { return nil }
    block.code = added
    if added > 0, block.previous != 0 {
      translator.redirect(block.previous, to: added)
      block.previous = 0
    }
    translator.set(block)
    return added > 0 ? added : nil
  }

  /// Whether all that a block can go on at without looking a target up is in the address space: at
  /// its ends a jump, or the next instruction, may be a fault.
  private func staysInSpace(_ instructions: [Instruction]) -> Bool {
    var next = rip
    for i in instructions {
      next &+= UInt64(i.length)
      let jumps = i.op == .jcc || i.op == .jmp || i.op == .callRelative
      guard Self.isCanonical(next), !jumps || Self.isCanonical(next &+ i.immediate) else {
        return false
      }
    }
    return true
  }
}
