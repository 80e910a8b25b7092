// SPDX-License-Identifier: Apache-2.0

extension I8254 {
  /// One counter of the 8254 (data sheet, "Mode Definitions").
  ///
  /// Times are clock pulses since time zero. A count that is written between two pulses is
  /// loaded by the next one, so counting starts a pulse later.
  struct Channel: Sendable {
    var mode: UInt8 = 3
    var isBCD = false
    /// 1: low byte, 2: high byte, 3: both.
    var access: UInt8 = 3
    /// The count register; zero stands for the largest count.
    var reload: UInt32 = 0
    /// What the counting element was loaded with.
    var loaded: UInt32 = 0
    var writesHigh = false
    var readsHigh = false
    var low: UInt8 = 0
    /// The count that a latch command has kept.
    var latched: UInt16?
    var status: UInt8?
    var gate = true
    /// The pulse that loaded the counting element; `nil` while it is not counting.
    var start: Int64?
    /// How far it had counted when something stopped it.
    var held: Int64?
    /// The count register has not been loaded into the counting element yet (NULL COUNT).
    var isNull = true

    private var modulus: Int64 { isBCD ? 10000 : 65536 }
    private var isTriggered: Bool { mode == 1 || mode == 5 }
    var isPeriodic: Bool { mode == 2 || mode == 3 }

    private func length(_ count: UInt32) -> Int64 { count == 0 ? modulus : Int64(count) }

    /// Clock pulses since the counting element was loaded.
    private func elapsed(_ pulse: Int64) -> Int64 { held ?? max(0, pulse - (start ?? pulse)) }

    /// How long OUT is high in each period of mode 3.
    private func highHalf(_ length: Int64) -> Int64 { (length + 1) / 2 }

    /// Loads a count that was written while modes 2 and 3 counted, if its time has come: at the
    /// end of the period in mode 2, of half of it in mode 3.
    mutating func settle(_ pulse: Int64) {
      guard isPeriodic, isNull, held == nil, let start, let change = nextChange, pulse >= change
      else { return }
      let isAfterHigh = mode == 3 && (change - start) % length(loaded) != 0
      loaded = reload
      isNull = false
      self.start = isAfterHigh ? change - highHalf(length(loaded)) : change
    }

    /// When a count that waits is loaded.
    private var nextChange: Int64? {
      guard let start, let written else { return nil }
      let length = length(loaded)
      let passed = max(0, written - start)
      let phase = passed % length
      if mode == 3, phase < highHalf(length) { return start + passed - phase + highHalf(length) }
      return start + passed - phase + length
    }
    /// When the count that waits was written.
    var written: Int64?

    // MARK: - Inputs

    /// The control word: OUT takes its first level, and nothing counts until there is a count.
    mutating func setControl(access: UInt8, mode: UInt8, isBCD: Bool) {
      self.access = access
      self.mode = mode > 5 ? mode & 3 : mode
      self.isBCD = isBCD
      writesHigh = false
      readsHigh = false
      latched = nil
      status = nil
      start = nil
      held = nil
      written = nil
      isNull = true
      hasCount = false
    }

    mutating func write(_ value: UInt8, _ pulse: Int64) {
      settle(pulse)
      switch access {
      case 1: setCount(UInt16(value), pulse)
      case 2: setCount(UInt16(value) << 8, pulse)
      default:
        writesHigh.toggle()
        guard writesHigh else {
          setCount(UInt16(value) << 8 | UInt16(low), pulse)
          return
        }
        low = value
        // The first byte stops mode 0, and its OUT goes low.
        if mode == 0, start != nil {
          held = 0
          isNull = true
        }
      }
    }

    private mutating func setCount(_ count: UInt16, _ pulse: Int64) {
      reload = isBCD ? Self.binary(count) : UInt32(count)
      isNull = true
      hasCount = true
      if isTriggered { return }
      if isPeriodic, start != nil, gate {
        written = pulse
        return
      }
      load(pulse)
      held = gate ? nil : 0
    }

    private mutating func load(_ pulse: Int64) {
      loaded = reload
      start = pulse + 1
      held = nil
      written = nil
      isNull = false
    }

    /// Sets the GATE pin (data sheet, "Gate Pin Operations Summary").
    mutating func setGate(_ high: Bool, _ pulse: Int64) {
      guard high != gate else { return }
      settle(pulse)
      gate = high
      if isTriggered {
        // Only a rising edge counts; a count must have been written.
        if high, hasCount { load(pulse) }
        return
      }
      guard start != nil else { return }
      guard high else {
        held = elapsed(pulse)
        return
      }
      if isPeriodic {
        load(pulse)
      } else {
        // Modes 0 and 4 go on from where they stood, unless half a count was written.
        guard !(mode == 0 && isNull) else { return }
        start = pulse - elapsed(pulse)
        held = nil
      }
    }

    /// Whether a count was written since the control word.
    var hasCount = false

    // MARK: - Outputs

    /// What the counting element holds.
    func count(_ pulse: Int64) -> UInt16 {
      var copy = self
      copy.settle(pulse)
      return copy.settledCount(pulse)
    }

    private func settledCount(_ pulse: Int64) -> UInt16 {
      guard start != nil else { return encoded(Int64(reload)) }
      let length = length(loaded)
      let passed = elapsed(pulse)
      switch mode {
      case 2: return encoded(length - passed % length)
      case 3:
        // It counts an even number down by two, once for each half.
        let phase = passed % length
        let half = highHalf(length)
        return encoded((length & ~1) - 2 * (phase < half ? phase : phase - half))
      default: return encoded(length + modulus - passed % modulus)
      }
    }

    private func encoded(_ value: Int64) -> UInt16 {
      var rest = value % modulus
      guard isBCD else { return UInt16(truncatingIfNeeded: rest) }
      var result: Int64 = 0
      for digit in Int64(0)..<4 {
        result |= (rest % 10) << (4 * digit)
        rest /= 10
      }
      return UInt16(truncatingIfNeeded: result)
    }

    private static func binary(_ bcd: UInt16) -> UInt32 {
      (0..<4).reversed().reduce(0) { $0 * 10 + UInt32(bcd >> UInt16(4 * $1) & 15) }
    }

    /// The OUT pin.
    func output(_ pulse: Int64) -> Bool {
      var copy = self
      copy.settle(pulse)
      return copy.settledOutput(pulse)
    }

    private func settledOutput(_ pulse: Int64) -> Bool {
      guard start != nil else { return mode != 0 }
      let length = length(loaded)
      let passed = elapsed(pulse)
      switch mode {
      case 0: return passed >= length
      case 1: return passed >= length
      case 2: return !gate || passed % length != length - 1
      case 3: return !gate || passed % length < highHalf(length)
      default: return passed != length
      }
    }

    /// The pulse after `pulse` at which OUT rises next; `nil` when it does not.
    func nextRise(after pulse: Int64) -> Int64? {
      var copy = self
      copy.settle(pulse)
      return copy.settledRise(after: pulse)
    }

    private func settledRise(after pulse: Int64) -> Int64? {
      guard let start, held == nil else { return nil }
      let length = length(loaded)
      let passed = max(0, pulse - start)
      switch mode {
      case 0, 1: return passed < length ? start + length : nil
      case 2, 3:
        if mode == 3, isNull, let change = nextChange, (change - start) % length != 0 {
          let next = self.length(reload)
          return change + max(1, next - highHalf(next))
        }
        return start + (passed / length + 1) * length
      default: return passed <= length ? start + length + 1 : nil
      }
    }

    // MARK: - Reading

    mutating func read(_ pulse: Int64) -> UInt8 {
      if let status {
        self.status = nil
        return status
      }
      let count = latched ?? count(pulse)
      let low = UInt8(truncatingIfNeeded: count)
      let high = UInt8(truncatingIfNeeded: count >> 8)
      if access == 3 {
        readsHigh.toggle()
        if readsHigh { return low }
      }
      latched = nil
      return access == 1 ? low : high
    }

    /// The counter latch command; a count that was latched before is kept.
    mutating func latch(_ pulse: Int64) {
      if latched == nil { latched = count(pulse) }
    }

    /// The read-back command's status byte (data sheet, figure 16).
    mutating func latchStatus(_ pulse: Int64) {
      guard status == nil else { return }
      settle(pulse)
      status =
        (output(pulse) ? 0x80 : 0) | (isNull ? 0x40 : 0) | access << 4 | mode << 1
        | (isBCD ? 1 : 0)
    }
  }
}
