// SPDX-License-Identifier: Apache-2.0

extension QCOW2Image where Storage: ~Copyable {
  /// Writes `bytes` to the disk at `offset`, allocating clusters where needed.
  public mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(BlockImageError) {
    guard isWritable else { throw .notWritable(reason: "it was opened read-only") }
    try checkRange(offset, bytes.count, of: virtualSize)
    var done = 0
    while done < bytes.count {
      let rest = bytes.extracting(done..<bytes.count)
      done += try writeRun(rest, at: offset + UInt64(done))
    }
  }

  /// Writes the start of `bytes` that can be handled at once; returns how much that was.
  private mutating func writeRun(_ bytes: Span<UInt8>, at offset: UInt64)
    throws(BlockImageError) -> Int
  {
    let cluster = offset >> clusterBits
    let table = try writableL2Table(of: cluster)
    let entry = try l2Entry(of: cluster, in: table)
    switch try decode(entry, cluster: cluster) {
    case .data(let host) where entry & QCOW2.copied != 0:
      return try writeInPlace(bytes, at: offset, table: table, host: host)
    case .zero(let host) where host != 0 && entry & QCOW2.copied != 0:
      // The cluster is reserved; what lies in it is not the guest's and is overwritten.
      try refuseMetadata(host >> clusterBits)
      let count = min(bytes.count, Int(header.clusterSize - offset % header.clusterSize))
      try writeWhole(
        bytes.extracting(0..<count), at: offset, host: host, filler: .zero(host: 0),
        isFresh: false)
      try setL2Entries(cluster, count: 1, table: table, host: host)
      return count
    default:
      return try writeToNew(bytes, at: offset, table: table)
    }
  }

  /// Writes over clusters that only this disk uses, as far as they lie side by side.
  private mutating func writeInPlace(
    _ bytes: Span<UInt8>, at offset: UInt64, table: UInt64, host: UInt64
  ) throws(BlockImageError) -> Int {
    let cluster = offset >> clusterBits
    try refuseMetadata(host >> clusterBits)
    var count = Int(header.clusterSize - offset % header.clusterSize)
    var next = cluster + 1
    while count < bytes.count, next & ((1 << header.l2Bits) - 1) != 0 {
      let entry = try l2Entry(of: next, in: table)
      let expected = host + (next - cluster) << clusterBits
      guard entry == expected | QCOW2.copied else { break }
      try refuseMetadata(expected >> clusterBits)
      count += Int(header.clusterSize)
      next += 1
    }
    count = min(count, bytes.count)
    try storage.store(
      bytes.extracting(0..<count), at: host + offset % header.clusterSize)
    return count
  }

  /// Allocates clusters for the start of `bytes`, writes them and enters them in the table.
  private mutating func writeToNew(_ bytes: Span<UInt8>, at offset: UInt64, table: UInt64)
    throws(BlockImageError) -> Int
  {
    let first = offset >> clusterBits
    let last = (offset + UInt64(bytes.count) - 1) >> clusterBits
    var wanted: UInt64 = 1
    while first + wanted <= last, (first + wanted) & ((1 << header.l2Bits) - 1) != 0,
      sameSlice(first, first + wanted, table),
      try needsNewCluster(first + wanted, table)
    {
      wanted += 1
    }
    let end = storage.byteCount
    let clusters = try allocate(wanted)
    let count = UInt64(clusters.count)
    let host = clusters.lowerBound << clusterBits
    let covered = min(
      bytes.count, Int(count << clusterBits - offset % header.clusterSize))
    do throws(BlockImageError) {
      try fill(bytes.extracting(0..<covered), at: offset, host: host, oldEnd: end, table: table)
    } catch {
      // Nothing refers to them yet; if this fails too they are leaked, not lost.
      do throws(BlockImageError) {
        try changeRefcounts(clusters.lowerBound, count: count, .release)
      } catch {}
      throw error
    }
    var old: [UInt64] = []
    for index in 0..<count { old.append(try l2Entry(of: first + index, in: table)) }
    try setL2Entries(first, count: count, table: table, host: host)
    for entry in old { try release(entry) }
    return covered
  }

  private func sameSlice(_ left: UInt64, _ right: UInt64, _ table: UInt64) -> Bool {
    l2EntryOffset(left, table) / l2Cache.sliceBytes
      == l2EntryOffset(right, table) / l2Cache.sliceBytes
  }

  private mutating func needsNewCluster(_ cluster: UInt64, _ table: UInt64)
    throws(BlockImageError) -> Bool
  {
    let entry = try l2Entry(of: cluster, in: table)
    return switch try decode(entry, cluster: cluster) {
    case .data: entry & QCOW2.copied == 0
    case .zero(let host): host == 0 || entry & QCOW2.copied == 0
    case .unallocated, .compressed: true
    }
  }

  /// Writes `bytes` into new clusters from `host`; partly covered ones are completed.
  private mutating func fill(
    _ bytes: Span<UInt8>, at offset: UInt64, host: UInt64, oldEnd: UInt64, table: UInt64
  ) throws(BlockImageError) {
    let size = Int(header.clusterSize)
    let head = Int(offset % header.clusterSize)
    var done = 0
    var host = host
    if head != 0 || bytes.count < size {
      done = min(size - head, bytes.count)
      let filler = try source(of: offset >> clusterBits)
      try writeWhole(
        bytes.extracting(0..<done), at: offset, host: host, filler: filler,
        isFresh: host >= oldEnd)
      host += header.clusterSize
    }
    let whole = (bytes.count - done) / size * size
    if whole > 0 {
      try storage.store(bytes.extracting(done..<done + whole), at: host)
      done += whole
      host += UInt64(whole)
    }
    if done < bytes.count {
      let position = offset + UInt64(done)
      let filler = try source(of: position >> clusterBits)
      try writeWhole(
        bytes.extracting(done..<bytes.count), at: position, host: host, filler: filler,
        isFresh: host >= oldEnd)
    }
  }

  /// Writes one cluster: `bytes` where they belong in it, the rest as it reads now.
  ///
  /// `isFresh` says that the cluster lies past the old end of the file, so that what is not
  /// written there reads as zero.
  private mutating func writeWhole(
    _ bytes: Span<UInt8>, at offset: UInt64, host: UInt64, filler: ClusterSource,
    isFresh: Bool
  ) throws(BlockImageError) {
    let start = Int(offset % header.clusterSize)
    let base = offset - UInt64(start)
    var isZero = false
    switch filler {
    case .zero: isZero = true
    case .unallocated: isZero = base >= backingSize
    case .data, .compressed: break
    }
    if isZero, isFresh || bytes.count == Int(header.clusterSize) {
      try storage.store(bytes, at: host + UInt64(start))
      return
    }
    var whole = scratch
    scratch = []
    if whole.isEmpty { whole = [UInt8](repeating: 0, count: Int(header.clusterSize)) }
    defer { scratch = whole }
    var span = whole.mutableSpan
    switch filler {
    case .zero: span.update(repeating: 0)
    case .unallocated: try readBacking(into: &span, at: base)
    case .data(let old):
      do throws(StorageError) { try storage.read(into: &span, at: old) } catch {
        throw .storage(error)
      }
    case .compressed(let entry):
      try inflate(entry, guestOffset: base)
      for index in 0..<span.count { span[index] = inflated[index] }
    }
    for index in 0..<bytes.count { span[start + index] = bytes[index] }
    try storage.store(whole, at: host)
  }

  /// Enters `count` clusters from `host` on, all in one slice, in one write.
  private mutating func setL2Entries(
    _ cluster: UInt64, count: UInt64, table: UInt64, host: UInt64
  ) throws(BlockImageError) {
    let offset = l2EntryOffset(cluster, table)
    let index = try l2Cache.index(of: offset, from: &storage)
    for place in 0..<count {
      l2Cache.set(
        host + place << clusterBits | QCOW2.copied, at: index + Int(place) * 8)
    }
    try l2Cache.writeBack(index, count: Int(count) * 8, at: offset, to: &storage)
  }

  /// Gives up the clusters that a replaced L2 entry referred to.
  private mutating func release(_ entry: UInt64) throws(BlockImageError) {
    if entry & QCOW2.compressed != 0 {
      if inflatedEntry == entry { inflatedEntry = nil }
      let (offset, count) = compressedRange(entry)
      let first = offset >> clusterBits
      // The last sector counts to its end, as QEMU has it.
      let last = (offset + count - 1) >> clusterBits
      try changeRefcounts(first, count: last - first + 1, .release)
    } else if entry & QCOW2.offsetMask != 0 {
      try changeRefcounts((entry & QCOW2.offsetMask) >> clusterBits, count: 1, .release)
    }
  }

  /// Returns an L2 table for `cluster` that only the active layer uses, made if needed.
  private mutating func writableL2Table(of cluster: UInt64) throws(BlockImageError) -> UInt64 {
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
    var field = [UInt8](repeating: 0, count: 8)
    field.storeBigEndian(table | QCOW2.copied, at: 0)
    try storage.store(field, at: header.l1TableOffset + UInt64(index) * 8)
    l1[index] = table | QCOW2.copied
    metadata.insert(clusters.lowerBound)
    if let old {
      metadata.remove(old >> clusterBits)
      try changeRefcounts(old >> clusterBits, count: 1, .release)
    }
    return table
  }
}
