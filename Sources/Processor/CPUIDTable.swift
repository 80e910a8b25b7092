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
