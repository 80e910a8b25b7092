// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor
internal import Synchronization

/// Register accesses, on a vCPU's thread.
extension DeviceLink {
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
        return answered(count >> shift & width.mask, region, offset, width, cpu)
      }
      let posted = head.load(ordering: .acquiring)
      guard let value = lane.mirrored(Int(register.entry), head: posted) else { break }
      return answered(UInt64(value) >> shift & width.mask, region, offset, width, cpu)
    }
    let access = LaneAccess(
      .read, width: width.rawValue, region: region.region, offset: offset)
    guard let reply = live(access, &cpu) else { return width.floating }
    return reply.value & width.mask
  }

  /// Counts a read that the core has answered itself, and gives its value back.
  @inline(__always)
  private func answered(
    _ value: UInt64, _ region: RegionTarget, _ offset: UInt64, _ width: AccessWidth,
    _ cpu: borrowing CPUContext
  ) -> UInt64 {
    mirroredCount.add(1, ordering: .relaxed)
    if trace.isOn {
      trace.note(
        LaneAccess(.read, width: width.rawValue, region: region.region, offset: offset),
        .mirrored, value, of: self, cpu: cpu.slot)
    }
    return value
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
    } else if region.isPosted(offset, width), post(access, cpu: cpu.slot) {
      return
    }
    _ = live(access, &cpu)
  }

  /// Puts a write into the ring; `false` when it has to be done as a live one.
  ///
  /// Of what KVM has collected nobody knows whose it is: there is no `cpu`.
  func post(_ access: LaneAccess, cpu: Int? = nil) -> Bool {
    guard !isResetDue.load(ordering: .acquiring) else { return false }
    let posted = posting.withLock { _ in
      let number = head.load(ordering: .relaxed)
      guard lane.post(access, head: number) else { return false }
      head.store(number &+ 1, ordering: .releasing)
      return true
    }
    guard posted else { return false }
    postedCount.add(1, ordering: .relaxed)
    if trace.isOn { trace.note(access, .posted, access.value, of: self, cpu: cpu) }
    return true
  }

  /// Puts a request into the vCPU's slot and waits for the answer.
  ///
  /// Returns `nil` when there is nobody to answer: the machine ends or is reset.
  func live(_ access: LaneAccess, _ cpu: inout CPUContext) -> (value: UInt64, items: UInt32)? {
    guard !cpu.machine.isAbandoning else { return nil }
    while isResetDue.load(ordering: .acquiring) {
      // The guest has begun anew and must not meet the state of before.
      guard !cpu.machine.isEnding, !cpu.machine.isAbandoning else { return nil }
      cpu.whileWaiting { HostClock.sleep(1_000_000) }
    }
    liveCount.add(1, ordering: .relaxed)
    let sequence = cpu.nextSequence(index)
    flight.release32(sequence, at: 4 * cpu.slot)
    defer { flight.release32(0, at: 4 * cpu.slot) }
    let start = HostClock.monotonic()
    lane.submit(access, slot: cpu.slot, sequence: sequence)
    if cpu.mayBeSpun(index) {
      var end = start + CPUContext.spinWindow
      var copies = 0
      repeat {
        for _ in 0..<64 {
          if lane.isAnswered(cpu.slot) {
            cpu.spun(index, hit: true)
            return finish(access, lane.take(cpu.slot), since: start, cpu.slot)
          }
          Thread.relax()
        }
        if lane.isCopying(cpu.slot), copies < Self.mostCopies {
          copyForDevice(cpu)
          copies += 1
          end = HostClock.monotonic() + CPUContext.spinWindow
        }
      } while HostClock.monotonic() < end
      cpu.spun(index, hit: false)
    }
    let context = cpu
    guard let answer = context.whileWaiting({ sleep(access, sequence, context) }) else {
      return nil
    }
    return finish(access, answer, since: start, cpu.slot)
  }

  /// Counts an access that was answered, and gives the answer back.
  @inline(__always)
  private func finish(
    _ access: LaneAccess, _ answer: (value: UInt64, items: UInt32), since start: UInt64,
    _ slot: Int
  ) -> (value: UInt64, items: UInt32) {
    let latency = HostClock.monotonic() - start
    meter.add(latency, access.operation, slot: slot)
    if trace.isOn {
      let value = access.operation == .read ? answer.value : access.value
      trace.note(access, .live, value, of: self, cpu: slot, latency: latency)
    }
    return answer
  }

  /// How many copies a device may ask for before what it takes for an answer is looked at.
  private static let mostCopies = 16

  /// Copies for the device, which waits for that before it answers this vCPU.
  private func copyForDevice(_ cpu: CPUContext) {
    var byteCount: UInt32?
    let process = state.withLock { $0.process }
    do throws(ChannelError) {
      guard let request = lane.copy(cpu.slot) else {
        throw .broken(ProtocolError("no copy in its slot"))
      }
      byteCount = try transfer(request, cpu.machine)
    } catch {
      cpu.machine.fault(self, process, .protocolBroken, "\(error)")
    }
    lane.endCopy(cpu.slot, byteCount)
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
      guard !cpu.machine.isEnding, !cpu.machine.isAbandoning else {
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
      if lane.isCopying(slot) { copyForDevice(cpu) }
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
}
