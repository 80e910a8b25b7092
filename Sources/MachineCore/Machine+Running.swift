// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import KVM
internal import LinuxSystem
internal import PCI
internal import Processor
internal import Synchronization

/// Holding, resetting and ending the machine.
extension Machine {
  /// Makes every vCPU park, and waits until all have.
  ///
  /// One that waits for a device runs no guest code either, and counts unless `strictly`.
  /// Returns whether all did in time.
  @discardableResult
  func park(timeout: UInt64 = 10_000_000_000, strictly: Bool = false) -> Bool {
    mode.value = Mode.park
    accelerator.kick()
    let end = HostClock.monotonic() + timeout
    while true {
      let count = parked.value
      let held = strictly ? 0 : waiting.load(ordering: .sequentiallyConsistent)
      guard count + held < UInt32(accelerator.count) else { return true }
      guard HostClock.monotonic() < end else { return false }
      parked.wait(while: count, timeout: 10_000_000)
      accelerator.kick()
    }
  }

  /// Lets the vCPUs run.
  public func run() {
    startClocks()
    let isSuspended = progress.withLock {
      $0.state = $0.isSuspended ? "suspended" : "running"
      $0.reason = ""
      return $0.isSuspended
    }
    if !isSuspended { release() }
  }

  /// Holds the vCPUs until the machine is reset; the clock and the devices go on.
  ///
  /// Returns whether it was running.
  func suspend() -> Bool {
    let isRunning = progress.withLock {
      $0.isSuspended = true
      guard $0.state == "running" else { return false }
      $0.state = "suspended"
      return true
    }
    guard isRunning else { return false }
    // One that waits for a device, which may have died, parks when it has its answer.
    guard park() else {
      post(.end(code: 2, reason: "a vCPU did not stop for the machine to be suspended"))
      return true
    }
    handOnCollected()
    return true
  }

  private func startClocks() {
    accelerator.startClock()
    clock.start()
  }

  /// Lets the vCPUs go, and waits until none counts as parked any more.
  func release() {
    mode.value = Mode.run
    let end = HostClock.monotonic() + 1_000_000_000
    while HostClock.monotonic() < end {
      let count = parked.value
      guard count > 0 else { return }
      parked.wait(while: count, timeout: 10_000_000)
    }
  }

  /// Hands on the writes that KVM has collected, as far as nobody has to wait for a device.
  func handOnCollected() {
    guard let collected = accelerator.collected, !collected.isEmpty else { return }
    collected.handOn(snapshot())
  }

  /// Holds the vCPUs and the clock.
  func pause(_ reason: String) {
    park()
    handOnCollected()
    clock.stop()
    accelerator.stopClock()
    askAll(.pause, by: HostClock.monotonic() + 2_000_000_000)
    progress.withLock {
      $0.state = "paused"
      $0.reason = reason
    }
  }

  /// Undoes ``pause(_:)``.
  func resume() {
    guard progress.withLock({ $0.state == "paused" }) else { return }
    startClocks()
    askAll(.resume, by: HostClock.monotonic() + 2_000_000_000)
    run()
  }

  /// Brings the whole machine up again: as new, or as one that wakes from suspend to RAM.
  func reset(isWaking: Bool = false) throws(KVMError) {
    let isRunning = progress.withLock { progress in
      progress.isSuspended = false
      if progress.state == "suspended" { progress.state = "running" }
      return progress.state == "running"
    }
    abandoning.store(true, ordering: .sequentiallyConsistent)
    defer { abandoning.store(false, ordering: .sequentiallyConsistent) }
    guard park(strictly: true) else {
      post(.end(code: 2, reason: "a vCPU did not stop for a reset"))
      return
    }
    accelerator.collected?.discard()
    let begun = links.map { $0.beginReset(isWaking: isWaking) }
    let end = HostClock.monotonic() + 5_000_000_000
    for (link, one) in zip(links, begun) { link.finishReset(one, by: end, self) }
    do throws(ProtocolError) {
      try change { board throws(ProtocolError) in board.reset(isWaking: isWaking) }
    } catch {
      post(.end(code: 2, reason: error.reason))
    }
    try accelerator.reset(physical)
    abandoning.store(false, ordering: .sequentiallyConsistent)
    if isRunning { release() }
  }

  /// Asks all devices that are up, and waits for their replies until `end`.
  private func askAll(_ request: Request, by end: UInt64) {
    let asks = links.compactMap { $0.begin(request, Empty()) }
    for ask in asks { _ = ask.finish(by: end) }
  }

  /// Ends the devices in an orderly way; what they hold is on the host afterwards.
  ///
  /// It takes 5 seconds at most, less than the launcher waits for the core.
  func quit() {
    guard !isEnding else { return }
    let end = HostClock.monotonic() + 5_000_000_000
    park(timeout: 2_000_000_000)
    handOnCollected()
    ending.store(true, ordering: .sequentiallyConsistent)
    mode.value = Mode.end
    accelerator.end()
    askAll(.quit, by: end)
  }
}
