// SPDX-License-Identifier: Apache-2.0

/// Turns the bytes of one instruction into an ``Instruction`` (SDM volume 2, chapter 2 and
/// appendix A).
///
/// It knows the code's mode and nothing of the processor's state. What is not an instruction
/// becomes ``Op/undefined``.
struct Decoder {
  /// Why there is no instruction.
  enum Stop: Error, Equatable {
    /// The bytes end before the instruction does.
    case needsMore
    /// Longer than 15 bytes: #GP.
    case tooLong
  }

  private let bytes: [16 of UInt8]
  private let count: Int
  let mode: CodeMode
  private var position = 0

  var i = Instruction()
  var rex: UInt8 = 0
  private(set) var isOperandSize = false
  private var isAddressSize = false
  private var isLock = false
  /// The last of F2 and F3, or zero.
  private(set) var repeatPrefix: UInt8 = 0
  /// A segment prefix, as a segment's number.
  private var override: UInt8?

  /// - Precondition: `count` is at most 15.
  init(_ bytes: [16 of UInt8], count: Int, mode: CodeMode) {
    self.bytes = bytes
    self.count = min(count, 15)
    self.mode = mode
  }

  /// Decodes the instruction at the start of `bytes`.
  static func decode(_ bytes: [16 of UInt8], count: Int, mode: CodeMode) throws(Stop)
    -> Instruction
  {
    var decoder = Decoder(bytes, count: count, mode: mode)
    return try decoder.run()
  }

  private mutating func run() throws(Stop) -> Instruction {
    i.base = Instruction.none
    i.index = Instruction.none
    i.segment = 3
    try prefixes()
    let opcode = try next()
    i.opcode = opcode
    try oneByte(opcode)
    if isLock { lock() }
    var flags = i.prefixes
    if repeatPrefix == 0xF3 { flags.insert(.rep) }
    if repeatPrefix == 0xF2 { flags.insert(.repne) }
    if isOperandSize { flags.insert(.operandSize) }
    if rex != 0 { flags.insert(.rex) }
    if isLock { flags.insert(.lock) }
    i.prefixes = flags
    i.length = UInt8(position)
    return i
  }

  // MARK: - Bytes

  mutating func next() throws(Stop) -> UInt8 {
    guard position < count else {
      throw position >= 15 ? .tooLong : .needsMore
    }
    let byte = bytes[position]
    position += 1
    return byte
  }

  /// The next byte, left where it is.
  func peek() throws(Stop) -> UInt8 {
    guard position < count else {
      throw position >= 15 ? .tooLong : .needsMore
    }
    return bytes[position]
  }

  private mutating func prefixes() throws(Stop) {
    while true {
      let byte = try peek()
      switch byte {
      case 0x26, 0x2E, 0x36, 0x3E:
        if mode != .bits64 { override = byte >> 3 & 3 }
      case 0x64: override = 4
      case 0x65: override = 5
      case 0x66: isOperandSize = true
      case 0x67: isAddressSize = true
      case 0xF0: isLock = true
      case 0xF2, 0xF3: repeatPrefix = byte
      case 0x40...0x4F:
        guard mode == .bits64 else {
          settleSizes()
          return
        }
        // A REX counts only right before the opcode.
        rex = byte
        position += 1
        continue
      default:
        settleSizes()
        return
      }
      rex = 0
      position += 1
    }
  }

  private mutating func settleSizes() {
    switch mode {
    case .bits64:
      i.size = rex & 8 != 0 ? 8 : isOperandSize ? 2 : 4
      i.addressSize = isAddressSize ? 4 : 8
    case .bits32:
      i.size = isOperandSize ? 2 : 4
      i.addressSize = isAddressSize ? 2 : 4
    case .bits16:
      i.size = isOperandSize ? 4 : 2
      i.addressSize = isAddressSize ? 4 : 2
    }
    if let override { i.segment = override }
  }

  // MARK: - Operands

  /// A byte register by its number in the instruction.
  func byteRegister(_ number: UInt8) -> UInt8 {
    rex == 0 && number >= 4 && number < 8 && !i.prefixes.contains(.vex)
      ? number + 16 : number
  }

  mutating func modrm() throws(Stop) {
    let byte = try next()
    i.modrm = byte
    i.reg = byte >> 3 & 7 | (rex & 4) << 1
    if byte >= 0xC0 {
      i.rm = byte & 7 | (rex & 1) << 3
      return
    }
    if i.addressSize == 2 { try memory16(byte) } else { try memory32(byte) }
  }

  /// ModRM, with byte registers for both operands.
  mutating func byteModRM() throws(Stop) {
    i.size = 1
    try modrm()
    i.reg = byteRegister(i.reg)
    if i.isRegister { i.rm = byteRegister(i.rm) }
  }

  private mutating func memory16(_ byte: UInt8) throws(Stop) {
    let mod = byte >> 6
    switch byte & 7 {
    case 0: (i.base, i.index) = (3, 6)
    case 1: (i.base, i.index) = (3, 7)
    case 2: (i.base, i.index) = (5, 6)
    case 3: (i.base, i.index) = (5, 7)
    case 4: i.base = 6
    case 5: i.base = 7
    case 6:
      guard mod != 0 else {
        i.displacement = try signed(2)
        return
      }
      i.base = 5
    default: i.base = 3
    }
    if i.base == 5, override == nil { i.segment = 2 }
    if mod == 1 { i.displacement = try signed(1) }
    if mod == 2 { i.displacement = try signed(2) }
  }

  private mutating func memory32(_ byte: UInt8) throws(Stop) {
    let mod = byte >> 6
    var base = byte & 7
    if base == 4 {
      let sib = try next()
      base = sib & 7
      let index = sib >> 3 & 7 | (rex & 2) << 2
      i.scale = sib >> 6
      if index != 4 { i.index = index }
      if base == 5, mod == 0 {
        i.displacement = try signed(4)
        return
      }
    } else if base == 5, mod == 0 {
      if mode == .bits64 { i.base = Instruction.ripSlot }
      i.displacement = try signed(4)
      return
    }
    i.base = base | (rex & 1) << 3
    if i.base == 4 || i.base == 5, override == nil { i.segment = 2 }
    if mod == 1 { i.displacement = try signed(1) }
    if mod == 2 { i.displacement = try signed(4) }
  }

  /// The next `count` bytes, sign-extended.
  mutating func signed(_ count: Int) throws(Stop) -> UInt64 {
    let value = try unsigned(count)
    let shift = UInt64(64 - 8 * count)
    return UInt64(bitPattern: Int64(bitPattern: value << shift) >> Int64(shift))
  }

  mutating func unsigned(_ count: Int) throws(Stop) -> UInt64 {
    var value: UInt64 = 0
    for place in 0..<count { value |= UInt64(try next()) << UInt64(8 * place) }
    return value
  }

  /// An immediate of the operand's size, but at most four bytes, sign-extended.
  mutating func immediate() throws(Stop) {
    i.immediate = try signed(i.size == 1 ? 1 : i.size == 2 ? 2 : 4)
  }

  mutating func byteImmediate() throws(Stop) { i.immediate = try signed(1) }

  // MARK: - Results

  mutating func set(_ op: Op) { i.op = op }

  /// The case of a group that is listed by form (5) and size (4).
  mutating func set(_ first: Op, operation: UInt8, form: UInt8, forms: UInt8 = 5) {
    let number =
      first.rawValue + (UInt16(operation) * UInt16(forms) + UInt16(form)) * 4 + sizeIndex
    i.op = Op(rawValue: number) ?? .undefined
  }

  /// 0 to 3 for 1, 2, 4, 8 bytes.
  var sizeIndex: UInt16 { UInt16(i.size.trailingZeroBitCount) }

  mutating func ends(_ op: Op) {
    i.op = op
    i.prefixes.insert(.endsBlock)
  }

  /// Stack and near branch operands are 64 bits wide in 64-bit mode, or 16 with a prefix.
  mutating func default64() {
    if mode == .bits64, i.size == 4 { i.size = 8 }
  }

  /// Near branches in 64-bit mode ignore the operand size prefix, as Intel's processors do.
  mutating func force64() {
    if mode == .bits64 { i.size = 8 }
  }

  /// What a LOCK prefix makes of the instruction: allowed where memory is read and written.
  private mutating func lock() {
    guard !i.isRegister, i.map & 0xF < 2 else { return undefine() }
    switch i.op {
    case .xchgM, .xadd, .cmpxchg, .cmpxchg8b, .cmpxchg16b, .lockedALU, .lockedUnary: return
    case .bts, .btr, .btc: return
    default: break
    }
    let number = i.op.rawValue
    if number >= Op.addRR8.rawValue, number < Op.cmpRR8.rawValue {
      let form = (number - Op.addRR8.rawValue) / 4 % 5
      let operation = UInt8((number - Op.addRR8.rawValue) / 20)
      guard form == 2 || form == 4 else { return undefine() }
      i.vvvv = operation
      // A register operand is told by an immediate's absence.
      if form == 2 { i.scale |= 0x80 }
      i.op = .lockedALU
      return
    }
    if number >= Op.incR8.rawValue, number <= Op.negM64.rawValue {
      let form = (number - Op.incR8.rawValue) % 8
      guard form & 1 == 1 else { return undefine() }
      i.vvvv = UInt8(form / 2)
      i.op = .lockedUnary
      return
    }
    undefine()
  }

  mutating func undefine() {
    i.op = .undefined
    i.prefixes.insert(.endsBlock)
  }
}
