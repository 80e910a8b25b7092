// SPDX-License-Identifier: Apache-2.0

extension QCOW2Image where Storage: ~Copyable {
  /// Makes a part of the disk read as zero.
  ///
  /// - Parameters:
  ///   - offset: Where the part begins.
  ///   - count: Its length in bytes.
  ///   - keepsSpace: Whether clusters that are reserved stay so.
  /// - Throws: What a write throws.
  public mutating func zero(at offset: UInt64, count: UInt64, keepsSpace: Bool = false)
    throws(BlockImageError)
  {
    try eachCluster(at: offset, count: count) { (image, position, length) throws(BlockImageError) in
      try image.zeroPart(at: position, count: length, keepsSpace: keepsSpace)
    }
  }

  /// Gives the space of whole clusters back; they read as zero afterwards.
  ///
  /// What is no whole cluster keeps its bytes, and so does a disk of version 2 over a backing
  /// image, where nothing can be made to read as zero.
  public mutating func discard(at offset: UInt64, count: UInt64) throws(BlockImageError) {
    try eachCluster(at: offset, count: count) { (image, position, length) throws(BlockImageError) in
      let isWhole =
        length == image.header.clusterSize || position + length == image.virtualSize
      guard isWhole, position % image.header.clusterSize == 0,
        image.header.version >= 3 || position >= image.backingSize
      else { return }
      try image.zeroCluster(position >> image.clusterBits, keepsSpace: false, isDiscard: true)
    }
  }

  private mutating func eachCluster(
    at offset: UInt64, count: UInt64,
    _ body: (inout Self, UInt64, UInt64) throws(BlockImageError) -> Void
  ) throws(BlockImageError) {
    try checkWritable()
    guard offset <= virtualSize, count <= virtualSize - offset else {
      throw .outOfRange(offset: offset, count: count, virtualSize: virtualSize)
    }
    do throws(BlockImageError) {
      var done: UInt64 = 0
      while done < count {
        let position = offset + done
        let skipped = emptySpan(at: position, limit: count - done)
        if skipped > 0 {
          done += skipped
          continue
        }
        let length = min(count - done, header.clusterSize - position % header.clusterSize)
        try body(&self, position, length)
        done += length
      }
    } catch {
      if case .malformed = error { markCorrupt() }
      throw error
    }
  }

  /// Returns how many bytes from `offset` on have no L2 table and read as zero anyway.
  private func emptySpan(at offset: UInt64, limit: UInt64) -> UInt64 {
    let bits = clusterBits + header.l2Bits
    guard offset >= backingSize, !header.isDataFileRaw else { return 0 }
    var end = offset
    while end - offset < limit, l1[Int(end >> bits)] & QCOW2.offsetMask == 0 {
      end = (end >> bits + 1) << bits
      guard Int(end >> bits) < l1.count else { break }
    }
    return min(limit, end - offset)
  }

  private mutating func zeroPart(at offset: UInt64, count: UInt64, keepsSpace: Bool)
    throws(BlockImageError)
  {
    let within = offset % header.clusterSize
    let toEnd = offset + count == virtualSize
    if within == 0, count == header.clusterSize || toEnd,
      header.version >= 3 || offset >= backingSize && !keepsSpace
    {
      return try zeroCluster(
        offset >> clusterBits, keepsSpace: keepsSpace, isDiscard: !keepsSpace)
    }
    if try readsAsZero(at: offset, count: count) { return }
    try zeroUnits(at: offset, count: count, toEnd: toEnd)
  }

  /// Whether a part of a cluster reads as zero as far as the tables say.
  private mutating func readsAsZero(at offset: UInt64, count: UInt64) throws(BlockImageError)
    -> Bool
  {
    var done: UInt64 = 0
    while done < count {
      let (source, length) = try run(at: offset + done, limit: Int(count - done))
      switch source {
      case .zero: break
      case .unallocated: if offset + done < backingSize { return false }
      case .data, .compressed: return false
      }
      done += UInt64(length)
    }
    return true
  }

  /// Zeroes a part of a cluster: whole subclusters by their bits, the rest by writing.
  private mutating func zeroUnits(at offset: UInt64, count: UInt64, toEnd: Bool)
    throws(BlockImageError)
  {
    let unit = header.unitSize
    let end = offset + count
    let from = (offset + unit - 1) & ~(unit - 1)
    let to = toEnd ? (end + unit - 1) & ~(unit - 1) : end & ~(unit - 1)
    guard header.hasExtendedL2, !header.isDataFileRaw, from < to else {
      return try writeZeros(at: offset, count: count)
    }
    if offset < from { try writeZeros(at: offset, count: from - offset) }
    let cluster = offset >> clusterBits
    let table = try writableL2Table(of: cluster)
    let state = try state(of: cluster, in: table)
    if state.isCompressed || state.host != nil && !state.isOwned {
      try writeZeros(at: from, count: min(to, end) - from)
    } else {
      let touched = header.units(from: from % header.clusterSize, count: to - from)
      var entry = state.entry
      entry.bitmap =
        UInt64(state.zero | touched) << 32 | UInt64(state.allocated & ~touched)
      try setL2Entries(cluster, table: table, [entry])
    }
    if to < end { try writeZeros(at: to, count: end - to) }
  }

  private mutating func writeZeros(at offset: UInt64, count: UInt64) throws(BlockImageError) {
    guard count > 0 else { return }
    let zeros = [UInt8](repeating: 0, count: Int(count))
    try write(zeros.span, at: offset)
  }

  /// Makes a whole cluster read as zero by its L2 entry.
  private mutating func zeroCluster(_ cluster: UInt64, keepsSpace: Bool, isDiscard: Bool)
    throws(BlockImageError)
  {
    let seen = try state(of: cluster)
    if seen.host == nil, !seen.isCompressed {
      // Nothing to give up; and nothing to hide where there is no backing image.
      if seen.zero == header.allUnits { return }
      if cluster << clusterBits >= backingSize, !header.isDataFileRaw { return }
    }
    let table = try writableL2Table(of: cluster)
    let state = try state(of: cluster, in: table)
    if header.isDataFileRaw {
      // The data file has to read the same without the tables.
      let start = cluster << clusterBits
      let count = min(header.clusterSize, virtualSize - start)
      do throws(StorageError) { try dataFile?.zero(at: start, count: count) } catch {
        throw .storage(error)
      }
    }
    var entry = L2Entry(word: 0)
    let keeps = state.host != nil && state.isOwned && (keepsSpace || header.hasDataFile)
    if keeps, let host = state.host { entry.word = host | QCOW2.copied }
    if header.hasExtendedL2 {
      entry.bitmap = UInt64(UInt32.max) << 32
    } else if header.version >= 3 {
      entry.word |= QCOW2.readsAsZero
    }
    try setL2Entries(cluster, table: table, [entry])
    guard !keeps else { return }
    try release(state, isDiscard: isDiscard)
  }
}
