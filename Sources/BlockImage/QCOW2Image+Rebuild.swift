// SPDX-License-Identifier: Apache-2.0

/// How often each cluster of the file is used, as the tables say.
struct ReferenceCounts {
  /// The most clusters that are counted: 128 MiB of counts, 2 TiB of the usual clusters.
  static let most: UInt64 = 1 << 25

  private(set) var counts: [UInt32] = []

  subscript(cluster: UInt64) -> UInt64 {
    cluster < UInt64(counts.count) ? UInt64(counts[Int(cluster)]) : 0
  }

  /// Counts one more use of each cluster of a range.
  mutating func add(_ range: Range<UInt64>) throws(BlockImageError) {
    guard range.upperBound <= Self.most else {
      throw .notWritable(
        reason: "it was not closed cleanly and is too large for its refcounts to be counted "
          + "here; use qemu-img check -r all")
    }
    if UInt64(counts.count) < range.upperBound {
      counts += [UInt32](repeating: 0, count: Int(range.upperBound) - counts.count)
    }
    for cluster in range where counts[Int(cluster)] < UInt32.max { counts[Int(cluster)] += 1 }
  }
}

extension QCOW2Image where Storage: ~Copyable {
  /// Counts the refcounts anew from the tables and writes them to a new place.
  ///
  /// Nothing of the old refcounts is read. Until the header names the new table the image is as
  /// it was, so that this can be cut off at any time.
  mutating func rebuildRefcounts() throws(BlockImageError) {
    guard header.bitmapDirectorySize == 0 else {
      throw .notWritable(
        reason: "it was not closed cleanly and has bitmaps; repair it with qemu-img check -r all")
    }
    var counts = ReferenceCounts()
    try count(&counts)
    try fixCopiedFlags(counts)
    try writeRefcounts(counts)
    header.incompatibleFeatures &= ~QCOW2.dirty
    var field = [UInt8](repeating: 0, count: 8)
    field.storeBigEndian(header.incompatibleFeatures, at: 0)
    try storage.store(field, at: 72)
    try barrier()
  }

  /// Counts every use except that by the refcount structures.
  private mutating func count(_ counts: inout ReferenceCounts) throws(BlockImageError) {
    try counts.add(0..<1)
    try counts.add(header.clusterRange(header.encryptionOffset, header.encryptionByteCount))
    try count(&counts, l1, at: header.l1TableOffset)
    guard header.snapshotCount > 0 else { return }
    var snapshots: [(offset: UInt64, size: Int)] = []
    let header = self.header
    let length = try header.forEachSnapshot(on: &storage) { (snapshot) throws(BlockImageError) in
      snapshots.append((snapshot.l1TableOffset, Int(snapshot.l1Size)))
      return true
    }
    try counts.add(header.clusterRange(header.snapshotTableOffset, length))
    for (offset, size) in snapshots {
      let table = try QCOW2Tables.table(at: offset, entries: size, from: &storage)
      try count(&counts, table, at: offset)
    }
  }

  private mutating func count(_ counts: inout ReferenceCounts, _ table: [UInt64], at place: UInt64)
    throws(BlockImageError)
  {
    try counts.add(header.clusterRange(place, UInt64(table.count) * 8))
    var bytes = [UInt8](repeating: 0, count: Int(header.clusterSize))
    for (index, entry) in table.enumerated() {
      guard let l2 = try header.l2Table(entry, index: index, fileSize: storage.byteCount) else {
        continue
      }
      try counts.add(header.clusterRange(l2, header.clusterSize))
      try storage.fill(&bytes, at: l2)
      for place in 0..<UInt64(1) << header.l2Bits {
        let state = try self.state(bytes, place, index)
        if state.isCompressed {
          let (offset, count) = compressedRange(state.entry.word)
          try counts.add(header.clusterRange(offset, count))
        } else if let host = state.host, !header.hasDataFile {
          try counts.add(header.clusterRange(host, header.clusterSize))
        }
      }
    }
  }

  private func state(_ bytes: [UInt8], _ place: UInt64, _ index: Int) throws(BlockImageError)
    -> ClusterState
  {
    let at = Int(place * header.l2EntrySize)
    var entry = L2Entry(word: bytes.bigEndian64(at: at))
    if header.hasExtendedL2 { entry.bitmap = bytes.bigEndian64(at: at + 8) }
    return try header.decode(
      entry, cluster: UInt64(index) << header.l2Bits | place, dataSize: dataByteCount)
  }

  /// Makes the copied flags of the active layer say which clusters are used once.
  private mutating func fixCopiedFlags(_ counts: ReferenceCounts) throws(BlockImageError) {
    var bytes = [UInt8](repeating: 0, count: Int(header.clusterSize))
    for (index, entry) in l1.enumerated() {
      guard let l2 = try header.l2Table(entry, index: index, fileSize: storage.byteCount) else {
        continue
      }
      let isOnce = counts[l2 >> clusterBits] == 1
      if isOnce != (entry & QCOW2.copied != 0) {
        l1[index] = l2 | (isOnce ? QCOW2.copied : 0)
        try storeL1Entry(index)
      }
      guard !header.hasDataFile else { continue }
      try storage.fill(&bytes, at: l2)
      var hasChanged = false
      for place in 0..<UInt64(1) << header.l2Bits {
        let state = try self.state(bytes, place, index)
        guard !state.isCompressed, let host = state.host else { continue }
        let isOnce = counts[host >> clusterBits] == 1
        guard isOnce != state.isOwned else { continue }
        let word = state.entry.word & ~QCOW2.copied | (isOnce ? QCOW2.copied : 0)
        bytes.storeBigEndian(word, at: Int(place * header.l2EntrySize))
        hasChanged = true
      }
      if hasChanged {
        try storage.store(bytes, at: l2)
        l2Cache.drop(l2, count: header.clusterSize)
      }
    }
  }

  /// Writes refcount blocks and a table behind all that is used, and the header then.
  private mutating func writeRefcounts(_ counts: ReferenceCounts) throws(BlockImageError) {
    let end = (storage.byteCount + header.clusterSize - 1) >> clusterBits
    let first = max(UInt64(counts.counts.count), end)
    let perBlock: UInt64 = 1 << header.refcountBlockBits
    var blocks: UInt64 = 1
    var tableClusters: UInt64 = 1
    while true {
      tableClusters = (blocks * 8 + header.clusterSize - 1) >> clusterBits
      let needed = (first + blocks + tableClusters + perBlock - 1) / perBlock
      if needed <= blocks { break }
      blocks = needed
    }
    guard tableClusters << clusterBits <= max(QCOW2.largestRefcountTable, header.clusterSize)
    else { throw .imageFull }
    let used = first..<first + blocks + tableClusters
    for index in 0..<blocks {
      try storage.store(
        try block(index, counts, used), at: (first + index) << clusterBits)
    }
    var table = (0..<blocks).map { (first + $0) << clusterBits }
    table += [UInt64](
      repeating: 0, count: Int(tableClusters << clusterBits / 8) - table.count)
    let offset = (first + blocks) << clusterBits
    try storage.store(table.bigEndianBytes, at: offset)
    try barrier()
    var field = [UInt8](repeating: 0, count: 12)
    field.storeBigEndian(offset, at: 0)
    field.storeBigEndian(UInt32(tableClusters), at: 8)
    try storage.store(field, at: 48)
    try barrier()
    for entry in refcountTable where entry != 0 { metadata.remove(entry >> clusterBits) }
    metadata.drop(
      header.clusterRange(header.refcountTableOffset, UInt64(refcountTable.count) * 8))
    header.refcountTableOffset = offset
    header.refcountTableClusters = UInt32(tableClusters)
    refcountTable = table
    refcountCache.dropAll()
    for index in 0..<blocks { metadata.insert(first + index) }
    metadata.add(first + blocks..<first + blocks + tableClusters)
    firstFree = 1
  }

  /// Returns a refcount block: what was counted, and 1 for the clusters of `used`.
  private func block(_ index: UInt64, _ counts: ReferenceCounts, _ used: Range<UInt64>)
    throws(BlockImageError) -> [UInt8]
  {
    var bytes = [UInt8](repeating: 0, count: Int(header.clusterSize))
    let width = 1 << Int(header.refcountOrder)
    for place in 0..<UInt64(1) << header.refcountBlockBits {
      let cluster = index << header.refcountBlockBits | place
      let value = used.contains(cluster) ? 1 : counts[cluster]
      guard value <= largestRefcount else {
        throw .unsupported(feature: "more than \(largestRefcount) uses of a cluster")
      }
      guard value > 0 else { continue }
      let bit = Int(place) * width
      if width < 8 {
        bytes[bit / 8] |= UInt8(value) << UInt8(bit % 8)
      } else {
        for byte in 0..<width / 8 {
          bytes[bit / 8 + byte] = UInt8(truncatingIfNeeded: value >> (width - 8 - 8 * byte))
        }
      }
    }
    return bytes
  }
}
