// SPDX-License-Identifier: Apache-2.0

/// The tables of an image that are kept in memory, read and checked when it is opened.
struct QCOW2Tables {
  var header: QCOW2Header
  var l1: [UInt64] = []
  var refcountTable: [UInt64] = []
  var metadata: Set<UInt64> = []

  /// Reads the tables; for a writable image also clears the autoclear bits.
  init<Storage: BlockStorage & ~Copyable>(
    _ header: QCOW2Header, writable: Bool, on storage: inout Storage
  ) throws(BlockImageError) {
    self.header = header
    l1 = try Self.table(
      at: header.l1TableOffset, entries: Int(header.l1Size), from: &storage)
    guard writable else { return }
    if header.isCorrupt { throw .notWritable(reason: "it is marked as corrupt") }
    if header.isDirty {
      throw .notWritable(reason: "it was not closed cleanly; repair its refcounts first")
    }
    refcountTable = try Self.table(
      at: header.refcountTableOffset,
      entries: (Int(header.refcountTableClusters) << Int(header.clusterBits)) / 8, from: &storage)
    try collectMetadata(fileSize: storage.byteCount)
    guard header.version == 3, header.autoclearFeatures != 0 else { return }
    // No autoclear feature is kept up by this writer, not even the known ones.
    self.header.autoclearFeatures = 0
    try storage.store([UInt8](repeating: 0, count: 8), at: 88)
  }

  private static func table<Storage: BlockStorage & ~Copyable>(
    at offset: UInt64, entries: Int, from storage: inout Storage
  ) throws(BlockImageError) -> [UInt64] {
    var bytes = [UInt8](repeating: 0, count: entries * 8)
    try storage.fill(&bytes, at: offset)
    return (0..<entries).map { bytes.bigEndian64(at: $0 * 8) }
  }

  /// Notes every metadata cluster; no two structures may share one.
  private mutating func collectMetadata(fileSize: UInt64) throws(BlockImageError) {
    let mask = header.clusterSize - 1
    metadata.insert(0)
    try claim("l1_table_offset", header.l1TableOffset, bytes: UInt64(l1.count) * 8)
    try claim(
      "refcount_table_offset", header.refcountTableOffset,
      bytes: UInt64(refcountTable.count) * 8)
    for (index, entry) in refcountTable.enumerated() where entry != 0 {
      try require(
        entry & mask == 0 && entry < 1 << 56, "refcount table entry \(index)", entry,
        "must be a multiple of the cluster size below 2^56")
      try require(
        entry < fileSize, "refcount table entry \(index)", entry,
        "the block must lie inside the file")
      try claim("refcount table entry \(index)", entry, bytes: header.clusterSize)
    }
    for (index, entry) in l1.enumerated() {
      guard let table = try header.l2Table(entry, index: index, fileSize: fileSize) else {
        continue
      }
      try claim("L1 entry \(index)", table, bytes: header.clusterSize)
    }
  }

  private mutating func claim(_ field: String, _ offset: UInt64, bytes: UInt64)
    throws(BlockImageError)
  {
    guard bytes > 0 else { return }
    let bits = UInt64(header.clusterBits)
    for cluster in offset >> bits...(offset + bytes - 1) >> bits {
      let isNew = metadata.insert(cluster).inserted
      try require(isNew, field, offset, "cluster \(cluster) holds other metadata already")
    }
  }
}

extension QCOW2Header {
  /// Checks an L1 entry; returns where its L2 table is, or `nil` when there is none.
  func l2Table(_ entry: UInt64, index: Int, fileSize: UInt64) throws(BlockImageError) -> UInt64? {
    try require(
      entry & QCOW2.reservedL1 == 0, "L1 entry \(index)", entry, "reserved bits must be zero")
    let offset = entry & QCOW2.offsetMask
    guard offset != 0 else { return nil }
    try require(
      offset & (clusterSize - 1) == 0, "L1 entry \(index)", entry,
      "the L2 table must be aligned to a cluster")
    try require(
      offset <= fileSize && clusterSize <= fileSize - offset,
      "L1 entry \(index)", entry, "the L2 table must lie inside the file")
    return offset
  }
}
