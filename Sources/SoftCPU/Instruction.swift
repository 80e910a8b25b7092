// SPDX-License-Identifier: Apache-2.0

/// A decoded instruction: four words, so that it travels in registers.
///
/// Register fields number the slots of ``SoftCPU/gpr``. Byte registers 20 to 23 are AH, CH, DH
/// and BH.
struct Instruction: BitwiseCopyable, Equatable, Sendable {
  var low: UInt64 = 0
  var high: UInt64 = 0
  /// The displacement of the memory operand, sign-extended.
  var displacement: UInt64 = 0
  /// The immediate operand, sign-extended as the instruction asks for.
  var immediate: UInt64 = 0

  /// The register slot that is always zero: no base, or no index.
  static let none: UInt8 = 16
  /// The register slot of RIP.
  static let ripSlot: UInt8 = 17

  @inline(__always)
  private static func byte(_ word: UInt64, _ place: UInt64) -> UInt8 {
    UInt8(truncatingIfNeeded: word >> (8 * place))
  }

  @inline(__always)
  private static func set(_ word: inout UInt64, _ place: UInt64, _ value: UInt8) {
    word = word & ~(0xFF << (8 * place)) | UInt64(value) << (8 * place)
  }

  /// What to do.
  var op: Op {
    @inline(__always) get { Op.trusted(UInt16(truncatingIfNeeded: low)) }
    set { low = low & ~0xFFFF | UInt64(newValue.rawValue) }
  }

  /// The number of ``op``.
  var opNumber: UInt16 { @inline(__always) get { UInt16(truncatingIfNeeded: low) } }

  /// The length in bytes, with prefixes.
  var length: UInt8 {
    @inline(__always) get { Self.byte(low, 2) }
    set { Self.set(&low, 2, newValue) }
  }

  /// The operand size in bytes: 1, 2, 4 or 8.
  var size: UInt8 {
    @inline(__always) get { Self.byte(low, 3) }
    set { Self.set(&low, 3, newValue) }
  }

  /// The register of ModRM's reg field, REX.R included; for byte operands 20...23 are AH...BH.
  var reg: UInt8 {
    @inline(__always) get { Self.byte(low, 4) }
    set { Self.set(&low, 4, newValue) }
  }

  /// The register of ModRM's rm field when it is one, REX.B included (also of opcodes that
  /// name a register in their low three bits).
  var rm: UInt8 {
    @inline(__always) get { Self.byte(low, 5) }
    set { Self.set(&low, 5, newValue) }
  }

  /// The base register of the memory operand, or ``none``, or ``ripSlot``.
  var base: UInt8 {
    @inline(__always) get { Self.byte(low, 6) }
    set { Self.set(&low, 6, newValue) }
  }

  /// The index register of the memory operand, or ``none``.
  var index: UInt8 {
    @inline(__always) get { Self.byte(low, 7) }
    set { Self.set(&low, 7, newValue) }
  }

  /// How far the index is shifted left, 0 to 3.
  var scale: UInt8 {
    @inline(__always) get { Self.byte(high, 0) }
    set { Self.set(&high, 0, newValue) }
  }

  /// The segment of the memory operand: 0...5 are ES, CS, SS, DS, FS, GS.
  var segment: UInt8 {
    @inline(__always) get { Self.byte(high, 1) }
    set { Self.set(&high, 1, newValue) }
  }

  /// The address size in bytes: 2, 4 or 8.
  var addressSize: UInt8 {
    @inline(__always) get { Self.byte(high, 2) }
    set { Self.set(&high, 2, newValue) }
  }

  var prefixes: Prefixes {
    @inline(__always) get { Prefixes(rawValue: Self.byte(high, 3)) }
    set { Self.set(&high, 3, newValue.rawValue) }
  }

  /// The last byte of the opcode.
  var opcode: UInt8 {
    @inline(__always) get { Self.byte(high, 4) }
    set { Self.set(&high, 4, newValue) }
  }

  /// The opcode map in bits 0...3 (0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A), the mandatory
  /// prefix in bits 4 and 5 (0: none, 1: 66, 2: F3, 3: F2), VEX.W or REX.W in bit 6, VEX.L in
  /// bit 7.
  var map: UInt8 {
    @inline(__always) get { Self.byte(high, 5) }
    set { Self.set(&high, 5, newValue) }
  }

  /// The ModRM byte as it was.
  var modrm: UInt8 {
    @inline(__always) get { Self.byte(high, 6) }
    set { Self.set(&high, 6, newValue) }
  }

  /// VEX.vvvv, a register number.
  var vvvv: UInt8 {
    @inline(__always) get { Self.byte(high, 7) }
    set { Self.set(&high, 7, newValue) }
  }

  /// Whether the instruction is the last of its block.
  var endsBlock: Bool { @inline(__always) get { high & 64 << 24 != 0 } }

  /// Whether a string instruction has a repeat prefix.
  var isRepeated: Bool { prefixes.contains(.rep) || prefixes.contains(.repne) }

  /// Whether ModRM names a register, not memory.
  var isRegister: Bool { @inline(__always) get { modrm >= 0xC0 } }

  /// ModRM's reg field without REX: the operation of a group.
  var group: UInt8 { @inline(__always) get { modrm >> 3 & 7 } }

  /// The mandatory prefix of a vector instruction.
  var vectorPrefix: UInt8 { @inline(__always) get { map >> 4 & 3 } }

  struct Prefixes: OptionSet, BitwiseCopyable, Sendable {
    let rawValue: UInt8
    static let lock = Prefixes(rawValue: 1)
    /// F3.
    static let rep = Prefixes(rawValue: 2)
    /// F2.
    static let repne = Prefixes(rawValue: 4)
    /// 66.
    static let operandSize = Prefixes(rawValue: 8)
    static let rex = Prefixes(rawValue: 16)
    static let vex = Prefixes(rawValue: 32)
    /// The instruction ends its block.
    static let endsBlock = Prefixes(rawValue: 64)
  }
}
