// SPDX-License-Identifier: Apache-2.0

internal import Processor

/// Exceptions and interrupts: their way through the IDT (SDM volume 3, chapter 6).
extension SoftCPU {
  /// What is delivered.
  struct Event {
    var vector: UInt8
    var errorCode: UInt32?
    /// INT n, INT3, INTO: the gate's privilege counts.
    var isSoftware = false
    /// From outside, or INT1: not checked against anything.
    var isExternal = false
  }

  // MARK: - Between blocks

  /// Whether something keeps blocks from being executed as they are.
  var needsCare: Bool {
    interruptShadow != 0 || systemFlags & (1 << 8 | 1 << 16) != 0 || pendingTrap != 0
      || isShutdown || hasCodeBreakpoint
      || events.exceptionIsInjected || events.interruptIsInjected || events.nmiIsInjected
  }

  /// Whether a breakpoint on instructions is enabled in DR7.
  private var hasCodeBreakpoint: Bool { debug.dr7 & 0xFF != 0 && hasBreakpoint(kind: 0) }

  /// Sees to what is asked for between two blocks; executes one instruction where something has
  /// to be looked at after each.
  mutating func serve() -> SoftExit? {
    let asked = attention.pending
    if asked & Attention.mapChanged != 0 {
      attention.clear(Attention.mapChanged)
      ranges = RangeCache()
      a20Mask = memory.isA20Open ? .max : ~(1 << 20)
      tlb.flush()
      code.flush()
    }
    if isShutdown {
      isShutdown = false
      return .shutdown
    }
    // What is on its way is delivered first, so that the state has none of it left.
    if deliverInjected() == false { return .shutdown }
    if pendingTrap != 0 {
      debug.dr6 |= pendingTrap
      pendingTrap = 0
      return deliver(Event(vector: 1)) ? nil : .shutdown
    }
    if asked & Attention.leave != 0 { return .attention }
    if asked & Attention.nmi != 0, !nmiIsMasked, interruptShadow & 2 == 0 {
      attention.clear(Attention.nmi)
      isHalted = false
      nmiIsMasked = true
      if !deliver(Event(vector: 2, isExternal: true)) { return .shutdown }
      return nil
    }
    if asked & Attention.smi != 0 { attention.clear(Attention.smi) }
    if asked & Attention.interrupt != 0, systemFlags & 0x200 != 0, interruptShadow == 0 {
      // The bit is cleared first: what comes in between sets it again.
      attention.clear(Attention.interrupt)
      if let vector = bus.acknowledgeInterrupt() {
        isHalted = false
        if !deliver(Event(vector: vector, isExternal: true)) { return .shutdown }
      }
      return nil
    }
    if isHalted { return nil }
    return needsCare ? careful() : nil
  }

  /// What of ``Attention`` can be seen to now; an interrupt waits for IF, and an NMI for the end
  /// of the one before.
  var servable: UInt32 {
    var mask = ~(Attention.interrupt | Attention.nmi)
    if systemFlags & 0x200 != 0 { mask |= Attention.interrupt }
    if !nmiIsMasked { mask |= Attention.nmi }
    return mask
  }

  /// Executes one instruction, and takes the traps after it.
  private mutating func careful() -> SoftExit? {
    let shadow = interruptShadow
    var isStepping = systemFlags & 0x100 != 0
    if systemFlags & 1 << 16 == 0, shadow & 2 == 0, let hit = codeBreakpoint() {
      debug.dr6 = debug.dr6 & ~0xF | hit
      return deliver(Event(vector: 1)) ? nil : .shutdown
    }
    // RF suspends for one instruction; POPF and IRET set it anew for the next.
    systemFlags &= ~(1 << 16)
    do throws(Fault) {
      interruptShadow = 0
      try executeOne()
    } catch {
      return deliver(error) ? nil : .shutdown
    }
    switch code[CodeCache.scratch].op {
    case .int, .int3, .intO, .int1, .syscall, .sysenter, .sysret:
      // Their trap is taken by the flag that they leave.
      isStepping = systemFlags & 0x100 != 0
    default: break
    }
    // A load of SS holds off debug traps as it does interrupts.
    if interruptShadow & 2 != 0 { return nil }
    if isStepping || pendingTrap != 0 {
      debug.dr6 |= pendingTrap | (isStepping ? 1 << 14 : 0)
      pendingTrap = 0
      isHalted = false
      return deliver(Event(vector: 1)) ? nil : .shutdown
    }
    return isShutdown ? takeShutdown() : nil
  }

  private mutating func takeShutdown() -> SoftExit {
    isShutdown = false
    return .shutdown
  }

  /// Delivers what was on its way when the state was set; `false` after a triple fault.
  private mutating func deliverInjected() -> Bool? {
    var event: Event?
    if events.exceptionIsInjected {
      event = Event(
        vector: events.exceptionVector,
        errorCode: events.exceptionHasErrorCode ? events.exceptionErrorCode : nil)
    } else if events.interruptIsInjected {
      event = Event(
        vector: events.interruptVector, isSoftware: events.interruptIsSoftware,
        isExternal: !events.interruptIsSoftware)
    } else if events.nmiIsInjected {
      event = Event(vector: 2, isExternal: true)
      nmiIsMasked = true
    }
    events.exceptionIsInjected = false
    events.interruptIsInjected = false
    events.nmiIsInjected = false
    guard let event else { return nil }
    isHalted = false
    return deliver(event)
  }

  // MARK: - Breakpoints

  private func hasBreakpoint(kind: UInt64) -> Bool {
    for number in UInt64(0)..<4
    where debug.dr7 >> (2 * number) & 3 != 0 && debug.dr7 >> (16 + 4 * number) & 3 == kind {
      return true
    }
    return false
  }

  /// The bits of DR6 for the instruction at RIP.
  private func codeBreakpoint() -> UInt64? {
    guard hasCodeBreakpoint else { return nil }
    let linear = wrapped(rip &+ segmentBase[1])
    let hits = breakpointHits(linear, 1) { $0 == 0 }
    return hits == 0 ? nil : hits
  }

  /// The bits of DR6 for `size` bytes at an address, among the breakpoints of some kinds
  /// (the R/W fields of DR7).
  private func breakpointHits(_ address: UInt64, _ size: Int, _ isKind: (UInt64) -> Bool)
    -> UInt64
  {
    var hits: UInt64 = 0
    for number in UInt64(0)..<4
    where debug.dr7 >> (2 * number) & 3 != 0 && isKind(debug.dr7 >> (16 + 4 * number) & 3) {
      // 1, 2, 8 and 4 bytes; the address is taken as aligned.
      let length: UInt64 =
        switch debug.dr7 >> (18 + 4 * number) & 3 {
        case 0: 1
        case 1: 2
        case 2: 8
        default: 4
        }
      let start = breakpointAddress(number) & ~(length - 1)
      if start &- address < UInt64(size) || address &- start < length { hits |= 1 << number }
    }
    return hits
  }

  private func breakpointAddress(_ number: UInt64) -> UInt64 {
    switch number {
    case 0: debug.dr0
    case 1: debug.dr1
    case 2: debug.dr2
    default: debug.dr3
    }
  }

  /// Whether accesses to a page have to be compared with breakpoints on data.
  func hasDataBreakpoint(onPage linear: UInt64) -> Bool {
    guard debug.dr7 & 0xFF != 0 || hasDataWatches else { return false }
    if hasDataWatches, watchHit(linear & ~0xFFF, 4096, isWrite: nil) != nil { return true }
    return breakpointHits(linear & ~0xFFF, 4096) { $0 & 1 != 0 } != 0
  }

  /// Looks at an access that did not go through the TLB: throws #AC where alignment is checked,
  /// and has a #DB follow the instruction under way if a breakpoint is on these bytes.
  mutating func noteDataAccess(_ linear: UInt64, _ size: Int, isWrite: Bool) throws(Fault) {
    try checkAlignment(linear, size)
    if hasDataWatches, let hit = watchHit(linear, size, isWrite: isWrite) {
      dataWatchHit = dataWatchHit ?? hit
      leavesBlock = true
    }
    guard debug.dr7 & 0xFF != 0 else { return }
    trapAfter(breakpointHits(linear, size) { $0 == 3 || $0 == 1 && isWrite })
  }

  /// The same for an access to a port, with CR4.DE.
  mutating func notePortAccess(_ port: UInt16, _ size: UInt8) {
    guard debug.dr7 & 0xFF != 0, cr4 & 8 != 0 else { return }
    trapAfter(breakpointHits(UInt64(port), Int(size)) { $0 == 2 })
  }

  private mutating func trapAfter(_ hits: UInt64) {
    guard hits != 0 else { return }
    pendingTrap |= hits
    leavesBlock = true
  }

  // MARK: - Faults

  /// Delivers an exception; `false` after a triple fault.
  mutating func deliver(_ fault: Fault) -> Bool {
    // The instruction of a fault is executed again, and its data breakpoints hit then.
    if !fault.isTrap { pendingTrap = 0 }
    return deliver(
      Event(vector: fault.vector, errorCode: fault.hasErrorCode ? fault.errorCode : nil))
  }

  /// Exceptions that make a double fault of a second one (table 6-5).
  private static func isContributory(_ vector: UInt8) -> Bool {
    vector == 0 || (10...13).contains(vector)
  }

  /// Delivers an event, and the faults of its delivery; `false` after a triple fault.
  ///
  /// A fault on the way is that of the instruction at `faultAt`, if that is given.
  mutating func deliver(_ first: Event, faultAt: UInt64? = nil) -> Bool {
    var event = first
    interruptShadow = 0
    while true {
      // A fault keeps RF set, so that a breakpoint at it is not hit twice.
      let isFault = !event.isExternal && !event.isSoftware && event.vector != 1
      // The debugger's own accesses to the debug registers are let through (17.2.4).
      if event.vector == 1 { debug.dr7 &= ~(1 << 13) }
      let savedFlags = rflags | (isFault ? 1 << 16 : 0)
      do throws(Fault) {
        try enter(event, savedFlags)
        return true
      } catch {
        if let faultAt, !error.isTrap { rip = faultAt }
        // External events and soft interrupts are benign; #DF has no second chance.
        if event.vector == 8, !event.isExternal, !event.isSoftware { return false }
        let isFirstPage = event.vector == 14 && !event.isExternal && !event.isSoftware
        let isFirstContributory =
          Self.isContributory(event.vector) && !event.isExternal && !event.isSoftware
        let isDouble =
          isFirstContributory && Self.isContributory(error.vector)
          || isFirstPage && (Self.isContributory(error.vector) || error.vector == 14)
        if isDouble {
          event = Event(vector: 8, errorCode: 0)
        } else {
          var code = error.errorCode
          // EXT: the fault came from an event outside of the program.
          if error.hasErrorCode, error.vector != 14, !event.isSoftware { code |= 1 }
          event = Event(vector: error.vector, errorCode: error.hasErrorCode ? code : nil)
        }
      }
    }
  }

  private mutating func enter(_ event: Event, _ savedFlags: UInt64) throws(Fault) {
    if cr0 & 1 == 0 {
      try enterReal(event, savedFlags)
    } else if isLongMode {
      try enterLong(event, savedFlags)
    } else {
      try enterProtected(event, savedFlags)
    }
    isHalted = false
  }

  // MARK: - Real mode

  private mutating func enterReal(_ event: Event, _ savedFlags: UInt64) throws(Fault) {
    let place = UInt64(event.vector) * 4
    guard place + 3 <= UInt64(idtr.limit) else {
      throw Fault(vector: 13)
    }
    let entry = try loadSized(wrapped(idtr.base &+ place), 4)
    let old = gpr[4]
    do throws(Fault) {
      try push(savedFlags & 0xFFFF, 2)
      try push(UInt64(segments[1].selector), 2)
      try push(rip & 0xFFFF, 2)
    } catch {
      gpr[4] = old
      throw error
    }
    systemFlags &= ~(0x300 | 1 << 16 | 1 << 18)
    loadPlainSegment(1, UInt16(truncatingIfNeeded: entry >> 16))
    rip = entry & 0xFFFF
  }

  // MARK: - Protected mode

  private func gateCode(_ event: Event) -> UInt32 {
    UInt32(event.vector) << 3 | 2
  }

  private mutating func enterProtected(_ event: Event, _ savedFlags: UInt64) throws(Fault) {
    let place = UInt64(event.vector) * 8
    guard place + 7 <= UInt64(idtr.limit) else { throw .protection(gateCode(event)) }
    let linear = wrapped(idtr.base &+ place)
    let gate = Descriptor(low: try loadSystem(linear, 8), selector: 0, linear: linear)
    guard !gate.isCodeOrData, [5, 6, 7, 14, 15].contains(gate.type) else {
      throw .protection(gateCode(event))
    }
    if event.isSoftware, gate.privilege < cpl { throw .protection(gateCode(event)) }
    guard gate.isPresent else { throw .notPresent(gateCode(event)) }
    if gate.type == 5 {
      try switchTask(gate.gateSelector, .call, errorCode: event.errorCode)
      return
    }
    let size: UInt8 = gate.type & 8 != 0 ? 4 : 2
    let offset = size == 4 ? gate.gateOffset & 0xFFFF_FFFF : gate.low & 0xFFFF
    let selector = gate.gateSelector
    guard selector & 0xFFFC != 0 else { throw .protection() }
    var target = try descriptor(selector)
    guard target.isCode, target.privilege <= cpl else { throw .protection(code(selector)) }
    guard target.isPresent else { throw .notPresent(code(selector)) }
    let isVirtual = isVirtual8086
    let newPrivilege = target.isConforming ? cpl : target.privilege
    if isVirtual, newPrivilege != 0 { throw .protection(code(selector)) }
    guard offset <= UInt64(target.limit) else { throw .protection() }
    try markAccessed(&target)
    let oldSelectors = (0..<6).map { UInt64(segments[$0].selector) }
    var items: [UInt64] = []
    if isVirtual { items += [oldSelectors[5], oldSelectors[4], oldSelectors[3], oldSelectors[0]] }
    if newPrivilege < cpl || isVirtual {
      let (stack, pointer) = try stackFromTSS(newPrivilege)
      items += [oldSelectors[2], gpr[4], savedFlags, oldSelectors[1], rip]
      if let error = event.errorCode { items.append(UInt64(error)) }
      let top = try pushAll(items, size, on: stack, pointer, newPrivilege)
      segments[2] = stack
      gpr[4] = stack.is32Bit ? top : gpr[4] & ~0xFFFF | top
    } else {
      items = [savedFlags, oldSelectors[1], rip]
      if let error = event.errorCode { items.append(UInt64(error)) }
      let old = gpr[4]
      do throws(Fault) {
        for item in items { try push(item, size) }
      } catch {
        gpr[4] = old
        throw error
      }
    }
    finishEntry(isInterrupt: gate.type & 1 == 0)
    if isVirtual {
      for number in [0, 3, 4, 5] { segments[number] = Self.nullSegment(0) }
    }
    try loadCode(target, newPrivilege)
    rip = offset
    updateMode()
  }

  /// Clears the flags that an entry clears; an interrupt gate also IF.
  private mutating func finishEntry(isInterrupt: Bool) {
    // TF, NT, RF and VM.
    systemFlags &= ~(0x100 | 0x4000 | 1 << 16 | 1 << 17)
    if isInterrupt { systemFlags &= ~0x200 }
  }

  /// The stack of an inner privilege out of the TSS.
  mutating func stackFromTSS(_ privilege: UInt8) throws(Fault) -> (Segment, UInt64) {
    let is32 = tr.type & 8 != 0
    let place = is32 ? 4 + 8 * UInt64(privilege) : 2 + 4 * UInt64(privilege)
    let width: UInt8 = is32 ? 4 : 2
    guard place + (is32 ? 5 : 3) <= UInt64(tr.limit) else {
      throw .invalidTSS(code(tr.selector))
    }
    let pointer = try loadSystem(wrapped(tr.base &+ place), width)
    let selector = UInt16(
      truncatingIfNeeded: try loadSystem(wrapped(tr.base &+ place &+ UInt64(width)), 2))
    guard selector & 0xFFFC != 0, UInt8(selector & 3) == privilege,
      var found = try findDescriptor(selector), found.privilege == privilege,
      found.isCodeOrData, !found.isCode, found.type & 2 != 0
    else { throw .invalidTSS(code(selector)) }
    guard found.isPresent else { throw .stack(code(selector)) }
    try markAccessed(&found)
    return (found.segment, pointer)
  }

  /// Pushes values on a stack that is not the current one; returns its new top.
  mutating func pushAll(
    _ items: [UInt64], _ size: UInt8, on stack: Segment, _ pointer: UInt64, _ privilege: UInt8
  ) throws(Fault) -> UInt64 {
    let mask: UInt64 = stack.is32Bit ? 0xFFFF_FFFF : 0xFFFF
    let needed = UInt64(items.count) * UInt64(size)
    let low = (pointer &- needed) & mask
    let isDown = stack.type & 4 != 0
    let fits =
      isDown
      ? low > UInt64(stack.limit) : low &+ (needed &- 1) <= UInt64(stack.limit)
    guard fits else { throw .stack(code(stack.selector)) }
    let saved = cpl
    cpl = privilege
    updateAccessRights()
    defer {
      cpl = saved
      updateAccessRights()
    }
    var top = pointer
    for item in items {
      top = (top &- UInt64(size)) & mask
      try storeSized(item, wrapped(stack.base &+ top), size)
    }
    return top
  }

  // MARK: - Long mode

  private mutating func enterLong(_ event: Event, _ savedFlags: UInt64) throws(Fault) {
    let place = UInt64(event.vector) * 16
    guard place + 15 <= UInt64(idtr.limit) else { throw .protection(gateCode(event)) }
    let linear = idtr.base &+ place
    let gate = try asSupervisor { cpu throws(Fault) in
      Descriptor(
        low: try cpu.load(UInt64.self, linear), high: try cpu.load(UInt64.self, linear &+ 8),
        selector: 0, linear: linear)
    }
    guard !gate.isCodeOrData, gate.type == 14 || gate.type == 15 else {
      throw .protection(gateCode(event))
    }
    if event.isSoftware, gate.privilege < cpl { throw .protection(gateCode(event)) }
    guard gate.isPresent else { throw .notPresent(gateCode(event)) }
    let selector = gate.gateSelector
    guard selector & 0xFFFC != 0 else { throw .protection() }
    var target = try descriptor(selector)
    guard target.isCode, target.privilege <= cpl, target.isLong, !target.is32Bit else {
      throw .protection(code(selector))
    }
    guard target.isPresent else { throw .notPresent(code(selector)) }
    try markAccessed(&target)
    let newPrivilege = target.isConforming ? cpl : target.privilege
    let stackNumber = gate.low >> 32 & 7
    var top: UInt64
    if stackNumber != 0 {
      top = try stackPointerFromTSS(0x1C + 8 * stackNumber)
    } else if newPrivilege < cpl {
      top = try stackPointerFromTSS(4 + 8 * UInt64(newPrivilege))
    } else {
      top = gpr[4]
    }
    top &= ~15
    let oldStack = UInt64(segments[2].selector)
    let oldCode = UInt64(segments[1].selector)
    let changes = newPrivilege != cpl
    let saved = cpl
    cpl = newPrivilege
    updateAccessRights()
    let oldMode = mode
    mode = .bits64
    do throws(Fault) {
      try store(oldStack, top &- 8)
      try store(gpr[4], top &- 16)
      try store(savedFlags, top &- 24)
      try store(oldCode, top &- 32)
      try store(rip, top &- 40)
      top &-= 40
      if let error = event.errorCode {
        try store(UInt64(error), top &- 8)
        top &-= 8
      }
    } catch {
      cpl = saved
      mode = oldMode
      updateAccessRights()
      // An address that is not canonical is the stack's fault here.
      throw error.vector == 13 ? .stack() : error
    }
    gpr[4] = top
    if changes {
      var stack = Self.nullSegment(UInt16(newPrivilege))
      stack.privilege = newPrivilege
      segments[2] = stack
    }
    finishEntry(isInterrupt: gate.type == 14)
    try loadCode(target, newPrivilege)
    rip = gate.gateOffset
    updateMode()
  }

  /// A stack pointer out of a 64-bit TSS.
  mutating func stackPointerFromTSS(_ place: UInt64) throws(Fault) -> UInt64 {
    guard place + 7 <= UInt64(tr.limit) else { throw .invalidTSS(code(tr.selector)) }
    let pointer = try loadSystem(tr.base &+ place, 8)
    guard Self.isCanonical(pointer) else {
      throw .stack()
    }
    return pointer
  }
}
