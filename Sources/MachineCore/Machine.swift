// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
public import DeviceProtocol
internal import KVM
public import LinuxSystem
internal import PCI
internal import Synchronization

/// What the main thread has to do for others.
enum MachineEvent: Sendable {
  case reset(String)
  case end(code: UInt8, reason: String)
  case fault(FaultMessage)
  case ready(String)
}

/// The machine: guest memory, vCPUs, buses, and the links to its devices.
public final class Machine: Sendable {
  public let settings: CoreSettings
  let memory: GuestMemory
  let vm: VirtualMachine
  let vcpus: [VCPU]
  let links: [DeviceLink]
  public let clock: ClockWriter
  let board: Mutex<Board>
  let current: Mutex<BusSnapshot>
  let generation = Atomic<UInt32>(0)

  /// What the vCPU threads are to do: ``Mode``.
  let mode: Gate
  /// How many of them are parked.
  let parked: Gate
  /// How many of them wait for a device.
  let waiting = Atomic<UInt32>(0)
  let ending = Atomic<Bool>(false)
  let abandoning = Atomic<Bool>(false)

  private let events = Mutex<[MachineEvent]>([])
  /// Readable while there are events for the main thread.
  public let eventFile: Descriptor
  let pirq = Mutex<[UInt8]>([0xFF, 0xFF, 0xFF, 0xFF])
  let initialStates: [VCPUState]
  let initialChips: ChipState
  let progress = Mutex<Progress>(Progress())

  /// What the operator is told.
  struct Progress: Sendable {
    var state = "starting"
    var reason = ""
    var restarts: [String: UInt32] = [:]
    /// When the last triple faults were, on the host's monotonic clock.
    var tripleFaults: [UInt64] = []
  }

  enum Mode {
    static let park: UInt32 = 0
    static let run: UInt32 = 1
    static let end: UInt32 = 2
  }

  /// Puts the machine together, with its vCPUs parked.
  ///
  /// - Parameters:
  ///   - settings: the machine's shape.
  ///   - kvm: /dev/kvm.
  ///   - firmware: the firmware's file; its size is a multiple of 64 KiB.
  ///   - statePages: for each device, in order, its state page.
  /// - Throws: `KVMError`, `SystemError` or `ProtocolError`, whichever stands in the way.
  public init(
    _ settings: CoreSettings, kvm: Descriptor, firmware: Descriptor, statePages: [Descriptor]
  ) throws {
    self.settings = settings
    VCPU.prepareProcess()
    let system = try KVMSystem(descriptor: kvm)
    vm = try system.createVM()
    try vm.disableHypercallPatching()
    try vm.setTSSAddress(0xFEFF_D000)
    try vm.setIdentityMapAddress(0xFEFF_C000)
    try vm.createInterruptChips()
    try vm.createTimer()
    try vm.setRoutes(InterruptRoute.pc)

    memory = try GuestMemory(byteCount: settings.memoryByteCount)
    let firmwareByteCount = Int(try firmware.size())
    guard firmwareByteCount > 0, firmwareByteCount % 65536 == 0, firmwareByteCount <= 16 << 20
    else { throw ProtocolError("firmware of \(firmwareByteCount) bytes") }
    let romFile = try MemoryFile.make("firmware", byteCount: firmwareByteCount)
    let rom = try Mapping(romFile, byteCount: firmwareByteCount, .readWrite)
    rom.copy(try firmware.read(firmwareByteCount, at: 0), to: 0)

    let cpuid = try system.supportedCPUID()
    let count = UInt32(settings.cpus)
    var vcpus: [VCPU] = []
    for id in 0..<count {
      vcpus.append(try vm.createVCPU(id, cpuid: cpuid.guest(id: id, count: count)))
    }
    self.vcpus = vcpus
    initialStates = try vcpus.map { try $0.state() }
    initialChips = try vm.chipState()

    let clock = try ClockWriter()
    self.clock = clock
    guard statePages.count == settings.devices.count else {
      throw ProtocolError("\(statePages.count) state pages for \(settings.devices.count) devices")
    }
    var links: [DeviceLink] = []
    for (index, device) in settings.devices.enumerated() {
      guard let grants = DeviceGrants.role(device.role, exitPort: settings.exitPort) else {
        throw ProtocolError("there is no device of role \(device.role)")
      }
      links.append(
        try DeviceLink(
          index: index, settings: device, grants: grants, slots: Int(count), clock: clock,
          statePage: statePages[index]))
    }
    self.links = links
    let map = MemoryMap(ram: memory.layout, firmwareByteCount: UInt64(firmwareByteCount))
    var first = Board(
      map: map, slots: SlotTable(machine: vm, memory: memory, firmware: rom))
    current = Mutex(try first.rebuild())
    board = Mutex(first)
    mode = try Gate()
    parked = try Gate()
    eventFile = try EventFile.make()
  }

  /// Starts every thread of the machine; they wait until ``run()``.
  ///
  /// Called before the seccomp filter is loaded, which allows no new threads.
  public func startThreads() throws(SystemError) {
    // The first KVM_RUN of a machine makes the kernel add a thread of its own to the process,
    // which the sandbox's limit would forbid later; this one does not enter the guest.
    _ = try? vcpus.first?.completeAccess()
    for link in links {
      try Thread.start("\(link.role)") { [self] in link.serve(self) }
    }
    for (index, vcpu) in vcpus.enumerated() {
      try Thread.start("CPU \(index)/KVM") { [self] in VCPULoop(self, vcpu, index).run() }
    }
  }

  /// Gives the device of a role the channel of a new process.
  public func attach(_ role: String, _ channel: Channel) {
    links.first { $0.role == role }?.attach(channel)
  }

  // MARK: - Events

  var isEnding: Bool { ending.load(ordering: .relaxed) }
  /// The machine is being reset: nobody needs the answer to an access under way.
  var isAbandoning: Bool { abandoning.load(ordering: .acquiring) }

  /// Runs `body` in a vCPU's thread, which counts as held meanwhile.
  func whileWaiting<T>(_ body: () -> T) -> T {
    waiting.add(1, ordering: .sequentiallyConsistent)
    defer { waiting.subtract(1, ordering: .sequentiallyConsistent) }
    return body()
  }

  func post(_ event: MachineEvent) {
    events.withLock { events in
      // A device may ask again and again: one of a kind is enough.
      let isThere = events.contains {
        switch ($0, event) {
        case (.reset, .reset), (.end, .end): true
        default: false
        }
      }
      if !isThere { events.append(event) }
    }
    EventFile.signal(eventFile)
  }

  func takeEvents() -> [MachineEvent] {
    EventFile.drain(eventFile)
    return events.withLock { events in
      defer { events = [] }
      return events
    }
  }

  /// Notes a device's fault once for each of its processes, and tells the main thread.
  func fault(
    _ link: DeviceLink, _ process: UInt32, _ kind: FaultMessage.Kind, _ reason: String
  ) {
    guard !isEnding, let poison = link.noteFault(of: process) else { return }
    post(
      .fault(
        FaultMessage(
          role: link.role, kind: poison ? .poison : kind,
          reason: poison ? "failed again and again on the same request: \(reason)" : reason)))
  }

  func deviceIsReady(_ link: DeviceLink, isRestart: Bool) {
    if isRestart {
      progress.withLock { $0.restarts[link.role, default: 0] += 1 }
    }
    post(.ready(link.role))
  }

  // MARK: - The buses

  /// Changes the board and gives every vCPU the result.
  func change(_ body: (inout Board) throws(ProtocolError) -> Void) throws(ProtocolError) {
    let problem = board.withLock { board -> ProtocolError? in
      let before = board
      do throws(ProtocolError) {
        try body(&board)
      } catch {
        // What was done half is undone.
        board = before
        return error
      }
      do throws(KVMError) {
        let snapshot = try board.rebuild()
        current.withLock { $0 = snapshot }
        generation.store(snapshot.generation, ordering: .releasing)
      } catch {
        return ProtocolError("the memory map could not be changed: \(error)")
      }
      return nil
    }
    if let problem { throw problem }
  }

  /// The snapshot in force, when it is another than `old`.
  @inline(__always)
  func snapshot(_ old: inout BusSnapshot) {
    guard generation.load(ordering: .acquiring) != old.generation else { return }
    old = current.withLock { $0 }
  }

  func snapshot() -> BusSnapshot { current.withLock { $0 } }
}
