// SPDX-License-Identifier: Apache-2.0

/// The tables of an image that are kept in memory, read and checked when it is opened.
///
/// What is kept is bounded: 32 MiB of L1 table and 8 MiB of refcount table, as QEMU has it,
/// and 16 bytes for each of their entries and for each of at most 65536 snapshots.
struct QCOW2Tables {
  var header: QCOW2Header
  var l1: [UInt64] = []
  var refcountTable: [UInt64] = []
  var metadata = MetadataMap()

  /// Reads the tables; for a writable image those that only a writer needs, too.
  init<Storage: BlockStorage & ~Copyable>(
    _ header: QCOW2Header, writable: Bool, on storage: inout Storage
  ) throws(BlockImageError) {
    self.header = header
    l1 = try Self.table(
      at: header.l1TableOffset, entries: Int(header.l1Size), from: &storage)
    guard writable else { return }
    refcountTable = try Self.table(
      at: header.refcountTableOffset,
      entries: (Int(header.refcountTableClusters) << Int(header.clusterBits)) / 8, from: &storage)
    try collectMetadata(on: &storage)
  }

  /// Reads a table of 64-bit entries.
  static func table<Storage: BlockStorage & ~Copyable>(
    at offset: UInt64, entries: Int, from storage: inout Storage
  ) throws(BlockImageError) -> [UInt64] {
    var table: [UInt64] = []
    table.reserveCapacity(entries)
    var piece = [UInt8](repeating: 0, count: min(entries * 8, 64 << 10))
    while table.count < entries {
      let count = min(piece.count, (entries - table.count) * 8)
      try storage.fill(&piece, 0..<count, at: offset + UInt64(table.count) * 8)
      for index in 0..<count / 8 { table.append(piece.bigEndian64(at: index * 8)) }
    }
    return table
  }

  /// Notes every metadata cluster; no two structures may share one.
  private mutating func collectMetadata<Storage: BlockStorage & ~Copyable>(
    on storage: inout Storage
  ) throws(BlockImageError) {
    let mask = header.clusterSize - 1
    let fileSize = storage.byteCount
    try collectRanges(on: &storage)
    for (index, entry) in refcountTable.enumerated() where entry != 0 {
      try require(
        entry & mask == 0 && entry < 1 << 56, "refcount table entry \(index)", entry,
        "must be a multiple of the cluster size below 2^56")
      try require(
        entry < fileSize, "refcount table entry \(index)", entry,
        "the block must lie inside the file")
      try claim("refcount table entry \(index)", entry)
    }
    for (index, entry) in l1.enumerated() {
      guard let table = try header.l2Table(entry, index: index, fileSize: fileSize) else {
        continue
      }
      try claim("L1 entry \(index)", table)
    }
  }

  /// Notes the tables that fill several clusters.
  private mutating func collectRanges<Storage: BlockStorage & ~Copyable>(
    on storage: inout Storage
  ) throws(BlockImageError) {
    var ranges = [
      0..<1, range(header.l1TableOffset, UInt64(l1.count) * 8),
      range(header.refcountTableOffset, UInt64(refcountTable.count) * 8),
      range(header.bitmapDirectoryOffset, header.bitmapDirectorySize),
      range(header.encryptionOffset, header.encryptionByteCount),
    ]
    if header.snapshotCount > 0 {
      let header = self.header
      let length = try header.forEachSnapshot(on: &storage) {
        (snapshot) throws(BlockImageError) in
        ranges.append(
          header.clusterRange(snapshot.l1TableOffset, UInt64(snapshot.l1Size) * 8))
        return true
      }
      ranges.append(range(header.snapshotTableOffset, length))
    }
    guard let bad = metadata.addAll(ranges) else { return }
    let fields = [
      "header", "l1_table_offset", "refcount_table_offset", "bitmap_directory_offset",
      "encryption header offset",
    ]
    let field =
      bad < fields.count
      ? fields[bad]
      : bad == ranges.count - 1
        ? "snapshots_offset" : "snapshot \(bad - fields.count) l1_table_offset"
    let cluster = ranges[bad].lowerBound
    throw .malformed(
      field: field, value: cluster << UInt64(header.clusterBits),
      rule: "another table lies over this one")
  }

  private func range(_ offset: UInt64, _ bytes: UInt64) -> Range<UInt64> {
    header.clusterRange(offset, bytes)
  }

  private mutating func claim(_ field: String, _ offset: UInt64) throws(BlockImageError) {
    let cluster = offset >> UInt64(header.clusterBits)
    let isNew = metadata.insert(cluster)
    try require(isNew, field, offset, "cluster \(cluster) holds other metadata already")
  }
}

extension QCOW2Header {
  /// Returns the clusters that `bytes` bytes from `offset` on touch.
  func clusterRange(_ offset: UInt64, _ bytes: UInt64) -> Range<UInt64> {
    let bits = UInt64(clusterBits)
    guard bytes > 0 else { return offset >> bits..<offset >> bits }
    return offset >> bits..<(offset + bytes - 1) >> bits + 1
  }

  /// Checks an L1 entry; returns where its L2 table is, or `nil` when there is none.
  func l2Table(_ entry: UInt64, index: Int, fileSize: UInt64) throws(BlockImageError) -> UInt64? {
    try require(
      entry & QCOW2.reservedL1 == 0, "L1 entry \(index)", entry, "reserved bits must be zero")
    let offset = entry & QCOW2.offsetMask
    guard offset != 0 else {
      try require(
        entry == 0, "L1 entry \(index)", entry, "an entry without a table can't have a flag")
      return nil
    }
    try require(
      offset & (clusterSize - 1) == 0, "L1 entry \(index)", entry,
      "the L2 table must be aligned to a cluster")
    try require(
      offset <= fileSize && clusterSize <= fileSize - offset,
      "L1 entry \(index)", entry, "the L2 table must lie inside the file")
    return offset
  }
}
