// SPDX-License-Identifier: Apache-2.0

internal import KVM
internal import LinuxSystem
internal import Processor
internal import Synchronization

/// Finds out by trying whether a host's KVM can run the kernels of operating systems.
///
/// Some, without hardware beneath them, run real mode and simple 64-bit code and fail on what
/// every kernel uses. A small guest in a virtual machine of its own uses that: breakpoints and
/// page faults with their way through the IDT, SSE, XSAVE, CMPXCHG16B, POPCNT where CPUID has
/// them, IRETQ to CPL 3, SYSCALL and SYSRET.
enum KVMProbe {
  /// What the guest does, by the number of its stage.
  private static let stages = [
    "entering 64-bit mode", "int3 and its delivery", "a page fault and its delivery",
    "SSE moves", "cmpxchg16b", "popcnt", "xsave and xrstor", "iretq to CPL 3",
    "syscall and sysret", "the second syscall",
  ]

  /// The longest that the guest may take, in nanoseconds.
  private static let patience: UInt64 = 2_000_000_000

  /// Runs the guest; returns `nil` when it passes, else what failed.
  static func run(_ device: Descriptor) -> String? {
    do {
      let guest = try ProbeGuest(device)
      let isDone = try Gate()
      // The thread has the vCPU; this one ends the run when it takes too long.
      let work = Work(guest: guest, isDone: isDone)
      try Thread.start("probe") { work.run() }
      let end = HostClock.monotonic() + patience
      while isDone.value == 0, HostClock.monotonic() < end {
        isDone.wait(while: 0, timeout: 50_000_000)
      }
      let isLate = isDone.value == 0
      // A vCPU that cannot even be stopped stays behind with its thread.
      let last = HostClock.monotonic() + 1_000_000_000
      while isDone.value == 0, HostClock.monotonic() < last {
        guest.vcpu.kick()
        isDone.wait(while: 0, timeout: 10_000_000)
      }
      let stage = Int(guest.stage)
      let name = stage < stages.count ? stages[stage] : "stage \(stage)"
      if isLate { return "\(name): no end within \(patience / 1_000_000) ms" }
      return work.verdict(name)
    } catch {
      return "\(error)"
    }
  }

  /// What the two threads share.
  private final class Work: Sendable {
    let guest: ProbeGuest
    let result = Mutex<Exit?>(nil)
    let failure = Mutex<KVMError?>(nil)
    let isDone: Gate

    init(guest: ProbeGuest, isDone: Gate) {
      self.guest = guest
      self.isDone = isDone
    }

    func run() {
      VCPU.prepareThread()
      do throws(KVMError) {
        let exit = try guest.vcpu.run()
        result.withLock { $0 = exit }
      } catch {
        failure.withLock { $0 = error }
      }
      isDone.value = 1
    }

    func verdict(_ stage: String) -> String? {
      if let error = failure.withLock({ $0 }) { return "\(stage): \(error)" }
      switch result.withLock({ $0 }) {
      case .io(let access) where access.isWrite && access.port == 0x80:
        return guest.vcpu.portData(access) & 0xFF == 0x42 ? nil : "\(stage): a wrong result"
      case .internalError(let suberror): return "\(stage): internal error \(suberror)"
      case .shutdown: return "\(stage): a triple fault"
      case .failEntry(let reason): return "\(stage): the processor refused (\(reason))"
      case let exit?: return "\(stage): \(exit)"
      case nil: return "\(stage): no result"
      }
    }
  }
}

/// The virtual machine of the probe: 64 KiB of RAM, one vCPU in 64-bit mode.
final class ProbeGuest: Sendable {
  private let machine: VirtualMachine
  private let ram: Mapping
  let vcpu: VCPU

  /// The number of the guest's stage.
  var stage: UInt8 { ram.load(UInt8.self, at: 0xD000) }

  init(_ device: Descriptor) throws {
    VCPU.prepareProcess()
    let system = try KVMSystem(descriptor: device)
    machine = try system.createVM()
    try machine.setTSSAddress(0xFEFF_D000)
    try machine.setIdentityMapAddress(0xFEFF_C000)
    ram = try Mapping(
      try MemoryFile.make("probe", byteCount: 0x10000), byteCount: 0x10000, .readWrite)
    try machine.setMemorySlot(0, guestPhysical: 0, memory: ram, offset: 0, byteCount: 0x10000)
    let table = try system.supportedCPUID().guest(id: 0, count: 1)
    vcpu = try machine.createVCPU(0, cpuid: table)
    ram.copy(ProbeCode.bytes, to: Int(ProbeCode.base))
    fillTables()
    let features = table.entry(1)?.ecx ?? 0
    let hasXSave = features & 1 << 26 != 0
    try enter(hasXSave: hasXSave)
    var registers = GeneralRegisters()
    registers.rip = ProbeCode.base
    registers.rsp = 0x9000
    registers.rdi =
      UInt64(features >> 13 & 1) | UInt64(features >> 23 & 1) << 1 | (hasXSave ? 4 : 0)
    try vcpu.setRegisters(registers)
    // STAR: SYSCALL loads CS 08h and SS 10h, SYSRET CS 23h and SS 1Bh; FMASK clears nothing.
    try vcpu.setMSR(0xC000_0081, 0x10 << 48 | 0x08 << 32)
    try vcpu.setMSR(0xC000_0082, ProbeCode.kernel)
    try vcpu.setMSR(0xC000_0084, 0)
  }

  /// Page tables at 2000h to 5FFFh, GDT at 6000h, TSS at 6800h, IDT at 7000h.
  private func fillTables() {
    ram.store(UInt64(0x3007), at: 0x2000)
    ram.store(UInt64(0x4007), at: 0x3000)
    ram.store(UInt64(0x5007), at: 0x4000)
    // Everything is the user's; E000h is not there, until the page fault's handler maps it.
    for page in UInt64(0)..<16 where page != 14 {
      ram.store(page << 12 | 7, at: 0x5000 + 8 * Int(page))
    }
    ram.store(UInt64(0x00AF_9B00_0000_FFFF), at: 0x6008)
    ram.store(UInt64(0x00CF_9300_0000_FFFF), at: 0x6010)
    ram.store(UInt64(0x00CF_F300_0000_FFFF), at: 0x6018)
    ram.store(UInt64(0x00AF_FB00_0000_FFFF), at: 0x6020)
    ram.store(UInt64(0x9000), at: 0x6804)
    for vector in 0..<256 {
      let handler =
        switch vector {
        case 3: ProbeCode.breakpoint
        case 14: ProbeCode.pageFault
        default: ProbeCode.failure
        }
      ram.store(handler & 0xFFFF | 0x08 << 16 | 0x8E00 << 32, at: 0x7000 + 16 * vector)
    }
  }

  private func enter(hasXSave: Bool) throws(KVMError) {
    var system = try vcpu.systemRegisters()
    var code = Segment()
    code.limit = 0xFFFF_FFFF
    code.selector = 0x08
    code.type = 0xB
    code.isPresent = true
    code.isCodeOrData = true
    code.isLong = true
    code.isPageGranular = true
    system.cs = code
    var data = code
    data.selector = 0x10
    data.type = 3
    data.isLong = false
    data.is32Bit = true
    system.ds = data
    system.es = data
    system.fs = data
    system.gs = data
    system.ss = data
    var task = Segment()
    task.base = 0x6800
    task.limit = 0x67
    task.selector = 0x28
    task.type = 0xB
    task.isPresent = true
    system.tr = task
    system.gdt.base = 0x6000
    system.gdt.limit = 0x27
    system.idt.base = 0x7000
    system.idt.limit = 0xFFF
    system.cr3 = 0x2000
    // PAE, OSFXSR, OSXMMEXCPT, OSXSAVE.
    system.cr4 = 1 << 5 | 1 << 9 | 1 << 10 | (hasXSave ? 1 << 18 : 0)
    // SCE, LME, LMA; PE, MP, ET, NE, WP, PG.
    system.efer = 1 | 1 << 8 | 1 << 10
    system.cr0 = 1 | 2 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31
    try vcpu.setSystemRegisters(system)
  }
}
