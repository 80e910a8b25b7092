// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import KVM
internal import LinuxSystem
internal import Monitor
internal import PCI
internal import Processor
internal import Synchronization

/// What an operator looks at and changes in the machine itself.
extension MachineControl {
  /// Tells those who have subscribed; who does not read goes without, and that is counted.
  func announce(_ event: EventMessage) {
    for socket in subscribers {
      do throws(ChannelError) {
        try Channel(socket).send(
          Monitor.ControlRequest.event.rawValue, sequence: 0, payload: event.wireBytes,
          wait: false)
      } catch {
        lostEvents &+= 1
      }
    }
  }

  /// Does something while every vCPU is parked between two instructions.
  func whileParked<T>(_ body: () throws(Refusal) -> T) throws(Refusal) -> T {
    let isRunning = machine.progress.withLock { $0.state == "running" }
    defer { if isRunning { machine.release() } }
    guard machine.park(timeout: 2_000_000_000, strictly: true) else {
      throw Refusal("a vCPU waits for a device")
    }
    return try body()
  }

  private func state(_ index: UInt16) throws(Refusal) -> VCPUState {
    let index = Int(index)
    guard index < machine.accelerator.count else { throw Refusal("there is no CPU \(index)") }
    switch machine.accelerator {
    case .kvm(let kvm, _):
      do throws(KVMError) {
        return try kvm.vcpus[index].state()
      } catch {
        throw Refusal("\(error)")
      }
    case .soft(let soft, _):
      guard let state = soft.vcpus[index].parkedState.withLock({ $0 }) else {
        throw Refusal("CPU \(index) has not run yet")
      }
      return state
    }
  }

  // MARK: - Registers

  func registers(_ request: VCPURequest) throws(Refusal) -> VCPUReply {
    let state = try whileParked { () throws(Refusal) -> VCPUState in try self.state(request.index) }
    return VCPUReply(state, request.index)
  }

  func setRegisters(_ request: VCPUReply) throws(Refusal) {
    try whileParked { () throws(Refusal) -> Void in
      let before = try self.state(request.index)
      var state = before
      state.registers = GeneralRegisters(request.general)
      try state.system.take(request, from: VCPUReply(before, request.index))
      if state.xsave.count > 520, Array(state.xsave.prefix(512)) != request.fxsave {
        // MXCSR has bits that no processor takes; the header's bits say that the image counts.
        var image = request.fxsave
        image.replaceSubrange(28..<32, with: state.xsave[28..<32])
        for place in 26..<28 { image[place] = 0 }
        state.xsave.replaceSubrange(0..<512, with: image)
        state.xsave[512] |= 3
      }
      switch machine.accelerator {
      case .kvm(let kvm, _):
        do throws(KVMError) {
          try kvm.vcpus[Int(request.index)].change(from: before, to: state)
        } catch {
          throw Refusal("\(error)")
        }
      case .soft(let soft, _):
        let vcpu = soft.vcpus[Int(request.index)]
        vcpu.parkedState.withLock { $0 = state }
        vcpu.changedState.withLock { $0 = state }
      }
    }
  }

  func sendNMI() throws(Refusal) {
    switch machine.accelerator {
    case .kvm(let kvm, _):
      // The kernel lets nobody at a vCPU while it runs.
      try whileParked { () throws(Refusal) -> Void in
        do throws(KVMError) {
          for vcpu in kvm.vcpus { try vcpu.sendNMI() }
        } catch {
          throw Refusal("\(error)")
        }
      }
    case .soft(let soft, _): for index in soft.vcpus.indices { soft.hub.sendNMI(index) }
    }
  }

  // MARK: - Memory

  func readMemory(_ request: MemoryRequest) throws(Refusal) -> MemoryBytes {
    let bytes = machine.board.withLock {
      $0.slots.bytes($0.map, at: request.address, count: Int(request.byteCount))
    }
    guard let bytes else {
      throw Refusal("no memory at \(hex(request.address)) that can be read without a device")
    }
    return MemoryBytes(address: request.address, bytes: bytes)
  }

  func writeMemory(_ request: MemoryBytes) throws(Refusal) {
    guard machine.isReachable(request.address, UInt64(request.bytes.count), .toGuest) else {
      throw Refusal("no RAM at \(hex(request.address))")
    }
    do throws(GuestMemoryError) {
      try machine.memory.write(request.bytes, at: request.address)
    } catch {
      throw Refusal("\(error)")
    }
    machine.wasWritten(request.address, count: request.bytes.count)
  }

  // MARK: - Buses

  func functions() -> FunctionsReply {
    machine.board.withLock { board in
      func header(_ space: ConfigSpace) -> [UInt8] { (UInt8(0)..<64).map { space[$0] } }
      var found = [
        FunctionsReply.Function(
          devfn: 0, role: "", header: header(board.bridge.configuration),
          sizes: [UInt32](repeating: 0, count: 7))
      ]
      for function in board.functions {
        var sizes = [UInt32](repeating: 0, count: 7)
        for bar in function.claim.bars where bar.index < 7 {
          sizes[bar.kind == .rom ? 6 : Int(bar.index)] = bar.byteCount
        }
        found.append(
          FunctionsReply.Function(
            devfn: function.devfn, role: function.link.role, header: header(function.space),
            sizes: sizes))
      }
      return FunctionsReply(functions: found.sorted { $0.devfn < $1.devfn })
    }
  }

  func addressMap() -> AddressMapReply {
    let snapshot = machine.snapshot()
    var ranges: [AddressMapReply.Range] = snapshot.map.slots.map { slot in
      let name =
        switch slot.backing {
        case .ram: "ram"
        case .firmware: "rom"
        case .device(let id): machine.links[Int(id >> 16)].role
        }
      return AddressMapReply.Range(
        isPort: false, start: slot.start, byteCount: slot.byteCount, name: name,
        isReadOnly: slot.isReadOnly)
    }
    ranges += snapshot.memoryRegions.map {
      AddressMapReply.Range(
        isPort: false, start: $0.base, byteCount: $0.byteCount, name: $0.target.link.role)
    }
    ranges.sort { $0.start < $1.start }
    let ports = snapshot.portRegions.map {
      AddressMapReply.Range(
        isPort: true, start: UInt64($0.base), byteCount: UInt64($0.count),
        name: $0.target.link.role)
    }
    return AddressMapReply(
      ranges: Array((ranges + ports.sorted { $0.start < $1.start }).prefix(300)))
  }

  // MARK: - Debugging

  /// Takes what a debugger wants; the machine is held, or is held for it.
  func debug(_ request: DebugRequest) throws(Refusal) {
    try whileParked { () throws(Refusal) -> Void in
      if case .kvm(let kvm, _) = machine.accelerator { try setPoints(request, kvm) }
      machine.debugger.set(request)
    }
  }

  /// Puts a debugger's points into the vCPUs' debug registers.
  private func setPoints(_ request: DebugRequest, _ kvm: KVMAccelerator) throws(Refusal) {
    guard request.points.count <= HardwarePoint.most else {
      throw Refusal("with KVM there are \(HardwarePoint.most) breakpoints and watchpoints at most")
    }
    var points: [HardwarePoint] = []
    for point in request.points {
      let size = point.kind == .execution ? 1 : Int(point.byteCount)
      guard size & (size - 1) == 0, point.address & UInt64(size - 1) == 0 else {
        throw Refusal("with KVM a watchpoint has 1, 2, 4 or 8 bytes, aligned to their count")
      }
      switch point.kind {
      case .execution: points.append(HardwarePoint(.execution, address: point.address))
      case .write: points.append(HardwarePoint(.write, address: point.address, byteCount: size))
      case .access: points.append(HardwarePoint(.access, address: point.address, byteCount: size))
      case .read: throw Refusal("a processor cannot watch reads alone; watch all accesses")
      }
    }
    do throws(KVMError) {
      for (index, vcpu) in kvm.vcpus.enumerated() {
        try vcpu.debug(points, steps: Int(request.steps) == index)
      }
    } catch {
      throw Refusal("\(error)")
    }
  }

  static let debugReason = "the debugger has stopped it"

  func stopForDebugger(_ cpu: Int, _ reason: String) {
    guard !machine.progress.withLock({ $0.state == "paused" }) else { return }
    isHeldByOperator = true
    machine.pause(Self.debugReason)
    announce(EventMessage(.debug, detail: "\(cpu) \(reason)"))
    announce(EventMessage(.stop, detail: "debug"))
  }
}

extension VCPUReply {
  init(_ state: VCPUState, _ index: UInt16) {
    self.init()
    self.index = index
    mode = state.mode.rawValue
    let g = state.registers
    general = [
      g.rax, g.rbx, g.rcx, g.rdx, g.rsi, g.rdi, g.rbp, g.rsp, g.r8, g.r9, g.r10, g.r11, g.r12,
      g.r13, g.r14, g.r15, g.rip, g.rflags,
    ]
    let s = state.system
    segments = [s.cs, s.ss, s.ds, s.es, s.fs, s.gs, s.ldt, s.tr].map { Segment($0) }
    tables = [s.gdt.base, UInt64(s.gdt.limit), s.idt.base, UInt64(s.idt.limit)]
    control = [s.cr0, s.cr2, s.cr3, s.cr4, s.cr8, s.efer, s.apicBase]
    let d = state.debug
    debug = [d.dr0, d.dr1, d.dr2, d.dr3, d.dr6, d.dr7]
    fxsave = Array(state.xsave.prefix(512))
  }
}

extension VCPUReply.Segment {
  fileprivate init(_ segment: Processor.Segment) {
    self.init()
    selector = segment.selector
    base = segment.base
    limit = segment.limit
    func bit(_ value: Bool, _ place: UInt32) -> UInt32 { value ? 1 << place : 0 }
    flags =
      UInt32(segment.type & 15) << 8 | bit(segment.isCodeOrData, 12)
      | UInt32(segment.privilege & 3) << 13 | bit(segment.isPresent && !segment.isUnusable, 15)
      | bit(segment.available, 20) | bit(segment.isLong, 21) | bit(segment.is32Bit, 22)
      | bit(segment.isPageGranular, 23)
  }
}

extension SystemRegisters {
  /// Takes the segment and control registers that differ from what was shown.
  fileprivate mutating func take(
    _ request: VCPUReply, from shown: VCPUReply
  ) throws(Refusal) {
    let before = self
    let places: [WritableKeyPath<SystemRegisters, Segment>] = [\.cs, \.ss, \.ds, \.es, \.fs, \.gs]
    for (index, place) in places.enumerated()
    where request.segments[index] != shown.segments[index] {
      self[keyPath: place] = Segment(request.segments[index])
    }
    guard request.control != shown.control || self != before else { return }
    cr0 = request.control[0]
    cr2 = request.control[1]
    cr3 = request.control[2]
    cr4 = request.control[3]
    cr8 = request.control[4]
    efer = request.control[5]
    complete()
    if let reason = conflict(after: before) { throw Refusal(reason) }
  }
}

extension Processor.Segment {
  /// Reads a descriptor's bits, as ``VCPUReply/Segment/flags`` has them.
  fileprivate init(_ segment: VCPUReply.Segment) {
    self.init()
    func bit(_ place: UInt32) -> Bool { segment.flags >> place & 1 == 1 }
    selector = segment.selector
    base = segment.base
    limit = segment.limit
    type = UInt8(segment.flags >> 8 & 15)
    isCodeOrData = bit(12)
    privilege = UInt8(segment.flags >> 13 & 3)
    isPresent = bit(15)
    available = bit(20)
    isLong = bit(21)
    is32Bit = bit(22)
    isPageGranular = bit(23)
    isUnusable = !isPresent
  }
}

extension GeneralRegisters {
  /// Takes the order of ``VCPUReply/general``.
  fileprivate init(_ values: [UInt64]) {
    self.init()
    (rax, rbx, rcx, rdx) = (values[0], values[1], values[2], values[3])
    (rsi, rdi, rbp, rsp) = (values[4], values[5], values[6], values[7])
    (r8, r9, r10, r11) = (values[8], values[9], values[10], values[11])
    (r12, r13, r14, r15) = (values[12], values[13], values[14], values[15])
    (rip, rflags) = (values[16], values[17])
  }
}
