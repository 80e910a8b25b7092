// SPDX-License-Identifier: Apache-2.0

internal import Monitor

/// A vCPU's registers as `info registers` shows them.
enum RegisterText {
  static func text(_ cpu: VCPUReply) -> String {
    let isLong = cpu.isLong
    let digits = isLong ? 16 : 8
    let mask: UInt64 = isLong ? .max : 0xFFFF_FFFF
    let g = cpu.general
    var text = ""
    func row(_ names: [(String, Int)]) {
      text +=
        names.map { "\($0.0)=\(hex(g[$0.1] & mask, digits))" }.joined(separator: " ") + "\n"
    }
    let r = isLong ? "R" : "E"
    row([(r + "AX", 0), (r + "BX", 1), (r + "CX", 2), (r + "DX", 3)])
    row([(r + "SI", 4), (r + "DI", 5), (r + "BP", 6), (r + "SP", 7)])
    if isLong {
      row([("R8 ", 8), ("R9 ", 9), ("R10", 10), ("R11", 11)])
      row([("R12", 12), ("R13", 13), ("R14", 14), ("R15", 15)])
    }
    text +=
      "\(r)IP=\(hex(cpu.rip & mask, digits)) \(isLong ? "RFL" : "EFL")=\(hex(cpu.flags, 8)) "
      + "[\(flags(cpu.flags))] CPL=\(privilege(cpu)) II=0 A20=1 SMM=0 "
      + "HLT=\(cpu.isHalted ? 1 : 0)\n"
    for (name, place) in [
      ("ES ", 3), ("CS ", 0), ("SS ", 1), ("DS ", 2), ("FS ", 4), ("GS ", 5), ("LDT", 6),
      ("TR ", 7),
    ] {
      text += segment(name, cpu.segments[place], cpu, isCode: place == 0)
    }
    for (name, place) in [("GDT", 0), ("IDT", 2)] {
      text +=
        "\(name)=     \(hex(cpu.tables[place] & mask, digits)) \(hex(cpu.tables[place + 1], 8))\n"
    }
    text +=
      "CR0=\(hex(cpu.cr0, 8)) CR2=\(hex(cpu.control[1] & mask, digits)) "
      + "CR3=\(hex(cpu.cr3 & mask, digits)) CR4=\(hex(cpu.cr4, 8))\n"
    for place in 0..<4 { text += "DR\(place)=\(hex(cpu.debug[place], 16)) " }
    text += "\nDR6=\(hex(cpu.debug[4], 16)) DR7=\(hex(cpu.debug[5], 16))\n"
    text += "EFER=\(hex(cpu.efer, 16))\n"
    return text + units(cpu, isLong)
  }

  private static func flags(_ value: UInt64) -> String {
    String(
      [(10, "D"), (11, "O"), (7, "S"), (6, "Z"), (4, "A"), (2, "P"), (0, "C")].map {
        value >> UInt64($0.0) & 1 == 1 ? Character($0.1) : "-"
      })
  }

  /// The current privilege level: in virtual-8086 mode 3, in real mode 0.
  static func privilege(_ cpu: VCPUReply) -> Int {
    guard cpu.cr0 & 1 != 0 else { return 0 }
    if cpu.flags & 1 << 17 != 0 { return 3 }
    return Int(cpu.segments[1].flags >> 13 & 3)
  }

  private static func segment(
    _ name: String, _ segment: VCPUReply.Segment, _ cpu: VCPUReply, isCode: Bool
  ) -> String {
    let isGranular = segment.flags >> 23 & 1 == 1
    let flags = segment.flags | (isGranular ? segment.limit >> 12 : segment.limit) & 0xF_0000
    var text =
      "\(name)=\(hex(UInt64(segment.selector), 4)) "
      + "\(hex(cpu.isLong ? segment.base : segment.base & 0xFFFF_FFFF, cpu.isLong ? 16 : 8)) "
      + "\(hex(UInt64(segment.limit), 8)) \(hex(UInt64(flags), 8))"
    guard cpu.cr0 & 1 != 0, flags >> 15 & 1 == 1 else { return text + "\n" }
    func bit(_ place: UInt32, _ letter: String) -> String {
      flags >> place & 1 == 1 ? letter : "-"
    }
    let isLongMode = cpu.efer & 0x400 != 0
    text += " DPL=\(flags >> 13 & 3) "
    if flags >> 12 & 1 == 0 {
      text += system(Int(flags >> 8 & 15), isLongMode)
    } else if flags >> 11 & 1 == 1 {
      let kind = flags >> 21 & 1 == 1 ? "CS64" : flags >> 22 & 1 == 1 ? "CS32" : "CS16"
      text += "\(kind) [\(bit(10, "C"))\(bit(9, "R"))\(bit(8, "A"))]"
    } else {
      let kind = flags >> 22 & 1 == 1 || isLongMode ? "DS  " : "DS16"
      text += "\(kind) [\(bit(10, "E"))\(bit(9, "W"))\(bit(8, "A"))]"
    }
    return text + "\n"
  }

  /// The names of system segments (SDM volume 3, table 3-2).
  private static func system(_ type: Int, _ isLong: Bool) -> String {
    let short = [
      "Reserved", "TSS16-avl", "LDT", "TSS16-busy", "CallGate16", "TaskGate", "IntGate16",
      "TrapGate16", "Reserved", "TSS32-avl", "Reserved", "TSS32-busy", "CallGate32", "Reserved",
      "IntGate32", "TrapGate32",
    ]
    let long = [
      2: "LDT", 9: "TSS64-avl", 11: "TSS64-busy", 12: "CallGate64", 14: "IntGate64",
      15: "TrapGate64",
    ]
    return isLong ? long[type] ?? "<hiword>" : short[type]
  }

  /// x87 and SSE, out of the FXSAVE image.
  private static func units(_ cpu: VCPUReply, _ isLong: Bool) -> String {
    let bytes = cpu.fxsave
    func number(_ at: Int, _ count: Int) -> UInt64 {
      bytes[at..<at + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    let status = number(2, 2)
    let top = Int(status >> 11 & 7)
    var text =
      "FCW=\(hex(number(0, 2), 4)) FSW=\(hex(status & ~0x3800, 4)) [ST=\(top)] "
      + "FTW=\(hex(number(4, 1), 2)) MXCSR=\(hex(number(24, 4), 8))\n"
    for register in 0..<8 {
      let at = 32 + 16 * ((register - top) & 7)
      text += "FPR\(register)=\(hex(number(at, 8), 16)) \(hex(number(at + 8, 2), 4))"
      text += register & 1 == 0 ? " " : "\n"
    }
    for register in 0..<(isLong ? 16 : 8) {
      let at = 160 + 16 * register
      let name = register < 10 ? "0\(register)" : "\(register)"
      text += "XMM\(name)=\(hex(number(at + 8, 8), 16)) \(hex(number(at, 8), 16))"
      text += register & 1 == 0 ? " " : "\n"
    }
    return text
  }

  /// A register by the name that an expression calls it.
  static func value(_ name: String, _ cpu: VCPUReply) -> UInt64? {
    let general = [
      "ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "r8", "r9", "r10", "r11", "r12", "r13",
      "r14", "r15",
    ]
    switch name {
    case "pc", "rip": return cpu.programCounter
    case "eip": return cpu.rip & 0xFFFF_FFFF
    case "eflags", "rflags": return cpu.flags
    case "cr0": return cpu.cr0
    case "cr2": return cpu.control[1]
    case "cr3": return cpu.cr3
    case "cr4": return cpu.cr4
    default: break
    }
    if let place = ["cs", "ss", "ds", "es", "fs", "gs"].firstIndex(of: name) {
      return UInt64(cpu.segments[place].selector)
    }
    if let place = ["cs.base", "ss.base", "ds.base", "es.base", "fs.base", "gs.base"]
      .firstIndex(of: name)
    {
      return cpu.segments[place].base
    }
    if let place = general.firstIndex(of: name) { return cpu.general[place] }
    guard name.hasPrefix("r") || name.hasPrefix("e"),
      let place = general.firstIndex(of: String(name.dropFirst()))
    else { return nil }
    return name.hasPrefix("e") ? cpu.general[place] & 0xFFFF_FFFF : cpu.general[place]
  }
}
