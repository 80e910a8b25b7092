// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The I/O APIC (Intel 82093AA data sheet; version 20h with an EOI register).
public struct IOAPIC: Sendable {
  /// How many inputs it has.
  public static let pinCount = 24

  private(set) var id: UInt32 = 0
  private(set) var selected: UInt32 = 0
  private(set) var entries = [UInt64](repeating: Entry.masked, count: pinCount)
  /// The level of each input.
  private(set) var lines: UInt32 = 0

  /// Bits of redirection entries.
  private enum Entry {
    static let remoteIRR: UInt64 = 1 << 14
    static let level: UInt64 = 1 << 15
    static let masked: UInt64 = 1 << 16
    static let readOnly: UInt64 = 1 << 12 | remoteIRR
    static let writable: UInt64 = 0xFF << 56 | 0x1_FFFF & ~readOnly
  }

  public init() {}

  /// Sets the level of an input; returns whether that asks for service.
  ///
  /// An edge that a mask keeps back is lost (3.2.4); a level waits.
  mutating func setLine(_ pin: Int, _ raised: Bool) -> Bool {
    guard pin >= 0, pin < Self.pinCount else { return false }
    let bit = 1 << UInt32(pin) as UInt32
    let was = lines & bit != 0
    if raised { lines |= bit } else { lines &= ~bit }
    return raised && (entries[pin] & Entry.level != 0 || !was)
  }

  /// The message of an input that asks, if its entry lets it through.
  ///
  /// The delivery modes 011 and 110 are reserved, and the two 8259A do not listen to messages:
  /// ExtINT has its place in a local APIC's LINT0 only.
  func message(_ pin: Int) -> InterruptMessage? {
    let entry = entries[pin]
    guard entry & Entry.masked == 0 else { return nil }
    let isLevel = entry & Entry.level != 0
    guard !isLevel || entry & Entry.remoteIRR == 0 else { return nil }
    guard let mode = InterruptMessage.Mode(rawValue: UInt8(entry >> 8 & 7)),
      mode != .startUp, mode != .external
    else { return nil }
    return InterruptMessage(
      vector: UInt8(truncatingIfNeeded: entry), mode: mode,
      destination: UInt32(truncatingIfNeeded: entry >> 56), isLogical: entry & 1 << 11 != 0,
      isLevel: isLevel && (mode == .fixed || mode == .lowestPriority))
  }

  /// A local APIC has accepted an input's message: a level waits for its end now.
  mutating func noteAccepted(_ pin: Int) {
    if entries[pin] & Entry.level != 0 { entries[pin] |= Entry.remoteIRR }
  }

  /// Inputs that are high and level-triggered, as bits: they ask whenever nothing keeps them.
  var levels: UInt32 {
    guard lines != 0 else { return 0 }
    var found: UInt32 = 0
    for pin in 0..<Self.pinCount where entries[pin] & Entry.level != 0 { found |= 1 << UInt32(pin) }
    return found & lines
  }

  /// A local APIC's end of interrupt; returns the inputs with this vector, as bits.
  ///
  /// Edge-triggered ones are among them: who waits for the end of an interrupt is told however
  /// the guest has programmed the input.
  mutating func endOfInterrupt(_ vector: UInt8, isLevel: Bool) -> UInt32 {
    var pins: UInt32 = 0
    for pin in 0..<Self.pinCount where UInt8(truncatingIfNeeded: entries[pin]) == vector {
      let waits = entries[pin] & Entry.remoteIRR != 0
      guard waits ? isLevel : entries[pin] & (Entry.level | Entry.masked) == 0 else { continue }
      entries[pin] &= ~Entry.remoteIRR
      pins |= 1 << UInt32(pin)
    }
    return pins
  }

  /// The vector of an input whose messages are let through.
  func openVector(_ pin: Int) -> UInt8? { message(pin)?.vector }

  // MARK: - Registers

  /// Reads the window: IOREGSEL at 0, IOWIN at 10h.
  public func read(_ offset: UInt64) -> UInt32 {
    switch offset {
    case 0: return selected
    case 0x10: return register(selected)
    default: return 0
    }
  }

  private static let table: Range<UInt32> = 0x10..<0x10 + 2 * UInt32(pinCount)

  private func register(_ number: UInt32) -> UInt32 {
    switch number {
    case 0, 2: return id << 24
    case 1: return UInt32(Self.pinCount - 1) << 16 | 0x20
    case Self.table:
      let entry = entries[Int(number - 0x10) / 2]
      return UInt32(truncatingIfNeeded: number & 1 != 0 ? entry >> 32 : entry)
    default: return 0
    }
  }

  /// What a write asks for.
  enum Effect: Equatable {
    case none
    /// Levels may get through that did not before.
    case changed
    /// The end of interrupts with a vector, without a local APIC.
    case endOfInterrupt(UInt8)
  }

  /// Writes the window.
  mutating func write(_ offset: UInt64, _ value: UInt32) -> Effect {
    switch offset {
    case 0: selected = value & 0xFF
    case 0x10: return setRegister(value)
    case 0x40: return .endOfInterrupt(UInt8(truncatingIfNeeded: value))
    default: break
    }
    return .none
  }

  private mutating func setRegister(_ value: UInt32) -> Effect {
    if selected == 0 { id = value >> 24 & 15 }
    guard Self.table.contains(selected) else { return .none }
    let pin = Int(selected - 0x10) / 2
    let shift: UInt64 = selected & 1 != 0 ? 32 : 0
    let writable = Entry.writable & 0xFFFF_FFFF << shift
    entries[pin] = entries[pin] & ~writable | UInt64(value) << shift & writable
    if entries[pin] & Entry.level == 0 { entries[pin] &= ~Entry.remoteIRR }
    return .changed
  }
}

extension IOAPIC: DeviceState {
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("id", &id)
    visitor.field("selected", &selected)
    visitor.field("lines", &lines)
    for pin in entries.indices {
      var entry = NumberedInteger(value: entries[pin])
      visitor.part("entry", &entry)
      entries[pin] = entry.value
      entries[pin] &= Entry.writable | Entry.remoteIRR
      if entries[pin] & Entry.level == 0 { entries[pin] &= ~Entry.remoteIRR }
    }
    id &= 15
    selected &= 0xFF
    lines &= 1 << UInt32(Self.pinCount) - 1
  }
}
