// SPDX-License-Identifier: Apache-2.0

extension SystemRegisters {
  /// The bits of CR4 that somebody from outside may turn on (SDM volume 3, 2.5): all but those of
  /// virtualisation, of SMX, of shadow stacks and of what came later.
  private static let knownCR4: UInt64 = 0x77_1FFF
  /// SCE, LME, LMA, NXE and FFXSR (SDM volume 3, 2.2.1; APM volume 2, 3.1.7).
  private static let knownEFER: UInt64 = 0x4D01

  /// Sets what the processor itself keeps: EFER.LMA and CR0.ET.
  public mutating func complete() {
    cr0 |= 0x10
    let isActive = efer & 0x100 != 0 && cr0 & 1 << 31 != 0
    efer = isActive ? efer | 0x400 : efer & ~0x400
  }

  /// Why no processor can be in such a state; `nil` when one can (SDM volume 3, 2.5 and 9.8.5).
  ///
  /// `before` is a state that one was in.
  public func conflict(after before: SystemRegisters) -> String? {
    let isPaged = cr0 & 1 << 31 != 0
    if cr0 >> 32 != 0 { return "CR0 has bits above 31" }
    if isPaged, cr0 & 1 == 0 { return "CR0.PG without CR0.PE" }
    if cr0 & 1 << 29 != 0, cr0 & 1 << 30 == 0 { return "CR0.NW without CR0.CD" }
    if cr3 >> 52 != 0 { return "CR3 has bits above 51" }
    if cr4 & ~before.cr4 & ~Self.knownCR4 != 0 { return "CR4 has bits that are unknown" }
    if efer & ~before.efer & ~Self.knownEFER != 0 { return "EFER has bits that are unknown" }
    if cr8 > 15 { return "CR8 is above 15" }
    if efer & 0x400 != 0, cr4 & 0x20 == 0 { return "long mode without CR4.PAE" }
    if cr4 & 1 << 17 != 0, efer & 0x400 == 0 { return "CR4.PCIDE outside of long mode" }
    if cs.isLong, before.efer & 0x400 != 0, efer & 0x400 == 0 {
      return "64-bit code outside of long mode"
    }
    if cs.isLong, cs.is32Bit, efer & 0x400 != 0 { return "CS is of 64 and of 32 bits" }
    if cs.isUnusable || !cs.isPresent { return "CS is not there" }
    return nil
  }
}
