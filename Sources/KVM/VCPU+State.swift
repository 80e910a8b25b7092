// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem
public import Processor

extension VCPU {
  // MARK: - Single parts

  /// Returns the general registers; free after an exit, else a request to the kernel.
  public func registers() throws(KVMError) -> GeneralRegisters {
    if canReadPage { return GeneralRegisters(page, at: RunPage.registers) }
    let block = try get("KVM_GET_REGS", KVMRequest.getRegisters, GeneralRegisters.byteCount)
    return GeneralRegisters(block, at: 0)
  }

  /// Sets the general registers.
  public func setRegisters(_ registers: GeneralRegisters) throws(KVMError) {
    try set("KVM_SET_REGS", KVMRequest.setRegisters, registers.block)
  }

  /// Sends the vCPU a non-maskable interrupt.
  public func sendNMI() throws(KVMError) {
    do throws(SystemError) {
      _ = try descriptor.control("KVM_NMI", KVMRequest.nmi)
    } catch {
      throw .refused(error)
    }
  }

  /// Returns segments, tables and control registers; free after an exit.
  public func systemRegisters() throws(KVMError) -> SystemRegisters {
    if canReadPage { return SystemRegisters(page, at: RunPage.systemRegisters) }
    let block = try get(
      "KVM_GET_SREGS", KVMRequest.getSystemRegisters, SystemRegisters.byteCount)
    return SystemRegisters(block, at: 0)
  }

  /// Sets segments, tables and control registers.
  public func setSystemRegisters(_ registers: SystemRegisters) throws(KVMError) {
    try set("KVM_SET_SREGS", KVMRequest.setSystemRegisters, registers.block)
  }

  /// Returns what is on its way to the guest; free after an exit.
  public func events() throws(KVMError) -> PendingEvents {
    if canReadPage { return PendingEvents(page, at: RunPage.events) }
    let block = try get(
      "KVM_GET_VCPU_EVENTS", KVMRequest.getVCPUEvents, PendingEvents.byteCount)
    return PendingEvents(block, at: 0)
  }

  /// Sets what is on its way to the guest.
  public func setEvents(_ events: PendingEvents) throws(KVMError) {
    try set("KVM_SET_VCPU_EVENTS", KVMRequest.setVCPUEvents, events.block)
  }

  /// Whether the vCPU runs or waits.
  public func runState() throws(KVMError) -> RunState {
    let block = try get("KVM_GET_MP_STATE", KVMRequest.getMPState, 4)
    return RunState(rawValue: block.load(UInt32.self, at: 0)) ?? .runnable
  }

  /// Makes the vCPU run or wait.
  public func setRunState(_ state: RunState) throws(KVMError) {
    var block = Block(byteCount: 4)
    block.store(state.rawValue, at: 0)
    try set("KVM_SET_MP_STATE", KVMRequest.setMPState, block)
  }

  /// Returns a model-specific register; `nil` when KVM does not have it.
  public func msr(_ index: UInt32) throws(KVMError) -> UInt64? {
    Self.read(index, descriptor)
  }

  /// Sets a model-specific register; returns whether KVM took it.
  @discardableResult
  public func setMSR(_ index: UInt32, _ value: UInt64) throws(KVMError) -> Bool {
    var block = Block(byteCount: 24)
    block.store(UInt32(1), at: 0)
    block.store(index, at: 8)
    block.store(value, at: 16)
    defer { pageIsStale() }
    return try asking { () throws(SystemError) in
      try descriptor.control("KVM_SET_MSRS", KVMRequest.setMSRs, bytes: &block.bytes)
    } == 1
  }

  // MARK: - All of it

  /// Returns the whole state.
  ///
  /// After an exit with an access, ``completeAccess()`` comes first.
  public func state() throws(KVMError) -> VCPUState { try Self.state(descriptor, stateMSRs) }

  static func state(_ descriptor: Descriptor, _ msrs: [UInt32]) throws(KVMError) -> VCPUState {
    var state = VCPUState()
    let mode = try get(descriptor, "KVM_GET_MP_STATE", KVMRequest.getMPState, 4)
    state.mode = RunState(rawValue: mode.load(UInt32.self, at: 0)) ?? .runnable
    state.registers = GeneralRegisters(
      try get(
        descriptor, "KVM_GET_REGS", KVMRequest.getRegisters, GeneralRegisters.byteCount), at: 0)
    state.system = SystemRegisters(
      try get(
        descriptor, "KVM_GET_SREGS", KVMRequest.getSystemRegisters, SystemRegisters.byteCount),
      at: 0)
    state.events = PendingEvents(
      try get(
        descriptor, "KVM_GET_VCPU_EVENTS", KVMRequest.getVCPUEvents, PendingEvents.byteCount),
      at: 0)
    state.debug = DebugRegisters(
      try get(
        descriptor, "KVM_GET_DEBUGREGS", KVMRequest.getDebugRegisters,
        DebugRegisters.byteCount), at: 0)
    state.xsave = try get(descriptor, "KVM_GET_XSAVE", KVMRequest.getXSave, 4096).bytes
    if let xcrs = try? get(descriptor, "KVM_GET_XCRS", KVMRequest.getXCRs, 392) {
      let count = min(16, Int(xcrs.load(UInt32.self, at: 0)))
      state.xcrs = (0..<count).map {
        ExtendedControlRegister(
          number: xcrs.load(UInt32.self, at: 8 + 16 * $0),
          value: xcrs.load(UInt64.self, at: 16 + 16 * $0))
      }
    }
    for index in msrs {
      guard let value = read(index, descriptor) else { continue }
      state.msrs.append(ModelSpecificRegister(index: index, value: value))
    }
    // Absent without the interrupt chips in the kernel.
    if let lapic = try? get(descriptor, "KVM_GET_LAPIC", KVMRequest.getLAPIC, 1024) {
      state.lapic = lapic.bytes
    }
    let frequency = try? descriptor.control("KVM_GET_TSC_KHZ", KVMRequest.getTSCKHz)
    state.tscKHz = UInt32(max(0, frequency ?? 0))
    return state
  }

  /// Puts the vCPU back to ``resetState``, as the machine's reset line does.
  ///
  /// The time-stamp counter goes on: the guest sees no jump back to an old value.
  @discardableResult
  public func reset() throws(KVMError) -> [UInt32] {
    var state = resetState
    let timeStampCounter: UInt32 = 0x10
    state.msrs.removeAll { $0.index == timeStampCounter }
    return try setState(state)
  }

  /// Sets the whole state and returns the model-specific registers that KVM refused.
  ///
  /// - Precondition: `xsave` has 4096 bytes, `lapic` 1024 or none.
  @discardableResult
  public func setState(_ state: VCPUState) throws(KVMError) -> [UInt32] {
    precondition(
      state.xsave.count == 4096 && (state.lapic.isEmpty || state.lapic.count == 1024),
      "not a vCPU's state")
    // The order is one that the kernel takes: the APIC base before the APIC, the APIC before
    // its deadline register, the events last because most others clear them.
    try setRunState(state.mode)
    try setRegisters(state.registers)
    try setSystemRegisters(state.system)
    if !state.xcrs.isEmpty { try setExtendedControlRegisters(state.xcrs) }
    try setXSaveArea(state.xsave)
    try setDebugRegisters(state.debug)
    if !state.lapic.isEmpty {
      var lapic = Block(byteCount: 0)
      lapic.bytes = state.lapic
      try set("KVM_SET_LAPIC", KVMRequest.setLAPIC, lapic)
    }
    var refused: [UInt32] = []
    for msr in state.msrs where try !setMSR(msr.index, msr.value) { refused.append(msr.index) }
    try setEvents(state.events)
    return refused
  }

  func setExtendedControlRegisters(_ xcrs: [ExtendedControlRegister]) throws(KVMError) {
    var block = Block(byteCount: 392)
    block.store(UInt32(min(16, xcrs.count)), at: 0)
    for (index, xcr) in xcrs.prefix(16).enumerated() {
      block.store(xcr.number, at: 8 + 16 * index)
      block.store(xcr.value, at: 16 + 16 * index)
    }
    try set("KVM_SET_XCRS", KVMRequest.setXCRs, block)
  }

  func setXSaveArea(_ area: [UInt8]) throws(KVMError) {
    var xsave = Block(byteCount: 0)
    xsave.bytes = area
    try set("KVM_SET_XSAVE", KVMRequest.setXSave, xsave)
  }

  func setDebugRegisters(_ debug: DebugRegisters) throws(KVMError) {
    try set("KVM_SET_DEBUGREGS", KVMRequest.setDebugRegisters, debug.block)
  }

  // MARK: - Requests

  private func get(_ name: StaticString, _ request: UInt, _ byteCount: Int)
    throws(KVMError) -> Block
  {
    try Self.get(descriptor, name, request, byteCount)
  }

  private static func get(
    _ descriptor: Descriptor, _ name: StaticString, _ request: UInt, _ byteCount: Int
  ) throws(KVMError) -> Block {
    var block = Block(byteCount: byteCount)
    try asking { () throws(SystemError) in
      _ = try descriptor.control("\(name)", request, bytes: &block.bytes)
    }
    return block
  }

  private func set(_ name: StaticString, _ request: UInt, _ block: Block) throws(KVMError) {
    var block = block
    pageIsStale()
    try asking { () throws(SystemError) in
      _ = try descriptor.control("\(name)", request, bytes: &block.bytes)
    }
  }

  private static func read(_ index: UInt32, _ descriptor: Descriptor) -> UInt64? {
    var block = Block(byteCount: 24)
    block.store(UInt32(1), at: 0)
    block.store(index, at: 8)
    let got = try? descriptor.control("KVM_GET_MSRS", KVMRequest.getMSRs, bytes: &block.bytes)
    return got == 1 ? block.load(UInt64.self, at: 16) : nil
  }

  /// The registers of a list that can be read on this vCPU.
  static func readable(_ indices: [UInt32], _ descriptor: Descriptor) -> [UInt32] {
    indices.filter { read($0, descriptor) != nil }
  }
}
