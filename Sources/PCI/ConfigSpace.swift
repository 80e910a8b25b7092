// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The 256-byte configuration space of one PCI function (PCI 2.2, chapter 6).
///
/// Every byte has three planes: its value, the bits that software may change, and the
/// bits that a written one clears. The core keeps one for each function, also for those
/// of device processes; such a device answers offsets 40h to FFh itself. A header of type
/// 00h is laid out here; bridges to other buses are not.
public struct ConfigSpace: DeviceState, Sendable {
  var value = [256 of UInt8](repeating: 0)
  var writable = [256 of UInt8](repeating: 0)
  var clearable = [256 of UInt8](repeating: 0)
  /// The value after reset.
  var initial = [256 of UInt8](repeating: 0)

  /// What a write changed that the core must act on.
  public struct Change: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Decoding, bus mastering or INTx masking was switched (6.2.2).
    public static let command = Self(rawValue: 1 << 0)
    /// A base address register, or that of the ROM, changed (6.2.5).
    public static let baseAddress = Self(rawValue: 1 << 1)
    /// The interrupt line register changed (6.2.4); software's note, it routes nothing.
    public static let interruptLine = Self(rawValue: 1 << 2)
    /// A byte at 40h or above changed: the function's own registers.
    public static let deviceSpecific = Self(rawValue: 1 << 3)
  }

  /// Makes the header of a function without base address registers.
  public init(_ identity: FunctionIdentity) {
    setLong(UInt32(identity.device) << 16 | UInt32(identity.vendor), at: 0x00)
    setLong(UInt32(identity.status) << 16 | UInt32(identity.command), at: 0x04)
    setLong(identity.classCode << 8 | UInt32(identity.revision), at: 0x08)
    setByte(identity.isMultifunction ? 0x80 : 0x00, at: 0x0E)
    setLong(UInt32(identity.subsystem) << 16 | UInt32(identity.subsystemVendor), at: 0x2C)
    setByte(identity.interruptPin, at: 0x3D)
    setWritable(UInt32(identity.writableCommand), at: 0x04)
    setClearable(UInt32(identity.clearableStatus) << 16, at: 0x04)
    if identity.hasLatencyTimer { setWritable(0x0000_F800, at: 0x0C) }
    if identity.interruptPin != 0 { setWritable(0x0000_00FF, at: 0x3C) }
  }

  // MARK: Layout, before the machine runs

  /// Sets a byte's value now and after every reset.
  public mutating func setByte(_ byte: UInt8, at offset: UInt8) {
    value[Int(offset)] = byte
    initial[Int(offset)] = byte
  }

  /// Sets which bits of the byte at `offset` software may change, and which a one clears.
  public mutating func setMasks(writable: UInt8, clearable: UInt8 = 0, at offset: UInt8) {
    self.writable[Int(offset)] = writable
    self.clearable[Int(offset)] = clearable
  }

  mutating func setLong(_ word: UInt32, at offset: Int) {
    for lane in 0..<4 {
      value[offset + lane] = UInt8(truncatingIfNeeded: word >> (8 * lane))
      initial[offset + lane] = value[offset + lane]
    }
  }

  mutating func setWritable(_ mask: UInt32, at offset: Int) {
    for lane in 0..<4 { writable[offset + lane] |= UInt8(truncatingIfNeeded: mask >> (8 * lane)) }
  }

  mutating func setClearable(_ mask: UInt32, at offset: Int) {
    for lane in 0..<4 { clearable[offset + lane] |= UInt8(truncatingIfNeeded: mask >> (8 * lane)) }
  }

  // MARK: Access

  /// Returns what the guest reads; bytes past the end are ones.
  public func read(at offset: UInt8, width: AccessWidth) -> UInt32 {
    var result: UInt32 = 0
    for lane in 0..<min(width.byteCount, 4) {
      let byte = Int(offset) + lane
      result |= UInt32(byte < 256 ? value[byte] : 0xFF) << (8 * lane)
    }
    return result
  }

  /// Stores the bits that software may change and reports what that moved.
  public mutating func write(_ new: UInt32, at offset: UInt8, width: AccessWidth) -> Change {
    var change: Change = []
    for lane in 0..<min(width.byteCount, 4, 256 - Int(offset)) {
      let byte = Int(offset) + lane
      let bits = UInt8(truncatingIfNeeded: new >> (8 * lane))
      let old = value[byte]
      let mask = writable[byte]
      value[byte] = (old & ~mask | bits & mask) & ~(bits & clearable[byte])
      guard value[byte] != old else { continue }
      switch byte {
      case 0x04, 0x05: change.insert(.command)
      case 0x10..<0x28, 0x30..<0x34: change.insert(.baseAddress)
      case 0x3C: change.insert(.interruptLine)
      case 0x40...: change.insert(.deviceSpecific)
      default: break
      }
    }
    return change
  }

  /// Puts every byte back to its value after reset (RST#, PCI 2.2, 2.2.1).
  public mutating func reset() { value = initial }

  /// Returns one byte without side effects.
  public subscript(offset: UInt8) -> UInt8 { value[Int(offset)] }

  // MARK: What the core asks

  /// Whether the function answers I/O space accesses (command, bit 0).
  public var decodesPorts: Bool { value[0x04] & 1 != 0 }
  /// Whether the function answers memory space accesses (command, bit 1).
  public var decodesMemory: Bool { value[0x04] & 2 != 0 }
  /// Whether the function may start transactions of its own (command, bit 2).
  public var isBusMaster: Bool { value[0x04] & 4 != 0 }
  /// What software noted in the interrupt line register.
  public var interruptLine: UInt8 { value[0x3C] }
  /// 1 to 4 for INTA# to INTD#, 0 for none.
  public var interruptPin: UInt8 { value[0x3D] }

  /// Latches error bits of the status register, as the function reports them (6.2.3).
  public mutating func raiseStatus(_ bits: UInt16) {
    value[0x06] |= UInt8(truncatingIfNeeded: bits) & clearable[0x06]
    value[0x07] |= UInt8(truncatingIfNeeded: bits >> 8) & clearable[0x07]
  }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    let before = value
    visitor.bytes("value", &value)
    // Hard-wired bits are the machine's shape: whatever a page says, they stay.
    for byte in 0..<256 {
      let free = writable[byte] | clearable[byte] | (byte == 0x06 ? 0x08 : 0)
      value[byte] = before[byte] & ~free | value[byte] & free
    }
  }
}
