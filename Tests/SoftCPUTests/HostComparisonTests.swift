// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import SoftCPU

/// The software CPU against the host's own: generated instructions of user mode, one by one.
///
/// `BULKHEAD_CASES` sets the number of cases (1,000,000 in a full run), `BULKHEAD_SEED` where
/// they begin.
@Suite("The host's own CPU as judge")
struct HostComparisonTests {
  private static func setting(_ name: String, _ usual: UInt64) -> UInt64 {
    ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) } ?? usual
  }

  @Test("every instruction does what the host's CPU does", arguments: [false, true])
  func compare(is32Bit: Bool) throws {
    let caseCount = Int(Self.setting("BULKHEAD_CASES", 50_000)) / 2
    let seed = Self.setting("BULKHEAD_SEED", 0xB01C) &+ (is32Bit ? 1 << 32 : 0)
    var generator = CaseGenerator(seed: seed, is32Bit: is32Bit)
    let host = try HostCPU(capacity: 128)
    var bench = try UserBench()
    var differences: [String: (count: Int, first: String)] = [:]
    var faults: [UInt64: Int] = [:]
    var memory = bench.memory()
    var done = 0
    while done < caseCount {
      let cases = (0..<min(128, caseCount - done)).map { _ in generator.next() }
      try host.execute(cases)
      for (place, one) in cases.enumerated() {
        bench.setMemory(memory)
        let ours = bench.execute(one)
        let theirs = host.registers(after: place)
        let ourMemory = bench.memory()
        memory = host.memory(after: place)
        faults[theirs.vector, default: 0] += 1
        let rule = Comparison(one, is32Bit: is32Bit)
        let found = rule.differences(ours, theirs, ourMemory, memory)
        guard !found.isEmpty else { continue }
        let key = "\(rule.name): \(found.map(\.what).joined(separator: ", "))"
        let text =
          "\(one.code.hex) case \(done + place): \(found.map(\.text).joined(separator: "; "))"
        differences[key, default: (0, text)].count += 1
      }
      done += cases.count
    }

    let report = differences.sorted { $0.value.count > $1.value.count }
      .map { "\($0.value.count) times \($0.key): \($0.value.first)" }
    #expect(report.isEmpty, "seed \(seed), \(done) cases:\n\(report.joined(separator: "\n"))")
    // Most cases run to their end, and every exception of a program is there.
    #expect(faults[3, default: 0] > caseCount / 3)
    let wanted: [UInt64] = [0, 1, 3, 6, 12, 13, 14, 16, 17, 19] + (is32Bit ? [4, 5] : [])
    for vector in wanted where caseCount >= 20_000 { #expect(faults[vector] != nil, "\(vector)") }
  }
}

/// What of a case counts.
private struct Comparison {
  struct Difference {
    var what: String
    var text: String
  }

  let name: String
  private let instruction: Instruction
  private let one: UserCase

  init(_ one: UserCase, is32Bit: Bool) {
    self.one = one
    var bytes = [16 of UInt8](repeating: 0xCC)
    for (place, byte) in one.code.prefix(16).enumerated() { bytes[place] = byte }
    instruction =
      (try? Decoder.decode(bytes, count: 15, mode: is32Bit ? .bits32 : .bits64)) ?? Instruction()
    let opcode = String(instruction.opcode, radix: 16)
    name =
      "\(instruction.op) \(instruction.map)/\(opcode)/\(instruction.reg & 7) size \(instruction.size)"
  }

  func differences(
    _ ours: UserRegisters, _ theirs: UserRegisters, _ ourMemory: [UInt8], _ theirMemory: [UInt8]
  ) -> [Difference] {
    var result: [Difference] = []
    if isUndefined(ours, theirs) { return [] }
    func check(_ what: String, _ our: UInt64, _ their: UInt64) {
      guard our != their else { return }
      result.append(
        Difference(
          what: what, text: "\(what) \(String(our, radix: 16)), not \(String(their, radix: 16))"))
    }
    check("vector", ours.vector, theirs.vector)
    if result.isEmpty {
      if Self.hasErrorCode(theirs.vector) {
        // Linux reports every page of its own as present.
        let isKernel = theirs.vector == 14 && theirs.cr2 >= 0x7FFF_FFFF_F000
        check("error", ours.errorCode | (isKernel ? 1 : 0), theirs.errorCode)
      }
      if theirs.vector == 14, !isLarge { check("cr2", ours.cr2, theirs.cr2) }
    }
    let ignoredRegisters = machineRegisters
    for number in 0..<16 where !ignoredRegisters.contains(number) {
      check("r\(number)", ours.gpr[number], theirs.gpr[number])
    }
    // A hypervisor that intercepts #DB gives INT1's back as if it were a fault.
    let isInt1 = instruction.op == .int1 && ours.vector == 1
    check("rip", ours.rip, isInt1 && theirs.rip < ours.rip ? ours.rip : theirs.rip)
    let ignored = 0x1_0000 | undefinedFlags
    check("flags", ours.rflags & ~ignored, theirs.rflags & ~ignored)
    check("cs", ours.cs, theirs.cs)
    check("ss", ours.ss, theirs.ss)
    // The kernel makes zero of the other null selectors.
    func selector(_ value: UInt64) -> UInt64 { value < 4 ? 0 : value }
    check("ds", selector(ours.ds), selector(theirs.ds))
    check("es", selector(ours.es), selector(theirs.es))
    check("fs", selector(ours.fs), selector(theirs.fs))
    check("gs", selector(ours.gs), selector(theirs.gs))
    check("fsbase", ours.fsBase, theirs.fsBase)
    check("gsbase", ours.gsBase, theirs.gsBase)
    // FOP, FIP and FDP are left out: this host saves them with a pending exception only.
    func field(_ what: String, _ range: Range<Int>) {
      guard ours.fxsave[range] != theirs.fxsave[range] else { return }
      result.append(
        Difference(
          what: what,
          text: "\(what) \(ours.fxsave[range].hex), not \(theirs.fxsave[range].hex)"))
    }
    field("fcw", 0..<2)
    field("fsw", 2..<4)
    field("ftw", 4..<5)
    check("mxcsr", Self.mxcsr(ours), Self.mxcsr(theirs))
    for number in 0..<8 { field("st\(number)", 32 + 16 * number..<42 + 16 * number) }
    for number in 0..<16 { field("xmm\(number)", 160 + 16 * number..<176 + 16 * number) }
    if ourMemory != theirMemory {
      let ignored = ignoredMemory
      let places = ourMemory.indices.filter {
        ourMemory[$0] != theirMemory[$0] && !ignored.contains($0)
      }
      if let first = places.first, let last = places.last {
        result.append(
          Difference(
            what: "memory",
            text:
              "memory at \(String(first, radix: 16)): \(ourMemory[first...last].prefix(64).hex), not \(theirMemory[first...last].prefix(64).hex)"
          ))
      }
    }
    return result
  }

  /// MXCSR, without what an overflow or underflow that is not masked leaves undefined: whether the
  /// result was exact, and what later steps of a dot product would find.
  private static func mxcsr(_ r: UserRegisters) -> UInt64 {
    let value = UInt64(r.fxsave[24]) | UInt64(r.fxsave[25]) << 8
    let isCut = r.vector == 19 && value & ~(value >> 7) & 0x18 != 0
    return isCut ? value & ~0x22 : value
  }

  static func hasErrorCode(_ vector: UInt64) -> Bool {
    [8, 10, 11, 12, 13, 14, 17, 21].contains(vector)
  }

  // MARK: - What is not defined

  /// Cases whose outcome is the processor's own.
  private func isUndefined(_ ours: UserRegisters, _ theirs: UserRegisters) -> Bool {
    switch (instruction.map & 15, instruction.opcode) {
    // Double shifts of 16 bits by more: the result is undefined.
    case (1, 0xA4), (1, 0xA5), (1, 0xAC), (1, 0xAD):
      if shiftCount > 8 * instruction.size { return true }
    // SHA: #GP for an operand that is not aligned, which AMD's processors do not look at.
    case (2, 0xC8...0xCD), (3, 0xCC):
      if !instruction.isRegister, one.target & 15 != 0 || ours.vector == 13 { return true }
    // LSL of the descriptor that tells the processor's number.
    case (1, 0x03):
      if theirs.gpr[Int(instruction.reg & 15)] < 0x1000,
        ours.rflags & theirs.rflags & Self.zero != 0
      {
        return true
      }
    // A far call from 32-bit to 64-bit code whose stack wraps: the host's kernel takes the fault at
    // an address of its own for none, and the program never ends.
    case (0, 0x9A), (0, 0xFF): if theirs.vector == HostCPU.noEnd { return true }
    // CMPS: which of its two operands fails first.
    case (0, 0xA6), (0, 0xA7):
      if [12, 13, 14].contains(ours.vector), [12, 13, 14].contains(theirs.vector) { return true }
    // LDMXCSR: AMD's mode without alignment, which the software CPU does not have.
    case (1, 0xAE): if theirs.fxsave[26] & 2 != 0 { return true }
    default: break
    }
    // An operand of many words is the processor's to access in its order, and one with a mask of
    // zeroes to access at all.
    if isLarge, ours.vector != theirs.vector {
      let order: Set<UInt64> = [12, 13, 14, 17]
      if order.contains(ours.vector), order.contains(theirs.vector) { return true }
      if instruction.opcode == 0xF7, order.contains(theirs.vector) { return true }
    }
    // How far what is no instruction is fetched.
    let end = HostCPU.code + 0x1000
    return ours.vector == 6 && theirs.vector == 14 && theirs.cr2 == end
      || ours.vector == 14 && theirs.vector == 6 && ours.cr2 == end
  }

  /// The environment and images of the x87 and vector unit, and MASKMOVQ, MASKMOVDQU.
  private var isLarge: Bool {
    switch (instruction.map & 15, instruction.opcode) {
    case (0, 0xD9), (0, 0xDD): instruction.group == 4 || instruction.group == 6
    case (1, 0xAE), (1, 0xF7): true
    default: false
    }
  }

  private static let carry: UInt64 = 1 << 0
  private static let parity: UInt64 = 1 << 2
  private static let adjust: UInt64 = 1 << 4
  private static let zero: UInt64 = 1 << 6
  private static let sign: UInt64 = 1 << 7
  private static let overflow: UInt64 = 1 << 11
  private static let all = carry | parity | adjust | zero | sign | overflow

  /// The flags that the instruction leaves undefined (SDM volume 2, each instruction's page).
  private var undefinedFlags: UInt64 {
    let reg = instruction.group
    switch (instruction.map & 15, instruction.opcode) {
    // AND, OR, XOR, TEST.
    case (0, 0x08...0x0D), (0, 0x20...0x25), (0, 0x30...0x35), (0, 0x84), (0, 0x85), (0, 0xA8),
      (0, 0xA9):
      return Self.adjust
    case (0, 0x80...0x83): return [1, 4, 6].contains(reg) ? Self.adjust : 0
    case (0, 0x27), (0, 0x2F): return Self.overflow
    case (0, 0x37), (0, 0x3F):
      return Self.overflow | Self.sign | Self.zero | Self.parity
    case (0, 0xD4), (0, 0xD5): return Self.overflow | Self.adjust | Self.carry
    case (0, 0xC0), (0, 0xC1), (0, 0xD0...0xD3): return shiftFlags(reg)
    case (0, 0xF6), (0, 0xF7):
      switch reg {
      case 0, 1: return Self.adjust
      case 4, 5: return Self.sign | Self.zero | Self.adjust | Self.parity
      case 6, 7: return Self.all
      default: return 0
      }
    case (0, 0x69), (0, 0x6B), (1, 0xAF):
      return Self.sign | Self.zero | Self.adjust | Self.parity
    case (1, 0xA4), (1, 0xA5), (1, 0xAC), (1, 0xAD):
      let count = shiftCount
      if count == 0 { return 0 }
      if count > 8 * instruction.size { return Self.all }
      return Self.adjust | (count > 1 ? Self.overflow : 0)
    // BT and its kin.
    case (1, 0xA3), (1, 0xAB), (1, 0xB3), (1, 0xBB), (1, 0xBA):
      return Self.overflow | Self.sign | Self.adjust | Self.parity
    // LZCNT and TZCNT define ZF and CF, BSF and BSR ZF.
    case (1, 0xBC), (1, 0xBD):
      let isCount = instruction.op == .lzcnt || instruction.op == .tzcnt
      return Self.all & ~Self.zero & ~(isCount ? Self.carry : 0)
    // BMI: ANDN, BLSR and its kin, BZHI; BEXTR.
    case (2, 0xF2), (2, 0xF3), (2, 0xF5): return Self.adjust | Self.parity
    case (2, 0xF7): return Self.adjust | Self.parity | Self.sign
    default: return 0
    }
  }

  /// The count of a shift, as far as it counts.
  private var shiftCount: UInt8 {
    let isByRegister =
      instruction.map & 15 == 0
      ? instruction.opcode >= 0xD2 : [0xA5, 0xAD].contains(instruction.opcode)
    let isByOne = instruction.map & 15 == 0 && [0xD0, 0xD1].contains(instruction.opcode)
    let count =
      isByRegister ? one.registers.gpr[1] : isByOne ? 1 : instruction.immediate
    return UInt8(count & (instruction.size == 8 ? 63 : 31))
  }

  private func shiftFlags(_ reg: UInt8) -> UInt64 {
    let count = shiftCount
    if count == 0 { return 0 }
    let overflow = count > 1 ? Self.overflow : 0
    if reg < 4 { return overflow }
    let carry = count > 8 * instruction.size && reg != 7 ? Self.carry : 0
    return Self.adjust | overflow | carry
  }

  /// The registers whose values are the machine's own.
  private var machineRegisters: Set<Int> {
    switch (instruction.map & 15, instruction.opcode) {
    // RDTSC, RDTSCP, CPUID; RDRAND, RDSEED and RDPID.
    case (1, 0x31): [0, 2]
    case (1, 0x01): instruction.modrm == 0xF9 ? [0, 1, 2] : []
    case (1, 0xA2): [0, 1, 2, 3]
    case (1, 0xC7): instruction.isRegister ? [Int(instruction.rm & 15)] : []
    default: []
    }
  }

  /// The places in the data with FOP, FIP, FDP and MXCSR_MASK of an image that was stored.
  private var ignoredMemory: Set<Int> {
    let start = Int(one.target &- HostCPU.data)
    let reg = instruction.group
    switch (instruction.map & 15, instruction.opcode, reg) {
    case (1, 0xAE, 0): return Set(start + 6..<start + 24).union(start + 28..<start + 32)
    case (0, 0xD9, 6), (0, 0xDD, 6):
      return instruction.prefixes.contains(.operandSize)
        ? Set(start + 6..<start + 14) : Set(start + 12..<start + 26)
    default: return []
    }
  }
}

extension Collection<UInt8> {
  fileprivate var hex: String {
    map { $0 < 16 ? "0" + String($0, radix: 16) : String($0, radix: 16) }.joined()
  }
}
