// SPDX-License-Identifier: Apache-2.0

/// PUSH, POP, CALL, RET and their kin.
extension SoftCPU {
  // MARK: - The stack

  @inline(__always)
  mutating func push64(_ value: UInt64) throws(Fault) {
    let top = gpr[4] &- 8
    try store(value, top)
    gpr[4] = top
  }

  @inline(__always)
  mutating func pop64() throws(Fault) -> UInt64 {
    let value = try load(UInt64.self, gpr[4])
    gpr[4] &+= 8
    return value
  }

  /// The stack pointer after a change, in the stack's own width.
  @inline(__always)
  private func stackPointer(_ change: UInt64) -> UInt64 {
    let sum = gpr[4] &+ change
    return stackSize == 8 ? sum : stackSize == 4 ? sum & 0xFFFF_FFFF : sum & 0xFFFF
  }

  @inline(__always)
  mutating func setStackPointer(_ value: UInt64) {
    if stackSize == 2 {
      gpr[4] = gpr[4] & ~0xFFFF | value & 0xFFFF
    } else {
      gpr[4] = stackSize == 4 ? value & 0xFFFF_FFFF : value
    }
  }

  /// Pushes a value of 2, 4 or 8 bytes.
  mutating func push(_ value: UInt64, _ size: UInt8) throws(Fault) {
    let top = stackPointer(0 &- UInt64(size))
    try storeSized(value, try linear(2, top, Int(size), isWrite: true), size)
    setStackPointer(top)
  }

  /// Pops a value of 2, 4 or 8 bytes.
  mutating func pop(_ size: UInt8) throws(Fault) -> UInt64 {
    let value = try peekStack(0, size)
    setStackPointer(stackPointer(UInt64(size)))
    return value
  }

  /// Reads what lies `offset` bytes above the top of the stack.
  mutating func peekStack(_ offset: UInt64, _ size: UInt8) throws(Fault) -> UInt64 {
    try loadSized(try linear(2, stackPointer(offset), Int(size), isWrite: false), size)
  }

  // MARK: - Instructions

  @inline(__always)
  mutating func call(_ target: UInt64, _ size: UInt8) throws(Fault) {
    if size == 8 {
      guard Self.isCanonical(target) else {
        // The stack's own fault goes first.
        try checkWrite(gpr[4] &- 8, 8)
        throw .protection()
      }
      try push64(rip)
    } else {
      try push(rip, size)
    }
    jump(target, size)
  }

  /// Whether the address that an instruction has failed with was the stack's.
  func isStackAccess(_ i: Instruction) -> Bool {
    switch i.op {
    case .pushR16, .pushR32, .pushR64, .popR16, .popR32, .popR64, .pushImmediate, .retImmediate,
      .ret, .pushf, .popf, .pusha, .popa, .enter, .leave, .callRelative, .retFar, .iret,
      .pushSegment,
      .popSegment:
      return true
    case .pushMemory, .popMemory, .callIndirect, .callFar:
      // Of the operand or of the stack: of the one that is not canonical.
      if i.isRegister || i.segment == 2 { return true }
      let place = offset(i) &+ segmentBase[Int(i.segment & 7)]
      let last = place &+ UInt64(i.size - 1)
      return mode == .bits64 ? Self.isCanonical(place) && Self.isCanonical(last) : last >> 32 == 0
    default: return !i.isRegister && i.segment == 2
    }
  }

  mutating func executeStack(_ i: Instruction) throws(Fault) {
    switch i.op {
    case .pushR16, .pushR32: try push(reg(i.rm, size: i.size), i.size)
    case .popR16, .popR32: setReg(i.rm, size: i.size, try pop(i.size))
    case .pushImmediate: try push(i.immediate, i.size)
    case .pushMemory: try push(try loadOperand(size: i.size, i), i.size)
    case .popMemory: try popMemory(i)
    case .retImmediate:
      try jumpIndirect(try peekStack(0, i.size), i.size)
      setStackPointer(stackPointer(UInt64(i.size) &+ i.immediate))
    case .pushf: try pushFlags(i)
    case .popf: try popFlags(i)
    case .enter: try enter(i)
    case .leave:
      // The frame is read first: a fault leaves the stack pointer.
      let frame = stackSize == 8 ? gpr[5] : stackSize == 4 ? gpr[5] & 0xFFFF_FFFF : gpr[5] & 0xFFFF
      let value = try loadSized(try linear(2, frame, Int(i.size), isWrite: false), i.size)
      setStackPointer(frame)
      setStackPointer(stackPointer(UInt64(i.size)))
      setReg(5, size: i.size, value)
    case .pusha:
      let old = gpr[4]
      // All eight or none.
      var offset: UInt64 = 0
      for number in UInt8(0)..<8 {
        offset &+= UInt64(i.size)
        let value = number == 4 ? old : reg64(number)
        let place = try linear(2, stackPointer(0 &- offset), Int(i.size), isWrite: true)
        try storeSized(value, place, i.size)
      }
      setStackPointer(stackPointer(0 &- offset))
    case .popa:
      var values = [8 of UInt64](repeating: 0)
      for place in 0..<8 { values[place] = try peekStack(UInt64(place) * UInt64(i.size), i.size) }
      for place in 0..<8 where place != 3 { setReg(UInt8(7 - place), size: i.size, values[place]) }
      setStackPointer(stackPointer(8 * UInt64(i.size)))
    case .bound:
      let place = try linear(i, Int(i.size) * 2, isWrite: false)
      let low = Self.signed(try loadSized(place, i.size), i.size)
      let high = Self.signed(try loadSized(wrapped(place &+ UInt64(i.size)), i.size), i.size)
      let index = Int64(bitPattern: Self.signed(reg(i.reg, size: i.size), i.size))
      guard index >= Int64(bitPattern: low), index <= Int64(bitPattern: high) else {
        throw Fault(vector: 5)
      }
    default: throw .undefined
    }
  }

  private mutating func popMemory(_ i: Instruction) throws(Fault) {
    let old = gpr[4]
    let value = try pop(i.size)
    // An address that uses the stack pointer sees it after the pop.
    do throws(Fault) {
      try storeOperand(size: i.size, value, i)
    } catch {
      gpr[4] = old
      throw error
    }
  }

  private mutating func enter(_ i: Instruction) throws(Fault) {
    let size = UInt64(i.immediate & 0xFFFF)
    let level = i.immediate >> 16 & 31
    let old = gpr[4]
    let step = UInt64(i.size)
    do throws(Fault) {
      try push(reg(5, size: i.size), i.size)
      let frame = gpr[4]
      if level > 0 {
        for number in 1..<max(level, 1) {
          let offset = gpr[5] &- number &* step
          let place =
            stackSize == 8 ? offset : stackSize == 4 ? offset & 0xFFFF_FFFF : offset & 0xFFFF
          try push(
            try loadSized(try linear(2, place, Int(i.size), isWrite: false), i.size), i.size)
        }
        try push(frame, i.size)
      }
      let top = stackPointer(0 &- size)
      // The new top must be writable, as the processor checks.
      try checkWrite(try linear(2, top, Int(i.size), isWrite: true), Int(i.size))
      setReg(5, size: i.size, frame)
      setStackPointer(top)
    } catch {
      gpr[4] = old
      throw error
    }
  }

  // MARK: - Flags

  /// RFLAGS as a whole.
  var rflags: UInt64 {
    get { systemFlags | flags.bits }
    set {
      flags.set(newValue)
      systemFlags = newValue & 0x3F_7700 | 2
    }
  }

  private var ioPrivilege: UInt8 { UInt8(truncatingIfNeeded: systemFlags >> 12 & 3) }
  var isVirtual8086: Bool { systemFlags & 1 << 17 != 0 }

  private mutating func pushFlags(_ i: Instruction) throws(Fault) {
    if isVirtual8086, ioPrivilege < 3 { throw .protection() }
    // RF and VM are pushed as zero.
    try push(rflags & 0xFC_FFFF, i.size)
  }

  private mutating func popFlags(_ i: Instruction) throws(Fault) {
    if isVirtual8086, ioPrivilege < 3 { throw .protection() }
    let value = try pop(i.size)
    // ID, AC, NT, DF, TF and the six; IOPL and IF as the privilege allows; RF is cleared.
    var mask: UInt64 = 0x24_4500 | LazyFlags.mask
    if cpl == 0 && !isVirtual8086 { mask |= 0x3000 }
    if cpl <= ioPrivilege || isVirtual8086 { mask |= 0x200 }
    if i.size == 2 { mask &= 0xFFFF }
    rflags = (rflags & ~mask | value & mask) & ~(1 << 16)
    leavesBlock = true
    updateAccessRights()
  }
}
