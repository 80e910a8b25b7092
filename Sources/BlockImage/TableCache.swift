// SPDX-License-Identifier: Apache-2.0

/// A bounded, direct-mapped cache of pieces of L2 tables or refcount blocks.
///
/// What was changed is written at once with ``writeBack(_:count:at:to:)``, or marked with
/// ``markDirty(_:)`` and written later with ``writeDirty(to:)``. A slice that is dirty is never
/// replaced: ``wouldEvictDirty(_:)`` has to be asked first.
struct TableCache: ~Copyable {
  let sliceBytes: UInt64
  private var tags: [UInt64]
  private(set) var bytes: [UInt8]
  private var isDirty: [Bool]
  /// How many slices are dirty.
  private(set) var dirtyCount = 0
  /// Goes up whenever a slice in the storage may have become another than it was.
  private(set) var stamp: UInt64 = 0

  init(clusterSize: UInt64, byteCount: Int) {
    sliceBytes = min(clusterSize, 4096)
    let slots = max(1, byteCount / Int(sliceBytes))
    tags = [UInt64](repeating: UInt64.max, count: slots)
    bytes = [UInt8](repeating: 0, count: slots * Int(sliceBytes))
    isDirty = [Bool](repeating: false, count: slots)
  }

  private func slot(of offset: UInt64) -> Int {
    Int((offset / sliceBytes) % UInt64(tags.count))
  }

  /// Whether bringing in the slice that holds `offset` would replace a dirty one.
  func wouldEvictDirty(_ offset: UInt64) -> Bool {
    let slot = slot(of: offset)
    return isDirty[slot] && tags[slot] != offset / sliceBytes
  }

  /// Makes the slice that holds `offset` present; returns where that byte is in `bytes`.
  mutating func index<Storage: BlockStorage & ~Copyable>(
    of offset: UInt64, from storage: inout Storage
  ) throws(BlockImageError) -> Int {
    let slice = offset / sliceBytes
    let slot = slot(of: offset)
    let base = slot * Int(sliceBytes)
    if tags[slot] != slice {
      precondition(!isDirty[slot], "a changed slice would be lost")
      tags[slot] = UInt64.max
      try storage.fill(&bytes, base..<base + Int(sliceBytes), at: slice * sliceBytes)
      tags[slot] = slice
    }
    return base + Int(offset % sliceBytes)
  }

  /// Whether the slice that holds `offset` is present.
  func isPresent(_ offset: UInt64) -> Bool { tags[slot(of: offset)] == offset / sliceBytes }

  /// Takes a slice that was read while others used the cache; `stamp` is of the time before.
  ///
  /// Nothing is taken where the slice may have changed since, or would replace a dirty one.
  mutating func insert(_ slice: Span<UInt8>, at offset: UInt64, stamp: UInt64) {
    let slot = slot(of: offset)
    guard stamp == self.stamp, !isPresent(offset), !isDirty[slot],
      slice.count == Int(sliceBytes)
    else { return }
    let base = slot * Int(sliceBytes)
    for index in 0..<slice.count { bytes[base + index] = slice[index] }
    tags[slot] = offset / sliceBytes
  }

  /// Changes a byte of a slice that is present.
  mutating func set(_ byte: UInt8, at index: Int) { bytes[index] = byte }

  /// Changes an entry of a slice that is present.
  mutating func set(_ entry: UInt64, at index: Int) { bytes.storeBigEndian(entry, at: index) }

  /// Notes that the slice that holds `offset` has to be written some time.
  mutating func markDirty(_ offset: UInt64) {
    let slot = slot(of: offset)
    if !isDirty[slot] { dirtyCount += 1 }
    isDirty[slot] = true
  }

  /// Writes every dirty slice; those that can't be written stay dirty.
  mutating func writeDirty<Storage: BlockStorage & ~Copyable>(to storage: inout Storage)
    throws(BlockImageError)
  {
    guard dirtyCount > 0 else { return }
    stamp += 1
    for slot in tags.indices where isDirty[slot] {
      let base = slot * Int(sliceBytes)
      try storage.store(
        bytes.span.extracting(base..<base + Int(sliceBytes)), at: tags[slot] * sliceBytes)
      isDirty[slot] = false
      dirtyCount -= 1
    }
  }

  /// Writes `count` bytes at `index`, which belong at `offset`, through to the storage.
  ///
  /// When that fails the slice is dropped: what the storage holds is read again.
  mutating func writeBack<Storage: BlockStorage & ~Copyable>(
    _ index: Int, count: Int, at offset: UInt64, to storage: inout Storage
  ) throws(BlockImageError) {
    stamp += 1
    do throws(BlockImageError) {
      try storage.store(bytes.span.extracting(index..<index + count), at: offset)
    } catch {
      drop(offset)
      throw error
    }
  }

  /// Forgets the slice that holds `offset`, also when it is dirty.
  mutating func drop(_ offset: UInt64) {
    stamp += 1
    let slot = slot(of: offset)
    guard tags[slot] == offset / sliceBytes else { return }
    tags[slot] = UInt64.max
    if isDirty[slot] { dirtyCount -= 1 }
    isDirty[slot] = false
  }

  /// Forgets every slice inside the given range.
  mutating func drop(_ offset: UInt64, count: UInt64) {
    var position = offset
    while position < offset + count {
      drop(position)
      position += sliceBytes
    }
  }

  /// Forgets every slice, also dirty ones.
  mutating func dropAll() {
    stamp += 1
    for slot in tags.indices {
      tags[slot] = UInt64.max
      isDirty[slot] = false
    }
    dirtyCount = 0
  }
}
