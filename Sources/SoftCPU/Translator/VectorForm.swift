// SPDX-License-Identifier: Apache-2.0

/// How a vector instruction is translated: the host executes it as it is, on the same XMM
/// registers, with another memory operand.
struct VectorForm {
  enum Kind {
    /// ModRM's reg is an XMM register, rm another or memory.
    case load
    /// The same, the other way round.
    case store
    /// The reg is a general register that is written, rm is an XMM register or memory.
    case toGeneral
    /// The reg is an XMM register, rm a general register or memory.
    case fromGeneral
    /// The reg is an XMM register, rm is a general register or memory that is written.
    case storeGeneral
    /// Two operands are compared; all flags are written.
    case compare
    /// A register is shifted by an immediate.
    case shift
  }

  var kind = Kind.load
  /// The bytes of the memory operand; zero where there must be none.
  var size: UInt8 = 16
  /// What is not aligned is #GP.
  var isAligned = false
  var hasImmediate = false
  /// There is no form with a register.
  var needsMemory = false

  /// `nil` for what is left to the interpreter.
  init?(_ i: Instruction) {
    guard i.op == .vector, !i.prefixes.contains(.vex), i.isRegister || i.addressSize == 8 else {
      return nil
    }
    let isKnown =
      switch i.map & 15 {
      case 1:
        switch i.vectorPrefix {
        case 0: takePlain(i)
        case 1: take66(i)
        case 2: takeF3(i)
        default: takeF2(i)
        }
      case 2: i.vectorPrefix == 1 && takeMap2(i)
      default: i.vectorPrefix == 1 && takeMap3(i)
      }
    guard isKnown, !(needsMemory && i.isRegister), !(size == 0 && !i.isRegister) else {
      return nil
    }
  }

  private mutating func load(_ bytes: UInt8, aligned: Bool = false, immediate: Bool = false)
    -> Bool
  {
    (size, isAligned, hasImmediate) = (bytes, aligned, immediate)
    return true
  }

  private mutating func store(_ bytes: UInt8, aligned: Bool = false) -> Bool {
    kind = .store
    return load(bytes, aligned: aligned)
  }

  private mutating func inMemory() -> Bool {
    needsMemory = true
    return true
  }

  private mutating func general(_ kind: Kind, _ bytes: UInt8, immediate: Bool = false) -> Bool {
    self.kind = kind
    return load(bytes, immediate: immediate)
  }

  /// The moves that differ only in how they are called.
  private mutating func takeMoves(_ i: Instruction) -> Bool? {
    switch i.opcode {
    case 0x10: load(16)
    case 0x11: store(16)
    case 0x28: load(16, aligned: true)
    case 0x29: store(16, aligned: true)
    case 0x2B: store(16, aligned: true) && inMemory()
    case 0x13, 0x17: store(8) && inMemory()
    case 0x50: general(.toGeneral, 0)
    case 0x54...0x57: load(16, aligned: true)
    case 0xC6: load(16, aligned: true, immediate: true)
    case 0xC2: load(16, aligned: true, immediate: true)
    default: nil
    }
  }

  private mutating func takePlain(_ i: Instruction) -> Bool {
    if let known = takeMoves(i) { return known }
    return switch i.opcode {
    case 0x12, 0x16: load(8)
    case 0x14, 0x15, 0x51...0x53, 0x58, 0x59, 0x5B...0x5F: load(16, aligned: true)
    case 0x5A: load(8)
    case 0x2E, 0x2F: general(.compare, 4)
    default: false
    }
  }

  private mutating func take66(_ i: Instruction) -> Bool {
    if let known = takeMoves(i) { return known }
    return switch i.opcode {
    case 0x12, 0x16: load(8) && inMemory()
    case 0x6F: load(16, aligned: true)
    case 0x7F: store(16, aligned: true)
    case 0xE7: store(16, aligned: true) && inMemory()
    case 0xD6: store(8)
    case 0x6E: general(.fromGeneral, i.size)
    case 0x7E: general(.storeGeneral, i.size)
    case 0xD7: general(.toGeneral, 0)
    case 0xC4: general(.fromGeneral, 2, immediate: true)
    case 0xC5: general(.toGeneral, 0, immediate: true)
    case 0x70: load(16, aligned: true, immediate: true)
    case 0x71...0x73: takeShift(i)
    case 0x2E, 0x2F: general(.compare, 8)
    case 0x14, 0x15, 0x51, 0x58...0x6D, 0x74...0x76, 0x7C, 0x7D, 0xD0...0xD5, 0xD8...0xE6,
      0xE8...0xEF, 0xF1...0xF6, 0xF8...0xFE:
      load(16, aligned: true)
    default: false
    }
  }

  private mutating func takeShift(_ i: Instruction) -> Bool {
    kind = .shift
    (size, hasImmediate) = (0, true)
    return switch (i.opcode, i.group) {
    case (0x71, 2), (0x71, 4), (0x71, 6), (0x72, 2), (0x72, 4), (0x72, 6), (0x73, 2), (0x73, 3),
      (0x73, 6), (0x73, 7):
      true
    default: false
    }
  }

  private mutating func takeF3(_ i: Instruction) -> Bool {
    switch i.opcode {
    case 0x6F: load(16)
    case 0x7F: store(16)
    case 0x10: load(4)
    case 0x11: store(4)
    case 0x7E: load(8)
    case 0x51...0x53, 0x58...0x5A, 0x5C...0x5F: load(4)
    case 0x5B, 0x12, 0x16: load(16, aligned: true)
    case 0xE6: load(8)
    case 0x70: load(16, aligned: true, immediate: true)
    case 0xC2: load(4, immediate: true)
    case 0x2A: general(.fromGeneral, i.size)
    case 0x2C, 0x2D: general(.toGeneral, 4)
    default: false
    }
  }

  private mutating func takeF2(_ i: Instruction) -> Bool {
    switch i.opcode {
    case 0x10: load(8)
    case 0x11: store(8)
    case 0xF0: load(16) && inMemory()
    case 0x51, 0x58...0x5A, 0x5C...0x5F, 0x12: load(8)
    case 0x7C, 0x7D, 0xD0, 0xE6: load(16, aligned: true)
    case 0x70: load(16, aligned: true, immediate: true)
    case 0xC2: load(8, immediate: true)
    case 0x2A: general(.fromGeneral, i.size)
    case 0x2C, 0x2D: general(.toGeneral, 8)
    default: false
    }
  }

  private mutating func takeMap2(_ i: Instruction) -> Bool {
    switch i.opcode {
    case 0x00...0x0B, 0x1C...0x1E, 0x28, 0x29, 0x2B, 0x37...0x41, 0x10, 0x14, 0x15:
      return load(16, aligned: true)
    case 0x20...0x25, 0x30...0x35:
      let sizes: [UInt8] = [8, 4, 2, 8, 4, 8]
      return load(sizes[Int(i.opcode & 7)])
    case 0x2A: return load(16, aligned: true) && inMemory()
    default: return false
    }
  }

  private mutating func takeMap3(_ i: Instruction) -> Bool {
    switch i.opcode {
    case 0x08, 0x09, 0x0C...0x0F: load(16, aligned: true, immediate: true)
    case 0x0A: load(4, immediate: true)
    case 0x0B: load(8, immediate: true)
    case 0x16: general(.storeGeneral, i.size == 8 ? 8 : 4, immediate: true)
    case 0x22: general(.fromGeneral, i.size == 8 ? 8 : 4, immediate: true)
    default: false
    }
  }
}
