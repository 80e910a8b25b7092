// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor
internal import Synchronization

/// What takes its time: the main thread goes on meanwhile and answers the operator later.
extension MachineControl {
  /// Where an answer goes, and until when it has to.
  struct PendingReply {
    let client: Channel
    let header: Header
    let end: UInt64

    init(_ packet: Packet, _ client: Channel, patience: UInt64) {
      self.client = client
      header = packet.header
      end = HostClock.monotonic() + patience
    }

    func send(_ flags: Header.Flags, _ payload: [UInt8]) {
      // A client that is gone or does not read goes without.
      try? client.send(
        header.request, flags: flags, sequence: header.sequence, payload: payload, wait: false)
    }

    func refuse(_ reason: String) { send([.reply, .refusal], Refusal(reason).wireBytes) }
  }

  /// A request that was handed on to a device.
  struct Forward {
    let role: String
    let ask: DeviceLink.Ask
    let reply: PendingReply
    /// What the launcher is told when the device has done it.
    var medium: (message: MediumMessage, image: [Descriptor])?
  }

  /// A device that the operator has started anew, until it is up.
  struct Restart {
    /// The number of the process that is to go.
    let process: UInt32
    /// The operator who waits for it, if there still is one.
    var reply: PendingReply?
  }

  private static let forwardPatience: UInt64 = 3_000_000_000
  /// Less than a client waits, so that it gets the reason.
  private static let restartPatience: UInt64 = 8_000_000_000
  private static let mostForwards = 32

  // MARK: - Time

  /// How long until the next answer is due; `nil` when none is.
  func patience() -> UInt64? {
    let ends =
      forwards.map(\.reply.end) + restarts.values.compactMap(\.reply?.end)
      + [portReply?.end, work.map { $0.isBusy ? 0 : $0.end }].compactMap { $0 }
    let now = HostClock.monotonic()
    return ends.min().map { $0 > now ? $0 - now : 0 }
  }

  /// Answers what is done, and refuses what has taken too long.
  func settle() {
    let now = HostClock.monotonic()
    forwards.removeAll { forward in
      guard forward.ask.isOver || now >= forward.reply.end else { return false }
      if let packet = forward.ask.finish(by: now) {
        if let medium = forward.medium, !packet.header.flags.contains(.refusal) {
          tell(.medium, medium.message, medium.image)
        }
        forward.reply.send(packet.header.flags, packet.payload)
      } else {
        forward.reply.refuse("\(forward.role) did not answer in time")
      }
      return true
    }
    settlePort(by: now)
    settleSnapshot()
    for (role, restart) in restarts {
      guard let reply = restart.reply, now >= reply.end else { continue }
      reply.refuse(
        "\(role) is not up after \(Self.restartPatience / 1_000_000_000) seconds")
      restarts[role]?.reply = nil
    }
  }

  // MARK: - Devices

  /// Hands a request on to a device and its reply back.
  func forward<M: WireCodable>(
    _ packet: Packet, to role: String, as request: Request, _ type: M.Type, _ client: Channel,
    medium: (message: MediumMessage, image: [Descriptor])? = nil
  ) throws(Refusal) {
    let message: M = try decode(packet)
    machine.handOnCollected()
    guard forwards.count < Self.mostForwards else { throw Refusal("too much is under way") }
    guard let link = machine.links.first(where: { $0.role == role }),
      let ask = link.begin(request, message, packet.descriptors, signal: machine.eventFile)
    else {
      throw Refusal("\(role) is not there")
    }
    forwards.append(
      Forward(
        role: role, ask: ask,
        reply: PendingReply(packet, client, patience: Self.forwardPatience), medium: medium))
  }

  /// Has a drive change its disc, and the launcher remember it.
  func changeMedium(_ packet: Packet, _ client: Channel) throws(Refusal) {
    let message: MediumRequest = try decode(packet)
    let isInserted = message.action == .insert
    guard packet.descriptors.count == (isInserted ? 1 : 0) else {
      throw Refusal("one image comes with insert, none with eject")
    }
    try forward(
      packet, to: "ide", as: .medium, MediumRequest.self, client,
      medium: (MediumMessage(slot: message.slot, isPresent: isInserted), packet.descriptors))
  }

  /// Has the launcher start a device anew; the answer comes when it is up.
  func restart(_ packet: Packet, _ client: Channel) throws(Refusal) {
    let message: DeviceRequest = try decode(packet)
    guard let link = machine.links.first(where: { $0.role == message.role }) else {
      throw Refusal("the machine has no device \(message.role)")
    }
    guard restarts[link.role]?.reply == nil else {
      throw Refusal("\(link.role) is being started anew already")
    }
    let process = link.state.withLock { state in
      state.isFaultReported = true
      state.record = DeviceLink.FaultRecord()
      return state.process
    }
    restarts[link.role] = Restart(
      process: process, reply: PendingReply(packet, client, patience: Self.restartPatience))
    tell(
      .fault,
      FaultMessage(role: link.role, kind: .operatorRestart, reason: "the operator asked for it"))
  }

  /// Deals with devices that are up again after the operator has started them anew.
  func settleRestarts() {
    for (role, restart) in restarts {
      guard let link = machine.links.first(where: { $0.role == role }),
        link.state.withLock({ link.status == .up && $0.process != restart.process })
      else { continue }
      restarts[role] = nil
      announce(EventMessage(.deviceRestarted, detail: role))
      if held.remove(role) != nil, held.isEmpty { release() }
      restart.reply?.send(.reply, Empty().wireBytes)
    }
  }

  /// Lets the machine go on when no device holds it any more, unless the operator does.
  private func release() {
    guard isHeldByOperator else {
      machine.resume()
      announce(EventMessage(.resume))
      return
    }
    machine.progress.withLock { $0.reason = Self.operatorReason }
  }

  // MARK: - Holding

  static let operatorReason = "the operator asked for it"

  func pauseForOperator() {
    isHeldByOperator = true
    // The reason of a fault stays to be read.
    guard held.isEmpty, !machine.progress.withLock({ $0.state == "paused" }) else { return }
    machine.pause(Self.operatorReason)
    announce(EventMessage(.stop))
  }

  /// Holds the machine until the operator has seen to the host.
  func pauseForHost(_ reason: String) {
    isHeldByOperator = true
    guard machine.progress.withLock({ ["running", "suspended"].contains($0.state) }) else { return }
    CoreLog.line("the machine is held: \(reason)", .error)
    machine.pause(reason)
    announce(EventMessage(.stop, detail: reason))
  }

  func resumeForOperator() throws(Refusal) {
    if let link = machine.links.first(where: { $0.status != .up }) {
      throw Refusal(
        "\(link.role) is not up (\(link.status)); start it anew with: "
          + "vmctl device restart \(machine.settings.common.machine) \(link.role)")
    }
    isHeldByOperator = false
    held = []
    machine.debugger.goOn()
    guard machine.progress.withLock({ $0.state == "paused" }) else { return }
    machine.resume()
    announce(EventMessage(.resume))
  }
}
