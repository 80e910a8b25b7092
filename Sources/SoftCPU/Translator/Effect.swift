// SPDX-License-Identifier: Apache-2.0

internal import CHostCPU

/// What the translator has to know of an instruction before it emits code.
struct Effect {
  /// It reads arithmetic flags, or leaves some as they were.
  var reads = false
  /// It writes all six.
  var kills = false
  /// It may leave for the interpreter before it has changed anything.
  var mayLeave = false
  /// It may leave after a store into a page with code.
  var mayLeaveAfter = false

  /// `nil` for what is left to the interpreter.
  init?(_ i: Instruction, _ abilities: Translator.Abilities) {
    let raw = i.opNumber
    switch raw {
    case Op.addRR8.rawValue...Op.cmpMI64.rawValue:
      let number = raw - Op.addRR8.rawValue
      let form = number % 20 / 4
      kills = true
      reads = number / 20 == 2 || number / 20 == 3
      mayLeave = form == 1 || form == 2 || form == 4
      guard !mayLeave || i.addressSize == 8 else { return nil }
      mayLeaveAfter = (form == 2 || form == 4) && number / 20 != 7
    case Op.testRR8.rawValue...Op.testMI64.rawValue:
      let form = (raw - Op.testRR8.rawValue) / 4
      kills = true
      mayLeave = form & 1 == 1
      guard !mayLeave || i.addressSize == 8 else { return nil }
    case Op.movRR8.rawValue...Op.movMI64.rawValue:
      let form = (raw - Op.movRR8.rawValue) / 4
      mayLeave = form == 1 || form == 2 || form == 4
      mayLeaveAfter = form == 2 || form == 4
      guard !mayLeave || i.addressSize == 8 else { return nil }
    case Op.movzx8R16.rawValue...Op.movsxdM64.rawValue:
      mayLeave = i.modrm < 0xC0
      guard !mayLeave || i.addressSize == 8 else { return nil }
    case Op.incR8.rawValue...Op.negM64.rawValue:
      let number = raw - Op.incR8.rawValue
      let operation = number % 8 / 2
      mayLeave = number & 1 == 1
      mayLeaveAfter = mayLeave
      guard !mayLeave || i.addressSize == 8 else { return nil }
      kills = operation != 2
      reads = operation < 2
    case Op.shlRI16.rawValue...Op.sarRI64.rawValue:
      guard i.immediate & (i.size == 8 ? 63 : 31) != 0 else { return nil }
      kills = true
    default:
      guard takeOther(i) || takeRare(i, abilities) else { return nil }
    }
  }

  private mutating func takeOther(_ i: Instruction) -> Bool {
    switch i.op {
    case .lea16, .lea32, .lea64: return i.addressSize == 8
    case .nop, .cbw, .cwd: return true
    case .pushR64, .pushImmediate:
      (mayLeave, mayLeaveAfter) = (true, true)
      return i.size == 8
    case .pushMemory:
      (mayLeave, mayLeaveAfter) = (true, true)
      return i.size == 8 && i.addressSize == 8
    case .popR64, .leave:
      mayLeave = true
      return i.size == 8
    case .jcc:
      reads = true
      return i.size == 8
    case .jmp: return i.size == 8
    case .ret:
      mayLeave = true
      return i.size == 8
    case .callRelative:
      (mayLeave, mayLeaveAfter) = (true, true)
      return i.size == 8
    case .callIndirect, .jmpIndirect:
      (mayLeave, mayLeaveAfter) = (true, true)
      return i.size == 8 && (i.isRegister || i.addressSize == 8)
    case .setcc:
      reads = true
      (mayLeave, mayLeaveAfter) = (!i.isRegister, !i.isRegister)
      return i.isRegister || i.addressSize == 8
    case .cmovR:
      reads = true
      return true
    case .cmovM:
      reads = true
      mayLeave = true
      return i.addressSize == 8
    case .imul2, .imul3, .mul, .imul1:
      // Four of the flags stay.
      reads = true
      mayLeave = !i.isRegister
      return i.isRegister ? i.size > 1 : i.size > 1 && i.addressSize == 8
    case .xchgRR: return true
    case .bswap: return i.size > 2
    case .shift:
      let isFixed = i.vvvv == 0
      if !i.isRegister {
        guard isFixed, i.group >= 4, i.addressSize == 8 else { return false }
        (mayLeave, mayLeaveAfter) = (true, true)
      }
      if isFixed, i.immediate & (i.size == 8 ? 63 : 31) == 0 { return false }
      kills = isFixed && i.group >= 4
      reads = !kills
      return true
    case .bt, .bts, .btr, .btc:
      reads = true
      mayLeave = !i.isRegister
      mayLeaveAfter = mayLeave && i.op != .bt
      // A word's index reaches over memory in words of its own size.
      return i.isRegister || i.addressSize == 8 && i.size > 2
    default: return false
    }
  }

  /// What counting instructions mean on the guest's processor; `nil` where the host's own would not do.
  static func meaning(_ op: Op, _ abilities: Translator.Abilities) -> Op? {
    switch op {
    case .tzcnt: abilities.has(.bmi1) ? (hostHasBMI ? .tzcnt : nil) : .bsf
    case .lzcnt: abilities.has(.lzcnt) ? (hostHasLZCNT ? .lzcnt : nil) : .bsr
    case .popcnt: abilities.has(.popcnt) ? .popcnt : nil
    default: op
    }
  }

  private static let hostHasBMI = bh_cpuid(7, 0).ebx >> 3 & 1 != 0
  private static let hostHasLZCNT = bh_cpuid(0x8000_0001, 0).ecx >> 5 & 1 != 0

  private mutating func takeRare(_ i: Instruction, _ abilities: Translator.Abilities) -> Bool {
    switch i.op {
    case .lockedALU, .lockedUnary, .xchgM, .xadd, .cmpxchg:
      (mayLeave, mayLeaveAfter) = (true, true)
      reads = true
      return !i.isRegister && i.addressSize == 8 && (i.size > 1 || i.reg < 16)
    case .cmpxchg16b:
      (mayLeave, mayLeaveAfter, reads) = (true, true, true)
      return i.addressSize == 8 && abilities.has(.cmpxchg16b)
    case .bsf, .bsr, .tzcnt, .lzcnt, .popcnt:
      guard let op = Self.meaning(i.op, abilities) else { return false }
      kills = op == .popcnt
      reads = !kills
      mayLeave = !i.isRegister
      return i.isRegister || i.addressSize == 8
    case .div, .idiv:
      mayLeave = true
      return i.size >= 4 && (i.isRegister || i.addressSize == 8)
    case .shld, .shrd:
      (kills, mayLeave) = (true, true)
      return i.isRegister && i.vvvv == 0 && i.size >= 4
        && i.immediate & (i.size == 8 ? 63 : 31) != 0
    case .movnti:
      (mayLeave, mayLeaveAfter) = (true, true)
      return i.addressSize == 8
    case .fence, .prefetch: return true
    case .cli, .sti, .swapgs, .rdtsc:
      mayLeave = true
      return true
    case .rdtscp:
      mayLeave = true
      return abilities.has(.rdtscp)
    case .clac, .stac:
      mayLeave = true
      return abilities.has(.smap)
    case .pushf:
      (reads, mayLeave, mayLeaveAfter) = (true, true, true)
      return i.size == 8
    case .vector:
      guard let form = VectorForm(i) else { return false }
      mayLeave = true
      mayLeaveAfter = !i.isRegister && (form.kind == .store || form.kind == .storeGeneral)
      kills = form.kind == .compare
      return true
    default: return false
    }
  }
}
