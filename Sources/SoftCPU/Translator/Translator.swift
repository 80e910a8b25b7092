// SPDX-License-Identifier: Apache-2.0

internal import CHostCPU

/// The translated blocks of one vCPU: host code for guest code in 64-bit mode.
///
/// Translated code works on the register file (``SoftCPU/gpr``), whose slots beyond the
/// registers it shares with the dispatcher. It holds eleven guest registers in host registers.
/// What it cannot do it leaves to the interpreter, with everything as it was before that
/// instruction; so it never raises an exception itself.
@safe
struct Translator: ~Copyable {
  // SAFETY: the tables are this struct's own memory, indices are masked to their sizes. Code is
  // only entered at places where this struct has put a block's first instruction.

  /// Slots of the register file.
  enum Slot {
    static let rip = 17
    /// The arithmetic flags: as LAHF gives them in bits 8 to 15, overflow in bit 0.
    static let flags = 18
    /// How many instructions may be executed before the dispatcher looks around.
    static let budget = 19
    /// Where the vector registers are: 0 in the file, 1 in the host's, 2 in the file and not to be
    /// used by translated code.
    static let vectors = 20
    static let mxcsr = 21
    /// The address of ``SoftCPU/vectors``.
    static let vectorFile = 22
    static let epoch = 24
    static let tlb = 25
    static let jumps = 26
    static let scratch = 27
    /// The mark of a page that was written to.
    static let mark = 23
    /// The bases of FS and GS.
    static let fsBase = 28
    static let gsBase = 29
    /// The page of the block that wants to be linked.
    static let linkPage = 30
    /// ``SoftCPU/systemFlags``.
    static let systemFlags = 31
    /// The MSR that SWAPGS exchanges with GS's base.
    static let kernelGSBase = 32
    /// What the guest's time-stamp counter has over the host's.
    static let timeOffset = 33
    /// What RDTSCP gives beside that (TSC_AUX).
    static let timeAux = 35
    /// The TLB's sets for the supervisor with RFLAGS.AC and without.
    static let openTLB = 36
    static let closedTLB = 37
    /// What the code may not do now: ``Forbidden``.
    static let forbidden = 34
  }

  /// Bits of ``Slot/forbidden``: instructions that are left to the interpreter.
  enum Forbidden {
    /// SWAPGS, CLAC and STAC: it is not the supervisor.
    static let supervisor: UInt8 = 1
    /// CLI and STI: the privilege does not suffice.
    static let interrupts: UInt8 = 2
    /// RDTSC: it is not allowed, or the counter is not the host's.
    static let time: UInt8 = 4
  }

  /// What translated code comes back with: zero for the dispatcher, else one of these, or the
  /// place of an instruction to interpret the rest of its block from.
  enum Exit {
    /// STI has let interrupts in: the next instruction comes before any.
    static let enabled: UInt64 = 1 << 60
    /// Only that one instruction.
    static let single: UInt64 = 1 << 61
    /// A jump wants to be aimed: its site is in the low bits.
    static let link: UInt64 = 1 << 62
    /// A store went into a page with decoded code: how many bytes it has is in the low bits, its
    /// address in ``Slot/scratch``, the page's mark in ``Slot/mark``.
    static let wroteCode: UInt64 = 1 << 63
  }

  /// A block by the host's address of its first byte and the guest's.
  struct Block: BitwiseCopyable {
    var host: UInt = 0
    var rip: UInt64 = 0
    var version: UInt64 = 0
    /// The offset of its code; zero while it has none, -1 if it is not worth any.
    var code: Int = 0
    /// That of code from before the page was written to.
    var previous: Int = 0
    var uses: Int = 0
  }

  /// An entry of the cache that translated code looks jump targets up in.
  struct Jump: BitwiseCopyable {
    var rip: UInt64 = 0
    /// The address in this process.
    var host: UInt = 0
    var code: UInt = 0
    var padding: UInt = 0
  }

  static let blockCount = 1 << 17
  static let jumpCount = 1 << 12
  /// How often a block is interpreted before it is translated.
  static let threshold = 3
  static let budget: UInt64 = 4000
  /// More than the code of the longest block.
  static let room = 64 << 10

  private let blocks: UnsafeMutablePointer<Block>
  private let jumps: UnsafeMutablePointer<Jump>
  private var buffer: CodeBuffer
  /// What all blocks share.
  struct Common: BitwiseCopyable {
    /// Offsets of the common code.
    var lookup = 0
    var leave = 0
    var loadVectors = 0
    var abilities: Abilities
  }

  /// What the guest's processor has.
  struct Abilities: BitwiseCopyable {
    /// As ``SoftCPU/instructionSets``.
    var instructionSets: UInt32

    func has(_ feature: SoftCPU.Feature) -> Bool { instructionSets >> feature.rawValue & 1 != 0 }
  }

  private(set) var common: Common
  private let firstBlock: Int
  /// That of ``CodeCache``: places in it are good as long as it stays.
  private var generation: UInt64 = 0
  private(set) var translatedCount = 0
  private var turn = 0

  /// Whether there is memory for code at all.
  let isOn: Bool

  /// Makes a translator with memory for its code; without it is off.
  init(_ memory: CodeMemory?, _ abilities: Abilities) {
    buffer = CodeBuffer(memory)
    isOn = buffer.byteCount > 0
    common = Common(abilities: abilities)
    if isOn {
      var code = buffer.emitter()
      BlockTranslation.entry(&code)
      common.leave = code.count
      BlockTranslation.leave(&code)
      common.lookup = code.count
      BlockTranslation.lookup(&code, leave: common.leave)
      common.loadVectors = code.count
      BlockTranslation.loadVectors(&code)
      _ = buffer.commit(code.count)
    }
    firstBlock = buffer.used
    unsafe blocks = .allocate(capacity: isOn ? Self.blockCount : 1)
    unsafe blocks.initialize(repeating: Block(), count: isOn ? Self.blockCount : 1)
    unsafe jumps = .allocate(capacity: isOn ? Self.jumpCount : 1)
    unsafe jumps.initialize(repeating: Jump(), count: isOn ? Self.jumpCount : 1)
  }

  deinit {
    unsafe blocks.deallocate()
    unsafe jumps.deallocate()
  }

  var jumpsAddress: UInt64 { unsafe UInt64(UInt(bitPattern: jumps)) }

  @inline(__always)
  private static func index(_ host: UInt, _ rip: UInt64) -> Int {
    Int(truncatingIfNeeded: host ^ host >> 17 ^ UInt(truncatingIfNeeded: rip >> 12))
      & (blockCount - 1)
  }

  @inline(__always)
  private func isAt(_ index: Int, _ host: UInt, _ rip: UInt64) -> Bool {
    unsafe blocks[index].host == host && blocks[index].rip == rip
  }

  /// The block at a place, new if there was none; each has two places where it may be.
  @inline(__always)
  func find(_ host: UInt, _ rip: UInt64) -> Block {
    let index = Self.index(host, rip)
    if isAt(index, host, rip) { return unsafe blocks[index] }
    if isAt(index ^ 1, host, rip) { return unsafe blocks[index ^ 1] }
    return Block(host: host, rip: rip)
  }

  mutating func set(_ block: Block) {
    var index = Self.index(block.host, block.rip)
    if !isAt(index, block.host, block.rip) {
      if isAt(index ^ 1, block.host, block.rip) {
        index ^= 1
      } else if unsafe blocks[index].host != 0 {
        // One of the two goes, in turns.
        turn ^= 1
        index ^= unsafe blocks[index ^ 1].host == 0 ? 1 : turn
      }
    }
    unsafe blocks[index] = block
  }

  /// Forgets all code if the decoded instructions are no longer what they were.
  @inline(__always)
  mutating func follow(_ generation: UInt64) {
    if self.generation != generation {
      self.generation = generation
      flush()
    }
  }

  /// Forgets all code.
  mutating func flush() {
    unsafe blocks.update(repeating: Block(), count: Self.blockCount)
    unsafe jumps.update(repeating: Jump(), count: Self.jumpCount)
    buffer.truncate(to: firstBlock)
  }

  /// Lets translated code find a block.
  @inline(__always)
  mutating func note(_ rip: UInt64, host: UInt, code: Int) {
    unsafe jumps[Int(truncatingIfNeeded: rip ^ rip >> 12) & (Self.jumpCount - 1)] = Jump(
      rip: rip, host: host, code: buffer.address(code))
  }

  mutating func link(site: Int, to code: Int) { buffer.link(site: site, to: code) }

  /// Enters the code at an offset.
  @inline(__always)
  func enter(_ code: Int, _ registers: UInt) -> UInt64 {
    unsafe bh_enter_translated(
      UnsafeMutableRawPointer(bitPattern: buffer.address(0)).unsafelyUnwrapped,
      UnsafeMutableRawPointer(bitPattern: registers).unsafelyUnwrapped,
      UInt64(buffer.address(code)))
  }

  /// Adds a block's code, -1 if it is not worth any; returns `nil` when all code had to go first.
  mutating func add(_ instructions: [Instruction], _ place: BlockTranslation.Place) -> Int? {
    if !buffer.hasRoom(Self.room) {
      flush()
      return nil
    }
    var place = place
    place.offset = buffer.used
    guard let count = BlockTranslation.make(instructions, place, common, buffer.emitter()) else {
      return -1
    }
    translatedCount += 1
    return buffer.commit(count)
  }

  /// Sends who still goes to old code of a block to the new.
  mutating func redirect(_ old: Int, to new: Int) { buffer.redirect(old, to: new) }
}
