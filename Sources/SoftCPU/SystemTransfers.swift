// SPDX-License-Identifier: Apache-2.0

internal import Processor

/// Far jumps, calls and returns, IRET, and software interrupts (SDM volume 3, chapter 5).
extension SoftCPU {
  // MARK: - JMP and CALL

  /// The selector and offset of a far transfer's operand.
  private mutating func farPointer(_ i: Instruction) throws(Fault) -> (UInt16, UInt64) {
    guard !i.isRegister else {
      return (UInt16(truncatingIfNeeded: i.immediate), i.displacement)
    }
    let place = try linear(i, Int(i.size) + 2, isWrite: false)
    let offset = try loadSized(place, i.size)
    let selector = try load(UInt16.self, wrapped(place &+ UInt64(i.size)))
    return (selector, offset)
  }

  mutating func farTransfer(_ i: Instruction, isCall: Bool) throws(Fault) {
    let (selector, offset) = try farPointer(i)
    guard isProtected else {
      let offset = i.size == 2 ? offset & 0xFFFF : offset
      guard offset <= UInt64(segments[1].limit) else { throw .protection() }
      if isCall {
        let old = gpr[4]
        do throws(Fault) {
          try push(UInt64(segments[1].selector), i.size)
          try push(rip, i.size)
        } catch {
          gpr[4] = old
          throw error
        }
      }
      loadPlainSegment(1, selector)
      rip = offset
      return
    }
    guard selector & 0xFFFC != 0 else { throw .protection() }
    let target = try descriptor(selector)
    if target.isCode { return try transfer(target, offset, i.size, isCall: isCall) }
    guard !target.isCodeOrData else { throw .protection(code(selector)) }
    switch target.type {
    case 4, 12: try throughGate(target, isCall: isCall)
    case 5 where !isLongMode:
      try checkGate(target)
      try switchTask(target.gateSelector, isCall ? .call : .jump, errorCode: nil)
    case 1, 9:
      guard !isLongMode else { throw .protection(code(selector)) }
      try checkGate(target)
      try switchTask(selector, isCall ? .call : .jump, errorCode: nil)
    default: throw .protection(code(selector))
    }
  }

  private func checkGate(_ gate: Descriptor) throws(Fault) {
    guard gate.privilege >= cpl, gate.privilege >= UInt8(gate.selector & 3) else {
      throw .protection(code(gate.selector))
    }
    guard gate.isPresent else { throw .notPresent(code(gate.selector)) }
  }

  /// To a code segment without a gate.
  private mutating func transfer(
    _ target: Descriptor, _ offset: UInt64, _ size: UInt8, isCall: Bool
  ) throws(Fault) {
    let selector = target.selector
    if target.isConforming {
      guard target.privilege <= cpl else { throw .protection(code(selector)) }
    } else {
      guard UInt8(selector & 3) <= cpl, target.privilege == cpl else {
        throw .protection(code(selector))
      }
    }
    guard target.isPresent else { throw .notPresent(code(selector)) }
    if isLongMode, target.isLong, target.is32Bit { throw .protection(code(selector)) }
    let isLong = isLongMode && target.isLong
    let place = size == 2 ? offset & 0xFFFF : size == 4 ? offset & 0xFFFF_FFFF : offset
    if !isLong, place > UInt64(target.limit) { throw .protection() }
    try goTo(target, place, size, isCall: isCall)
  }

  /// Goes on at an offset in a checked code segment of the same privilege; a call pushes the
  /// return address first.
  private mutating func goTo(
    _ target: Descriptor, _ offset: UInt64, _ size: UInt8, isCall: Bool
  ) throws(Fault) {
    let old = gpr[4]
    do throws(Fault) {
      if isCall {
        try push(UInt64(segments[1].selector), size)
        try push(rip, size)
      }
      try loadCode(target, cpl)
    } catch {
      gpr[4] = old
      throw error
    }
    rip = offset
    updateMode()
  }

  /// Through a call gate.
  private mutating func throughGate(_ gate: Descriptor, isCall: Bool) throws(Fault) {
    try checkGate(gate)
    var gate = gate
    if isLongMode {
      guard gate.type == 12 else { throw .protection(code(gate.selector)) }
      gate = try descriptor(gate.selector, wide: true)
      guard gate.high >> 40 & 31 == 0 else { throw .protection(code(gate.selector)) }
    }
    let selector = gate.gateSelector
    guard selector & 0xFFFC != 0 else { throw .protection() }
    var target = try descriptor(selector)
    guard target.isCode, target.privilege <= cpl else { throw .protection(code(selector)) }
    if isLongMode, !target.isLong || target.is32Bit { throw .protection(code(selector)) }
    guard target.isPresent else { throw .notPresent(code(selector)) }
    let size: UInt8 = isLongMode ? 8 : gate.type == 12 ? 4 : 2
    let offset =
      size == 8 ? gate.gateOffset : size == 4 ? gate.gateOffset & 0xFFFF_FFFF : gate.low & 0xFFFF
    if size != 8, offset > UInt64(target.limit) { throw .protection() }
    try markAccessed(&target)
    guard isCall, !target.isConforming, target.privilege < cpl else {
      if !isCall, !target.isConforming, target.privilege != cpl {
        throw .protection(code(selector))
      }
      return try goTo(target, offset, size, isCall: isCall)
    }
    try callInner(gate, target, offset, size)
  }

  /// A call to an inner privilege, with a new stack.
  private mutating func callInner(
    _ gate: Descriptor, _ target: Descriptor, _ offset: UInt64, _ size: UInt8
  ) throws(Fault) {
    let privilege = target.privilege
    let oldStack = UInt64(segments[2].selector)
    let oldCode = UInt64(segments[1].selector)
    if size == 8 {
      let top = try stackPointerFromTSS(4 + 8 * UInt64(privilege))
      let saved = cpl
      cpl = privilege
      updateAccessRights()
      let oldMode = mode
      mode = .bits64
      do throws(Fault) {
        try store(oldStack, top &- 8)
        try store(gpr[4], top &- 16)
        try store(oldCode, top &- 24)
        try store(rip, top &- 32)
        try loadCode(target, privilege)
      } catch {
        cpl = saved
        mode = oldMode
        updateAccessRights()
        throw error
      }
      gpr[4] = top &- 32
      var stack = Self.nullSegment(UInt16(privilege))
      stack.privilege = privilege
      segments[2] = stack
    } else {
      let (stack, pointer) = try stackFromTSS(privilege)
      let count = Int(gate.low >> 32 & 31)
      var items = [oldStack, gpr[4]]
      for number in stride(from: count - 1, through: 0, by: -1) {
        items.append(try peekStack(UInt64(number) * UInt64(size), size))
      }
      items += [oldCode, rip]
      let top = try pushAll(items, size, on: stack, pointer, privilege)
      try loadCode(target, privilege)
      segments[2] = stack
      gpr[4] = stack.is32Bit ? top : gpr[4] & ~0xFFFF | top
    }
    rip = offset
    updateMode()
  }

  // MARK: - RET

  mutating func farReturn(_ i: Instruction) throws(Fault) {
    let release = i.opcode == 0xCA ? i.immediate : 0
    let step = UInt64(i.size)
    // The selector is read first, as AMD's processors do: it decides which page fault comes.
    let selector = UInt16(truncatingIfNeeded: try peekStack(step, i.size))
    let offset = try peekStack(0, i.size)
    guard isProtected else {
      guard offset <= UInt64(segments[1].limit) else { throw .protection() }
      moveStack(2 * step &+ release)
      loadPlainSegment(1, selector)
      rip = offset
      return
    }
    let privilege = UInt8(selector & 3)
    var pointer: UInt64 = 0
    var stackSelector: UInt16 = 0
    if privilege != cpl {
      stackSelector = UInt16(truncatingIfNeeded: try peekStack(3 * step &+ release, i.size))
      pointer = try peekStack(2 * step &+ release, i.size)
    }
    let target = try returnTarget(selector, offset, i.size)
    if privilege == cpl {
      try loadCode(target, privilege)
      moveStack(2 * step &+ release)
      rip = offset
      updateMode()
      return
    }
    let stack = try returnStack(stackSelector, privilege, target)
    try loadCode(target, privilege)
    segments[2] = stack
    rip = offset
    dropInnerSegments()
    updateMode()
    setStackPointer(truncated(pointer, i.size))
    moveStack(release)
  }

  /// Adds to the stack pointer.
  private mutating func moveStack(_ change: UInt64) { setStackPointer(gpr[4] &+ change) }

  /// The checked code segment of a return.
  private mutating func returnTarget(_ selector: UInt16, _ offset: UInt64, _ size: UInt8)
    throws(Fault) -> Descriptor
  {
    guard selector & 0xFFFC != 0 else { throw .protection() }
    let target = try descriptor(selector)
    let privilege = UInt8(selector & 3)
    guard target.isCode, privilege >= cpl else { throw .protection(code(selector)) }
    guard target.isConforming ? target.privilege <= privilege : target.privilege == privilege
    else { throw .protection(code(selector)) }
    if isLongMode, target.isLong, target.is32Bit { throw .protection(code(selector)) }
    guard target.isPresent else { throw .notPresent(code(selector)) }
    if !(isLongMode && target.isLong), offset > UInt64(target.limit) { throw .protection() }
    return target
  }

  /// The checked stack segment of a return to an outer privilege.
  private mutating func returnStack(
    _ selector: UInt16, _ privilege: UInt8, _ target: Descriptor
  ) throws(Fault) -> Segment {
    if selector & 0xFFFC == 0 {
      guard isLongMode, target.isLong, privilege < 3, UInt8(selector & 3) == privilege else {
        throw .protection()
      }
      var stack = Self.nullSegment(selector)
      stack.privilege = privilege
      return stack
    }
    return try checkedSegment(2, selector, privilege)
  }

  // MARK: - IRET

  mutating func interruptReturn(_ i: Instruction) throws(Fault) {
    nmiIsMasked = false
    guard isProtected else { return try returnPlain(i) }
    if systemFlags & 0x4000 != 0 {
      guard !isLongMode else { throw .protection() }
      let back = UInt16(truncatingIfNeeded: try loadSystem(tr.base, 2))
      try switchTask(back, .interruptReturn, errorCode: nil)
      return
    }
    let step = UInt64(i.size)
    // From the last to the first, as AMD's processors do: it decides which page fault comes.
    let newFlags = try peekStack(2 * step, i.size)
    let selector = UInt16(truncatingIfNeeded: try peekStack(step, i.size))
    let offset = try peekStack(0, i.size)
    if newFlags & 1 << 17 != 0, cpl == 0, i.size == 4, !isLongMode {
      return try returnToVirtual(offset, selector, newFlags)
    }
    let target = try returnTarget(selector, offset, i.size)
    let privilege = UInt8(selector & 3)
    let oldPrivilege = cpl
    if privilege == cpl, mode != .bits64 {
      try loadCode(target, privilege)
      moveStack(3 * step)
    } else {
      let pointer = try peekStack(3 * step, i.size)
      let stackSelector = UInt16(truncatingIfNeeded: try peekStack(4 * step, i.size))
      let stack = try returnStack(stackSelector, privilege, target)
      try loadCode(target, privilege)
      segments[2] = stack
      if privilege != oldPrivilege { dropInnerSegments() }
      updateMode()
      setStackPointer(truncated(pointer, i.size))
    }
    rip = offset
    setReturnFlags(newFlags, i.size, oldPrivilege)
    updateMode()
  }

  /// The flags that IRET may change at a privilege.
  private mutating func setReturnFlags(_ new: UInt64, _ size: UInt8, _ privilege: UInt8) {
    var mask: UInt64 = 0x25_4500 | LazyFlags.mask
    if privilege == 0 { mask |= 0x3000 | 0x18_0000 }
    if privilege <= UInt8(truncatingIfNeeded: systemFlags >> 12 & 3) { mask |= 0x200 }
    if size == 2 { mask &= 0xFFFF }
    rflags = rflags & ~mask | new & mask
  }

  private mutating func returnPlain(_ i: Instruction) throws(Fault) {
    if isVirtual8086, systemFlags >> 12 & 3 < 3 { throw .protection() }
    let step = UInt64(i.size)
    let offset = try peekStack(0, i.size)
    let selector = UInt16(truncatingIfNeeded: try peekStack(step, i.size))
    let newFlags = try peekStack(2 * step, i.size)
    guard offset <= UInt64(segments[1].limit) else { throw .protection() }
    moveStack(3 * step)
    loadPlainSegment(1, selector)
    rip = offset
    // IOPL stays in virtual-8086 mode; VM, VIF and VIP are never changed here.
    var mask: UInt64 = 0x24_7700 | LazyFlags.mask | 1 << 16
    if isVirtual8086 { mask &= ~0x3000 }
    if i.size == 2 { mask &= 0xFFFF }
    rflags = rflags & ~mask | newFlags & mask
    updateMode()
  }

  private mutating func returnToVirtual(
    _ offset: UInt64, _ selector: UInt16, _ newFlags: UInt64
  ) throws(Fault) {
    let pointer = try peekStack(12, 4)
    var selectors: [UInt16] = []
    for number in UInt64(4)..<9 {
      selectors.append(UInt16(truncatingIfNeeded: try peekStack(4 * number, 4)))
    }
    guard offset <= 0xFFFF else { throw .protection() }
    rflags = newFlags
    segments[1] = Self.virtualSegment(selector)
    for (place, number) in [2, 0, 3, 4, 5].enumerated() {
      segments[number] = Self.virtualSegment(selectors[place])
    }
    cpl = 3
    rip = offset
    updateMode()
    gpr[4] = pointer
  }

  // MARK: - INT

  mutating func softwareInterrupt(_ vector: UInt8, _ i: Instruction) throws(Fault) {
    if isVirtual8086, i.op == .int, systemFlags >> 12 & 3 < 3 { throw .protection() }
    // The return address is the next instruction's: a fault on the way is this one's.
    let next = rip
    let before = interruptShadow
    if !deliver(Event(vector: vector, isSoftware: true), faultAt: next &- UInt64(i.length)) {
      interruptShadow = before
      isShutdown = true
    }
  }

  // MARK: - Task switches

  enum TaskSwitch { case jump, call, interruptReturn }

  /// Switches to another task (SDM volume 3, 7.3).
  mutating func switchTask(_ selector: UInt16, _ kind: TaskSwitch, errorCode: UInt32?)
    throws(Fault)
  {
    let isReturn = kind == .interruptReturn
    func bad(_ selector: UInt16) -> Fault {
      isReturn ? .invalidTSS(code(selector)) : .protection(code(selector))
    }
    guard selector & 4 == 0, selector & 0xFFFC != 0, let found = try findDescriptor(selector),
      !found.isCodeOrData, found.type & 5 == 1
    else { throw bad(selector) }
    guard (found.type & 2 != 0) == isReturn else { throw bad(selector) }
    guard found.isPresent else { throw .notPresent(code(selector)) }
    let is32 = found.type & 8 != 0
    guard found.limit >= (is32 ? 0x67 : 0x2B) else { throw .invalidTSS(code(selector)) }
    let new = try readTask(found.base, is32)
    // The old task's busy bit, flags and registers.
    var savedFlags = rflags
    if isReturn { savedFlags &= ~0x4000 }
    if kind != .call { try setBusy(tr.selector, false) }
    try saveTask(savedFlags)
    if kind == .call { try storeSystem(UInt64(tr.selector), found.base, 2) }
    if !isReturn { try setBusy(selector, true) }
    // From here on the new task's faults.
    var task = found.segment
    task.type |= 2
    tr = task
    cr0 |= 8
    try loadTask(new, is32, nested: kind == .call, errorCode)
  }

  private struct TaskState {
    var cr3: UInt64 = 0
    var rip: UInt64 = 0
    var flags: UInt64 = 0
    var registers = [8 of UInt64](repeating: 0)
    var selectors = [6 of UInt16](repeating: 0)
    var ldt: UInt16 = 0
    var traps = false
  }

  private mutating func readTask(_ base: UInt64, _ is32: Bool) throws(Fault) -> TaskState {
    var state = TaskState()
    let width: UInt8 = is32 ? 4 : 2
    if is32 { state.cr3 = try loadSystem(base &+ 0x1C, 4) }
    let start: UInt64 = is32 ? 0x20 : 0x0E
    state.rip = try loadSystem(base &+ start, width)
    state.flags = try loadSystem(base &+ start &+ UInt64(width), width)
    for number in 0..<8 {
      state.registers[number] = try loadSystem(
        base &+ start &+ UInt64(width) * UInt64(number + 2), width)
    }
    let segmentStart: UInt64 = is32 ? 0x48 : 0x22
    for number in 0..<(is32 ? 6 : 4) {
      state.selectors[number] = UInt16(
        truncatingIfNeeded: try loadSystem(
          base &+ segmentStart &+ UInt64(width) * UInt64(number), 2))
    }
    state.ldt = UInt16(truncatingIfNeeded: try loadSystem(base &+ (is32 ? 0x60 : 0x2A), 2))
    if is32 { state.traps = try loadSystem(base &+ 0x64, 2) & 1 != 0 }
    return state
  }

  private mutating func saveTask(_ savedFlags: UInt64) throws(Fault) {
    let is32 = tr.type & 8 != 0
    let width: UInt8 = is32 ? 4 : 2
    let start: UInt64 = is32 ? 0x20 : 0x0E
    try storeSystem(rip, tr.base &+ start, width)
    try storeSystem(savedFlags, tr.base &+ start &+ UInt64(width), width)
    for number in 0..<8 {
      try storeSystem(
        gpr[number], tr.base &+ start &+ UInt64(width) * UInt64(number + 2), width)
    }
    let segmentStart: UInt64 = is32 ? 0x48 : 0x22
    for number in 0..<(is32 ? 6 : 4) {
      try storeSystem(
        UInt64(segments[number].selector),
        tr.base &+ segmentStart &+ UInt64(width) * UInt64(number), 2)
    }
  }

  private mutating func setBusy(_ selector: UInt16, _ busy: Bool) throws(Fault) {
    guard let found = try findDescriptor(selector) else { return }
    let byte = found.low >> 40 & 0xFF
    try storeSystem(busy ? byte | 2 : byte & ~2, systemWrapped(found.linear &+ 5), 1)
  }

  private mutating func loadTask(
    _ state: TaskState, _ is32: Bool, nested: Bool, _ errorCode: UInt32?
  ) throws(Fault) {
    if is32, isPaging, cr3 != state.cr3 {
      cr3 = state.cr3
      if cr4 & 0x20 != 0 { try loadPointers() }
      tlb.flushLocal()
    }
    // The breakpoints of the old task alone.
    debug.dr7 &= ~0x155
    rip = state.rip
    for number in 0..<8 { gpr[number] = state.registers[number] }
    var newFlags = state.flags
    if nested { newFlags |= 0x4000 }
    rflags = newFlags
    // A fault from here on is the new task's: nothing is taken back.
    do throws(Fault) {
      try loadTaskSegments(state, is32)
      if let errorCode { try push(UInt64(errorCode), is32 ? 4 : 2) }
    } catch {
      updateMode()
      var fault = error
      fault.isTrap = true
      throw fault
    }
    if state.traps {
      debug.dr6 |= 1 << 15
      throw Fault(vector: 1, isTrap: true)
    }
  }

  private mutating func loadTaskSegments(_ state: TaskState, _ is32: Bool) throws(Fault) {
    ldtr = Self.nullSegment(state.ldt)
    for number in 0..<6 { segments[number] = Self.nullSegment(state.selectors[number]) }
    if state.ldt & 0xFFFC != 0 {
      guard state.ldt & 4 == 0, let found = try findDescriptor(state.ldt), !found.isCodeOrData,
        found.type == 2, found.isPresent
      else { throw .invalidTSS(code(state.ldt)) }
      ldtr = found.segment
    }
    if isVirtual8086 {
      for number in 0..<6 { segments[number] = Self.virtualSegment(state.selectors[number]) }
      cpl = 3
      updateMode()
      return
    }
    let selector = state.selectors[1]
    let privilege = UInt8(selector & 3)
    guard selector & 0xFFFC != 0, let target = try findDescriptor(selector), target.isCode,
      target.isConforming ? target.privilege <= privilege : target.privilege == privilege
    else { throw .invalidTSS(code(selector)) }
    guard target.isPresent else { throw .notPresent(code(selector)) }
    try loadCode(target, privilege)
    updateMode()
    do throws(Fault) {
      segments[2] = try checkedSegment(2, state.selectors[2], privilege)
      for number in [0, 3, 4, 5] where is32 || number < 4 {
        segments[number] = try checkedSegment(number, state.selectors[number], privilege)
      }
    } catch {
      throw error.vector == 13 ? .invalidTSS(error.errorCode) : error
    }
    updateMode()
  }
}
