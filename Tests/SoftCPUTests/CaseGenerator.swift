// SPDX-License-Identifier: Apache-2.0

@testable import SoftCPU

/// SplitMix64, so that a seed says all.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }

  mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }
  mutating func oneIn(_ count: Int) -> Bool { below(count) == 0 }
  mutating func pick<T>(_ values: [T]) -> T { values[below(values.count)] }
}

/// Makes instructions of user mode: every opcode in turn, with every prefix, form and boundary
/// operand by chance.
struct CaseGenerator {
  private(set) var random: SplitMix
  /// Compatibility mode, not 64-bit mode.
  let is32Bit: Bool
  private let opcodes: [Opcode]
  private var position = 0

  init(seed: UInt64, is32Bit: Bool) {
    random = SplitMix(state: seed)
    self.is32Bit = is32Bit
    opcodes = Opcode.all(is32Bit: is32Bit)
  }

  /// How many opcodes it takes in turn.
  var opcodeCount: Int { opcodes.count }

  mutating func next() -> UserCase {
    while true {
      let opcode = opcodes[position % opcodes.count]
      position += 1
      if let one = make(opcode) { return one }
    }
  }

  // MARK: - One case

  private mutating func make(_ opcode: Opcode) -> UserCase? {
    var one = UserCase()
    one.registers = registers()
    one.dataAddress = HostCPU.data + UInt64(random.below(0x2000 - 64))
    one.data = data()
    one.registers.cs = is32Bit ? 0x23 : 0x33
    one.registers.rip = HostCPU.code + 0x800
    if random.oneIn(40) { one.registers.rip = HostCPU.code + 0x1000 - UInt64(1 + random.below(12)) }

    var prefixes = chosenPrefixes(opcode)
    var rex: UInt8 = 0
    if !is32Bit, !random.oneIn(3) { rex = 0x40 | UInt8(random.below(16)) }
    one.target = target()
    var tail: [UInt8] = []
    if opcode.hasModRM {
      var base: UInt64 = 0
      if prefixes.contains(0x64) { base = HostCPU.data + 0x100 }
      if prefixes.contains(0x65) { base = HostCPU.data + 0x800 }
      let is16Bit = is32Bit && prefixes.contains(0x67)
      tail = operand(&one, opcode, rex, base: base, is16Bit: is16Bit)
    }
    tail += immediate(opcode, prefixes, rex)
    prefixes.shuffle(using: &random)
    var code = prefixes
    switch opcode.map {
    case .vex2, .vex3:
      // BMI1 and BMI2 alone: no vector registers.
      let vvvv = UInt8(random.below(16))
      let w: UInt8 = random.oneIn(2) ? 0x80 : 0
      let map: UInt8 = opcode.map == .vex2 ? 2 : 3
      code = prefixes.filter { $0 == 0x64 || $0 == 0x65 || $0 == 0x67 || $0 == 0x2E }
      let extensions: UInt8 = is32Bit ? 0xE0 : (~rex & 7) << 5
      code += [0xC4, extensions | map, w | (~vvvv & 15) << 3 | opcode.vexPrefix]
      code.append(opcode.byte)
    default:
      if rex != 0 { code.append(rex) }
      code += opcode.map.escape
      code.append(opcode.byte)
    }
    code += tail
    guard code.count <= 16, !Exclusions.contains(code, is32Bit: is32Bit) else { return nil }
    one.code = code
    if is32Bit { for number in 0..<16 { one.registers.gpr[number] &= 0xFFFF_FFFF } }
    return one
  }

  private mutating func chosenPrefixes(_ opcode: Opcode) -> [UInt8] {
    var result = opcode.mandatory
    if random.oneIn(opcode.isString ? 2 : 12) { result.append(random.pick([0xF2, 0xF3])) }
    if random.oneIn(5) { result.append(0x66) }
    if random.oneIn(12) { result.append(0x67) }
    if random.oneIn(10) { result.append(random.pick([0x64, 0x65, 0x2E, 0x36, 0x26, 0x3E])) }
    if random.oneIn(opcode.isLockable ? 5 : 60) { result.append(0xF0) }
    return result
  }

  private mutating func immediate(_ opcode: Opcode, _ prefixes: [UInt8], _ rex: UInt8) -> [UInt8] {
    let is16Bit = prefixes.contains(0x66) && rex & 8 == 0
    var count = 0
    switch opcode.immediate {
    case .none: return []
    case .byte: count = 1
    case .word: count = 2
    case .operand: count = is16Bit ? 2 : 4
    case .wide: count = rex & 8 != 0 ? 8 : is16Bit ? 2 : 4
    case .address:
      count = is32Bit ? (prefixes.contains(0x67) ? 2 : 4) : prefixes.contains(0x67) ? 4 : 8
    case .enter:
      return [
        UInt8(random.below(256)), UInt8(random.below(2)),
        UInt8(random.below(4) == 0 ? random.below(256) : random.below(4)),
      ]
    case .relativeByte: return [random.pick([0x10, 0x30, 0x7F, 0xC0, 0x80, 0x90])]
    case .relative:
      let distance = UInt64(
        bitPattern: random.pick([0x40, -0x100, 0x200, 0x7FF0, -0x5000, 0x1000_0000, -0x7000_0000]))
      return (0..<(is16Bit ? 2 : 4)).map { UInt8(truncatingIfNeeded: distance >> (8 * $0)) }
    case .far:
      let offset = HostCPU.code + UInt64(random.below(0x1000))
      let selector = UInt64(random.pick(Self.selectors))
      return (0..<(is16Bit ? 2 : 4)).map { UInt8(truncatingIfNeeded: offset >> (8 * $0)) }
        + [UInt8(truncatingIfNeeded: selector), UInt8(truncatingIfNeeded: selector >> 8)]
    }
    if opcode.immediate == .address {
      let address = target()
      return (0..<count).map { UInt8(truncatingIfNeeded: address >> (8 * UInt64($0))) }
    }
    let value = word()
    return (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }
  }

  // MARK: - Memory operands

  /// Where a memory operand goes: mostly into the data, aligned or not; at its edges; into the
  /// read-only page; and where nothing is.
  private mutating func target() -> UInt64 {
    switch random.below(20) {
    case 0: return HostCPU.data + 0x2000 - UInt64(random.below(16))
    case 1: return HostCPU.data + 0x1000 - UInt64(random.below(16))
    case 2: return HostCPU.data + 0x2000 + UInt64(random.below(0x1000))
    case 3:
      return random.pick([
        0, 0x1000_0000_0000, 0x2000_3000, 0x1FFF_FFF8, 0x8000_0000_0000,
        0xFFFF_7FFF_FFFF_FFFF, 0x7FFF_FFFF_FFFC, 0x7FFF_FFF0, 0xFFFF_FFFC,
      ])
    case 4...9: return HostCPU.data + UInt64(random.below(0x1F00))
    default: return HostCPU.data + UInt64(random.below(0x1E0) * 16)
    }
  }

  /// ModRM and what belongs to it; sets the registers such that it gives the target.
  private mutating func operand(
    _ one: inout UserCase, _ opcode: Opcode, _ rex: UInt8, base: UInt64, is16Bit: Bool
  ) -> [UInt8] {
    let reg = opcode.reg ?? UInt8(random.below(8))
    if opcode.form == .register || opcode.form == .any && random.oneIn(2) {
      return [0xC0 | reg << 3 | (opcode.rm ?? UInt8(random.below(8)))]
    }
    let mod = UInt8(random.below(3))
    let rm = UInt8(random.below(8))
    let address = one.target &- base
    if is16Bit {
      let count = mod == 2 || mod == 0 && rm == 6 ? 2 : mod == 1 ? 1 : 0
      return [mod << 6 | reg << 3 | rm] + (0..<count).map { _ in UInt8(random.below(256)) }
    }
    var bytes = [mod << 6 | reg << 3 | rm]
    var displacement: UInt64 = 0
    if mod == 1 {
      displacement = UInt64(bitPattern: Int64(Int8(truncatingIfNeeded: random.next())))
    }
    if mod == 2 {
      displacement = UInt64(
        bitPattern: Int64(
          Int32(truncatingIfNeeded: random.oneIn(2) ? random.next() : random.next() & 0xFFF)))
    }
    var size = mod == 1 ? 1 : mod == 2 ? 4 : 0
    if rm == 4 {
      let scale = UInt8(random.below(4))
      let index = UInt8(random.below(8))
      let base = UInt8(random.below(8))
      bytes.append(scale << 6 | index << 3 | base)
      let indexRegister = Int(index | (rex & 2) << 2)
      let hasIndex = indexRegister != 4
      if mod == 0, base == 5 {
        size = 4
        displacement = address
        if hasIndex { one.registers.gpr[indexRegister] = UInt64(random.below(2)) }
      } else {
        let baseRegister = Int(base | (rex & 1) << 3)
        if hasIndex, indexRegister == baseRegister {
          let factor = UInt64(1 + (1 << scale))
          one.registers.gpr[baseRegister] = (address &- displacement) / factor
        } else {
          var shifted: UInt64 = 0
          if hasIndex {
            if random.oneIn(2) { one.registers.gpr[indexRegister] = UInt64(random.below(64)) }
            shifted = one.registers.gpr[indexRegister] << UInt64(scale)
          }
          one.registers.gpr[baseRegister] = address &- displacement &- shifted
        }
      }
    } else if mod == 0, rm == 5 {
      size = 4
      displacement = is32Bit ? address : address &- (one.registers.rip &+ 8)
    } else {
      one.registers.gpr[Int(rm | (rex & 1) << 3)] = address &- displacement
    }
    return bytes + (0..<size).map { UInt8(truncatingIfNeeded: displacement >> (8 * UInt64($0))) }
  }

  // MARK: - Values

  static let selectors: [UInt16] = [
    0, 3, 0x23, 0x2B, 0x33, 0x2A, 0x10, 0x18, 0x1B, 0x13, 0x40, 0x43, 0x80, 0xFFF8, 0x2F, 0x27,
  ]

  private static let edges: [UInt64] = [
    0, 1, 2, 7, 8, 15, 16, 31, 32, 33, 63, 64, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF,
    0x1_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000, 0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0000, .max, .max - 1, .max - 7, 0x9999, 0xAAAA_AAAA_AAAA_AAAA,
    0xFFFF_FFFF_8000_0000, 0x2B, 0x33, 0x23,
  ]

  private mutating func word() -> UInt64 {
    switch random.below(4) {
    case 0: return random.pick(Self.edges)
    case 1: return random.next() >> UInt64(random.below(64))
    case 2: return random.pick(Self.edges) &+ random.pick(Self.edges)
    default: return random.next()
    }
  }

  private mutating func data() -> [UInt8] {
    var words = (0..<8).map { _ in word() }
    if random.oneIn(3) { for place in 0..<8 { words[place] = lanes() } }
    if random.oneIn(6) {
      words[0] = HostCPU.code + 0x100 | UInt64(random.pick(Self.selectors)) << 32
    }
    return words.flatMap { word in
      (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * UInt64($0))) }
    }
  }

  /// Eight bytes as a vector register may hold them: two floats, a double, or integers.
  private mutating func lanes() -> UInt64 {
    let floats: [UInt32] = [
      0, 0x8000_0000, 0x3F80_0000, 0xBF80_0000, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000,
      0x7F80_0001, 0xFFA0_0001, 1, 0x8000_0001, 0x007F_FFFF, 0x0080_0000, 0x7F7F_FFFF,
      0x4F00_0000, 0xCF00_0000, 0x3F00_0000, 0x4B00_0001, 0x3EAA_AAAB, 0x40490FDB,
    ]
    let doubles: [UInt64] = [
      0, 1 << 63, 0x3FF0_0000_0000_0000, 0xBFF0_0000_0000_0000, 0x7FF0_0000_0000_0000,
      0xFFF0_0000_0000_0000, 0x7FF8_0000_0000_0000, 0x7FF0_0000_0000_0001, 1,
      0x000F_FFFF_FFFF_FFFF, 0x0010_0000_0000_0000, 0x7FEF_FFFF_FFFF_FFFF, 0x41E0_0000_0000_0000,
      0xC1E0_0000_0000_0000, 0x43E0_0000_0000_0000, 0x3FE0_0000_0000_0000, 0x3FD5_5555_5555_5555,
      0x4330_0000_0000_0001, 0x36A0_0000_0000_0000, 0x47EF_FFFF_F000_0000,
    ]
    switch random.below(5) {
    case 0: return UInt64(random.pick(floats)) | UInt64(random.pick(floats)) << 32
    case 1: return random.pick(doubles)
    case 2:
      // Not far from one.
      let exponent = UInt64(1023 - 20 + random.below(40))
      return random.next() & 0x800F_FFFF_FFFF_FFFF | exponent << 52
    case 3: return word()
    default: return random.next()
    }
  }

  /// The significand, and the sign and exponent, of an x87 register.
  private mutating func extended() -> (UInt64, UInt16) {
    let sign: UInt16 = random.oneIn(2) ? 0x8000 : 0
    let ones: UInt64 = 1 << 63
    switch random.below(12) {
    case 0: return (0, sign)
    case 1: return (ones, sign | 0x7FFF)
    case 2: return (ones | 1 << 62 | random.next() >> 2, sign | 0x7FFF)
    case 3: return (ones | random.next() >> 2 | 1, sign | 0x7FFF)
    // Denormal, pseudo-denormal, unnormal, pseudo-infinity.
    case 4: return (random.next() >> 1, sign)
    case 5: return (ones | random.next(), sign)
    case 6: return (random.next() >> 1, sign | UInt16(random.below(0x8000)))
    case 7: return (random.next(), sign | UInt16(random.below(0x8000)))
    // Integers.
    case 8:
      let value = UInt64(random.below(200))
      guard value != 0 else { return (0, sign) }
      let shift = UInt64(value.leadingZeroBitCount)
      return (value << shift, sign | UInt16(16383 + 63 - shift))
    default: return (ones | random.next(), sign | UInt16(16383 - 40 + random.below(80)))
    }
  }

  private mutating func registers() -> UserRegisters {
    var r = UserRegisters()
    for number in 0..<16 { r.gpr[number] = word() }
    for number in [4, 5, 6, 7] where !random.oneIn(12) { r.gpr[number] = target() }
    if random.oneIn(2) { r.gpr[1] = UInt64(random.below(40)) }
    if is32Bit { for number in 0..<8 { r.gpr[number] &= 0xFFFF_FFFF } }
    r.rflags = 0x20_0202 | random.next() & 0x8D5
    if random.oneIn(6) { r.rflags |= 0x400 }
    if random.oneIn(50) { r.rflags |= 0x100 }
    if random.oneIn(50) { r.rflags |= 0x4_0000 }
    func put(_ value: UInt64, _ offset: Int, _ count: Int) {
      for lane in 0..<count {
        r.fxsave[offset + lane] = UInt8(truncatingIfNeeded: value >> UInt64(8 * lane))
      }
    }
    var control: UInt64 = 0x37F
    if random.oneIn(2) { control = 0x7F | random.next() & 0xF00 }
    if random.oneIn(6) { control = 0x40 | random.next() & 0xF3F }
    var status: UInt64 = UInt64(random.below(8)) << 11 | random.next() & 0x4700
    if random.oneIn(6) { status |= random.next() & 0x7F }
    if status & ~control & 0x3F != 0 { status |= 0x8080 }
    put(control, 0, 2)
    put(status, 2, 2)
    put(
      random.oneIn(3)
        ? random.next() & 0xFF : random.oneIn(2) ? 0xFF : 0xFF & ~(1 << UInt64(random.below(8))), 4,
      1)
    var mxcsr: UInt64 = 0x1F80
    if random.oneIn(3) { mxcsr = 0x1F80 | random.next() & 0xE07F }
    if random.oneIn(10) { mxcsr = random.next() & 0xFFFF }
    put(mxcsr, 24, 4)
    put(0xFFFF, 28, 4)
    for number in 0..<8 {
      let (low, high) = extended()
      put(low, 32 + 16 * number, 8)
      put(UInt64(high), 40 + 16 * number, 2)
    }
    for number in 0..<32 { put(lanes(), 160 + 8 * number, 8) }
    return r
  }
}
