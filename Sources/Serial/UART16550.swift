// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// A 16550A UART: its registers, receive FIFO and outgoing queue, without the wire.
///
/// The endpoint hands host input to ``receive(_:errors:now:)`` while ``canReceive`` holds,
/// takes guest output with ``transmit()`` or ``outgoing(_:)`` and ``dropOutgoing(_:)``,
/// drives the IRQ line from ``interrupt`` after every input and calls ``advance(to:)`` at
/// ``deadline``. Section numbers are those of the National PC16550D data sheet.
///
/// The wire is as fast as the back end: a byte written to THR leaves the transmitter at
/// once, for a queue of ``queueCapacity`` bytes. Guests see THRE and TEMT set as long as the
/// queue has room. When more than ``throttleLevel`` bytes wait, both go to zero until the
/// back end has drained the queue to ``resumeLevel``. A guest may have bytes on their way
/// at that moment: 16 that it writes after one look at THRE, and, where the writes are
/// posted and the look was answered from the mirror, everything that the posted ring can
/// hold. The ``queueCapacity`` − ``throttleLevel`` bytes of slack take those, so a stopped
/// reader slows the guest down and loses nothing. Only a guest that goes on without
/// looking at THRE loses bytes, as it would on the chip; ``lostCount`` counts them.
///
/// Differences from the chip: characters take no time on the line in either direction (only
/// the receive timeout has the line's speed), FCR bit 2 finds nothing to clear because
/// sent bytes are on the wire already, a break does not corrupt bytes sent during it, and
/// the wire carries all eight bits whatever the character's length (boot code often writes
/// before it has set LCR).
public struct UART16550: Sendable {
  /// The number of bytes that the outgoing queue holds.
  public static let queueCapacity = 4096
  /// With more bytes than this waiting the guest sees a busy transmitter.
  public static let throttleLevel = 2048
  /// With this many bytes waiting or fewer a busy transmitter is free again.
  public static let resumeLevel = 1024
  /// The crystal of the PC's serial card, in hertz.
  public static let clockFrequency: UInt64 = 1_843_200

  var received = ByteFIFO<16>()
  var receivedErrors = ByteFIFO<16>()  // one entry for each entry of `received`
  var queue = ByteFIFO<4096>()
  var interruptEnable: InterruptEnable = []
  var fifoControl: FIFOControl = []
  var lineControl: LineControl = []
  var modemControl: ModemControl = []
  var modemInputs: ModemLines
  var modemDeltas: UInt8 = 0  // MSR bits 0 to 3
  var lineErrors: LineStatus = []  // latched until LSR is read
  var divisor: UInt16 = 12  // 9600 baud; the data sheet leaves it undefined after reset
  var scratch: UInt8 = 0
  var isThrottled = false
  var isTransmitPending = false  // THRE interrupt: until IIR is read or THR written (8.6)
  var isTimeoutPending = false
  var hasPulsed = false
  var lastReceiverActivity = VMTime.zero
  /// The bytes that were lost because the guest wrote without looking at THRE.
  public var lostCount: UInt64 = 0

  /// Makes a chip after a master reset, with `modemInputs` on its pins.
  public init(modemInputs: ModemLines = .connected) { self.modemInputs = modemInputs }

  // MARK: Outputs

  /// The level of the IRQ line; OUT2 gates it, as on the PC's serial card.
  public var interrupt: Bool { source != .none && modemControl.contains(.out2) }

  /// When ``advance(to:)`` is due: the receive timeout, if one is running.
  public var deadline: VMTime? {
    guard interruptEnable.contains(.received) else { return nil }
    return timeoutDeadline
  }

  /// Whether the receiver has room; the endpoint leaves input waiting while it has none.
  ///
  /// In loopback SIN is disconnected (8.8): input waits rather than being lost.
  public var canReceive: Bool {
    guard !modemControl.contains(.loopback) else { return false }
    return hasFIFOs ? !received.isFull : received.isEmpty
  }

  /// Whether bytes wait for the back end.
  public var hasOutgoing: Bool { !queue.isEmpty }

  /// How many bytes wait for the back end.
  public var outgoingCount: Int { queue.count }

  /// Whether the guest holds SOUT at the break level (8.1, bit 6).
  public var isSendingBreak: Bool {
    lineControl.contains(.breakControl) && !modemControl.contains(.loopback)
  }

  /// Whether the guest asserts DTR, for a back end that shows it.
  public var dataTerminalReady: Bool {
    modemControl.contains(.dataTerminalReady) && !modemControl.contains(.loopback)
  }

  /// Whether the guest asserts RTS, for a back end that shows it.
  public var requestToSend: Bool {
    modemControl.contains(.requestToSend) && !modemControl.contains(.loopback)
  }

  /// The line's speed in bits per second, rounded down.
  public var baudRate: UInt64 { Self.clockFrequency / (16 * effectiveDivisor) }

  /// Returns whether the IRQ line fell and rose again within one input, and forgets it.
  ///
  /// Writing THR ends the THRE interrupt, and the empty transmitter starts the next one. An
  /// edge-triggered interrupt controller must see that: the endpoint lowers and raises the
  /// line when this returns `true` and ``interrupt`` holds.
  public mutating func takePulse() -> Bool {
    defer { hasPulsed = false }
    return hasPulsed
  }

  // MARK: The wire

  /// Returns the next byte the guest sent, or `nil` when there is none.
  public mutating func transmit() -> UInt8? {
    let byte = queue.pop()
    resumeIfDrained()
    return byte
  }

  /// The next bytes the guest sent, at most `limit`; they stay queued.
  public func outgoing(_ limit: Int) -> [UInt8] { queue.prefix(limit) }

  /// Removes `count` bytes that the back end has taken.
  public mutating func dropOutgoing(_ count: Int) {
    queue.drop(count)
    resumeIfDrained()
  }

  /// Takes a character from the host, with what was wrong with it on the line.
  ///
  /// With no room it is lost and the overrun bit is set (8.4, bit 1); in loopback it is lost.
  public mutating func receive(_ byte: UInt8, errors: ReceiveError = [], now: VMTime) {
    advance(to: now)
    guard !modemControl.contains(.loopback) else { return }
    accept(byte, errors: errors, now: now)
  }

  /// Takes a break from the host: one zero character marked as such (8.4, bit 4).
  public mutating func receiveBreak(now: VMTime) {
    receive(0, errors: .breakInterrupt, now: now)
  }

  /// Sets the modem input pins; changes show in MSR's delta bits unless in loopback.
  public mutating func setModemInputs(_ lines: ModemLines) {
    let old = visibleModemLines
    modemInputs = lines
    recordModemChange(from: old)
  }

  /// Lets time pass: starts the receive timeout interrupt when it is due.
  public mutating func advance(to now: VMTime) {
    if let due = timeoutDeadline, now >= due { isTimeoutPending = true }
  }

  /// Does a master reset; the modem pins and bytes already sent stay (data sheet, table III).
  public mutating func reset() {
    var fresh = UART16550(modemInputs: modemInputs)
    fresh.queue = queue
    fresh.isThrottled = isThrottled
    fresh.lostCount = lostCount
    self = fresh
  }

  // MARK: Time

  private var effectiveDivisor: UInt64 { UInt64(max(divisor, 1)) }

  /// The time of one character on the line, in nanoseconds.
  public var characterNanoseconds: UInt64 {
    // Half bits of 16 × divisor clocks each: at most 24 × 16 × 65535 × 10⁹, below 2⁶⁴.
    lineControl.halfBits * effectiveDivisor * 16 * 1_000_000_000 / (2 * Self.clockFrequency)
  }

  /// Four characters after the receiver was last filled or read (FIFO interrupt mode, B).
  private var timeoutDeadline: VMTime? {
    guard hasFIFOs, !received.isEmpty, !isTimeoutPending else { return nil }
    return lastReceiverActivity.advanced(by: 4 * characterNanoseconds)
  }
}

extension UART16550: DeviceState {
  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("received", &received)
    visitor.part("receivedErrors", &receivedErrors)
    visitor.part("queue", &queue)
    visitor.field("ier", &interruptEnable)
    visitor.field("fcr", &fifoControl)
    visitor.field("lcr", &lineControl)
    visitor.field("mcr", &modemControl)
    visitor.field("modemInputs", &modemInputs)
    visitor.field("modemDeltas", &modemDeltas)
    visitor.field("lineErrors", &lineErrors)
    visitor.field("divisor", &divisor)
    visitor.field("scratch", &scratch)
    visitor.field("isThrottled", &isThrottled)
    visitor.field("isTransmitPending", &isTransmitPending)
    visitor.field("isTimeoutPending", &isTimeoutPending)
    visitor.field("hasPulsed", &hasPulsed)
    visitor.field("lastReceiverActivity", &lastReceiverActivity.nanoseconds)
    visitor.field("lostCount", &lostCount)
  }
}
