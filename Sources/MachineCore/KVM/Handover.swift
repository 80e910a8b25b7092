// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import KVM
internal import LinuxSystem
internal import Processor
internal import SoftCPU
internal import Synchronization

/// What the software CPU has done for KVM in this machine.
final class Handovers: Sendable {
  private let count = Atomic<UInt64>(0)
  private let isLogged = Atomic<Bool>(false)
  private let attentions = Mutex<[Attention]>([])

  /// How many instructions it has executed.
  var value: UInt64 { count.load(ordering: .relaxed) }

  func add(_ number: Int) { count.add(UInt64(number), ordering: .relaxed) }

  /// Says once for each machine that this happens at all.
  func log(_ text: @autoclosure () -> String) {
    guard !isLogged.exchange(true, ordering: .relaxed) else { return }
    CoreLog.line(text())
  }

  func add(_ attention: Attention) { attentions.withLock { $0.append(attention) } }

  /// No software CPU executes anything while it waits here: the next step looks.
  func mapHasChanged() {
    attentions.withLock { for attention in $0 { attention.raise(Attention.mapChanged) } }
  }
}

/// Executes what KVM cannot, for one vCPU and in its thread.
final class Handover {
  /// What became of an attempt.
  enum Outcome {
    /// The vCPU is KVM's again and can go on.
    case done
    case shutdown
    /// The software CPU cannot help either.
    case stuck(String)
  }

  /// The most instructions before KVM gets its turn again.
  private static let most = 256

  private let handovers: Handovers
  private let vcpu: VCPU
  private let bus: HandoverBus
  private let attention = Attention()
  private var cpu: SoftCPU
  /// The kinds of instruction that KVM has failed on.
  private var failing: Set<UInt32> = []

  /// - Throws: `CPUModelError` where this host's processor cannot support the software CPU.
  init(_ machine: Machine, _ handovers: Handovers, _ vcpu: VCPU, _ guest: GuestBus)
    throws(CPUModelError)
  {
    self.handovers = handovers
    self.vcpu = vcpu
    bus = HandoverBus(guest)
    handovers.add(attention)
    // Whether the guest may use an instruction was KVM's to decide, and it has begun with it.
    cpu = SoftCPU(
      cpuid: try CPUIDTable.soft(.host, id: 0, count: 1),
      memory: machine.physical, bus: bus, attention: attention)
  }

  /// Executes at least the instruction that KVM failed on.
  func take(_ reason: String) throws(KVMError) -> Outcome {
    let before = try vcpu.state()
    bus.begin(before)
    attention.raise(Attention.mapChanged)
    cpu.state = before
    if let kind = cpu.nextInstructionKind() { failing.insert(kind) }
    handovers.log("CPU \(vcpu.id): \(reason); the software CPU executes it")
    var exit: SoftExit?
    var count = 0
    repeat {
      exit = cpu.step()
      count += 1
      guard exit == nil, count < Self.most, bus.unreachable == nil,
        let next = cpu.nextInstructionKind(), failing.contains(next)
      else { break }
    } while true
    if let place = bus.unreachable {
      return .stuck("the software CPU cannot reach \(place), which the kernel has")
    }
    let after = merge(cpu.state, into: before)
    guard exit != nil || after != before else {
      return .stuck("the software CPU did not get on either")
    }
    handovers.add(count)
    try vcpu.change(from: before, to: after)
    return exit == .shutdown ? .shutdown : .done
  }

  /// Puts what the software CPU knows of into the kernel's state.
  private func merge(_ new: VCPUState, into old: VCPUState) -> VCPUState {
    var state = old
    state.registers = new.registers
    let (apicBase, bitmap) = (old.system.apicBase, [UInt64](repeating: 0, count: 4))
    state.system = new.system
    state.system.apicBase = apicBase
    state.system.interruptBitmap = bitmap
    state.debug = new.debug
    if new.mode == .halted { state.mode = .halted }
    for index in state.msrs.indices {
      if let msr = new.msrs.first(where: { $0.index == state.msrs[index].index }) {
        state.msrs[index] = msr
      }
    }
    if !old.xcrs.isEmpty { state.xcrs = new.xcrs }
    state.xsave.replaceSubrange(0..<28, with: new.xsave[0..<28])
    state.xsave.replaceSubrange(32..<416, with: new.xsave[32..<416])
    let features = new.xcrs.first { $0.number == 0 }?.value ?? 0
    // Without XSAVE for the guest, too, the kernel takes the parts whose bits are set.
    if state.xsave != old.xsave { state.xsave[512] |= 3 }
    if features & 4 != 0, new.xsave[576..<832] != old.xsave[576..<832] {
      state.xsave.replaceSubrange(576..<832, with: new.xsave[576..<832])
      state.xsave[512] |= 4
    }
    state.events.exceptionIsInjected = false
    state.events.exceptionIsPending = false
    state.events.interruptIsInjected = false
    state.events.nmiIsInjected = false
    state.events.interruptShadow = new.events.interruptShadow
    // Not pending NMIs and start-up messages, which may have come meanwhile.
    state.events.validity &= ~3
    state.events.nmiIsMasked = new.events.nmiIsMasked
    return state
  }
}

/// What an instruction that KVM failed on can reach: the buses, and not what is in the kernel.
final class HandoverBus: SoftBus {
  private let guest: GuestBus
  private var apicBase: UInt64 = 0
  private var timeOffset: UInt64 = 0
  var taskPriority: UInt8 = 0
  /// What of the kernel's the instruction has touched.
  private(set) var unreachable: String?

  init(_ guest: GuestBus) { self.guest = guest }

  /// Takes what it needs of the vCPU's state.
  func begin(_ state: VCPUState) {
    apicBase = state.system.apicBase
    let count = state.msrs.first { $0.index == 0x10 }?.value
    timeOffset = count.map { $0 &- HostTimeStamp.now } ?? 0
    unreachable = nil
  }

  private static func isInKernel(_ port: UInt16) -> Bool {
    switch port {
    case 0x20, 0x21, 0xA0, 0xA1, 0x40...0x43, 0x61, 0x4D0, 0x4D1: true
    default: false
    }
  }

  private func isInKernel(_ address: UInt64) -> Bool {
    address & ~0xFFF == 0xFEC0_0000 || address & ~0xFFF == apicBase & 0xFF_FFFF_F000
  }

  func readPort(_ port: UInt16, byteCount: Int) -> UInt32 {
    guard !Self.isInKernel(port) else {
      unreachable = "port \(hex(UInt64(port)))"
      return .max
    }
    guard let width = AccessWidth(rawValue: UInt8(byteCount)) else { return .max }
    return UInt32(truncatingIfNeeded: guest.read(port, width))
  }

  func writePort(_ port: UInt16, _ value: UInt32, byteCount: Int) {
    guard !Self.isInKernel(port) else {
      unreachable = "port \(hex(UInt64(port)))"
      return
    }
    guard let width = AccessWidth(rawValue: UInt8(byteCount)) else { return }
    guest.write(UInt64(value), port, width)
  }

  func readPort(_ port: UInt16, byteCount: Int, count: Int, into items: inout [UInt8]) -> Int {
    let value = readPort(port, byteCount: byteCount)
    items = (0..<byteCount).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    return 1
  }

  func writePort(_ port: UInt16, byteCount: Int, items: [UInt8]) {
    for start in stride(from: 0, to: items.count, by: byteCount) {
      let value = (0..<byteCount).reduce(UInt32(0)) {
        $0 | UInt32(items[start + $1]) << UInt32(8 * $1)
      }
      writePort(port, value, byteCount: byteCount)
    }
  }

  func readMemory(_ address: UInt64, byteCount: Int) -> UInt64 {
    guard !isInKernel(address) else {
      unreachable = "address \(hex(address))"
      return .max
    }
    return guest.load(address, byteCount: byteCount)
  }

  func writeMemory(_ address: UInt64, _ value: UInt64, byteCount: Int) {
    guard !isInKernel(address) else {
      unreachable = "address \(hex(address))"
      return
    }
    guest.store(address, value, byteCount: byteCount)
  }

  func acknowledgeInterrupt() -> UInt8? { nil }
  func readInterruptMSR(_ index: UInt32) -> UInt64? { index == 0x1B ? apicBase : nil }
  func writeInterruptMSR(_ index: UInt32, _ value: UInt64) -> Bool { false }
  func timeStamp() -> UInt64 { HostTimeStamp.now &+ timeOffset }
  func writeClockMSR(_ index: UInt32, _ value: UInt64) -> Bool { false }
  func readClockMSR(_ index: UInt32) -> UInt64? { nil }
}
