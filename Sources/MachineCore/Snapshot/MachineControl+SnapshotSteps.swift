// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor
internal import Synchronization

/// The steps of the work on a snapshot, one after the other.
extension MachineControl {
  func advance(_ work: SnapshotWork) throws(Refusal) {
    switch work.step {
    case .openingFile: try openFile(work)
    case .replacingDisks:
      guard try drivesReply(work) != nil else { return }
      try saveDisks(work)
    case .savingDisks:
      guard try drivesReply(work) != nil, let file = work.file else { return }
      var writer = try StateFileWriter(file)
      let description = MachineDescription(
        machine, tag: work.request.tag, seconds: work.seconds, nanoseconds: work.nanoseconds)
      for (kind, content) in try machine.savedState(description).sections {
        guard content.count <= StateFile.mostContent else {
          throw Refusal("the part \(kind) of the machine's state is too long")
        }
        try writer.add(kind, content)
      }
      work.step = .savingMemory(writer, MemorySaver(machine.memories))
    case .savingMemory(var writer, var saver):
      guard try saver.step(&writer, budget: SnapshotWork.budget) else {
        work.step = .savingMemory(writer, saver)
        return
      }
      try writer.add(.end, [])
      work.step = .committingFile
      askLauncher(work, .stateFile, StateFileRequest(.commit, tag: work.request.tag))
      // All of it has to go to the host's disk, which takes as long as it takes.
      work.end = .max
    case .committingFile:
      guard try answer(work) != nil else { return }
      finish(work)
    case .verifying(let reader, let collector, let loader):
      try verify(work, reader, collector, loader)
    case .checkingDisks(let saved):
      guard try drivesReply(work) != nil else { return }
      try askDrives(work, Self.request(.apply, saved))
      work.step = .applyingDisks(saved)
    case .applyingDisks(let saved):
      guard try drivesReply(work) != nil else { return }
      for link in machine.links { expectEnd(of: link) }
      work.step = .endingDevices(saved)
      askLauncher(work, .endDevices, Empty())
    case .endingDevices(let saved):
      guard try answer(work) != nil, let file = work.file else { return }
      work.step = .loadingMemory(
        saved, try StateFileReader(file), MemoryLoader(machine.memories, writes: true))
    case .loadingMemory(let saved, let reader, let loader):
      try loadMemory(work, saved, reader, loader)
    case .startingDevices(let old):
      let areUp = old.allSatisfy { role, process in
        guard let link = machine.links.first(where: { $0.role == role }) else { return false }
        return link.state.withLock { link.status == .up && $0.process != process }
      }
      guard areUp else {
        guard HostClock.monotonic() < work.end else {
          throw Refusal("the devices were not up in time")
        }
        return
      }
      finish(work)
    case .deletingDisks:
      guard let reply = try drivesReply(work) else { return }
      work.step = .deletingFile(!reply.entries.isEmpty)
      askLauncher(work, .stateFile, StateFileRequest(.delete, tag: work.request.tag))
    case .deletingFile(let hadDisks):
      guard let packet = try answer(work) else { return }
      let reply: StateFileReply = try decode(packet)
      guard hadDisks || !reply.files.isEmpty else {
        throw Refusal("there is no snapshot '\(work.request.tag)'")
      }
      finish(work)
    case .listingDisks:
      guard let reply = try drivesReply(work) else { return }
      work.step = .listingFiles(reply)
      askLauncher(work, .stateFile, StateFileRequest(.list))
    case .listingFiles(let disks):
      guard let packet = try answer(work) else { return }
      finish(work, Self.list(disks, try decode(packet)))
    case .makingOverlay:
      guard try drivesReply(work) != nil else { return }
      guard let link = machine.links.first(where: { $0.role == "ide" }) else { return }
      expectEnd(of: link)
      work.oldProcess = link.state.withLock { $0.process }
      work.step = .usingOverlay
      askLauncher(work, .overlay, OverlayRequest(.use, slot: work.request.slot))
    case .usingOverlay: try useOverlay(work)
    case .undoing(let reason):
      guard let ask = work.ask, !ask.isOver, HostClock.monotonic() < work.end else {
        return finish(work, failure: reason)
      }
    }
  }

  // MARK: - Saving

  private func openFile(_ work: SnapshotWork) throws(Refusal) {
    guard let packet = try answer(work) else { return }
    guard let file = packet.descriptors.first else { throw Refusal("no file came along") }
    work.file = file
    switch work.request.action {
    case .save:
      try standStill(work)
      // The devices' states say that it was asked for; only here it is done.
      guard !isResetDue else { throw Refusal("the guest is being reset, or goes to sleep") }
      guard work.request.isReplaced else { return try saveDisks(work) }
      work.step = .replacingDisks
      try askDrives(work, work.drives(.delete, isOwn: false))
    case .load:
      work.step = .verifying(
        try StateFileReader(file), StateCollector(),
        MemoryLoader(machine.memories, writes: false))
    case .overlay:
      let below: OverlayReply = try decode(packet)
      try standStill(work)
      work.step = .makingOverlay
      try askDrives(
        work,
        DriveSnapshotRequest(
          .overlay, slot: work.request.slot, backing: below.backing, backingFormat: below.format),
        [file])
    case .list, .delete: break
    }
  }

  private func saveDisks(_ work: SnapshotWork) throws(Refusal) {
    work.step = .savingDisks
    try askDrives(work, work.drives(.create, clock: machine.clock.now().nanoseconds))
  }

  // MARK: - Loading

  private static func request(
    _ action: DriveSnapshotRequest.Action, _ saved: SavedState
  ) -> DriveSnapshotRequest {
    DriveSnapshotRequest(
      action, tag: saved.description.tag, seconds: saved.description.seconds,
      nanoseconds: saved.description.nanoseconds)
  }

  private func verify(
    _ work: SnapshotWork, _ reader: StateFileReader, _ collector: StateCollector,
    _ loader: MemoryLoader
  ) throws(Refusal) {
    var (reader, collector, loader) = (reader, collector, loader)
    let start = reader.done
    while reader.done - start < UInt64(SnapshotWork.budget) {
      guard let (kind, content) = try reader.next() else {
        let saved = try collector.state(for: machine)
        guard saved.description.tag == work.request.tag else {
          throw Refusal("the state file is of the snapshot '\(saved.description.tag)'")
        }
        try standStill(work)
        work.step = .checkingDisks(saved)
        return try askDrives(work, Self.request(.check, saved))
      }
      if kind == .memory { try loader.take(content) } else { try collector.take(kind, content) }
    }
    work.step = .verifying(reader, collector, loader)
  }

  private func loadMemory(
    _ work: SnapshotWork, _ saved: SavedState, _ reader: StateFileReader, _ loader: MemoryLoader
  ) throws(Refusal) {
    var (reader, loader) = (reader, loader)
    let start = reader.done
    while reader.done - start < UInt64(SnapshotWork.budget) {
      guard let (kind, content) = try reader.next() else {
        loader.finish()
        machine.ramWasRestored()
        do {
          try machine.restore(saved)
        } catch {
          throw Refusal("\(error)")
        }
        return startDevices(work)
      }
      if kind == .memory { try loader.take(content) }
    }
    work.step = .loadingMemory(saved, reader, loader)
  }

  /// Has the launcher start every device on its state page.
  private func startDevices(_ work: SnapshotWork) {
    var old: [String: UInt32] = [:]
    for link in machine.links { old[link.role] = link.state.withLock { $0.process } }
    work.step = .startingDevices(old)
    work.end = HostClock.monotonic() + SnapshotWork.patience
    for link in machine.links {
      tell(
        .fault,
        FaultMessage(role: link.role, kind: .operatorRestart, reason: "a snapshot is loaded"))
    }
  }

  /// A device's process will end, and that is no fault.
  private func expectEnd(of link: DeviceLink) {
    link.state.withLock { state in
      state.isFaultReported = true
      state.record = DeviceLink.FaultRecord()
    }
  }

  // MARK: - Others

  private func useOverlay(_ work: SnapshotWork) throws(Refusal) {
    guard let link = machine.links.first(where: { $0.role == "ide" }) else { return }
    do throws(Refusal) {
      guard try answer(work) != nil else { return }
    } catch {
      link.state.withLock { $0.isFaultReported = false }
      throw error
    }
    // The number of the old process: the new one's channel may be there already.
    work.step = .startingDevices(["ide": work.oldProcess])
    work.end = HostClock.monotonic() + SnapshotWork.patience
  }

  private static func list(_ disks: DriveSnapshotReply, _ files: StateFileReply) -> SnapshotReply {
    var entries: [SnapshotReply.Entry] = []
    func place(_ tag: String) -> Int {
      if let index = entries.firstIndex(where: { $0.tag == tag }) { return index }
      entries.append(SnapshotReply.Entry(tag: tag))
      return entries.count - 1
    }
    for file in files.files { entries[place(file.tag)].byteCount = file.byteCount }
    for disk in disks.entries {
      let index = place(disk.tag)
      entries[index].seconds = disk.seconds
      entries[index].clock = disk.clock
      entries[index].drives |= 1 << disk.slot
    }
    return SnapshotReply(entries: entries.sorted { ($0.seconds, $0.tag) < ($1.seconds, $1.tag) })
  }
}
