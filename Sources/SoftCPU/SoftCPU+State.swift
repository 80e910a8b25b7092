// SPDX-License-Identifier: Apache-2.0

public import Processor

/// The state after a reset, and as others know it.
extension SoftCPU {
  // MARK: - Reset

  /// Puts the processor into its state after power-on or RESET# (SDM volume 3, table 9-1).
  public mutating func reset() {
    initialize()
    mxcsr = 0x1F80
    for place in 0..<64 { vectors[place] = 0 }
    x87 = X87State()
    msrs = SystemMSRs()
    xcr0 = 1
    pkru = 0
    cr0 = 0x6000_0010
    updateMode()
  }

  /// Puts the processor into its state after INIT: x87, vectors and most MSRs stay.
  public mutating func initialize() {
    for number in 0..<16 { gpr[number] = 0 }
    gpr[16] = 0
    gpr[2] = UInt64(cpuid.entry(1)?.eax ?? 0)
    rip = 0xFFF0
    rflags = 2
    for number in 0..<8 {
      var segment = Segment()
      segment.limit = 0xFFFF
      segment.type = 3
      segment.isPresent = true
      segment.isCodeOrData = true
      segments[number] = segment
    }
    segments[1].selector = 0xF000
    segments[1].base = 0xFFFF_0000
    segments[1].type = 11
    ldtr = Segment()
    ldtr.limit = 0xFFFF
    ldtr.type = 2
    ldtr.isPresent = true
    tr = ldtr
    tr.type = 11
    gdtr = DescriptorTable()
    gdtr.limit = 0xFFFF
    idtr = gdtr
    cr0 = cr0 & 0x6000_0000 | 0x10
    cr2 = 0
    cr3 = 0
    cr4 = 0
    efer = 0
    debug = DebugRegisters()
    cpl = 0
    interruptShadow = 0
    nmiIsMasked = false
    isHalted = false
    isShutdown = false
    pendingTrap = 0
    events = PendingEvents()
    ranges = RangeCache()
    a20Mask = memory.isA20Open ? .max : ~(1 << 20)
    tlb.flush()
    updateMode()
  }

  /// Starts at the page of a start-up message (SDM volume 3, 8.4.4).
  public mutating func startUp(vector: UInt8) {
    segments[1].selector = UInt16(vector) << 8
    segments[1].base = UInt64(vector) << 12
    rip = 0
    isHalted = false
    updateMode()
  }

  // MARK: - As others know it

  /// The MSRs that are part of the state.
  private static let stateMSRs: [UInt32] =
    [
      0x3B, 0x174, 0x175, 0x176, 0x1A0, 0x277, 0x2FF, 0xC000_0081, 0xC000_0082, 0xC000_0083,
      0xC000_0084, 0xC000_0102, 0xC000_0103,
    ] + SystemMSRs.fixedRanges + (0x200...0x20F).map { UInt32($0) }

  /// The whole architectural state, in KVM's terms.
  ///
  /// The local APIC's page is the machine's to fill in; MSRs that the CPU does not have are
  /// ignored when the state is set.
  public var state: VCPUState {
    mutating get {
      var state = VCPUState()
      var g = GeneralRegisters()
      (g.rax, g.rcx, g.rdx, g.rbx) = (gpr[0], gpr[1], gpr[2], gpr[3])
      (g.rsp, g.rbp, g.rsi, g.rdi) = (gpr[4], gpr[5], gpr[6], gpr[7])
      (g.r8, g.r9, g.r10, g.r11) = (gpr[8], gpr[9], gpr[10], gpr[11])
      (g.r12, g.r13, g.r14, g.r15) = (gpr[12], gpr[13], gpr[14], gpr[15])
      g.rip = rip
      g.rflags = rflags
      state.registers = g
      var s = SystemRegisters()
      (s.es, s.cs, s.ss) = (segments[0], segments[1], segments[2])
      (s.ds, s.fs, s.gs) = (segments[3], segments[4], segments[5])
      s.ss.privilege = cpl
      (s.tr, s.ldt, s.gdt, s.idt) = (tr, ldtr, gdtr, idtr)
      (s.cr0, s.cr2, s.cr3, s.cr4) = (cr0, cr2, cr3, cr4)
      s.cr8 = UInt64(bus.taskPriority)
      s.efer = efer
      s.apicBase = bus.readInterruptMSR(0x1B) ?? 0
      state.system = s
      var pending = events
      pending.interruptShadow = interruptShadow
      pending.nmiIsMasked = nmiIsMasked
      pending.nmiIsPending = attention.pending & Attention.nmi != 0 ? 1 : 0
      pending.validity = Self.validEvents
      state.events = pending
      state.debug = debug
      state.mode = isHalted ? .halted : .runnable
      state.xsave = xsaveImage
      state.xcrs = [ExtendedControlRegister(number: 0, value: xcr0)]
      for index in Self.stateMSRs {
        guard let value = readMSR(index) else { continue }
        state.msrs.append(ModelSpecificRegister(index: index, value: value))
      }
      return state
    }
    set {
      let g = newValue.registers
      (gpr[0], gpr[1], gpr[2], gpr[3]) = (g.rax, g.rcx, g.rdx, g.rbx)
      (gpr[4], gpr[5], gpr[6], gpr[7]) = (g.rsp, g.rbp, g.rsi, g.rdi)
      (gpr[8], gpr[9], gpr[10], gpr[11]) = (g.r8, g.r9, g.r10, g.r11)
      (gpr[12], gpr[13], gpr[14], gpr[15]) = (g.r12, g.r13, g.r14, g.r15)
      gpr[16] = 0
      rip = g.rip
      rflags = g.rflags
      let s = newValue.system
      (segments[0], segments[1], segments[2]) = (s.es, s.cs, s.ss)
      (segments[3], segments[4], segments[5]) = (s.ds, s.fs, s.gs)
      (tr, ldtr, gdtr, idtr) = (s.tr, s.ldt, s.gdt, s.idt)
      (cr0, cr2, cr3, cr4) = (s.cr0, s.cr2, s.cr3, s.cr4)
      bus.taskPriority = UInt8(truncatingIfNeeded: s.cr8 & 15)
      efer = s.efer
      debug = newValue.debug
      cpl = cr0 & 1 == 0 ? 0 : isVirtual8086 ? 3 : s.ss.privilege
      events = newValue.events
      interruptShadow = events.interruptShadow & 3
      nmiIsMasked = events.nmiIsMasked
      if events.nmiIsPending != 0 { attention.raise(Attention.nmi) }
      takePendingEvents(s.interruptBitmap)
      isHalted = newValue.mode == .halted
      isShutdown = events.tripleFaultIsPending != 0
      pendingTrap = 0
      if let first = newValue.xcrs.first(where: { $0.number == 0 }) {
        xcr0 = first.value & supportedXCR0 | 1
      }
      setXSAVEImage(newValue.xsave)
      for msr in newValue.msrs where Self.stateMSRs.contains(msr.index) {
        _ = writeMSR(msr.index, msr.value)
      }
      ranges = RangeCache()
      tlb.flush()
      updateMode()
      if isPaging, !isLongMode, cr4 & 0x20 != 0 { try? loadPointers() }
    }
  }

  /// KVM_VCPUEVENT_VALID_NMI_PENDING and KVM_VCPUEVENT_VALID_SHADOW.
  private static let validEvents: UInt32 = 1 | 4

  /// Makes injected events of what is only on its way: an exception whose payload is still to go
  /// to its register, and an interrupt that the bitmap alone knows.
  private mutating func takePendingEvents(_ interrupts: [UInt64]) {
    if events.exceptionIsPending, !events.exceptionIsInjected {
      events.exceptionIsInjected = true
      if events.exceptionHasPayload {
        if events.exceptionVector == 14 { cr2 = events.exceptionPayload }
        if events.exceptionVector == 1 { debug.dr6 |= events.exceptionPayload }
      }
    }
    events.exceptionIsPending = false
    events.exceptionHasPayload = false
    if !events.interruptIsInjected {
      for (place, word) in interrupts.prefix(4).enumerated() where word != 0 {
        events.interruptIsInjected = true
        events.interruptVector = UInt8(64 * place + word.trailingZeroBitCount)
        events.interruptIsSoftware = false
      }
    }
  }

  /// Where an XSAVE area has PKRU, as CPUID tells (SDM volume 1, 13.4.3).
  private var keyRightsOffset: Int {
    guard let component = cpuid.entry(0xD, 9), component.eax >= 4 else { return 2688 }
    return component.ebx >= 832 && component.ebx <= 4088 ? Int(component.ebx) : 2688
  }

  /// The x87 and vector registers as an XSAVE area in the standard format.
  private var xsaveImage: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 4096)
    func put(_ value: UInt64, _ offset: Int) {
      for lane in 0..<8 {
        bytes[offset + lane] = UInt8(truncatingIfNeeded: value >> UInt64(8 * lane))
      }
    }
    let header = x87.fxsaveHeader()
    put(header.0, 0)
    put(header.1, 8)
    put(header.2, 16)
    put(UInt64(mxcsr) | 0xFFFF << 32, 24)
    for number in 0..<8 {
      let register = x87.fxsaveRegister(number)
      put(register.low, 32 + 16 * number)
      put(UInt64(register.high), 40 + 16 * number)
    }
    for number in 0..<16 {
      put(vectors[4 * number], 160 + 16 * number)
      put(vectors[4 * number + 1], 168 + 16 * number)
      put(vectors[4 * number + 2], 576 + 16 * number)
      put(vectors[4 * number + 3], 584 + 16 * number)
    }
    put(UInt64(pkru), keyRightsOffset)
    put(xcr0 & 7 | (pkru != 0 ? 1 << 9 : 0), 512)
    return bytes
  }

  private mutating func setXSAVEImage(_ bytes: [UInt8]) {
    guard bytes.count >= 832 else { return }
    func get(_ offset: Int) -> UInt64 {
      (0..<8).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
    }
    x87.setFXSAVEHeader(get(0), get(8), get(16))
    mxcsr = UInt32(truncatingIfNeeded: get(24)) & 0xFFFF
    for number in 0..<8 {
      x87.setFXSAVERegister(
        number, low: get(32 + 16 * number),
        high: UInt16(truncatingIfNeeded: get(40 + 16 * number)))
    }
    let hasUpper = get(512) & 4 != 0
    pkru =
      get(512) & 1 << 9 != 0 && bytes.count >= keyRightsOffset + 8
      ? UInt32(truncatingIfNeeded: get(keyRightsOffset)) : 0
    for number in 0..<16 {
      vectors[4 * number] = get(160 + 16 * number)
      vectors[4 * number + 1] = get(168 + 16 * number)
      vectors[4 * number + 2] = hasUpper ? get(576 + 16 * number) : 0
      vectors[4 * number + 3] = hasUpper ? get(584 + 16 * number) : 0
    }
  }
}
