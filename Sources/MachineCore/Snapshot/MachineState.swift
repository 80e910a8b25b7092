// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import InterruptControllers
internal import KVM
internal import LinuxSystem
internal import Processor
internal import SoftCPU
internal import Synchronization

/// What of a machine is saved besides its memory.
struct SavedState: Sendable {
  var description: MachineDescription
  var core: SavedCore
  var chips: SavedChips
  var vcpus: [VCPURecord]
  var devices: [SavedDevice]

  /// The sections of the file, in order.
  var sections: [(kind: StateFile.Section, content: [UInt8])] {
    [(.machine, description.wireBytes), (.core, core.wireBytes), (.chips, chips.wireBytes)]
      + vcpus.map { (.vcpu, $0.wireBytes) } + devices.map { (.device, $0.wireBytes) }
  }
}

/// The sections of a file as they come, until all but the memory is there.
struct StateCollector {
  private var description: MachineDescription?
  private var core: SavedCore?
  private var chips: SavedChips?
  private var vcpus: [VCPURecord] = []
  private var devices: [SavedDevice] = []

  mutating func take(_ kind: StateFile.Section, _ content: [UInt8]) throws(Refusal) {
    do throws(ProtocolError) {
      switch kind {
      case .machine: description = try MachineDescription(wireBytes: content)
      case .core: core = try SavedCore(wireBytes: content)
      case .chips: chips = try SavedChips(wireBytes: content)
      case .vcpu: vcpus.append(try VCPURecord(wireBytes: content))
      case .device: devices.append(try SavedDevice(wireBytes: content))
      case .memory, .end: break
      }
    } catch {
      throw Refusal("the state file is malformed, in its part \(kind): \(error.reason)")
    }
    guard vcpus.count <= 255, devices.count <= 16 else {
      throw Refusal("the state file is malformed: it has too many parts")
    }
  }

  /// What was collected, if it is whole and of this machine.
  func state(for machine: Machine) throws(Refusal) -> SavedState {
    guard let description, let core, let chips else {
      throw Refusal("the state file is malformed: parts are missing")
    }
    let own = MachineDescription(machine, tag: "", seconds: 0, nanoseconds: 0)
    try description.check(own)
    guard vcpus.count == machine.accelerator.count,
      devices.map(\.role) == machine.links.map(\.role)
    else { throw Refusal("the state file is malformed: vCPUs or devices are missing") }
    try machine.check(chips, vcpus)
    return SavedState(
      description: description, core: core, chips: chips, vcpus: vcpus, devices: devices)
  }
}

extension Machine {
  // MARK: - Saving

  /// What the machine, which stands, is made of besides its memory.
  func savedState(_ description: MachineDescription) throws(Refusal) -> SavedState {
    var devices: [SavedDevice] = []
    for link in links {
      guard link.status == .up else { throw Refusal("\(link.role) is not up") }
      devices.append(try link.savedDevice())
    }
    return SavedState(
      description: description, core: SavedCore(self), chips: try savedChips(),
      vcpus: try savedVCPUs(), devices: devices)
  }

  private func savedChips() throws(Refusal) -> SavedChips {
    switch accelerator {
    case .kvm(let kvm, _):
      do throws(KVMError) {
        return .kvm(try kvm.vm.chipState(), clock: try kvm.vm.clock())
      } catch {
        throw Refusal("\(error)")
      }
    case .soft(let soft, _):
      return .soft(
        StateRecord(of: soft.hub.models), frequency: soft.clock.frequency,
        timeStamp: soft.clock.timeStamp, gate: StateRecord(of: soft.a20Gate))
    }
  }

  private func savedVCPUs() throws(Refusal) -> [VCPURecord] {
    var records: [VCPURecord] = []
    switch accelerator {
    case .kvm(let kvm, _):
      do throws(KVMError) {
        for vcpu in kvm.vcpus { records.append(VCPURecord(try vcpu.state())) }
      } catch {
        throw Refusal("\(error)")
      }
    case .soft(let soft, _):
      for (index, vcpu) in soft.vcpus.enumerated() {
        guard let state = vcpu.parkedState.withLock({ $0 }) else {
          throw Refusal("CPU \(index) has not run yet")
        }
        records.append(VCPURecord(state, pendingStart: vcpu.pendingStart))
      }
    }
    return records
  }

  // MARK: - Loading

  /// How far two hosts' counters may differ, in parts of a million.
  private static let tolerance: UInt64 = 500

  /// Refuses what cannot be put into this machine's accelerator.
  func check(_ chips: SavedChips, _ vcpus: [VCPURecord]) throws(Refusal) {
    func compare(_ saved: UInt64, _ own: UInt64) throws(Refusal) {
      let difference = max(saved, own) - min(saved, own)
      guard own == 0 || saved == 0 || difference <= own / 1_000_000 * Self.tolerance + 1 else {
        throw Refusal(
          "the snapshot is of a time-stamp counter of \(saved) kHz, this host's has \(own) kHz")
      }
    }
    switch (accelerator, chips) {
    case (.kvm(let kvm, _), .kvm):
      let own = kvm.vcpus.first?.resetState.tscKHz ?? 0
      for vcpu in vcpus { try compare(UInt64(vcpu.state.tscKHz), UInt64(own)) }
    case (.soft, .soft(let models, let frequency, let timeStamp, let gate)):
      guard frequency > 0, timeStamp < 1 << 62 else {
        throw Refusal("the state file is malformed: a clock that never was")
      }
      try compare(frequency, GuestClock.hostFrequency)
      do throws(ProtocolError) {
        try models.check()
        try gate.check()
      } catch {
        throw Refusal("the state file is malformed: \(error.reason)")
      }
    default: throw Refusal("the state file is malformed: chips of another accelerator")
    }
  }

  /// Puts a saved state in the place of the present one, all but the memory.
  ///
  /// The vCPUs are parked, the clock stands, and no device has a process.
  func restore(_ saved: SavedState) throws {
    accelerator.collected?.discard()
    for (link, device) in zip(links, saved.devices) { try link.restore(device) }
    try saved.core.restore(self)
    switch (accelerator, saved.chips) {
    case (.kvm(let kvm, _), .kvm(let chips, let clock)):
      try kvm.vm.setChipState(chips)
      try kvm.vm.setClock(clock)
      for (vcpu, record) in zip(kvm.vcpus, saved.vcpus) {
        var state = record.state
        // The deadline is one of the counter, which is set before.
        let deadline: UInt32 = 0x6E0
        state.msrs =
          state.msrs.filter { $0.index != deadline } + state.msrs.filter { $0.index == deadline }
        _ = try vcpu.setState(state)
      }
    case (.soft(let soft, _), .soft(let record, let frequency, let timeStamp, let gateRecord)):
      soft.clock.set(timeStamp, frequency: frequency)
      var gate = A20Gate()
      try gateRecord.restore(&gate)
      soft.restore(gate, physical)
      for (vcpu, record) in zip(soft.vcpus, saved.vcpus) {
        vcpu.restore(record.state, pendingStart: record.pendingStart)
      }
      // The vCPUs first: what the models have for them is raised anew.
      var models = InterruptSystem(cpus: soft.vcpus.count, tscKHz: frequency)
      try record.restore(&models)
      soft.hub.restore(models)
    default: throw Refusal("chips of another accelerator")
    }
  }

  // MARK: - Memory

  /// The number of RAM among the memories.
  private static let ramNumber: UInt32 = .max

  /// Everything that the guest can write without a device, by number.
  var memories: [(id: UInt32, mapping: Mapping)] {
    [(Self.ramNumber, memory.mapping)]
      + links.flatMap { link in
        link.state.withLock { state in
          state.backings.map { (Board.memoryID(link, $0.claim.memory), $0.mapping) }
        }
      }
  }

  /// Notes that all RAM was written: code that was decoded there is void.
  func ramWasRestored() { physical.wasWritten(ram, offset: 0, count: memory.mapping.byteCount) }
}

extension DeviceLink {
  private func page() throws(Refusal) -> StatePage {
    do throws(ChannelError) {
      return try StatePage(statePage, byteCount: Int(settings.stateByteCount))
    } catch {
      throw Refusal("the state of \(role): \(error)")
    }
  }

  /// The last whole record of the device's state, and its bulk data.
  func savedDevice() throws(Refusal) -> SavedDevice {
    let page = try page()
    do throws(ProtocolError) {
      // A device may commit at any time, and after two commits the record read is another.
      for _ in 0..<1000 {
        guard let before = try page.committed(slots: 0) else { break }
        let bulk = page.bulk(at: 0, count: page.bulkByteCount)
        guard let after = try page.committed(slots: 0), after.number == before.number else {
          continue
        }
        let record = StateRecord(layout: before.layout, values: before.values)
        try record.check()
        return SavedDevice(role: role, record: record, bulk: bulk)
      }
    } catch {
      throw Refusal("the state of \(role): \(error.reason)")
    }
    throw Refusal("\(role) has no state that stands still")
  }

  /// Makes a saved state the one that the next process goes on from; there is none now.
  func restore(_ saved: SavedDevice) throws(Refusal) {
    let page = try page()
    do throws(ProtocolError) {
      var record = saved.record
      if let present = try page.committed(slots: 0) {
        record = try record.keeping(
          grants.isOfHost, of: StateRecord(layout: present.layout, values: present.values))
      }
      guard record.values.count <= StateLayoutInPage.mostValueBytes,
        saved.bulk.count <= page.bulkByteCount
      else { throw ProtocolError("it is too long") }
      try page.begin(layout: record.layout)
      page.setBulk(saved.bulk, at: 0)
      // Nothing is under way: the ring is done as far as it was filled, and no slot has a request.
      page.commit(
        number: 1, tail: head.load(ordering: .relaxed),
        sequences: [UInt32](repeating: 0, count: lane.slotCount), values: record.values)
    } catch {
      throw Refusal("the state of \(role): \(error.reason)")
    }
    clearSlots()
  }
}
