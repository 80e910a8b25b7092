// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import Synchronization

/// One device as the core sees it: its lane, its channel, and what it was granted.
///
/// The lane outlives the device's process: a vCPU that waits for an answer goes on waiting
/// while a successor takes over.
final class DeviceLink: Sendable {
  enum Status: UInt32, Sendable {
    case starting = 0
    case up = 1
    case gone = 2
  }

  let role: String
  let index: Int
  let settings: CoreSettings.Device
  let grants: DeviceGrants
  let lane: CoreLane
  let clock: ClockWriter
  let statePage: Descriptor

  /// Posted writes put into the ring, ever; changed under ``posting`` only.
  let head = Atomic<UInt32>(0)
  let posting = Mutex<Void>(())
  /// Counts the processes that have become ready.
  let epoch = Atomic<UInt32>(0)
  private let statusWord = Atomic<UInt32>(0)

  let liveCount = Atomic<UInt64>(0)
  let postedCount = Atomic<UInt64>(0)
  let mirroredCount = Atomic<UInt64>(0)
  /// How long live accesses take.
  let meter: AccessMeter
  /// Where accesses are noted while the operator wants them.
  let trace: AccessTrace

  /// What changes as processes come and go, and as the guest programs the device.
  struct State: Sendable {
    var channel: Channel?
    var claims: Claims?
    var bounce: (file: Descriptor, mapping: Mapping)?
    var backings: [(claim: BackingClaim, file: Descriptor, mapping: Mapping)] = []
    var lines: [(event: Descriptor, ended: Descriptor?)] = []
    /// The open windows by their numbers.
    var windows: [UInt16: DMAWindow] = [:]
    /// What the guest last wrote into the registers of each descriptor.
    var descriptors: [UInt16: [UInt8]] = [:]
    var nextSequence: UInt32 = 1
    var waiters: [UInt32: Waiter] = [:]
    /// Counts the processes that were attached.
    var process: UInt32 = 0
    /// Whether the process has said that it is ready.
    var wasReady = false
    /// Whether a fault of the running process was reported already.
    var isFaultReported = false
    /// What earlier processes failed on, and how often in a row.
    var record = FaultRecord()
    /// The machine was reset while there was no process to tell.
    var isResetDue = false
    /// Whether the last reset was one to wake.
    var isWaking = false
  }

  /// What a device's processes failed on, one after the other.
  struct FaultRecord: Sendable {
    /// For each slot the request at the last fault, and how many faults in a row had it.
    var requests: [Int: (sequence: UInt32, count: Int)] = [:]
    /// Faults in a row of processes that never became ready.
    var starts = 0
  }

  /// A reply that a thread waits for.
  final class Waiter: Sendable {
    let reply = Mutex<Packet?>(nil)
    let gate: Gate
    /// Signalled at the end, for a thread that does not sleep on the gate.
    private let signal: Descriptor?

    init(signal: Descriptor?) throws(SystemError) {
      gate = try Gate()
      self.signal = signal
    }

    func end() {
      gate.value = 1
      if let signal { EventFile.signal(signal) }
    }
  }

  /// A request to the device that is under way.
  struct Ask: Sendable {
    fileprivate let link: DeviceLink
    fileprivate let sequence: UInt32
    fileprivate let waiter: Waiter

    /// Whether the reply is there, or none will come.
    var isOver: Bool { waiter.gate.value != 0 }

    /// Waits until `end`, nanoseconds on the host's clock; `nil` when no reply has come.
    func finish(by end: UInt64) -> Packet? {
      while !isOver {
        let now = HostClock.monotonic()
        guard now < end else { break }
        waiter.gate.wait(while: 0, timeout: end - now)
      }
      link.state.withLock { $0.waiters[sequence] = nil }
      return waiter.reply.withLock { $0 }
    }
  }

  let state = Mutex<State>(State())
  /// Readable when there is something new for the service thread: a channel, or a cut.
  let wake: Descriptor
  /// For each slot the sequence of the request under way, or 0; no device sees it.
  let flight: Mapping
  /// `State.isResetDue`, for vCPUs: they keep their requests until it is done.
  let isResetDue = Atomic<Bool>(false)

  init(
    index: Int, settings: CoreSettings.Device, grants: DeviceGrants, slots: Int,
    clock: ClockWriter, statePage: Descriptor, trace: AccessTrace
  ) throws(SystemError) {
    role = settings.role
    self.index = index
    self.settings = settings
    self.grants = grants
    self.clock = clock
    self.statePage = statePage
    self.trace = trace
    lane = try CoreLane(name: settings.role, slots: slots)
    meter = try AccessMeter(slots: slots)
    wake = try EventFile.make()
    flight = try Mapping(
      try MemoryFile.make("flight", byteCount: 4 * slots), byteCount: 4 * slots, .readWrite)
  }

  var status: Status {
    get { Status(rawValue: statusWord.load(ordering: .acquiring)) ?? .gone }
    set { statusWord.store(newValue.rawValue, ordering: .releasing) }
  }

  // MARK: - Faults

  /// How often a device may fail on one request, or while starting, before it is given up.
  private static let mostSameFaults = 3

  /// Notes that a process is at fault and cuts it off.
  ///
  /// Returns whether it is poison; `nil` when the process was reported before, or is another.
  func noteFault(of process: UInt32) -> Bool? {
    let poison = state.withLock { state -> Bool? in
      guard state.process == process, !state.isFaultReported else { return nil }
      state.isFaultReported = true
      status = .gone
      state.record.starts = state.wasReady ? 0 : state.record.starts + 1
      for slot in 0..<lane.slotCount {
        let sequence = flight.acquire32(at: 4 * slot)
        let before = state.record.requests[slot]
        state.record.requests[slot] =
          sequence == 0
          ? nil : (sequence, before?.sequence == sequence ? (before?.count ?? 0) + 1 : 1)
      }
      return state.record.starts >= Self.mostSameFaults
        || state.record.requests.values.contains { $0.count >= Self.mostSameFaults }
    }
    if poison != nil { EventFile.signal(wake) }
    return poison
  }

  // MARK: - Requests to the device, on any other thread

  /// Sends a request; `nil` when the device is not up or takes none.
  ///
  /// `signal` is an event that is signalled when the reply is there, or will not come.
  func begin<M: WireCodable>(
    _ request: Request, _ message: M, _ descriptors: [Descriptor] = [],
    signal: Descriptor? = nil
  ) -> Ask? {
    guard let waiter = try? Waiter(signal: signal) else { return nil }
    let sent = state.withLock { state -> UInt32? in
      guard status == .up, let channel = state.channel else { return nil }
      let sequence = state.nextSequence
      state.nextSequence &+= 1
      state.waiters[sequence] = waiter
      do {
        try channel.send(
          request.rawValue, sequence: sequence, payload: message.wireBytes, descriptors,
          wait: false)
      } catch {
        state.waiters[sequence] = nil
        return nil
      }
      return sequence
    }
    return sent.map { Ask(link: self, sequence: $0, waiter: waiter) }
  }

  /// Hands a reply to the thread that waits for it; one that nobody waits for is dropped.
  func deliver(_ packet: Packet) {
    guard let waiter = state.withLock({ $0.waiters[packet.header.sequence] }) else { return }
    waiter.reply.withLock { $0 = packet }
    waiter.end()
  }

  /// Ends all waiting for replies: the process is gone.
  func dropWaiters() {
    let waiters = state.withLock { state in
      defer { state.waiters = [:] }
      return Array(state.waiters.values)
    }
    for waiter in waiters { waiter.end() }
  }
}
