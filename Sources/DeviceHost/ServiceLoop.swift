// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem

/// The loop of the lane thread: it owns the endpoint and does one thing at a time.
struct ServiceLoop {
  let services: HostServices
  private let slots: Int
  /// Posted writes done.
  var tail: UInt32 = 0
  /// For each slot, the sequence of the last request done.
  var sequences: [UInt32]
  private var commits: UInt64 = 0
  private var encoder = StateEncoder()
  private var spin = SpinPolicy()

  init(services: HostServices, slots: Int) {
    self.services = services
    self.slots = slots
    sequences = [UInt32](repeating: 0, count: slots)
  }

  var lane: DeviceLane { services.lane }

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

  mutating func commit<E: DeviceEndpoint>(_ endpoint: inout E) {
    encoder.reset()
    endpoint.visitState(&encoder)
    commits &+= 1
    services.page.commit(
      number: commits, tail: tail, sequences: sequences, values: encoder.bytes)
  }

  // MARK: - The loop

  mutating func run<E: DeviceEndpoint>(_ endpoint: inout E) -> Never {
    let lane = self.lane
    pump(&endpoint)
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
        pump(&endpoint)
        continue
      }
      wait(bell, deadline: deadline, maySpin: !endpoint.awaitsWorkers)
    }
  }

  private mutating func pump<E: DeviceEndpoint>(_ endpoint: inout E) {
    while endpoint.pump(services) {
      commit(&endpoint)
      endpoint.publish(services)
    }
  }

  /// Spins while accesses come in bursts, and sleeps when they have stopped.
  private mutating func wait(_ bell: UInt32, deadline: VMTime?, maySpin: Bool) {
    let lane = self.lane
    if maySpin, spin.shouldSpin {
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
}
