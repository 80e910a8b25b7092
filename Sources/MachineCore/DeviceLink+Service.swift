// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import Synchronization

/// The service thread of a device: the handshake, and what the device asks afterwards.
///
/// Every byte is hostile. A device that breaks the protocol is cut off with the reason; its
/// channel is closed, and the launcher ends and replaces its process.
extension DeviceLink {
  /// Gives the link the channel of a new process.
  func attach(_ channel: Channel) {
    state.withLock {
      $0.channel = channel
      $0.isFaultReported = false
    }
    arrivals.add(1)
  }

  /// Serves one process after the other; never returns while the machine lives.
  func serve(_ machine: Machine) {
    var seen: UInt32 = 0
    while true {
      while arrivals.value == seen { arrivals.wait(while: seen) }
      seen = arrivals.value
      guard let channel = state.withLock({ $0.channel }) else { continue }
      let kind: FaultMessage.Kind
      let reason: String
      do throws(ChannelError) {
        try handshake(channel, machine)
        while true {
          guard let packet = try channel.receive() else { continue }
          try obey(packet, channel, machine)
        }
      } catch {
        switch error {
        case .broken(let problem): (kind, reason) = (.protocolBroken, problem.reason)
        default: (kind, reason) = (.gone, error.description)
        }
      }
      guard arrivals.value == seen else { continue }
      status = status == .absent ? .absent : .gone
      state.withLock { if arrivals.value == seen { $0.channel = nil } }
      dropWaiters()
      machine.fault(self, kind, reason)
    }
  }

  private func handshake(_ channel: Channel, _ machine: Machine) throws(ChannelError) {
    let first = try channel.receive(timeout: Self.patience)
    guard first.header.request == Request.hello.rawValue else {
      throw .broken(ProtocolError("the first message is not hello"))
    }
    let hello: Hello = try decode(first)
    guard hello.version == Hello.version else {
      try? channel.refuse(first.header, "this core speaks version \(Hello.version)")
      throw .broken(ProtocolError("version \(hello.version) of the protocol"))
    }
    guard hello.role == role else {
      try? channel.refuse(first.header, "this is the channel of \(role)")
      throw .broken(ProtocolError("a device of role \(hello.role) on the channel of \(role)"))
    }
    try channel.reply(to: first.header, Hello(role: "core"))

    let second = try channel.receive(timeout: Self.patience)
    guard second.header.request == Request.claim.rawValue else {
      throw .broken(ProtocolError("the second message is not claim"))
    }
    let claims: Claims = try decode(second)
    let isRestart = state.withLock { $0.claims != nil }
    do throws(ProtocolError) {
      if isRestart {
        guard state.withLock({ $0.claims == claims }) else {
          throw ProtocolError("the claims differ from those of the process before")
        }
      } else {
        try grants.check(claims)
        try machine.install(self, claims, second.descriptors)
      }
    } catch {
      try? channel.refuse(second.header, error.reason)
      throw .broken(error)
    }
    try channel.reply(
      to: second.header,
      Grant(
        slots: UInt16(lane.slotCount), isRestart: isRestart,
        stateByteCount: settings.stateByteCount), granted())

    let third = try channel.receive(timeout: Self.patience)
    guard third.header.request == Request.ready.rawValue else {
      throw .broken(ProtocolError("the third message is not ready"))
    }
    let _: Empty = try decode(third)
    status = .up
    epoch.add(1, ordering: .sequentiallyConsistent)
    machine.deviceIsReady(self, isRestart: isRestart)
  }

  /// How long a device may take between the messages of the handshake.
  private static let patience: UInt64 = 30_000_000_000

  private func decode<M: WireCodable>(_ packet: Packet) throws(ChannelError) -> M {
    do throws(ProtocolError) {
      guard packet.header.flags == [] else {
        throw ProtocolError("a reply to nothing")
      }
      return try packet.decode()
    } catch {
      throw .broken(error)
    }
  }

  /// The descriptors of the grant, in the protocol's order.
  private func granted() -> [Descriptor] {
    state.withLock { state in
      var descriptors = [lane.file, clock.file, statePage]
      if let bounce = state.bounce { descriptors.append(bounce.file) }
      descriptors += state.backings.filter { $0.claim.kind == .readWrite }.map(\.file)
      for line in state.lines {
        descriptors.append(line.event)
        if let ended = line.ended { descriptors.append(ended) }
      }
      return descriptors
    }
  }

  // MARK: - What a device asks

  private func obey(_ packet: Packet, _ channel: Channel, _ machine: Machine)
    throws(ChannelError)
  {
    let header = packet.header
    if header.flags.contains(.reply) {
      deliver(packet)
      return
    }
    guard let request = Request(rawValue: header.request) else {
      throw .broken(ProtocolError("there is no request \(header.request)"))
    }
    guard packet.descriptors.isEmpty else {
      throw .broken(ProtocolError("descriptors with \(request)"))
    }
    switch request {
    case .dma:
      let count = try transfer(decode(packet), machine)
      try channel.reply(to: header, DMAReply(byteCount: count))
    case .moveRegion:
      let message: MoveRegion = try decode(packet)
      do throws(ProtocolError) {
        try machine.move(self, message)
      } catch {
        try channel.refuse(header, error.reason)
        return
      }
      try channel.reply(to: header, Empty())
    case .routePIRQ:
      let message: PIRQRoutes = try decode(packet)
      try requireChipset(request)
      machine.routePIRQ(message.interrupts)
      try channel.reply(to: header, Empty())
    case .power:
      let message: PowerRequest = try decode(packet)
      try requireChipset(request)
      machine.power(message)
      try channel.reply(to: header, Empty())
    case .hello, .claim, .ready, .reset, .pause, .resume, .quit, .screendump, .input:
      throw .broken(ProtocolError("\(request) is not expected from a device now"))
    }
  }

  private func requireChipset(_ request: Request) throws(ChannelError) {
    guard grants.isChipset else {
      throw .broken(ProtocolError("\(role) may not send \(request)"))
    }
  }

  // MARK: - DMA

  private func transfer(_ request: DMARequest, _ machine: Machine) throws(ChannelError) -> UInt32 {
    if request.direction == .close {
      state.withLock { $0.windows[request.window] = nil }
      return 0
    }
    let (window, bounce) = state.withLock { ($0.windows[request.window], $0.bounce?.mapping) }
    guard let bounce else { throw .broken(ProtocolError("DMA without a bounce buffer")) }
    let end = UInt64(request.bounceOffset) + UInt64(request.byteCount)
    guard end <= UInt64(bounce.byteCount) else {
      throw .broken(ProtocolError("DMA outside the bounce buffer"))
    }
    guard let window else { return 0 }
    var at = Int(request.bounceOffset)
    var done: UInt32 = 0
    for piece in window.ranges(
      offset: request.windowOffset, byteCount: UInt64(request.byteCount), request.direction)
    {
      let count = Int(piece.byteCount)
      do throws(GuestMemoryError) {
        if request.direction == .toGuest {
          try machine.memory.copy(from: bounce, at: at, count: count, toGuest: piece.address)
        } else {
          try machine.memory.copy(fromGuest: piece.address, count: count, to: bounce, at: at)
        }
      } catch {
        // The pieces were checked when the window was opened.
        return done
      }
      at += count
      done += UInt32(count)
    }
    return done
  }

  /// Looks at a write for the start or the end of a DMA transfer, before the device gets it.
  ///
  /// Returns what the guest's descriptor said, for the device, when the write starts one.
  func snoop(
    _ value: UInt64, _ region: RegionTarget, _ offset: UInt64, _ width: AccessWidth,
    _ machine: Machine
  ) -> (bytes: [UInt8], window: UInt16)? {
    var result: (bytes: [UInt8], window: UInt16)?
    for claim in region.descriptors {
      let start = UInt64(claim.offset)
      guard offset < start + 8, offset + UInt64(width.rawValue) > start else { continue }
      let (before, registers) = state.withLock { state -> ([UInt8], [UInt8]) in
        let before = state.descriptors[claim.window] ?? [UInt8](repeating: 0, count: 8)
        var registers = before
        for lane in 0..<width.byteCount {
          let at = Int(offset) + lane - Int(start)
          if (0..<8).contains(at) {
            registers[at] = UInt8(truncatingIfNeeded: value >> UInt64(8 * lane))
          }
        }
        state.descriptors[claim.window] = registers
        return (before, registers)
      }
      switch claim.kind {
      case .prd:
        if let content = startPRD(claim, before: before[0], registers, machine) {
          result = (content, claim.window)
        }
      case .fwCfg:
        guard offset + UInt64(width.rawValue) == start + 8 else { continue }
        let block = registers.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let found = DMAWindow.fwCfg(
          block: block, memory: machine.memory, isReachable: machine.isReachable)
        state.withLock { $0.windows[claim.window] = found?.window }
        // Without a block in RAM there is nowhere to put a result: the device sees no start.
        if let found { result = (found.content, claim.window) }
      }
    }
    return result
  }

  private func startPRD(
    _ claim: DescriptorClaim, before: UInt8, _ registers: [UInt8], _ machine: Machine
  ) -> [UInt8]? {
    let command = registers[0]
    guard command & 1 != before & 1 else { return nil }
    guard command & 1 != 0 else {
      state.withLock { $0.windows[claim.window] = nil }
      return nil
    }
    // Bit 3 of the command: the bus master writes to memory (82371AB, 5.1).
    let direction: DMARequest.Direction = command & 8 != 0 ? .toGuest : .fromGuest
    let table = registers[4..<8].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    var window: DMAWindow?
    if machine.isBusMaster(claim.devfn) {
      window = DMAWindow.prd(
        table: table, direction: direction, memory: machine.memory,
        isReachable: machine.isReachable)
    }
    state.withLock { $0.windows[claim.window] = window }
    var writer = WireWriter()
    writer.put(window?.byteCount ?? 0)
    writer.put(UInt32(window == nil ? 0 : 1))
    return writer.bytes
  }

  /// Closes every window and forgets the descriptors: the machine is reset.
  func resetWindows() {
    state.withLock {
      $0.windows = [:]
      $0.descriptors = [:]
    }
  }
}
