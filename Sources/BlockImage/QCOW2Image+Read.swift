// SPDX-License-Identifier: Apache-2.0

extension QCOW2Image where Storage: ~Copyable {
  /// Fills `buffer` with the disk's bytes from `offset`.
  public mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(BlockImageError)
  {
    try checkRange(offset, buffer.count, of: virtualSize)
    do throws(BlockImageError) {
      try readGuest(into: &buffer, at: offset)
    } catch {
      if case .malformed = error { markCorrupt() }
      throw error
    }
  }

  /// Reads as the guest does, also in the last cluster past the end of the disk.
  mutating func readGuest(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(BlockImageError)
  {
    var done = 0
    while done < buffer.count {
      let position = offset + UInt64(done)
      let (source, count) = try run(at: position, limit: buffer.count - done)
      var part = buffer._mutatingExtracting(done..<done + count)
      try read(source, into: &part, at: position)
      done += count
    }
  }

  /// Reads a part of the disk that comes from one source.
  mutating func read(
    _ source: ClusterSource, into part: inout MutableSpan<UInt8>, at position: UInt64
  ) throws(BlockImageError) {
    switch source {
    case .zero: part.update(repeating: 0)
    case .unallocated: try readBacking(into: &part, at: position)
    case .data(let host):
      try readData(into: &part, at: host + position % header.clusterSize)
    case .compressed(let entry):
      try inflate(entry, guestOffset: position)
      let start = Int(position % header.clusterSize)
      for index in 0..<part.count { part[index] = inflated[start + index] }
    }
  }

  /// Returns how the bytes at `offset` are stored, and how many of `limit` the same way.
  ///
  /// Of `.data` the bytes lie side by side; the host offset is that of the first cluster.
  mutating func run(at offset: UInt64, limit: Int) throws(BlockImageError) -> (
    source: ClusterSource, count: Int
  ) {
    let first = offset >> clusterBits
    var cluster = first
    var state = try state(of: cluster)
    let within = offset % header.clusterSize
    var unit = Int(within >> header.unitBits)
    let source = state.source(of: unit)
    if case .compressed = source {
      return (source, min(limit, Int(header.clusterSize - within)))
    }
    let size = Int(header.unitSize)
    var count = size - Int(offset % header.unitSize)
    while count < limit {
      unit += 1
      if unit == header.unitCount {
        unit = 0
        cluster += 1
        // The L1 entry covers no more clusters; a run ends there.
        guard cluster & ((1 << header.l2Bits) - 1) != 0 else { break }
        state = try self.state(of: cluster)
      }
      let isSame =
        switch (source, state.source(of: unit)) {
        case (.unallocated, .unallocated), (.zero, .zero): true
        case (.data(let start), .data(let host)):
          host == start &+ (cluster - first) << clusterBits
        default: false
        }
      guard isSame else { break }
      count += size
    }
    return (source, min(count, limit))
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

  /// Checks where a compressed cluster is; the last sector may stop at the end of the file.
  func compressedPlace(_ entry: UInt64, guestOffset: UInt64) throws(BlockImageError) -> (
    offset: UInt64, count: Int
  ) {
    guard Decompressor.isAvailable else { throw .noDecompressor(guestOffset: guestOffset) }
    let (offset, count) = compressedRange(entry)
    try require(
      offset < storage.byteCount, "compressed cluster at guest offset \(guestOffset)", entry,
      "its data must lie inside the file of \(storage.byteCount) bytes")
    return (offset, Int(min(count, storage.byteCount - offset)))
  }

  /// Makes `inflated` hold the cluster that a compressed entry describes.
  mutating func inflate(_ entry: UInt64, guestOffset: UInt64) throws(BlockImageError) {
    if inflatedEntry == entry { return }
    inflatedEntry = nil
    let (offset, count) = try compressedPlace(entry, guestOffset: guestOffset)
    var input = [UInt8](repeating: 0, count: count)
    try storage.fill(&input, at: offset)
    if inflated.isEmpty { inflated = [UInt8](repeating: 0, count: Int(header.clusterSize)) }
    guard decompressor.decompress(header.compression, input, intoAll: &inflated) else {
      throw .corruptCompressedCluster(guestOffset: guestOffset)
    }
    inflatedEntry = entry
  }
}
