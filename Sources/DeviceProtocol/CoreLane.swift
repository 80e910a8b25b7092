// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

/// The core's side of a lane.
///
/// The device may write anything anywhere in the lane at any time: nothing is read back that
/// the core relies on, and every value read is masked or clipped before use.
public final class CoreLane: Sendable {
  /// The shared memory, for handing over.
  public let file: Descriptor
  private let memory: Mapping
  public let slotCount: Int

  /// Makes a lane with one slot for each of `slots` vCPUs.
  public init(name: String, slots: Int) throws(SystemError) {
    precondition((1...LaneLayout.mostSlots).contains(slots), "bad slot count")
    let byteCount = LaneLayout.byteCount(slots: slots)
    file = try MemoryFile.make("\(name)-lane", byteCount: byteCount)
    memory = try Mapping(file, byteCount: byteCount, .readWrite)
    slotCount = slots
    memory.store(LaneLayout.magic, at: LaneLayout.magicOffset)
    memory.store(LaneLayout.version, at: LaneLayout.versionOffset)
    memory.store(UInt32(slots), at: LaneLayout.slotCountOffset)
  }

  /// Wakes the device if it sleeps.
  private func bumpDoorbell() {
    memory.add32(1, at: LaneLayout.doorbellOffset)
    if memory.loadSequential32(at: LaneLayout.sleepingOffset) != 0 {
      memory.wake(at: LaneLayout.doorbellOffset)
    }
  }

  // MARK: - Live accesses

  /// Puts a request into a slot and rings.
  ///
  /// - Precondition: the slot is idle; only its vCPU's thread uses it.
  public func submit(_ access: LaneAccess, slot: Int, sequence: UInt32) {
    putFields(access, slot: slot, sequence: sequence)
    let at = LaneLayout.slot(slot)
    memory.store(UInt32(0), at: at + LaneLayout.slotReplyItems)
    memory.release32(SlotState.requested, at: at + LaneLayout.slotState)
    bumpDoorbell()
  }

  private func putFields(_ access: LaneAccess, slot: Int, sequence: UInt32) {
    let at = LaneLayout.slot(slot)
    memory.store(access.operation.rawValue, at: at + LaneLayout.slotOperation)
    memory.store(access.width, at: at + LaneLayout.slotWidth)
    memory.store(access.region, at: at + LaneLayout.slotRegion)
    memory.store(access.offset, at: at + LaneLayout.slotRegisterOffset)
    memory.store(access.value, at: at + LaneLayout.slotValue)
    memory.store(access.items, at: at + LaneLayout.slotItems)
    memory.store(sequence, at: at + LaneLayout.slotSequence)
    memory.store(access.descriptorBytes, at: at + LaneLayout.slotDescriptorBytes)
    memory.store(access.window, at: at + LaneLayout.slotWindow)
  }

  /// Whether the reply is there.
  @inline(__always)
  public func isAnswered(_ slot: Int) -> Bool {
    memory.acquire32(at: LaneLayout.slot(slot) + LaneLayout.slotState) == SlotState.answered
  }

  /// Whether the device waits for a copy before it replies.
  @inline(__always)
  public func isCopying(_ slot: Int) -> Bool {
    memory.acquire32(at: LaneLayout.slot(slot) + LaneLayout.slotState) == SlotState.copying
  }

  /// What the device wants copied; `nil` when it is no copy.
  public func copy(_ slot: Int) -> DMARequest? {
    let at = LaneLayout.slot(slot)
    let window = memory.load(UInt32.self, at: at + LaneLayout.slotCopyWindow)
    let code = memory.load(UInt32.self, at: at + LaneLayout.slotCopyDirection)
    guard let window = UInt16(exactly: window),
      let direction = UInt8(exactly: code).flatMap(DMARequest.Direction.init(rawValue:)),
      direction != .close
    else { return nil }
    return DMARequest(
      window: window, direction: direction,
      windowOffset: memory.load(UInt64.self, at: at + LaneLayout.slotCopyWindowOffset),
      bounceOffset: memory.load(UInt32.self, at: at + LaneLayout.slotCopyBounceOffset),
      byteCount: memory.load(UInt32.self, at: at + LaneLayout.slotCopyByteCount))
  }

  /// Ends a copy; `nil` says that its window is not open.
  public func endCopy(_ slot: Int, _ byteCount: UInt32?) {
    let at = LaneLayout.slot(slot)
    memory.store(byteCount ?? UInt32.max, at: at + LaneLayout.slotCopyDone)
    memory.release32(SlotState.requested, at: at + LaneLayout.slotState)
  }

  /// Sleeps until the reply is there, a copy is wanted, or `timeout` nanoseconds are over; may return early.
  public func sleep(_ slot: Int, timeout: UInt64) {
    let at = LaneLayout.slot(slot)
    memory.storeSequential32(1, at: at + LaneLayout.slotWaiting)
    memory.wait(at: at + LaneLayout.slotState, while: SlotState.requested, timeout: timeout)
    memory.storeSequential32(0, at: at + LaneLayout.slotWaiting)
  }

  /// Takes the reply and makes the slot idle.
  public func take(_ slot: Int) -> (value: UInt64, items: UInt32) {
    let at = LaneLayout.slot(slot)
    let value = memory.load(UInt64.self, at: at + LaneLayout.slotReplyValue)
    let items = memory.load(UInt32.self, at: at + LaneLayout.slotReplyItems)
    memory.release32(SlotState.idle, at: at + LaneLayout.slotState)
    return (value, items)
  }

  /// Takes a request back that nobody will answer.
  public func abandon(_ slot: Int) {
    memory.release32(SlotState.idle, at: LaneLayout.slot(slot) + LaneLayout.slotState)
  }

  /// Whether a slot with a request holds something else than a request or its reply.
  public func isGarbled(_ slot: Int) -> Bool {
    let state = memory.acquire32(at: LaneLayout.slot(slot) + LaneLayout.slotState)
    return state != SlotState.requested && state != SlotState.answered
      && state != SlotState.copying
  }

  /// Writes a request's fields again, for a successor, whatever was written over them.
  ///
  /// The reply that may be prepared in the slot stays as it is.
  ///
  /// - Precondition: `access` and `sequence` are those of the slot's last ``submit``.
  public func restate(_ access: LaneAccess, slot: Int, sequence: UInt32) {
    putFields(access, slot: slot, sequence: sequence)
    // A copy is done again with the request.
    guard isGarbled(slot) || isCopying(slot) else { return }
    memory.release32(
      SlotState.requested, at: LaneLayout.slot(slot) + LaneLayout.slotState)
    bumpDoorbell()
  }

  /// Writes the header and the ring's head again, for a successor.
  public func renew(head: UInt32) {
    memory.store(LaneLayout.magic, at: LaneLayout.magicOffset)
    memory.store(LaneLayout.version, at: LaneLayout.versionOffset)
    memory.store(UInt32(slotCount), at: LaneLayout.slotCountOffset)
    memory.storeSequential32(head, at: LaneLayout.headOffset)
  }

  /// The slot's block: where it begins in ``blockMemory``.
  public func blockOffset(_ slot: Int) -> Int { LaneLayout.slot(slot) + LaneLayout.slotBlock }

  /// The lane's memory, for copying blocks; use only with ``blockOffset(_:)``.
  public var blockMemory: Mapping { memory }

  // MARK: - Posted writes

  /// Puts a posted write into the ring at `head`; `false` when there is no room.
  ///
  /// - Precondition: the caller serialises this over all vCPUs and keeps `head` itself.
  public func post(_ access: LaneAccess, head: UInt32) -> Bool {
    let taken = memory.acquire32(at: LaneLayout.tailOffset)
    guard head &- taken < UInt32(LaneLayout.ringCapacity) else { return false }
    let index = Int(head % UInt32(LaneLayout.ringCapacity))
    let at = LaneLayout.ringOffset + index * LaneLayout.ringEntryBytes
    memory.store(access.offset, at: at)
    memory.store(access.value, at: at + 8)
    memory.store(access.region, at: at + 16)
    memory.store(access.width, at: at + 18)
    memory.storeSequential32(head &+ 1, at: LaneLayout.headOffset)
    bumpDoorbell()
    return true
  }

  /// Whether the device has taken every posted write up to `head`.
  @inline(__always)
  public func isDrained(head: UInt32) -> Bool {
    memory.acquire32(at: LaneLayout.tailOffset) == head
  }

  // MARK: - Counters

  /// What the device says of one of its counters: any number, good for telling the operator.
  public func counter(_ index: Int) -> UInt64 {
    precondition(index < LaneLayout.counters, "no such counter")
    return memory.acquire64(at: LaneLayout.countersOffset + 8 * index)
  }

  // MARK: - Mirrored reads

  /// Returns a mirrored register's value, or `nil` when the device must be asked.
  @inline(__always)
  public func mirrored(_ entry: Int, head: UInt32) -> UInt32? {
    // In this order: a device publishes the value first and says then that the ring is done.
    let isDrained = isDrained(head: head)
    let word = memory.acquire64(at: LaneLayout.registersOffset + 8 * entry)
    guard word & LaneLayout.entryValid != 0 else { return nil }
    guard word & LaneLayout.entryValidWithPosts != 0 || isDrained else { return nil }
    return UInt32(truncatingIfNeeded: word >> 32)
  }
}
