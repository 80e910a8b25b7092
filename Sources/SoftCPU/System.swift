// SPDX-License-Identifier: Apache-2.0

internal import Processor

/// The system instructions.
extension SoftCPU {
  @inline(never)
  mutating func executeSystem(_ i: Instruction) throws(Fault) {
    switch i.op {
    case .movFromSegment, .movToSegment, .pushSegment, .popSegment, .loadFarPointer:
      try moveSegment(i)
    case .callFar: try farTransfer(i, isCall: true)
    case .jmpFar: try farTransfer(i, isCall: false)
    case .retFar: try farReturn(i)
    case .int3: try softwareInterrupt(3, i)
    case .int: try softwareInterrupt(UInt8(truncatingIfNeeded: i.immediate), i)
    case .intO: if flags.of { try softwareInterrupt(4, i) }
    case .int1: if !deliver(Event(vector: 1, isExternal: true)) { isShutdown = true }
    case .iret: try interruptReturn(i)
    case .syscall: try systemCall(i)
    case .sysret: try systemReturn(i)
    case .sysenter: try systemEnter()
    case .sysexit: try systemExit(i)
    case .hlt:
      try onlySupervisor()
      isHalted = true
    case .cli:
      try checkInterruptFlag()
      systemFlags &= ~0x200
    case .sti:
      try checkInterruptFlag()
      if systemFlags & 0x200 == 0 { interruptShadow = 1 }
      systemFlags |= 0x200
    case .movFromCR, .movToCR, .movFromDR, .movToDR, .lmsw, .smsw, .clts: try moveControl(i)
    case .lgdt, .lidt, .sgdt, .sidt, .lldt, .ltr, .sldt, .str: try moveTable(i)
    case .lar, .lsl, .verr, .verw, .arpl: try inspectSelector(i)
    case .invlpg:
      try onlySupervisor()
      tlb.flush(page: wrapped(offset(i) &+ segmentBase[Int(i.segment)]))
    case .invpcid: try invalidateContext(i)
    case .invd, .wbinvd: try onlySupervisor()
    case .rdmsr, .wrmsr: try moveMSR(i)
    case .rdtsc, .rdtscp, .rdpmc, .rdpid: try readCounter(i)
    case .cpuid: identify()
    case .swapgs, .rdfsbase, .rdgsbase, .wrfsbase, .wrgsbase: try moveBase(i)
    case .monitor:
      guard hasMonitor else { throw .undefined }
      try onlySupervisor()
      _ = try load(
        UInt8.self, wrapped(truncated(gpr[0], i.addressSize) &+ segmentBase[Int(i.segment)]))
    case .mwait:
      guard hasMonitor else { throw .undefined }
      // Any store may be the one that is waited for: it is over at once.
      try onlySupervisor()
    case .xgetbv, .xsetbv: try moveXCR(i)
    case .clac, .stac:
      guard hasSMAP, cpl == 0 else { throw .undefined }
      systemFlags = i.op == .stac ? systemFlags | 1 << 18 : systemFlags & ~(1 << 18)
      updateAccessRights()
    case .rdpkru, .wrpkru: try moveKeyRights(i)
    case .serialize: throw .undefined
    default: throw .undefined
    }
  }

  func onlySupervisor() throws(Fault) {
    guard cpl == 0 else { throw .protection() }
  }

  private func checkInterruptFlag() throws(Fault) {
    guard cr0 & 1 == 0 || cpl <= UInt8(truncatingIfNeeded: systemFlags >> 12 & 3) else {
      throw .protection()
    }
  }

  // MARK: - Features

  private var hasMonitor: Bool { has(.monitor) }
  private var hasSMAP: Bool { has(.smap) }
  private var hasSMEP: Bool { has(.smep) }
  private var hasFSGSBase: Bool { has(.fsgsbase) }
  private var hasInvpcid: Bool { has(.invpcid) }
  private var hasPKU: Bool { has(.pku) }
  private var hasUMIP: Bool { has(.umip) }
  private var hasPCID: Bool { has(.pcid) }
  private var hasXSAVE: Bool { has(.xsave) }

  // MARK: - Segments

  private mutating func moveSegment(_ i: Instruction) throws(Fault) {
    switch i.op {
    case .movFromSegment:
      let selector = UInt64(segments[Int(i.reg)].selector)
      if i.isRegister {
        setReg(i.rm, size: i.size, selector)
      } else {
        try storeOperand(UInt16(selector), i)
      }
    case .movToSegment:
      let selector = UInt16(truncatingIfNeeded: try loadRM(i, size: 2))
      try loadSegment(Int(i.reg), selector)
      if i.reg == 2 { interruptShadow = 2 }
    case .pushSegment: try push(UInt64(segments[Int(i.reg)].selector), i.size)
    case .popSegment:
      let old = gpr[4]
      let selector = UInt16(truncatingIfNeeded: try pop(i.size))
      do throws(Fault) {
        try loadSegment(Int(i.reg), selector)
      } catch {
        gpr[4] = old
        throw error
      }
      if i.reg == 2 { interruptShadow = 2 }
    default:
      let place = try linear(i, Int(i.size) + 2, isWrite: false)
      let offset = try loadSized(place, i.size)
      let selector = try load(UInt16.self, wrapped(place &+ UInt64(i.size)))
      try loadSegment(Int(i.vvvv), selector)
      setReg(i.reg, size: i.size, offset)
    }
  }

  private mutating func moveTable(_ i: Instruction) throws(Fault) {
    let isStore = i.op == .sgdt || i.op == .sidt || i.op == .sldt || i.op == .str
    if isStore {
      if cr4 & 1 << 11 != 0, cpl > 0 { throw .protection() }
    } else {
      // LLDT and LTR do not exist outside of protected mode.
      if i.op == .lldt || i.op == .ltr, !isProtected { throw .undefined }
      try onlySupervisor()
    }
    switch i.op {
    case .sgdt, .sidt:
      let table = i.op == .sgdt ? gdtr : idtr
      let width: UInt8 = mode == .bits64 ? 8 : 4
      let place = try linear(i, 2 + Int(width), isWrite: true)
      try store(table.limit, place)
      try storeSized(table.base, wrapped(place &+ 2), width)
    case .lgdt, .lidt:
      let width: UInt8 = mode == .bits64 ? 8 : 4
      let place = try linear(i, 2 + Int(width), isWrite: false)
      var table = DescriptorTable()
      table.limit = try load(UInt16.self, place)
      table.base = try loadSized(wrapped(place &+ 2), width)
      if i.size == 2, width == 4 { table.base &= 0xFF_FFFF }
      if width == 8, !Self.isCanonical(table.base) {
        throw .protection()
      }
      if i.op == .lgdt { gdtr = table } else { idtr = table }
    case .sldt, .str:
      guard isProtected else { throw .undefined }
      let selector = UInt64(i.op == .sldt ? ldtr.selector : tr.selector)
      if i.isRegister {
        setReg(i.rm, size: i.size, selector)
      } else {
        try storeOperand(UInt16(selector), i)
      }
    default: try loadSystemSegment(i)
    }
  }

  private mutating func loadSystemSegment(_ i: Instruction) throws(Fault) {
    let selector = UInt16(truncatingIfNeeded: try loadRM(i, size: 2))
    let isTask = i.op == .ltr
    if selector & 0xFFFC == 0 {
      guard !isTask else { throw .protection() }
      ldtr = Self.nullSegment(selector)
      return
    }
    guard selector & 4 == 0, let found = try findDescriptor(selector, wide: isLongMode) else {
      throw .protection(code(selector))
    }
    let isRight =
      isTask ? found.type == 9 || found.type == 1 && !isLongMode : found.type == 2
    guard !found.isCodeOrData, isRight else { throw .protection(code(selector)) }
    guard found.isPresent else { throw .notPresent(code(selector)) }
    var segment = found.segment
    if isTask {
      segment.type |= 2
      try storeSystem(found.low >> 40 & 0xFF | 2, systemWrapped(found.linear &+ 5), 1)
      tr = segment
    } else {
      ldtr = segment
    }
  }

  private mutating func inspectSelector(_ i: Instruction) throws(Fault) {
    guard isProtected else { throw .undefined }
    if i.op == .arpl {
      let target = try loadRM(i, size: 2)
      let source = UInt64(reg16(i.reg))
      let raises = target & 3 < source & 3
      if raises { try storeRM(i, size: 2, target & ~3 | source & 3) }
      flags.setZero(raises)
      return
    }
    let selector = UInt16(truncatingIfNeeded: try loadRM(i, size: 2))
    let found = selector & 0xFFFC == 0 ? nil : try findDescriptor(selector)
    guard let found else {
      flags.setZero(false)
      return
    }
    let requested = max(cpl, UInt8(selector & 3))
    let isVisible = found.isCode && found.isConforming || requested <= found.privilege
    var isRight: Bool
    switch i.op {
    case .verr: isRight = found.isCodeOrData && (!found.isCode || found.type & 2 != 0)
    case .verw: isRight = found.isCodeOrData && !found.isCode && found.type & 2 != 0
    case .lsl: isRight = found.isCodeOrData || Self.hasLimit(found.type, isLongMode)
    default: isRight = found.isCodeOrData || Self.hasRights(found.type, isLongMode)
    }
    isRight = isRight && isVisible
    if isRight, i.op == .lsl { setReg(i.reg, size: i.size, truncated(UInt64(found.limit), i.size)) }
    if isRight, i.op == .lar {
      setReg(i.reg, size: i.size, truncated(found.low >> 32 & 0xFFFF00, i.size))
    }
    flags.setZero(isRight)
  }

  private static func hasLimit(_ type: UInt8, _ isLong: Bool) -> Bool {
    isLong ? [2, 9, 11].contains(type) : [1, 2, 3, 9, 11].contains(type)
  }

  private static func hasRights(_ type: UInt8, _ isLong: Bool) -> Bool {
    isLong ? [2, 9, 11, 12].contains(type) : [1, 2, 3, 4, 5, 9, 11, 12].contains(type)
  }

  // MARK: - Fast calls

  private mutating func setFlat(
    _ number: Int, _ selector: UInt16, _ type: UInt8, _ privilege: UInt8,
    isLong: Bool = false
  ) {
    var segment = Segment()
    segment.selector = selector
    segment.limit = UInt32.max
    segment.type = type
    segment.isPresent = true
    segment.isCodeOrData = true
    segment.privilege = privilege
    segment.isPageGranular = true
    segment.isLong = isLong
    segment.is32Bit = !isLong
    segments[number] = segment
  }

  private mutating func systemCall(_ i: Instruction) throws(Fault) {
    guard efer & 1 != 0, isProtected else { throw .undefined }
    let selector = UInt16(truncatingIfNeeded: msrs.star >> 32)
    if isLongMode {
      gpr[1] = rip
      gpr[11] = rflags & ~(1 << 16)
      rip = mode == .bits64 ? msrs.lstar : msrs.cstar
      rflags &= ~msrs.syscallMask & ~(1 << 16)
      setFlat(1, selector & 0xFFFC, 11, 0, isLong: true)
    } else {
      gpr[1] = rip & 0xFFFF_FFFF
      rip = msrs.star & 0xFFFF_FFFF
      systemFlags &= ~(0x200 | 1 << 16 | 1 << 17)
      setFlat(1, selector & 0xFFFC, 11, 0)
    }
    setFlat(2, (selector & 0xFFFC) &+ 8, 3, 0)
    cpl = 0
    updateMode()
  }

  private mutating func systemReturn(_ i: Instruction) throws(Fault) {
    guard efer & 1 != 0, isProtected else { throw .undefined }
    try onlySupervisor()
    let selector = UInt16(truncatingIfNeeded: msrs.star >> 48)
    if isLongMode {
      let isLong = i.size == 8
      if isLong {
        guard Self.isCanonical(gpr[1]) else {
          throw .protection()
        }
      }
      rip = isLong ? gpr[1] : gpr[1] & 0xFFFF_FFFF
      rflags = gpr[11] & 0x3C_7FD7 | 2
      setFlat(1, (isLong ? selector &+ 16 : selector) | 3, 11, 3, isLong: isLong)
    } else {
      rip = gpr[1] & 0xFFFF_FFFF
      systemFlags |= 0x200
      setFlat(1, selector | 3, 11, 3)
    }
    setFlat(2, (selector &+ 8) | 3, 3, 3)
    cpl = 3
    updateMode()
  }

  private mutating func systemEnter() throws(Fault) {
    guard cr0 & 1 != 0 else { throw .protection() }
    // AMD's processors do not have it in long mode.
    guard !isLongMode || cpuid.vendor != "AuthenticAMD" else { throw .undefined }
    guard msrs.sysenterCS & 0xFFFC != 0 else { throw .protection() }
    let selector = UInt16(truncatingIfNeeded: msrs.sysenterCS) & 0xFFFC
    systemFlags &= ~(0x200 | 1 << 17)
    setFlat(1, selector, 11, 0, isLong: isLongMode)
    setFlat(2, selector &+ 8, 3, 0)
    cpl = 0
    rip = isLongMode ? msrs.sysenterEIP : msrs.sysenterEIP & 0xFFFF_FFFF
    gpr[4] = isLongMode ? msrs.sysenterESP : msrs.sysenterESP & 0xFFFF_FFFF
    updateMode()
  }

  private mutating func systemExit(_ i: Instruction) throws(Fault) {
    guard cr0 & 1 != 0, cpl == 0, msrs.sysenterCS & 0xFFFC != 0 else { throw .protection() }
    guard !isLongMode || cpuid.vendor != "AuthenticAMD" else { throw .undefined }
    let selector = UInt16(truncatingIfNeeded: msrs.sysenterCS)
    let isLong = i.size == 8
    setFlat(1, (selector &+ (isLong ? 32 : 16)) | 3, 11, 3, isLong: isLong)
    setFlat(2, (selector &+ (isLong ? 40 : 24)) | 3, 3, 3)
    cpl = 3
    rip = isLong ? gpr[2] : gpr[2] & 0xFFFF_FFFF
    gpr[4] = isLong ? gpr[1] : gpr[1] & 0xFFFF_FFFF
    updateMode()
  }

  // MARK: - Bases

  private mutating func moveBase(_ i: Instruction) throws(Fault) {
    if i.op == .swapgs {
      try onlySupervisor()
      let base = segments[5].base
      segments[5].base = msrs.kernelGSBase
      segmentBase[5] = msrs.kernelGSBase
      msrs.kernelGSBase = base
      return
    }
    guard hasFSGSBase, cr4 & 1 << 16 != 0 else { throw .undefined }
    let number = i.op == .rdfsbase || i.op == .wrfsbase ? 4 : 5
    if i.op == .rdfsbase || i.op == .rdgsbase {
      setReg(i.rm, size: i.size, truncated(segments[number].base, i.size))
      return
    }
    let base = reg(i.rm, size: i.size)
    guard Self.isCanonical(base) else {
      throw .protection()
    }
    segments[number].base = base
    segmentBase[number] = base
  }

  // MARK: - Contexts, keys, XCR0

  private mutating func invalidateContext(_ i: Instruction) throws(Fault) {
    guard hasInvpcid else { throw .undefined }
    try onlySupervisor()
    let kind = reg(i.reg, size: mode == .bits64 ? 8 : 4)
    let place = try linear(i, 16, isWrite: false)
    let low = try load(UInt64.self, place)
    let address = try load(UInt64.self, wrapped(place &+ 8))
    guard kind < 4, low >> 12 == 0 else { throw .protection() }
    if kind < 2, low != 0, cr4 & 1 << 17 == 0 { throw .protection() }
    if kind == 0, !Self.isCanonical(address) {
      throw .protection()
    }
    tlb.flush()
  }

  private mutating func moveKeyRights(_ i: Instruction) throws(Fault) {
    guard hasPKU, cr4 & 1 << 22 != 0 else { throw .undefined }
    guard gpr[1] & 0xFFFF_FFFF == 0 else { throw .protection() }
    if i.op == .rdpkru {
      setReg32(0, pkru)
      setReg32(2, 0)
    } else {
      guard gpr[2] & 0xFFFF_FFFF == 0 else { throw .protection() }
      pkru = reg32(0)
      tlb.flushRights()
    }
  }

  /// The bits that XCR0 may have.
  var supportedXCR0: UInt64 {
    guard let entry = cpuid.entry(0xD, 0) else { return 1 }
    return UInt64(entry.edx) << 32 | UInt64(entry.eax)
  }

  private mutating func moveXCR(_ i: Instruction) throws(Fault) {
    guard hasXSAVE, cr4 & 1 << 18 != 0 else { throw .undefined }
    let number = reg32(1)
    if i.op == .xgetbv {
      guard number == 0 else { throw .protection() }
      setReg32(0, UInt32(truncatingIfNeeded: xcr0))
      setReg32(2, UInt32(truncatingIfNeeded: xcr0 >> 32))
      return
    }
    try onlySupervisor()
    let value = UInt64(reg32(2)) << 32 | UInt64(reg32(0))
    guard number == 0, value & 1 != 0, value & ~supportedXCR0 == 0,
      value & 6 != 4
    else { throw .protection() }
    xcr0 = value
  }

  // MARK: - Control and debug registers

  private mutating func moveControl(_ i: Instruction) throws(Fault) {
    switch i.op {
    case .smsw:
      if cr4 & 1 << 11 != 0, cpl > 0 { throw .protection() }
      if i.isRegister {
        setReg(i.rm, size: i.size, truncated(cr0, i.size))
      } else {
        try storeOperand(UInt16(truncatingIfNeeded: cr0), i)
      }
      return
    case .movFromCR, .movToCR:
      guard [0, 2, 3, 4, 8].contains(i.reg) else { throw .undefined }
    case .movFromDR, .movToDR:
      guard i.reg < 8 else { throw .undefined }
    default: break
    }
    try onlySupervisor()
    switch i.op {
    case .lmsw:
      let value = try loadRM(i, size: 2)
      // PE can be set, not cleared.
      try setCR0(cr0 & ~0xE | value & 0xF | cr0 & 1)
    case .clts: cr0 &= ~8
    case .movFromCR:
      let value: UInt64
      switch i.reg {
      case 0: value = cr0
      case 2: value = cr2
      case 3: value = cr3
      case 4: value = cr4
      case 8: value = UInt64(bus.taskPriority)
      default: throw .undefined
      }
      setReg(i.rm, size: i.size, truncated(value, i.size))
    case .movToCR:
      let value = reg(i.rm, size: i.size)
      switch i.reg {
      case 0: try setCR0(value)
      case 2: cr2 = value
      case 3: try setCR3(value)
      case 4: try setCR4(value)
      case 8:
        guard value < 16 else { throw .protection() }
        bus.taskPriority = UInt8(value)
      default: throw .undefined
      }
    default: try moveDebug(i)
    }
  }

  private mutating func setCR0(_ value: UInt64) throws(Fault) {
    guard value >> 32 == 0, value & 1 != 0 || value & 1 << 31 == 0,
      value & 1 << 30 != 0 || value & 1 << 29 == 0
    else { throw .protection() }
    let new = value & 0xE005_003F | 0x10
    let old = cr0
    let startsPaging = new & ~old & 1 << 31 != 0
    let endsPaging = old & ~new & 1 << 31 != 0
    if startsPaging, efer & 0x100 != 0 {
      guard cr4 & 0x20 != 0, !segments[1].isLong else { throw .protection() }
    }
    if endsPaging, isLongMode, mode == .bits64 { throw .protection() }
    if new & 1 << 31 == 0, cr4 & 1 << 17 != 0 { throw .protection() }
    cr0 = new
    if startsPaging {
      if efer & 0x100 != 0 {
        efer |= 0x400
      } else if cr4 & 0x20 != 0 {
        do throws(Fault) {
          try loadPointers()
        } catch {
          cr0 = old
          throw error
        }
      }
    }
    if endsPaging { efer &= ~0x400 }
    // Leaving protected mode keeps the segments as they are (SDM volume 3, 9.9.2).
    if new & 1 == 0 { cpl = 0 }
    if old & 1 == 0, new & 1 != 0 { cpl = 0 }
    if (old ^ new) & (1 << 31 | 1 << 16 | 1) != 0 { tlb.flush() }
    updateMode()
  }

  private mutating func setCR3(_ value: UInt64) throws(Fault) {
    var value = value
    if isLongMode {
      // With PCID, bit 63 allows to keep what the new context has left in the TLB. The TLB knows
      // one context only: it is emptied in any case, as the architecture allows.
      if cr4 & 1 << 17 != 0 { value &= ~(1 << 63) }
      guard value & ~physicalMask == 0 else { throw .protection() }
    } else {
      value &= 0xFFFF_FFFF
    }
    let old = cr3
    cr3 = value
    if isPaging, !isLongMode, cr4 & 0x20 != 0 {
      do throws(Fault) {
        try loadPointers()
      } catch {
        cr3 = old
        throw error
      }
    }
    tlb.flushLocal()
  }

  private mutating func setCR4(_ value: UInt64) throws(Fault) {
    // VME and PVI are not offered; TSD, DE, PSE, PAE, MCE, PGE, PCE, OSFXSR, OSXMMEXCPT.
    var allowed: UInt64 = 0x7FC
    if hasUMIP { allowed |= 1 << 11 }
    if hasFSGSBase { allowed |= 1 << 16 }
    if hasPCID { allowed |= 1 << 17 }
    if hasXSAVE { allowed |= 1 << 18 }
    if hasSMEP { allowed |= 1 << 20 }
    if hasSMAP { allowed |= 1 << 21 }
    if hasPKU { allowed |= 1 << 22 }
    guard value & ~allowed == 0 else { throw .protection() }
    if isLongMode, value & 0x20 == 0 { throw .protection() }
    if value & ~cr4 & 1 << 17 != 0, !isLongMode || cr3 & 0xFFF != 0 { throw .protection() }
    let old = cr4
    cr4 = value
    if isPaging, !isLongMode, value & 0x20 != 0, (old ^ value) & 0xB0 != 0 {
      do throws(Fault) {
        try loadPointers()
      } catch {
        cr4 = old
        throw error
      }
    }
    if (old ^ value) & (0xB0 | 1 << 17 | 1 << 20 | 1 << 21 | 1 << 22) != 0 { tlb.flush() }
    updateMode()
  }

  private mutating func moveDebug(_ i: Instruction) throws(Fault) {
    var number = i.reg
    guard number < 8 else { throw .undefined }
    if debug.dr7 & 1 << 13 != 0 {
      debug.dr6 |= 1 << 13
      debug.dr7 &= ~(1 << 13)
      throw Fault(vector: 1)
    }
    if number == 4 || number == 5 {
      guard cr4 & 8 == 0 else { throw .undefined }
      number += 2
    }
    if i.op == .movFromDR {
      let values = [debug.dr0, debug.dr1, debug.dr2, debug.dr3, 0, 0, debug.dr6, debug.dr7]
      setReg(i.rm, size: i.size, truncated(values[Int(number)], i.size))
      return
    }
    let value = reg(i.rm, size: i.size)
    switch number {
    case 0: debug.dr0 = value
    case 1: debug.dr1 = value
    case 2: debug.dr2 = value
    case 3: debug.dr3 = value
    case 6:
      guard value >> 32 == 0 else { throw .protection() }
      debug.dr6 = value & 0xE00F | 0xFFFF_0FF0
    default:
      guard value >> 32 == 0 else { throw .protection() }
      debug.dr7 = value & ~0xD800 | 0x400
    }
    // Pages with a data breakpoint are looked at in each access.
    tlb.flushRights()
  }
}
