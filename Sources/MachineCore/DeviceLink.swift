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
    case absent = 3
  }

  let role: String
  let index: Int
  let settings: CoreSettings.Device
  let grants: DeviceGrants
  let lane: CoreLane
  let clock: ClockWriter
  let statePage: Descriptor

  /// Posted writes put into the ring, ever; changed under ``posting`` only.
  private let head = Atomic<UInt32>(0)
  private let posting = Mutex<Void>(())
  /// Counts the processes that have become ready.
  let epoch = Atomic<UInt32>(0)
  private let statusWord = Atomic<UInt32>(0)

  let liveCount = Atomic<UInt64>(0)
  let postedCount = Atomic<UInt64>(0)
  let mirroredCount = Atomic<UInt64>(0)

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
    init() throws(SystemError) { gate = try Gate() }
  }

  let state = Mutex<State>(State())
  /// Readable when there is something new for the service thread: a channel, or a cut.
  let wake: Descriptor
  /// For each slot the sequence of the request under way, or 0; no device sees it.
  private let flight: Mapping
  /// `State.isResetDue`, for vCPUs: they keep their requests until it is done.
  let isResetDue = Atomic<Bool>(false)

  init(
    index: Int, settings: CoreSettings.Device, grants: DeviceGrants, slots: Int,
    clock: ClockWriter, statePage: Descriptor
  ) throws(SystemError) {
    role = settings.role
    self.index = index
    self.settings = settings
    self.grants = grants
    self.clock = clock
    self.statePage = statePage
    lane = try CoreLane(name: settings.role, slots: slots)
    wake = try EventFile.make()
    flight = try Mapping(
      try MemoryFile.make("flight", byteCount: 4 * slots), byteCount: 4 * slots, .readWrite)
  }

  var status: Status {
    get { Status(rawValue: statusWord.load(ordering: .acquiring)) ?? .absent }
    set { statusWord.store(newValue.rawValue, ordering: .releasing) }
  }

  // MARK: - Register accesses, on a vCPU's thread

  /// Answers a read of one register.
  func read(_ region: RegionTarget, _ offset: UInt64, _ width: AccessWidth, _ cpu: inout CPUContext)
    -> UInt64
  {
    for register in region.registers where register.read != .live {
      let start = UInt64(register.offset)
      guard offset >= start, offset + UInt64(width.rawValue) <= start + UInt64(register.byteCount)
      else { continue }
      let shift = 8 * (offset - start)
      if register.read == .clocked {
        let ticks = clock.now().ticks(frequency: register.frequency)
        let count = ticks & (1 << UInt64(register.bits) &- 1)
        mirroredCount.add(1, ordering: .relaxed)
        return count >> shift & width.mask
      }
      let posted = head.load(ordering: .acquiring)
      guard let value = lane.mirrored(Int(register.entry), head: posted) else { break }
      mirroredCount.add(1, ordering: .relaxed)
      return UInt64(value) >> shift & width.mask
    }
    let access = LaneAccess(
      .read, width: width.rawValue, region: region.region, offset: offset)
    guard let reply = live(access, &cpu) else { return width.floating }
    return reply.value & width.mask
  }

  /// Does a write to one register.
  func write(
    _ value: UInt64, _ region: RegionTarget, _ offset: UInt64, _ width: AccessWidth,
    _ cpu: inout CPUContext, content: (bytes: [UInt8], window: UInt16)? = nil
  ) {
    var access = LaneAccess(
      .write, width: width.rawValue, region: region.region, offset: offset,
      value: value & width.mask)
    if let content {
      access.descriptorBytes = UInt32(content.bytes.count)
      access.window = UInt32(content.window)
      lane.blockMemory.copy(content.bytes, to: lane.blockOffset(cpu.slot))
    } else if region.isPosted(offset, width), post(access) {
      return
    }
    _ = live(access, &cpu)
  }

  private func post(_ access: LaneAccess) -> Bool {
    guard status != .absent else { return true }
    guard !isResetDue.load(ordering: .acquiring) else { return false }
    let posted = posting.withLock { _ in
      let number = head.load(ordering: .relaxed)
      guard lane.post(access, head: number) else { return false }
      head.store(number &+ 1, ordering: .releasing)
      return true
    }
    if posted { postedCount.add(1, ordering: .relaxed) }
    return posted
  }

  /// Puts a request into the vCPU's slot and waits for the answer.
  ///
  /// Returns `nil` when there is nobody to answer: the device is absent, or the machine ends.
  func live(_ access: LaneAccess, _ cpu: inout CPUContext) -> (value: UInt64, items: UInt32)? {
    guard status != .absent, !cpu.machine.isAbandoning else { return nil }
    while isResetDue.load(ordering: .acquiring) {
      // The guest has begun anew and must not meet the state of before.
      guard !cpu.machine.isEnding, !cpu.machine.isAbandoning, status != .absent else { return nil }
      cpu.machine.whileWaiting { HostClock.sleep(1_000_000) }
    }
    liveCount.add(1, ordering: .relaxed)
    let sequence = cpu.nextSequence(index)
    flight.release32(sequence, at: 4 * cpu.slot)
    defer { flight.release32(0, at: 4 * cpu.slot) }
    lane.submit(access, slot: cpu.slot, sequence: sequence)
    if cpu.mayBeSpun(index) {
      let end = HostClock.monotonic() + CPUContext.spinWindow
      repeat {
        for _ in 0..<64 {
          if lane.isAnswered(cpu.slot) {
            cpu.spun(index, hit: true)
            return lane.take(cpu.slot)
          }
          Thread.relax()
        }
      } while HostClock.monotonic() < end
      cpu.spun(index, hit: false)
    }
    return cpu.machine.whileWaiting { sleep(access, sequence, cpu) }
  }

  private func sleep(_ access: LaneAccess, _ sequence: UInt32, _ cpu: CPUContext)
    -> (value: UInt64, items: UInt32)?
  {
    let slot = cpu.slot
    var seen = epoch.load(ordering: .acquiring)
    // On the machine's clock: while it stands still, no deadline passes.
    var start = clock.now().nanoseconds
    var known = state.withLock { status == .up ? $0.process : nil }
    while !lane.isAnswered(slot) {
      guard !cpu.machine.isEnding, !cpu.machine.isAbandoning, status != .absent else {
        lane.abandon(slot)
        return nil
      }
      lane.sleep(slot, timeout: 10_000_000)
      let process = state.withLock { status == .up ? $0.process : nil }
      let now = epoch.load(ordering: .acquiring)
      guard let process, process == known else {
        // A successor must find the request, whatever the process before left in the slot, and
        // is not to blame for that.
        known = process
        lane.restate(access, slot: slot, sequence: sequence)
        continue
      }
      if lane.isGarbled(slot) {
        cpu.machine.fault(self, process, .protocolBroken, "a request's slot was written over")
        HostClock.sleep(1_000_000)
      }
      if now != seen {
        seen = now
        start = clock.now().nanoseconds
      } else if clock.now().nanoseconds &- start > settings.deadline {
        cpu.machine.fault(
          self, process, .deadline, "no answer within \(settings.deadline / 1_000_000) ms")
        start = clock.now().nanoseconds
      }
    }
    return lane.take(slot)
  }

  /// Makes every slot idle; no vCPU runs, and the device has been reset or is gone.
  func clearSlots() {
    for slot in 0..<lane.slotCount { lane.abandon(slot) }
  }

  /// Writes over what a process before may have left in the lane's header.
  func renewLane() {
    posting.withLock { _ in lane.renew(head: head.load(ordering: .relaxed)) }
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
      if status != .absent { status = .gone }
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

  /// Sends a request and waits for the reply; `nil` when none comes in time.
  func ask<M: WireCodable>(
    _ request: Request, _ message: M, _ descriptors: [Descriptor] = [], timeout: UInt64
  ) -> Packet? {
    guard let waiter = try? Waiter() else { return nil }
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
    guard let sequence = sent else { return nil }
    let end = HostClock.monotonic() + timeout
    while waiter.gate.value == 0 {
      let now = HostClock.monotonic()
      guard now < end else { break }
      waiter.gate.wait(while: 0, timeout: end - now)
    }
    state.withLock { $0.waiters[sequence] = nil }
    return waiter.reply.withLock { $0 }
  }

  /// Hands a reply to the thread that waits for it; one that nobody waits for is dropped.
  func deliver(_ packet: Packet) {
    guard let waiter = state.withLock({ $0.waiters[packet.header.sequence] }) else { return }
    waiter.reply.withLock { $0 = packet }
    waiter.gate.value = 1
  }

  /// Ends all waiting for replies: the process is gone.
  func dropWaiters() {
    let waiters = state.withLock { state in
      defer { state.waiters = [:] }
      return Array(state.waiters.values)
    }
    for waiter in waiters { waiter.gate.value = 1 }
  }
}

/// A region of a device, as an access finds it.
struct RegionTarget: Sendable {
  var link: DeviceLink
  var region: UInt16
  /// The registers of the region that are not live.
  var registers: [RegisterClaim]
  /// The DMA descriptors whose registers are in the region.
  var descriptors: [DescriptorClaim]

  func isPosted(_ offset: UInt64, _ width: AccessWidth) -> Bool {
    registers.contains {
      $0.write == .posted && offset >= UInt64($0.offset)
        && offset + UInt64(width.rawValue) <= UInt64($0.offset) + UInt64($0.byteCount)
    }
  }
}

/// What a vCPU's thread keeps for itself.
struct CPUContext {
  /// How long to spin for an answer before sleeping, in nanoseconds.
  static let spinWindow: UInt64 = 50_000

  let machine: Machine
  /// The vCPU's number, and that of its slot in every lane.
  let slot: Int
  private var sequences: [UInt32]
  private var misses: [UInt8]
  private let isSpinUseful = Processors.online > 1

  init(machine: Machine, slot: Int, links: Int) {
    self.machine = machine
    self.slot = slot
    sequences = [UInt32](repeating: 0, count: links)
    misses = [UInt8](repeating: 0, count: links)
  }

  mutating func nextSequence(_ link: Int) -> UInt32 {
    sequences[link] &+= 1
    if sequences[link] == 0 { sequences[link] = 1 }
    return sequences[link]
  }

  /// Whether to spin: not after many misses in a row, except now and then to find out.
  mutating func mayBeSpun(_ link: Int) -> Bool {
    guard isSpinUseful else { return false }
    guard misses[link] >= 8 else { return true }
    misses[link] &+= 1
    return misses[link] & 15 == 0
  }

  mutating func spun(_ link: Int, hit: Bool) {
    misses[link] = hit ? 0 : misses[link] == 255 ? 8 : misses[link] + 1
  }
}
