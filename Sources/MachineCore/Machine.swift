// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
public import DeviceProtocol
internal import KVM
public import LinuxSystem
internal import PCI
internal import Processor
internal import SoftCPU
internal import Synchronization

/// What the main thread has to do for others.
enum MachineEvent: Sendable {
  case reset(String)
  case end(code: UInt8, reason: String)
  case suspend
  case wake
  case fault(FaultMessage)
  case ready(String)
  /// A device cannot go on until the operator has seen to the host.
  case hold(String)
  case debugStop(cpu: Int, reason: String)
  case notice(NoticeMessage)
}

/// The machine: guest memory, vCPUs, buses, and the links to its devices.
public final class Machine: Sendable {
  public let settings: CoreSettings
  let memory: GuestMemory
  let accelerator: Accelerator
  /// The physical address space for software vCPUs, and the RAM in it.
  let physical: PhysicalMemory
  let ram: PhysicalMemory.Backing
  let links: [DeviceLink]
  public let clock: ClockWriter
  /// The checksum of the firmware, which is no part of a saved state.
  let firmwareSum: UInt64
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
  let progress = Mutex<Progress>(Progress())
  let debugger = Debugger()
  let trace = AccessTrace()
  let operatorPorts: OperatorPorts

  /// What the operator is told.
  struct Progress: Sendable {
    var state = "starting"
    var reason = ""
    /// Whether the guest has suspended the machine to RAM, also while an operator holds it.
    var isSuspended = false
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
  ///   - choice: what runs the vCPUs, as ``AcceleratorChoice/make(_:kvm:)`` found.
  ///   - firmware: the firmware's file; its size is a multiple of 64 KiB.
  ///   - statePages: for each device, in order, its state page.
  /// - Throws: `KVMError`, `SystemError` or `ProtocolError`, whichever stands in the way.
  public init(
    _ settings: CoreSettings, _ choice: AcceleratorChoice, firmware: Descriptor,
    statePages: [Descriptor]
  ) throws {
    self.settings = settings
    let count = UInt32(settings.cpus)
    accelerator = try Accelerator(choice, cpus: count, translates: settings.translates)
    memory = try GuestMemory(byteCount: settings.memoryByteCount)
    let firmwareByteCount = Int(try firmware.size())
    guard firmwareByteCount > 0, firmwareByteCount % 65536 == 0, firmwareByteCount <= 16 << 20
    else { throw ProtocolError("firmware of \(firmwareByteCount) bytes") }
    let romFile = try MemoryFile.make("firmware", byteCount: firmwareByteCount)
    let rom = try Mapping(romFile, byteCount: firmwareByteCount, .readWrite)
    let firmwareBytes = try firmware.read(firmwareByteCount, at: 0)
    rom.copy(firmwareBytes, to: 0)
    firmwareSum = Checksum.of(firmwareBytes)

    let clock = try ClockWriter()
    self.clock = clock
    guard statePages.count == settings.devices.count else {
      throw ProtocolError("\(statePages.count) state pages for \(settings.devices.count) devices")
    }
    var links: [DeviceLink] = []
    for (index, device) in settings.devices.enumerated() {
      let grants = DeviceGrants.role(
        device.role, exitPort: settings.exitPort, hasPanicPort: settings.onPanic != .none)
      guard let grants else {
        throw ProtocolError("there is no device of role \(device.role)")
      }
      links.append(
        try DeviceLink(
          index: index, settings: device, grants: grants,
          slots: min(Int(count) + 1, LaneLayout.mostSlots), clock: clock,
          statePage: statePages[index], trace: trace))
    }
    self.links = links
    let map = MemoryMap(ram: memory.layout, firmwareByteCount: UInt64(firmwareByteCount))
    physical = PhysicalMemory(hasSeveralCPUs: count > 1)
    ram = physical.add(memory.mapping)
    var first = Board(
      map: map,
      slots: SlotTable(
        machine: accelerator.vm, memory: memory, firmware: rom, physical: (physical, ram)))
    first.mapHasChanged = { [accelerator] in accelerator.mapHasChanged() }
    current = Mutex(try first.rebuild())
    board = Mutex(first)
    mode = try Gate()
    parked = try Gate()
    eventFile = try EventFile.make()
    operatorPorts = try OperatorPorts()
  }

  /// Starts every thread of the machine; they wait until ``run()``.
  ///
  /// Called before the seccomp filter is loaded, which allows no new threads.
  public func startThreads() throws(SystemError) {
    for link in links {
      try Thread.start("\(link.role)") { [self] in link.serve(self) }
    }
    if Int(settings.cpus) < LaneLayout.mostSlots {
      try Thread.start("operator") { [self] in operatorPorts.serve(self) }
    }
    try accelerator.startThreads(self)
  }

  /// Tells that somebody else than a vCPU has written to RAM: decoded code there is void.
  func wasWritten(_ address: UInt64, count: Int) {
    guard count > 0, let offset = memory.layout.offset(of: address, count: UInt64(count)) else {
      return
    }
    physical.wasWritten(ram, offset: Int(offset), count: count)
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

  /// The most notices that wait for the main thread; more are dropped.
  private static let mostNotices = 64

  func post(_ event: MachineEvent) {
    events.withLock { events in
      if case .notice = event {
        guard events.count < Self.mostNotices else { return }
        events.append(event)
        return
      }
      // A device may ask again and again: one of a kind is enough.
      let isThere = events.contains {
        switch ($0, event) {
        case (.reset, .reset), (.suspend, .suspend), (.wake, .wake), (.end, .end), (.hold, .hold),
          (.debugStop, .debugStop):
          true
        default: false
        }
      }
      if !isThere { events.append(event) }
    }
    EventFile.signal(eventFile)
  }

  /// What the main thread has still to do; nothing is taken.
  func waitingEvents() -> [MachineEvent] { events.withLock { $0 } }

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
        let publish = {
          self.current.withLock { $0 = snapshot }
          self.generation.store(snapshot.generation, ordering: .releasing)
        }
        guard let collected = accelerator.collected else {
          publish()
          return nil
        }
        collected.change(from: self.snapshot(), to: snapshot, publish: publish)
      } catch {
        // Some of the slots are changed and some are not: there is no going on from here.
        let reason = "the memory map could not be changed: \(error)"
        post(.end(code: 2, reason: reason))
        return ProtocolError(reason)
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
