// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import InterruptControllers
internal import LinuxSystem
internal import SoftCPU
internal import Synchronization

/// The interrupt hardware of a machine without KVM: the models under one lock, the devices'
/// lines, and a thread for them and for the timers.
final class InterruptHub: Sendable {
  /// A line that a device's event file raises.
  private struct Line: Sendable {
    let gsi: UInt32
    let event: Descriptor
    /// Level-triggered: told when the guest has ended the interrupt.
    let ended: Descriptor?
  }

  private struct State: Sendable {
    var models: InterruptSystem
    var lines: [Line] = []
    /// Until when the thread sleeps, if not for ever.
    var armed: VMTime?
    var isEnding = false
  }

  private let vcpus: [SoftVCPU]
  private let clock: GuestClock
  private let state: Mutex<State>
  /// Wakes the thread: a deadline has come nearer, or the lines have changed.
  private let wake: Descriptor

  init(_ vcpus: [SoftVCPU], _ clock: GuestClock) throws(SystemError) {
    self.vcpus = vcpus
    self.clock = clock
    state = Mutex(
      State(models: InterruptSystem(cpus: vcpus.count, tscKHz: clock.frequency)))
    wake = try EventFile.make()
  }

  // MARK: - The models

  /// Uses the models, and passes on what has changed: interrupts, messages, ended lines.
  @discardableResult
  private func use<T: Sendable>(_ body: (inout InterruptSystem, VMTime) -> T) -> T {
    let now = clock.now
    let (result, isEarlier) = state.withLock { state in
      let result = body(&state.models, now)
      settle(&state)
      let next = state.models.nextDeadline
      let isEarlier = next.map { next in state.armed.map { next < $0 } ?? true } ?? false
      if isEarlier { state.armed = next }
      return (result, isEarlier)
    }
    if isEarlier { EventFile.signal(wake) }
    return result
  }

  private func settle(_ state: inout State) {
    // The lines are low already; a device that still holds its own raises it again.
    let ended = state.models.takeResamples()
    if ended != 0 {
      for line in state.lines where ended >> line.gsi & 1 != 0 {
        if let file = line.ended { EventFile.signal(file) }
      }
    }
    var changed: [Int] = []
    state.models.takeChanged { changed.append($0) }
    for cpu in changed {
      let events = state.models.takeEvents(cpu)
      if events.hasInit {
        state.models.initialize(cpu)
        vcpus[cpu].sendInit()
      }
      if let vector = events.startUp { vcpus[cpu].sendStartUp(vector) }
      if events.hasNMI { vcpus[cpu].raise(Attention.nmi) }
      if state.models.hasInterrupt(cpu) { vcpus[cpu].raise(Attention.interrupt) }
    }
  }

  // MARK: - For the machine

  /// Lets an event file raise a line, or pulse it without `ended`.
  func addLine(_ gsi: UInt32, _ event: Descriptor, ended: Descriptor?) {
    state.withLock { state in
      state.lines.append(Line(gsi: gsi, event: event, ended: ended))
      if ended != nil { state.models.setResampled(Int(gsi)) }
    }
    EventFile.signal(wake)
  }

  /// Puts the models back to their state after power-on; no vCPU runs.
  func reset() {
    state.withLock { state in
      state.models.reset()
      state.models.takeChanged { _ in }
      // A device that still holds its line says so again.
      for line in state.lines { if let ended = line.ended { EventFile.signal(ended) } }
    }
    EventFile.signal(wake)
  }

  /// What the models hold, to be saved.
  var models: InterruptSystem { state.withLock { $0.models } }

  /// Puts saved models in the place of these; no vCPU runs, and the clock stands.
  func restore(_ models: InterruptSystem) {
    state.withLock { state in
      state.models.take(models)
      settle(&state)
    }
    EventFile.signal(wake)
  }

  /// The clock has been started: deadlines come again.
  func clockHasStarted() { EventFile.signal(wake) }

  /// Lets the thread end.
  func end() {
    state.withLock { $0.isEnding = true }
    EventFile.signal(wake)
  }

  /// Sends a vCPU an NMI.
  func sendNMI(_ cpu: Int) { use { models, _ in models.sendNMI(cpu) } }

  // MARK: - The thread

  /// Serves the devices' lines and the timers until ``end()``.
  func serve() {
    var lines: [Line] = []
    var poller = Poller()
    poller.add(wake, .readable)
    while true {
      let now = clock.now
      let (timeout, isEnding) = state.withLock { state -> (UInt64?, Bool) in
        state.models.advance(to: now)
        settle(&state)
        if state.lines.count != lines.count {
          for line in state.lines[lines.count...] { poller.add(line.event, .readable) }
          lines = state.lines
        }
        // While the clock stands still nothing becomes due.
        state.armed = clock.isRunning ? state.models.nextDeadline : nil
        let wait = state.armed.map { $0 > now ? $0.nanoseconds - now.nanoseconds : 0 }
        return (wait, state.isEnding)
      }
      if isEnding { return }
      guard (try? poller.wait(timeout: timeout)) != nil else { continue }
      if poller[0] != [] { EventFile.drain(wake) }
      for (place, line) in lines.enumerated() where poller[place + 1] != [] {
        EventFile.drain(line.event)
        use { models, _ in
          if line.ended != nil {
            models.setLine(Int(line.gsi), true)
          } else {
            models.pulse(Int(line.gsi))
          }
        }
      }
    }
  }

  // MARK: - For vCPUs

  /// The vector to interrupt a vCPU with now.
  func acknowledge(cpu: Int) -> UInt8? {
    use { models, _ in
      let vector = models.acknowledge(cpu)
      // Another may wait behind it.
      if models.hasInterrupt(cpu) { vcpus[cpu].raise(Attention.interrupt) }
      return vector
    }
  }

  func taskPriority(cpu: Int) -> UInt8 { state.withLock { $0.models.control8(cpu) } }

  func setTaskPriority(_ value: UInt8, cpu: Int) {
    use { models, _ in models.setControl8(cpu, value) }
  }

  func readMSR(_ index: UInt32, cpu: Int) -> UInt64? {
    use { models, now in models.readMSR(cpu, index, at: now) }
  }

  func writeMSR(_ index: UInt32, _ value: UInt64, cpu: Int) -> Bool {
    use { models, now in models.writeMSR(cpu, index, value, at: now) }
  }

  static func hasPort(_ port: UInt16) -> Bool { InterruptSystem.hasPort(port) }

  func readPort(_ port: UInt16) -> UInt8 {
    use { models, now in
      // The guest may poll a timer whose tick is due right now.
      models.advance(to: now)
      return models.readPort(port, at: now)
    }
  }

  func writePort(_ port: UInt16, _ value: UInt8) {
    use { models, now in models.writePort(port, value, at: now) }
  }

  func readLocalAPIC(_ offset: UInt32, cpu: Int) -> UInt32 {
    use { models, now in
      models.advance(to: now)
      return models.readAPIC(cpu, offset, at: now)
    }
  }

  func writeLocalAPIC(_ offset: UInt32, _ value: UInt32, cpu: Int) {
    use { models, now in models.writeAPIC(cpu, offset, value, at: now) }
  }

  func readIOAPIC(_ offset: UInt64) -> UInt32 {
    state.withLock { $0.models.readIOAPIC(offset) }
  }

  func writeIOAPIC(_ offset: UInt64, _ value: UInt32) {
    use { models, _ in models.writeIOAPIC(offset, value) }
  }

  /// What the chips hold, for the operator.
  var registers: ChipRegisters { state.withLock { $0.models.registers } }

  /// A vCPU's local APIC as KVM would say it, for reports.
  func localAPICPage(cpu: Int) -> [UInt8] {
    let now = clock.now
    return state.withLock { $0.models.apics[cpu].page(at: now) }
  }
}
