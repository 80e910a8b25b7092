// SPDX-License-Identifier: Apache-2.0

/// The x87 instructions, executed by the host's x87 unit on the guest's state.
extension SoftCPU {
  @inline(never)
  mutating func executeX87(_ i: Instruction) throws(Fault) {
    if i.op == .fwait {
      if cr0 & 0xA == 0xA { throw .deviceNotAvailable }
      if x87.isPending { throw .x87 }
      return
    }
    guard cr0 & 0xC == 0 else { throw .deviceNotAvailable }
    if i.isRegister {
      try executeRegister(i)
    } else {
      try executeMemory(i)
    }
  }

  /// Where the instruction under way starts, in its segment.
  private func start(_ i: Instruction) -> UInt64 { rip &- UInt64(i.length) }

  private mutating func notePointers(_ i: Instruction, data: UInt64) {
    x87.opcode = UInt16(i.opcode & 7) << 8 | UInt16(i.modrm)
    x87.instructionPointer = start(i)
    x87.dataPointer = data
  }

  // MARK: - Registers

  /// Whether the host has an instruction of this register form (opcode maps, tables,
  /// with the aliases that processors keep).
  private static func exists(_ opcode: UInt8, _ modrm: UInt8) -> Bool {
    switch opcode {
    case 0xD9:
      switch modrm {
      case 0xD1...0xD7, 0xE2, 0xE3, 0xE6, 0xE7, 0xEF: false
      default: true
      }
    case 0xDA: modrm < 0xE0 || modrm == 0xE9
    case 0xDB: modrm < 0xE5 || (0xE8...0xF7).contains(modrm)
    case 0xDD: modrm < 0xF0
    case 0xDE: !(0xD8...0xDF).contains(modrm) || modrm == 0xD9
    case 0xDF: modrm <= 0xE0 || (0xE8...0xF7).contains(modrm)
    default: true
    }
  }

  private mutating func executeRegister(_ i: Instruction) throws(Fault) {
    guard Self.exists(i.opcode, i.modrm) else { throw .undefined }
    switch (i.opcode, i.modrm) {
    case (0xDB, 0xE3):
      keepingRegisters { cpu in cpu.x87.initialize() }
      return
    case (0xDB, 0xE2):
      x87.status &= 0x7F00
      return
    case (0xDB, 0xE0), (0xDB, 0xE1), (0xDB, 0xE4): return
    case (0xDF, 0xE0):
      setReg16(0, x87.status)
      return
    default: break
    }
    if x87.isPending { throw .x87 }
    var unused = [2 of UInt64](repeating: 0)
    let result = x87.execute(i.opcode, i.modrm, memory: &unused, flags: flags.bits)
    // FCOMI and its kin set ZF, PF, CF and clear the others.
    if i.opcode & 3 == 3, i.modrm >= 0xE8 { flags.set(result) }
    notePointers(i, data: x87.dataPointer)
  }

  // MARK: - Memory

  /// What a memory form does: how many bytes it reads, or writes; zero for none of these.
  private static func access(_ opcode: UInt8, _ group: UInt8) -> (bytes: Int, isStore: Bool) {
    switch (opcode, group) {
    case (0xD8, _), (0xDA, _), (0xD9, 0), (0xDB, 0): (4, false)
    case (0xD9, 2), (0xD9, 3), (0xDB, 1...3): (4, true)
    case (0xDB, 5), (0xDF, 4): (10, false)
    case (0xDB, 7), (0xDF, 6): (10, true)
    case (0xDC, _), (0xDD, 0), (0xDF, 5): (8, false)
    case (0xDD, 1...3), (0xDF, 7): (8, true)
    case (0xDE, _), (0xDF, 0), (0xD9, 5): (2, false)
    case (0xDF, 1...3), (0xD9, 7), (0xDD, 7): (2, true)
    default: (0, false)
    }
  }

  private mutating func executeMemory(_ i: Instruction) throws(Fault) {
    switch (i.opcode, i.group) {
    case (0xD9, 6): return try storeEnvironment(i)
    case (0xD9, 4): return try loadEnvironment(i)
    case (0xDD, 4): return try restoreState(i)
    case (0xDD, 6): return try saveState(i)
    case (0xD9, 7): return try storeOperand(x87.control, i)
    case (0xDD, 7): return try storeOperand(x87.status, i)
    default: break
    }
    let access = Self.access(i.opcode, i.group)
    guard access.bytes > 0 else { throw .undefined }
    if x87.isPending { throw .x87 }
    let place = try linear(i, access.bytes, isWrite: access.isStore)
    if access.isStore {
      try checkWrite(place, access.bytes)
    }
    // An instruction that ends in an unmasked exception leaves memory as it was.
    var memory = [2 of UInt64](repeating: 0)
    switch access.bytes {
    case 2: memory[0] = UInt64(try load(UInt16.self, place))
    case 4: memory[0] = UInt64(try load(UInt32.self, place))
    case 8: memory[0] = try load(UInt64.self, place)
    default:
      memory[0] = try load(UInt64.self, place)
      memory[1] = UInt64(try load(UInt16.self, wrapped(place &+ 8)))
    }
    _ = x87.execute(i.opcode, i.group << 3, memory: &memory, flags: 2)
    if access.isStore {
      switch access.bytes {
      case 2: try store(UInt16(truncatingIfNeeded: memory[0]), place)
      case 4: try store(UInt32(truncatingIfNeeded: memory[0]), place)
      case 8: try store(memory[0], place)
      default:
        try store(memory[0], place)
        try store(UInt16(truncatingIfNeeded: memory[1]), wrapped(place &+ 8))
      }
    }
    // FLDCW is a control instruction: the pointers stay.
    if i.opcode != 0xD9 || i.group != 5 { notePointers(i, data: offset(i)) }
  }

  // MARK: - Environment

  /// The tag word in full: two bits for each physical register.
  private var fullTags: UInt16 {
    var word: UInt16 = 0
    for number in 0..<8 {
      var tag: UInt16 = 3
      if x87.tags >> UInt8(number) & 1 != 0 {
        let register = x87.fxsaveRegister((number - x87.top) & 7)
        let exponent = register.high & 0x7FFF
        if exponent == 0 {
          tag = register.low == 0 ? 1 : 2
        } else if exponent == 0x7FFF || register.low >> 63 == 0 {
          tag = 2
        } else {
          tag = 0
        }
      }
      word |= tag << UInt16(2 * number)
    }
    return word
  }

  private func environmentByteCount(_ i: Instruction) -> Int { i.size == 2 ? 14 : 28 }

  /// Writes the environment; the seven fields are 16 or 32 bits wide (figures 8-9 to 8-12).
  private mutating func writeEnvironment(_ i: Instruction, _ place: UInt64) throws(Fault) {
    let ip = x87.instructionPointer
    let dp = x87.dataPointer
    var words: [7 of UInt64] = [
      UInt64(x87.control), UInt64(x87.status), UInt64(fullTags), ip, 0, dp, 0,
    ]
    if isProtected {
      if i.size != 2 { words[4] = UInt64(x87.opcode) << 16 }
    } else if i.size == 2 {
      words[4] = (ip >> 16 & 15) << 12 | UInt64(x87.opcode)
      words[6] = (dp >> 16 & 15) << 12
    } else {
      words[3] = ip & 0xFFFF
      words[4] = (ip >> 16 & 0xFFFF) << 12 | UInt64(x87.opcode)
      words[5] = dp & 0xFFFF
      words[6] = (dp >> 16 & 0xFFFF) << 12
    }
    let width: UInt8 = i.size == 2 ? 2 : 4
    for number in 0..<7 {
      // The upper halves of the words that have only sixteen bits read as ones.
      let isShort = number < 3 || number == 6 && isProtected
      let ones: UInt64 = width == 4 && isShort ? 0xFFFF_0000 : 0
      try storeSized(
        words[number] | ones, wrapped(place &+ UInt64(number) * UInt64(width)), width)
    }
  }

  private mutating func storeEnvironment(_ i: Instruction) throws(Fault) {
    let size = environmentByteCount(i)
    let place = try linear(i, size, isWrite: true)
    try checkWrite(place, size)
    try writeEnvironment(i, place)
    x87.control |= 0x3F
    x87.status &= ~0x8080
  }

  private mutating func readEnvironment(_ i: Instruction, _ place: UInt64) throws(Fault) {
    let width: UInt8 = i.size == 2 ? 2 : 4
    var words = [7 of UInt64](repeating: 0)
    for number in 0..<7 {
      words[number] = try loadSized(
        wrapped(place &+ UInt64(number) * UInt64(width)), width)
    }
    var tags: UInt64 = 0
    for number in UInt64(0)..<8 where words[2] >> (2 * number) & 3 != 3 { tags |= 1 << number }
    var ip = words[3]
    var dp = words[5]
    var opcode = width == 4 ? words[4] >> 16 : UInt64(x87.opcode)
    if !isProtected {
      opcode = words[4]
      ip = words[3] & 0xFFFF | (words[4] >> 12 & 0xFFFF) << 16
      dp = words[5] & 0xFFFF | (words[6] >> 12 & 0xFFFF) << 16
    }
    x87.setFXSAVEHeader(
      words[0] & 0xFFFF | (words[1] & 0xFFFF) << 16 | tags << 32 | (opcode & 0x7FF) << 48, ip, dp)
  }

  private mutating func loadEnvironment(_ i: Instruction) throws(Fault) {
    if x87.isPending { throw .x87 }
    let place = try linear(i, environmentByteCount(i), isWrite: false)
    // The physical registers stay where they are while TOP moves.
    try keepingRegisters { cpu throws(Fault) in try cpu.readEnvironment(i, place) }
  }

  /// Does something that may change TOP, with the physical registers left as they are.
  mutating func keepingRegisters<E>(_ body: (inout SoftCPU) throws(E) -> Void) throws(E) {
    let old = x87.top
    var registers: [(low: UInt64, high: UInt16)] = []
    for number in 0..<8 { registers.append(x87.fxsaveRegister((number - old) & 7)) }
    try body(&self)
    let new = x87.top
    for number in 0..<8 {
      x87.setFXSAVERegister(
        (number - new) & 7, low: registers[number].low, high: registers[number].high)
    }
  }

  private mutating func saveState(_ i: Instruction) throws(Fault) {
    let size = environmentByteCount(i) + 80
    let place = try linear(i, size, isWrite: true)
    try checkWrite(place, size)
    try writeEnvironment(i, place)
    let first = place &+ UInt64(environmentByteCount(i))
    for st in 0..<8 {
      let register = x87.fxsaveRegister(st)
      let at = first &+ 10 * UInt64(st)
      for part in UInt64(0)..<4 {
        let word = UInt16(truncatingIfNeeded: register.low >> (16 * part))
        try store(word, wrapped(at &+ 2 * part))
      }
      try store(register.high, wrapped(at &+ 8))
    }
    keepingRegisters { cpu in cpu.x87.initialize() }
  }

  private mutating func restoreState(_ i: Instruction) throws(Fault) {
    if x87.isPending { throw .x87 }
    let size = environmentByteCount(i) + 80
    let place = try linear(i, size, isWrite: false)
    try checkRead(place, size)
    try readEnvironment(i, place)
    let first = place &+ UInt64(environmentByteCount(i))
    for st in 0..<8 {
      let at = first &+ 10 * UInt64(st)
      var low: UInt64 = 0
      for part in UInt64(0)..<4 {
        low |= UInt64(try load(UInt16.self, wrapped(at &+ 2 * part))) << (16 * part)
      }
      x87.setFXSAVERegister(st, low: low, high: try load(UInt16.self, wrapped(at &+ 8)))
    }
  }
}
