// SPDX-License-Identifier: Apache-2.0

extension CPUIDTable {
  /// Feature bits that a guest shall not see, although the host has them.
  public struct HiddenBits: Hashable, Sendable {
    /// The output registers of CPUID.
    public enum Register: Hashable, Sendable { case eax, ebx, ecx, edx }

    public var leaf: UInt32
    public var subleaf: UInt32
    public var register: Register
    public var bits: UInt32

    public init(leaf: UInt32, subleaf: UInt32 = 0, _ register: Register, bits: UInt32) {
      self.leaf = leaf
      self.subleaf = subleaf
      self.register = register
      self.bits = bits
    }

    /// CMPXCHG16B, which a software KVM offers and cannot run in kernel mode.
    public static let cmpxchg16b = HiddenBits(leaf: 1, .ecx, bits: 1 << 13)
  }

  /// Turns the host's table into the one for vCPU `id` of a machine of `count`.
  ///
  /// One socket has all the cores and each core one thread; the APIC id is the vCPU's number.
  /// Of KVM's own leaves only the clock stays, so no guest makes a hypercall. Nested
  /// virtualisation is left out: its state is not part of ``VCPUState``.
  /// `hidden` takes away more bits; `hasDeadlineTimer` says that the local APIC's timer can run
  /// by the time-stamp counter.
  public func guest(
    id: UInt32, count: UInt32, hiding hidden: [HiddenBits] = [], hasDeadlineTimer: Bool = false
  ) -> CPUIDTable {
    let shape = Topology(id: id, count: max(1, count), vendor: vendor)
    var table = CPUIDTable(entries: entries.compactMap { shape.entry($0) })
    if maximumLeaf >= 0x0B { table.entries += shape.extendedTopology(0x0B) }
    if maximumLeaf >= 0x1F { table.entries += shape.extendedTopology(0x1F) }
    table.change(1) {
      $0.ecx |= 1 << 31  // a hypervisor is there
      if hasDeadlineTimer { $0.ecx |= 1 << 24 }
    }
    for bits in hidden {
      table.change(bits.leaf, bits.subleaf) {
        switch bits.register {
        case .eax: $0.eax &= ~bits.bits
        case .ebx: $0.ebx &= ~bits.bits
        case .ecx: $0.ecx &= ~bits.bits
        case .edx: $0.edx &= ~bits.bits
        }
      }
    }
    return table
  }

  private mutating func change(
    _ leaf: UInt32, _ subleaf: UInt32 = 0, _ body: (inout Entry) -> Void
  ) {
    for index in entries.indices
    where entries[index].leaf == leaf
      && (!entries[index].hasSubleaves || entries[index].subleaf == subleaf)
    {
      body(&entries[index])
    }
  }
}

/// One vCPU's place among the others, and the leaves that tell it.
private struct Topology {
  let id: UInt32
  let count: UInt32
  let isAMD: Bool

  init(id: UInt32, count: UInt32, vendor: String) {
    self.id = id
    self.count = count
    isAMD = vendor == "AuthenticAMD" || vendor == "HygonGenuine"
  }

  /// How many low bits of the APIC id tell the cores apart.
  var coreBits: UInt32 { UInt32(32 - (count - 1).leadingZeroBitCount) }

  private func ones(_ count: UInt32) -> UInt32 { (UInt32(1) << count) - 1 }

  /// Returns a leaf as this vCPU shows it; `nil` for one that is not shown, or is made anew.
  func entry(_ host: CPUIDTable.Entry) -> CPUIDTable.Entry? {
    var entry = host
    switch host.leaf {
    case 0x01:
      let logical = min(255, UInt32(1) << min(8, coreBits))
      entry.ebx = entry.ebx & 0x0000_FFFF | logical << 16 | (id & 0xFF) << 24
      entry.ecx &= ~(1 << 5 | 1 << 27)  // VMX; OSXSAVE follows CR4
      entry.edx = entry.edx & ~(1 << 28) | (count > 1 ? 1 << 28 : 0)
    case 0x04:
      guard entry.eax & 0x1F != 0 else { return entry }
      entry.eax = entry.eax & 0x03FF_FFFF | ones(min(6, coreBits)) << 26
      entry.eax = sharing(entry.eax)
    case 0x8000_001D:
      guard entry.eax & 0x1F != 0 else { return entry }
      entry.eax = sharing(entry.eax)
    case 0x0B, 0x1F: return nil
    case 0x4000_0000:
      entry.eax = 0x4000_0001
      entry.ebx = 0x4B4D_564B  // "KVMKVMKVM"
      entry.ecx = 0x564B_4D56
      entry.edx = 0x0000_004D
    case 0x4000_0001:
      // Old clock, no delay needed for ports, clock, stable clock: what needs no hypercall.
      entry.eax &= 1 << 0 | 1 << 1 | 1 << 3 | 1 << 24
      entry.ebx = 0
      entry.ecx = 0
      entry.edx = 0
    case 0x4000_0002...0x4FFF_FFFF: return nil
    case 0x8000_0001:
      entry.ecx &= ~(1 << 2)  // SVM
      if isAMD { entry.ecx = entry.ecx & ~(1 << 1) | (count > 1 ? 1 << 1 : 0) }
    case 0x8000_0008 where isAMD:
      entry.ecx = entry.ecx & ~0xF0FF | coreBits << 12 | min(0xFF, count - 1)
    case 0x8000_000A: entry = CPUIDTable.Entry(leaf: host.leaf)
    case 0x8000_001E where isAMD:
      entry.eax = id
      entry.ebx = id & 0xFF
      entry.ecx = 0
      entry.edx = 0
    default: break
    }
    return entry
  }

  /// Sets how many threads share a cache: its core's alone, or all from level 3 up.
  private func sharing(_ eax: UInt32) -> UInt32 {
    let level = eax >> 5 & 7
    let others = level >= 3 ? ones(min(12, coreBits)) : 0
    return eax & ~(0xFFF << 14) | others << 14
  }

  /// The leaves that list the levels of the APIC id: thread, core, end.
  func extendedTopology(_ leaf: UInt32) -> [CPUIDTable.Entry] {
    [
      .init(
        leaf: leaf, subleaf: 0, hasSubleaves: true, eax: 0, ebx: 1, ecx: 0x0100, edx: id),
      .init(
        leaf: leaf, subleaf: 1, hasSubleaves: true, eax: coreBits, ebx: count, ecx: 0x0201,
        edx: id),
      .init(leaf: leaf, subleaf: 2, hasSubleaves: true, ecx: 2, edx: id),
    ]
  }
}
