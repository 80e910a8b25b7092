// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem
internal import Monitor
internal import Processor
internal import SoftCPU
internal import Synchronization

/// The thread of one software vCPU: executes the guest, sleeps, parks.
struct SoftLoop: ~Copyable {
  private let machine: Machine
  private let accelerator: SoftAccelerator
  private let index: Int
  private let vcpu: SoftVCPU
  private let bus: SoftVCPUBus
  private var cpu: SoftCPU
  /// After an INIT, or as an application processor after a reset.
  private var waitsForStartUp: Bool
  private var resetCount: UInt32 = 0

  init(_ machine: Machine, _ accelerator: SoftAccelerator, _ index: Int) {
    self.machine = machine
    self.accelerator = accelerator
    self.index = index
    vcpu = accelerator.vcpus[index]
    bus = SoftVCPUBus(machine, accelerator, index)
    cpu = SoftCPU(
      cpuid: accelerator.cpuid(index), memory: machine.physical, bus: bus,
      attention: vcpu.attention, codeMemory: accelerator.codeMemory(index))
    waitsForStartUp = index != 0
  }

  mutating func run() {
    while true {
      // Cleared first: what is asked for after the looks below sets it again.
      vcpu.attention.clear(Attention.leave)
      let mode = machine.mode.value
      if mode != Machine.Mode.run {
        if mode == Machine.Mode.end { return }
        park()
        continue
      }
      obey()
      if waitsForStartUp {
        vcpu.sleep { $0 & Attention.leave != 0 }
        continue
      }
      if machine.debugger.isStopped(index) {
        vcpu.sleep { $0 & Attention.leave != 0 }
        continue
      }
      vcpu.enterGuest()
      let exit = machine.debugger.isActive ? debug() : cpu.run()
      vcpu.leaveGuest()
      switch exit {
      case .halted: sleep()
      case .attention, .debug: break
      case .shutdown:
        machine.tripleFault(index, cpu.state.registerText)
        idle()
      }
    }
  }

  /// HLT: sleeps until there is something that ends it.
  private mutating func sleep() {
    let isInterruptible = cpu.isInterruptible
    let isNMIMasked = cpu.isNMIMasked
    vcpu.sleep { pending in
      var ends = ~(Attention.interrupt | Attention.nmi)
      if isInterruptible { ends |= Attention.interrupt }
      if !isNMIMasked { ends |= Attention.nmi }
      return pending & ends != 0
    }
  }

  private mutating func park() {
    var state = cpu.state
    if waitsForStartUp { state.mode = .initReceived }
    state.msrs += bus.clockRegisters
    vcpu.parkedState.withLock { $0 = state }
    machine.parked.add(1)
    while machine.mode.value == Machine.Mode.park {
      machine.mode.wait(while: Machine.Mode.park)
    }
    if let state = vcpu.changedState.withLock({ state -> VCPUState? in
      defer { state = nil }
      return state
    }) {
      cpu.state = state
      waitsForStartUp = state.mode == .initReceived
      bus.take(state.msrs)
    }
    machine.parked.add(UInt32.max)
  }

  /// Executes instruction by instruction, until one that the debugger wants to stop at.
  private mutating func debug() -> SoftExit {
    var watch = machine.debugger.watch(index, machine.memory)
    cpu.watch(
      watch.accesses.map {
        DataWatch(
          address: $0.address, byteCount: Int($0.byteCount), seesReads: true,
          seesWrites: $0.kind == .access)
      })
    defer { cpu.watch([]) }
    while vcpu.attention.pending & Attention.leave == 0 {
      if !watch.isStep, watch.hasPoint(at: cpu.programCounter) {
        stop("breakpoint")
        return .debug
      }
      if let exit = cpu.step(deliversAlone: true) {
        // A step over HLT is one, and the processor sleeps when it goes on.
        if watch.isStep { stop("step") }
        return exit
      }
      if let address = watch.change(machine.memory) {
        stop("watch \(String(address, radix: 16))")
        return .debug
      }
      if let hit = cpu.takeWatchHit() {
        let point = watch.accesses[hit]
        stop("\(point.kind == .read ? "rwatch" : "awatch") \(String(point.address, radix: 16))")
        return .debug
      }
      if watch.isStep {
        stop("step")
        return .debug
      }
    }
    return .attention
  }

  private func stop(_ reason: String) {
    machine.debugger.stop(index)
    machine.post(.debugStop(cpu: index, reason: reason))
  }

  /// Waits for the main thread to decide: the vCPU cannot go on by itself.
  private func idle() {
    while machine.mode.value == Machine.Mode.run { machine.mode.wait(while: Machine.Mode.run) }
  }

  /// Does what a reset, INIT and start-up messages ask for.
  private mutating func obey() {
    let count = vcpu.resetCount
    if count != resetCount {
      resetCount = count
      cpu.reset()
      bus.reset()
      vcpu.attention.clear(Attention.interrupt | Attention.nmi | Attention.smi)
      waitsForStartUp = index != 0
    }
    let start = vcpu.takeStart()
    if start.isInit {
      cpu.initialize()
      // The boot processor starts at the reset vector again (SDM volume 3, 8.4.2).
      waitsForStartUp = index != 0
    }
    if let vector = start.vector, waitsForStartUp {
      cpu.startUp(vector: vector)
      waitsForStartUp = false
    }
  }
}
