// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

/// The device's side of a lane.
public final class DeviceLane: Sendable {
  private let memory: Mapping
  public let slotCount: Int

  /// Maps a lane that came from the core, after checking that it is one.
  public init(_ file: Descriptor, slots: Int) throws(ChannelError) {
    do {
      guard MemoryFile.isSealed(file) else {
        throw ChannelError.broken(ProtocolError("the lane is not sealed"))
      }
      let byteCount = LaneLayout.byteCount(slots: slots)
      guard try file.size() >= UInt64(byteCount) else {
        throw ChannelError.broken(ProtocolError("the lane is too short for \(slots) slots"))
      }
      memory = try Mapping(file, byteCount: byteCount, .readWrite)
    } catch let error as SystemError {
      throw .system(error)
    } catch let error as ChannelError {
      throw error
    } catch {
      throw .closed
    }
    slotCount = slots
    guard memory.load(UInt32.self, at: LaneLayout.magicOffset) == LaneLayout.magic,
      memory.load(UInt32.self, at: LaneLayout.versionOffset) == LaneLayout.version,
      memory.load(UInt32.self, at: LaneLayout.slotCountOffset) == UInt32(slots)
    else { throw .broken(ProtocolError("the lane's header is wrong")) }
  }

  // MARK: - Waiting

  /// The doorbell's count; take it before looking for work.
  @inline(__always)
  public var doorbell: UInt32 { memory.acquire32(at: LaneLayout.doorbellOffset) }

  /// Rings the device's own doorbell, from another of its threads.
  public func wakeSelf() {
    memory.add32(1, at: LaneLayout.doorbellOffset)
    memory.wake(at: LaneLayout.doorbellOffset)
  }

  /// Sleeps while the doorbell still is `count`, at most `timeout` nanoseconds.
  public func sleep(doorbell count: UInt32, timeout: UInt64?) {
    memory.storeSequential32(1, at: LaneLayout.sleepingOffset)
    if memory.loadSequential32(at: LaneLayout.doorbellOffset) == count {
      memory.wait(at: LaneLayout.doorbellOffset, while: count, timeout: timeout)
    }
    memory.storeSequential32(0, at: LaneLayout.sleepingOffset)
  }

  /// Tells the core that the device is awake, after a restart.
  public func markAwake() { memory.storeSequential32(0, at: LaneLayout.sleepingOffset) }

  // MARK: - Live accesses

  /// Whether a slot holds a request.
  @inline(__always)
  public func isRequested(_ slot: Int) -> Bool {
    memory.acquire32(at: LaneLayout.slot(slot) + LaneLayout.slotState) == SlotState.requested
  }

  /// The number of the request in a slot.
  public func sequence(_ slot: Int) -> UInt32 {
    memory.load(UInt32.self, at: LaneLayout.slot(slot) + LaneLayout.slotSequence)
  }

  /// Takes a request's fields; `nil` when they are not those of a request.
  public func request(_ slot: Int) -> LaneAccess? {
    let at = LaneLayout.slot(slot)
    guard
      let operation = SlotOperation(
        rawValue: memory.load(UInt8.self, at: at + LaneLayout.slotOperation))
    else { return nil }
    let width = memory.load(UInt8.self, at: at + LaneLayout.slotWidth)
    let items = memory.load(UInt32.self, at: at + LaneLayout.slotItems)
    let descriptorBytes = memory.load(UInt32.self, at: at + LaneLayout.slotDescriptorBytes)
    guard Self.isWidth(width), items <= UInt32(LaneLayout.blockBytes) / UInt32(width),
      descriptorBytes <= UInt32(LaneLayout.blockBytes)
    else { return nil }
    return LaneAccess(
      operation, width: width, region: memory.load(UInt16.self, at: at + LaneLayout.slotRegion),
      offset: memory.load(UInt64.self, at: at + LaneLayout.slotRegisterOffset),
      value: memory.load(UInt64.self, at: at + LaneLayout.slotValue), items: items,
      descriptorBytes: descriptorBytes,
      window: memory.load(UInt32.self, at: at + LaneLayout.slotWindow))
  }

  private static func isWidth(_ width: UInt8) -> Bool {
    width == 1 || width == 2 || width == 4 || width == 8
  }

  /// Puts a reply into a slot, not yet visible to the core as one.
  public func prepare(_ slot: Int, value: UInt64, items: UInt32) {
    let at = LaneLayout.slot(slot)
    memory.store(value, at: at + LaneLayout.slotReplyValue)
    memory.store(items, at: at + LaneLayout.slotReplyItems)
  }

  /// Makes the prepared reply visible and wakes the core if it sleeps.
  public func answer(_ slot: Int) {
    let at = LaneLayout.slot(slot)
    memory.storeSequential32(SlotState.answered, at: at + LaneLayout.slotState)
    if memory.loadSequential32(at: at + LaneLayout.slotWaiting) != 0 {
      memory.wake(at: at + LaneLayout.slotState)
    }
  }

  /// How long a copy may take, in nanoseconds: it is memory to memory.
  private static let copyPatience: UInt64 = 2_000_000_000
  private static let copySpin: UInt64 = 1_000_000

  /// Has the vCPU that waits for the slot's reply copy between the bounce buffer and a window.
  ///
  /// - Precondition: the slot's request was taken and not answered.
  /// - Returns: How many bytes were copied; `nil` when the window is not open, or nobody waits
  ///   any more.
  public func copy(_ slot: Int, _ request: DMARequest) -> UInt32? {
    let at = LaneLayout.slot(slot)
    let state = at + LaneLayout.slotState
    guard memory.acquire32(at: state) == SlotState.requested else { return nil }
    memory.store(UInt32(request.window), at: at + LaneLayout.slotCopyWindow)
    memory.store(UInt32(request.direction.rawValue), at: at + LaneLayout.slotCopyDirection)
    memory.store(request.windowOffset, at: at + LaneLayout.slotCopyWindowOffset)
    memory.store(request.bounceOffset, at: at + LaneLayout.slotCopyBounceOffset)
    memory.store(request.byteCount, at: at + LaneLayout.slotCopyByteCount)
    memory.storeSequential32(SlotState.copying, at: state)
    if memory.loadSequential32(at: at + LaneLayout.slotWaiting) != 0 { memory.wake(at: state) }
    let start = HostClock.monotonic()
    while memory.acquire32(at: state) == SlotState.copying {
      let time = HostClock.monotonic() - start
      guard time < Self.copyPatience else { return nil }
      if time > Self.copySpin {
        memory.wait(at: state, while: SlotState.copying, timeout: Self.copySpin)
      }
      for _ in 0..<64 { Thread.relax() }
    }
    guard memory.acquire32(at: state) == SlotState.requested else { return nil }
    let done = memory.load(UInt32.self, at: at + LaneLayout.slotCopyDone)
    return done == UInt32.max ? nil : done
  }

  /// Copies bytes out of a slot's block.
  public func block(_ slot: Int, count: Int) -> [UInt8] {
    memory.bytes(
      at: LaneLayout.slot(slot) + LaneLayout.slotBlock, count: min(count, LaneLayout.blockBytes))
  }

  /// Copies bytes into a slot's block.
  public func setBlock(_ slot: Int, _ bytes: [UInt8]) {
    precondition(bytes.count <= LaneLayout.blockBytes, "block too long")
    memory.copy(bytes, to: LaneLayout.slot(slot) + LaneLayout.slotBlock)
  }

  // MARK: - Posted writes

  /// How many posted writes there have ever been, modulo 2^32.
  @inline(__always)
  public var head: UInt32 { memory.loadSequential32(at: LaneLayout.headOffset) }

  /// Takes the posted write with a number; `nil` when it is not one.
  public func posted(_ number: UInt32) -> LaneAccess? {
    let index = Int(number % UInt32(LaneLayout.ringCapacity))
    let at = LaneLayout.ringOffset + index * LaneLayout.ringEntryBytes
    let width = memory.load(UInt8.self, at: at + 18)
    guard Self.isWidth(width) else { return nil }
    return LaneAccess(
      .write, width: width, region: memory.load(UInt16.self, at: at + 16),
      offset: memory.load(UInt64.self, at: at), value: memory.load(UInt64.self, at: at + 8))
  }

  /// Tells the core that every posted write below `number` is done.
  public func setTail(_ number: UInt32) { memory.release32(number, at: LaneLayout.tailOffset) }

  // MARK: - Counters

  /// Adds to one of the counters that the operator is told; on one thread only.
  ///
  /// A successor goes on from where the process before it was.
  public func count(_ value: UInt64, in index: Int) {
    precondition(index < LaneLayout.counters, "no such counter")
    let at = LaneLayout.countersOffset + 8 * index
    memory.release64(memory.acquire64(at: at) &+ value, at: at)
  }

  /// What was counted so far.
  public func counter(_ index: Int) -> UInt64 {
    precondition(index < LaneLayout.counters, "no such counter")
    return memory.acquire64(at: LaneLayout.countersOffset + 8 * index)
  }

  // MARK: - Mirrored reads

  /// Publishes a mirrored register's value, or takes it back with `nil`.
  public func mirror(_ entry: Int, _ value: UInt32?, withPosts: Bool = false) {
    precondition(entry < LaneLayout.registerEntries, "no such register entry")
    var word: UInt64 = 0
    if let value {
      word = UInt64(value) << 32 | LaneLayout.entryValid
      if withPosts { word |= LaneLayout.entryValidWithPosts }
    }
    memory.release64(word, at: LaneLayout.registersOffset + 8 * entry)
  }
}
