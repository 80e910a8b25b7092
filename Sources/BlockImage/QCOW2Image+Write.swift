// SPDX-License-Identifier: Apache-2.0

extension QCOW2Image where Storage: ~Copyable {
  /// Writes `bytes` to the disk at `offset`, allocating clusters where needed.
  public mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(BlockImageError) {
    try checkWritable()
    try checkRange(offset, bytes.count, of: virtualSize)
    do throws(BlockImageError) {
      var done = 0
      while done < bytes.count {
        let rest = bytes.extracting(done..<bytes.count)
        done += try writeRun(rest, at: offset + UInt64(done))
      }
    } catch {
      if case .malformed = error { markCorrupt() }
      throw error
    }
  }

  func checkWritable() throws(BlockImageError) {
    guard !isWritable else { return }
    throw .notWritable(
      reason: header.isCorrupt ? "it is marked as corrupt" : "it was opened read-only")
  }

  /// Writes the start of `bytes` that can be handled at once; returns how much that was.
  private mutating func writeRun(_ bytes: Span<UInt8>, at offset: UInt64)
    throws(BlockImageError) -> Int
  {
    let cluster = offset >> clusterBits
    let table = try writableL2Table(of: cluster)
    let state = try state(of: cluster, in: table)
    guard let host = state.host, state.isOwned else {
      return try writeToNew(bytes, at: offset, table: table)
    }
    let within = offset % header.clusterSize
    let count = min(bytes.count, Int(header.clusterSize - within))
    let touched = header.units(from: within, count: UInt64(count))
    if touched & ~state.allocated == 0 {
      return try writeInPlace(bytes, at: offset, table: table, host: host)
    }
    // The cluster is reserved; what lies in its other parts is not the guest's.
    try checkOwned(host)
    try writeUnits(bytes.extracting(0..<count), at: offset, host: host, state, isFresh: false)
    try setL2Entries(cluster, table: table, [newEntry(host, state, touched)])
    return count
  }

  /// Returns the entry of an owned cluster in which further subclusters have data now.
  private func newEntry(_ host: UInt64, _ state: ClusterState, _ touched: UInt32) -> L2Entry {
    var entry = L2Entry(word: host | QCOW2.copied)
    if header.hasExtendedL2 {
      entry.bitmap = UInt64(state.zero & ~touched) << 32 | UInt64(state.allocated | touched)
    }
    return entry
  }

  /// Refuses to write a cluster in place that the refcounts or the other tables contradict.
  private mutating func checkOwned(_ host: UInt64) throws(BlockImageError) {
    guard !header.hasDataFile else { return }
    try refuseMetadata(host >> clusterBits)
    guard host >= storage.byteCount else { return }
    try require(
      try refcount(of: host >> clusterBits) > 0, "L2 entry", host,
      "the cluster behind the end of the file has no refcount")
  }

  /// Writes over clusters that only this disk uses, as far as they lie side by side.
  private mutating func writeInPlace(
    _ bytes: Span<UInt8>, at offset: UInt64, table: UInt64, host: UInt64
  ) throws(BlockImageError) -> Int {
    let cluster = offset >> clusterBits
    try checkOwned(host)
    var count = Int(header.clusterSize - offset % header.clusterSize)
    var next = cluster + 1
    while count < bytes.count, next & ((1 << header.l2Bits) - 1) != 0 {
      let expected = host + (next - cluster) << clusterBits
      let entry = try l2Entry(of: next, in: table)
      guard entry.word == expected | QCOW2.copied,
        !header.hasExtendedL2 || entry.bitmap == UInt64(UInt32.max)
      else { break }
      try checkOwned(expected)
      count += Int(header.clusterSize)
      next += 1
    }
    count = min(count, bytes.count)
    try storeData(bytes.extracting(0..<count), at: host + offset % header.clusterSize)
    return count
  }

  /// Allocates clusters for the start of `bytes`, writes them and enters them in the table.
  private mutating func writeToNew(_ bytes: Span<UInt8>, at offset: UInt64, table: UInt64)
    throws(BlockImageError) -> Int
  {
    let first = offset >> clusterBits
    let last = (offset + UInt64(bytes.count) - 1) >> clusterBits
    var wanted: UInt64 = 1
    while first + wanted <= last, sameSlice(first, first + wanted, table),
      try needsNewCluster(first + wanted, table)
    {
      wanted += 1
    }
    let end = dataByteCount
    let clusters: Range<UInt64>
    // A data file is laid out as the disk is.
    if header.hasDataFile {
      clusters = first..<first + wanted
    } else {
      clusters = try allocate(wanted)
    }
    let host = clusters.lowerBound << clusterBits
    let covered = min(
      bytes.count, clusters.count << Int(clusterBits) - Int(offset % header.clusterSize))
    var entries: [L2Entry] = []
    var old: [ClusterState] = []
    do throws(BlockImageError) {
      for index in 0..<UInt64(clusters.count) {
        old.append(try state(of: first + index, in: table))
      }
      entries = try fill(bytes.extracting(0..<covered), at: offset, host: host, oldEnd: end, old)
    } catch {
      if !header.hasDataFile {
        // Nothing refers to them yet; if this fails too they are leaked, not lost.
        try? changeRefcounts(clusters.lowerBound, count: UInt64(clusters.count), .release)
      }
      throw error
    }
    needsBarrier = true
    try setL2Entries(first, table: table, entries)
    for state in old { try release(state) }
    return covered
  }

  private mutating func needsNewCluster(_ cluster: UInt64, _ table: UInt64)
    throws(BlockImageError) -> Bool
  {
    let state = try state(of: cluster, in: table)
    return state.host == nil || !state.isOwned
  }

  /// Writes `bytes` into new clusters from `host`; returns the entries for them.
  private mutating func fill(
    _ bytes: Span<UInt8>, at offset: UInt64, host: UInt64, oldEnd: UInt64, _ old: [ClusterState]
  ) throws(BlockImageError) -> [L2Entry] {
    let size = Int(header.clusterSize)
    var entries: [L2Entry] = []
    var done = 0
    while done < bytes.count {
      let index = entries.count
      let position = offset + UInt64(done)
      let within = Int(position % header.clusterSize)
      let place = host + UInt64(index) << clusterBits
      if within == 0, bytes.count - done >= size {
        // Whole clusters go out in one piece.
        let whole = (bytes.count - done) / size
        try storeData(bytes.extracting(done..<done + whole * size), at: place)
        for number in 0..<whole {
          entries.append(
            newEntry(
              place + UInt64(number) << clusterBits, ClusterState(entry: L2Entry(word: 0)),
              header.allUnits))
        }
        done += whole * size
        continue
      }
      let count = min(size - within, bytes.count - done)
      let part = bytes.extracting(done..<done + count)
      entries.append(
        try fillPart(
          part, at: position, host: place,
          // What is not written of an encrypted image does not read as zero.
          isFresh: place >= oldEnd && !header.isEncrypted, old[index]))
      done += count
    }
    return entries
  }

  /// Writes a part of a new cluster and what has to be kept of the old one.
  private mutating func fillPart(
    _ bytes: Span<UInt8>, at offset: UInt64, host: UInt64, isFresh: Bool, _ old: ClusterState
  ) throws(BlockImageError) -> L2Entry {
    let within = offset % header.clusterSize
    if old.allocated == 0, !old.isCompressed {
      let touched = header.units(from: within, count: UInt64(bytes.count))
      try writeUnits(bytes, at: offset, host: host, old, isFresh: isFresh)
      var fresh = old
      fresh.allocated = 0
      return newEntry(host, fresh, touched)
    }
    // Data shared with a snapshot, or compressed: all of the cluster becomes this disk's own.
    try writeComposed(bytes, at: offset, from: 0, count: header.clusterSize, host: host)
    return newEntry(host, ClusterState(entry: L2Entry(word: 0)), header.allUnits)
  }

  /// Writes a part of a cluster; the subclusters of it that had no data become whole.
  ///
  /// `isFresh` says that the cluster lies past the old end of the file, so that what is not
  /// written there reads as zero.
  private mutating func writeUnits(
    _ bytes: Span<UInt8>, at offset: UInt64, host: UInt64, _ state: ClusterState, isFresh: Bool
  ) throws(BlockImageError) {
    let within = offset % header.clusterSize
    let end = within + UInt64(bytes.count)
    let base = offset - within
    var from = within
    var to = end
    let head = Int(within >> header.unitBits)
    if needsFiller(state, head, base, isFresh) { from = within & ~(header.unitSize - 1) }
    let tail = Int((end - 1) >> header.unitBits)
    if needsFiller(state, tail, base, isFresh) {
      to = (end + header.unitSize - 1) & ~(header.unitSize - 1)
    }
    if from == within, to == end { return try storeData(bytes, at: host + within) }
    try writeComposed(bytes, at: offset, from: from, count: to - from, host: host)
  }

  /// Whether a subcluster that had no data has to be written whole.
  private func needsFiller(_ state: ClusterState, _ unit: Int, _ base: UInt64, _ isFresh: Bool)
    -> Bool
  {
    switch state.source(of: unit) {
    case .data, .compressed: false
    case .zero: !isFresh
    case .unallocated: !isFresh || base + UInt64(unit) << header.unitBits < backingSize
    }
  }

  /// Writes `count` bytes of a cluster: `bytes` where they belong, the rest as it reads now.
  private mutating func writeComposed(
    _ bytes: Span<UInt8>, at offset: UInt64, from: UInt64, count: UInt64, host: UInt64
  ) throws(BlockImageError) {
    let within = offset % header.clusterSize
    let base = offset - within
    let start = Int(within - from)
    let end = start + bytes.count
    var whole = scratch
    scratch = []
    if whole.isEmpty { whole = [UInt8](repeating: 0, count: Int(header.clusterSize)) }
    defer { scratch = whole }
    var span = whole.mutableSpan
    do {
      var head = span._mutatingExtracting(0..<start)
      try readGuest(into: &head, at: base + from)
    }
    do {
      var tail = span._mutatingExtracting(end..<Int(count))
      try readGuest(into: &tail, at: base + from + UInt64(end))
    }
    for index in 0..<bytes.count { span[start + index] = bytes[index] }
    try storeData(span.span.extracting(0..<Int(count)), at: host + from)
  }

  /// Gives up the clusters that a replaced L2 entry referred to.
  mutating func release(_ state: ClusterState, isDiscard: Bool = false) throws(BlockImageError) {
    guard !header.hasDataFile else { return }
    if state.isCompressed {
      if inflatedEntry == state.entry.word { inflatedEntry = nil }
      let (offset, count) = compressedRange(state.entry.word)
      let first = offset >> clusterBits
      // The last sector counts to its end, as QEMU has it.
      let last = (offset + count - 1) >> clusterBits
      try release(first, count: last - first + 1, isDiscard: isDiscard)
    } else if let host = state.host {
      try release(host >> clusterBits, count: 1, isDiscard: isDiscard)
    }
  }

  // MARK: L1

  /// Returns an L2 table for `cluster` that only the active layer uses, made if needed.
  mutating func writableL2Table(of cluster: UInt64) throws(BlockImageError) -> UInt64 {
    let index = Int(cluster >> header.l2Bits)
    let entry = l1[index]
    let old = try header.l2Table(entry, index: index, fileSize: storage.byteCount)
    if let old, entry & QCOW2.copied != 0 { return old }
    let clusters = try allocate(1)
    let table = clusters.lowerBound << clusterBits
    var bytes = [UInt8](repeating: 0, count: Int(header.clusterSize))
    if let old { try storage.fill(&bytes, at: old) }
    l2Cache.drop(table, count: header.clusterSize)
    try storage.store(bytes, at: table)
    needsBarrier = true
    l1[index] = table | QCOW2.copied
    if options.tables == .through {
      do throws(BlockImageError) {
        try barrierIfNeeded()
        try storeL1Entry(index)
      } catch {
        l1[index] = entry
        throw error
      }
    } else {
      dirtyL1.insert(index)
    }
    metadata.insert(clusters.lowerBound)
    if let old {
      metadata.remove(old >> clusterBits)
      try release(old >> clusterBits, count: 1)
    }
    return table
  }

  /// Writes an entry of the active L1 table.
  mutating func storeL1Entry(_ index: Int) throws(BlockImageError) {
    var field = [UInt8](repeating: 0, count: 8)
    field.storeBigEndian(l1[index], at: 0)
    try storage.store(field, at: header.l1TableOffset + UInt64(index) * 8)
  }

  /// Makes the active L1 table longer, in another place where there is no room behind it.
  ///
  /// - Parameter count: How many entries it needs at least.
  /// - Throws: When there is no room for that many.
  mutating func growL1(to count: UInt64) throws(BlockImageError) {
    guard count > UInt64(l1.count) else { return }
    guard count * 8 <= QCOW2.largestL1Table else { throw .imageFull }
    let clusters = (count * 8 + header.clusterSize - 1) >> clusterBits
    let place = try allocateTogether(clusters)
    let table = l1 + [UInt64](repeating: 0, count: Int(count) - l1.count)
    var bytes = table.bigEndianBytes
    bytes += [UInt8](repeating: 0, count: Int(clusters << clusterBits) - bytes.count)
    let offset = place.lowerBound << clusterBits
    try storage.store(bytes, at: offset)
    try writeTables()
    try barrier()
    var field = [UInt8](repeating: 0, count: 12)
    field.storeBigEndian(UInt32(count), at: 0)
    field.storeBigEndian(offset, at: 4)
    try storage.store(field, at: 36)
    let old = header.clusterRange(header.l1TableOffset, UInt64(l1.count) * 8)
    l1 = table
    header.l1Size = UInt32(count)
    header.l1TableOffset = offset
    dirtyL1 = []
    metadata.drop(old)
    metadata.add(place)
    try barrier()
    if !old.isEmpty { try release(old.lowerBound, count: UInt64(old.count)) }
  }
}
