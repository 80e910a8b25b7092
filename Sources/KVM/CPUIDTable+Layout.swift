// SPDX-License-Identifier: Apache-2.0

internal import Processor

extension CPUIDTable {
  /// The size of a `struct kvm_cpuid_entry2`.
  static let entryByteCount = 40

  /// Reads a `struct kvm_cpuid2`.
  init(_ block: Block) {
    let room = (block.bytes.count - 8) / Self.entryByteCount
    let count = min(Int(block.load(UInt32.self, at: 0)), room)
    self.init(
      entries: (0..<count).map { index in
        let at = 8 + Self.entryByteCount * index
        return Entry(
          leaf: block.load(UInt32.self, at: at), subleaf: block.load(UInt32.self, at: at + 4),
          hasSubleaves: block.load(UInt32.self, at: at + 8) & 1 != 0,
          eax: block.load(UInt32.self, at: at + 12), ebx: block.load(UInt32.self, at: at + 16),
          ecx: block.load(UInt32.self, at: at + 20), edx: block.load(UInt32.self, at: at + 24))
      })
  }

  /// The table as a `struct kvm_cpuid2`.
  var block: Block {
    var block = Block(byteCount: 8 + Self.entryByteCount * entries.count)
    block.store(UInt32(entries.count), at: 0)
    for (index, entry) in entries.enumerated() {
      let at = 8 + Self.entryByteCount * index
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
