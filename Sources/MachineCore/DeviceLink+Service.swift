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
      $0.process &+= 1
      $0.wasReady = false
      $0.isFaultReported = false
      status = .starting
    }
    EventFile.signal(wake)
  }

  /// Serves one process after the other; never returns while the machine lives.
  func serve(_ machine: Machine) {
    var seen: UInt32 = 0
    while true {
      let (process, channel) = nextProcess(after: seen)
      seen = process
      let kind: FaultMessage.Kind
      let reason: String
      do throws(ChannelError) {
        renewLane()
        try handshake(channel, process, machine)
        while true { try obey(receive(channel, process), channel, machine) }
      } catch {
        switch error {
        case .broken(let problem): (kind, reason) = (.protocolBroken, problem.reason)
        case .timedOut: (kind, reason) = (.deadline, "silent before it was ready")
        default: (kind, reason) = (.gone, error.description)
        }
      }
      state.withLock {
        guard $0.process == process else { return }
        $0.channel = nil
        status = .gone
      }
      dropWaiters()
      machine.fault(self, process, kind, reason)
    }
  }

  /// Waits for a process that was attached after `seen`.
  private func nextProcess(after seen: UInt32) -> (UInt32, Channel) {
    while true {
      let next = state.withLock { state -> (UInt32, Channel)? in
        guard state.process != seen, let channel = state.channel else { return nil }
        return (state.process, channel)
      }
      if let next { return next }
      var poller = Poller()
      poller.add(wake, .readable)
      _ = try? poller.wait()
      EventFile.drain(wake)
    }
  }

  /// Receives a message, unless the process is cut off or replaced meanwhile.
  private func receive(_ channel: Channel, _ process: UInt32, timeout: UInt64? = nil)
    throws(ChannelError) -> Packet
  {
    let end = timeout.map { HostClock.monotonic() + $0 }
    while true {
      guard state.withLock({ $0.process == process && !$0.isFaultReported }) else {
        throw .closed
      }
      if let packet = try channel.receive(wait: false) { return packet }
      let now = HostClock.monotonic()
      if let end, now >= end { throw .timedOut }
      var poller = Poller()
      poller.add(channel.socket.descriptor, .readable)
      poller.add(wake, .readable)
      do {
        _ = try poller.wait(timeout: end.map { $0 - now })
      } catch {
        throw .system(error)
      }
      if poller[1] != [] { EventFile.drain(wake) }
    }
  }

  private func handshake(_ channel: Channel, _ process: UInt32, _ machine: Machine)
    throws(ChannelError)
  {
    let first = try receive(channel, process, timeout: Self.patience)
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

    let second = try receive(channel, process, timeout: Self.patience)
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

    // A successor may have to finish what its state says was under way, before it serves.
    var third = try receive(channel, process, timeout: Self.patience)
    while isRestart, third.header.request != Request.ready.rawValue {
      try obey(third, channel, machine)
      third = try receive(channel, process, timeout: Self.patience)
    }
    guard third.header.request == Request.ready.rawValue else {
      throw .broken(ProtocolError("the third message is not ready"))
    }
    let _: Empty = try decode(third)
    while true {
      let isUp = try state.withLock { state throws(ChannelError) -> Bool in
        guard state.process == process, !state.isFaultReported else { throw .closed }
        state.wasReady = true
        guard !state.isResetDue else { return false }
        status = .up
        return true
      }
      if isUp { break }
      try resetLate(channel, process, machine)
    }
    epoch.add(1, ordering: .sequentiallyConsistent)
    machine.deviceIsReady(self, isRestart: isRestart)
  }

  /// Tells a device of a reset that it has missed, before anything else reaches it.
  private func resetLate(_ channel: Channel, _ process: UInt32, _ machine: Machine)
    throws(ChannelError)
  {
    let (sequence, isWaking) = state.withLock { state in
      state.nextSequence &+= 1
      return (state.nextSequence &- 1, state.isWaking)
    }
    try channel.request(isWaking ? .wake : .reset, sequence: sequence, Empty())
    while true {
      let packet = try receive(channel, process, timeout: Self.patience)
      if packet.header.flags.contains(.reply), packet.header.sequence == sequence { break }
      try obey(packet, channel, machine)
    }
    clearSlots()
    state.withLock {
      $0.isResetDue = false
      isResetDue.store(false, ordering: .releasing)
    }
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
      let message: DMARequest = try decode(packet)
      guard let count = try transfer(message, machine) else {
        let refusal = Refusal("window \(message.window) is not open in this direction")
        try answer(header, refusal, channel, [.reply, .refusal])
        return
      }
      try answer(header, DMAReply(byteCount: count), channel)
    case .moveRegion:
      let message: MoveRegion = try decode(packet)
      do throws(ProtocolError) {
        try machine.move(self, message)
      } catch {
        try answer(header, Refusal(error.reason), channel, [.reply, .refusal])
        return
      }
      try answer(header, Empty(), channel)
    case .mapWindow:
      let message: WindowMapping = try decode(packet)
      let memory = byteCount(ofMemory: message.memory)
      do throws(ProtocolError) {
        try machine.change { board throws(ProtocolError) in
          try board.mapWindow(self, message, memoryByteCount: memory)
        }
      } catch {
        try answer(header, Refusal(error.reason), channel, [.reply, .refusal])
        return
      }
      try answer(header, Empty(), channel)
    case .routePIRQ:
      let message: PIRQRoutes = try decode(packet)
      try requireChipset(request)
      machine.routePIRQ(message.interrupts)
      try answer(header, Empty(), channel)
    case .power:
      let message: PowerRequest = try decode(packet)
      try requireChipset(request)
      machine.power(message)
      try answer(header, Empty(), channel)
    case .hold:
      let message: HoldRequest = try decode(packet)
      guard grants.mayHold else { throw .broken(ProtocolError("\(role) may not send \(request)")) }
      machine.post(.hold("\(role): \(message.reason)"))
      try answer(header, Empty(), channel)
    case .notice:
      let message: NoticeMessage = try decode(packet)
      let isOfDrives = message.kind == .hostError || message.kind == .trayMoved
      guard isOfDrives ? grants.mayTellOfDrives : grants.mayTellOfPanic else {
        throw .broken(ProtocolError("\(role) may not send \(request) of \(message.kind)"))
      }
      machine.post(.notice(message))
      try answer(header, Empty(), channel)
    case .hello, .claim, .ready, .reset, .wake, .pause, .resume, .quit, .screendump, .input,
      .medium, .powerButton, .pointer, .drives, .resize, .sendBreak, .snapshot:
      throw .broken(ProtocolError("\(request) is not expected from a device now"))
    }
  }

  /// The size of a memory that the device may write to; 0 where there is none of that number.
  func byteCount(ofMemory number: UInt16) -> UInt64 {
    state.withLock { state in
      let backing = state.backings.first {
        $0.claim.memory == number && $0.claim.kind == .readWrite
      }
      return UInt64(backing?.claim.byteCount ?? 0)
    }
  }

  /// Answers a request; a device that does not read its answers is cut off.
  private func answer<M: WireCodable>(
    _ header: Header, _ message: M, _ channel: Channel, _ flags: Header.Flags = .reply
  ) throws(ChannelError) {
    do throws(ChannelError) {
      try channel.send(
        header.request, flags: flags, sequence: header.sequence, payload: message.wireBytes,
        wait: false)
    } catch {
      if case .system(let problem) = error, problem.isNotReady {
        throw .broken(ProtocolError("the replies to its requests are not read"))
      }
      throw error
    }
  }

  private func requireChipset(_ request: Request) throws(ChannelError) {
    guard grants.isChipset else {
      throw .broken(ProtocolError("\(role) may not send \(request)"))
    }
  }
}
