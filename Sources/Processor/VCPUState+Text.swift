// SPDX-License-Identifier: Apache-2.0

extension VCPUState {
  /// The registers as lines of text, for a crash report or the monitor.
  public var registerText: String {
    let g = registers
    let s = system
    let flags = zip("CPAZSTIDO", [0, 2, 4, 6, 7, 8, 9, 10, 11] as [UInt64]).map { name, bit in
      g.rflags >> bit & 1 != 0 ? String(name) : "-"
    }.reversed().joined()
    var lines = [
      line([("RAX", g.rax), ("RBX", g.rbx), ("RCX", g.rcx), ("RDX", g.rdx)]),
      line([("RSI", g.rsi), ("RDI", g.rdi), ("RBP", g.rbp), ("RSP", g.rsp)]),
      line([("R8 ", g.r8), ("R9 ", g.r9), ("R10", g.r10), ("R11", g.r11)]),
      line([("R12", g.r12), ("R13", g.r13), ("R14", g.r14), ("R15", g.r15)]),
      "RIP=\(hex(g.rip)) RFL=\(hex(g.rflags, 8)) [\(flags)] CPL=\(s.ss.privilege) \(mode)",
    ]
    let segments = [
      ("ES ", s.es), ("CS ", s.cs), ("SS ", s.ss), ("DS ", s.ds), ("FS ", s.fs), ("GS ", s.gs),
      ("LDT", s.ldt), ("TR ", s.tr),
    ]
    lines += segments.map { name, segment in "\(name)=\(segment.text)" }
    lines += [
      "GDT=     \(hex(s.gdt.base)) \(hex(UInt64(s.gdt.limit), 8))",
      "IDT=     \(hex(s.idt.base)) \(hex(UInt64(s.idt.limit), 8))",
      "CR0=\(hex(s.cr0, 8)) CR2=\(hex(s.cr2)) CR3=\(hex(s.cr3)) CR4=\(hex(s.cr4, 8))",
      "CR8=\(hex(s.cr8, 1)) EFER=\(hex(s.efer)) APICBASE=\(hex(s.apicBase))",
      line([("DR0", debug.dr0), ("DR1", debug.dr1), ("DR2", debug.dr2), ("DR3", debug.dr3)]),
      line([("DR6", debug.dr6), ("DR7", debug.dr7)]),
    ]
    return lines.joined(separator: "\n")
  }

  private func line(_ items: [(String, UInt64)]) -> String {
    items.map { name, value in "\(name)=\(hex(value))" }.joined(separator: " ")
  }
}

extension Segment {
  fileprivate var text: String {
    let kind =
      isUnusable
      ? "unusable"
      : "type \(String(type, radix: 16))\(isCodeOrData ? "" : " system") DPL=\(privilege)"
        + (isLong ? " 64-bit" : is32Bit ? " 32-bit" : " 16-bit") + (isPresent ? "" : " absent")
    return "\(hex(UInt64(selector), 4)) \(hex(base)) \(hex(UInt64(limit), 8)) \(kind)"
  }
}

/// Writes a number in hexadecimal with leading zeroes.
private func hex(_ value: UInt64, _ digits: Int = 16) -> String {
  let text = String(value, radix: 16)
  return String(repeating: "0", count: max(0, digits - text.count)) + text
}
