// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import KVM
internal import LinuxSystem
internal import Monitor
internal import PCI
internal import Processor
internal import SoftCPU
internal import Synchronization

/// The thread of one vCPU: runs the guest and does what its exits ask for.
struct VCPULoop {
  private let machine: Machine
  private let accelerator: KVMAccelerator
  private let vcpu: VCPU
  private let index: Int
  private let bus: GuestBus
  /// The bus's generation when the last internal error was tried again.
  private var retried: UInt32 = 0

  /// Made when KVM fails on an instruction for the first time.
  private var handover: Handover?

  init(_ machine: Machine, _ accelerator: KVMAccelerator, _ vcpu: VCPU, _ index: Int) {
    self.machine = machine
    self.accelerator = accelerator
    self.vcpu = vcpu
    self.index = index
    bus = GuestBus(machine, index)
  }

  consuming func run() {
    VCPU.prepareThread()
    do throws(KVMError) {
      while true {
        let mode = machine.mode.value
        if mode != Machine.Mode.run {
          try park()
          if machine.mode.value == Machine.Mode.end { return }
          continue
        }
        if machine.debugger.isStopped(index) {
          idle()
          continue
        }
        let before = bus.bus.generation
        let exit = try vcpu.run()
        bus.refresh()
        bus.takeCollected()
        try handle(exit, generation: before)
      }
    } catch {
      machine.post(.end(code: 2, reason: "CPU \(index): \(error)"))
      idle()
    }
  }

  /// Finishes the access that is under way, so that the vCPU's registers are complete, and
  /// sleeps until the machine runs on.
  private mutating func park() throws(KVMError) {
    while let exit = try vcpu.completeAccess() {
      bus.refresh()
      bus.takeCollected()
      try handle(exit, generation: bus.bus.generation)
    }
    bus.refresh()
    bus.takeCollected()
    machine.parked.add(1)
    while machine.mode.value == Machine.Mode.park {
      machine.mode.wait(while: Machine.Mode.park)
    }
    machine.parked.add(UInt32.max)
  }

  /// Waits for the main thread to decide: the vCPU cannot go on by itself.
  private func idle() {
    while machine.mode.value == Machine.Mode.run { machine.mode.wait(while: Machine.Mode.run) }
  }

  // MARK: - Exits

  private mutating func handle(_ exit: Exit, generation: UInt32) throws(KVMError) {
    switch exit {
    case .io(let access): access.isWrite ? output(access) : input(access)
    case .mmio(let access): access.isWrite ? store(access) : load(access)
    case .halt, .interrupted, .interruptWindowOpen, .endOfInterrupt: break
    case .shutdown:
      machine.tripleFault(index, registers)
      idle()
    case .internalError(let suberror):
      // The memory slots changed under an instruction fetch, or are being changed: once that is
      // done, it works the second time.
      machine.board.withLock { _ in }
      bus.refresh()
      if generation != bus.bus.generation, retried != bus.bus.generation {
        retried = bus.bus.generation
        return
      }
      let bytes = vcpu.failedInstruction.map { byte in
        let text = String(byte, radix: 16)
        return text.count == 1 ? "0" + text : text
      }.joined(separator: " ")
      let reason =
        "KVM could not go on: internal error \(suberror)"
        + (bytes.isEmpty ? "" : " at an instruction with the bytes \(bytes)")
      try handOver(reason, isEmulation: suberror == 1 || suberror == 3)
    case .failEntry(let reason): die("the processor refused to enter the guest: \(reason)")
    case .systemEvent(let type):
      machine.post(.end(code: type == 1 ? 0 : 2, reason: "KVM system event \(type)"))
      idle()
    case .debug(_, let pc, let status): stop(pc, status)
    case .unknown(let reason): die("KVM exit \(reason), which nobody asked for")
    }
  }

  /// Lets the software CPU do what KVM cannot: emulate an instruction, or deliver an event.
  private mutating func handOver(_ reason: String, isEmulation: Bool) throws(KVMError) {
    guard isEmulation else {
      die(reason)
      return
    }
    if handover == nil {
      do throws(CPUModelError) {
        handover = try Handover(machine, accelerator.handovers, vcpu, bus)
      } catch {
        die("\(reason); \(error)")
        return
      }
    }
    switch try handover?.take(reason) {
    case nil: break
    case .done:
      // It was an instruction, though KVM did not count it.
      if machine.debugger.isStepping(index) { stop("step") }
    case .shutdown:
      machine.tripleFault(index, registers)
      idle()
    case .stuck(let problem): die("\(reason); \(problem)")
    }
  }

  // MARK: - Debugging

  /// Stops for the debugger; `status` says what has matched, as DR6 does.
  private func stop(_ pc: UInt64, _ status: UInt64) {
    let points = machine.debugger.points
    let hit = points.indices.first { $0 < HardwarePoint.most && status >> UInt64($0) & 1 == 1 }
    guard let hit else {
      stop(machine.debugger.isStepping(index) ? "step" : "breakpoint")
      return
    }
    switch points[hit].kind {
    case .execution: stop("breakpoint")
    case .write: stop("watch \(String(points[hit].address, radix: 16))")
    case .read, .access: stop("awatch \(String(points[hit].address, radix: 16))")
    }
  }

  private func stop(_ reason: String) {
    machine.debugger.stop(index)
    machine.post(.debugStop(cpu: index, reason: reason))
    idle()
  }

  private var registers: String { (try? vcpu.state().registerText) ?? "registers not readable" }

  private func die(_ reason: String) {
    machine.post(.end(code: 2, reason: "CPU \(index): \(reason)\n\(registers)"))
    idle()
  }

  // MARK: - Accesses

  private func input(_ access: Exit.PortAccess) {
    guard let width = AccessWidth(rawValue: access.width) else { return }
    if access.count > 1,
      let block = bus.readBlock(access.port, width, count: Int(access.count))
    {
      vcpu.setPortData(access, from: block.memory, at: block.at)
      return
    }
    for index in 0..<Int(access.count) {
      vcpu.setPortData(access, index, UInt32(truncatingIfNeeded: bus.read(access.port, width)))
    }
  }

  private func output(_ access: Exit.PortAccess) {
    guard let width = AccessWidth(rawValue: access.width) else { return }
    if access.count > 1,
      bus.writeBlock(
        access.port, width, count: Int(access.count),
        fill: { vcpu.copyPortData(access, to: $0, at: $1) })
    {
      return
    }
    for index in 0..<Int(access.count) {
      bus.write(UInt64(vcpu.portData(access, index)), access.port, width)
    }
  }

  private func load(_ access: Exit.MemoryAccess) {
    vcpu.setMemoryData(bus.load(access.address, byteCount: Int(access.byteCount)))
  }

  private func store(_ access: Exit.MemoryAccess) {
    bus.store(access.address, access.data, byteCount: Int(access.byteCount))
  }
}
