// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// A local APIC (SDM volume 3, chapter 10), xAPIC and x2APIC.
///
/// Its timer runs at 1 GHz of the virtual clock; the deadline mode at the time-stamp counter's
/// frequency.
public struct LocalAPIC: Sendable {
  /// The APIC id, which is the vCPU's number; the guest cannot change it.
  public let id: UInt32
  let isBoot: Bool
  /// IA32_APIC_BASE.
  public internal(set) var base: UInt64

  var taskPriority: UInt8 = 0
  var logicalDestination: UInt32 = 0
  var destinationFormat: UInt32 = 0xFFFF_FFFF
  var spurious: UInt32 = 0xFF
  var requests = VectorSet()
  var inService = VectorSet()
  var triggerModes = VectorSet()
  var errors: UInt32 = 0
  var pendingErrors: UInt32 = 0
  var command: UInt64 = 0
  var timerEntry: UInt32 = Entry.masked
  var thermalEntry: UInt32 = Entry.masked
  var performanceEntry: UInt32 = Entry.masked
  var line0Entry: UInt32 = Entry.masked
  var line1Entry: UInt32 = Entry.masked
  var errorEntry: UInt32 = Entry.masked
  var initialCount: UInt32 = 0
  var divide: UInt32 = 0
  /// When the timer fires; `nil` while it does not run.
  public internal(set) var deadline: VMTime?
  /// IA32_TSC_DEADLINE.
  var tscDeadline: UInt64 = 0

  /// Bits of the local vector table's entries (10.5.1).
  enum Entry {
    static let remoteIRR: UInt32 = 1 << 14
    static let level: UInt32 = 1 << 15
    static let masked: UInt32 = 1 << 16
  }

  /// Bits of the error status register (10.5.3).
  enum ErrorBit {
    static let sentIllegalVector: UInt32 = 1 << 5
    static let receivedIllegalVector: UInt32 = 1 << 6
    static let illegalRegister: UInt32 = 1 << 7
  }

  /// Makes an APIC in its state after power-on; `isBoot` says that it is the first processor's.
  public init(id: UInt32, isBoot: Bool) {
    self.id = id
    self.isBoot = isBoot
    base = 0xFEE0_0000 | 1 << 11 | (isBoot ? 1 << 8 : 0)
    // The PC's first processor takes the 8259's interrupts through LINT0 from the start.
    if isBoot { line0Entry = 0x700 }
  }

  /// The state after INIT: the base register stays.
  mutating func initialize() {
    let kept = base
    self = LocalAPIC(id: id, isBoot: isBoot)
    base = kept
    if isX2 { logicalDestination = Self.logical(id) }
  }

  // MARK: - Modes

  public var isEnabled: Bool { base & 1 << 11 != 0 }
  public var isX2: Bool { base & 3 << 10 == 3 << 10 }
  /// Enabled by the base register and by the spurious vector register.
  var isSoftwareEnabled: Bool { isEnabled && spurious & 0x100 != 0 }

  /// The logical id of x2APIC: a cluster of 16, and a bit in it (10.12.10.2).
  static func logical(_ id: UInt32) -> UInt32 { (id >> 4) << 16 | 1 << (id & 15) }

  /// Writes IA32_APIC_BASE; `false` means #GP (figure 10-27).
  mutating func setBase(_ value: UInt64) -> Bool {
    guard value & ~0x0000_000F_FFFF_FD00 == 0 else { return false }
    let old = base >> 10 & 3
    let new = value >> 10 & 3
    switch (old, new) {
    case (_, 1), (0, 3), (3, 2): return false
    default: break
    }
    base = value & ~(1 << 8) | (isBoot ? 1 << 8 : 0)
    if new == 0 {
      let kept = base
      self = LocalAPIC(id: id, isBoot: isBoot)
      base = kept
    }
    if new == 3, old != 3 { logicalDestination = Self.logical(id) }
    return true
  }

  // MARK: - Interrupts

  /// Whether the 8259's interrupts reach the processor through this APIC.
  public var acceptsExternal: Bool {
    guard isEnabled else { return isBoot }
    return line0Entry & Entry.masked == 0 && line0Entry >> 8 & 7 == 7
  }

  /// Takes a fixed interrupt; `false` when it is refused.
  @discardableResult
  mutating func accept(_ vector: UInt8, isLevel: Bool) -> Bool {
    guard isSoftwareEnabled else { return false }
    guard vector >= 16 else {
      raiseError(ErrorBit.receivedIllegalVector)
      return false
    }
    requests[vector] = true
    triggerModes[vector] = isLevel
    return true
  }

  /// Notes an error, for the error status register and by the LVT's error entry.
  mutating func raiseError(_ bit: UInt32) {
    pendingErrors |= bit
    guard errorEntry & Entry.masked == 0, isSoftwareEnabled else { return }
    let vector = UInt8(truncatingIfNeeded: errorEntry)
    guard vector >= 16 else {
      pendingErrors |= ErrorBit.receivedIllegalVector
      return
    }
    requests[vector] = true
    triggerModes[vector] = false
  }

  /// The processor priority register (10.8.3.1).
  var processorPriority: UInt8 {
    let serving = inService.highest ?? 0
    return taskPriority >> 4 >= serving >> 4 ? taskPriority : serving & 0xF0
  }

  /// The vector that the processor may be interrupted with.
  ///
  /// What was requested before software disabled the APIC is still to be served (10.4.7.2).
  public var pendingVector: UInt8? {
    guard isEnabled, let vector = requests.highest, vector >> 4 > processorPriority >> 4 else {
      return nil
    }
    return vector
  }

  /// Takes the pending vector into service.
  mutating func acknowledge() -> UInt8? {
    guard let vector = pendingVector else { return nil }
    requests[vector] = false
    inService[vector] = true
    return vector
  }

  /// Whether a vector waits or is in service.
  func isBusy(_ vector: UInt8) -> Bool { requests[vector] || inService[vector] }

  /// The end of an interrupt, as others see it.
  struct End: Equatable {
    let vector: UInt8
    let isLevel: Bool
    /// Whether the I/O APIC is told; not when software has suppressed that (10.8.5).
    let isBroadcast: Bool
  }

  /// The end of the highest interrupt in service.
  mutating func endOfInterrupt() -> End? {
    guard let vector = inService.highest else { return nil }
    inService[vector] = false
    let isLevel = triggerModes[vector]
    if isLevel, UInt8(truncatingIfNeeded: line0Entry) == vector { line0Entry &= ~Entry.remoteIRR }
    return End(
      vector: vector, isLevel: isLevel, isBroadcast: !isLevel || spurious & 1 << 12 == 0)
  }

  /// CR8.
  public var control8: UInt8 {
    get { taskPriority >> 4 }
    set { taskPriority = newValue << 4 }
  }

  // MARK: - Destinations

  /// Whether a message is for this APIC (10.6.2).
  func matches(_ destination: UInt32, isLogical: Bool, fromX2: Bool) -> Bool {
    guard isEnabled else { return false }
    if !isLogical {
      if destination == (fromX2 ? 0xFFFF_FFFF : 0xFF) { return true }
      return destination == (isX2 || fromX2 ? id : id & 0xFF)
    }
    if isX2 {
      if fromX2, destination == 0xFFFF_FFFF { return true }
      if !fromX2 {
        // An eight-bit logical destination reaches the first cluster.
        return destination == 0xFF
          || logicalDestination >> 16 == 0 && logicalDestination & destination & 0xFFFF != 0
      }
      return logicalDestination >> 16 == destination >> 16
        && logicalDestination & destination & 0xFFFF != 0
    }
    let mine = logicalDestination >> 24
    let wanted = destination & 0xFF
    if destinationFormat >> 28 == 15 { return mine & wanted != 0 }
    guard destinationFormat >> 28 == 0 else { return false }
    if wanted == 0xFF { return true }
    return mine >> 4 == wanted >> 4 && mine & wanted & 15 != 0
  }
}
