// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem
internal import Processor
internal import SoftCPU
internal import Synchronization

/// A software vCPU as other threads see it: what is asked of it, and its sleep.
final class SoftVCPU: Sendable {
  let attention = Attention()
  private let gate: Gate
  private let isAsleep = Atomic<Bool>(false)
  /// Whether its thread executes the guest's code, so that a change of the memory map waits.
  private let isInGuest = Atomic<Bool>(false)
  private let start = Atomic<UInt32>(0)
  private let resets = Atomic<UInt32>(0)
  /// The state that the vCPU was last parked with.
  let parkedState = Mutex<VCPUState?>(nil)
  /// The state that it is to run on with, where somebody has changed it while it was parked.
  let changedState = Mutex<VCPUState?>(nil)

  init() throws(SystemError) { gate = try Gate() }

  // MARK: - For others

  /// Asks for something (``Attention``), and wakes the vCPU for it.
  func raise(_ mask: UInt32) {
    attention.raise(mask)
    // In one order with `sleep`: either it sees what was raised, or this sees that it sleeps.
    if isAsleep.load(ordering: .sequentiallyConsistent) { gate.add(1) }
  }

  /// Makes the thread look at what the machine wants.
  func kick() { raise(Attention.leave) }

  private static let initBit: UInt32 = 1 << 31
  private static let startBit: UInt32 = 1 << 8

  /// An INIT message has come.
  func sendInit() {
    // A start-up message before it is void.
    start.store(Self.initBit, ordering: .sequentiallyConsistent)
    kick()
  }

  /// A start-up message has come.
  func sendStartUp(_ vector: UInt8) {
    start.bitwiseOr(Self.startBit | UInt32(vector), ordering: .sequentiallyConsistent)
    kick()
  }

  /// INIT and start-up messages that its thread has not seen yet, to be saved.
  var pendingStart: UInt32 { start.load(ordering: .sequentiallyConsistent) }

  /// Gives the vCPU, whose thread is parked, a saved state to run on with.
  func restore(_ state: VCPUState, pendingStart: UInt32) {
    attention.clear(Attention.interrupt | Attention.nmi | Attention.smi)
    start.store(pendingStart, ordering: .sequentiallyConsistent)
    parkedState.withLock { $0 = state }
    changedState.withLock { $0 = state }
  }

  /// Puts the vCPU back to its first state before it runs on; its thread is parked.
  func reset() {
    start.store(0, ordering: .sequentiallyConsistent)
    resets.add(1, ordering: .sequentiallyConsistent)
  }

  /// Waits until the vCPU does not use translations from before the last change of the map.
  ///
  /// One that is between two instructions, or waits for a device, does not.
  func waitForFlush(until end: UInt64) {
    while isInGuest.load(ordering: .sequentiallyConsistent),
      attention.pending & Attention.mapChanged != 0, HostClock.monotonic() < end
    {
      Thread.relax()
    }
  }

  // MARK: - For its thread

  /// What ``sendInit()`` and ``sendStartUp(_:)`` have asked for since the last call.
  func takeStart() -> (isInit: Bool, vector: UInt8?) {
    guard start.load(ordering: .relaxed) != 0 else { return (false, nil) }
    let word = start.exchange(0, ordering: .sequentiallyConsistent)
    return (
      word & Self.initBit != 0,
      word & Self.startBit != 0 ? UInt8(truncatingIfNeeded: word) : nil
    )
  }

  /// How often the vCPU was reset.
  var resetCount: UInt32 { resets.load(ordering: .sequentiallyConsistent) }

  func enterGuest() { isInGuest.store(true, ordering: .sequentiallyConsistent) }
  func leaveGuest() { isInGuest.store(false, ordering: .sequentiallyConsistent) }

  /// Sleeps until something is asked for that `wakes` is true of.
  func sleep(until wakes: (UInt32) -> Bool) {
    while true {
      let count = gate.value
      isAsleep.store(true, ordering: .sequentiallyConsistent)
      let mayGoOn = wakes(attention.pending)
      if !mayGoOn { gate.wait(while: count) }
      isAsleep.store(false, ordering: .sequentiallyConsistent)
      if mayGoOn { return }
    }
  }
}
