// SPDX-License-Identifier: Apache-2.0

/// An opcode with what its generator has to know (SDM volume 2, appendix A).
struct Opcode {
  enum Map {
    case one, two, three38, three3A
    /// VEX with the map 0F38, or 0F3A.
    case vex2, vex3

    var escape: [UInt8] {
      switch self {
      case .one, .vex2, .vex3: []
      case .two: [0x0F]
      case .three38: [0x0F, 0x38]
      case .three3A: [0x0F, 0x3A]
      }
    }
  }

  enum Immediate {
    case none, byte, word, operand, wide, address, enter, relativeByte, relative, far
  }

  enum Form { case any, memory, register }

  var map = Map.one
  var byte: UInt8
  var mandatory: [UInt8] = []
  var vexPrefix: UInt8 = 0
  var hasModRM = false
  var form = Form.any
  var reg: UInt8?
  var rm: UInt8?
  var immediate = Immediate.none
  var isString = false
  var isLockable = false

  /// All opcodes of a mode, some several times.
  static func all(is32Bit: Bool) -> [Opcode] {
    var result: [Opcode] = []
    for byte in UInt8(0)...255 { result += oneByte(byte, is32Bit: is32Bit) }
    for byte in UInt8(0)...255 { result += twoByte(byte) }
    let three38: [ClosedRange<UInt8>] = [
      0x00...0x0B, 0x0C...0x0F, 0x10...0x17, 0x1C...0x1E, 0x20...0x25, 0x28...0x2B, 0x30...0x41,
      0x80...0x83, 0xC8...0xCD, 0xDB...0xDF, 0xF0...0xF1, 0xF6...0xF6, 0x60...0x60,
    ]
    for byte in three38.joined() {
      for mandatory in [[], [0x66], [0xF2], [0xF3]] as [[UInt8]] {
        result.append(Opcode(map: .three38, byte: byte, mandatory: mandatory, hasModRM: true))
      }
    }
    let three3A: [ClosedRange<UInt8>] = [
      0x08...0x0F, 0x14...0x17, 0x20...0x22, 0x40...0x42, 0x44...0x44, 0x60...0x63, 0xCC...0xCC,
      0xDF...0xDF, 0x30...0x30,
    ]
    for byte in three3A.joined() {
      for mandatory in [[], [0x66], [0xF2]] as [[UInt8]] {
        result.append(
          Opcode(
            map: .three3A, byte: byte, mandatory: mandatory, hasModRM: true, immediate: .byte))
      }
    }
    for (byte, prefix) in [
      (0xF2, 0), (0xF3, 0), (0xF5, 0), (0xF5, 2), (0xF5, 3), (0xF6, 3), (0xF7, 0),
      (0xF7, 1), (0xF7, 2), (0xF7, 3),
    ] as [(UInt8, UInt8)] {
      for _ in 0..<2 {
        result.append(Opcode(map: .vex2, byte: byte, vexPrefix: prefix, hasModRM: true))
      }
    }
    result.append(
      Opcode(map: .vex3, byte: 0xF0, vexPrefix: 3, hasModRM: true, immediate: .byte))
    return result
  }

  // MARK: - The one-byte map

  private static func oneByte(_ byte: UInt8, is32Bit: Bool) -> [Opcode] {
    var o = Opcode(byte: byte)
    switch byte {
    case 0x26, 0x2E, 0x36, 0x3E, 0x64...0x67, 0xF0, 0xF2, 0xF3, 0x0F: return []
    case 0x40...0x4F where !is32Bit: return []
    // EVEX or BOUND; VEX or LES, LDS: the memory forms of the old ones.
    case 0x62, 0xC4, 0xC5:
      guard is32Bit else { return [] }
      o.hasModRM = true
      o.form = .memory
    case 0x00...0x3F:
      switch byte & 7 {
      case 0...3: o.hasModRM = true
      case 4: o.immediate = .byte
      case 5: o.immediate = .operand
      default: break
      }
      o.isLockable = byte & 7 < 2
    case 0x63, 0x84...0x8F: o.hasModRM = true
    case 0x68: o.immediate = .operand
    case 0x69:
      o.hasModRM = true
      o.immediate = .operand
    case 0x6A: o.immediate = .byte
    case 0x6B:
      o.hasModRM = true
      o.immediate = .byte
    case 0x6C...0x6F, 0xA4...0xA7, 0xAA...0xAF: o.isString = true
    case 0x70...0x7F, 0xE0...0xE3, 0xEB: o.immediate = .relativeByte
    case 0x80, 0x82, 0x83, 0xC0, 0xC1, 0xC6:
      o.isLockable = byte < 0x84
      return group(o, immediate: .byte)
    case 0x81, 0xC7:
      o.isLockable = byte == 0x81
      return group(o, immediate: .operand)
    case 0xD0...0xD3: return group(o)
    case 0xF6, 0xF7:
      o.isLockable = true
      let twice = group(o) + group(o)
      return twice.map { one in
        guard let reg = one.reg, reg < 2 else { return one }
        var one = one
        one.immediate = byte == 0xF6 ? .byte : .operand
        return one
      }
    case 0xFE, 0xFF:
      o.isLockable = true
      return group(o)
    case 0x9A, 0xEA: o.immediate = .far
    case 0xA0...0xA3: o.immediate = .address
    case 0xA8, 0xB0...0xB7, 0xCD, 0xD4, 0xD5, 0xE4...0xE7: o.immediate = .byte
    case 0xA9: o.immediate = .operand
    case 0xB8...0xBF: o.immediate = .wide
    case 0xC2, 0xCA: o.immediate = .word
    case 0xC8: o.immediate = .enter
    case 0xE8, 0xE9: o.immediate = .relative
    case 0xD8...0xDF:
      o.form = .memory
      var all = group(o) + group(o) + group(o) + group(o)
      for reg in UInt8(0)..<8 {
        for rm in UInt8(0)..<8 {
          all.append(Opcode(byte: byte, hasModRM: true, form: .register, reg: reg, rm: rm))
        }
      }
      return all
    default: break
    }
    return [o]
  }

  /// All eight of a group that ModRM's reg field chooses from.
  private static func group(_ opcode: Opcode, immediate: Immediate = .none) -> [Opcode] {
    (0..<8).map { (reg: UInt8) -> Opcode in
      var one = opcode
      one.hasModRM = true
      one.reg = reg
      one.immediate = immediate
      return one
    }
  }

  // MARK: - The two-byte map

  private static func twoByte(_ byte: UInt8) -> [Opcode] {
    var o = Opcode(map: .two, byte: byte, hasModRM: true)
    switch byte {
    case 0x05, 0x34, 0x33, 0x37, 0x0F, 0x0E, 0x38, 0x3A, 0x36, 0x39, 0x3B...0x3F, 0x78,
      0x79,
      0x24...0x27, 0xA6, 0xA7, 0x04, 0x0A, 0x0C:
      return []
    case 0x06...0x0B, 0x30...0x32, 0x35, 0xA2, 0x77, 0xA0, 0xA1, 0xA8, 0xA9, 0xAA, 0xC8...0xCF:
      o.hasModRM = false
      return [o]
    case 0x80...0x8F:
      o.hasModRM = false
      o.immediate = .relative
      return [o]
    case 0x00, 0x01, 0x18, 0x20...0x23, 0x0D, 0x19...0x1F, 0xB9, 0xFF: return [o]
    case 0xAE, 0xC7, 0x71...0x73, 0xBA:
      o.isLockable = byte > 0xB0
      let immediate = byte == 0xAE || byte == 0xC7 ? Immediate.none : .byte
      var all: [Opcode] = []
      for mandatory in [[], [0x66], [0xF3]] as [[UInt8]] {
        o.mandatory = mandatory
        all += group(o, immediate: immediate)
      }
      return all
    case 0xA4, 0xAC: o.immediate = .byte
    case 0x70, 0xC2, 0xC4...0xC6: o.immediate = .byte
    default: break
    }
    o.isLockable = [0xAB, 0xB3, 0xBB, 0xB0, 0xB1, 0xC0, 0xC1].contains(byte)
    switch byte {
    case 0x10...0x17, 0x28...0x2F, 0x50...0x7F, 0xC2, 0xC4...0xC6, 0xD0...0xFE:
      return ([[], [0x66], [0xF2], [0xF3]] as [[UInt8]]).map {
        o.mandatory = $0
        return o
      }
    default: return [o, o]
    }
  }
}

/// What the comparison leaves out, each for its reason.
enum Exclusions {
  private static let prefixes: Set<UInt8> = [
    0x66, 0x67, 0xF2, 0xF3, 0xF0, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65,
  ]

  static func contains(_ code: [UInt8], is32Bit: Bool) -> Bool {
    var place = 0
    var prefixes: Set<UInt8> = []
    while place < code.count, Self.prefixes.contains(code[place]) {
      prefixes.insert(code[place])
      place += 1
    }
    var rex: UInt8 = 0
    if !is32Bit, place < code.count, code[place] & 0xF0 == 0x40 {
      rex = code[place]
      place += 1
    }
    let rest = Array(code.dropFirst(place)) + [0, 0, 0]
    // System calls.
    if rest[0] == 0xCD, rest[1] == 0x80 { return true }
    // A far pointer of 64 bits, and near branches of 16 bits in 64-bit mode: AMD's processors have
    // no such pointers but such branches, Intel's the other way round.
    if !is32Bit {
      let isFar =
        rest[0] == 0xFF && [3, 5].contains(rest[1] >> 3 & 7)
        || rest[0] == 0x0F && [0xB2, 0xB4, 0xB5].contains(rest[1])
      if isFar, rex & 8 != 0 { return true }
      let isNear =
        [0xE0...0xE3, 0xE8...0xE9, 0xEB...0xEB, 0x70...0x7F, 0xC2...0xC3].contains {
          $0.contains(rest[0])
        }
        || rest[0] == 0x0F && rest[1] & 0xF0 == 0x80
        || rest[0] == 0xFF && [2, 4].contains(rest[1] >> 3 & 7)
      if isNear, prefixes.contains(0x66), rex & 8 == 0 { return true }
    }
    // LOOPE and LOOPNE with a repeat prefix, which is for string instructions alone.
    if [0xE0, 0xE1].contains(rest[0]), prefixes.contains(0xF2) || prefixes.contains(0xF3) {
      return true
    }
    guard rest[0] == 0x0F else { return false }
    let modRM = rest[2]
    let isRegister = modRM >= 0xC0
    let reg = modRM >> 3 & 7
    switch rest[1] {
    // SLDT, STR, SGDT, SIDT, SMSW: Linux executes them for the program (UMIP).
    // AMD's processors let LOCK pass with the others of the group.
    case 0x00: return reg < 2 || prefixes.contains(0xF0)
    case 0x01:
      // The host's extensions, and XGETBV.
      return isRegister
        ? ![0xF8, 0xF9, 0xCA, 0xCB].contains(modRM) && reg != 6 : reg < 2 || reg == 4
    // MOV of CR8 by way of LOCK, which is AMD's.
    case 0x20, 0x22: return prefixes.contains(0xF0)
    // MOVNTSS, MOVNTSD: SSE4a.
    case 0x2B: return prefixes.contains(0xF2) || prefixes.contains(0xF3)
    case 0xAE:
      // XSAVE and its kin: the host has more state than the software CPU. CLWB, PCOMMIT.
      if !isRegister, reg >= 4, reg != 7, prefixes.isDisjoint(with: [0xF2, 0xF3]) { return true }
      if !isRegister, reg >= 4 { return prefixes.contains(0x66) || reg != 7 }
      return isRegister && reg == 6
    // XSAVEC, XSAVES and the host's.
    case 0xC7: return !isRegister && reg != 1
    default: return false
    }
  }
}
