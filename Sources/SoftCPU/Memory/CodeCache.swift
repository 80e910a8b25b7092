// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// The decoded blocks of one vCPU.
///
/// A block is a run of instructions inside one page, known by the address of its first byte in
/// this process and the mode that it was decoded in; it is good as long as its page's
/// ``CodeMark`` has the version that it had then.
@safe
struct CodeCache: ~Copyable {
  // SAFETY: both tables are this struct's own memory. Block indices are masked to the table's
  // size; instruction indices come from blocks, or are checked when instructions are added.

  struct Block: BitwiseCopyable {
    /// The address of the first byte; zero for none.
    var host: UInt = 0
    var mark: UInt = 0
    var version: UInt64 = 0
    /// The place of the first instruction.
    var first: Int32 = 0
    /// The code mode, as its raw value.
    var mode: UInt64 = 0
  }

  static let blockCount = 1 << 17
  static let instructionCount = 1 << 20
  /// The longest block in instructions, without the end.
  static let longestBlock = 48
  /// Where ``SoftCPU/executeOne()`` puts its instruction.
  static let scratch = 0

  private let blocks: UnsafeMutablePointer<Block>
  private let instructions: UnsafeMutablePointer<Instruction>
  /// The next free place for an instruction.
  private(set) var next = 2
  /// Counts the flushes: places are good until the next.
  private(set) var generation: UInt64 = 0

  init() {
    // SAFETY: anonymous memory of our own, zero and untouched until it is used; without it the
    // process cannot go on.
    let size = Self.instructionCount * MemoryLayout<Instruction>.stride
    let memory = unsafe mmap(
      nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let memory = unsafe memory, unsafe memory != MAP_FAILED else {
      preconditionFailure("no memory for decoded code")
    }
    unsafe instructions = memory.bindMemory(
      to: Instruction.self, capacity: Self.instructionCount)
    unsafe blocks = .allocate(capacity: Self.blockCount)
    unsafe blocks.initialize(repeating: Block(), count: Self.blockCount)
  }

  deinit {
    unsafe munmap(instructions, Self.instructionCount * MemoryLayout<Instruction>.stride)
    unsafe blocks.deallocate()
  }

  /// The instruction at a place.
  @inline(__always)
  subscript(place: Int) -> Instruction {
    unsafe instructions[place & (Self.instructionCount - 1)]
  }

  @inline(__always)
  private static func index(_ host: UInt) -> Int {
    Int(truncatingIfNeeded: host ^ host >> 17) & (blockCount - 1)
  }

  /// The first instruction of the block at a host address, if there is a good one.
  @inline(__always)
  func find(_ host: UInt, mark: UInt, mode: CodeMode) -> Int? {
    let block = unsafe blocks[Self.index(host)]
    guard block.host == host, block.mode == UInt64(mode.rawValue),
      block.version == CodeMark.Reference(address: mark).version
    else { return nil }
    return Int(block.first)
  }

  /// Notes a block whose instructions were added from `first` on.
  mutating func add(_ host: UInt, mark: UInt, version: UInt64, mode: CodeMode, first: Int) {
    unsafe blocks[Self.index(host)] = Block(
      host: host, mark: mark, version: version, first: Int32(first),
      mode: UInt64(mode.rawValue))
  }

  /// Makes room for a whole block; returns where it starts.
  mutating func begin() -> Int {
    if next + Self.longestBlock + 2 > Self.instructionCount { flush() }
    return next
  }

  /// Adds an instruction after the last.
  mutating func append(_ instruction: Instruction) {
    unsafe instructions[next & (Self.instructionCount - 1)] = instruction
    next += 1
  }

  /// Takes back what was added from `first` on.
  mutating func truncate(to first: Int) { next = first }

  /// Puts an instruction where ``scratch`` is, with an end after it.
  mutating func setScratch(_ instruction: Instruction) {
    unsafe instructions[Self.scratch] = instruction
    unsafe instructions[Self.scratch + 1] = Instruction()
  }

  /// Forgets everything.
  mutating func flush() {
    unsafe blocks.update(repeating: Block(), count: Self.blockCount)
    next = 2
    generation &+= 1
  }
}
