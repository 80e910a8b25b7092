// SPDX-License-Identifier: Apache-2.0

/// Clusters to give up later.
struct PendingRelease: Equatable {
  var first: UInt64
  var count: UInt64
  /// Whether the host is to have the space back.
  var isDiscard: Bool
}

extension QCOW2Image where Storage: ~Copyable {
  /// What is done to the refcounts of a run of clusters.
  enum RefcountChange {
    /// From 0 to 1.
    case take
    /// One more.
    case share
    /// One less.
    case release
  }

  var clusterBits: UInt64 { UInt64(header.clusterBits) }

  /// The largest refcount there is.
  var largestRefcount: UInt64 {
    header.refcountOrder == 6 ? UInt64.max : (1 << (1 << UInt64(header.refcountOrder))) - 1
  }

  /// Returns the refcount of a cluster of the file; 0 where no block covers it.
  mutating func refcount(of cluster: UInt64) throws(BlockImageError) -> UInt64 {
    guard hasRefcountBlock(for: cluster) else { return 0 }
    let index = try refcountIndex(refcountOffset(of: cluster))
    return unpack(index, cluster)
  }

  func hasRefcountBlock(for cluster: UInt64) -> Bool {
    let block = cluster >> header.refcountBlockBits
    return block < UInt64(refcountTable.count) && refcountTable[Int(block)] != 0
  }

  /// Makes a piece of a refcount block present in the cache.
  private mutating func refcountIndex(_ offset: UInt64) throws(BlockImageError) -> Int {
    if refcountCache.wouldEvictDirty(offset) {
      try refcountCache.writeDirty(to: &storage)
      needsBarrier = true
    }
    return try refcountCache.index(of: offset, from: &storage)
  }

  /// Returns where in the file the (first byte of the) refcount of `cluster` is.
  private func refcountOffset(of cluster: UInt64) -> UInt64 {
    let place = cluster & ((1 << header.refcountBlockBits) - 1)
    return refcountTable[Int(cluster >> header.refcountBlockBits)]
      + (place << UInt64(header.refcountOrder)) >> 3
  }

  private func unpack(_ index: Int, _ cluster: UInt64) -> UInt64 {
    let width = 1 << Int(header.refcountOrder)
    if width < 8 {
      // Packed from the least significant bit on ("Refcount block entry").
      let shift = Int(cluster & UInt64(8 / width - 1)) * width
      return UInt64(refcountCache.bytes[index] >> shift) & ((1 << width) - 1)
    }
    var value: UInt64 = 0
    for byte in 0..<width / 8 { value = value << 8 | UInt64(refcountCache.bytes[index + byte]) }
    return value
  }

  private mutating func pack(_ value: UInt64, _ index: Int, _ cluster: UInt64) {
    let width = 1 << Int(header.refcountOrder)
    if width < 8 {
      let shift = Int(cluster & UInt64(8 / width - 1)) * width
      let mask = UInt8((1 << width) - 1) << shift
      let byte = refcountCache.bytes[index] & ~mask | UInt8(value) << shift
      refcountCache.set(byte, at: index)
      return
    }
    for byte in 0..<width / 8 {
      refcountCache.set(
        UInt8(truncatingIfNeeded: value >> (width - 8 - 8 * byte)), at: index + byte)
    }
  }

  /// Changes the refcounts of `count` clusters, one write per slice; all of them or none.
  mutating func changeRefcounts(_ first: UInt64, count: UInt64, _ change: RefcountChange)
    throws(BlockImageError)
  {
    let end = first + count
    for cluster in first..<end {
      let old = try refcount(of: cluster)
      switch change {
      case .take: break
      case .release, .share:
        try require(old > 0, "refcount of cluster \(cluster)", 0, "the cluster is in use")
      }
      if change == .share, old == largestRefcount {
        throw .unsupported(
          feature: "more than \(old) uses of a cluster (refcounts of "
            + "\(1 << Int(header.refcountOrder)) bits)")
      }
      try require(
        hasRefcountBlock(for: cluster), "refcount of cluster \(cluster)", 0,
        "the cluster is in use")
    }
    if change != .release { needsBarrier = true }
    var cluster = first
    while cluster < end { try changeSlice(&cluster, end, change) }
  }

  /// Changes the refcounts from `cluster` on that lie in one slice.
  private mutating func changeSlice(
    _ cluster: inout UInt64, _ end: UInt64, _ change: RefcountChange
  ) throws(BlockImageError) {
    let block = cluster >> header.refcountBlockBits
    let offset = refcountOffset(of: cluster)
    let index = try refcountIndex(offset)
    var last = index
    repeat {
      let place = index + Int(refcountOffset(of: cluster) - offset)
      let old = unpack(place, cluster)
      let new: UInt64 =
        switch change {
        case .take: 1
        case .share: old + 1
        case .release: old - 1
        }
      pack(new, place, cluster)
      if new == 0 { firstFree = min(firstFree, cluster) }
      last = place
      cluster += 1
    } while cluster < end && cluster >> header.refcountBlockBits == block
      && refcountOffset(of: cluster) / refcountCache.sliceBytes
        == offset / refcountCache.sliceBytes
    let width = max(1, (1 << Int(header.refcountOrder)) / 8)
    switch options.tables {
    case .through:
      try refcountCache.writeBack(index, count: last - index + width, at: offset, to: &storage)
    case .back: refcountCache.markDirty(offset)
    }
  }

  /// Takes up to `count` free clusters that lie side by side; their refcount becomes 1.
  mutating func allocate(_ count: UInt64) throws(BlockImageError) -> Range<UInt64> {
    var cluster = firstFree
    while true {
      try coverWithBlock(cluster)
      if try refcount(of: cluster) == 0 { break }
      cluster += 1
    }
    var end = cluster + 1
    while end < cluster + count,
      end >> header.refcountBlockBits == cluster >> header.refcountBlockBits,
      try refcount(of: end) == 0
    {
      end += 1
    }
    guard end << clusterBits < 1 << 56 else { throw .imageFull }
    for taken in cluster..<end { try refuseMetadata(taken) }
    try changeRefcounts(cluster, count: end - cluster, .take)
    firstFree = end
    return cluster..<end
  }

  /// Makes sure that there is a refcount for a cluster.
  private mutating func coverWithBlock(_ cluster: UInt64) throws(BlockImageError) {
    let block = cluster >> header.refcountBlockBits
    if block >= UInt64(refcountTable.count) {
      _ = try growRefcountTable(for: block, extra: 0)
    } else if refcountTable[Int(block)] == 0 {
      try addRefcountBlock(block)
    }
  }

  /// Takes `count` free clusters that lie side by side, for a table.
  mutating func allocateTogether(_ count: UInt64) throws(BlockImageError) -> Range<UInt64> {
    let some = try allocate(count)
    if UInt64(some.count) == count { return some }
    try changeRefcounts(some.lowerBound, count: UInt64(some.count), .release)
    // Rare: a run behind all that is covered so far, with its own refcount blocks.
    let block = (refcountTable.lastIndex { $0 != 0 } ?? -1) + 1
    return try growRefcountTable(for: UInt64(block), extra: count)
  }

  /// Refuses to write over metadata, where tables that contradict each other lead to it.
  func refuseMetadata(_ cluster: UInt64) throws(BlockImageError) {
    try require(
      !metadata.contains(cluster), "cluster \(cluster)", cluster << clusterBits,
      "it holds metadata and can't be used for data too")
  }

  /// Gives clusters up, now or when the tables that no longer refer to them are durable.
  mutating func release(_ first: UInt64, count: UInt64, isDiscard: Bool = false)
    throws(BlockImageError)
  {
    let release = PendingRelease(first: first, count: count, isDiscard: isDiscard)
    if options.tables == .through, !options.hasBarriers {
      guard isDiscard, heldDiscards != nil else { return try releaseNow(release) }
      heldDiscards?.add(release)
      return
    }
    pendingReleases.add(release)
    if pendingReleases.count >= 4096 { try flush() }
  }

  /// Gives clusters up that nothing refers to any more.
  mutating func releaseNow(_ release: PendingRelease) throws(BlockImageError) {
    try changeRefcounts(release.first, count: release.count, .release)
    guard release.isDiscard else { return }
    var first = release.first
    let end = release.first + release.count
    while first < end {
      var next = first
      while next < end, try refcount(of: next) == 0, !metadata.contains(next) { next += 1 }
      if next > first {
        // The space is only the host's to save; that it can't is no failure.
        try? storage.discard(at: first << clusterBits, count: (next - first) << clusterBits)
      }
      first = max(next, first + 1)
    }
  }

  // MARK: The refcount structures themselves

  /// Makes a refcount block for a range of clusters that has none.
  ///
  /// None of them is in use, so the block takes the first of its own range and counts
  /// itself. The table entry is written last.
  private mutating func addRefcountBlock(_ block: UInt64) throws(BlockImageError) {
    let cluster = block << header.refcountBlockBits
    guard cluster << clusterBits < 1 << 56 else { throw .imageFull }
    try refuseMetadata(cluster)
    try writeRefcountBlock(at: cluster, used: 1)
    if options.hasBarriers { try barrier() }
    var entry = [UInt8](repeating: 0, count: 8)
    entry.storeBigEndian(cluster << clusterBits, at: 0)
    try storage.store(entry, at: header.refcountTableOffset + block * 8)
    needsBarrier = true
    refcountTable[Int(block)] = cluster << clusterBits
    metadata.insert(cluster)
  }

  /// Writes a block at `cluster` whose first `used` refcounts are 1.
  private mutating func writeRefcountBlock(at cluster: UInt64, used: UInt64)
    throws(BlockImageError)
  {
    var bytes = [UInt8](repeating: 0, count: Int(header.clusterSize))
    let width = 1 << Int(header.refcountOrder)
    for entry in 0..<Int(used) {
      if width < 8 {
        bytes[entry * width / 8] |= 1 << UInt8(entry * width % 8)
      } else {
        bytes[(entry + 1) * width / 8 - 1] = 1
      }
    }
    refcountCache.drop(cluster << clusterBits, count: header.clusterSize)
    try storage.store(bytes, at: cluster << clusterBits)
  }

  /// Adds blocks from number `block` on, and a larger table where they need one.
  ///
  /// The new blocks, the `extra` clusters and a new table lie at the start of the range that
  /// was not covered so far; what makes them valid is written last, then an old table is
  /// released.
  ///
  /// - Returns: The `extra` clusters, with a refcount of 1.
  private mutating func growRefcountTable(for block: UInt64, extra: UInt64)
    throws(BlockImageError) -> Range<UInt64>
  {
    let first = block << header.refcountBlockBits
    let perBlock: UInt64 = 1 << header.refcountBlockBits
    var blocks: UInt64 = 1
    var tableClusters: UInt64 = 0
    while true {
      if block + blocks > UInt64(refcountTable.count) {
        let entries = max(block + blocks + 1, UInt64(refcountTable.count) * 3 / 2)
        tableClusters = (entries * 8 + header.clusterSize - 1) >> clusterBits
      }
      let needed = (blocks + extra + tableClusters + perBlock - 1) / perBlock
      if needed <= blocks { break }
      blocks = needed
    }
    let used = blocks + extra + tableClusters
    guard tableClusters << clusterBits <= max(QCOW2.largestRefcountTable, header.clusterSize),
      (first + used) << clusterBits < 1 << 56
    else { throw .imageFull }
    for cluster in first..<first + used { try refuseMetadata(cluster) }
    for index in 0..<blocks {
      let covered = min(used - min(used, index * perBlock), perBlock)
      try writeRefcountBlock(at: first + index, used: covered)
    }
    var table = refcountTable
    table += [UInt64](
      repeating: 0, count: max(0, Int(tableClusters << clusterBits / 8) - table.count))
    for index in 0..<blocks { table[Int(block + index)] = (first + index) << clusterBits }
    if tableClusters > 0 {
      try moveRefcountTable(table, to: first + blocks + extra, clusters: tableClusters)
    } else {
      if options.hasBarriers { try barrier() }
      var bytes = [UInt8](repeating: 0, count: Int(blocks) * 8)
      for index in 0..<Int(blocks) {
        bytes.storeBigEndian(table[Int(block) + index], at: index * 8)
      }
      try storage.store(bytes, at: header.refcountTableOffset + block * 8)
      refcountTable = table
    }
    needsBarrier = true
    for cluster in first..<first + blocks { metadata.insert(cluster) }
    return first + blocks..<first + blocks + extra
  }

  /// Writes the refcount table to another place and makes the header say so.
  private mutating func moveRefcountTable(_ table: [UInt64], to first: UInt64, clusters: UInt64)
    throws(BlockImageError)
  {
    let offset = first << clusterBits
    try storage.store(table.bigEndianBytes, at: offset)
    if options.hasBarriers { try barrier() }
    var field = [UInt8](repeating: 0, count: 12)
    field.storeBigEndian(offset, at: 0)
    field.storeBigEndian(UInt32(clusters), at: 8)
    try storage.store(field, at: 48)
    let old = header.refcountTableOffset >> clusterBits
    let oldClusters = UInt64(header.refcountTableClusters)
    header.refcountTableOffset = offset
    header.refcountTableClusters = UInt32(clusters)
    refcountTable = table
    metadata.drop(old..<old + oldClusters)
    metadata.add(first..<first + clusters)
    needsBarrier = true
    try release(old, count: oldClusters)
  }
}

extension [PendingRelease] {
  /// Adds a run, or makes the last one longer.
  mutating func add(_ release: PendingRelease) {
    if let last, last.first + last.count == release.first, last.isDiscard == release.isDiscard {
      self[count - 1].count += release.count
    } else {
      append(release)
    }
  }
}

extension [UInt64] {
  /// The entries of a table as they are in the file.
  var bigEndianBytes: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count * 8)
    for (index, entry) in enumerated() { bytes.storeBigEndian(entry, at: index * 8) }
    return bytes
  }
}
