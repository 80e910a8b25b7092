// SPDX-License-Identifier: Apache-2.0

/// Makes a new qcow2 image from front to back.
///
/// Clusters are given in ascending order and appended to the file, each L2 table once it is
/// complete, and refcounts at the end: of all clusters but compressed ones they are 1, so that
/// nothing has to be looked up. The header comes last; before that the file is no image.
public struct QCOW2Writer<Storage: BlockStorage & ~Copyable>: ~Copyable {
  /// What the image is like.
  public let creation: QCOW2Creation
  var storage: Storage
  var dataFile: Storage?
  private var l1: [UInt64]
  private var table: [UInt8]
  /// Which L1 entry `table` is for; -1 when it is empty.
  private var tableIndex = -1
  /// The next free cluster.
  private var next: UInt64
  private let l1Offset: UInt64
  private let encryptionOffset: UInt64
  /// Where the next compressed cluster goes; 0 when it takes a new cluster.
  private var packed: UInt64 = 0
  /// Uses of each cluster of the file, with compressed clusters alone.
  private var uses: [UInt32] = []

  /// Starts an image.
  ///
  /// - Parameters:
  ///   - creation: What it is to be like.
  ///   - storage: An empty file.
  ///   - dataFile: The external data file, if there is to be one.
  /// - Throws: When the parts do not fit each other.
  public init(
    _ creation: QCOW2Creation, storage: consuming Storage, dataFile: consuming Storage? = nil
  ) throws(BlockImageError) {
    try creation.check()
    self.creation = creation
    self.storage = storage
    self.dataFile = dataFile
    l1 = [UInt64](repeating: 0, count: Int(creation.l1Entries))
    table = [UInt8](repeating: 0, count: Int(creation.clusterSize))
    l1Offset = creation.clusterSize
    let l1Clusters = (creation.l1Entries * 8 + creation.clusterSize - 1) / creation.clusterSize
    let encryptionCount = UInt64(creation.encryptionHeader?.count ?? 0)
    encryptionOffset = (1 + max(1, l1Clusters)) * creation.clusterSize
    next = (encryptionOffset + encryptionCount + creation.clusterSize - 1) / creation.clusterSize
  }

  private var bits: UInt64 { UInt64(creation.clusterBits) }

  /// Makes `table` the one of a guest cluster; returns the place of its entry.
  private mutating func place(of cluster: UInt64) throws(BlockImageError) -> Int {
    let index = Int(cluster >> creation.l2Bits)
    if index != tableIndex {
      try finishTable()
      tableIndex = index
    }
    return Int((cluster & ((1 << creation.l2Bits) - 1)) * creation.l2EntrySize)
  }

  private mutating func finishTable() throws(BlockImageError) {
    guard tableIndex >= 0 else { return }
    try storage.store(table, at: next << bits)
    l1[tableIndex] = next << bits | QCOW2.copied
    next += 1
    packed = 0
    for index in table.indices { table[index] = 0 }
    tableIndex = -1
  }

  private mutating func enter(_ cluster: UInt64, word: UInt64, bitmap: UInt64)
    throws(BlockImageError)
  {
    let place = try place(of: cluster)
    table.storeBigEndian(word, at: place)
    if creation.hasExtendedL2 { table.storeBigEndian(bitmap, at: place + 8) }
  }

  /// Enters data clusters that lie side by side; returns where the first is in the file.
  private mutating func enterData(_ first: UInt64, count: UInt64) throws(BlockImageError) -> UInt64
  {
    if dataFileIsUsed {
      for cluster in first..<first + count {
        try enter(cluster, word: cluster << bits | QCOW2.copied, bitmap: 0xFFFF_FFFF)
      }
      return first << bits
    }
    // Before the first of them, the table of what went before may take a cluster.
    _ = try place(of: first)
    let start = next
    next += count
    packed = 0
    for index in 0..<count {
      try enter(
        first + index, word: (start + index) << bits | QCOW2.copied, bitmap: 0xFFFF_FFFF)
    }
    return start << bits
  }

  private var dataFileIsUsed: Bool { creation.dataFileName != nil }

  /// How many bytes from `offset` on one L2 table covers.
  private func covered(_ offset: UInt64) -> UInt64 {
    let span: UInt64 = 1 << (bits + creation.l2Bits)
    return span - offset & (span - 1)
  }

  /// Appends data.
  ///
  /// - Parameters:
  ///   - bytes: Whole clusters; the last may end with the disk.
  ///   - offset: Where they belong on the disk, behind all that was appended before.
  /// - Throws: When the storage fails.
  public mutating func append(_ bytes: Span<UInt8>, at offset: UInt64) throws(BlockImageError) {
    var done = 0
    while done < bytes.count {
      let position = offset + UInt64(done)
      let count = Int(min(UInt64(bytes.count - done), covered(position)))
      let clusters = (UInt64(count) + creation.clusterSize - 1) >> bits
      let host = try enterData(position >> bits, count: clusters)
      let part = bytes.extracting(done..<done + count)
      do throws(StorageError) {
        if dataFileIsUsed {
          try dataFile?.write(part, at: host)
        } else {
          try storage.write(part, at: host)
        }
      } catch {
        throw .storage(error)
      }
      done += count
    }
  }

  /// Reserves clusters for a part of the disk without writing them; they read as zero.
  ///
  /// - Parameters:
  ///   - offset: Where the part begins, on a cluster.
  ///   - count: Its length in bytes.
  ///   - each: Gets each range of the file that was reserved.
  /// - Throws: When the storage fails.
  public mutating func reserve(
    at offset: UInt64, count: UInt64,
    _ each: (inout Storage, Range<UInt64>) throws(BlockImageError) -> Void
  ) throws(BlockImageError) {
    var done: UInt64 = 0
    while done < count {
      let piece = min(count - done, covered(offset + done))
      let clusters = (piece + creation.clusterSize - 1) >> bits
      let host = try enterData((offset + done) >> bits, count: clusters)
      if !dataFileIsUsed { try each(&storage, host..<host + clusters << bits) }
      done += piece
    }
  }

  /// Makes whole clusters read as zero where a backing image would show through.
  ///
  /// - Parameters:
  ///   - offset: Where they begin.
  ///   - count: Their length in bytes; the last may end with the disk.
  /// - Throws: When the storage fails; with version 2, which has no such clusters.
  public mutating func appendZeros(at offset: UInt64, count: UInt64) throws(BlockImageError) {
    guard creation.version >= 3 else { throw .unsupported(feature: "zero clusters in version 2") }
    let end = (offset + count + creation.clusterSize - 1) >> bits
    for cluster in offset >> bits..<end {
      try enter(
        cluster, word: creation.hasExtendedL2 ? 0 : QCOW2.readsAsZero, bitmap: 0xFFFF_FFFF << 32)
    }
  }

  /// Appends a cluster that was compressed.
  ///
  /// - Parameters:
  ///   - bytes: What the compressor made of it, shorter than a cluster.
  ///   - offset: Where the cluster belongs on the disk.
  /// - Throws: When the storage fails.
  public mutating func appendCompressed(_ bytes: Span<UInt8>, at offset: UInt64)
    throws(BlockImageError)
  {
    let cluster = offset >> bits
    _ = try place(of: cluster)
    let largest: UInt64 =
      creation.refcountOrder >= 5 ? 1 << 31 : (1 << (1 << creation.refcountOrder)) - 1
    if packed & (creation.clusterSize - 1) == 0 || useCount(packed >> bits) >= largest {
      packed = next << bits
      next += 1
    }
    let start = packed
    let end = start + UInt64(bytes.count)
    // The file's last cluster is the one being filled, so that a new one follows it.
    if (end - 1) >> bits >= next { next = (end - 1) >> bits + 1 }
    for used in start >> bits...(end - 1) >> bits { countUse(used) }
    do throws(StorageError) { try storage.write(bytes, at: start) } catch { throw .storage(error) }
    packed = end
    let offsetBits = 62 - (bits - 8)
    let sectors = (end - 1) >> 9 - start >> 9
    try enter(cluster, word: QCOW2.compressed | sectors << offsetBits | start, bitmap: 0)
  }

  private func useCount(_ cluster: UInt64) -> UInt64 {
    cluster < UInt64(uses.count) ? UInt64(uses[Int(cluster)]) : 0
  }

  private mutating func countUse(_ cluster: UInt64) {
    if UInt64(uses.count) <= cluster {
      uses += [UInt32](repeating: 0, count: Int(cluster) + 1 - uses.count)
    }
    uses[Int(cluster)] += 1
  }

  /// Writes what is left, the header last, and makes all durable.
  ///
  /// - Throws: When the storage fails.
  public consuming func finish() throws(BlockImageError) -> Storage {
    try finishTable()
    try storage.store(l1.bigEndianBytes, at: l1Offset)
    if let header = creation.encryptionHeader { try storage.store(header, at: encryptionOffset) }
    var places = try writeRefcounts()
    places.encryption = encryptionOffset
    do throws(StorageError) {
      // The file ends with a cluster.
      if storage.byteCount < next << bits {
        try storage.zero(at: storage.byteCount, count: next << bits - storage.byteCount)
      }
      try dataFile?.flush()
    } catch {
      throw .storage(error)
    }
    try storage.store(try creation.headerBytes(places), at: 0)
    do throws(StorageError) { try storage.flush() } catch { throw .storage(error) }
    return storage
  }

  private mutating func writeRefcounts() throws(BlockImageError) -> QCOW2Places {
    let blockBits = bits + 3 - UInt64(creation.refcountOrder)
    var blocks: UInt64 = 1
    var tableClusters: UInt64 = 1
    while true {
      tableClusters = (blocks * 8 + creation.clusterSize - 1) >> bits
      let needed = (next + blocks + tableClusters + (1 << blockBits) - 1) >> blockBits
      if needed <= blocks { break }
      blocks = needed
    }
    guard tableClusters << bits <= max(QCOW2.largestRefcountTable, creation.clusterSize) else {
      throw .imageFull
    }
    let end = next + blocks + tableClusters
    let width = 1 << Int(creation.refcountOrder)
    var table: [UInt64] = []
    for block in 0..<blocks {
      var bytes = [UInt8](repeating: 0, count: Int(creation.clusterSize))
      let first = block << blockBits
      for cluster in first..<max(first, min(end, first + 1 << blockBits)) {
        bytes.storeRefcount(max(1, useCount(cluster)), width: width, at: Int(cluster - first))
      }
      try storage.store(bytes, at: (next + block) << bits)
      table.append((next + block) << bits)
    }
    var bytes = table.bigEndianBytes
    bytes += [UInt8](repeating: 0, count: Int(tableClusters << bits) - bytes.count)
    let place = (next + blocks) << bits
    try storage.store(bytes, at: place)
    next = end
    return QCOW2Places(
      l1Table: l1Offset, refcountTable: place, refcountTableClusters: UInt32(tableClusters))
  }
}

extension [UInt8] {
  /// Stores entry number `index` of a refcount block ("Refcount block entry").
  mutating func storeRefcount(_ value: UInt64, width: Int, at index: Int) {
    if width < 8 {
      let byte = index * width / 8
      let shift = UInt8(index * width % 8)
      let mask = UInt8((1 << width) - 1) << shift
      self[byte] = self[byte] & ~mask | UInt8(truncatingIfNeeded: value) << shift
      return
    }
    let count = width / 8
    for byte in 0..<count {
      self[index * count + byte] = UInt8(truncatingIfNeeded: value >> (width - 8 - 8 * byte))
    }
  }

  /// Returns entry number `index` of a refcount block.
  func refcount(width: Int, at index: Int) -> UInt64 {
    if width < 8 {
      return UInt64(self[index * width / 8] >> UInt8(index * width % 8)) & ((1 << width) - 1)
    }
    let count = width / 8
    var value: UInt64 = 0
    for byte in 0..<count { value = value << 8 | UInt64(self[index * count + byte]) }
    return value
  }
}
