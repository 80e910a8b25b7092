// SPDX-License-Identifier: Apache-2.0

/// Bytes of a write that go to one place of the data's file.
public struct WriteStep: Equatable, Sendable {
  /// Which of the request's bytes.
  public var bytes: Range<Int>
  /// Where they go, filler included.
  public var host: UInt64
  /// How many bytes in front of them are written too, as the disk reads there now.
  public var head = 0
  /// How many bytes behind them are written too, as the disk reads there now.
  public var tail = 0

  /// How many bytes are written.
  public var count: Int { head + bytes.count + tail }
  /// Whether there are others than the request's.
  public var hasFiller: Bool { head + tail > 0 }
}

/// The start of a write, prepared: clusters are taken, and no table refers to them yet.
///
/// Either all steps are done and the plan is committed, or it is abandoned. Until then nobody
/// else may change how the guest clusters that it touches are kept.
public struct WritePlan: Equatable, Sendable {
  /// How many bytes of the request it covers.
  public var count = 0
  /// What is written.
  public var steps: [WriteStep] = []
  /// Whether it has to be committed.
  public var needsCommit: Bool { !entries.isEmpty || isPastEnd }

  /// Whether it writes past the end that the file had.
  var isPastEnd = false
  /// The first guest cluster whose L2 entry changes.
  var cluster: UInt64 = 0
  /// The entries from there on; none when all is written in place.
  var entries: [L2Entry] = []
  /// What the entries replace.
  var old: [ClusterState] = []
  /// The clusters that were taken.
  var taken: Range<UInt64>?

  /// Adds a step, or makes the last one longer.
  mutating func add(_ step: WriteStep) {
    if let last = steps.last, !last.hasFiller, !step.hasFiller,
      last.host + UInt64(last.count) == step.host, last.bytes.upperBound == step.bytes.lowerBound
    {
      steps[steps.count - 1].bytes = last.bytes.lowerBound..<step.bytes.upperBound
    } else {
      steps.append(step)
    }
  }
}

extension QCOW2Image where Storage: ~Copyable {
  /// Prepares the start of a write that changes no table; `nil` where one has to change.
  mutating func planInPlace(at offset: UInt64, count: Int) throws(BlockImageError) -> WritePlan? {
    let cluster = offset >> clusterBits
    let index = Int(cluster >> header.l2Bits)
    guard l1[index] & QCOW2.copied != 0,
      let table = try header.l2Table(l1[index], index: index, fileSize: storage.byteCount)
    else { return nil }
    let state = try state(of: cluster, in: table)
    guard let host = state.host, state.isOwned else { return nil }
    let within = offset % header.clusterSize
    let part = min(count, Int(header.clusterSize - within))
    guard header.units(from: within, count: UInt64(part)) & ~state.allocated == 0 else {
      return nil
    }
    return try planInPlace(at: offset, count: count, table: table, host: host)
  }

  /// Prepares the start of a write, and takes clusters for it where needed.
  mutating func planWrite(at offset: UInt64, count: Int) throws(BlockImageError) -> WritePlan {
    let cluster = offset >> clusterBits
    let table = try writableL2Table(of: cluster)
    let state = try state(of: cluster, in: table)
    guard let host = state.host, state.isOwned else {
      return try planNew(at: offset, count: count, table: table)
    }
    let within = offset % header.clusterSize
    let part = min(count, Int(header.clusterSize - within))
    let touched = header.units(from: within, count: UInt64(part))
    if touched & ~state.allocated == 0 {
      return try planInPlace(at: offset, count: count, table: table, host: host)
    }
    // The cluster is reserved; what lies in its other parts is not the guest's.
    try checkOwned(host)
    var plan = WritePlan(count: part, cluster: cluster, entries: [newEntry(host, state, touched)])
    plan.add(unitStep(0..<part, at: offset, host: host, state, isFresh: false))
    return plan
  }

  /// Enters what was written in the tables, and gives up what it replaces.
  mutating func commit(_ plan: WritePlan) throws(BlockImageError) {
    guard !plan.entries.isEmpty else { return }
    needsBarrier = true
    try setL2Entries(
      plan.cluster, table: try writableL2Table(of: plan.cluster), plan.entries)
    for state in plan.old { try release(state) }
  }

  /// Gives up what was taken for a write that failed.
  mutating func abandon(_ plan: WritePlan) {
    guard let taken = plan.taken else { return }
    // Nothing refers to them yet; if this fails too they are leaked, not lost.
    try? changeRefcounts(taken.lowerBound, count: UInt64(taken.count), .release)
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
  private mutating func planInPlace(
    at offset: UInt64, count limit: Int, table: UInt64, host: UInt64
  )
    throws(BlockImageError) -> WritePlan
  {
    let cluster = offset >> clusterBits
    try checkOwned(host)
    var count = Int(header.clusterSize - offset % header.clusterSize)
    var next = cluster + 1
    while count < limit, next & ((1 << header.l2Bits) - 1) != 0 {
      let expected = host + (next - cluster) << clusterBits
      let entry = try l2Entry(of: next, in: table)
      guard entry.word == expected | QCOW2.copied,
        !header.hasExtendedL2 || entry.bitmap == UInt64(UInt32.max)
      else { break }
      try checkOwned(expected)
      count += Int(header.clusterSize)
      next += 1
    }
    count = min(count, limit)
    let place = host + offset % header.clusterSize
    var plan = WritePlan(count: count, isPastEnd: place + UInt64(count) > dataByteCount)
    plan.add(WriteStep(bytes: 0..<count, host: place))
    return plan
  }

  /// Takes clusters for the start of a write.
  private mutating func planNew(at offset: UInt64, count: Int, table: UInt64)
    throws(BlockImageError) -> WritePlan
  {
    let first = offset >> clusterBits
    let last = (offset + UInt64(count) - 1) >> clusterBits
    var wanted: UInt64 = 1
    while first + wanted <= last, sameSlice(first, first + wanted, table),
      try needsNewCluster(first + wanted, table)
    {
      wanted += 1
    }
    // What is past the end of the file, and was not taken before, reads as zero.
    let fresh = max(dataByteCount, freshEnd)
    let clusters: Range<UInt64>
    // A data file is laid out as the disk is.
    if header.hasDataFile {
      clusters = first..<first + wanted
    } else {
      clusters = try allocate(wanted)
    }
    freshEnd = max(freshEnd, clusters.upperBound << clusterBits)
    var plan = WritePlan(cluster: first)
    if !header.hasDataFile { plan.taken = clusters }
    plan.count = min(
      count, clusters.count << Int(clusterBits) - Int(offset % header.clusterSize))
    do throws(BlockImageError) {
      for index in 0..<UInt64(clusters.count) {
        plan.old.append(try state(of: first + index, in: table))
      }
    } catch {
      abandon(plan)
      throw error
    }
    fill(&plan, at: offset, host: clusters.lowerBound << clusterBits, fresh: fresh)
    return plan
  }

  private mutating func needsNewCluster(_ cluster: UInt64, _ table: UInt64)
    throws(BlockImageError) -> Bool
  {
    let state = try state(of: cluster, in: table)
    return state.host == nil || !state.isOwned
  }

  /// Adds the steps and the entries for new clusters from `host` on.
  private func fill(_ plan: inout WritePlan, at offset: UInt64, host: UInt64, fresh: UInt64) {
    let size = Int(header.clusterSize)
    var done = 0
    while done < plan.count {
      let index = plan.entries.count
      let position = offset + UInt64(done)
      let within = Int(position % header.clusterSize)
      let place = host + UInt64(index) << clusterBits
      let count = min(size - within, plan.count - done)
      let part = done..<done + count
      done += count
      let old = plan.old[index]
      if count == size {
        plan.add(WriteStep(bytes: part, host: place))
        plan.entries.append(newEntry(place, ClusterState(entry: L2Entry(word: 0)), header.allUnits))
        continue
      }
      if old.allocated == 0, !old.isCompressed {
        // What is not written of an encrypted image does not read as zero.
        let isFresh = place >= fresh && !header.isEncrypted
        plan.add(unitStep(part, at: position, host: place, old, isFresh: isFresh))
        let touched = header.units(from: UInt64(within), count: UInt64(count))
        plan.entries.append(newEntry(place, old, touched))
        continue
      }
      // Data shared with a snapshot, or compressed: all of it becomes this disk's own.
      plan.add(
        WriteStep(bytes: part, host: place, head: within, tail: size - within - count))
      plan.entries.append(newEntry(place, ClusterState(entry: L2Entry(word: 0)), header.allUnits))
    }
  }

  /// Writes a part of a cluster; the subclusters of it that had no data become whole.
  ///
  /// `isFresh` says that the cluster lies past the old end of the file, so that what is not
  /// written there reads as zero.
  private func unitStep(
    _ bytes: Range<Int>, at offset: UInt64, host: UInt64, _ state: ClusterState, isFresh: Bool
  ) -> WriteStep {
    let within = offset % header.clusterSize
    let end = within + UInt64(bytes.count)
    let base = offset - within
    var step = WriteStep(bytes: bytes, host: host + within)
    if needsFiller(state, Int(within >> header.unitBits), base, isFresh) {
      step.head = Int(within % header.unitSize)
      step.host -= UInt64(step.head)
    }
    if needsFiller(state, Int((end - 1) >> header.unitBits), base, isFresh) {
      step.tail = Int((header.unitSize - end % header.unitSize) % header.unitSize)
    }
    return step
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
}
