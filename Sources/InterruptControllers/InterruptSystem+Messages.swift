// SPDX-License-Identifier: Apache-2.0

/// Messages between the I/O APIC, devices and local APICs (SDM volume 3, 10.6).
extension InterruptSystem {
  /// Delivers a message to the local APICs that it is for; returns whether one has taken it.
  @discardableResult
  public mutating func deliver(_ message: InterruptMessage) -> Bool {
    deliver(message, fromX2: false)
  }

  mutating func deliver(_ message: InterruptMessage, fromX2: Bool) -> Bool {
    if message.mode == .lowestPriority {
      var best: Int?
      for cpu in apics.indices
      where apics[cpu].isSoftwareEnabled
        && apics[cpu].matches(
          message.destination, isLogical: message.isLogical, fromX2: fromX2)
      {
        if let other = best, apics[other].processorPriority <= apics[cpu].processorPriority {
          continue
        }
        best = cpu
      }
      guard let best else { return false }
      return send(message, to: best)
    }
    var isAccepted = false
    for cpu in apics.indices
    where apics[cpu].matches(message.destination, isLogical: message.isLogical, fromX2: fromX2) {
      if send(message, to: cpu) { isAccepted = true }
    }
    return isAccepted
  }

  mutating func send(_ message: InterruptMessage, to cpu: Int) -> Bool {
    // An error that the message has caused is to be seen as well.
    defer { mark(cpu) }
    switch message.mode {
    case .fixed, .lowestPriority:
      return apics[cpu].accept(message.vector, isLevel: message.isLevel)
    case .nmi: events[cpu].hasNMI = true
    case .initialize:
      events[cpu].hasInit = true
      events[cpu].startUp = nil
    case .startUp: events[cpu].startUp = message.vector
    // There is no SMM, and the 8259A's interrupts come by LINT0 alone.
    case .external, .smi: return false
    }
    return true
  }

  /// Carries out what a local APIC's interrupt command register says (10.6.1).
  mutating func command(_ value: UInt64, from cpu: Int) {
    guard let mode = InterruptMessage.Mode(rawValue: UInt8(value >> 8 & 7)) else { return }
    // The de-assertion of an INIT does nothing on these processors.
    if mode == .initialize, value & 1 << 15 != 0, value & 1 << 14 == 0 { return }
    let isX2 = apics[cpu].isX2
    let isFixed = mode == .fixed || mode == .lowestPriority
    let message = InterruptMessage(
      vector: UInt8(truncatingIfNeeded: value), mode: mode,
      destination: UInt32(truncatingIfNeeded: isX2 ? value >> 32 : value >> 56),
      isLogical: value & 1 << 11 != 0, isLevel: false)
    if isFixed, message.vector < 16 {
      apics[cpu].raiseError(LocalAPIC.ErrorBit.sentIllegalVector)
      mark(cpu)
      return
    }
    switch value >> 18 & 3 {
    case 1:
      // To itself only what is fixed (table 10-3).
      if mode == .fixed { _ = send(message, to: cpu) }
    case 2: for other in apics.indices where apics[other].isEnabled { _ = send(message, to: other) }
    case 3:
      for other in apics.indices where other != cpu && apics[other].isEnabled {
        _ = send(message, to: other)
      }
    default: _ = deliver(message, fromX2: isX2)
    }
  }

  // MARK: - The I/O APIC's

  /// Sends an input's message.
  mutating func service(_ pin: Int) {
    guard let message = ioapic.message(pin) else { return }
    let isAccepted = deliver(message)
    if isAccepted, message.isLevel { ioapic.noteAccepted(pin) }
  }

  /// Sends the messages of all levels that still wait.
  mutating func serviceLevels() {
    let levels = ioapic.levels
    guard levels != 0 else { return }
    for pin in 0..<IOAPIC.pinCount where levels >> UInt32(pin) & 1 != 0 {
      if ioapic.message(pin)?.isLevel == true { service(pin) }
    }
  }

  /// The interrupts of inputs have ended.
  mutating func noteEnd(pins: UInt32) {
    // Pin 2 has line 0, the timer's.
    noteEnd(lines: pins & ~7 | pins & 2 | (pins & 4) >> 2)
    serviceLevels()
  }

  mutating func endOfInterrupt(_ cpu: Int) {
    guard let end = apics[cpu].endOfInterrupt() else { return }
    if end.isBroadcast {
      noteEnd(pins: ioapic.endOfInterrupt(end.vector, isLevel: end.isLevel))
    }
    if end.isLevel { updateLINT0() }
    if apics[cpu].pendingVector != nil { mark(cpu) }
  }
}
