// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem

/// The loop of the lane thread: it owns the endpoint and does one thing at a time.
struct ServiceLoop {
  private let services: HostServices
  private let slots: Int
  /// Posted writes done.
  private var tail: UInt32 = 0
  /// For each slot, the sequence of the last request done.
  private var sequences: [UInt32]
  private var commits: UInt64 = 0
  private var encoder = StateEncoder()
  private var spin = SpinPolicy()

  /// Posted writes done between two commits, at most.
  private static let batch: UInt32 = 256

  init(services: HostServices, slots: Int) {
    self.services = services
    self.slots = slots
    sequences = [UInt32](repeating: 0, count: slots)
  }

  // MARK: - State

  /// Starts a history of states.
  mutating func begin<E: DeviceEndpoint>(_ endpoint: inout E) throws(ChannelError) {
    do throws(ProtocolError) {
      try services.page.begin(layout: StateLayout.of(endpoint))
    } catch {
      throw .broken(error)
    }
    commit(&endpoint)
    endpoint.publish(services)
  }

  /// Goes on where a predecessor stopped.
  mutating func restore<E: DeviceEndpoint>(_ endpoint: inout E) throws(ChannelError) {
    do throws(ProtocolError) {
      guard let committed = try services.page.committed(slots: slots) else {
        // It died before its first commit: there is nothing to go on from.
        return try begin(afterNothing: &endpoint)
      }
      var decoder = try StateDecoder(layout: committed.layout, values: committed.values)
      endpoint.visitState(&decoder)
      commits = committed.number
      tail = committed.tail
      sequences = committed.sequences
      // A new program may have other fields; from the next commit on they are what counts.
      if StateLayout.of(endpoint) != committed.layout {
        try services.page.begin(layout: StateLayout.of(endpoint))
      }
    } catch {
      throw .broken(error)
    }
    services.lane.markAwake()
    endpoint.restored(services)
    commit(&endpoint)
    endpoint.publish(services)
    services.lane.setTail(tail)
    // What was done but not yet answered when the predecessor died is only answered now.
    for slot in 0..<slots
    where services.lane.isRequested(slot) && services.lane.sequence(slot) == sequences[slot] {
      services.lane.answer(slot)
    }
  }

  private mutating func begin<E: DeviceEndpoint>(afterNothing endpoint: inout E)
    throws(ProtocolError)
  {
    services.lane.markAwake()
    try services.page.begin(layout: StateLayout.of(endpoint))
    commit(&endpoint)
    endpoint.publish(services)
  }

  private mutating func commit<E: DeviceEndpoint>(_ endpoint: inout E) {
    encoder.reset()
    endpoint.visitState(&encoder)
    commits &+= 1
    services.page.commit(
      number: commits, tail: tail, sequences: sequences, values: encoder.bytes)
  }

  // MARK: - The loop

  mutating func run<E: DeviceEndpoint>(_ endpoint: inout E) -> Never {
    let lane = services.lane
    while endpoint.pump(services) { commit(&endpoint) }
    while true {
      let bell = lane.doorbell
      var worked = false
      for slot in 0..<slots where lane.isRequested(slot) {
        serve(slot, &endpoint)
        worked = true
      }
      if lane.head != tail {
        drain(&endpoint, to: lane.head)
        worked = true
      }
      if services.watcher.hasPending || !services.deferred.isEmpty {
        attend(&endpoint)
        worked = true
      }
      let deadline = endpoint.deadline
      if let deadline, services.clock.isRunning, deadline <= services.now {
        endpoint.elapsed(services)
        commit(&endpoint)
        endpoint.publish(services)
        worked = true
      }
      guard !worked else {
        while endpoint.pump(services) {
          commit(&endpoint)
          endpoint.publish(services)
        }
        continue
      }
      wait(bell, deadline: deadline)
    }
  }

  /// Spins while accesses come in bursts, and sleeps when they have stopped.
  private mutating func wait(_ bell: UInt32, deadline: VMTime?) {
    let lane = services.lane
    if spin.shouldSpin {
      let end = HostClock.monotonic() + SpinPolicy.window
      while HostClock.monotonic() < end {
        for _ in 0..<64 {
          if lane.doorbell != bell {
            spin.spinSucceeded()
            return
          }
          Thread.relax()
        }
      }
      spin.spinFailed()
    }
    let start = HostClock.monotonic()
    var timeout: UInt64?
    if let deadline, services.clock.isRunning {
      let now = services.now
      timeout = deadline > now ? deadline.nanoseconds - now.nanoseconds : 0
    }
    lane.sleep(doorbell: bell, timeout: timeout)
    spin.slept(HostClock.monotonic() - start)
  }

  // MARK: - Register accesses

  private mutating func serve<E: DeviceEndpoint>(_ slot: Int, _ endpoint: inout E) {
    let lane = services.lane
    let sequence = lane.sequence(slot)
    guard sequence != sequences[slot] else {
      lane.answer(slot)
      return
    }
    // Posted writes that came before this request are done first.
    let head = lane.head
    if head != tail { drain(&endpoint, to: head) }
    guard let request = lane.request(slot), let width = AccessWidth(rawValue: request.width) else {
      DeviceProcess.end("the core put a malformed request into slot \(slot)")
    }
    if request.descriptorBytes > 0 {
      endpoint.descriptorRead(
        lane.block(slot, count: Int(request.descriptorBytes)),
        window: UInt16(truncatingIfNeeded: request.window), services: services)
    }
    var value: UInt64 = 0
    var items: UInt32 = 1
    switch request.operation {
    case .read:
      value = endpoint.read(
        region: request.region, offset: request.offset, width: width, services: services)
    case .write:
      endpoint.write(
        request.value, region: request.region, offset: request.offset, width: width,
        services: services)
    case .readBlock:
      let bytes = endpoint.readBlock(
        region: request.region, offset: request.offset, width: width, items: Int(request.items),
        services: services)
      lane.setBlock(slot, bytes)
      items = UInt32(bytes.count / width.byteCount)
    case .writeBlock:
      let bytes = lane.block(slot, count: Int(request.items) * width.byteCount)
      endpoint.writeBlock(
        bytes, region: request.region, offset: request.offset, width: width, services: services)
      items = request.items
    }
    lane.prepare(slot, value: value, items: items)
    sequences[slot] = sequence
    commit(&endpoint)
    endpoint.publish(services)
    lane.answer(slot)
  }

  private mutating func drain<E: DeviceEndpoint>(_ endpoint: inout E, to head: UInt32) {
    guard head &- tail <= UInt32(LaneLayout.ringCapacity) else {
      DeviceProcess.end("the ring of posted writes holds more than its capacity")
    }
    while tail != head {
      var left = min(head &- tail, Self.batch)
      while left > 0 {
        if let access = services.lane.posted(tail), let width = AccessWidth(rawValue: access.width)
        {
          endpoint.write(
            access.value, region: access.region, offset: access.offset, width: width,
            services: services)
        }
        tail &+= 1
        left -= 1
      }
      commit(&endpoint)
      endpoint.publish(services)
      services.lane.setTail(tail)
    }
  }

  // MARK: - Everything else

  private mutating func attend<E: DeviceEndpoint>(_ endpoint: inout E) {
    let sources = services.watcher.take()
    if sources & 1 != 0 || !services.deferred.isEmpty { obey(&endpoint) }
    services.interruptsEnded(sources)
    if sources & ~1 != 0 {
      endpoint.ready(sources, services: services)
      commit(&endpoint)
      endpoint.publish(services)
    }
    services.watcher.rearm(sources)
  }

  /// Does what the core asks over the control channel.
  private mutating func obey<E: DeviceEndpoint>(_ endpoint: inout E) {
    do throws(ChannelError) {
      while true {
        let packet: Packet
        if !services.deferred.isEmpty {
          packet = services.deferred.removeFirst()
        } else if let next = try services.channel.receive(wait: false) {
          packet = next
        } else {
          return
        }
        try obey(packet, &endpoint)
      }
    } catch {
      switch error {
      case .closed: ProcessExit.now(0)
      default: DeviceProcess.end("\(error)")
      }
    }
  }

  private mutating func obey<E: DeviceEndpoint>(_ packet: Packet, _ endpoint: inout E)
    throws(ChannelError)
  {
    let header = packet.header
    guard !header.flags.contains(.reply), let request = Request(rawValue: header.request) else {
      throw .broken(ProtocolError("unexpected message \(header.request)"))
    }
    if lane.head != tail { drain(&endpoint, to: lane.head) }
    do {
      switch request {
      case .reset:
        endpoint.reset(services)
        commit(&endpoint)
        endpoint.publish(services)
        try services.channel.reply(to: header, Empty())
      case .pause, .resume:
        commit(&endpoint)
        try services.channel.reply(to: header, Empty())
      case .quit:
        endpoint.flush(services)
        commit(&endpoint)
        try services.channel.reply(to: header, Empty())
        ProcessExit.now(0)
      case .screendump:
        let message: ScreendumpRequest = try packet.decode()
        services.attached = packet.descriptors.first
        defer { services.attached = nil }
        do throws(Refusal) {
          let reply = try endpoint.screendump(Int(message.byteCount), services: services)
          try? services.channel.reply(to: header, reply)
        } catch {
          try? services.channel.refuse(header, error.reason)
        }
      case .input:
        endpoint.input(try packet.decode(), services: services)
        commit(&endpoint)
        endpoint.publish(services)
        try services.channel.reply(to: header, Empty())
      case .hello, .claim, .ready, .dma, .moveRegion, .routePIRQ, .power:
        throw ChannelError.broken(ProtocolError("the core sent \(request)"))
      }
    } catch let error as ProtocolError {
      throw .broken(error)
    } catch let error as ChannelError {
      throw error
    } catch {
      throw .closed
    }
  }

  private var lane: DeviceLane { services.lane }
}

/// When to spin for the next access instead of sleeping.
///
/// A spin pays only while the gaps between accesses are shorter than the window and another
/// core runs the guest; one miss stops it, and a sleep that was short starts it again.
struct SpinPolicy {
  /// How long to spin, in nanoseconds: longer than a KVM exit with the guest's own work.
  static let window: UInt64 = 50_000

  private let isUseful = Processors.online > 1
  private(set) var shouldSpin = false
  private var shortSleeps = 0

  mutating func spinSucceeded() {}

  mutating func spinFailed() {
    shouldSpin = false
    shortSleeps = 0
  }

  /// Notes how long the device slept until it was woken.
  mutating func slept(_ nanoseconds: UInt64) {
    guard isUseful else { return }
    // A sleep costs up to 100 us itself where another core has to be woken.
    shortSleeps = nanoseconds < Self.window * 3 ? shortSleeps + 1 : 0
    if shortSleeps >= 2 { shouldSpin = true }
  }
}
