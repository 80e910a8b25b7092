// SPDX-License-Identifier: Apache-2.0

internal import CHostCPU
public import Processor

/// The processors that the software CPU can be.
public enum CPUModel: String, Sendable, CaseIterable {
  /// Everything that the software CPU has.
  case host
  /// x86-64-v2, also called `base`.
  case v2
  /// x86-64-v3.
  case v3

  /// The model of a name in the machine file.
  public init?(name: String) { self.init(rawValue: name == "base" ? "v2" : name) }
}

/// A model that the software CPU cannot be.
public struct CPUModelError: Error, Equatable, Sendable, CustomStringConvertible {
  public var model: CPUModel
  public var missing: String

  public var description: String {
    "the software CPU cannot be \(model.rawValue): it has no \(missing)"
  }
}

/// Vector extensions, which the host's processor executes: what it lacks the guest does not get.
struct VectorFeatures: OptionSet, Sendable {
  let rawValue: UInt32
  init(rawValue: UInt32) { self.rawValue = rawValue }

  static let sse3 = Self(rawValue: 1 << 0)
  static let pclmul = Self(rawValue: 1 << 1)
  static let ssse3 = Self(rawValue: 1 << 2)
  static let sse41 = Self(rawValue: 1 << 3)
  static let sse42 = Self(rawValue: 1 << 4)
  static let aes = Self(rawValue: 1 << 5)
  static let sha = Self(rawValue: 1 << 6)

  /// What the vector unit has and the host too.
  static let usable = VectorFeatures(bh_cpuid(1, 0).ecx, bh_cpuid(7, 0).ebx)

  /// What a guest's table offers.
  init(of table: CPUIDTable) {
    self.init(table.entry(1)?.ecx ?? 0, table.entry(7)?.ebx ?? 0)
  }

  /// From ECX of leaf 1 and EBX of leaf 7.
  private init(_ one: UInt32, _ seven: UInt32) {
    self.init()
    if one & 1 << 0 != 0 { insert(.sse3) }
    if one & 1 << 1 != 0 { insert(.pclmul) }
    if one & 1 << 9 != 0 { insert(.ssse3) }
    if one & 1 << 19 != 0 { insert(.sse41) }
    if one & 1 << 20 != 0 { insert(.sse42) }
    if one & 1 << 25 != 0 { insert(.aes) }
    if seven & 1 << 29 != 0 { insert(.sha) }
  }
}

extension CPUIDTable {
  /// Everything that the software CPU can do, whatever the guest was told.
  public static var softComplete: CPUIDTable {
    CPUIDTable(entries: basic(.usable, true) + extended(true)).guest(
      id: 0, count: 1, hasDeadlineTimer: true)
  }

  /// What a software vCPU of a model says of itself.
  ///
  /// It presents itself as the 64-bit AMD processor of family 15 that QEMU's default model is:
  /// guests know it and ask for few registers that are not architectural.
  ///
  /// - Throws: `CPUModelError` for a model that is not possible on this host.
  public static func soft(_ model: CPUModel, id: UInt32, count: UInt32)
    throws(CPUModelError) -> CPUIDTable
  {
    let vector = VectorFeatures.usable
    guard vector.isSuperset(of: [.sse3, .ssse3, .sse41, .sse42]) else {
      throw CPUModelError(model: model, missing: "SSE4.2, which this host does not have")
    }
    if model == .v3 { throw CPUModelError(model: model, missing: "AVX2") }
    let isFull = model == .host
    let brand = Array("Bulkhead software CPU\(isFull ? "" : ", x86-64-v2")".utf8)
    var entries = basic(vector, isFull) + extended(isFull)
    for part in UInt32(0)..<3 {
      func word(_ place: UInt32) -> UInt32 {
        (0..<4).reduce(0) {
          let at = Int(part * 16 + place * 4) + $1
          return $0 | (at < brand.count ? UInt32(brand[at]) << UInt32(8 * $1) : 0)
        }
      }
      entries.append(
        Entry(leaf: 0x8000_0002 + part, eax: word(0), ebx: word(1), ecx: word(2), edx: word(3)))
    }
    // KVM's interface: the clock, no delay for ports, a clock that does not jump.
    entries.append(Entry(leaf: 0x4000_0000, eax: 0x4000_0001))
    entries.append(Entry(leaf: 0x4000_0001, eax: 1 << 0 | 1 << 1 | 1 << 3 | 1 << 24))
    return CPUIDTable(entries: entries).guest(
      id: id, count: count, hasDeadlineTimer: true)
  }

  private static func basic(_ vector: VectorFeatures, _ isFull: Bool) -> [Entry] {
    var features: UInt32 = 1 << 0 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20  // SSE3 to SSE4.2, CX16
    features |= 1 << 21 | 1 << 23  // x2APIC, POPCNT
    if isFull {
      features |= 1 << 17 | 1 << 22 | 1 << 26 | 1 << 30  // PCID, MOVBE, XSAVE, RDRAND
      if vector.contains(.pclmul) { features |= 1 << 1 }
      if vector.contains(.aes) { features |= 1 << 25 }
    }
    // FPU, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, MTRR, PGE, MCA, CMOV, PAT, PSE36, CLFSH,
    // MMX, FXSR, SSE, SSE2.
    let plain: UInt32 = 0x0783_FBFD | 1 << 19
    var structured = Entry(leaf: 7, subleaf: 0, hasSubleaves: true)
    if isFull {
      // FSGSBASE, BMI1, SMEP, BMI2, ERMS, INVPCID, RDSEED, ADX, SMAP, CLFLUSHOPT.
      structured.ebx =
        1 << 0 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 23
      if vector.contains(.sha) { structured.ebx |= 1 << 29 }
      structured.ecx = 1 << 2 | 1 << 3 | 1 << 22  // UMIP, PKU, RDPID
      structured.edx = 1 << 4  // FSRM
    }
    var entries = [
      // AuthenticAMD.
      Entry(
        leaf: 0, eax: isFull ? 0xD : 7, ebx: 0x6874_7541, ecx: 0x444D_4163, edx: 0x6974_6E65),
      Entry(leaf: 1, eax: 0x0006_0FB1, ebx: 8 << 8, ecx: features, edx: plain),
      structured,
    ]
    if isFull {
      // The x87 and SSE parts of XSAVE and PKRU, after the place of AVX's; XSAVEOPT and XSAVEC.
      entries.append(
        Entry(leaf: 0xD, subleaf: 0, hasSubleaves: true, eax: 0x203, ebx: 576, ecx: 840))
      entries.append(Entry(leaf: 0xD, subleaf: 1, hasSubleaves: true, eax: 3, ebx: 576))
      entries.append(Entry(leaf: 0xD, subleaf: 9, hasSubleaves: true, eax: 8, ebx: 832))
    }
    return entries
  }

  private static func extended(_ isFull: Bool) -> [Entry] {
    // LAHF in 64-bit mode, PREFETCHW; LZCNT.
    var features: UInt32 = 1 << 0 | 1 << 8
    if isFull { features |= 1 << 5 }
    // SYSCALL, NX, pages of 1 GiB, RDTSCP, long mode, and AMD's copies of leaf 1.
    let copies: UInt32 = 0x0183_F3FD
    let long: UInt32 = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29
    return [
      Entry(
        leaf: 0x8000_0000, eax: 0x8000_0008, ebx: 0x6874_7541, ecx: 0x444D_4163,
        edx: 0x6974_6E65),
      Entry(leaf: 0x8000_0001, eax: 0x0006_0FB1, ecx: features, edx: copies | long),
      Entry(
        leaf: 0x8000_0005, eax: 0x01FF_01FF, ebx: 0x01FF_01FF, ecx: 0x4002_0140, edx: 0x4002_0140),
      Entry(leaf: 0x8000_0006, ebx: 0x4200_4200, ecx: 0x0200_8140),
      // The time-stamp counter runs at one rate.
      Entry(leaf: 0x8000_0007, edx: 1 << 8),
      Entry(leaf: 0x8000_0008, eax: 0x3028),
    ]
  }
}
