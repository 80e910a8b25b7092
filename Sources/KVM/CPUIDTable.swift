// SPDX-License-Identifier: Apache-2.0

/// What the CPUID instruction answers, leaf by leaf.
public struct CPUIDTable: Equatable, Sendable {
  /// One leaf, or one subleaf of a leaf that has several.
  public struct Entry: Equatable, Sendable {
    public var leaf: UInt32
    public var subleaf: UInt32
    /// Whether ECX selects among subleaves (KVM_CPUID_FLAG_SIGNIFCANT_INDEX).
    public var hasSubleaves: Bool
    public var eax: UInt32
    public var ebx: UInt32
    public var ecx: UInt32
    public var edx: UInt32

    public init(
      leaf: UInt32, subleaf: UInt32 = 0, hasSubleaves: Bool = false, eax: UInt32 = 0,
      ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0
    ) {
      self.leaf = leaf
      self.subleaf = subleaf
      self.hasSubleaves = hasSubleaves
      self.eax = eax
      self.ebx = ebx
      self.ecx = ecx
      self.edx = edx
    }

    static let byteCount = 40
  }

  public var entries: [Entry]

  public init(entries: [Entry]) { self.entries = entries }

  /// The entry for a leaf and subleaf, if there is one.
  public func entry(_ leaf: UInt32, _ subleaf: UInt32 = 0) -> Entry? {
    entries.first { $0.leaf == leaf && (!$0.hasSubleaves || $0.subleaf == subleaf) }
  }

  /// The highest basic leaf.
  public var maximumLeaf: UInt32 { entry(0)?.eax ?? 0 }

  /// The processor's maker, twelve characters as in leaf 0.
  public var vendor: String {
    guard let zero = entry(0) else { return "" }
    let bytes = [zero.ebx, zero.edx, zero.ecx].flatMap { word in
      (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}

extension CPUIDTable {
  /// Reads a `struct kvm_cpuid2`.
  init(_ block: Block) {
    let room = (block.bytes.count - 8) / Entry.byteCount
    let count = min(Int(block.load(UInt32.self, at: 0)), room)
    entries = (0..<count).map { index in
      let at = 8 + Entry.byteCount * index
      return Entry(
        leaf: block.load(UInt32.self, at: at), subleaf: block.load(UInt32.self, at: at + 4),
        hasSubleaves: block.load(UInt32.self, at: at + 8) & 1 != 0,
        eax: block.load(UInt32.self, at: at + 12), ebx: block.load(UInt32.self, at: at + 16),
        ecx: block.load(UInt32.self, at: at + 20), edx: block.load(UInt32.self, at: at + 24))
    }
  }

  /// The table as a `struct kvm_cpuid2`.
  var block: Block {
    var block = Block(byteCount: 8 + Entry.byteCount * entries.count)
    block.store(UInt32(entries.count), at: 0)
    for (index, entry) in entries.enumerated() {
      let at = 8 + Entry.byteCount * index
      block.store(entry.leaf, at: at)
      block.store(entry.subleaf, at: at + 4)
      block.store(UInt32(entry.hasSubleaves ? 1 : 0), at: at + 8)
      block.store(entry.eax, at: at + 12)
      block.store(entry.ebx, at: at + 16)
      block.store(entry.ecx, at: at + 20)
      block.store(entry.edx, at: at + 24)
    }
    return block
  }
}
