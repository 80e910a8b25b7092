// SPDX-License-Identifier: Apache-2.0

/// Where the bytes of a guest cluster come from.
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

extension QCOW2Image where Storage: ~Copyable {
  /// Fills `buffer` with the disk's bytes from `offset`.
  public mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(BlockImageError)
  {
    try checkRange(offset, buffer.count, of: virtualSize)
    var done = 0
    while done < buffer.count {
      let position = offset + UInt64(done)
      let (source, count) = try run(at: position, limit: buffer.count - done)
      var part = buffer._mutatingExtracting(done..<done + count)
      switch source {
      case .zero: part.update(repeating: 0)
      case .unallocated: try readBacking(into: &part, at: position)
      case .data(let host):
        do throws(StorageError) {
          try storage.read(into: &part, at: host + position % header.clusterSize)
        } catch {
          throw .storage(error)
        }
      case .compressed(let entry):
        try inflate(entry, guestOffset: position)
        let start = Int(position % header.clusterSize)
        for index in 0..<count { part[index] = inflated[start + index] }
      }
      done += count
    }
  }

  /// Returns how the bytes at `offset` are stored, and how many of `limit` the same way.
  private mutating func run(at offset: UInt64, limit: Int) throws(BlockImageError) -> (
    ClusterSource, Int
  ) {
    let size = Int(header.clusterSize)
    let cluster = offset >> UInt64(header.clusterBits)
    let first = try source(of: cluster)
    var count = size - Int(offset % header.clusterSize)
    var next = cluster + 1
    // The L1 entry covers this many more clusters; a run ends there.
    let end = (cluster >> header.l2Bits + 1) << header.l2Bits
    while count < limit, next < end {
      let source = try source(of: next)
      switch (first, source) {
      case (.unallocated, .unallocated), (.zero, .zero): break
      case (.data(let start), .data(let host))
      where host == start + (next - cluster) << UInt64(header.clusterBits):
        break
      default: return (first, min(count, limit))
      }
      count += size
      next += 1
    }
    return (first, min(count, limit))
  }

  /// Looks a guest cluster up.
  mutating func source(of cluster: UInt64) throws(BlockImageError) -> ClusterSource {
    let index = Int(cluster >> header.l2Bits)
    guard index < l1.count,
      let table = try header.l2Table(l1[index], index: index, fileSize: storage.byteCount)
    else {
      return .unallocated
    }
    let entry = try l2Entry(of: cluster, in: table)
    return try decode(entry, cluster: cluster)
  }

  /// Reads the L2 entry of a guest cluster from its table.
  mutating func l2Entry(of cluster: UInt64, in table: UInt64) throws(BlockImageError) -> UInt64 {
    let index = try l2Cache.index(of: l2EntryOffset(cluster, table), from: &storage)
    return l2Cache.bytes.bigEndian64(at: index)
  }

  /// Returns where the L2 entry of `cluster` lies in the file.
  func l2EntryOffset(_ cluster: UInt64, _ table: UInt64) -> UInt64 {
    table + (cluster & ((1 << header.l2Bits) - 1)) * 8
  }

  /// Checks an L2 entry and says what it means ("Cluster mapping" in the specification).
  func decode(_ entry: UInt64, cluster: UInt64) throws(BlockImageError) -> ClusterSource {
    if entry & QCOW2.compressed != 0 {
      try require(
        entry & QCOW2.copied == 0, "L2 entry of cluster \(cluster)", entry,
        "a compressed cluster can't have the copied flag")
      return .compressed(entry)
    }
    try require(
      entry & QCOW2.reservedL2 == 0, "L2 entry of cluster \(cluster)", entry,
      "reserved bits must be zero")
    let host = entry & QCOW2.offsetMask
    try require(
      host & (header.clusterSize - 1) == 0, "L2 entry of cluster \(cluster)", entry,
      "the offset must be aligned to a cluster")
    if entry & QCOW2.readsAsZero != 0 {
      try require(
        header.version >= 3, "L2 entry of cluster \(cluster)", entry,
        "version 2 has no zero clusters")
      return .zero(host: host)
    }
    guard host != 0 else {
      try require(
        entry & QCOW2.copied == 0, "L2 entry of cluster \(cluster)", entry,
        "an unallocated cluster can't have the copied flag")
      return .unallocated
    }
    try require(
      host < storage.byteCount, "L2 entry of cluster \(cluster)", entry,
      "the cluster must lie inside the file of \(storage.byteCount) bytes")
    return .data(host: host)
  }

  /// Reads from the backing image; past its end the disk is zero.
  mutating func readBacking(into part: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(BlockImageError)
  {
    guard let backing, offset < backingSize else {
      part.update(repeating: 0)
      return
    }
    let count = Int(min(UInt64(part.count), backingSize - offset))
    do {
      var inside = part._mutatingExtracting(0..<count)
      try backing.image.read(into: &inside, at: offset)
    }
    var outside = part._mutatingExtracting(count..<part.count)
    outside.update(repeating: 0)
  }

  /// Returns the file range of a compressed cluster ("Compressed Clusters Descriptor").
  func compressedRange(_ entry: UInt64) -> (offset: UInt64, count: UInt64) {
    let offsetBits = 62 - (UInt64(header.clusterBits) - 8)
    let offset = entry & ((1 << offsetBits) - 1)
    let sectors = ((entry & (QCOW2.compressed - 1)) >> offsetBits) + 1
    return (offset, sectors * 512 - offset % 512)
  }

  /// Makes `inflated` hold the cluster that a compressed entry describes.
  mutating func inflate(_ entry: UInt64, guestOffset: UInt64) throws(BlockImageError) {
    if inflatedEntry == entry { return }
    guard Decompressor.isAvailable else { throw .noDecompressor(guestOffset: guestOffset) }
    inflatedEntry = nil
    let (offset, count) = compressedRange(entry)
    try require(
      offset < storage.byteCount, "compressed cluster at guest offset \(guestOffset)", entry,
      "its data must lie inside the file of \(storage.byteCount) bytes")
    // The last sector may stop at the end of the file.
    var input = [UInt8](repeating: 0, count: Int(min(count, storage.byteCount - offset)))
    try storage.fill(&input, at: offset)
    if inflated.isEmpty { inflated = [UInt8](repeating: 0, count: Int(header.clusterSize)) }
    guard decompressor.inflate(input, intoAll: &inflated) else {
      throw .corruptCompressedCluster(guestOffset: guestOffset)
    }
    inflatedEntry = entry
  }
}

extension ClusterDecompressor {
  /// Inflates `input` so that it fills `output`.
  fileprivate mutating func inflate(_ input: [UInt8], intoAll output: inout [UInt8]) -> Bool {
    var span = output.mutableSpan
    return inflate(input.span, into: &span)
  }
}
