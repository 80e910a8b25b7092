// SPDX-License-Identifier: Apache-2.0

public import DeviceModel
public import DeviceProtocol
public import LinuxSystem

/// What the process offers to its endpoint: time, lines, DMA, mirrored registers.
///
/// Used on the lane thread only, except ``watcher`` and ``workers``.
public final class HostServices {
  let channel: Channel
  let lane: DeviceLane
  let clock: ClockReader
  let page: StatePage
  let lines: [Line]

  /// The bounce buffer, when one was claimed.
  public let bounce: Mapping?
  /// The read-write backing memories, in the order of their claims.
  public let backings: [Mapping]
  /// Sources other than register accesses.
  public let watcher: Watcher

  /// The slot whose vCPU waits for what is being done, if one does.
  var waitingSlot: Int?
  /// Requests from the core that came while a reply was awaited.
  var deferred: [Packet] = []
  private var nextSequence: UInt32 = 1
  private var refusals = 0

  struct Line {
    var event: Descriptor
    /// Readable when the guest has ended a level interrupt.
    var ended: Descriptor?
    var source: Int
  }

  private var levels: [Bool]

  init(
    channel: Channel, lane: DeviceLane, clock: ClockReader, page: StatePage, lines: [Line],
    bounce: Mapping?, backings: [Mapping], watcher: Watcher
  ) {
    self.channel = channel
    self.lane = lane
    self.clock = clock
    self.page = page
    self.lines = lines
    self.bounce = bounce
    self.backings = backings
    self.watcher = watcher
    levels = lines.map { _ in false }
  }

  /// The virtual time now.
  public var now: VMTime { clock.now() }

  /// The descriptor that came with the request being served (screendump, medium).
  public internal(set) var attached: Descriptor?

  /// Whether the reset under way wakes a suspended machine (``Request/wake``).
  public internal(set) var isWaking = false

  // MARK: - Lines

  /// Drives an interrupt line; the order is that of the claims.
  ///
  /// An edge line makes one event for each change from low to high.
  public func setLine(_ index: Int, _ isHigh: Bool) {
    guard levels[index] != isHigh else { return }
    levels[index] = isHigh
    if isHigh { EventFile.signal(lines[index].event) }
  }

  /// The guest has ended level interrupts: those that are still high are raised again.
  func interruptsEnded(_ sources: UInt64) {
    for (index, line) in lines.enumerated() where line.ended != nil {
      guard sources & 1 << UInt64(line.source) != 0, let ended = line.ended else { continue }
      EventFile.drain(ended)
      if levels[index] { EventFile.signal(line.event) }
    }
  }

  // MARK: - Registers

  /// Publishes the value of a mirrored register, or takes it back with `nil`.
  ///
  /// With `withPosts`, the value is also good while posted writes wait to be done.
  public func mirror(_ entry: Int, _ value: UInt32?, withPosts: Bool = false) {
    lane.mirror(entry, value, withPosts: withPosts)
  }

  // MARK: - Counters

  /// Adds to one of the counters that the operator is told (``DeviceCounter``).
  public func count(_ value: UInt64, in counter: Int) { lane.count(value, in: counter) }

  /// What was counted so far, also by the processes before this one.
  public func counted(_ counter: Int) -> UInt64 { lane.counter(counter) }

  // MARK: - Requests to the core

  /// Whether a vCPU waits for the end of what is being done: it copies at once.
  public var isWaitedFor: Bool { waitingSlot != nil }

  /// Copies between the bounce buffer and the memory behind a window.
  ///
  /// Returns how many bytes were copied: fewer than asked for at the window's end, none when
  /// the window is closed or the core refused.
  public func transfer(
    window: UInt16, _ direction: DMARequest.Direction, windowOffset: UInt64, bounceOffset: Int,
    byteCount: Int
  ) -> Int {
    let request = DMARequest(
      window: window, direction: direction, windowOffset: windowOffset,
      bounceOffset: UInt32(bounceOffset), byteCount: UInt32(byteCount))
    if let waitingSlot {
      return min(Int(lane.copy(waitingSlot, request) ?? 0), byteCount)
    }
    guard let reply: DMAReply = ask(.dma, request) else { return 0 }
    return min(Int(reply.byteCount), byteCount)
  }

  /// Ends a transfer: the device cannot reach the window's memory any more.
  public func closeWindow(_ window: UInt16) {
    let _: DMAReply? = ask(.dma, DMARequest(window: window, direction: .close))
  }

  /// Tells the core where a movable port region decodes from now on.
  public func move(_ region: UInt16, to base: UInt16?) {
    let _: Empty? = ask(
      .moveRegion, MoveRegion(region: region, isEnabled: base != nil, base: base ?? 0))
  }

  /// Has the core map a part of a region, or end that; returns whether it did.
  ///
  /// A mapping may only begin while ``isWaitedFor``: see ``WindowMapping``.
  public func mapWindow(_ mapping: WindowMapping) -> Bool {
    let reply: Empty? = ask(.mapWindow, mapping)
    return reply != nil
  }

  /// Tells the core where the PIIX routes the PCI interrupts.
  public func routePIRQ(_ interrupts: [UInt8]) {
    let _: Empty? = ask(.routePIRQ, PIRQRoutes(interrupts))
  }

  /// Resets, powers off or leaves the machine.
  public func power(_ request: PowerRequest) {
    let _: Empty? = ask(.power, request)
  }

  /// Holds the machine, because the host cannot do what the guest wants.
  public func hold(_ reason: String) {
    let _: Empty? = ask(.hold, HoldRequest(reason: reason))
  }

  /// Tells the operator of something.
  public func notify(_ notice: NoticeMessage) {
    let _: Empty? = ask(.notice, notice)
  }

  /// Sends a request and waits for its reply; `nil` when the core refuses it.
  ///
  /// A channel that is of no use any more ends the process: without its core a device has
  /// nothing to do.
  private func ask<M: WireCodable, R: WireCodable>(_ request: Request, _ message: M) -> R? {
    let sequence = nextSequence
    nextSequence &+= 1
    do throws(ChannelError) {
      try channel.request(request, sequence: sequence, message)
      while true {
        guard var packet = try nextPacket() else { continue }
        guard packet.header.flags.contains(.reply), packet.header.sequence == sequence else {
          // Few requests have use for descriptors, and there are not many.
          let request = Request(rawValue: packet.header.request)
          if request != .screendump, request != .medium, request != .snapshot {
            packet.descriptors = []
          }
          deferred.append(packet)
          guard deferred.count < 64 else {
            throw ChannelError.broken(ProtocolError("too many requests while a reply is due"))
          }
          continue
        }
        return try packet.reply(to: request)
      }
    } catch {
      switch error {
      case .refused(let refusal):
        // A guest can provoke this at will; the operator is told a few times.
        refusals += 1
        if refusals <= 20 { Log.line("the core refused \(request): \(refusal)", .warning) }
        return nil
      // The core has gone in the middle of a question: an end in order, as between two.
      case .closed: ProcessExit.now(0)
      default: DeviceProcess.end("\(error)")
      }
    }
  }

  /// Receives a message; the core's thread needs some time to wake, so it is spun for first.
  private func nextPacket() throws(ChannelError) -> Packet? {
    if Self.mayBeSpun {
      let end = HostClock.monotonic() + SpinPolicy.window
      repeat {
        if let packet = try channel.receive(wait: false) { return packet }
      } while HostClock.monotonic() < end
    }
    return try channel.receive()
  }

  private static let mayBeSpun = Processors.online > 1

  // MARK: - Bulk state

  /// How many bytes can be kept beside the state: as many as the launcher has provided.
  public var bulkByteCount: Int { page.bulkByteCount }

  /// Keeps bytes beside the state, such as a sector buffer; before the commit that refers to them.
  public func setBulk(_ bytes: [UInt8], at offset: Int) { page.setBulk(bytes, at: offset) }

  /// Reads bytes kept beside the state.
  public func bulk(at offset: Int, count: Int) -> [UInt8] { page.bulk(at: offset, count: count) }
}
