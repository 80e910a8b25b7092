// SPDX-License-Identifier: Apache-2.0

/// Where the bytes of a guest cluster, or of a part of it, come from.
enum ClusterSource: Equatable {
  /// The backing image, or zeros where there is none.
  case unallocated
  /// Zeros; the cluster reserved for them, or 0.
  case zero(host: UInt64)
  /// The cluster at this place of the file.
  case data(host: UInt64)
  /// A compressed cluster, described by its L2 entry.
  case compressed(UInt64)
}

/// An L2 entry as it is in the file; the bitmap is there with extended L2 entries only.
struct L2Entry: Equatable {
  var word: UInt64
  var bitmap: UInt64 = 0
}

/// What an L2 entry says, checked ("Cluster mapping" in the specification).
///
/// A cluster has 32 subclusters with extended L2 entries, else one, the cluster itself.
struct ClusterState: Equatable {
  var entry: L2Entry
  /// Where the cluster is in the data's file; `nil` when none is reserved.
  var host: UInt64?
  /// Whether nothing else uses that cluster, so that it may be written in place.
  var isOwned = false
  var isCompressed = false
  /// A bit for each subcluster that has data of its own.
  var allocated: UInt32 = 0
  /// A bit for each subcluster that reads as zero.
  var zero: UInt32 = 0

  /// Says where a subcluster's bytes come from.
  func source(of unit: Int) -> ClusterSource {
    if isCompressed { return .compressed(entry.word) }
    let bit: UInt32 = 1 << UInt32(unit)
    if allocated & bit != 0 { return .data(host: host ?? 0) }
    return zero & bit != 0 ? .zero(host: host ?? 0) : .unallocated
  }
}

extension QCOW2Header {
  /// How many subclusters a cluster has.
  var unitCount: Int { hasExtendedL2 ? 32 : 1 }
  /// Log 2 of the size of a subcluster.
  var unitBits: UInt64 { UInt64(clusterBits) - (hasExtendedL2 ? 5 : 0) }
  var unitSize: UInt64 { 1 << unitBits }
  /// A bit for each subcluster.
  var allUnits: UInt32 { hasExtendedL2 ? UInt32.max : 1 }

  /// The bits of the subclusters that `count` bytes from `start` of the cluster on touch.
  func units(from start: UInt64, count: UInt64) -> UInt32 {
    guard hasExtendedL2 else { return 1 }
    let first = start >> unitBits
    let last = (start + count - 1) >> unitBits
    let upTo = last == 31 ? UInt32.max : (1 << UInt32(last + 1)) - 1
    return upTo & ~((1 << UInt32(first)) - 1)
  }

  /// Checks an L2 entry and says what it means.
  ///
  /// - Parameters:
  ///   - entry: The entry.
  ///   - cluster: The guest cluster it is of, for the error.
  ///   - dataSize: The length of the file that the data is in.
  /// - Returns: What the entry says.
  /// - Throws: An error that names the entry.
  func decode(_ entry: L2Entry, cluster: UInt64, dataSize: UInt64) throws(BlockImageError)
    -> ClusterState
  {
    let word = entry.word
    var state = ClusterState(entry: entry)
    if word & QCOW2.compressed != 0 {
      try requireEntry(
        word & QCOW2.copied == 0, cluster, word,
        "a compressed cluster can't have the copied flag")
      try requireEntry(
        !hasDataFile, cluster, word, "with an external data file no cluster is compressed")
      state.isCompressed = true
      return state
    }
    try requireEntry(
      word & QCOW2.reservedL2 == 0 && (!hasExtendedL2 || word & QCOW2.readsAsZero == 0), cluster,
      word, "reserved bits must be zero")
    let host = word & QCOW2.offsetMask
    try requireEntry(
      host & (clusterSize - 1) == 0, cluster, word, "the offset must be aligned to a cluster")
    state.isOwned = word & QCOW2.copied != 0
    // Of a data file the first cluster, too, may be used; the copied flag tells.
    if host != 0 || hasDataFile && state.isOwned { state.host = host }
    try requireEntry(
      state.host != nil || !state.isOwned, cluster, word,
      "an unallocated cluster can't have the copied flag")
    if hasExtendedL2 {
      state.allocated = UInt32(truncatingIfNeeded: entry.bitmap)
      state.zero = UInt32(entry.bitmap >> 32)
      try requireBitmap(
        state.allocated & state.zero == 0, cluster, entry.bitmap,
        "a subcluster can't be both allocated and zero")
      try requireBitmap(
        state.host != nil || state.allocated == 0, cluster, entry.bitmap,
        "no subcluster of an unallocated cluster can be allocated")
    } else if word & QCOW2.readsAsZero != 0 {
      try requireEntry(version >= 3, cluster, word, "version 2 has no zero clusters")
      state.zero = 1
    } else if state.host != nil {
      state.allocated = 1
    }
    if !hasDataFile, state.allocated != 0 {
      try requireEntry(
        host < dataSize, cluster, word,
        "the cluster must lie inside the file of \(dataSize) bytes")
    }
    return state
  }

  private func requireEntry(
    _ condition: Bool, _ cluster: UInt64, _ value: UInt64, _ rule: @autoclosure () -> String
  ) throws(BlockImageError) {
    try require(condition, "L2 entry of cluster \(cluster)", value, rule())
  }

  private func requireBitmap(
    _ condition: Bool, _ cluster: UInt64, _ value: UInt64, _ rule: @autoclosure () -> String
  ) throws(BlockImageError) {
    try require(condition, "subcluster bitmap of cluster \(cluster)", value, rule())
  }
}

extension QCOW2Image where Storage: ~Copyable {
  /// Looks a guest cluster up.
  mutating func state(of cluster: UInt64) throws(BlockImageError) -> ClusterState {
    let index = Int(cluster >> header.l2Bits)
    guard index < l1.count,
      let table = try header.l2Table(l1[index], index: index, fileSize: storage.byteCount)
    else {
      return ClusterState(entry: L2Entry(word: 0))
    }
    return try state(of: cluster, in: table)
  }

  /// Looks a guest cluster up in its L2 table.
  mutating func state(of cluster: UInt64, in table: UInt64) throws(BlockImageError)
    -> ClusterState
  {
    try header.decode(
      try l2Entry(of: cluster, in: table), cluster: cluster, dataSize: dataByteCount)
  }

  /// Reads the L2 entry of a guest cluster from its table.
  mutating func l2Entry(of cluster: UInt64, in table: UInt64) throws(BlockImageError) -> L2Entry {
    let index = try l2Index(l2EntryOffset(cluster, table))
    var entry = L2Entry(word: l2Cache.bytes.bigEndian64(at: index))
    if header.hasExtendedL2 { entry.bitmap = l2Cache.bytes.bigEndian64(at: index + 8) }
    return entry
  }

  /// Makes a piece of an L2 table present in the cache.
  private mutating func l2Index(_ offset: UInt64) throws(BlockImageError) -> Int {
    if l2Cache.wouldEvictDirty(offset) { try writeTables() }
    return try l2Cache.index(of: offset, from: &storage)
  }

  /// Returns where the L2 entry of `cluster` lies in the file.
  func l2EntryOffset(_ cluster: UInt64, _ table: UInt64) -> UInt64 {
    table + (cluster & ((1 << header.l2Bits) - 1)) * header.l2EntrySize
  }

  /// Whether the entries of two clusters lie in one piece of the cache.
  func sameSlice(_ left: UInt64, _ right: UInt64, _ table: UInt64) -> Bool {
    left >> header.l2Bits == right >> header.l2Bits
      && l2EntryOffset(left, table) / l2Cache.sliceBytes
        == l2EntryOffset(right, table) / l2Cache.sliceBytes
  }

  /// Enters `entries` for the clusters from `cluster` on, all in one slice, in one write.
  mutating func setL2Entries(_ cluster: UInt64, table: UInt64, _ entries: [L2Entry])
    throws(BlockImageError)
  {
    let offset = l2EntryOffset(cluster, table)
    if options.tables == .through { try barrierIfNeeded() }
    let index = try l2Index(offset)
    let size = Int(header.l2EntrySize)
    for (place, entry) in entries.enumerated() {
      l2Cache.set(entry.word, at: index + place * size)
      if size == 16 { l2Cache.set(entry.bitmap, at: index + place * size + 8) }
    }
    switch options.tables {
    case .through:
      try l2Cache.writeBack(index, count: entries.count * size, at: offset, to: &storage)
    case .back: l2Cache.markDirty(offset)
    }
  }
}
