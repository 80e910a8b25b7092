// SPDX-License-Identifier: Apache-2.0

/// Makes host code of one decoded block.
///
/// RAX, RCX and RDX are free inside an instruction; RBP points to the register file. Eleven guest
/// registers stay in host registers, the others in the file. The guest's flags are in the host's
/// after the instruction that makes them, as long as ``areFlagsInHost`` says so, and are written
/// to the file where something later may want them.
struct BlockTranslation: ~Copyable {
  typealias Slot = Translator.Slot
  static let rax = HostRegister.rax
  static let rcx = HostRegister.rcx
  static let rdx = HostRegister.rdx
  static let context = HostRegister.context

  /// The host register of each guest register, 255 for those that stay in the file.
  static let homes: [16 of UInt8] = [
    3, 6, 7, 8, 9, 10, 11, 12, 13, 255, 255, 255, 14, 15, 255, 255,
  ]
  static let stackPointer: UInt8 = 9
  static let framePointer: UInt8 = 10

  /// Where a block lies.
  struct Place {
    /// The guest's address of the first byte, and this process's.
    var rip: UInt64
    var host: UInt
    var mark: UInt
    var version: UInt64
    /// The place of the first instruction in ``CodeCache``.
    var first: Int
    /// The offset that the code will have.
    var offset = 0
  }

  var e: Emitter
  let place: Place
  let common: Translator.Common
  /// The address after the instruction at hand, its number, and whether its flags are wanted.
  var next: UInt64
  var number = 0
  var wantsFlags = true
  var areFlagsInHost = false
  var slow: [(site: Int, number: Int, rip: UInt64)] = []
  /// Where the vector registers may have to be loaded first, and whether they are there from here on.
  var vectorLoads: [(site: Int, number: Int, rip: UInt64, back: Int)] = []
  var hasVectors = false
  /// After a store into a page with decoded code: where the store's address is (RAX or RCX), how
  /// many bytes it has, where to go on (`nil`: RIP is set).
  var written: [(site: Int, number: Int, host: UInt8, size: UInt8, rip: UInt64?)] = []

  /// Writes the code of a block; returns its length, or `nil` when too little of it can be translated.
  static func make(
    _ instructions: [Instruction], _ place: Place, _ common: Translator.Common,
    _ emitter: consuming Emitter
  ) -> Int? {
    var effects: [Effect] = []
    for i in instructions {
      guard let effect = Effect(i, common.abilities) else { break }
      effects.append(effect)
    }
    guard effects.count == instructions.count || effects.count >= 3,
      place.version <= UInt64(Int32.max)
    else { return nil }
    var block = BlockTranslation(place, common, emitter)
    block.make(instructions, effects)
    return block.e.count
  }

  init(_ place: Place, _ common: Translator.Common, _ emitter: consuming Emitter) {
    e = emitter
    self.place = place
    self.common = common
    next = place.rip
  }

  // MARK: - The common code

  /// Entered as a C function: the register file in RDI, where to go on in RSI.
  static func entry(_ e: inout Emitter) {
    e.append([0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x50])
    e.registers(8, 0x8B, reg: rax, rm: 6)
    e.registers(8, 0x8B, reg: context, rm: 7)
    for guest in 0..<16 where homes[guest] != 255 { e.load(homes[guest], slot: guest) }
    e.append([0xFF, 0xE0])
  }

  /// Goes back to the dispatcher with what RAX says.
  static func leave(_ e: inout Emitter) {
    for guest in 0..<16 where homes[guest] != 255 { e.store(homes[guest], slot: guest) }
    storeVectors(&e)
    e.append([0x59, 0x41, 0x5F, 0x41, 0x5E, 0x41, 0x5D, 0x41, 0x5C, 0x5D, 0x5B, 0xC3])
  }

  /// Goes on at the guest's RIP, if its code is known.
  static func lookup(_ e: inout Emitter, leave: Int) {
    e.load(rax, slot: Slot.rip)
    e.registers(8, 0x8B, reg: rcx, rm: rax)
    e.registers(8, 0xC1, reg: 5, rm: rcx)
    e.byte(12)
    e.registers(4, 0x33, reg: rcx, rm: rax)
    e.registers(4, 0x81, reg: 4, rm: rcx)
    e.word32(UInt32(Translator.jumpCount - 1))
    e.registers(8, 0xC1, reg: 4, rm: rcx)
    e.byte(5)
    e.memory(8, 0x03, reg: rcx, base: context, displacement: Int32(8 * Slot.jumps))
    e.memory(8, 0x3B, reg: rax, base: rcx)
    let other = e.jump(condition: 5)
    // The page is still where it was, and may be executed.
    e.registers(4, 0x8B, reg: rdx, rm: rax)
    slot(&e, rdx)
    e.memory(8, 0x03, reg: rax, base: rdx, displacement: 24)
    e.memory(8, 0x3B, reg: rax, base: rcx, displacement: 8)
    let moved = e.jump(condition: 5)
    e.load(rax, slot: Slot.rip)
    e.registers(8, 0x81, reg: 4, rm: rax)
    e.word32(0xFFFF_F000)
    e.memory(8, 0x0B, reg: rax, base: context, displacement: Int32(8 * Slot.epoch))
    e.memory(8, 0x3B, reg: rax, base: rdx, displacement: 16)
    let unknown = e.jump(condition: 5)
    e.memory(4, 0xFF, reg: 4, base: rcx, displacement: 16)
    e.aim(other)
    e.aim(moved)
    e.aim(unknown)
    e.constant(rax, 0)
    // The common code lies at the buffer's start.
    e.jump(to: leave)
  }

  /// From an address in a register to its TLB entry.
  static func slot(_ e: inout Emitter, _ register: UInt8) {
    e.registers(4, 0xC1, reg: 5, rm: register)
    // Entries have 64 bytes.
    e.byte(12 - 6)
    e.registers(4, 0x81, reg: 4, rm: register)
    e.word32(UInt32(TLB.size - 1) << 6)
    e.memory(8, 0x03, reg: register, base: context, displacement: Int32(8 * Slot.tlb))
  }

  // MARK: - The block

  mutating func make(_ instructions: [Instruction], _ effects: [Effect]) {
    var wanted = [Bool](repeating: true, count: effects.count)
    var live = true
    for place in effects.indices.reversed() {
      wanted[place] = live || effects[place].mayLeaveAfter
      if effects[place].mayLeaveAfter { live = true }
      if effects[place].kills { live = false }
      if effects[place].reads || effects[place].mayLeave { live = true }
    }
    // The page must be as it was when the block was decoded.
    e.constant(Self.rax, UInt64(place.mark) + 8)
    e.memory(8, 0x81, reg: 7, base: Self.rax)
    e.word32(UInt32(place.version))
    let stale = e.jump(condition: 5)
    e.memory(8, 0x81, reg: 5, base: Self.context, displacement: Int32(8 * Slot.budget))
    e.word32(UInt32(effects.count))
    let spent = e.jump(condition: 8)
    for place in effects.indices {
      let i = instructions[place]
      number = place
      wantsFlags = wanted[place]
      next &+= UInt64(i.length)
      emit(i)
    }
    if effects.count < instructions.count {
      e.constant(slot: Slot.rip, next)
      let rest = instructions[effects.count...]
      // Where most of what follows can't be translated either, it is interpreted in one go.
      let bad = rest.reduce(0) { $0 + (Effect($1, common.abilities) == nil ? 1 : 0) }
      let single = 2 * bad <= rest.count ? Translator.Exit.single : 0
      e.constant(Self.rax, UInt64(place.first + effects.count) | single)
      goOut(to: common.leave)
    } else if let last = instructions.last, !last.endsBlock {
      exit(to: next)
    }
    for (site, number, rip, back) in vectorLoads {
      e.aim(site)
      e.memory(8, 0x83, reg: 7, base: Self.context, displacement: Int32(8 * Slot.vectors))
      e.byte(0)
      slow.append((e.jump(condition: 5), number, rip))
      e.call(to: common.loadVectors - place.offset)
      e.jump(to: back)
    }
    for (site, number, rip) in slow {
      e.aim(site)
      giveBack(effects.count - number)
      e.constant(slot: Slot.rip, rip)
      e.constant(Self.rax, UInt64(place.first + number))
      goOut(to: common.leave)
    }
    for (site, number, host, size, rip) in written {
      e.aim(site)
      e.store(host, slot: Slot.scratch)
      e.store(Self.rdx, slot: Slot.mark)
      giveBack(effects.count - number - 1)
      if let rip { e.constant(slot: Slot.rip, rip) }
      e.constant(Self.rax, Translator.Exit.wroteCode | UInt64(size))
      goOut(to: common.leave)
    }
    e.aim(spent)
    giveBack(effects.count)
    e.aim(stale)
    e.constant(slot: Slot.rip, place.rip)
    e.constant(Self.rax, 0)
    goOut(to: common.leave)
  }

  /// Puts instructions that were not executed back into the budget.
  private mutating func giveBack(_ count: Int) {
    e.memory(8, 0x81, reg: 0, base: Self.context, displacement: Int32(8 * Slot.budget))
    e.word32(UInt32(count))
  }

  mutating func goOut(to target: Int) { e.jump(to: target - place.offset) }

  /// Goes on at an address of the guest that is known now.
  mutating func exit(to target: UInt64) {
    guard target >> 12 == place.rip >> 12 else {
      e.constant(slot: Slot.rip, target)
      return goOut(to: common.lookup)
    }
    // Aimed at the target's code when there is some; until then it goes on right here.
    let site = e.jump()
    e.constant(slot: Slot.rip, target)
    e.constant(slot: Slot.linkPage, UInt64(place.host & ~0xFFF))
    e.constant(Self.rax, Translator.Exit.link | UInt64(place.offset + site))
    goOut(to: common.leave)
  }

  /// Leaves for the interpreter if the condition holds; nothing may have changed yet.
  mutating func leaveSlowly(_ condition: UInt8, _ i: Instruction) {
    slow.append((e.jump(condition: condition), number, next &- UInt64(i.length)))
  }

  // MARK: - Registers

  /// The host register with a guest register's value: its own, or `scratch`, where AH to BH are
  /// always.
  mutating func use(_ guest: UInt8, _ scratch: UInt8) -> UInt8 {
    if guest >= 20 {
      e.registers(4, 0x8B, reg: scratch, rm: Self.homes[Int(guest & 3)])
      // MOVZX of AH, CH or DH.
      e.append([0x0F, 0xB6, 0xC4 | scratch << 3 | scratch])
      return scratch
    }
    let home = Self.homes[Int(guest & 15)]
    if home != 255 { return home }
    e.load(scratch, slot: Int(guest & 15))
    return scratch
  }

  /// Copies a guest register's value into RCX.
  mutating func copy(_ guest: UInt8) {
    let source = use(guest, Self.rcx)
    if source != Self.rcx { e.registers(8, 0x8B, reg: Self.rcx, rm: source) }
  }

  /// Puts what ``use(_:_:)`` has given for a guest register back where that stays.
  ///
  /// For AH to BH, RCX is lost if `host` is RDX, else RDX.
  mutating func finish(_ guest: UInt8, _ host: UInt8) {
    if guest >= 20 {
      let home = Self.homes[Int(guest & 3)]
      let other = host == Self.rdx ? Self.rcx : Self.rdx
      e.registers(8, 0x8B, reg: other, rm: home)
      // MOV of AL, CL or DL to CH or DH.
      e.append([0x88, 0xC4 | host << 3 | other])
      return e.registers(8, 0x8B, reg: home, rm: other)
    }
    if Self.homes[Int(guest & 15)] == 255 { e.store(host, slot: Int(guest & 15)) }
  }

  /// Copies a host register of `size` bytes into a guest register, as MOV does.
  mutating func put(_ guest: UInt8, _ size: UInt8, from source: UInt8) {
    if guest >= 20 {
      let scratch = source > Self.rdx ? Self.rax : source
      if scratch != source { e.registers(4, 0x8B, reg: scratch, rm: source) }
      return finish(guest, scratch)
    }
    let home = Self.homes[Int(guest & 15)]
    if home != 255 {
      return e.registers(size, Self.byteForm(0x8B, size), reg: home, rm: source)
    }
    let isHome = source > Self.rdx
    if size == 4 {
      // The upper half becomes zero.
      e.registers(4, 0x8B, reg: isHome ? Self.rax : source, rm: source)
      return e.store(isHome ? Self.rax : source, slot: Int(guest & 15))
    }
    e.memory(
      size, Self.byteForm(0x89, size), reg: source, base: Self.context,
      displacement: Int32(8 * Int(guest & 15)))
  }

  /// An opcode, or the one before it for bytes.
  static func byteForm(_ opcode: UInt8, _ size: UInt8) -> UInt8 {
    size == 1 ? opcode & ~1 : opcode
  }

  // MARK: - Flags

  /// Writes the flags that are in the host's to the file if something wants them there; RAX is lost.
  mutating func made() {
    areFlagsInHost = true
    guard wantsFlags else { return }
    e.append([0x9F, 0x0F, 0x90, 0xC0])
    e.memory(2, 0x89, reg: Self.rax, base: Self.context, displacement: Int32(8 * Slot.flags))
  }

  /// Has the guest's flags in the host's; RAX is lost.
  mutating func needFlags() {
    guard !areFlagsInHost else { return }
    e.memory(
      4, 0x0F, 0xB7, reg: Self.rax, base: Self.context, displacement: Int32(8 * Slot.flags))
    e.append([0x04, 0x7F, 0x9E])
    areFlagsInHost = true
  }

  /// Has the guest's carry in the host's.
  mutating func needCarry() {
    guard !areFlagsInHost else { return }
    e.memory(
      2, 0x0F, 0xBA, reg: 4, base: Self.context, displacement: Int32(8 * Slot.flags))
    e.byte(8)
  }

  /// Sets carry, and overflow with `both`, from the host's carry; the other flags stay.
  mutating func madeCarry(both: Bool) {
    e.byteSource(4, 0x0F, 0x92, reg: 0, rm: Self.rcx)
    e.byteSource(4, 0x0F, 0xB6, reg: Self.rcx, rm: Self.rcx)
    if both {
      e.registers(4, 0x69, reg: Self.rcx, rm: Self.rcx)
      e.word32(0x101)
    } else {
      e.registers(4, 0xC1, reg: 4, rm: Self.rcx)
      e.byte(8)
    }
    merge(keeping: both ? 0xFEFE : 0xFEFF)
  }

  /// Sets the zero flag from the host's, and leaves the others; RAX and RCX are lost.
  mutating func madeZero() {
    e.byteSource(4, 0x0F, 0x94, reg: 0, rm: Self.rcx)
    e.byteSource(4, 0x0F, 0xB6, reg: Self.rcx, rm: Self.rcx)
    e.registers(4, 0xC1, reg: 4, rm: Self.rcx)
    e.byte(14)
    merge(keeping: 0xBFFF)
  }

  /// Puts the flags in RCX into the file's beside those that are kept; RAX is lost.
  mutating func merge(keeping mask: UInt32) {
    e.memory(
      4, 0x0F, 0xB7, reg: Self.rax, base: Self.context, displacement: Int32(8 * Slot.flags))
    e.registers(4, 0x81, reg: 4, rm: Self.rax)
    e.word32(mask)
    e.registers(4, 0x0B, reg: Self.rax, rm: Self.rcx)
    e.memory(2, 0x89, reg: Self.rax, base: Self.context, displacement: Int32(8 * Slot.flags))
    areFlagsInHost = false
  }

  // MARK: - Memory

  /// The memory operand's address in the guest, in RAX; the flags stay without a segment.
  mutating func address(_ i: Instruction) {
    let displacement = Int32(truncatingIfNeeded: i.displacement)
    switch (i.base, i.index) {
    case (Instruction.ripSlot, _): e.constant(Self.rax, next &+ i.displacement)
    case (Instruction.none, Instruction.none): e.constant(Self.rax, i.displacement)
    case (_, Instruction.none):
      let base = use(i.base, Self.rax)
      e.memory(8, 0x8D, reg: Self.rax, base: base, displacement: displacement)
    default:
      let base: UInt8
      if i.base == Instruction.none {
        e.constant(Self.rax, 0)
        base = Self.rax
      } else {
        base = use(i.base, Self.rax)
      }
      let index = use(i.index, Self.rcx)
      e.lea(Self.rax, base: base, index: index, scale: i.scale & 3, displacement)
    }
  }

  /// The memory operand in this process, in RAX; RCX, RDX and the host's flags are lost.
  mutating func operand(_ i: Instruction, _ size: UInt8, isWrite: Bool) {
    address(i)
    addSegment(i)
    translate(i, size, isWrite: isWrite)
  }

  /// Adds the base of the operand's segment to the address in RAX.
  mutating func addSegment(_ i: Instruction) {
    guard i.segment >= 4 else { return }
    e.memory(
      8, 0x03, reg: Self.rax, base: Self.context,
      displacement: Int32(8 * (i.segment == 4 ? Slot.fsBase : Slot.gsBase)))
  }

  /// From the guest's address in RAX to this process's.
  mutating func translate(_ i: Instruction, _ size: UInt8, isWrite: Bool) {
    areFlagsInHost = false
    e.registers(4, 0x8B, reg: Self.rcx, rm: Self.rax)
    Self.slot(&e, Self.rcx)
    // The last byte's page: where the operand crosses into another, it is not the entry's.
    e.memory(8, 0x8D, reg: Self.rdx, base: Self.rax, displacement: Int32(size) - 1)
    e.registers(8, 0x81, reg: 4, rm: Self.rdx)
    e.word32(0xFFFF_F000)
    e.memory(8, 0x0B, reg: Self.rdx, base: Self.context, displacement: Int32(8 * Slot.epoch))
    e.memory(8, 0x3B, reg: Self.rdx, base: Self.rcx, displacement: isWrite ? Self.writes + 8 : 0)
    leaveSlowly(5, i)
    // The page's mark, for ``wrote(_:_:rip:)``.
    if isWrite {
      e.memory(8, 0x8B, reg: Self.rdx, base: Self.rcx, displacement: Self.writes + 40)
    }
    e.memory(
      8, 0x03, reg: Self.rax, base: Self.rcx, displacement: isWrite ? Self.writes + 24 : 24)
  }

  /// Where the entries for writes lie behind those for reads.
  static let writes = Int32(64 * TLB.size)

  /// After a store, whose mark is in RDX: leaves if its page holds decoded code.
  ///
  /// It is looked at afterwards, so that who decodes meanwhile either sees what was stored or is
  /// seen here.
  mutating func wrote(_ host: UInt8, _ size: UInt8, rip: UInt64?) {
    e.memory(8, 0x83, reg: 7, base: Self.rdx)
    e.byte(0)
    areFlagsInHost = false
    written.append((e.jump(condition: 5), number, host, size, rip))
  }

  /// After an instruction that has changed memory at RAX, and whose flags are in the host's.
  mutating func changed(_ size: UInt8) {
    e.registers(8, 0x8B, reg: Self.rcx, rm: Self.rax)
    made()
    wrote(Self.rcx, size, rip: next)
  }

  // MARK: - Instructions

  mutating func emit(_ i: Instruction) {
    let raw = i.opNumber
    switch raw {
    case Op.addRR8.rawValue...Op.cmpMI64.rawValue:
      let number = raw - Op.addRR8.rawValue
      arithmetic(i, UInt8(number / 20), number % 20 / 4, 1 << UInt8(number % 4))
    case Op.testRR8.rawValue...Op.testMI64.rawValue:
      let number = raw - Op.testRR8.rawValue
      test(i, number / 4, 1 << UInt8(number % 4))
    case Op.movRR8.rawValue...Op.movMI64.rawValue:
      let number = raw - Op.movRR8.rawValue
      move(i, number / 4, 1 << UInt8(number % 4))
    case Op.movzx8R16.rawValue...Op.movsxdM64.rawValue: extend(i, raw - Op.movzx8R16.rawValue)
    case Op.incR8.rawValue...Op.negM64.rawValue:
      let number = raw - Op.incR8.rawValue
      unary(i, number % 8 / 2, 1 << UInt8(number / 8))
    case Op.shlRI16.rawValue...Op.sarRI64.rawValue:
      let number = raw - Op.shlRI16.rawValue
      let group: UInt8 = number % 3 == 0 ? 4 : number % 3 == 1 ? 5 : 7
      shift(i, group, 2 << UInt8(number / 3), isFixed: true)
    case Op.shift.rawValue:
      shift(i, i.group == 6 ? 4 : i.group, i.size, isFixed: i.vvvv == 0)
    default: emitOther(i)
    }
  }

  mutating func arithmetic(
    _ i: Instruction, _ operation: UInt8, _ form: UInt16, _ size: UInt8
  ) {
    let takesCarry = operation == 2 || operation == 3
    let isCompare = operation == 7
    switch form {
    case 0:
      let source = use(i.reg, Self.rcx)
      let target = use(i.rm, Self.rax)
      if takesCarry { needCarry() }
      e.registers(size, Self.byteForm(operation << 3 | 1, size), reg: source, rm: target)
      if !isCompare { finish(i.rm, target) }
    case 1:
      operand(i, size, isWrite: false)
      let target = use(i.reg, Self.rcx)
      if takesCarry { needCarry() }
      e.memory(size, Self.byteForm(operation << 3 | 3, size), reg: target, base: Self.rax)
      if !isCompare { finish(i.reg, target) }
    case 2:
      operand(i, size, isWrite: !isCompare)
      let source = use(i.reg, Self.rcx)
      if takesCarry { needCarry() }
      e.memory(size, Self.byteForm(operation << 3 | 1, size), reg: source, base: Self.rax)
      if !isCompare { return changed(size) }
    case 3:
      let target = use(i.rm, Self.rax)
      if takesCarry { needCarry() }
      e.registers(size, Self.byteForm(0x81, size), reg: operation, rm: target)
      immediate(i, size)
      if !isCompare { finish(i.rm, target) }
    default:
      operand(i, size, isWrite: !isCompare)
      if takesCarry { needCarry() }
      e.memory(size, Self.byteForm(0x81, size), reg: operation, base: Self.rax)
      immediate(i, size)
      if !isCompare { return changed(size) }
    }
    made()
  }

  mutating func immediate(_ i: Instruction, _ size: UInt8) {
    switch size {
    case 1: e.byte(UInt8(truncatingIfNeeded: i.immediate))
    case 2:
      e.byte(UInt8(truncatingIfNeeded: i.immediate))
      e.byte(UInt8(truncatingIfNeeded: i.immediate >> 8))
    default: e.word32(UInt32(truncatingIfNeeded: i.immediate))
    }
  }

  mutating func test(_ i: Instruction, _ form: UInt16, _ size: UInt8) {
    if form & 1 == 1 { operand(i, size, isWrite: false) }
    switch form {
    case 0:
      let source = use(i.reg, Self.rcx)
      e.registers(size, Self.byteForm(0x85, size), reg: source, rm: use(i.rm, Self.rax))
    case 1:
      e.memory(size, Self.byteForm(0x85, size), reg: use(i.reg, Self.rcx), base: Self.rax)
    case 2:
      e.registers(size, Self.byteForm(0xF7, size), reg: 0, rm: use(i.rm, Self.rax))
      immediate(i, size)
    default:
      e.memory(size, Self.byteForm(0xF7, size), reg: 0, base: Self.rax)
      immediate(i, size)
    }
    made()
  }

  mutating func move(_ i: Instruction, _ form: UInt16, _ size: UInt8) {
    switch form {
    case 0: put(i.rm, size, from: use(i.reg, Self.rcx))
    case 1:
      operand(i, size, isWrite: false)
      let target = use(i.reg, Self.rcx)
      e.memory(size, Self.byteForm(0x8B, size), reg: target, base: Self.rax)
      finish(i.reg, target)
    case 2:
      operand(i, size, isWrite: true)
      e.memory(size, Self.byteForm(0x89, size), reg: use(i.reg, Self.rcx), base: Self.rax)
      wrote(Self.rax, size, rip: next)
    case 3:
      let value = size == 4 ? i.immediate & 0xFFFF_FFFF : i.immediate
      e.constant(Self.rcx, value)
      put(i.rm, size, from: Self.rcx)
    default:
      operand(i, size, isWrite: true)
      e.memory(size, Self.byteForm(0xC7, size), reg: 0, base: Self.rax)
      immediate(i, size)
      wrote(Self.rax, size, rip: next)
    }
  }

  /// MOVZX, MOVSX and MOVSXD, by their places in ``Op``.
  mutating func extend(_ i: Instruction, _ number: UInt16) {
    let isMemory = !i.isRegister
    let isDouble = number >= 20
    let isSigned = number >= 10
    let place = isSigned ? number - 10 : number
    let sourceSize: UInt8 = isDouble ? 4 : place < 6 ? 1 : 2
    let size: UInt8
    if isDouble {
      size = 8
    } else if place < 6 {
      size = 2 << UInt8(place % 3)
    } else {
      size = 4 << UInt8((place - 6) % 2)
    }
    let second: UInt8 = (isSigned ? 0xBE : 0xB6) | (sourceSize == 2 ? 1 : 0)
    if isMemory {
      operand(i, sourceSize, isWrite: false)
      let target = use(i.reg, Self.rcx)
      if isDouble {
        e.memory(8, 0x63, reg: target, base: Self.rax)
      } else {
        e.memory(size, 0x0F, second, reg: target, base: Self.rax)
      }
      return finish(i.reg, target)
    }
    let source = use(i.rm, Self.rcx)
    let target = use(i.reg, Self.rax)
    if isDouble {
      e.registers(8, 0x63, reg: target, rm: source)
    } else {
      e.byteSource(size, 0x0F, second, reg: target, rm: source)
    }
    finish(i.reg, target)
  }

  /// INC, DEC, NOT and NEG.
  mutating func unary(_ i: Instruction, _ operation: UInt16, _ size: UInt8) {
    let opcode = Self.byteForm(operation < 2 ? 0xFF : 0xF7, size)
    let field = UInt8(operation)
    if i.opNumber & 1 == Op.incM8.rawValue & 1 {
      operand(i, size, isWrite: true)
      if operation < 2 { needCarry() }
      e.memory(size, opcode, reg: field, base: Self.rax)
      if operation == 2 { return wrote(Self.rax, size, rip: next) }
      return changed(size)
    } else {
      let target = use(i.rm, Self.rax)
      if operation < 2 { needCarry() }
      e.registers(size, opcode, reg: field, rm: target)
      finish(i.rm, target)
    }
    if operation != 2 { made() }
  }

  mutating func shift(_ i: Instruction, _ group: UInt8, _ size: UInt8, isFixed: Bool) {
    guard i.isRegister else {
      operand(i, size, isWrite: true)
      e.memory(size, Self.byteForm(0xC1, size), reg: group, base: Self.rax)
      e.byte(UInt8(truncatingIfNeeded: i.immediate))
      return changed(size)
    }
    if !(isFixed && group >= 4) { needFlags() }
    if isFixed {
      let target = use(i.rm, Self.rax)
      e.registers(size, Self.byteForm(0xC1, size), reg: group, rm: target)
      e.byte(UInt8(truncatingIfNeeded: i.immediate))
      finish(i.rm, target)
    } else {
      copy(1)
      let target = use(i.rm, Self.rax)
      e.registers(size, Self.byteForm(0xD3, size), reg: group, rm: target)
      // A count of zero still clears the upper half.
      if size == 4 { e.registers(4, 0x8B, reg: target, rm: target) }
      finish(i.rm, target)
    }
    made()
  }

  mutating func emitOther(_ i: Instruction) {
    switch i.op {
    case .nop: break
    case .lea16, .lea32, .lea64:
      address(i)
      put(i.reg, i.op == .lea64 ? 8 : i.op == .lea32 ? 4 : 2, from: Self.rax)
    case .cbw:
      let target = use(0, Self.rax)
      if i.size == 8 {
        e.registers(8, 0x63, reg: target, rm: target)
      } else {
        e.byteSource(i.size, 0x0F, i.size == 4 ? 0xBF : 0xBE, reg: target, rm: target)
      }
      finish(0, target)
    case .cwd:
      let source = use(0, Self.rax)
      if source != Self.rax { e.registers(8, 0x8B, reg: Self.rax, rm: source) }
      if i.size == 2 { e.byte(0x66) }
      if i.size == 8 { e.byte(0x48) }
      e.byte(0x99)
      put(2, i.size, from: Self.rdx)
    case .xchgRR:
      let first = use(i.rm, Self.rax)
      let second = use(i.reg, Self.rcx)
      e.registers(8, 0x8B, reg: Self.rdx, rm: first)
      e.registers(i.size, Self.byteForm(0x8B, i.size), reg: first, rm: second)
      e.registers(i.size, Self.byteForm(0x8B, i.size), reg: second, rm: Self.rdx)
      finish(i.rm, first)
      finish(i.reg, second)
    case .bswap:
      let target = use(i.rm, Self.rax)
      e.swapBytes(i.size, target)
      finish(i.rm, target)
    case .bt, .bts, .btr, .btc: bitTest(i)
    case .imul2, .imul3, .mul, .imul1: multiply(i)
    case .setcc: setByCondition(i)
    case .cmovR:
      needFlags()
      let source = use(i.rm, Self.rcx)
      let target = use(i.reg, Self.rax)
      e.registers(i.size, 0x0F, 0x40 | i.opcode & 15, reg: target, rm: source)
      finish(i.reg, target)
    case .cmovM:
      operand(i, i.size, isWrite: false)
      e.memory(i.size, 0x8B, reg: Self.rcx, base: Self.rax)
      needFlags()
      let target = use(i.reg, Self.rdx)
      e.registers(i.size, 0x0F, 0x40 | i.opcode & 15, reg: target, rm: Self.rcx)
      finish(i.reg, target)
    default:
      if !emitAtomic(i), !emitBits(i), !emitVector(i), !emitSystem(i) { emitTransfer(i) }
    }
  }

  mutating func bitTest(_ i: Instruction) {
    guard i.isRegister else { return bitTestInMemory(i) }
    let group: UInt8 = i.op == .bt ? 4 : i.op == .bts ? 5 : i.op == .btr ? 6 : 7
    let target = use(i.rm, Self.rax)
    if i.vvvv == 1 {
      e.registers(i.size, 0x0F, 0xBA, reg: group, rm: target)
      e.byte(UInt8(truncatingIfNeeded: i.immediate))
    } else {
      let index = use(i.reg, Self.rcx)
      e.registers(i.size, 0x0F, 0x83 | group << 3, reg: index, rm: target)
    }
    if i.op != .bt { finish(i.rm, target) }
    madeCarry(both: false)
  }

  mutating func multiply(_ i: Instruction) {
    if !i.isRegister { operand(i, i.size, isWrite: false) }
    switch i.op {
    case .imul2:
      let target = use(i.reg, Self.rcx)
      if i.isRegister {
        e.registers(i.size, 0x0F, 0xAF, reg: target, rm: use(i.rm, Self.rax))
      } else {
        e.memory(i.size, 0x0F, 0xAF, reg: target, base: Self.rax)
      }
      finish(i.reg, target)
    case .imul3:
      let target = use(i.reg, Self.rcx)
      if i.isRegister {
        e.registers(i.size, 0x69, reg: target, rm: use(i.rm, Self.rax))
      } else {
        e.memory(i.size, 0x69, reg: target, base: Self.rax)
      }
      immediate(i, i.size)
      finish(i.reg, target)
    default:
      if i.isRegister {
        copy(i.rm)
      } else {
        e.memory(i.size, 0x8B, reg: Self.rcx, base: Self.rax)
      }
      let factor = use(0, Self.rax)
      if factor != Self.rax { e.registers(8, 0x8B, reg: Self.rax, rm: factor) }
      e.registers(i.size, 0xF7, reg: i.op == .mul ? 4 : 5, rm: Self.rcx)
      let (low, high) = (use(0, Self.rcx), use(2, Self.rcx))
      e.registers(i.size, 0x8B, reg: low, rm: Self.rax)
      e.registers(i.size, 0x8B, reg: high, rm: Self.rdx)
    }
    madeCarry(both: true)
  }

  mutating func setByCondition(_ i: Instruction) {
    needFlags()
    let opcode: UInt8 = 0x90 | i.opcode & 15
    if i.isRegister {
      let target = use(i.rm, Self.rax)
      e.byteSource(4, 0x0F, opcode, reg: 0, rm: target)
      return finish(i.rm, target)
    }
    e.byteSource(4, 0x0F, opcode, reg: 0, rm: Self.rcx)
    e.store(Self.rcx, slot: Slot.scratch)
    operand(i, 1, isWrite: true)
    e.load(Self.rcx, slot: Slot.scratch)
    e.memory(1, 0x88, reg: Self.rcx, base: Self.rax)
    wrote(Self.rax, 1, rip: next)
  }

  // MARK: - The stack and branches

  mutating func emitTransfer(_ i: Instruction) {
    let top = Self.stackPointer
    switch i.op {
    case .pushR64, .pushImmediate:
      preparePush(i)
      let source: UInt8
      if i.op == .pushR64 {
        source = use(i.rm, Self.rcx)
      } else {
        e.constant(Self.rcx, i.immediate)
        source = Self.rcx
      }
      e.memory(8, 0x89, reg: source, base: Self.rax)
      e.memory(8, 0x8D, reg: top, base: top, displacement: -8)
      wrote(Self.rax, 8, rip: next)
    case .pushMemory:
      operand(i, 8, isWrite: false)
      e.memory(8, 0x8B, reg: Self.rcx, base: Self.rax)
      pushMade(i)
    case .popR64:
      e.registers(8, 0x8B, reg: Self.rax, rm: top)
      translate(i, 8, isWrite: false)
      e.memory(8, 0x8B, reg: Self.rcx, base: Self.rax)
      e.memory(8, 0x8D, reg: top, base: top, displacement: 8)
      put(i.rm, 8, from: Self.rcx)
    case .leave:
      let frame = Self.framePointer
      e.registers(8, 0x8B, reg: Self.rax, rm: frame)
      translate(i, 8, isWrite: false)
      e.memory(8, 0x8D, reg: top, base: frame, displacement: 8)
      e.memory(8, 0x8B, reg: frame, base: Self.rax)
    case .jcc:
      needFlags()
      let taken = e.jump(condition: i.opcode & 15)
      exit(to: next)
      e.aim(taken)
      exit(to: next &+ i.immediate)
    case .jmp: exit(to: next &+ i.immediate)
    case .callRelative:
      preparePush(i)
      pushNext()
      wrote(Self.rax, 8, rip: next &+ i.immediate)
      exit(to: next &+ i.immediate)
    case .ret:
      e.registers(8, 0x8B, reg: Self.rax, rm: top)
      translate(i, 8, isWrite: false)
      e.memory(8, 0x8B, reg: Self.rcx, base: Self.rax)
      checkTarget(i)
      e.store(Self.rcx, slot: Slot.rip)
      e.memory(8, 0x8D, reg: top, base: top, displacement: 8)
      goOut(to: common.lookup)
    default:
      // JMP and CALL to what a register or memory says.
      if i.isRegister {
        copy(i.rm)
      } else {
        operand(i, 8, isWrite: false)
        e.memory(8, 0x8B, reg: Self.rcx, base: Self.rax)
      }
      checkTarget(i)
      if i.op == .callIndirect {
        e.store(Self.rcx, slot: Slot.scratch)
        preparePush(i)
        pushNext()
        e.load(Self.rcx, slot: Slot.scratch)
        e.store(Self.rcx, slot: Slot.rip)
        wrote(Self.rax, 8, rip: nil)
        return goOut(to: common.lookup)
      }
      e.store(Self.rcx, slot: Slot.rip)
      goOut(to: common.lookup)
    }
  }

  /// Where a push of eight bytes writes, in RAX.
  mutating func preparePush(_ i: Instruction) {
    e.memory(8, 0x8D, reg: Self.rax, base: Self.stackPointer, displacement: -8)
    translate(i, 8, isWrite: true)
  }

  /// Pushes RCX, which was made for it; RAX and RDX are lost.
  mutating func pushMade(_ i: Instruction) {
    e.store(Self.rcx, slot: Slot.scratch)
    preparePush(i)
    e.load(Self.rcx, slot: Slot.scratch)
    e.memory(8, 0x89, reg: Self.rcx, base: Self.rax)
    e.memory(8, 0x8D, reg: Self.stackPointer, base: Self.stackPointer, displacement: -8)
    wrote(Self.rax, 8, rip: next)
  }

  mutating func pushNext() {
    e.constant(Self.rcx, next)
    e.memory(8, 0x89, reg: Self.rcx, base: Self.rax)
    e.memory(8, 0x8D, reg: Self.stackPointer, base: Self.stackPointer, displacement: -8)
  }

  /// Leaves for the interpreter when RCX is no canonical address.
  mutating func checkTarget(_ i: Instruction) {
    areFlagsInHost = false
    e.registers(8, 0x8B, reg: Self.rdx, rm: Self.rcx)
    e.registers(8, 0xC1, reg: 4, rm: Self.rdx)
    e.byte(16)
    e.registers(8, 0xC1, reg: 7, rm: Self.rdx)
    e.byte(16)
    e.registers(8, 0x3B, reg: Self.rdx, rm: Self.rcx)
    leaveSlowly(5, i)
  }
}
