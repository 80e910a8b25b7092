// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem
public import Processor
internal import Synchronization

/// One vCPU.
///
/// The thread that runs it calls everything here; other threads may only ``kick()`` it.
public final class VCPU: Sendable {
  /// The vCPU's number, which is its APIC id too.
  public let id: UInt32

  let descriptor: Descriptor
  let page: Mapping
  let stateMSRs: [UInt32]

  /// The state that the vCPU was made with: that of the processor after a reset.
  ///
  /// vCPU 0 is at the reset vector; the others wait for INIT and a start-up message.
  public let resetState: VCPUState

  /// The machine's ring, where KVM has one; every vCPU shows the same.
  public let coalescedRing: CoalescedRing?
  private let hasSyncRegisters: Bool

  /// The thread inside ``run()``, or zero.
  private let runner = Atomic<Int32>(0)
  /// Whether the registers in the shared page are those of the vCPU.
  private let isPageFresh = Atomic<Bool>(false)

  /// The signal that gets a thread out of KVM_RUN.
  public static let kickSignal: Int32 = 10  // SIGUSR1

  /// Installs the kick signal's handler, which does nothing; once for each process.
  public static func prepareProcess() { Signals.interruptOnly(kickSignal) }

  /// Lets kicks reach the calling thread; once in each thread that calls ``run()``.
  ///
  /// Threads inherit blocked signals: without this a kick may not end a run.
  public static func prepareThread() { Signals.unblock(kickSignal) }

  init(id: UInt32, system: KVMSystem, descriptor: Descriptor, cpuid: CPUIDTable)
    throws(KVMError)
  {
    self.id = id
    self.descriptor = descriptor
    page = try asking { () throws(SystemError) in
      try Mapping(descriptor, byteCount: system.sharedByteCount, .readWrite)
    }
    let ring = 4096 * system.value(of: .coalescedMMIO)
    coalescedRing =
      ring > 0 && ring + CoalescedRing.byteCount <= system.sharedByteCount
      ? CoalescedRing(page, at: ring) : nil
    hasSyncRegisters = system.value(of: .syncRegisters) & 7 == 7
    var table = cpuid.block
    try asking { () throws(SystemError) in
      _ = try descriptor.control("KVM_SET_CPUID2", KVMRequest.setCPUID, bytes: &table.bytes)
    }
    stateMSRs = Self.readable(try system.stateMSRs(), descriptor)
    resetState = try Self.state(descriptor, stateMSRs)
    if hasSyncRegisters { page.store(UInt64(7), at: RunPage.validRegisters) }
  }

  // MARK: - Running

  /// Runs the guest until something happens that this process has to deal with.
  ///
  /// The answer to a read (``setPortData(_:_:_:)``, ``setMemoryData(_:)``) is taken at the
  /// next call.
  public func run() throws(KVMError) -> Exit {
    // The order matters: with the runner known, a kick sends a signal; a kick before that has
    // set the byte that KVM looks at on entry.
    runner.store(Thread.id, ordering: .sequentiallyConsistent)
    defer { runner.store(0, ordering: .sequentiallyConsistent) }
    do {
      try descriptor.control("KVM_RUN", KVMRequest.run)
    } catch {
      // A vCPU that has just got its start-up message says EAGAIN.
      guard error.isInterrupted || error.isNotReady else { throw .refused(error) }
      isPageFresh.store(hasSyncRegisters, ordering: .relaxed)
      page.exchange8(0, at: RunPage.immediateExit)
      return .interrupted
    }
    isPageFresh.store(hasSyncRegisters, ordering: .relaxed)
    return exit
  }

  /// Gets the thread that runs the vCPU out of the guest, from any thread.
  ///
  /// Say what is wanted first, then kick: ``run()`` returns ``Exit/interrupted`` at least once
  /// after the kick, and may return other exits before it.
  public func kick() {
    guard page.exchange8(1, at: RunPage.immediateExit) == 0 else { return }
    let thread = runner.load(ordering: .sequentiallyConsistent)
    if thread != 0 { Thread.signal(thread, Self.kickSignal) }
  }

  /// Lets KVM finish the access of the last exit without running the guest on.
  ///
  /// After that the registers are complete, for a snapshot. An access in parts may give
  /// another exit, which is returned; `nil` when there is none left.
  public func completeAccess() throws(KVMError) -> Exit? {
    page.exchange8(1, at: RunPage.immediateExit)
    let exit = try run()
    return exit == .interrupted ? nil : exit
  }

  private var exit: Exit {
    let detail = RunPage.detail
    let reason = page.load(UInt32.self, at: RunPage.exitReason)
    switch reason {
    case 2:
      return .io(
        Exit.PortAccess(
          isWrite: page.load(UInt8.self, at: detail) != 0,
          width: page.load(UInt8.self, at: detail + 1),
          port: page.load(UInt16.self, at: detail + 2),
          count: page.load(UInt32.self, at: detail + 4),
          dataOffset: Int(page.load(UInt64.self, at: detail + 8))))
    case 4:
      return .debug(
        exception: page.load(UInt32.self, at: detail), pc: page.load(UInt64.self, at: detail + 8),
        status: page.load(UInt64.self, at: detail + 16))
    case 5: return .halt
    case 6: return memoryAccess
    case 7: return .interruptWindowOpen
    case 8: return .shutdown
    case 9: return .failEntry(reason: page.load(UInt64.self, at: detail))
    case 10: return .interrupted
    case 17: return .internalError(suberror: page.load(UInt32.self, at: detail))
    case 24: return .systemEvent(page.load(UInt32.self, at: detail))
    case 26: return .endOfInterrupt(vector: page.load(UInt8.self, at: detail))
    default: return .unknown(reason)
    }
  }

  private var memoryAccess: Exit {
    let detail = RunPage.detail
    let isWrite = page.load(UInt8.self, at: detail + 20) != 0
    let byteCount = UInt8(truncatingIfNeeded: min(8, page.load(UInt32.self, at: detail + 16)))
    let data = page.load(UInt64.self, at: detail + 8)
    let mask = byteCount >= 8 ? UInt64.max : (1 << (8 * UInt64(byteCount))) &- 1
    return .mmio(
      Exit.MemoryAccess(
        address: page.load(UInt64.self, at: detail), data: isWrite ? data & mask : 0,
        byteCount: byteCount, isWrite: isWrite))
  }

  // MARK: - The data of an exit

  /// Answers a memory read: the low bytes of `data` are what the guest gets.
  public func setMemoryData(_ data: UInt64) { page.store(data, at: RunPage.detail + 8) }

  /// Returns one item of a port access.
  ///
  /// - Precondition: `index` is below the access's count.
  public func portData(_ access: Exit.PortAccess, _ index: Int = 0) -> UInt32 {
    let at = access.dataOffset + index * Int(access.width)
    return switch access.width {
    case 1: UInt32(page.load(UInt8.self, at: at))
    case 2: UInt32(page.load(UInt16.self, at: at))
    default: page.load(UInt32.self, at: at)
    }
  }

  /// Answers one item of a port read.
  ///
  /// - Precondition: `index` is below the access's count.
  public func setPortData(_ access: Exit.PortAccess, _ index: Int = 0, _ value: UInt32) {
    let at = access.dataOffset + index * Int(access.width)
    switch access.width {
    case 1: page.store(UInt8(truncatingIfNeeded: value), at: at)
    case 2: page.store(UInt16(truncatingIfNeeded: value), at: at)
    default: page.store(value, at: at)
    }
  }

  /// Copies all items of a port write to `memory`.
  public func copyPortData(_ access: Exit.PortAccess, to memory: Mapping, at offset: Int) {
    memory.copy(from: page, at: access.dataOffset, count: access.byteCount, to: offset)
  }

  /// Answers all items of a port read from `memory`.
  public func setPortData(_ access: Exit.PortAccess, from memory: Mapping, at offset: Int) {
    page.copy(from: memory, at: offset, count: access.byteCount, to: access.dataOffset)
  }

  /// The bytes at RIP that KVM could not emulate, after an internal error that says so.
  public var failedInstruction: [UInt8] {
    let detail = RunPage.detail
    guard page.load(UInt32.self, at: RunPage.exitReason) == 17,
      page.load(UInt32.self, at: detail) == 1, page.load(UInt32.self, at: detail + 4) >= 3,
      page.load(UInt64.self, at: detail + 8) & 1 != 0
    else { return [] }
    let count = min(15, Int(page.load(UInt8.self, at: detail + 16)))
    return page.bytes(at: detail + 17, count: count)
  }

  /// Whether the shared page has the registers, so that reading them is free.
  var canReadPage: Bool { isPageFresh.load(ordering: .relaxed) }

  /// Notes that the registers were set behind the shared page's back.
  func pageIsStale() { isPageFresh.store(false, ordering: .relaxed) }
}
