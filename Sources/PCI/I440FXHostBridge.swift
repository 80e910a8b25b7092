// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The PCI and memory controller of the 440FX chip set (82441FX), function 00.0.
///
/// Registers and defaults are those of the Intel 82441FX data sheet (order number
/// 290549), section 3.2. DRAM timing and row registers are stored and have no effect.
public struct I440FXHostBridge: DeviceState, Sendable {
  /// The function's configuration space; the core reads it as any other.
  public private(set) var configuration: ConfigSpace

  /// What a write changed.
  public struct Change: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The attributes of a segment of C0000h to FFFFFh (PAM, 59h to 5Fh).
    public static let segments = Self(rawValue: 1 << 0)
    /// Who sees what at A0000h to BFFFFh (SMRAM, 72h).
    public static let systemManagementRAM = Self(rawValue: 1 << 1)
    /// The turbo reset control register starts a reset of the CPU only (93h).
    public static let softReset = Self(rawValue: 1 << 2)
    /// The turbo reset control register starts a reset of the whole machine (93h).
    public static let hardReset = Self(rawValue: 1 << 3)
  }

  /// Where accesses to one programmable segment go (PAM; 3.2.18).
  public struct Segment: Sendable, Equatable {
    /// The first byte.
    public var base: UInt32
    /// Bytes: 64 KiB for F0000h, 16 KiB for the others.
    public var size: UInt32
    /// Reads come from DRAM; otherwise from PCI, that is, ROM.
    public var readsDRAM: Bool
    /// Writes go to DRAM; otherwise to PCI.
    public var writesDRAM: Bool
  }

  /// How many programmable segments there are.
  public static let segmentCount = 13

  /// The bridge of the `pc` machine: 8086:1237, revision 2.
  ///
  /// The 82441FX has no subsystem id registers; the machine's firmware looks here for
  /// 1AF4:1100 to recognise a virtual machine with fw_cfg, so they are there by default.
  public static let identity = FunctionIdentity(
    vendor: 0x8086, device: 0x1237, revision: 2, classCode: 0x06_00_00,
    subsystemVendor: 0x1AF4, subsystem: 0x1100, command: 0x0006, writableCommand: 0x0140,
    status: 0x0280, clearableStatus: 0xF100)

  public init(identity: FunctionIdentity = Self.identity) {
    var space = ConfigSpace(identity)
    let registers: [(offset: UInt8, value: UInt8, writable: UInt8)] = [
      (0x50, 0x00, 0x30), (0x51, 0x00, 0x7E),  // PMCCFG
      (0x52, 0x00, 0xFF),  // DETURBO
      (0x53, 0x80, 0xE0),  // DBC
      (0x54, 0x00, 0xC2),  // AXC
      (0x55, 0x00, 0xFF), (0x56, 0x00, 0xFF),  // DRT
      (0x57, 0x01, 0x3F), (0x58, 0x00, 0x7F),  // DRAMC, DRAMT
      (0x59, 0x00, 0x30),  // PAM0: only the upper half is used
      (0x68, 0x00, 0xC0),  // FDHC
      (0x70, 0x00, 0xF8), (0x71, 0x10, 0xF8),  // MTT, CLT
      (0x72, 0x02, 0x78),  // SMRAM; C_BASE_SEG is fixed at A0000h
      (0x90, 0x00, 0xFF),  // ERRCMD
      (0x93, 0x00, 0x0F),  // TRC
    ]
    for register in registers {
      space.setByte(register.value, at: register.offset)
      space.setMasks(writable: register.writable, at: register.offset)
    }
    for offset in UInt8(0x5A)...0x5F { space.setMasks(writable: 0x33, at: offset) }
    for offset in UInt8(0x60)...0x67 {  // DRB
      space.setByte(0x01, at: offset)
      space.setMasks(writable: 0xFF, at: offset)
    }
    space.setMasks(writable: 0, clearable: 0x93, at: 0x91)  // ERRSTS
    configuration = space
  }

  public func read(at offset: UInt8, width: AccessWidth) -> UInt32 {
    configuration.read(at: offset, width: width)
  }

  /// Writes configuration bytes and reports what the core must act on.
  public mutating func write(_ value: UInt32, at offset: UInt8, width: AccessWidth) -> Change {
    let before = configuration
    _ = configuration.write(value, at: offset, width: width)
    lockSystemManagementRAM(before: before[0x72])
    var change: Change = []
    for byte in UInt8(0x59)...0x5F where before[byte] != configuration[byte] {
      change.insert(.segments)
    }
    if before[0x72] != configuration[0x72] { change.insert(.systemManagementRAM) }
    // TRC: a rising RCPU (bit 2) resets, as bit 1 says hard or soft (3.2.26).
    if before[0x93] & 4 == 0, configuration[0x93] & 4 != 0 {
      change.insert(configuration[0x93] & 2 != 0 ? .hardReset : .softReset)
    }
    return change
  }

  /// Returns segment `index`: 0 is F0000h to FFFFFh, 1 to 12 rise from C0000h in 16 KiB steps.
  ///
  /// - Precondition: `index` is 0 to 12.
  public func segment(_ index: Int) -> Segment {
    precondition((0..<Self.segmentCount).contains(index), "no such segment")
    // PAM0's upper half is F0000h; then each register holds two segments, the lower first.
    let nibble = index == 0 ? 1 : index + 1
    let register = configuration[0x59 + UInt8(nibble / 2)]
    let bits = nibble % 2 == 0 ? register : register >> 4
    return Segment(
      base: index == 0 ? 0xF_0000 : 0xC_0000 + UInt32(index - 1) * 0x4000,
      size: index == 0 ? 0x1_0000 : 0x4000,
      readsDRAM: bits & 1 != 0, writesDRAM: bits & 2 != 0)
  }

  /// Whether A0000h to BFFFFh is DRAM outside system management mode too (SMRAM, DOPEN).
  public var isSystemManagementRAMOpen: Bool {
    configuration[0x72] & 0x48 == 0x48
  }

  /// Whether DRAM at A0000h to BFFFFh exists for system management mode (G_SMRAME).
  public var isSystemManagementRAMEnabled: Bool { configuration[0x72] & 0x08 != 0 }

  /// Puts every register back to its default (RST#).
  public mutating func reset() { configuration.reset() }

  /// Resets all but PAM: a machine that wakes finds firmware's shadow as it was.
  public mutating func resetKeepingShadow() {
    let before = configuration
    configuration.reset()
    for offset in UInt8(0x59)...0x5F {
      _ = configuration.write(UInt32(before[offset]), at: offset, width: .byte)
    }
  }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("configuration", &configuration)
  }

  /// DLCK, once set, clears DOPEN and freezes all but DCLS until reset (3.2.22).
  private mutating func lockSystemManagementRAM(before: UInt8) {
    let now = configuration[0x72]
    if before & 0x10 != 0 {
      configuration.value[0x72] = before & ~0x20 | now & 0x20
    } else if now & 0x10 != 0 {
      configuration.value[0x72] = now & ~0x40
    }
  }
}
