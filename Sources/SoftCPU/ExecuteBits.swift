// SPDX-License-Identifier: Apache-2.0

/// Bits, counts, BCD, and the extensions of the integer set.
extension SoftCPU {
  mutating func executeBits(_ i: Instruction) throws(Fault) {
    switch i.op {
    case .mul, .imul1: try multiply(i)
    case .imul2, .imul3: try multiplyShort(i)
    case .div, .idiv: try divide(i)
    case .shld, .shrd: try doubleShift(i)
    case .bt, .bts, .btr, .btc: try bitTest(i)
    case .bsf, .bsr, .lzcnt, .tzcnt, .popcnt: try count(i)
    case .bswap: swapBytes(i)
    case .movbe: try moveSwapped(i)
    case .crc32: try checksum(i)
    case .adcx, .adox: try addWithOneFlag(i)
    case .daa, .das, .aaa, .aas, .aam, .aad: try decimal(i)
    default: try executeBMI(i)
    }
  }

  // MARK: - Bit tests

  private mutating func bitTest(_ i: Instruction) throws(Fault) {
    let width = UInt64(i.size) * 8
    let index = i.vvvv == 1 ? i.immediate & (width - 1) : reg(i.reg, size: i.size)
    let bit = index & (width - 1)
    func changed(_ value: UInt64) -> UInt64 {
      switch i.op {
      case .bts: value | 1 << bit
      case .btr: value & ~(1 << bit)
      case .btc: value ^ 1 << bit
      default: value
      }
    }
    if i.isRegister {
      let value = reg(i.rm, size: i.size)
      if i.op != .bt { setReg(i.rm, size: i.size, changed(value)) }
      flags.setCarry(value >> bit & 1 != 0)
      return
    }
    // A register index reaches over the whole of memory, signed.
    var offset = offset(i)
    if i.vvvv == 0 {
      let words = Int64(bitPattern: Self.signed(index, i.size)) >> Int64(width.trailingZeroBitCount)
      offset = truncated(offset &+ UInt64(bitPattern: words) &* UInt64(i.size), i.addressSize)
    }
    let isWrite = i.op != .bt
    let place = try linear(Int(i.segment), offset, Int(i.size), isWrite: isWrite)
    let old: UInt64
    if !isWrite {
      old = try loadSized(place, i.size)
    } else if i.prefixes.contains(.lock) {
      switch i.size {
      case 2:
        old = UInt64(
          try exchange(UInt16.self, place) { UInt16(truncatingIfNeeded: changed(UInt64($0))) })
      case 4:
        old = UInt64(
          try exchange(UInt32.self, place) { UInt32(truncatingIfNeeded: changed(UInt64($0))) })
      default: old = try exchange(UInt64.self, place) { changed($0) }
      }
    } else {
      try checkWrite(place, Int(i.size))
      old = try loadSized(place, i.size)
      try storeSized(changed(old), place, i.size)
    }
    flags.setCarry(old >> bit & 1 != 0)
  }

  // MARK: - Counts

  private mutating func count(_ i: Instruction) throws(Fault) {
    let value = try loadRM(i, size: i.size)
    let width = UInt64(i.size) * 8
    var op = i.op
    // Without the feature the prefix means nothing.
    if op == .tzcnt, !has(.bmi1) { op = .bsf }
    if op == .lzcnt, !has(.lzcnt) { op = .bsr }
    switch op {
    case .bsf, .bsr:
      // The destination is left alone for zero, as AMD documents.
      guard value != 0 else {
        flags.setZero(true)
        return
      }
      let place = op == .bsf ? value.trailingZeroBitCount : 63 - value.leadingZeroBitCount
      setReg(i.reg, size: i.size, UInt64(place))
      flags.setZero(false)
    case .popcnt:
      guard has(.popcnt) else { throw .undefined }
      setReg(i.reg, size: i.size, UInt64(value.nonzeroBitCount))
      flags.set(value == 0 ? LazyFlags.zero : 0)
    default:
      let result =
        op == .tzcnt
        ? min(width, UInt64(value.trailingZeroBitCount))
        : UInt64(value.leadingZeroBitCount) &- (64 - width)
      setReg(i.reg, size: i.size, result)
      let kept = flags.bits & ~(LazyFlags.carry | LazyFlags.zero)
      flags.set(
        kept | (value == 0 ? LazyFlags.carry : 0) | (result == 0 ? LazyFlags.zero : 0))
    }
  }

  private mutating func swapBytes(_ i: Instruction) {
    switch i.size {
    case 8: setReg64(i.rm, reg64(i.rm).byteSwapped)
    case 4: setReg32(i.rm, reg32(i.rm).byteSwapped)
    // Undefined with a 16-bit operand: the processors write zero.
    default: setReg16(i.rm, 0)
    }
  }

  private mutating func moveSwapped(_ i: Instruction) throws(Fault) {
    guard has(.movbe) else { throw .undefined }
    func swapped(_ value: UInt64) -> UInt64 { value.byteSwapped >> (64 - UInt64(i.size) * 8) }
    if i.opcode == 0xF0 {
      setReg(i.reg, size: i.size, swapped(try loadOperand(size: i.size, i)))
    } else {
      try storeOperand(size: i.size, swapped(reg(i.reg, size: i.size)), i)
    }
  }

  /// CRC32 with the polynomial 11EDC6F41h, reflected.
  private mutating func checksum(_ i: Instruction) throws(Fault) {
    guard has(.crc32) else { throw .undefined }
    let value = try loadRM(i, size: i.size)
    var crc = reg32(i.reg)
    for lane in 0..<UInt64(i.size) {
      crc ^= UInt32(truncatingIfNeeded: value >> (8 * lane) & 0xFF)
      for _ in 0..<8 { crc = crc >> 1 ^ (crc & 1 != 0 ? 0x82F6_3B78 : 0) }
    }
    setReg64(i.reg, UInt64(crc))
  }

  private mutating func addWithOneFlag(_ i: Instruction) throws(Fault) {
    guard has(.adx) else { throw .undefined }
    let value = try loadRM(i, size: i.size)
    let isCarry = i.op == .adcx
    let carryIn: UInt64 = (isCarry ? flags.cf : flags.of) ? 1 : 0
    let a = reg(i.reg, size: i.size)
    let (partial, first) = a.addingReportingOverflow(value)
    let (sum, second) = partial.addingReportingOverflow(carryIn)
    let carry = i.size == 8 ? first || second : sum >> 32 != 0
    setReg(i.reg, size: i.size, truncated(sum, i.size))
    flags.setCarry(isCarry ? carry : flags.cf, overflow: isCarry ? flags.of : carry)
  }

  // MARK: - BCD

  private mutating func decimal(_ i: Instruction) throws(Fault) {
    let al = reg8(0)
    switch i.op {
    case .daa, .das:
      let isAdd = i.op == .daa
      let oldCarry = flags.cf
      var value = al
      var carry = false
      var adjust = false
      if al & 15 > 9 || flags.af {
        carry = oldCarry || (isAdd ? al > 0xF9 : al < 6)
        value = isAdd ? value &+ 6 : value &- 6
        adjust = true
      }
      if al > 0x99 || oldCarry {
        value = isAdd ? value &+ 0x60 : value &- 0x60
        carry = true
      }
      setReg8(0, value)
      setDecimalFlags(value, carry: carry, adjust: adjust)
    case .aaa, .aas:
      let adjusts = al & 15 > 9 || flags.af
      if adjusts {
        setReg16(0, i.op == .aaa ? reg16(0) &+ 0x106 : reg16(0) &- 0x106)
      }
      setReg8(0, reg8(0) & 15)
      setDecimalFlags(reg8(0), carry: adjusts, adjust: adjusts)
    case .aam:
      let base = UInt8(truncatingIfNeeded: i.immediate)
      guard base != 0 else { throw .divide }
      setReg16(0, UInt16(al / base) << 8 | UInt16(al % base))
      setDecimalFlags(al % base, carry: false, adjust: false)
    default:
      let base = UInt8(truncatingIfNeeded: i.immediate)
      let value = al &+ reg8(20) &* base
      setReg16(0, UInt16(value))
      setDecimalFlags(value, carry: false, adjust: false)
    }
  }

  private mutating func setDecimalFlags(_ value: UInt8, carry: Bool, adjust: Bool) {
    setLogicFlags(value)
    flags.set(
      flags.bits | (carry ? LazyFlags.carry : 0) | (adjust ? LazyFlags.adjust : 0))
  }

  // MARK: - BMI

  private mutating func executeBMI(_ i: Instruction) throws(Fault) {
    let isFirst: Bool
    switch i.op {
    case .andn, .bextr, .blsr, .blsmsk, .blsi: isFirst = true
    case .bzhi, .mulx, .pdep, .pext, .rorx, .sarx, .shlx, .shrx: isFirst = false
    default: throw .undefined
    }
    guard has(isFirst ? .bmi1 : .bmi2) else { throw .undefined }
    let source = try loadRM(i, size: i.size)
    let second = reg(i.vvvv, size: i.size)
    let width = UInt64(i.size) * 8
    switch i.op {
    case .andn:
      let result = truncated(~second & source, i.size)
      setReg(i.reg, size: i.size, result)
      setLogic(result, i.size)
    case .bextr:
      let start = second & 0xFF
      let length = second >> 8 & 0xFF
      let moved = start < width ? source >> start : 0
      let result = length < width ? moved & (1 << length &- 1) : moved
      setReg(i.reg, size: i.size, result)
      flags.set(result == 0 ? LazyFlags.zero : 0)
    case .blsr, .blsmsk, .blsi:
      let result: UInt64
      switch i.op {
      case .blsr: result = source & (source &- 1)
      case .blsmsk: result = source ^ (source &- 1)
      default: result = source & (0 &- source)
      }
      let value = truncated(result, i.size)
      setReg(i.vvvv, size: i.size, value)
      setLogic(value, i.size)
      flags.setCarry(i.op == .blsi ? source != 0 : source == 0)
    case .bzhi:
      let index = second & 0xFF
      let result = index < width ? source & (1 << index &- 1) : source
      setReg(i.reg, size: i.size, result)
      setLogic(result, i.size)
      flags.setCarry(index >= width)
    case .mulx:
      let a = reg(2, size: i.size)
      let low: UInt64
      let high: UInt64
      if i.size == 8 {
        (high, low) = a.multipliedFullWidth(by: source)
      } else {
        low = truncated(a &* source, 4)
        high = (a &* source) >> 32
      }
      // With one register for both, it gets the high half.
      setReg(i.vvvv, size: i.size, low)
      setReg(i.reg, size: i.size, high)
    case .pdep: setReg(i.reg, size: i.size, Self.deposit(second, source))
    case .pext: setReg(i.reg, size: i.size, Self.extract(second, source))
    case .rorx:
      let turn = i.immediate & (width - 1)
      let result = turn == 0 ? source : source >> turn | source << (width - turn)
      setReg(i.reg, size: i.size, truncated(result, i.size))
    default:
      let amount = second & (width - 1)
      let result: UInt64
      switch i.op {
      case .shlx: result = source << amount
      case .shrx: result = source >> amount
      default:
        result = UInt64(
          bitPattern: Int64(bitPattern: Self.signed(source, i.size)) >> Int64(amount))
      }
      setReg(i.reg, size: i.size, truncated(result, i.size))
    }
  }

  private mutating func setLogic(_ value: UInt64, _ size: UInt8) {
    if size == 8 {
      setLogicFlags(value)
    } else {
      setLogicFlags(UInt32(truncatingIfNeeded: value))
    }
  }

  private static func deposit(_ source: UInt64, _ mask: UInt64) -> UInt64 {
    var result: UInt64 = 0
    var rest = mask
    var bits = source
    while rest != 0 {
      let low = rest & (0 &- rest)
      if bits & 1 != 0 { result |= low }
      bits >>= 1
      rest ^= low
    }
    return result
  }

  private static func extract(_ source: UInt64, _ mask: UInt64) -> UInt64 {
    var result: UInt64 = 0
    var rest = mask
    var place: UInt64 = 0
    while rest != 0 {
      let low = rest & (0 &- rest)
      if source & low != 0 { result |= 1 << place }
      place += 1
      rest ^= low
    }
    return result
  }
}
