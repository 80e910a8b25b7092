// SPDX-License-Identifier: Apache-2.0

/// Host registers by number, as the translator uses them.
enum HostRegister {
  static let rax: UInt8 = 0
  static let rcx: UInt8 = 1
  static let rdx: UInt8 = 2
  /// The guest's register file.
  static let context: UInt8 = 5
}

/// Writes x86-64 instructions (SDM volume 2, chapter 2) into code memory.
///
/// Memory operands are a base, an index and a displacement of 32 bits, or the register file.
@safe
struct Emitter: ~Copyable {
  // SAFETY: `memory` has `room` bytes that nobody else writes to; every write is checked against it.
  private let memory: UnsafeMutableRawPointer
  private let room: Int
  private(set) var count = 0

  init(memory: UnsafeMutableRawPointer, room: Int) {
    unsafe self.memory = memory
    self.room = room
  }

  @inline(__always)
  private mutating func add<T: BitwiseCopyable>(_ value: T) {
    precondition(count + MemoryLayout<T>.size <= room, "no room for code")
    unsafe memory.storeBytes(of: value, toByteOffset: count, as: T.self)
    count += MemoryLayout<T>.size
  }

  mutating func byte(_ value: UInt8) { add(value) }

  mutating func append<let count: Int>(_ values: [count of UInt8]) {
    for place in 0..<count { add(values[place]) }
  }

  mutating func word32(_ value: UInt32) { add(value) }

  mutating func word64(_ value: UInt64) { add(value) }

  // MARK: - Encodings

  private static func rex(_ size: UInt8, reg: UInt8, index: UInt8, base: UInt8) -> UInt8 {
    var rex: UInt8 = size == 8 ? 0x48 : 0x40
    if reg >= 8 { rex |= 4 }
    if index >= 8 { rex |= 2 }
    if base >= 8 { rex |= 1 }
    return rex
  }

  /// Prefixes and opcode of an instruction of `size` bytes; byte operands always have a REX, so
  /// that their registers are the low ones.
  private mutating func head(
    _ size: UInt8, escape: UInt8 = 0, _ opcode: UInt8, reg: UInt8, index: UInt8 = 0, base: UInt8,
    needsREX: Bool = false
  ) {
    if size == 2 { byte(0x66) }
    let rex = Self.rex(size, reg: reg, index: index, base: base)
    if rex != 0x40 || size == 1 || needsREX { byte(rex) }
    if escape != 0 { byte(escape) }
    byte(opcode)
  }

  /// An instruction with two registers: `rm` is ModRM's register or memory operand.
  mutating func registers(_ size: UInt8, _ opcode: UInt8, reg: UInt8, rm: UInt8) {
    head(size, opcode, reg: reg, base: rm)
    byte(0xC0 | (reg & 7) << 3 | rm & 7)
  }

  mutating func registers(_ size: UInt8, _ escape: UInt8, _ opcode: UInt8, reg: UInt8, rm: UInt8) {
    head(size, escape: escape, opcode, reg: reg, base: rm)
    byte(0xC0 | (reg & 7) << 3 | rm & 7)
  }

  /// An instruction of `size` bytes whose byte source needs a REX, as MOVZX and SETcc.
  mutating func byteSource(_ size: UInt8, _ escape: UInt8, _ opcode: UInt8, reg: UInt8, rm: UInt8) {
    head(size, escape: escape, opcode, reg: reg, base: rm, needsREX: true)
    byte(0xC0 | (reg & 7) << 3 | rm & 7)
  }

  /// An instruction with a memory operand of a base and a displacement.
  mutating func memory(
    _ size: UInt8, _ opcode: UInt8, reg: UInt8, base: UInt8, displacement: Int32 = 0
  ) {
    head(size, opcode, reg: reg, base: base)
    place(reg, base, displacement)
  }

  mutating func memory(
    _ size: UInt8, _ escape: UInt8, _ opcode: UInt8, reg: UInt8, base: UInt8,
    displacement: Int32 = 0
  ) {
    head(size, escape: escape, opcode, reg: reg, base: base)
    place(reg, base, displacement)
  }

  /// ModRM, SIB and displacement of a memory operand, in the shortest form.
  private mutating func place(_ reg: UInt8, _ base: UInt8, _ displacement: Int32) {
    let low = (reg & 7) << 3 | base & 7
    let isShort = displacement == Int32(Int8(truncatingIfNeeded: displacement))
    let isNone = displacement == 0 && base & 7 != 5
    byte((isNone ? 0 : isShort ? 0x40 : 0x80) | low)
    if base & 7 == 4 { byte(0x24) }
    if isNone { return }
    if isShort {
      byte(UInt8(truncatingIfNeeded: displacement))
    } else {
      word32(UInt32(bitPattern: displacement))
    }
  }

  /// A vector instruction.
  ///
  /// `prefix` 0 is none, 1 is 66, 2 is F3, 3 is F2; `map` 1 is 0F, 2 is 0F 38, 3 is 0F 3A. In
  /// memory, `rm` is the base.
  mutating func vector(
    _ prefix: UInt8, map: UInt8, _ opcode: UInt8, isWide: Bool, reg: UInt8, rm: UInt8,
    isMemory: Bool
  ) {
    if prefix != 0 { byte(prefix == 1 ? 0x66 : prefix == 2 ? 0xF3 : 0xF2) }
    let rex = Self.rex(isWide ? 8 : 4, reg: reg, index: 0, base: rm)
    if rex != 0x40 { byte(rex) }
    byte(0x0F)
    if map > 1 { byte(map == 2 ? 0x38 : 0x3A) }
    append([opcode, (isMemory ? 0 : 0xC0) | (reg & 7) << 3 | rm & 7])
  }

  /// A vector instruction of map 0F with a base and a displacement.
  mutating func vector(
    _ prefix: UInt8, _ opcode: UInt8, reg: UInt8, base: UInt8, displacement: Int32
  ) {
    if prefix != 0 { byte(prefix == 1 ? 0x66 : prefix == 2 ? 0xF3 : 0xF2) }
    let rex = Self.rex(4, reg: reg, index: 0, base: base)
    if rex != 0x40 { byte(rex) }
    append([0x0F, opcode])
    place(reg, base, displacement)
  }

  /// LEA of 64 bits.
  mutating func lea(_ reg: UInt8, base: UInt8, index: UInt8, scale: UInt8, _ displacement: Int32) {
    head(8, 0x8D, reg: reg, index: index, base: base)
    append([0x84 | (reg & 7) << 3, scale << 6 | (index & 7) << 3 | base & 7])
    word32(UInt32(bitPattern: displacement))
  }

  // MARK: - Instructions

  /// A word of the register file into a host register, and back.
  mutating func load(_ reg: UInt8, slot: Int) {
    memory(8, 0x8B, reg: reg, base: HostRegister.context, displacement: Int32(8 * slot))
  }

  mutating func store(_ reg: UInt8, slot: Int) {
    memory(8, 0x89, reg: reg, base: HostRegister.context, displacement: Int32(8 * slot))
  }

  /// A constant, in the shortest form that leaves the flags.
  mutating func constant(_ reg: UInt8, _ value: UInt64) {
    if value <= UInt64(UInt32.max) {
      head(4, 0xB8 | reg & 7, reg: 0, base: reg)
      word32(UInt32(value))
    } else if Int64(bitPattern: value) == Int64(Int32(truncatingIfNeeded: value)) {
      head(8, 0xC7, reg: 0, base: reg)
      byte(0xC0 | reg & 7)
      word32(UInt32(truncatingIfNeeded: value))
    } else {
      head(8, 0xB8 | reg & 7, reg: 0, base: reg)
      word64(value)
    }
  }

  /// A constant into a word of the register file; RDX is lost.
  mutating func constant(slot: Int, _ value: UInt64) {
    constant(HostRegister.rdx, value)
    store(HostRegister.rdx, slot: slot)
  }

  mutating func swapBytes(_ size: UInt8, _ reg: UInt8) {
    head(size, escape: 0x0F, 0xC8 | reg & 7, reg: 0, base: reg)
  }

  // MARK: - Jumps

  /// A jump to be aimed later; where its distance lies.
  mutating func jump() -> Int {
    byte(0xE9)
    word32(0)
    return count - 4
  }

  mutating func jump(condition: UInt8) -> Int {
    append([0x0F, 0x80 | condition & 15])
    word32(0)
    return count - 4
  }

  /// Aims a jump at the place that code goes on at.
  mutating func aim(_ site: Int) { put(UInt32(count - site - 4), at: site) }

  mutating func put(_ value: UInt32, at site: Int) {
    precondition(site >= 0 && site + 4 <= count, "no such jump")
    unsafe memory.storeBytes(of: value, toByteOffset: site, as: UInt32.self)
  }

  /// A call of code `distance` bytes from this code's first byte.
  mutating func call(to distance: Int) {
    byte(0xE8)
    word32(UInt32(bitPattern: Int32(distance - count - 4)))
  }

  /// A jump out of this code to a place `distance` bytes from its first byte.
  mutating func jump(to distance: Int) {
    let site = jump()
    put(UInt32(bitPattern: Int32(distance - site - 4)), at: site)
  }
}
