// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor
internal import Synchronization

/// Snapshots: how they begin and end, and what is asked of the launcher and the drives for them.
extension MachineControl {
  static let snapshotReason = "a snapshot is being saved or loaded"

  /// What may be asked while there is work on a snapshot: nothing that changes the machine.
  static func isQuiet(_ request: ControlRequest) -> Bool {
    switch request {
    case .status, .metrics, .traceRecords, .ports, .logLevel, .stop, .subscribe, .functions,
      .addressMap:
      true
    default: false
    }
  }

  /// Begins what the operator wants; the answer comes at its end, or at once for a job.
  func snapshot(_ packet: Packet, _ client: Channel) throws(Refusal) {
    let request: SnapshotRequest = try decode(packet)
    if [.save, .load, .delete].contains(request.action), !SnapshotTag.isGood(request.tag) {
      throw Refusal(
        "'\(request.tag)' cannot name a snapshot: a name has 1 to \(SnapshotTag.longest) bytes, "
          + "no slash or space, and no dot in front")
    }
    guard isStarted, held.isEmpty else { throw Refusal("the machine is not up") }
    if let link = machine.links.first(where: { $0.status != .up }) {
      throw Refusal("\(link.role) is not up (\(link.status))")
    }
    let isJob = !request.job.isEmpty
    let work = SnapshotWork(
      request, isJob ? nil : PendingReply(packet, client, patience: 1 << 62), .openingFile)
    switch request.action {
    case .list:
      work.step = .listingDisks
      try askDrives(work, work.drives(.list))
    case .save:
      askLauncher(
        work, .stateFile,
        StateFileRequest(.create, tag: request.tag, isReplaced: request.isReplaced))
    case .load: askLauncher(work, .stateFile, StateFileRequest(.open, tag: request.tag))
    case .delete:
      work.step = .deletingDisks
      try standStill(work)
      do throws(Refusal) {
        try askDrives(work, work.drives(.delete, isOwn: false))
      } catch {
        goOn(work)
        throw error
      }
    case .overlay:
      askLauncher(
        work, .overlay, OverlayRequest(.create, slot: request.slot, path: request.path))
    }
    self.work = work
    if isJob { reply(client, packet, SnapshotReply()) }
  }

  /// Goes on with the work, as far as what it waits for is there.
  func settleSnapshot() {
    guard let work else { return }
    do throws(Refusal) {
      try advance(work)
    } catch {
      fail(work, error.reason)
    }
  }

  // MARK: - Holding the machine

  /// Makes the machine stand between two instructions, with nothing on its way to a device.
  func standStill(_ work: SnapshotWork) throws(Refusal) {
    let state = machine.progress.withLock { $0.state }
    // A suspended machine's clock and devices go on.
    let isRunning = state == "running" || state == "suspended"
    guard machine.park(timeout: 2_000_000_000, strictly: true) else {
      if state == "running" { machine.release() }
      throw Refusal("a vCPU waits for a device")
    }
    let end = HostClock.monotonic() + 2_000_000_000
    func waits(_ condition: () -> Bool) -> Bool {
      while !condition() {
        guard HostClock.monotonic() < end else { return false }
        HostClock.sleep(1_000_000)
      }
      return true
    }
    let areHandedOn = waits {
      machine.handOnCollected()
      return machine.accelerator.collected?.isEmpty ?? true
    }
    if isRunning {
      work.wasRunning = true
      machine.pause(Self.snapshotReason)
      announce(EventMessage(.stop))
    }
    let areTaken = waits {
      machine.links.allSatisfy { $0.lane.isDrained(head: $0.head.load(ordering: .acquiring)) }
    }
    guard areHandedOn, areTaken else {
      goOn(work)
      throw Refusal("a device has not taken what the guest wrote")
    }
  }

  /// Whether the guest has asked for a reset, for sleep or to wake, and that is still to be done.
  var isResetDue: Bool {
    (postponed + machine.waitingEvents()).contains {
      switch $0 {
      case .reset, .suspend, .wake: true
      default: false
      }
    }
  }

  /// Lets the machine go on if it ran before, and nothing else holds it.
  func goOn(_ work: SnapshotWork) {
    guard work.wasRunning else { return }
    work.wasRunning = false
    guard held.isEmpty, !isHeldByOperator else { return }
    machine.resume()
    announce(EventMessage(.resume))
  }

  // MARK: - Asking

  /// Asks the launcher; its reply comes to ``SnapshotWork/answer``.
  func askLauncher<M: WireCodable>(
    _ work: SnapshotWork, _ request: LaunchRequest, _ message: M
  ) {
    launcherSequence &+= 1
    work.awaited = launcherSequence
    work.answer = nil
    work.end = HostClock.monotonic() + SnapshotWork.patience
    // A launcher that is gone is found out by its channel.
    try? launcher.send(
      request.rawValue, sequence: launcherSequence, payload: message.wireBytes)
  }

  /// Takes a reply of the launcher's.
  func hearReply(_ packet: Packet) {
    guard let work, packet.header.sequence == work.awaited else { return }
    work.answer = packet
  }

  /// The launcher's reply; `nil` while there is none.
  func answer(_ work: SnapshotWork) throws(Refusal) -> Packet? {
    guard let packet = work.answer else {
      guard HostClock.monotonic() < work.end else {
        throw Refusal("vmlaunch did not answer in time")
      }
      return nil
    }
    work.answer = nil
    if packet.header.flags.contains(.refusal) { throw try decode(packet) as Refusal }
    return packet
  }

  /// Asks vmdev-ide; ``drivesReply(_:)`` has its reply.
  func askDrives(
    _ work: SnapshotWork, _ message: DriveSnapshotRequest, _ descriptors: [Descriptor] = []
  ) throws(Refusal) {
    guard let link = machine.links.first(where: { $0.role == "ide" }),
      let ask = link.begin(.snapshot, message, descriptors, signal: machine.eventFile)
    else { throw Refusal("ide is not there") }
    work.ask = ask
    work.end = HostClock.monotonic() + SnapshotWork.patience
  }

  /// The reply of vmdev-ide; `nil` while there is none.
  func drivesReply(_ work: SnapshotWork) throws(Refusal) -> DriveSnapshotReply? {
    guard let ask = work.ask else { throw Refusal("ide was asked nothing") }
    let now = HostClock.monotonic()
    guard ask.isOver || now >= work.end else { return nil }
    work.ask = nil
    guard let packet = ask.finish(by: now) else {
      throw Refusal("ide has ended, or did not answer in time")
    }
    if packet.header.flags.contains(.refusal) { throw try decode(packet) as Refusal }
    return try decode(packet)
  }

  // MARK: - The end

  /// Ends the work with a reason, and undoes what can be undone.
  func fail(_ work: SnapshotWork, _ reason: String) {
    if work.isPastReturn {
      end(2, "the snapshot '\(work.request.tag)' could not be loaded: \(reason)")
    }
    let hasTouchedDisks = work.hasTouchedDisks
    switch work.request.action {
    case .save: askLauncher(work, .stateFile, StateFileRequest(.discard, tag: work.request.tag))
    case .overlay: askLauncher(work, .overlay, OverlayRequest(.discard, slot: work.request.slot))
    case .list, .load, .delete: break
    }
    guard hasTouchedDisks, (try? askDrives(work, work.drives(.delete))) != nil else {
      return finish(work, failure: reason)
    }
    work.step = .undoing(reason)
  }

  /// Ends the work, lets the machine go on, and tells who waits for it.
  func finish(
    _ work: SnapshotWork, failure: String? = nil, _ result: SnapshotReply = SnapshotReply()
  ) {
    self.work = nil
    goOn(work)
    // What the guest or a device wanted meanwhile; of a machine that is no more, nothing.
    let isReplaced = work.request.action == .load && failure == nil
    if !isReplaced { for event in postponed { machine.post(event) } }
    postponed = []
    if let failure {
      CoreLog.line("snapshot: \(failure)", .warning)
      work.reply?.refuse(failure)
    } else {
      work.reply?.send(.reply, result.wireBytes)
    }
    guard !work.request.job.isEmpty else { return }
    announce(
      EventMessage(
        .snapshotEnded,
        detail: failure.map { "\(work.request.job) \($0)" } ?? work.request.job))
  }
}
