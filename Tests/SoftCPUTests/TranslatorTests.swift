// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Processor
import Testing

@testable import SoftCPU

/// Random programs of 64-bit code, executed by the interpreter and translated.
@Suite("The translator")
struct TranslatorTests {
  private static let code: UInt64 = 0x10_0000
  private static let data: UInt64 = 0x20_0000
  private static let stack: UInt64 = 0x30_0000

  /// What a program leaves.
  private struct Outcome: Equatable {
    var gpr: [UInt64] = []
    var rip: UInt64 = 0
    var flags: UInt64 = 0
    var memory: [UInt8] = []
    var vectors: [UInt64] = []
    var mxcsr: UInt32 = 0
    var bases: [UInt64] = []
    var translated = 0
  }

  /// A program, and where R14 points to.
  struct Program: Sendable {
    var bytes: [UInt8] = []
    var registers: [UInt64] = []
    var data: [UInt8] = []
    var pointer: UInt64 = 0
    var listing: String { bytes.map { String($0, radix: 16) }.joined(separator: " ") }
  }

  private static func execute(_ program: Program, translates: Bool) throws -> Outcome {
    let bench = try SystemBench()
    var cpu = bench.makeLong(translates: translates)
    for vector in UInt64(0)..<32 { bench.put([0xF4], at: SystemBench.handlers + 16 * vector) }
    bench.put(program.bytes, at: code)
    bench.put(program.data, at: program.pointer == data ? data : program.pointer + 0x100)
    for number in 0..<16 { cpu.gpr[number] = program.registers[number] }
    cpu.gpr[4] = stack
    cpu.gpr[14] = program.pointer
    cpu.rip = code
    cpu.rflags = 2
    cpu.cr4 |= 1 << 9 | 1 << 10
    cpu.segmentBase[5] = data
    cpu.segments[5].base = data
    cpu.msrs.kernelGSBase = data + 0x800
    for place in 0..<64 where place & 2 == 0 {
      cpu.vectors[place] = program.registers[place & 15] &* UInt64(2 * place + 1)
    }
    // Numbers that arithmetic likes, too.
    for number in 0..<4 { cpu.vectors[4 * number] = Double(number + 3).bitPattern }
    var rounds = 0
    while rounds < 8 {
      rounds += 1
      if cpu.run() == .halted { break }
    }
    var outcome = Outcome()
    outcome.gpr = (0..<16).map { cpu.gpr[$0] }
    outcome.rip = cpu.rip
    outcome.flags = cpu.rflags
    outcome.memory =
      bench.ram.bytes(at: Int(data), count: 0x2000)
      + bench.ram.bytes(at: Int(stack) - 0x400, count: 0x400)
      + bench.ram.bytes(at: Int(code), count: 0x1000)
    outcome.vectors = (0..<64).map { cpu.vectors[$0] }
    outcome.mxcsr = cpu.mxcsr
    outcome.bases = [cpu.segmentBase[5], cpu.segments[5].base, cpu.msrs.kernelGSBase]
    outcome.translated = cpu.translator.translatedCount
    return outcome
  }

  /// Programs are loops of 1 to 30 instructions; R15 counts, R14 points to memory.
  struct Generator {
    var random: SplitMix
    /// Those that may be written to.
    private static let targets: [UInt8] = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13]

    mutating func program() -> Program {
      var program = Program()
      program.pointer = random.oneIn(8) ? TranslatorTests.code + 0x800 : TranslatorTests.data
      program.registers = (0..<16).map { _ in
        switch random.below(4) {
        case 0: UInt64(random.below(64))
        case 1: UInt64(truncatingIfNeeded: Int64(random.below(64)) - 32)
        case 2: TranslatorTests.data + UInt64(random.below(0x1000))
        default: random.next()
        }
      }
      program.registers[15] = UInt64(4 + random.below(30))
      program.data = (0..<256).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      var body: [UInt8] = []
      var pushes = 0
      for _ in 0..<(1 + random.below(30)) { body += instruction(&pushes) }
      for _ in 0..<pushes { body += [0x59] }
      // dec r15; jnz; hlt
      body += [0x49, 0xFF, 0xCF]
      let distance = Int32(-(body.count + 6))
      body += [0x0F, 0x85] + bytes(UInt64(UInt32(bitPattern: distance)), 4) + [0xF4]
      program.bytes = body
      return program
    }

    private func bytes(_ value: UInt64, _ count: Int) -> [UInt8] {
      (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
    }

    private mutating func constant(_ count: Int) -> [UInt8] {
      if count == 0 { return [] }
      return switch random.below(3) {
      case 0: bytes(UInt64(truncatingIfNeeded: Int64(random.below(8)) - 4), count)
      case 1: bytes(1 << UInt64(random.below(8 * count)), count)
      default: bytes(random.next(), count)
      }
    }

    /// Prefixes, REX, opcode and ModRM with a register or memory operand.
    private mutating func form(
      _ opcode: [UInt8], reg: UInt8, size: Int, memory: Bool? = nil, immediate: Int = 0
    ) -> [UInt8] {
      var rex: UInt8 = size == 8 ? 0x48 : 0x40
      if reg >= 8 { rex |= 4 }
      let prefix: [UInt8] = size == 2 ? [0x66] : []
      var tail: [UInt8]
      if memory ?? random.oneIn(3) {
        // [r14 + index * scale + disp32]; rarely any register, which faults.
        let base: UInt8 = random.oneIn(60) ? random.pick(Self.targets) : 14
        if base >= 8 { rex |= 1 }
        let offset = random.oneIn(12) ? 0xFFA + random.below(6) : random.below(0x7F0)
        let displacement = UInt64(offset) & (base == 14 ? 0x1FFF : 0xFF)
        tail = [0x84 | (reg & 7) << 3, 0x20 | base & 7] + bytes(displacement, 4)
      } else {
        let rm = random.pick(Self.targets)
        if rm >= 8 { rex |= 1 }
        tail = [0xC0 | (reg & 7) << 3 | rm & 7]
      }
      tail += constant(immediate)
      let hasREX = rex != 0x40 || size == 1 && random.oneIn(2)
      return prefix + (hasREX ? [rex] : []) + opcode + tail
    }

    /// Atomic instructions, bits, divisions and vectors.
    private mutating func rare(_ reg: UInt8, _ size: Int) -> [UInt8] {
      let wide: UInt8 = size == 1 ? 0 : 1
      let lock: [UInt8] = [0xF0]
      switch random.below(18) {
      case 0:
        return lock + form([UInt8(random.below(7)) << 3 | wide], reg: reg, size: size, memory: true)
      case 1:
        let group = UInt8(random.below(7))
        return lock
          + form([0x80 | wide], reg: group, size: size, memory: true, immediate: min(size, 4))
      case 2:
        return lock + form([0xFE | wide], reg: UInt8(random.below(2)), size: size, memory: true)
      case 3:
        return lock + form([0xF6 | wide], reg: UInt8(2 + random.below(2)), size: size, memory: true)
      case 4: return form([0x86 | wide], reg: reg, size: size, memory: true)
      case 5:
        let prefix = random.oneIn(2) ? lock : []
        return prefix + form([0x0F, 0xC0 | wide], reg: reg, size: size, memory: true)
      case 6:
        let prefix = random.oneIn(2) ? lock : []
        return prefix + form([0x0F, 0xB0 | wide], reg: reg, size: size, memory: true)
      case 7:
        // CMPXCHG16B [r14 + n], aligned and not.
        let offset = random.below(64) * (random.oneIn(6) ? 3 : 16)
        return [0xF0, 0x49, 0x0F, 0xC7, 0x8E] + bytes(UInt64(offset), 4)
      case 8:
        return form([0x0F, random.pick([0xBC, 0xBD])], reg: reg, size: max(size, 2))
      case 9:
        return [0xF3]
          + form([0x0F, random.pick([0xB8, 0xBC, 0xBD])], reg: reg, size: max(size, 4))
      case 10:
        let group: UInt8 = random.oneIn(2) ? 6 : 7
        // A divisor that is not too small, and a dividend that is not too large.
        let extend: [UInt8] = group == 6 ? [0x31, 0xD2] : [0x48, 0x99]
        return extend + form([0xF7], reg: group, size: random.oneIn(3) ? max(size, 4) : 8)
      case 11:
        var code = form(
          [0x0F, random.oneIn(2) ? 0xA4 : 0xAC], reg: reg, size: max(size, 4), memory: false)
        code.append(UInt8(1 + random.below(max(size, 4) * 8 - 1)))
        return code
      case 12:
        // The index is small: AND first.
        let prefix = random.oneIn(2) ? lock : []
        return [0x48, 0x81, 0xE1] + bytes(0x3FF, 4) + prefix
          + form(
            [0x0F, random.pick([0xAB, 0xB3, 0xBB])], reg: 1, size: max(size, 4), memory: true)
      case 13:
        var code = form(
          [0x0F, 0xBA], reg: UInt8(4 + random.below(4)), size: max(size, 4), memory: true)
        code.append(UInt8(truncatingIfNeeded: random.next()))
        return code
      default: return vector(reg)
      }
    }

    /// SSE to SSE4.1 with every kind of operand.
    private mutating func vector(_ reg: UInt8) -> [UInt8] {
      let prefix: [[UInt8]] = [[], [0x66], [0xF3], [0xF2]]
      switch random.below(10) {
      case 0, 1:
        // Moves, aligned or not.
        let (kind, opcode): (Int, UInt8) = random.pick([
          (0, 0x10), (0, 0x11), (0, 0x28), (0, 0x29), (1, 0x6F), (1, 0x7F), (2, 0x6F), (2, 0x7F),
          (2, 0x10), (2, 0x11), (3, 0x10), (3, 0x11), (2, 0x7E), (1, 0xD6), (1, 0x10), (1, 0x28),
        ])
        return prefix[kind] + form([0x0F, opcode], reg: reg, size: 4)
      case 2, 3:
        let opcode: UInt8 = random.pick([
          0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x6C, 0x6D, 0x74, 0x75, 0x76, 0xD4,
          0xDA, 0xDB, 0xDE, 0xDF, 0xEB, 0xEF, 0xF4, 0xF8, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xD1, 0xF3,
        ])
        return [0x66] + form([0x0F, opcode], reg: reg, size: 4)
      case 4, 5:
        let opcode: UInt8 = random.pick([0x51, 0x58, 0x59, 0x5C, 0x5D, 0x5E, 0x5F, 0x5A])
        return prefix[random.below(4)] + form([0x0F, opcode], reg: reg, size: 4)
      case 6:
        let opcode: UInt8 = random.pick([0x2E, 0x2F])
        return prefix[random.below(2)] + form([0x0F, opcode], reg: reg, size: 4)
      case 7:
        let opcode: UInt8 = random.pick([0x2A, 0x2C, 0x2D])
        let size = random.oneIn(2) ? 8 : 4
        // REX comes after the prefix.
        return prefix[2 + random.below(2)] + form([0x0F, opcode], reg: reg, size: size)
      case 8:
        switch random.below(4) {
        case 0: return [0x66] + form([0x0F, 0x6E], reg: reg, size: random.oneIn(2) ? 8 : 4)
        case 1: return [0x66] + form([0x0F, 0x7E], reg: reg, size: random.oneIn(2) ? 8 : 4)
        case 2: return [0x66] + form([0x0F, 0xD7], reg: reg, size: 4, memory: false)
        default:
          let code = form([0x0F, 0x70], reg: reg, size: 4)
          return prefix[1 + random.below(3)] + code + [UInt8(truncatingIfNeeded: random.next())]
        }
      default:
        let opcode: UInt8 = random.pick([
          0x00, 0x01, 0x1C, 0x20, 0x23, 0x30, 0x35, 0x38, 0x3B, 0x40,
        ])
        return [0x66] + form([0x0F, 0x38, opcode], reg: reg, size: 4)
      }
    }

    /// CLI, STI, PUSHF, CLAC, STAC, PUSH of memory, and SWAPGS with a look through GS.
    private mutating func system(_ reg: UInt8, _ pushes: inout Int) -> [UInt8] {
      switch random.below(8) {
      case 0: return [0xFA]
      case 1: return [0xFB]
      case 2: return [0x0F, 0x01, 0xCA]
      case 3: return [0x0F, 0x01, 0xCB]
      case 4: return [0x0F, 0x01, 0xF8]
      case 5:
        // MOV from GS:[number].
        let place = UInt64(random.below(0x800))
        return [0x65, 0x48 | (reg >> 3) << 2, 0x8B, 0x04 | (reg & 7) << 3, 0x25] + bytes(place, 4)
      case 6:
        pushes += 1
        // And AND DWORD [RSP] without AF, which shifts leave undefined.
        return [0x9C, 0x81, 0x24, 0x24, 0xEF, 0xFF, 0xFF, 0xFF]
      default:
        pushes += 1
        // PUSH [R14 + number].
        return [0x41, 0xFF, 0x76, UInt8(random.below(128))]
      }
    }

    private mutating func instruction(_ pushes: inout Int) -> [UInt8] {
      let size = random.pick([1, 2, 4, 4, 8, 8])
      let wide: UInt8 = size == 1 ? 0 : 1
      let reg = random.pick(Self.targets)
      if random.oneIn(4) { return rare(reg, size) }
      if random.oneIn(12) { return system(reg, &pushes) }
      switch random.below(26) {
      case 0...4:
        return form([UInt8(random.below(8)) << 3 | wide], reg: reg, size: size)
      case 5, 6:
        return form([UInt8(random.below(8)) << 3 | 2 | wide], reg: reg, size: size)
      case 7, 8:
        let group = UInt8(random.below(8))
        return form([0x80 | wide], reg: group, size: size, immediate: min(size, 4))
      case 9, 10: return form([0x88 | wide], reg: reg, size: size)
      case 11: return form([0x8A | wide], reg: reg, size: size)
      case 12: return form([0xC6 | wide], reg: 0, size: size, immediate: min(size, 4))
      case 13:
        let opcode: UInt8 = random.pick([0xB6, 0xB7, 0xBE, 0xBF])
        return form([0x0F, opcode], reg: reg, size: max(size, 2))
      case 14: return form([0xFE | wide], reg: UInt8(random.below(2)), size: size)
      case 15: return form([0xF6 | wide], reg: UInt8(2 + random.below(2)), size: size)
      case 16:
        let group = random.pick([0, 1, 2, 3, 4, 5, 7] as [UInt8])
        if random.oneIn(3) {
          return form([0xD2 | wide], reg: group, size: size, memory: false)
        }
        var code = form([0xC0 | wide], reg: group, size: size, memory: false)
        code.append(UInt8(random.below(size == 8 ? 64 : 32)))
        return code
      case 17: return form([0x8D], reg: reg, size: max(size, 2), memory: true)
      case 18: return form([0x0F, 0x90 | UInt8(random.below(16))], reg: 0, size: 1)
      case 19: return form([0x0F, 0x40 | UInt8(random.below(16))], reg: reg, size: max(size, 2))
      case 20:
        return random.oneIn(2)
          ? form([0x0F, 0xAF], reg: reg, size: max(size, 2))
          : form([0x69], reg: reg, size: max(size, 4), immediate: 4)
      case 21:
        pushes += 1
        return [0x50 | random.pick([0, 1, 2, 3, 5, 6, 7])]
      case 22:
        return form(
          [0x0F, random.pick([0xA3, 0xAB, 0xB3, 0xBB])], reg: reg, size: max(size, 4),
          memory: false)
      case 23: return form([0xF7], reg: UInt8(4 + random.below(2)), size: max(size, 4))
      case 24:
        // A jump over an instruction that may not be executed.
        let inner = form([0x01], reg: reg, size: 8, memory: false)
        return [0x70 | UInt8(random.below(16)), UInt8(inner.count)] + inner
      default:
        switch random.below(6) {
        case 0: return form([0x87], reg: reg, size: max(size, 4), memory: false)
        case 1: return [0x48, 0x0F, 0xC8 | random.pick([0, 1, 2, 3, 5, 6, 7])]
        case 2: return [0x48, 0x98, 0x48, 0x99]
        case 3: return form([0x0F, 0xC1], reg: reg, size: max(size, 4))
        case 4: return form([0x84 | wide], reg: reg, size: size)
        default: return form([0x0F, 0xBC], reg: reg, size: max(size, 4))
        }
      }
    }
  }

  @Test("random programs leave what the interpreter leaves", arguments: [1, 2, 3, 4] as [UInt64])
  func programs(seed: UInt64) throws {
    var generator = Generator(random: SplitMix(state: seed))
    var translated = 0
    for number in 0..<400 {
      let program = generator.program()
      let expected = try Self.execute(program, translates: false)
      var found = try Self.execute(program, translates: true)
      translated += found.translated
      found.translated = 0
      try #require(
        expected == found,
        """
        program \(number) of seed \(seed): \(program.listing)
        \(expected.gpr) \(expected.rip) \(expected.flags)
        \(found.gpr) \(found.rip) \(found.flags)
        \(expected.vectors == found.vectors ? "" : "\(expected.vectors)\n\(found.vectors)")
        \(expected.mxcsr) \(found.mxcsr)
        memory is \(expected.memory == found.memory ? "equal" : "different")
        """)
    }
    #expect(translated > 400)
  }

  @Test(
    "code near the end of the user's half is translated, and what runs over the end is a fault",
    arguments: [5, 64] as [UInt64])
  func end(distance: UInt64) throws {
    func run(translates: Bool) throws -> (state: [UInt64], translated: Int) {
      let bench = try SystemBench()
      var cpu = bench.makeLong(translates: translates)
      for vector in UInt64(0)..<32 { bench.put([0xF4], at: SystemBench.handlers + 16 * vector) }
      // The last 2 MiB of the lower half are those at 2 MiB.
      bench.put(0x13_007, at: 0x10_000 + 255 * 8)
      bench.put(0x14_007, at: 0x13_000 + 511 * 8)
      bench.put(0x20_0087, at: 0x14_000 + 511 * 8)
      // dec r15; jnz; hlt, if there is room for it.
      let code: [UInt8] = [0x49, 0xFF, 0xCF, 0x75, 0xFB, 0xF4]
      bench.put(Array(code.prefix(Int(distance))), at: 0x40_0000 - distance)
      cpu.gpr[15] = 20
      cpu.rip = 0x8000_0000_0000 - distance
      var rounds = 0
      while rounds < 8 {
        rounds += 1
        if cpu.run() == .halted { break }
      }
      let stack = (0..<8).map { bench.get(cpu.gpr[4] + 8 * $0) }
      return (
        (0..<16).map { cpu.gpr[$0] } + [cpu.rip, cpu.rflags] + stack, cpu.translator.translatedCount
      )
    }
    let (expected, found) = (try run(translates: false), try run(translates: true))
    #expect(expected.state == found.state)
    #expect(found.state[15] == 0)
    #expect(distance == 5 ? found.translated == 0 : found.translated > 0)
    // Past the end it is #GP, whose handler halts.
    if distance == 5 { #expect(found.state[16] == SystemBench.handlers + 16 * 13 + 1) }
  }

  @Test(
    "a loop that lets interrupts in and out again leaves for whoever asks", .timeLimit(.minutes(1)))
  func gate() async throws {
    let bench = try SystemBench()
    let attention = bench.attention
    let asking = Task.detached {
      try await Task.sleep(for: .milliseconds(200))
      attention.raise(Attention.leave)
    }
    var cpu = bench.makeLong(translates: true)
    // sti; nop; cli; jmp.
    bench.put([0xFB, 0x90, 0xFA, 0xEB, 0xFB], at: Self.code)
    cpu.rip = Self.code
    cpu.rflags = 2
    #expect(cpu.run() == .attention)
    #expect(cpu.translator.translatedCount > 0)
    try await asking.value
  }
}
