// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// All interrupt hardware of a PC: two 8259A, an 8254, an I/O APIC, and a local APIC for each
/// vCPU, wired as on the i440FX machine.
///
/// Nothing here waits or has a clock; who runs it holds a lock around each call, calls
/// ``advance(to:)`` when ``nextDeadline`` comes, and after each call looks at
/// ``takeChanged(_:)``.
public struct InterruptSystem: Sendable {
  public internal(set) var apics: [LocalAPIC]
  var pics = I8259Pair()
  var timer = I8254()
  var ioapic = IOAPIC()
  /// What waits for each vCPU besides interrupts.
  var events: [Events]
  /// vCPUs whose interrupts or events may have changed.
  private var changed: [Bool]
  private var hasChanged = false
  /// Lines that go low by themselves when their interrupt ends, and of which that is told.
  private var resampled: UInt32 = 0
  private var resamples: UInt32 = 0
  /// The 8259A's INTR as LINT0 last saw it.
  private var hadINTR = false
  /// When channel 0 of the 8254 rises next.
  var timerDue: VMTime?
  /// Ticks of channel 0 that the guest has not been given yet.
  var owedTicks: UInt32 = 0
  /// How often each line was raised.
  var counts = [UInt64](repeating: 0, count: IOAPIC.pinCount)
  /// The latest time that the timers have seen.
  var latest = VMTime.zero
  /// The low four bits of port 61h.
  var systemControlB: UInt8 = 0
  /// The time-stamp counter's frequency in kHz.
  let tscKHz: UInt64

  /// What other processors or lines have sent a vCPU.
  public struct Events: Equatable, Sendable {
    public var hasNMI = false
    public var hasInit = false
    /// The vector of a start-up message.
    public var startUp: UInt8?
  }

  /// - Precondition: 1 to 255 vCPUs; `tscKHz` is not zero.
  public init(cpus: Int, tscKHz: UInt64) {
    precondition((1...255).contains(cpus) && tscKHz > 0, "no such machine")
    apics = (0..<cpus).map { LocalAPIC(id: UInt32($0), isBoot: $0 == 0) }
    events = [Events](repeating: Events(), count: cpus)
    changed = [Bool](repeating: false, count: cpus)
    self.tscKHz = tscKHz
  }

  /// Back to the state after power-on; the wiring stays.
  public mutating func reset() {
    let kept = resampled
    self = InterruptSystem(cpus: apics.count, tscKHz: tscKHz)
    resampled = kept
    pics.resampled = UInt16(truncatingIfNeeded: kept)
    for cpu in apics.indices { mark(cpu) }
  }

  /// Takes the state of a saved system; the wiring and the counts of interrupts stay.
  ///
  /// - Precondition: it has as many vCPUs.
  public mutating func take(_ saved: InterruptSystem) {
    precondition(saved.apics.count == apics.count, "another machine's interrupts")
    let (wiring, counted) = (resampled, counts)
    self = saved
    counts = counted
    resampled = wiring
    pics.resampled = UInt16(truncatingIfNeeded: wiring)
    for cpu in apics.indices { mark(cpu) }
  }

  // MARK: - vCPUs

  mutating func mark(_ cpu: Int) {
    changed[cpu] = true
    hasChanged = true
  }

  /// Calls `body` with each vCPU that may have something new to see to.
  public mutating func takeChanged(_ body: (Int) -> Void) {
    guard hasChanged else { return }
    hasChanged = false
    for cpu in changed.indices where changed[cpu] {
      changed[cpu] = false
      body(cpu)
    }
  }

  /// Whether an interrupt waits that the vCPU's APIC would let through.
  public func hasInterrupt(_ cpu: Int) -> Bool {
    apics[cpu].pendingVector != nil || apics[cpu].acceptsExternal && pics.hasInterrupt
  }

  /// The vector to interrupt a vCPU with now, taken into service.
  public mutating func acknowledge(_ cpu: Int) -> UInt8? {
    guard apics[cpu].acceptsExternal, pics.hasInterrupt else { return apics[cpu].acknowledge() }
    let vector = pics.acknowledge()
    picsHaveChanged()
    return vector
  }

  /// Takes what waits for a vCPU besides interrupts.
  public mutating func takeEvents(_ cpu: Int) -> Events {
    defer { events[cpu] = Events() }
    return events[cpu]
  }

  /// CR8 of a vCPU.
  public func control8(_ cpu: Int) -> UInt8 { apics[cpu].control8 }

  /// Sets CR8 of a vCPU.
  public mutating func setControl8(_ cpu: Int, _ value: UInt8) {
    apics[cpu].control8 = value
    mark(cpu)
  }

  /// The local APIC after the vCPU got its INIT.
  public mutating func initialize(_ cpu: Int) { apics[cpu].initialize() }

  /// Raises the NMI button's line, LINT1 of a vCPU's local APIC, for a moment.
  ///
  /// As on a PC it is the guest that decides what comes of it: nothing while LINT1 is masked.
  /// Without its local APIC a processor has the pin itself.
  public mutating func sendNMI(_ cpu: Int) {
    guard apics[cpu].isEnabled else {
      events[cpu].hasNMI = true
      mark(cpu)
      return
    }
    deliverLocal(apics[cpu].line1Entry, to: cpu)
  }

  // MARK: - Lines

  /// Makes a line one that the end of its interrupt lowers, as KVM's resampling does.
  public mutating func setResampled(_ gsi: Int) {
    if (0..<IOAPIC.pinCount).contains(gsi) { resampled |= 1 << UInt32(gsi) }
    pics.resampled = UInt16(truncatingIfNeeded: resampled)
  }

  /// Sets the level of an interrupt line: 0 to 15 are ISA's, to 23 the I/O APIC's alone.
  public mutating func setLine(_ gsi: Int, _ raised: Bool) {
    guard (0..<IOAPIC.pinCount).contains(gsi) else { return }
    if raised { counts[gsi] &+= 1 }
    if gsi < 16 {
      pics.setLine(UInt8(truncatingIfNeeded: gsi), raised)
      picsHaveChanged()
    }
    // Line 2 is the cascade; the timer's line 0 is at pin 2.
    guard gsi != 2 else { return }
    let pin = gsi == 0 ? 2 : gsi
    if ioapic.setLine(pin, raised) { service(pin) }
  }

  /// Raises a line and lowers it again.
  public mutating func pulse(_ gsi: Int) {
    setLine(gsi, true)
    setLine(gsi, false)
  }

  /// The resampled lines whose interrupt has ended since the last call, as bits; they are low.
  public mutating func takeResamples() -> UInt32 {
    defer { resamples = 0 }
    return resamples
  }

  /// The interrupts of lines have ended: those that are resampled go low before anything looks
  /// at them again, so that one that its device holds no longer does not interrupt twice.
  mutating func noteEnd(lines: UInt32) {
    let lowered = lines & resampled
    guard lowered != 0 else { return }
    resamples |= lowered
    for gsi in 0..<IOAPIC.pinCount where lowered >> UInt32(gsi) & 1 != 0 { setLine(gsi, false) }
  }

  /// Sees to what a change of the two 8259A has brought about.
  mutating func picsHaveChanged() {
    let ended = pics.takeEnded()
    if ended != 0 { noteEnd(lines: UInt32(ended)) }
    updateLINT0()
  }

  /// The 8259A's INTR is LINT0 of every local APIC.
  mutating func updateLINT0() {
    let isHigh = pics.hasInterrupt
    let isRising = isHigh && !hadINTR
    hadINTR = isHigh
    guard isHigh else { return }
    for cpu in apics.indices {
      if apics[cpu].acceptsExternal {
        mark(cpu)
        continue
      }
      let entry = apics[cpu].line0Entry
      guard apics[cpu].isEnabled, entry & LocalAPIC.Entry.masked == 0 else { continue }
      if entry & LocalAPIC.Entry.level != 0, entry >> 8 & 7 == 0 {
        guard entry & LocalAPIC.Entry.remoteIRR == 0 else { continue }
        if apics[cpu].accept(UInt8(truncatingIfNeeded: entry), isLevel: true) {
          apics[cpu].line0Entry |= LocalAPIC.Entry.remoteIRR
        }
        mark(cpu)
      } else if isRising {
        deliverLocal(entry, to: cpu)
      }
    }
  }

  /// Delivers what an entry of the local vector table says (SDM volume 3, 10.5.1).
  private mutating func deliverLocal(_ entry: UInt32, to cpu: Int) {
    guard entry & LocalAPIC.Entry.masked == 0,
      let mode = InterruptMessage.Mode(rawValue: UInt8(entry >> 8 & 7)),
      mode != .lowestPriority, mode != .startUp, mode != .external
    else { return }
    let message = InterruptMessage(
      vector: UInt8(truncatingIfNeeded: entry), mode: mode, destination: 0, isLogical: false,
      isLevel: false)
    _ = send(message, to: cpu)
  }
}

extension InterruptSystem.Events: DeviceState {
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("hasNMI", &hasNMI)
    visitor.field("hasInit", &hasInit)
    visitor.optional("startUp", &startUp)
  }
}

extension InterruptSystem: DeviceState {
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.parts("apic", &apics)
    visitor.part("pics", &pics)
    visitor.part("timer", &timer)
    visitor.part("ioapic", &ioapic)
    visitor.parts("events", &events)
    visitor.field("resamples", &resamples)
    visitor.field("hadINTR", &hadINTR)
    var due = timerDue?.nanoseconds
    visitor.optional("timerDue", &due)
    timerDue = due.map { VMTime(nanoseconds: $0) }
    visitor.field("owedTicks", &owedTicks)
    visitor.field("latest", &latest.nanoseconds)
    visitor.field("systemControlB", &systemControlB)
    resamples &= resampled
    owedTicks = min(owedTicks, Self.mostOwed)
    systemControlB &= 0x0F
    for cpu in apics.indices { mark(cpu) }
  }
}
