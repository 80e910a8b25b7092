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
    let plan = try planWrite(at: offset, count: bytes.count)
    do throws(BlockImageError) {
      for step in plan.steps { try perform(step, bytes, at: offset) }
    } catch {
      abandon(plan)
      throw error
    }
    try commit(plan)
    return plan.count
  }

  private mutating func perform(_ step: WriteStep, _ bytes: Span<UInt8>, at offset: UInt64)
    throws(BlockImageError)
  {
    let part = bytes.extracting(step.bytes)
    guard step.hasFiller else { return try storeData(part, at: step.host) }
    let position = offset + UInt64(step.bytes.lowerBound)
    var whole = scratch
    scratch = []
    if whole.isEmpty { whole = [UInt8](repeating: 0, count: Int(header.clusterSize)) }
    defer { scratch = whole }
    var span = whole.mutableSpan
    do {
      var head = span._mutatingExtracting(0..<step.head)
      try readGuest(into: &head, at: position - UInt64(step.head))
    }
    do {
      var tail = span._mutatingExtracting(step.head + part.count..<step.count)
      try readGuest(into: &tail, at: position + UInt64(part.count))
    }
    for index in 0..<part.count { span[step.head + index] = part[index] }
    try storeData(span.span.extracting(0..<step.count), at: step.host)
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
