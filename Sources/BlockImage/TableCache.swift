// SPDX-License-Identifier: Apache-2.0

/// A bounded, direct-mapped cache of pieces of L2 tables or refcount blocks.
///
/// It is written through: the storage is always as new as the cache, so that a killed
/// process loses nothing that a write had finished.
struct TableCache: ~Copyable {
  let sliceBytes: UInt64
  private var tags: [UInt64]
  private(set) var bytes: [UInt8]

  init(clusterSize: UInt64, byteCount: Int) {
    sliceBytes = min(clusterSize, 4096)
    let slots = byteCount / Int(sliceBytes)
    tags = [UInt64](repeating: UInt64.max, count: slots)
    bytes = [UInt8](repeating: 0, count: slots * Int(sliceBytes))
  }

  private func slot(of offset: UInt64) -> Int {
    Int((offset / sliceBytes) % UInt64(tags.count))
  }

  /// Makes the slice that holds `offset` present; returns where that byte is in `bytes`.
  mutating func index<Storage: BlockStorage & ~Copyable>(
    of offset: UInt64, from storage: inout Storage
  ) throws(BlockImageError) -> Int {
    let slice = offset / sliceBytes
    let slot = slot(of: offset)
    let base = slot * Int(sliceBytes)
    if tags[slot] != slice {
      tags[slot] = UInt64.max
      try storage.fill(&bytes, base..<base + Int(sliceBytes), at: slice * sliceBytes)
      tags[slot] = slice
    }
    return base + Int(offset % sliceBytes)
  }

  /// Changes a byte of a slice that is present; ``writeBack`` has to follow.
  mutating func set(_ byte: UInt8, at index: Int) { bytes[index] = byte }

  /// Changes an entry of a slice that is present; ``writeBack`` has to follow.
  mutating func set(_ entry: UInt64, at index: Int) { bytes.storeBigEndian(entry, at: index) }

  /// Writes `count` bytes at `index`, which belong at `offset`, through to the storage.
  ///
  /// When that fails the slice is dropped: what the storage holds is read again.
  mutating func writeBack<Storage: BlockStorage & ~Copyable>(
    _ index: Int, count: Int, at offset: UInt64, to storage: inout Storage
  ) throws(BlockImageError) {
    do throws(BlockImageError) {
      try storage.store(bytes.span.extracting(index..<index + count), at: offset)
    } catch {
      drop(offset)
      throw error
    }
  }

  /// Forgets the slice that holds `offset`.
  mutating func drop(_ offset: UInt64) {
    let slot = slot(of: offset)
    if tags[slot] == offset / sliceBytes { tags[slot] = UInt64.max }
  }

  /// Forgets every slice inside the given range.
  mutating func drop(_ offset: UInt64, count: UInt64) {
    var position = offset
    while position < offset + count {
      drop(position)
      position += sliceBytes
    }
  }
}
