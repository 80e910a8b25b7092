// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

extension UART16550 {
  /// The number of ports that the chip decodes.
  public static let portCount: UInt16 = 8

  /// Whether a write at `offset` may be posted.
  ///
  /// Only THR (and DLL in its place): nothing reads it back, its effects are seen through
  /// live or mirrored reads of this chip, which come after it, and the outgoing queue has
  /// room for a whole ring of them. The others change the interrupt line or decoding at
  /// once and are rare.
  public static func isPostedWrite(at offset: UInt16) -> Bool { offset == Register.data }

  /// Reads `width` bytes from `offset` on, each from a register of its own.
  ///
  /// Bytes past the eighth register read as ones: the bus floats.
  public mutating func read(at offset: UInt16, width: AccessWidth, now: VMTime) -> UInt64 {
    advance(to: now)
    var value: UInt64 = 0
    for lane in 0..<width.rawValue {
      let register = offset &+ UInt16(lane)
      value |= UInt64(readRegister(register, now: now)) << (8 * UInt64(lane))
    }
    return value
  }

  /// Writes `width` bytes of `value` from `offset` on, each to a register of its own.
  public mutating func write(
    _ value: UInt64, at offset: UInt16, width: AccessWidth, now: VMTime
  ) {
    advance(to: now)
    for lane in 0..<width.rawValue {
      let byte = UInt8(truncatingIfNeeded: value >> (8 * UInt64(lane)))
      writeRegister(byte, at: offset &+ UInt16(lane), now: now)
    }
  }

  /// The register at `offset` as a read would find it; only values without a side effect
  /// may be mirrored.
  ///
  /// RBR always has one, even when empty, because a character may arrive.
  public func peek(at offset: UInt16) -> Peek {
    switch offset {
    case Register.data:
      hasDivisorLatch
        ? Peek(value: UInt8(truncatingIfNeeded: divisor), hasSideEffect: false)
        : Peek(value: received.first ?? 0, hasSideEffect: true)
    case Register.interruptEnable:
      Peek(
        value: hasDivisorLatch ? UInt8(divisor >> 8) : interruptEnable.rawValue,
        hasSideEffect: false)
    case Register.interruptIdentification: interruptIdentification
    case Register.lineControl: Peek(value: lineControl.rawValue, hasSideEffect: false)
    case Register.modemControl: Peek(value: modemControl.rawValue, hasSideEffect: false)
    case Register.lineStatus: lineStatus
    case Register.modemStatus: modemStatus
    case Register.scratch: Peek(value: scratch, hasSideEffect: false)
    default: Peek(value: 0xFF, hasSideEffect: false)
    }
  }

  /// LSR (8.4); reading it clears the error bits, if there are any.
  public var lineStatus: Peek {
    var status = lineErrors
    if !received.isEmpty { status.insert(.dataReady) }
    if !isThrottled { status.formUnion([.holdingEmpty, .transmitterEmpty]) }
    if hasFIFOs, receivedErrors.hasNonZero { status.insert(.errorInFIFO) }
    return Peek(
      value: status.rawValue, hasSideEffect: !status.intersection(.errors).isEmpty)
  }

  /// MSR (8.9); reading it clears the delta bits, if there are any.
  public var modemStatus: Peek {
    Peek(value: visibleModemLines.rawValue | modemDeltas, hasSideEffect: modemDeltas != 0)
  }

  /// IIR (8.6); reading it ends the THRE interrupt, if that is the source.
  public var interruptIdentification: Peek {
    let current = source
    return Peek(
      value: current.rawValue | (hasFIFOs ? 0xC0 : 0),
      hasSideEffect: current == .transmitterEmpty)
  }

  // MARK: Registers

  var hasFIFOs: Bool { fifoControl.contains(.enable) }
  private var hasDivisorLatch: Bool { lineControl.contains(.divisorLatch) }

  /// The pending source of the highest priority (8.6, table IV).
  var source: InterruptSource {
    if interruptEnable.contains(.lineStatus), !lineErrors.intersection(.errors).isEmpty {
      return .lineStatus
    }
    if interruptEnable.contains(.received) {
      if received.count >= (hasFIFOs ? fifoControl.trigger : 1) { return .received }
      if isTimeoutPending { return .receiveTimeout }
    }
    if interruptEnable.contains(.transmitterEmpty), isTransmitPending { return .transmitterEmpty }
    if interruptEnable.contains(.modemStatus), modemDeltas != 0 { return .modemStatus }
    return .none
  }

  private mutating func readRegister(_ offset: UInt16, now: VMTime) -> UInt8 {
    let value = peek(at: offset).value
    switch offset {
    case Register.data where !hasDivisorLatch: takeReceived(now: now)
    case Register.interruptIdentification:
      if source == .transmitterEmpty { isTransmitPending = false }
    case Register.lineStatus:
      lineErrors = []
      receivedErrors.replaceFirst(0)
    case Register.modemStatus: modemDeltas = 0
    default: break
    }
    return value
  }

  private mutating func writeRegister(_ byte: UInt8, at offset: UInt16, now: VMTime) {
    switch offset {
    case Register.data where hasDivisorLatch: divisor = divisor & 0xFF00 | UInt16(byte)
    case Register.data: send(byte, now: now)
    case Register.interruptEnable where hasDivisorLatch:
      divisor = divisor & 0x00FF | UInt16(byte) << 8
    case Register.interruptEnable: enableInterrupts(InterruptEnable(rawValue: byte & 0x0F))
    case Register.interruptIdentification: controlFIFOs(FIFOControl(rawValue: byte), now: now)
    case Register.lineControl: controlLine(LineControl(rawValue: byte), now: now)
    case Register.modemControl:
      let old = visibleModemLines
      modemControl = ModemControl(rawValue: byte & 0x1F)
      recordModemChange(from: old)
    case Register.scratch: scratch = byte
    default: break  // LSR is for factory tests only, MSR is read only, the rest is not ours
    }
  }

  /// THR: the byte leaves at once, so the THRE interrupt ends and starts again (8.6).
  private mutating func send(_ byte: UInt8, now: VMTime) {
    if interrupt, source == .transmitterEmpty { hasPulsed = true }
    isTransmitPending = false
    if modemControl.contains(.loopback) {
      accept(byte & lineControl.dataMask, errors: [], now: now)
    } else if !queue.push(byte) {
      lostCount &+= 1
    }
    if queue.count > Self.throttleLevel { isThrottled = true }
    if isThrottled { hasPulsed = false } else { isTransmitPending = true }
  }

  mutating func resumeIfDrained() {
    guard isThrottled, queue.count <= Self.resumeLevel else { return }
    isThrottled = false
    isTransmitPending = true
  }

  /// IER: enabling the THRE interrupt with the transmitter empty raises it at once.
  private mutating func enableInterrupts(_ new: InterruptEnable) {
    let enabled = new.subtracting(interruptEnable)
    interruptEnable = new
    if enabled.contains(.transmitterEmpty), !isThrottled { isTransmitPending = true }
  }

  /// FCR: turning the FIFOs on or off empties them; without bit 0 nothing else counts (8.5).
  private mutating func controlFIFOs(_ new: FIFOControl, now: VMTime) {
    let isEnabled = new.contains(.enable)
    if isEnabled != hasFIFOs || isEnabled && new.contains(.clearReceiver) {
      received.removeAll()
      receivedErrors.removeAll()
      isTimeoutPending = false
      lastReceiverActivity = now
    }
    fifoControl = isEnabled ? new.subtracting([.clearReceiver, .clearTransmitter]) : []
  }

  private mutating func controlLine(_ new: LineControl, now: VMTime) {
    let startsBreak = new.contains(.breakControl) && !lineControl.contains(.breakControl)
    lineControl = new
    if startsBreak, modemControl.contains(.loopback) {
      accept(0, errors: .breakInterrupt, now: now)
    }
  }

  // MARK: Receiver

  /// Puts a character into the receiver (8.4; FIFO operation, 8.11).
  mutating func accept(_ byte: UInt8, errors: ReceiveError, now: VMTime) {
    if hasFIFOs {
      // A full FIFO keeps what it has; the shift register is overwritten.
      guard received.push(byte) else { return lineErrors.formUnion(.overrun) }
    } else {
      // The holding register is overwritten.
      if received.pop() != nil { lineErrors.insert(.overrun) }
      receivedErrors.removeAll()
      guard received.push(byte) else { return }
    }
    _ = receivedErrors.push(errors.rawValue)
    lastReceiverActivity = now
    if received.count == 1 { revealErrors() }
  }

  private mutating func takeReceived(now: VMTime) {
    guard received.pop() != nil else { return }
    receivedErrors.drop(1)
    isTimeoutPending = false
    lastReceiverActivity = now
    revealErrors()
  }

  /// Errors show in LSR when their character is at the top of the FIFO (8.4).
  private mutating func revealErrors() {
    lineErrors.formUnion(LineStatus(rawValue: receivedErrors.first ?? 0))
  }

  // MARK: Modem lines

  /// The modem inputs as MSR shows them: the pins, or the outputs in loopback.
  var visibleModemLines: ModemLines {
    modemControl.contains(.loopback) ? modemControl.looped : modemInputs
  }

  /// Sets the delta bits; RI has only its trailing edge, TERI (8.9, bit 2).
  mutating func recordModemChange(from old: ModemLines) {
    let new = visibleModemLines
    var changed = old.symmetricDifference(new)
    if new.contains(.ringIndicator) { changed.remove(.ringIndicator) }
    modemDeltas |= changed.rawValue >> 4
  }
}
