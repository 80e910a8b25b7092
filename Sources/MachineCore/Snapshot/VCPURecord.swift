// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import Processor

/// A vCPU's state as a state file has it.
struct VCPURecord: WireCodable {
  var state: VCPUState
  /// With the software CPU: INIT and start-up messages that it has not seen yet.
  var pendingStart: UInt32 = 0

  init(_ state: VCPUState, pendingStart: UInt32 = 0) {
    self.state = state
    self.pendingStart = pendingStart
  }

  /// The parts whose lengths KVM prescribes.
  static let xsaveByteCount = 4096
  static let lapicByteCount = 1024

  private static var general: [WritableKeyPath<GeneralRegisters, UInt64>] {
    [
      \.rax, \.rbx, \.rcx, \.rdx, \.rsi, \.rdi, \.rsp, \.rbp, \.r8, \.r9, \.r10, \.r11, \.r12,
      \.r13, \.r14, \.r15, \.rip, \.rflags,
    ]
  }
  private static var segments: [WritableKeyPath<SystemRegisters, Segment>] {
    [\.cs, \.ds, \.es, \.fs, \.gs, \.ss, \.tr, \.ldt]
  }
  private static var control: [WritableKeyPath<SystemRegisters, UInt64>] {
    [\.cr0, \.cr2, \.cr3, \.cr4, \.cr8, \.efer, \.apicBase]
  }
  private static var debug: [WritableKeyPath<DebugRegisters, UInt64>] {
    [\.dr0, \.dr1, \.dr2, \.dr3, \.dr6, \.dr7]
  }

  func encode(to writer: inout WireWriter) {
    writer.put(state.mode.rawValue)
    for path in Self.general { writer.put(state.registers[keyPath: path]) }
    for path in Self.segments { Self.put(state.system[keyPath: path], &writer) }
    for table in [state.system.gdt, state.system.idt] {
      writer.put(table.base)
      writer.put(table.limit)
    }
    for path in Self.control { writer.put(state.system[keyPath: path]) }
    for place in 0..<4 { writer.put(state.system.interruptBitmap[place]) }
    for path in Self.debug { writer.put(state.debug[keyPath: path]) }
    Self.put(state.events, &writer)
    writer.put(state.xsave)
    writer.put(state.lapic)
    writer.put(UInt32(state.xcrs.count))
    for xcr in state.xcrs {
      writer.put(xcr.number)
      writer.put(xcr.value)
    }
    writer.put(UInt32(state.msrs.count))
    for msr in state.msrs {
      writer.put(msr.index)
      writer.put(msr.value)
    }
    writer.put(state.tscKHz)
    writer.put(pendingStart)
  }

  init(from reader: inout WireReader) throws(ProtocolError) {
    state = VCPUState()
    state.mode = try reader.getCase("run state")
    for path in Self.general { state.registers[keyPath: path] = try reader.get("register") }
    for path in Self.segments { state.system[keyPath: path] = try Self.segment(&reader) }
    state.system.gdt.base = try reader.get("GDT")
    state.system.gdt.limit = try reader.get("GDT")
    state.system.idt.base = try reader.get("IDT")
    state.system.idt.limit = try reader.get("IDT")
    for path in Self.control { state.system[keyPath: path] = try reader.get("control register") }
    for place in 0..<4 { state.system.interruptBitmap[place] = try reader.get("interrupts") }
    for path in Self.debug { state.debug[keyPath: path] = try reader.get("debug register") }
    state.events = try Self.events(&reader)
    state.xsave = try reader.getBytes("XSAVE area", most: Self.xsaveByteCount)
    state.lapic = try reader.getBytes("local APIC", most: Self.lapicByteCount)
    guard state.xsave.count == Self.xsaveByteCount,
      state.lapic.isEmpty || state.lapic.count == Self.lapicByteCount
    else { throw ProtocolError("a vCPU's XSAVE area or local APIC is short") }
    let xcrs: UInt32 = try reader.get("XCR count")
    guard xcrs <= 16 else { throw ProtocolError("\(xcrs) extended control registers") }
    for _ in 0..<xcrs {
      state.xcrs.append(
        ExtendedControlRegister(number: try reader.get("XCR"), value: try reader.get("XCR")))
    }
    let msrs: UInt32 = try reader.get("MSR count")
    guard msrs <= 4096 else { throw ProtocolError("\(msrs) model-specific registers") }
    for _ in 0..<msrs {
      state.msrs.append(
        ModelSpecificRegister(index: try reader.get("MSR"), value: try reader.get("MSR")))
    }
    state.tscKHz = try reader.get("frequency")
    pendingStart = try reader.get("start-up messages")
  }

  // MARK: - Parts

  private static func put(_ segment: Segment, _ writer: inout WireWriter) {
    writer.put(segment.base)
    writer.put(segment.limit)
    writer.put(segment.selector)
    writer.put(segment.type)
    writer.put(segment.privilege)
    for flag in [
      segment.isPresent, segment.is32Bit, segment.isCodeOrData, segment.isLong,
      segment.isPageGranular, segment.available, segment.isUnusable,
    ] {
      writer.put(flag)
    }
  }

  private static func segment(_ reader: inout WireReader) throws(ProtocolError) -> Segment {
    var segment = Segment()
    segment.base = try reader.get("segment")
    segment.limit = try reader.get("segment")
    segment.selector = try reader.get("segment")
    segment.type = try reader.get("segment")
    segment.privilege = try reader.get("segment")
    segment.isPresent = try reader.getBool("segment")
    segment.is32Bit = try reader.getBool("segment")
    segment.isCodeOrData = try reader.getBool("segment")
    segment.isLong = try reader.getBool("segment")
    segment.isPageGranular = try reader.getBool("segment")
    segment.available = try reader.getBool("segment")
    segment.isUnusable = try reader.getBool("segment")
    return segment
  }

  private static func put(_ events: PendingEvents, _ writer: inout WireWriter) {
    for flag in [
      events.exceptionIsInjected, events.exceptionHasErrorCode, events.exceptionIsPending,
      events.exceptionHasPayload, events.interruptIsInjected, events.interruptIsSoftware,
      events.nmiIsInjected, events.nmiIsMasked, events.isInSMM, events.smiIsPending,
      events.isInNMIInSMM,
    ] {
      writer.put(flag)
    }
    for byte in [
      events.exceptionVector, events.interruptVector, events.interruptShadow, events.nmiIsPending,
      events.initIsLatched, events.tripleFaultIsPending,
    ] {
      writer.put(byte)
    }
    writer.put(events.exceptionErrorCode)
    writer.put(events.exceptionPayload)
    writer.put(events.startupVector)
    writer.put(events.validity)
  }

  private static func events(_ reader: inout WireReader) throws(ProtocolError) -> PendingEvents {
    var events = PendingEvents()
    events.exceptionIsInjected = try reader.getBool("events")
    events.exceptionHasErrorCode = try reader.getBool("events")
    events.exceptionIsPending = try reader.getBool("events")
    events.exceptionHasPayload = try reader.getBool("events")
    events.interruptIsInjected = try reader.getBool("events")
    events.interruptIsSoftware = try reader.getBool("events")
    events.nmiIsInjected = try reader.getBool("events")
    events.nmiIsMasked = try reader.getBool("events")
    events.isInSMM = try reader.getBool("events")
    events.smiIsPending = try reader.getBool("events")
    events.isInNMIInSMM = try reader.getBool("events")
    events.exceptionVector = try reader.get("events")
    events.interruptVector = try reader.get("events")
    events.interruptShadow = try reader.get("events")
    events.nmiIsPending = try reader.get("events")
    events.initIsLatched = try reader.get("events")
    events.tripleFaultIsPending = try reader.get("events")
    events.exceptionErrorCode = try reader.get("events")
    events.exceptionPayload = try reader.get("events")
    events.startupVector = try reader.get("events")
    events.validity = try reader.get("events")
    return events
  }
}
