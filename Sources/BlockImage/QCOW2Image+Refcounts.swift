// SPDX-License-Identifier: Apache-2.0

extension QCOW2Image where Storage: ~Copyable {
  /// What is done to the refcounts of a run of clusters.
  enum RefcountChange {
    /// From 0 to 1.
    case take
    /// One less.
    case release
  }

  var clusterBits: UInt64 { UInt64(header.clusterBits) }

  /// Returns the refcount of a cluster of the file; 0 where no block covers it.
  mutating func refcount(of cluster: UInt64) throws(BlockImageError) -> UInt64 {
    let block = cluster >> header.refcountBlockBits
    guard block < UInt64(refcountTable.count), refcountTable[Int(block)] != 0 else { return 0 }
    let index = try refcountCache.index(
      of: refcountOffset(of: cluster), from: &storage)
    return unpack(index, cluster)
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

  /// Changes the refcounts of `count` clusters that all have one, one write per slice.
  mutating func changeRefcounts(_ first: UInt64, count: UInt64, _ change: RefcountChange)
    throws(BlockImageError)
  {
    var cluster = first
    let end = first + count
    while cluster < end {
      let block = cluster >> header.refcountBlockBits
      guard block < UInt64(refcountTable.count), refcountTable[Int(block)] != 0 else {
        throw .malformed(
          field: "refcount of cluster \(cluster)", value: 0, rule: "the cluster is in use")
      }
      let offset = refcountOffset(of: cluster)
      let index = try refcountCache.index(of: offset, from: &storage)
      var last = index
      repeat {
        let place = index + Int(refcountOffset(of: cluster) - offset)
        let old = unpack(place, cluster)
        if change == .release, old == 0 {
          refcountCache.drop(offset)
          throw .malformed(
            field: "refcount of cluster \(cluster)", value: 0, rule: "the cluster is in use")
        }
        pack(change == .take ? 1 : old - 1, place, cluster)
        if change == .release, old == 1 { firstFree = min(firstFree, cluster) }
        last = place
        cluster += 1
      } while cluster < end && cluster >> header.refcountBlockBits == block
        && refcountOffset(of: cluster) / refcountCache.sliceBytes
          == offset / refcountCache.sliceBytes
      let width = max(1, (1 << Int(header.refcountOrder)) / 8)
      try refcountCache.writeBack(index, count: last - index + width, at: offset, to: &storage)
    }
  }

  /// Takes up to `count` free clusters that lie side by side; their refcount becomes 1.
  mutating func allocate(_ count: UInt64) throws(BlockImageError) -> Range<UInt64> {
    var cluster = firstFree
    while true {
      let block = cluster >> header.refcountBlockBits
      if block >= UInt64(refcountTable.count) {
        try growRefcountTable(for: block)
      } else if refcountTable[Int(block)] == 0 {
        try addRefcountBlock(block)
      }
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
    for taken in cluster..<end { try refuseMetadata(taken) }
    try changeRefcounts(cluster, count: end - cluster, .take)
    firstFree = end
    return cluster..<end
  }

  /// Refuses to write over metadata, where tables that contradict each other lead to it.
  func refuseMetadata(_ cluster: UInt64) throws(BlockImageError) {
    try require(
      !metadata.contains(cluster), "cluster \(cluster)", cluster << clusterBits,
      "it holds metadata and can't be used for data too")
  }

  /// Makes a refcount block for a range of clusters that has none.
  ///
  /// None of them is in use, so the block takes the first of its own range and counts
  /// itself. The table entry is written last.
  private mutating func addRefcountBlock(_ block: UInt64) throws(BlockImageError) {
    let cluster = block << header.refcountBlockBits
    try refuseMetadata(cluster)
    try writeRefcountBlock(at: cluster, used: 1)
    var entry = [UInt8](repeating: 0, count: 8)
    entry.storeBigEndian(cluster << clusterBits, at: 0)
    try storage.store(entry, at: header.refcountTableOffset + block * 8)
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

  /// Moves the refcount table to a larger place, so that it covers block number `block`.
  ///
  /// The new blocks and the new table lie at the start of the range that was not covered
  /// so far; the header is written last, then the old table is released.
  private mutating func growRefcountTable(for block: UInt64) throws(BlockImageError) {
    let first = block << header.refcountBlockBits
    let perBlock: UInt64 = 1 << header.refcountBlockBits
    var blocks: UInt64 = 1
    var tableClusters: UInt64 = 1
    while true {
      let entries = max(block + blocks + 1, UInt64(refcountTable.count) * 3 / 2)
      tableClusters = (entries * 8 + header.clusterSize - 1) >> clusterBits
      let needed = (blocks + tableClusters + perBlock - 1) / perBlock
      if needed <= blocks { break }
      blocks = needed
    }
    let tableBytes = tableClusters << clusterBits
    guard tableBytes <= max(QCOW2.largestRefcountTable, header.clusterSize) else {
      throw .imageFull
    }
    let used = blocks + tableClusters
    for cluster in first..<first + used { try refuseMetadata(cluster) }
    var table = refcountTable
    table += [UInt64](repeating: 0, count: Int(tableBytes / 8) - table.count)
    for index in 0..<blocks {
      let covered = min(used - min(used, index * perBlock), perBlock)
      try writeRefcountBlock(at: first + index, used: covered)
      table[Int(block + index)] = (first + index) << clusterBits
    }
    let offset = (first + blocks) << clusterBits
    var bytes = [UInt8](repeating: 0, count: Int(tableBytes))
    for (index, entry) in table.enumerated() { bytes.storeBigEndian(entry, at: index * 8) }
    try storage.store(bytes, at: offset)
    var field = [UInt8](repeating: 0, count: 12)
    field.storeBigEndian(offset, at: 0)
    field.storeBigEndian(UInt32(tableClusters), at: 8)
    try storage.store(field, at: 48)
    let old = header.refcountTableOffset >> clusterBits
    let oldClusters = UInt64(header.refcountTableClusters)
    header.refcountTableOffset = offset
    header.refcountTableClusters = UInt32(tableClusters)
    refcountTable = table
    for cluster in old..<old + oldClusters { metadata.remove(cluster) }
    for cluster in first..<first + used { metadata.insert(cluster) }
    try changeRefcounts(old, count: oldClusters, .release)
  }
}
