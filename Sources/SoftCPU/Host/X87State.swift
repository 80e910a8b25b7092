// SPDX-License-Identifier: Apache-2.0

internal import CHostCPU

/// The x87 unit's registers (SDM volume 1, chapter 8), as an FXSAVE image that the host's own
/// unit works on.
///
/// ST(0) to ST(7) lie in the order of the stack, the tags are FXSAVE's: a bit for each register
/// that is not empty.
@safe
struct X87State: ~Copyable {
  // SAFETY: `image` is this struct's own memory of 512 bytes, aligned to 16; offsets are below.
  private let image: UnsafeMutableRawPointer

  init() {
    unsafe image = .allocate(byteCount: 512, alignment: 16)
    unsafe image.initializeMemory(as: UInt8.self, repeating: 0, count: 512)
    control = 0x40
    tags = 0xFF
    unsafe image.storeBytes(of: 0x1F80, toByteOffset: 24, as: UInt32.self)
    unsafe image.storeBytes(of: 0xFFFF, toByteOffset: 28, as: UInt32.self)
  }

  deinit { unsafe image.deallocate() }

  private func load16(_ offset: Int) -> UInt16 {
    unsafe image.load(fromByteOffset: offset, as: UInt16.self)
  }
  private func load64(_ offset: Int) -> UInt64 {
    unsafe image.load(fromByteOffset: offset, as: UInt64.self)
  }
  private func store16(_ value: UInt16, _ offset: Int) {
    unsafe image.storeBytes(of: value, toByteOffset: offset, as: UInt16.self)
  }
  private func store64(_ value: UInt64, _ offset: Int) {
    unsafe image.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
  }

  // MARK: - Words

  /// FCW.
  var control: UInt16 {
    get { load16(0) }
    nonmutating set { store16(newValue, 0) }
  }
  /// FSW, with TOP.
  var status: UInt16 {
    get { load16(2) }
    nonmutating set { store16(newValue, 2) }
  }
  /// A bit for each physical register that is not empty.
  var tags: UInt8 {
    get { UInt8(truncatingIfNeeded: load16(4)) }
    nonmutating set { store16(UInt16(newValue), 4) }
  }
  /// FOP.
  var opcode: UInt16 {
    get { load16(6) & 0x7FF }
    nonmutating set { store16(newValue & 0x7FF, 6) }
  }
  /// FIP.
  var instructionPointer: UInt64 {
    get { load64(8) }
    nonmutating set { store64(newValue, 8) }
  }
  /// FDP.
  var dataPointer: UInt64 {
    get { load64(16) }
    nonmutating set { store64(newValue, 16) }
  }
  /// The number of the physical register that ST(0) is.
  var top: Int { Int(status >> 11 & 7) }
  /// Whether an unmasked exception waits.
  var isPending: Bool { status & 0x80 != 0 }

  // MARK: - Registers

  /// ST(i): the 64-bit significand, and sign and exponent.
  func fxsaveRegister(_ st: Int) -> (low: UInt64, high: UInt16) {
    (load64(32 + 16 * (st & 7)), load16(40 + 16 * (st & 7)))
  }

  mutating func setFXSAVERegister(_ st: Int, low: UInt64, high: UInt16) {
    store64(low, 32 + 16 * (st & 7))
    store64(UInt64(high), 40 + 16 * (st & 7))
  }

  /// The first three words of the image.
  func fxsaveHeader() -> (UInt64, UInt64, UInt64) { (load64(0), load64(8), load64(16)) }

  mutating func setFXSAVEHeader(_ first: UInt64, _ second: UInt64, _ third: UInt64) {
    store64(first & 0x07FF_00FF_FFFF_1F3F, 0)
    control |= 0x40
    // ES and B follow from the flags and masks.
    let isPending = status & 0x3F & ~control != 0
    status = isPending ? status | 0x8080 : status & ~0x8080
    store64(second, 8)
    store64(third, 16)
  }

  /// FNINIT.
  mutating func initialize() {
    control = 0x37F
    status = 0
    tags = 0
    opcode = 0
    instructionPointer = 0
    dataPointer = 0
  }

  // MARK: - MMX

  /// Makes the registers MMX's: TOP becomes zero and all tags valid.
  mutating func beginMMX() {
    let top = self.top
    if top != 0 {
      var old = [(low: UInt64, high: UInt16)]()
      for st in 0..<8 { old.append(fxsaveRegister(st)) }
      for st in 0..<8 {
        let register = old[(st - top) & 7]
        setFXSAVERegister(st, low: register.low, high: register.high)
      }
      status &= ~0x3800
    }
    tags = 0xFF
  }

  /// A register of MMX, after ``beginMMX()``.
  func mm(_ number: Int) -> UInt64 { load64(32 + 16 * (number & 7)) }

  mutating func setMM(_ number: Int, _ value: UInt64) {
    setFXSAVERegister(number, low: value, high: 0xFFFF)
  }

  /// EMMS: TOP becomes zero, as with every instruction of MMX.
  mutating func emms() {
    beginMMX()
    tags = 0
  }

  // MARK: - Execution

  /// Has the host execute one instruction on the state; returns the arithmetic flags.
  ///
  /// `memory` is its operand where `modrm` is below C0h.
  mutating func execute(
    _ opcode: UInt8, _ modrm: UInt8, memory: inout [2 of UInt64], flags: UInt64
  ) -> UInt64 {
    var result = flags & 0x8D5 | 2
    // SAFETY: the state is a whole image; the operand is at most ten bytes of sixteen.
    unsafe withUnsafeMutablePointer(to: &memory) { pointer in
      unsafe bh_x87(
        image, UInt32(opcode), UInt32(modrm), UnsafeMutableRawPointer(pointer), &result)
    }
    return result
  }
}
