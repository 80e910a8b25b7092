// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The registers (SDM volume 3, table 10-1), and those of x2APIC by MSRs (table 10-6).
extension LocalAPIC {
  /// What a write asks of the others.
  enum Effect: Equatable {
    case none
    case endOfInterrupt
    case command(UInt64)
    /// A message that was refused before may be accepted now.
    case openness
  }

  /// Reads a register by its offset in the page; one that does not exist is an error.
  mutating func readPage(_ offset: UInt32, at now: VMTime) -> UInt32 {
    if !Self.exists(offset) { raiseError(ErrorBit.illegalRegister) }
    return read(offset, at: now)
  }

  /// Writes a register by its offset in the page; one that does not exist is an error.
  mutating func writePage(_ offset: UInt32, _ value: UInt32, at now: VMTime) -> Effect {
    guard Self.exists(offset) else {
      raiseError(ErrorBit.illegalRegister)
      return .none
    }
    return write(offset, value, at: now)
  }

  private static func exists(_ offset: UInt32) -> Bool {
    switch offset {
    case 0x20, 0x30, 0x80...0xF0, 0x100...0x280, 0x300...0x390, 0x3E0: true
    default: false
    }
  }

  /// Reads a register by its offset in the page.
  func read(_ offset: UInt32, at now: VMTime) -> UInt32 {
    switch offset {
    case 0x20: isX2 ? id : id << 24
    // Version 14h, six local vectors, and EOI broadcasts can be suppressed.
    case 0x30: 0x14 | 5 << 16 | 1 << 24
    case 0x80: UInt32(taskPriority)
    case 0xA0: UInt32(processorPriority)
    case 0xD0: logicalDestination
    case 0xE0: destinationFormat
    case 0xF0: spurious
    case 0x100..<0x180: inService.register(offset)
    case 0x180..<0x200: triggerModes.register(offset)
    case 0x200..<0x280: requests.register(offset)
    case 0x280: errors
    case 0x300: UInt32(truncatingIfNeeded: command)
    case 0x310: UInt32(truncatingIfNeeded: command >> 32)
    case 0x320: timerEntry
    case 0x330: thermalEntry
    case 0x340: performanceEntry
    case 0x350: line0Entry
    case 0x360: line1Entry
    case 0x370: errorEntry
    case 0x380: initialCount
    case 0x390: currentCount(now)
    case 0x3E0: divide
    default: 0
    }
  }

  /// Writes a register by its offset in the page.
  mutating func write(_ offset: UInt32, _ value: UInt32, at now: VMTime) -> Effect {
    switch offset {
    case 0x80: taskPriority = UInt8(truncatingIfNeeded: value)
    case 0xB0: return .endOfInterrupt
    case 0xD0:
      if !isX2 { logicalDestination = value & 0xFF00_0000 }
      return .openness
    case 0xE0:
      if !isX2 { destinationFormat = value | 0x0FFF_FFFF }
      return .openness
    case 0xF0:
      setSpurious(value)
      return .openness
    case 0x280:
      errors = pendingErrors
      pendingErrors = 0
    case 0x300:
      command = command & ~0xFFFF_FFFF | UInt64(value & 0x000C_CFFF)
      return .command(command)
    case 0x310: command = command & 0xFFFF_FFFF | UInt64(value & 0xFF00_0000) << 32
    case 0x320: setTimerEntry(value)
    case 0x330: thermalEntry = entry(value, 0x1_07FF)
    case 0x340: performanceEntry = entry(value, 0x1_07FF)
    case 0x350:
      line0Entry = entry(value, 0x1_A7FF) | line0Entry & Entry.remoteIRR
      if line0Entry & Entry.level == 0 { line0Entry &= ~Entry.remoteIRR }
    case 0x360: line1Entry = entry(value, 0x1_A7FF)
    case 0x370: errorEntry = entry(value, 0x1_00FF)
    case 0x380: setInitialCount(value, now)
    case 0x3E0: setDivide(value, now)
    default: break
    }
    return .none
  }

  private mutating func setSpurious(_ value: UInt32) {
    spurious = value & 0x11FF
    guard value & 0x100 == 0 else { return }
    // A disabled APIC's local vectors are masked (10.4.7.2).
    timerEntry |= Entry.masked
    thermalEntry |= Entry.masked
    performanceEntry |= Entry.masked
    line0Entry |= Entry.masked
    line1Entry |= Entry.masked
    errorEntry |= Entry.masked
  }

  func entry(_ value: UInt32, _ mask: UInt32) -> UInt32 {
    value & mask | (spurious & 0x100 == 0 ? Entry.masked : 0)
  }

  // MARK: - x2APIC

  /// Reads an MSR from 800h on; `nil` means #GP.
  func readX2(_ number: UInt32, at now: VMTime) -> UInt64? {
    switch number {
    case 0x02, 0x03, 0x08, 0x0A, 0x0D, 0x0F, 0x10...0x28, 0x32...0x39, 0x3E:
      UInt64(read(number << 4, at: now))
    case 0x30: command
    default: nil
    }
  }

  /// Writes an MSR from 800h on; `nil` means #GP: for bits that are reserved, registers that
  /// are only read, and those that do not exist.
  mutating func writeX2(_ number: UInt32, _ value: UInt64, at now: VMTime) -> Effect? {
    if number == 0x30 {
      guard value & 0xFFF3_3000 == 0 else { return nil }
      command = value
      return .command(value)
    }
    // Delivery status and remote IRR are only read, but not reserved.
    let allowed: UInt64
    switch number {
    case 0x08: allowed = 0xFF
    case 0x0B, 0x28: allowed = 0
    case 0x0F: allowed = 0x11FF
    case 0x32: allowed = 0x7_10FF
    case 0x33, 0x34: allowed = 0x1_17FF
    case 0x35, 0x36: allowed = 0x1_F7FF
    case 0x37: allowed = 0x1_10FF
    case 0x38: allowed = 0xFFFF_FFFF
    case 0x3E: allowed = 0xB
    case 0x3F: allowed = 0xFF
    default: return nil
    }
    guard value & ~allowed == 0 else { return nil }
    if number == 0x3F {
      accept(UInt8(truncatingIfNeeded: value), isLevel: false)
      return Effect.none
    }
    return write(number << 4, UInt32(truncatingIfNeeded: value), at: now)
  }

  // MARK: - The page

  /// The registers as KVM_GET_LAPIC has them.
  public func page(at now: VMTime) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 1024)
    for offset in stride(from: 0 as UInt32, to: 1024, by: 16) {
      let value = read(offset, at: now)
      for lane in 0..<4 {
        bytes[Int(offset) + lane] = UInt8(truncatingIfNeeded: value >> UInt32(8 * lane))
      }
    }
    return bytes
  }

  /// Takes registers as KVM_SET_LAPIC does, after ``base`` was set.
  ///
  /// The id stays, and the timer goes on with the count that the page says. Returns `false`, and
  /// changes nothing, when there are too few bytes.
  public mutating func setPage(_ bytes: [UInt8], at now: VMTime) -> Bool {
    guard bytes.count >= 1024 else { return false }
    func word(_ offset: UInt32) -> UInt32 {
      (0..<4).reversed().reduce(0) { $0 << 8 | UInt32(bytes[Int(offset) + $1]) }
    }
    spurious = word(0xF0) & 0x11FF
    for offset: UInt32 in [0x80, 0xD0, 0xE0, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x3E0] {
      _ = write(offset, word(offset), at: now)
    }
    if isX2 { logicalDestination = Self.logical(id) }
    line0Entry |= word(0x350) & Entry.remoteIRR & (line0Entry & Entry.level) >> 1
    for offset in stride(from: 0 as UInt32, to: 0x80, by: 16) {
      inService.setRegister(offset, word(0x100 + offset))
      triggerModes.setRegister(offset, word(0x180 + offset))
      requests.setRegister(offset, word(0x200 + offset))
    }
    inService.removeReserved()
    triggerModes.removeReserved()
    requests.removeReserved()
    errors = word(0x280) & 0xFF
    pendingErrors = 0
    command = UInt64(word(0x310)) << 32 | UInt64(word(0x300))
    restartTimer(word(0x380), current: word(0x390), now)
    return true
  }
}
