// SPDX-License-Identifier: Apache-2.0

/// The opcodes after 0F, 0F 38, 0F 3A and VEX (SDM volume 2, tables ).
extension Decoder {
  mutating func twoByte() throws(Stop) {
    let opcode = try next()
    i.opcode = opcode
    i.map = 1 | mandatory << 4 | (rex & 8) << 3
    switch opcode {
    case 0x00:
      try modrm()
      let ops: [8 of Op] = [.sldt, .str, .lldt, .ltr, .verr, .verw, .undefined, .undefined]
      ends(ops[Int(i.group)])
    case 0x01: try group7()
    case 0x02, 0x03:
      try modrm()
      ends(opcode == 2 ? .lar : .lsl)
    case 0x05: ends(.syscall)
    case 0x06: ends(.clts)
    case 0x07: ends(.sysret)
    case 0x08: ends(.invd)
    case 0x09: ends(.wbinvd)
    case 0x0D:
      try modrm()
      i.isRegister ? undefine() : set(.nop)
    case 0x18...0x1F:
      try modrm()
      set(.nop)
    case 0x10...0x17, 0x28...0x2F, 0x50...0x77, 0x7C...0x7F, 0xC2, 0xC4...0xC6, 0xD0...0xFE:
      try vector(1)
    case 0x20...0x23:
      let byte = try next()
      i.modrm = byte | 0xC0
      i.reg = byte >> 3 & 7 | (rex & 4) << 1
      i.rm = byte & 7 | (rex & 1) << 3
      i.size = mode == .bits64 ? 8 : 4
      let ops: [4 of Op] = [.movFromCR, .movFromDR, .movToCR, .movToDR]
      ends(ops[Int(opcode & 3)])
    case 0x30: ends(.wrmsr)
    case 0x31: ends(.rdtsc)
    case 0x32: ends(.rdmsr)
    case 0x33: ends(.rdpmc)
    case 0x34: ends(.sysenter)
    case 0x35: ends(.sysexit)
    case 0x38: try threeByte38()
    case 0x3A: try threeByte3A()
    case 0x40...0x4F:
      try modrm()
      set(i.isRegister ? .cmovR : .cmovM)
    case 0x80...0x8F:
      force64()
      i.immediate = try signed(i.size == 2 ? 2 : 4)
      ends(.jcc)
    case 0x90...0x9F:
      try byteModRM()
      set(.setcc)
    default: try twoByteHigh(opcode)
    }
  }

  private mutating func twoByteHigh(_ opcode: UInt8) throws(Stop) {
    switch opcode {
    case 0xA0, 0xA1, 0xA8, 0xA9:
      default64()
      i.reg = opcode >> 3 & 7
      ends(opcode & 1 == 0 ? .pushSegment : .popSegment)
    case 0xA2: ends(.cpuid)
    case 0xA3: try bitTest(.bt)
    case 0xAB: try bitTest(.bts)
    case 0xB3: try bitTest(.btr)
    case 0xBB: try bitTest(.btc)
    case 0xA4, 0xA5, 0xAC, 0xAD:
      try modrm()
      i.vvvv = opcode & 1  // by CL
      if opcode & 1 == 0 { i.immediate = try unsigned(1) }
      set(opcode < 0xA8 ? .shld : .shrd)
    case 0xAA: ends(.rsm)
    case 0xAE: try group15()
    case 0xAF:
      try modrm()
      set(.imul2)
    case 0xB0, 0xB1:
      opcode == 0xB0 ? try byteModRM() : try modrm()
      set(.cmpxchg)
    case 0xB2, 0xB4, 0xB5:
      try modrm()
      guard !i.isRegister else { return undefine() }
      i.vvvv = opcode & 7
      ends(.loadFarPointer)
    case 0xB6, 0xB7, 0xBE, 0xBF: try extend(opcode)
    case 0xB8:
      guard repeatPrefix == 0xF3 else { return undefine() }
      try modrm()
      set(.popcnt)
    case 0xBA:
      try modrm()
      i.immediate = try unsigned(1)
      i.vvvv = 1
      let ops: [8 of Op] = [
        .undefined, .undefined, .undefined, .undefined, .bt, .bts, .btr, .btc,
      ]
      set(ops[Int(i.group)])
    case 0xBC, 0xBD:
      try modrm()
      let isCount = repeatPrefix == 0xF3
      set(opcode == 0xBC ? (isCount ? .tzcnt : .bsf) : (isCount ? .lzcnt : .bsr))
    case 0xC0, 0xC1:
      opcode == 0xC0 ? try byteModRM() : try modrm()
      set(.xadd)
    case 0xC3:
      try modrm()
      guard !i.isRegister, mandatory == 0, i.size != 2 else { return undefine() }
      set(.movnti)
    case 0xC7: try group9()
    case 0xC8...0xCF:
      i.rm = opcode & 7 | (rex & 1) << 3
      i.modrm = 0xC0
      set(.bswap)
    case 0xB9, 0xFF:
      try modrm()
      undefine()
    default: undefine()
    }
  }

  /// The mandatory prefix as in ``Instruction/map``; F2 and F3 win over 66.
  private var mandatory: UInt8 {
    repeatPrefix == 0xF3 ? 2 : repeatPrefix == 0xF2 ? 3 : isOperandSize ? 1 : 0
  }

  private mutating func vector(_ map: UInt8) throws(Stop) {
    i.size = rex & 8 != 0 ? 8 : 4
    i.map = map | mandatory << 4 | (rex & 8) << 3
    if map == 1, i.opcode == 0x77 {
      i.modrm = 0xC0
      return set(.vector)
    }
    try modrm()
    switch (map, i.opcode) {
    case (3, _), (1, 0x70...0x73), (1, 0xC2), (1, 0xC4...0xC6): i.immediate = try unsigned(1)
    default: break
    }
    set(.vector)
  }

  private mutating func bitTest(_ op: Op) throws(Stop) {
    try modrm()
    i.vvvv = 0
    set(op)
  }

  private mutating func extend(_ opcode: UInt8) throws(Stop) {
    let size = i.size
    try modrm()
    let isByte = opcode & 1 == 0
    if isByte, i.isRegister { i.rm = byteRegister(i.rm) }
    i.size = size
    if !isByte, size == 2 {
      // MOVZX and MOVSX of a word to a word are plain moves.
      if i.isRegister { (i.reg, i.rm) = (i.rm, i.reg) }
      return set(.movRR8, operation: 0, form: i.isRegister ? 0 : 1)
    }
    let isSigned = opcode >= 0xBE
    let number: Int =
      (isSigned ? 10 : 0) + (isByte ? 0 : 6) + (i.isRegister ? 0 : isByte ? 3 : 2)
      + Int(sizeIndex) - (isByte ? 1 : 2)
    i.op = Op(rawValue: Op.movzx8R16.rawValue + UInt16(number)) ?? .undefined
  }

  private mutating func group7() throws(Stop) {
    try modrm()
    guard i.isRegister else {
      let ops: [8 of Op] = [
        .sgdt, .sidt, .lgdt, .lidt, .smsw, .undefined, .lmsw, .invlpg,
      ]
      return ends(ops[Int(i.group)])
    }
    let is64 = mode == .bits64
    switch i.modrm {
    case 0xC1, 0xD9: ends(.vmcall)
    case 0xC8: ends(.monitor)
    case 0xC9: ends(.mwait)
    case 0xCA where mandatory == 0: ends(.clac)
    case 0xCB where mandatory == 0: ends(.stac)
    case 0xD0 where mandatory == 0: ends(.xgetbv)
    case 0xD1 where mandatory == 0: ends(.xsetbv)
    case 0xE8 where mandatory == 0: ends(.serialize)
    case 0xEE where mandatory == 0: ends(.rdpkru)
    case 0xEF where mandatory == 0: ends(.wrpkru)
    case 0xF8 where is64: ends(.swapgs)
    case 0xF9: ends(.rdtscp)
    case 0xE0...0xE7: ends(.smsw)
    case 0xF0...0xF7: ends(.lmsw)
    default: undefine()
    }
  }

  private mutating func group9() throws(Stop) {
    try modrm()
    switch (i.isRegister, i.group) {
    case (false, 1): set(rex & 8 != 0 ? .cmpxchg16b : .cmpxchg8b)
    case (false, 3), (false, 4), (false, 5): set(.save)
    case (true, 6) where mandatory < 2: set(.rdrand)
    case (true, 7):
      if repeatPrefix == 0xF3 { return ends(.rdpid) }
      mandatory < 2 ? set(.rdseed) : undefine()
    default: undefine()
    }
  }

  private mutating func group15() throws(Stop) {
    try modrm()
    guard i.isRegister else {
      switch (i.group, mandatory) {
      case (0...5, 0): set(.save)
      case (6, 0): set(.save)
      case (6, 1), (7, 0), (7, 1): set(.clflush)
      default: undefine()
      }
      return
    }
    switch (i.group, mandatory) {
    case (0...3, 2):
      guard mode == .bits64 else { return undefine() }
      let ops: [4 of Op] = [.rdfsbase, .rdgsbase, .wrfsbase, .wrgsbase]
      i.size = rex & 8 != 0 ? 8 : 4
      ends(ops[Int(i.group)])
    case (5...7, 0): set(.fence)
    default: undefine()
    }
  }

  private mutating func threeByte38() throws(Stop) {
    let opcode = try next()
    i.opcode = opcode
    i.map = 2 | mandatory << 4 | (rex & 8) << 3
    switch opcode {
    case 0x82 where mandatory == 1:
      try modrm()
      i.isRegister ? undefine() : ends(.invpcid)
    case 0xF0, 0xF1:
      if repeatPrefix == 0xF2 {
        let size = i.size
        if opcode == 0xF0 {
          try byteModRM()
          i.reg = i.modrm >> 3 & 7 | (rex & 4) << 1
        } else {
          try modrm()
        }
        // The destination is 64 bits wide with REX.W, else 32.
        i.vvvv = size == 8 ? 8 : 4
        return set(.crc32)
      }
      guard repeatPrefix == 0 else { return undefine() }
      try modrm()
      guard !i.isRegister else { return undefine() }
      set(.movbe)
    case 0xF6 where mandatory == 1 || mandatory == 2:
      i.size = rex & 8 != 0 ? 8 : 4
      try modrm()
      set(mandatory == 1 ? .adcx : .adox)
    default: try vector(2)
    }
  }

  private mutating func threeByte3A() throws(Stop) {
    i.opcode = try next()
    try vector(3)
  }

  // MARK: - VEX

  mutating func vex(_ first: UInt8) throws(Stop) {
    guard rex == 0, repeatPrefix == 0, !isOperandSize else {
      _ = try next()
      return undefine()
    }
    var map: UInt8 = 1
    var last = try next()
    var isWide = false
    if first == 0xC5 {
      rex = last & 0x80 == 0 ? 4 : 0
    } else {
      map = last & 0x1F
      rex = (last & 0x80 == 0 ? 4 : 0) | (last & 0x40 == 0 ? 2 : 0) | (last & 0x20 == 0 ? 1 : 0)
      last = try next()
      isWide = last & 0x80 != 0
      if isWide { rex |= 8 }
    }
    if mode != .bits64 { rex &= 8 }
    i.vvvv = ~last >> 3 & 15
    if mode != .bits64 { i.vvvv &= 7 }
    let prefix = last & 3
    let opcode = try next()
    i.opcode = opcode
    i.prefixes.insert(.vex)
    i.size = isWide && mode == .bits64 ? 8 : 4
    i.map = map | prefix << 4 | (isWide ? 0x40 : 0) | (last & 4) << 5
    guard (1...3).contains(map) else { return undefine() }
    if map == 1, opcode == 0x77 {
      i.modrm = 0xC0
      return set(.vector)
    }
    try modrm()
    if map == 3 || map == 1 && ((0x70...0x73).contains(opcode) || opcode == 0xC2)
      || map == 1 && (0xC4...0xC6).contains(opcode)
    {
      i.immediate = try unsigned(1)
    }
    let isShort = last & 4 == 0
    switch (map, opcode, prefix) {
    case (2, 0xF2, 0) where isShort: set(.andn)
    case (2, 0xF3, 0) where isShort:
      let ops: [8 of Op] = [
        .undefined, .blsr, .blsmsk, .blsi, .undefined, .undefined, .undefined, .undefined,
      ]
      set(ops[Int(i.group)])
    case (2, 0xF5, 0) where isShort: set(.bzhi)
    case (2, 0xF5, 2) where isShort: set(.pext)
    case (2, 0xF5, 3) where isShort: set(.pdep)
    case (2, 0xF6, 3) where isShort: set(.mulx)
    case (2, 0xF7, 0) where isShort: set(.bextr)
    case (2, 0xF7, 1) where isShort: set(.shlx)
    case (2, 0xF7, 2) where isShort: set(.sarx)
    case (2, 0xF7, 3) where isShort: set(.shrx)
    case (3, 0xF0, 3) where isShort && last & 0x78 == 0x78: set(.rorx)
    default: set(.vector)
    }
  }
}
