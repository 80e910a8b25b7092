// SPDX-License-Identifier: Apache-2.0

internal import Processor

/// The model-specific registers that the CPU itself has (SDM volume 4; APM volume 2,
/// appendix A).
struct SystemMSRs: Sendable {
  var star: UInt64 = 0
  var lstar: UInt64 = 0
  var cstar: UInt64 = 0
  /// SFMASK, IA32_FMASK.
  var syscallMask: UInt64 = 0
  var kernelGSBase: UInt64 = 0
  var sysenterCS: UInt64 = 0
  var sysenterESP: UInt64 = 0
  var sysenterEIP: UInt64 = 0
  var pat: UInt64 = 0x0007_0406_0007_0406
  /// What the guest has added to the time-stamp counter.
  var timeStampAdjust: UInt64 = 0
  var tscAux: UInt64 = 0
  var miscEnable: UInt64 = 1
  var mtrrDefault: UInt64 = 0
  /// The variable ranges: base and mask in turn.
  var mtrrRanges = [16 of UInt64](repeating: 0)
  /// The fixed ranges, in the order of ``fixedRanges``.
  var mtrrFixed = [11 of UInt64](repeating: 0)
  var speculationControl: UInt64 = 0
  /// Machine check: status and control, which never report anything.
  var mcgStatus: UInt64 = 0

  /// The numbers of the fixed-range MTRRs.
  static let fixedRanges: [UInt32] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26A, 0x26B, 0x26C, 0x26D, 0x26E, 0x26F,
  ]
}

extension SoftCPU {
  mutating func moveMSR(_ i: Instruction) throws(Fault) {
    try onlySupervisor()
    let index = reg32(1)
    if i.op == .rdmsr {
      guard let value = readMSR(index) else { throw .protection() }
      setReg32(0, UInt32(truncatingIfNeeded: value))
      setReg32(2, UInt32(truncatingIfNeeded: value >> 32))
    } else {
      let value = UInt64(reg32(2)) << 32 | UInt64(reg32(0))
      guard writeMSR(index, value) else { throw .protection() }
    }
  }

  /// The time-stamp counter as the guest sees it.
  func readTimeStamp() -> UInt64 { bus.timeStamp() &+ msrs.timeStampAdjust }

  /// Reads an MSR; `nil` means #GP.
  mutating func readMSR(_ index: UInt32) -> UInt64? {
    switch index {
    case 0x10: return readTimeStamp()
    case 0x3B: return msrs.timeStampAdjust
    case 0x6E0:
      return bus.readInterruptMSR(index).map { $0 == 0 ? 0 : $0 &+ msrs.timeStampAdjust }
    case 0x1B, 0x800...0x8FF: return bus.readInterruptMSR(index)
    case 0x11, 0x12, 0x4B56_4D00...0x4B56_4DFF: return bus.readClockMSR(index)
    case 0x17, 0x8B, 0x2A, 0xCD, 0xCE: return 0
    case 0x48: return msrs.speculationControl
    case 0xFE: return 0x508  // eight variable ranges, fixed ranges, write combining
    case 0x174: return msrs.sysenterCS
    case 0x175: return msrs.sysenterESP
    case 0x176: return msrs.sysenterEIP
    case 0x179: return 0
    case 0x17A: return msrs.mcgStatus
    case 0x1A0: return msrs.miscEnable
    case 0x1D9, 0x122: return 0
    case 0x200...0x20F: return msrs.mtrrRanges[Int(index - 0x200)]
    case 0x277: return msrs.pat
    case 0x2FF: return msrs.mtrrDefault
    case 0x400...0x47F: return 0
    case 0xC000_0080: return efer
    case 0xC000_0081: return msrs.star
    case 0xC000_0082: return msrs.lstar
    case 0xC000_0083: return msrs.cstar
    case 0xC000_0084: return msrs.syscallMask
    case 0xC000_0100: return segments[4].base
    case 0xC000_0101: return segments[5].base
    case 0xC000_0102: return msrs.kernelGSBase
    case 0xC000_0103: return msrs.tscAux
    // AMD's first performance counters, which there are not: they stay at zero, as KVM's do.
    case 0xC001_0000...0xC001_0007: return 0
    case 0xC001_0010...0xC001_001F, 0xC001_0114, 0xC001_0117: return 0
    case 0xC001_0015, 0xC001_1029, 0xC001_102A, 0xC001_1022, 0xC001_1023, 0xC001_1020: return 0
    case 0xC001_0055, 0xC001_0058, 0xC001_0140, 0xC001_0141: return 0
    default:
      if let place = SystemMSRs.fixedRanges.firstIndex(of: index) { return msrs.mtrrFixed[place] }
      return nil
    }
  }

  /// Writes an MSR; `false` means #GP.
  mutating func writeMSR(_ index: UInt32, _ value: UInt64) -> Bool {
    switch index {
    case 0x10: msrs.timeStampAdjust = value &- bus.timeStamp()
    case 0x3B: msrs.timeStampAdjust = value
    case 0x6E0:
      // The deadline is on the counter as the guest has adjusted it.
      return bus.writeInterruptMSR(index, value == 0 ? 0 : value &- msrs.timeStampAdjust)
    case 0x1B, 0x800...0x8FF: return bus.writeInterruptMSR(index, value)
    case 0x11, 0x12, 0x4B56_4D00...0x4B56_4DFF: return bus.writeClockMSR(index, value)
    case 0x48: msrs.speculationControl = value
    case 0x49: break
    case 0x79, 0x8B: break  // a microcode update, which does nothing
    case 0x174: msrs.sysenterCS = value & 0xFFFF_FFFF
    case 0x175: msrs.sysenterESP = value
    case 0x176: msrs.sysenterEIP = value
    case 0x17A: msrs.mcgStatus = 0
    case 0x1A0: msrs.miscEnable = value
    case 0x1D9, 0x122: break
    case 0x200...0x20F: msrs.mtrrRanges[Int(index - 0x200)] = value
    case 0x277:
      for place in UInt64(0)..<8 {
        let type = value >> (8 * place) & 0xFF
        guard type < 8, type != 2, type != 3 else { return false }
      }
      msrs.pat = value
    case 0x2FF: msrs.mtrrDefault = value & 0xCFF
    case 0x400...0x47F: break
    case 0xC000_0080: return setEFER(value)
    case 0xC000_0081: msrs.star = value
    case 0xC000_0082:
      guard Self.isCanonical(value) else { return false }
      msrs.lstar = value
    case 0xC000_0083:
      guard Self.isCanonical(value) else { return false }
      msrs.cstar = value
    case 0xC000_0084: msrs.syscallMask = value & 0xFFFF_FFFF
    case 0xC000_0100, 0xC000_0101:
      guard Self.isCanonical(value) else { return false }
      let number = index == 0xC000_0100 ? 4 : 5
      segments[number].base = value
      segmentBase[number] = value
    case 0xC000_0102:
      guard Self.isCanonical(value) else { return false }
      msrs.kernelGSBase = value
    case 0xC000_0103: msrs.tscAux = value & 0xFFFF_FFFF
    case 0xC001_0000...0xC001_0007: return value == 0
    case 0xC001_0010...0xC001_001F, 0xC001_0114, 0xC001_0117: break
    case 0xC001_0015, 0xC001_1029, 0xC001_102A, 0xC001_1022, 0xC001_1023, 0xC001_1020: break
    case 0xC001_0055: break
    default:
      guard let place = SystemMSRs.fixedRanges.firstIndex(of: index) else { return false }
      msrs.mtrrFixed[place] = value
    }
    return true
  }

  private mutating func setEFER(_ value: UInt64) -> Bool {
    let features = cpuid.entry(0x8000_0001)?.edx ?? 0
    var allowed: UInt64 = 0x400
    if features & 1 << 11 != 0 { allowed |= 1 }
    if features & 1 << 29 != 0 { allowed |= 0x100 }
    if features & 1 << 20 != 0 { allowed |= 0x800 }
    if features & 1 << 25 != 0 { allowed |= 0x4000 }
    guard value & ~allowed == 0 else { return false }
    if isPaging, (value ^ efer) & 0x100 != 0 { return false }
    efer = value & ~0x400 | efer & 0x400
    tlb.flush()
    return true
  }

  // MARK: - Counters and identification

  mutating func readCounter(_ i: Instruction) throws(Fault) {
    switch i.op {
    case .rdpmc: throw .protection()
    case .rdpid:
      guard has(.rdpid) else { throw .undefined }
      setReg64(i.rm, msrs.tscAux)
      return
    case .rdtscp:
      guard has(.rdtscp) else { throw .undefined }
    default: break
    }
    if cr4 & 4 != 0, cpl > 0 { throw .protection() }
    let value = readTimeStamp()
    setReg32(0, UInt32(truncatingIfNeeded: value))
    setReg32(2, UInt32(truncatingIfNeeded: value >> 32))
    if i.op == .rdtscp { setReg32(1, UInt32(truncatingIfNeeded: msrs.tscAux)) }
  }

  /// CPUID: the guest's table, and what follows from the state.
  mutating func identify() {
    let leaf = reg32(0)
    let subleaf = reg32(1)
    let highest = leaf >= 0x8000_0000 ? cpuid.entry(0x8000_0000)?.eax ?? 0 : cpuid.maximumLeaf
    // AMD's processors answer zeroes past the end.
    var entry = CPUIDTable.Entry(leaf: leaf)
    let isHypervisor = leaf >> 8 == 0x40_0000
    if leaf <= highest || isHypervisor, let found = cpuid.entry(leaf, subleaf) { entry = found }
    switch leaf {
    case 1:
      if cr4 & 1 << 18 != 0 { entry.ecx |= 1 << 27 }
      if (bus.readInterruptMSR(0x1B) ?? 0) & 1 << 11 == 0 { entry.edx &= ~(1 << 9) }
    case 7 where subleaf == 0:
      if cr4 & 1 << 22 != 0 { entry.ecx |= 1 << 4 }
    case 0xB where subleaf > 2:
      // Past the last level: the level as it was asked for, and who asks.
      entry.ecx = subleaf & 0xFF
      entry.edx = cpuid.entry(0xB, 0)?.edx ?? 0
    case 0xD where subleaf == 0: entry.ebx = xsaveByteCount(xcr0)
    case 0xD where subleaf == 1:
      entry.ebx = UInt32(truncatingIfNeeded: compactByteCount(xcr0))
    default: break
    }
    setReg32(0, entry.eax)
    setReg32(3, entry.ebx)
    setReg32(1, entry.ecx)
    setReg32(2, entry.edx)
  }

  /// The size of a standard XSAVE area for some components.
  private func xsaveByteCount(_ components: UInt64) -> UInt32 {
    var size: UInt32 = 576
    for number in UInt32(2)..<63 where components >> UInt64(number) & 1 != 0 {
      guard let part = cpuid.entry(0xD, number) else { continue }
      size = max(size, part.ebx &+ part.eax)
    }
    return size
  }
}
