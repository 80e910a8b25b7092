// SPDX-License-Identifier: Apache-2.0

/// What a check of an image's tables found and mended.
public struct QCOW2CheckResult: Equatable, Sendable {
  /// Errors that can lose data.
  public var corruptions = 0
  /// Clusters that nothing uses.
  public var leaks = 0
  public var corruptionsFixed = 0
  public var leaksFixed = 0
  /// Clusters of the disk that the image has.
  public var allocatedClusters: UInt64 = 0
  /// Clusters of the disk.
  public var totalClusters: UInt64 = 0
  /// Allocated clusters that do not follow the one before.
  public var fragmentedClusters: UInt64 = 0
  public var compressedClusters: UInt64 = 0
  /// The end of the last cluster in use.
  public var imageEnd: UInt64 = 0
  /// What was found, one line each; at most ``mostMessages``.
  public var messages: [String] = []

  /// How many lines are kept.
  public static let mostMessages = 1000

  public init() {}

  mutating func note(_ message: String) {
    if messages.count < Self.mostMessages { messages.append(message) }
  }

  mutating func corruption(_ message: String) {
    corruptions += 1
    note("ERROR " + message)
  }
}

/// What a check may mend.
public enum QCOW2Repair: String, Sendable, CaseIterable {
  /// Clusters that nothing uses are given back.
  case leaks
  /// All that can be mended.
  case all
}

/// A check of the refcounts and flags of an image against its tables.
///
/// Memory is bounded: counts are kept for a window of clusters at a time, and an image whose
/// tables are larger than the bounds is refused.
public struct QCOW2Check<Storage: BlockStorage & ~Copyable>: ~Copyable {
  var storage: Storage
  var header: QCOW2Header
  private var result = QCOW2CheckResult()
  private var repair: QCOW2Repair?
  private var activeL1: [UInt64] = []
  /// Every L2 table that an L1 table leads to, ascending, as often as it is.
  private var l2Tables: [UInt64] = []
  private var refcountTable: [UInt64] = []
  private var bitmapClusters: [Range<UInt64>] = []
  private var fixedRanges: [Range<UInt64>] = []
  private var counts: [UInt32] = []
  private var window: Range<UInt64> = 0..<0
  private var needsRebuild = false
  private var isFirstPass = true
  private var highest: UInt64 = 0

  /// Clusters counted at a time: 64 MiB of counts, 1 TiB of the usual clusters.
  private static var windowSize: UInt64 { 1 << 24 }
  /// The most windows, so that a file of holes does not take for ever.
  private static var mostWindows: UInt64 { 256 }
  /// The most entries of all L1 tables together.
  private static var mostL1Entries: UInt64 { 1 << 24 }

  /// Reads the header.
  ///
  /// - Parameter storage: The image file; open for writing if something is to be mended.
  /// - Throws: When the image is too broken to be checked.
  public init(_ storage: consuming Storage) throws(BlockImageError) {
    var storage = storage
    header = try QCOW2Header.read(from: &storage)
    self.storage = storage
  }

  private var bits: UInt64 { UInt64(header.clusterBits) }
  private var width: Int { 1 << Int(header.refcountOrder) }
  private var fileClusters: UInt64 {
    (storage.byteCount + header.clusterSize - 1) >> bits
  }

  /// Checks, and mends what may be mended.
  ///
  /// - Parameter repair: What may be mended; `nil` for nothing.
  /// - Returns: What was found and mended.
  /// - Throws: When the image is too broken to be checked, or the storage fails.
  public mutating func run(_ repair: QCOW2Repair?) throws(BlockImageError) -> QCOW2CheckResult {
    self.repair = repair
    result = QCOW2CheckResult()
    result.totalClusters = (header.virtualSize + header.clusterSize - 1) >> bits
    try readTables()
    isFirstPass = true
    var start: UInt64 = 0
    repeat {
      window = start..<start + Self.windowSize
      try scan()
      isFirstPass = false
      try compare()
      start += Self.windowSize
    } while start < max(fileClusters, highest + 1)
    if needsRebuild, repair == .all { try rebuild() }
    try checkCopied()
    if repair == .all, result.corruptions == result.corruptionsFixed { try clearMarks() }
    result.imageEnd = (highest + 1) << bits
    if repair != nil {
      do throws(StorageError) { try storage.flush() } catch { throw .storage(error) }
    }
    return result
  }

  // MARK: Tables

  private mutating func readTables() throws(BlockImageError) {
    guard fileClusters <= Self.windowSize * Self.mostWindows else {
      throw .unsupported(feature: "a check of a file of \(fileClusters) clusters")
    }
    activeL1 = try QCOW2Tables.table(
      at: header.l1TableOffset, entries: Int(header.l1Size), from: &storage)
    refcountTable = try QCOW2Tables.table(
      at: header.refcountTableOffset,
      entries: Int(UInt64(header.refcountTableClusters) << bits / 8), from: &storage)
    fixedRanges = [
      0..<1, header.clusterRange(header.l1TableOffset, UInt64(activeL1.count) * 8),
      header.clusterRange(header.refcountTableOffset, UInt64(refcountTable.count) * 8),
      header.clusterRange(header.encryptionOffset, header.encryptionByteCount),
    ]
    l2Tables = []
    collect(activeL1, "active")
    var entries = UInt64(activeL1.count)
    var tables: [(UInt64, Int, String)] = []
    let length = try header.forEachSnapshot(on: &storage) { (snapshot) throws(BlockImageError) in
      entries += UInt64(snapshot.l1Size)
      guard entries <= Self.mostL1Entries else {
        throw .unsupported(feature: "a check of more than \(Self.mostL1Entries) L1 entries")
      }
      tables.append((snapshot.l1TableOffset, Int(snapshot.l1Size), snapshot.id))
      return true
    }
    if length > 0 { fixedRanges.append(header.clusterRange(header.snapshotTableOffset, length)) }
    for (offset, size, id) in tables {
      fixedRanges.append(header.clusterRange(offset, UInt64(size) * 8))
      collect(
        try QCOW2Tables.table(at: offset, entries: size, from: &storage), "snapshot \(id)")
    }
    l2Tables.sort()
    try collectBitmaps()
    checkRefcountTable()
  }

  private mutating func collect(_ table: [UInt64], _ name: String) {
    for (index, entry) in table.enumerated() where entry != 0 {
      if entry & QCOW2.reservedL1 != 0 {
        result.corruption("L1 entry \(index) (\(name)) has reserved bits set: \(hex(entry))")
      }
      let offset = entry & QCOW2.offsetMask
      guard offset != 0 else { continue }
      guard offset & (header.clusterSize - 1) == 0 else {
        result.corruption("L2 table \(hex(offset)) is not aligned; L1 entry \(index) (\(name))")
        continue
      }
      guard isInside(offset, header.clusterSize) else {
        result.corruption(
          "L2 table \(hex(offset)) is past the end of the file; L1 entry \(index) (\(name))")
        continue
      }
      l2Tables.append(offset)
    }
  }

  private func isInside(_ offset: UInt64, _ count: UInt64) -> Bool {
    // A last cluster that is cut short is none the worse, as QEMU has it.
    offset < storage.byteCount && offset + count < storage.byteCount + header.clusterSize
  }

  /// Reads the bitmap directory ("Bitmaps extension") for the clusters that it uses.
  private mutating func collectBitmaps() throws(BlockImageError) {
    bitmapClusters = []
    guard header.bitmapDirectorySize > 0 else { return }
    guard isInside(header.bitmapDirectoryOffset, header.bitmapDirectorySize) else {
      return result.corruption("the bitmap directory is past the end of the file")
    }
    var directory = [UInt8](repeating: 0, count: Int(header.bitmapDirectorySize))
    try storage.fill(&directory, at: header.bitmapDirectoryOffset)
    bitmapClusters.append(
      header.clusterRange(header.bitmapDirectoryOffset, header.bitmapDirectorySize))
    var position = 0
    var entries: UInt64 = 0
    while position + 24 <= directory.count {
      let offset = directory.bigEndian64(at: position)
      let size = UInt64(directory.bigEndian32(at: position + 8))
      let name = Int(directory[position + 18]) << 8 | Int(directory[position + 19])
      let extra = Int(directory.bigEndian32(at: position + 20))
      position += (24 + name + extra + 7) & ~7
      entries += size
      guard offset & (header.clusterSize - 1) == 0, isInside(offset, size * 8),
        entries <= Self.mostL1Entries
      else {
        result.corruption("a bitmap table is not inside the file: \(hex(offset))")
        continue
      }
      bitmapClusters.append(header.clusterRange(offset, size * 8))
      for entry in try QCOW2Tables.table(at: offset, entries: Int(size), from: &storage) {
        let cluster = entry & QCOW2.offsetMask
        guard cluster != 0 else { continue }
        guard cluster & (header.clusterSize - 1) == 0, isInside(cluster, header.clusterSize) else {
          result.corruption("a bitmap's cluster is not inside the file: \(hex(cluster))")
          continue
        }
        bitmapClusters.append(cluster >> bits..<cluster >> bits + 1)
      }
    }
  }

  private mutating func checkRefcountTable() {
    for (index, entry) in refcountTable.enumerated() where entry != 0 {
      let offset = entry & ~0x1FF
      if entry & 0x1FF != 0 {
        result.corruption("refcount table entry \(index) has reserved bits set: \(hex(entry))")
      }
      if offset & (header.clusterSize - 1) != 0 {
        result.corruption(
          "refcount block \(index) is not cluster aligned; refcount table entry corrupted")
        needsRebuild = true
        refcountTable[index] = 0
      } else if !isInside(offset, header.clusterSize) {
        result.corruption("refcount block \(index) is outside image")
        needsRebuild = true
        refcountTable[index] = 0
      }
    }
  }

  // MARK: Counting

  private mutating func count(_ range: Range<UInt64>, times: UInt32 = 1) {
    if let last = range.last, isFirstPass { highest = max(highest, last) }
    let part = range.clamped(to: window)
    guard let last = part.last else { return }
    let end = Int(last - window.lowerBound) + 1
    if counts.count < end { counts += [UInt32](repeating: 0, count: end - counts.count) }
    for cluster in part {
      let index = Int(cluster - window.lowerBound)
      let (sum, isOver) = counts[index].addingReportingOverflow(times)
      counts[index] = isOver ? .max : sum
    }
  }

  private func uses(_ cluster: UInt64) -> UInt64 {
    let index = Int(cluster - window.lowerBound)
    return index < counts.count ? UInt64(counts[index]) : 0
  }

  /// Counts the uses of the clusters in the window.
  private mutating func scan() throws(BlockImageError) {
    counts = []
    let inside = min(window.upperBound, max(fileClusters, highest + 1))
    if inside > window.lowerBound {
      counts = [UInt32](repeating: 0, count: Int(inside - window.lowerBound))
    }
    for range in fixedRanges { count(range) }
    for range in bitmapClusters { count(range) }
    for entry in refcountTable where entry != 0 {
      count((entry & ~0x1FF) >> bits..<(entry & ~0x1FF) >> bits + 1)
    }
    var bytes = [UInt8](repeating: 0, count: Int(header.clusterSize))
    var place = 0
    while place < l2Tables.count {
      let offset = l2Tables[place]
      var times: UInt32 = 0
      while place < l2Tables.count, l2Tables[place] == offset {
        times += 1
        place += 1
      }
      count(offset >> bits..<offset >> bits + 1, times: times)
      try storage.fill(&bytes, at: offset)
      let hasChanged = countEntries(&bytes, of: offset, times)
      if hasChanged { try storage.store(bytes, at: offset) }
    }
    if isFirstPass { try collectStatistics() }
  }

  /// Counts what an L2 table refers to; returns whether an entry was mended.
  private mutating func countEntries(_ bytes: inout [UInt8], of table: UInt64, _ times: UInt32)
    -> Bool
  {
    var hasChanged = false
    let size = Int(header.l2EntrySize)
    for index in 0..<bytes.count / size {
      let word = bytes.bigEndian64(at: index * size)
      guard word != 0 else { continue }
      if word & QCOW2.compressed != 0 {
        if word & QCOW2.copied != 0, isFirstPass {
          result.corruption(
            "copied flag must never be set for compressed clusters: \(hex(word))")
          if repair == .all {
            bytes.storeBigEndian(word & ~QCOW2.copied, at: index * size)
            result.corruptionsFixed += 1
            hasChanged = true
          }
        }
        if header.hasDataFile {
          if isFirstPass { result.corruption("compressed cluster with an external data file") }
          continue
        }
        let shift = 62 - (bits - 8)
        let offset = word & ((1 << shift) - 1)
        let sectors = ((word & (QCOW2.compressed - 1)) >> shift) + 1
        let count = sectors * 512 - offset % 512
        guard isInside(offset, count) else {
          if isFirstPass {
            result.corruption("compressed cluster past the end of the file: \(hex(offset))")
          }
          continue
        }
        self.count(header.clusterRange(offset, count), times: times)
        continue
      }
      if word & QCOW2.reservedL2 != 0, isFirstPass {
        result.corruption("L2 entry has reserved bits set: \(hex(word))")
      }
      let host = word & QCOW2.offsetMask
      guard host != 0, !header.hasDataFile else { continue }
      guard host & (header.clusterSize - 1) == 0 else {
        if isFirstPass {
          result.corruption(
            "data cluster is not properly aligned; L2 entry corrupted: \(hex(word))")
        }
        continue
      }
      guard isInside(host, header.clusterSize) else {
        if isFirstPass {
          result.corruption(
            "counting reference for region exceeding the end of the file: \(hex(host))")
        }
        continue
      }
      self.count(host >> bits..<host >> bits + 1, times: times)
    }
    return hasChanged
  }

  private mutating func collectStatistics() throws(BlockImageError) {
    var bytes = [UInt8](repeating: 0, count: Int(header.clusterSize))
    let size = Int(header.l2EntrySize)
    for entry in activeL1 {
      // Each table is looked at on its own, as QEMU does.
      var expected: UInt64 = 0
      let offset = entry & QCOW2.offsetMask
      guard offset != 0, offset & (header.clusterSize - 1) == 0,
        isInside(offset, header.clusterSize)
      else { continue }
      try storage.fill(&bytes, at: offset)
      for index in 0..<bytes.count / size {
        let word = bytes.bigEndian64(at: index * size)
        let host = word & QCOW2.offsetMask
        if word & QCOW2.compressed != 0 {
          result.compressedClusters += 1
          result.allocatedClusters += 1
          result.fragmentedClusters += 1
        } else if host != 0 || header.hasDataFile && word & QCOW2.copied != 0,
          header.hasExtendedL2 || word & QCOW2.readsAsZero == 0
        {
          result.allocatedClusters += 1
          if expected != 0, expected != host { result.fragmentedClusters += 1 }
          expected = host + header.clusterSize
        }
      }
    }
  }

  // MARK: Comparing

  private func block(_ index: UInt64) -> UInt64? {
    guard index < UInt64(refcountTable.count) else { return nil }
    let offset = refcountTable[Int(index)] & ~0x1FF
    return offset == 0 ? nil : offset
  }

  /// Compares the refcounts of the window with the uses that were counted.
  private mutating func compare() throws(BlockImageError) {
    let blockBits = header.refcountBlockBits
    let end = min(window.upperBound, max(fileClusters, highest + 1))
    var cluster = window.lowerBound
    var bytes = [UInt8](repeating: 0, count: Int(header.clusterSize))
    while cluster < end {
      let index = cluster >> blockBits
      let last = min(end, (index + 1) << blockBits)
      let offset = block(index)
      if let offset { try storage.fill(&bytes, at: offset) }
      var hasChanged = false
      for place in cluster..<last {
        let entry = Int(place & ((1 << blockBits) - 1))
        let stored = offset == nil ? 0 : bytes.refcount(width: width, at: entry)
        let counted = uses(place)
        guard stored != counted else { continue }
        if stored > 0, counted == 0, isFirstPass { highest = max(highest, place) }
        let isLeak = stored > counted
        if isLeak { result.leaks += 1 } else { result.corruptions += 1 }
        let isMended = isLeak ? repair != nil : repair == .all
        result.note(
          "\(isMended ? "Repairing" : isLeak ? "Leaked" : "ERROR") cluster \(place) "
            + "refcount=\(stored) reference=\(counted)")
        guard isMended else { continue }
        guard offset != nil, width == 64 || counted < 1 << UInt64(width), !needsRebuild else {
          if repair == .all { needsRebuild = true }
          continue
        }
        bytes.storeRefcount(counted, width: width, at: entry)
        hasChanged = true
        if isLeak { result.leaksFixed += 1 } else { result.corruptionsFixed += 1 }
      }
      // Of clusters past the end of the file the counts must be 0, too, but take no place.
      if hasChanged, let offset { try storage.store(bytes, at: offset) }
      cluster = last
    }
  }

  private var largestRefcount: UInt64 { width == 64 ? .max : (1 << UInt64(width)) - 1 }

  /// Writes new refcount blocks and a new table behind the image, and the header then.
  private mutating func rebuild() throws(BlockImageError) {
    guard max(fileClusters, highest + 1) <= Self.windowSize else {
      throw .unsupported(feature: "new refcounts for more than \(Self.windowSize) clusters")
    }
    // The old blocks and the old table are no longer counted: they become free.
    let old = refcountTable
    refcountTable = []
    fixedRanges.remove(at: 2)
    window = 0..<Self.windowSize
    try scan()
    let first = max(fileClusters, highest + 1)
    let blockBits = header.refcountBlockBits
    var blocks: UInt64 = 1
    var tableClusters: UInt64 = 1
    while true {
      tableClusters = (blocks * 8 + header.clusterSize - 1) >> bits
      let needed = (first + blocks + tableClusters + (1 << blockBits) - 1) >> blockBits
      if needed <= blocks { break }
      blocks = needed
    }
    let end = first + blocks + tableClusters
    var table: [UInt64] = []
    for index in 0..<blocks {
      var bytes = [UInt8](repeating: 0, count: Int(header.clusterSize))
      let start = index << blockBits
      for cluster in start..<max(start, min(end, start + 1 << blockBits)) {
        let value = cluster >= first ? 1 : uses(cluster)
        guard value <= largestRefcount else {
          throw .unsupported(feature: "more than \(largestRefcount) uses of a cluster")
        }
        bytes.storeRefcount(value, width: width, at: Int(cluster - start))
      }
      try storage.store(bytes, at: (first + index) << bits)
      table.append((first + index) << bits)
    }
    var bytes = table.bigEndianBytes
    bytes += [UInt8](repeating: 0, count: Int(tableClusters << bits) - bytes.count)
    let place = (first + blocks) << bits
    try storage.store(bytes, at: place)
    do throws(StorageError) { try storage.flush() } catch { throw .storage(error) }
    var field = [UInt8](repeating: 0, count: 12)
    field.storeBigEndian(place, at: 0)
    field.storeBigEndian(UInt32(tableClusters), at: 8)
    try storage.store(field, at: 48)
    _ = old
    header.refcountTableOffset = place
    header.refcountTableClusters = UInt32(tableClusters)
    refcountTable =
      table + [UInt64](repeating: 0, count: Int(tableClusters << bits / 8) - table.count)
    fixedRanges.insert(header.clusterRange(place, UInt64(refcountTable.count) * 8), at: 2)
    highest = max(highest, end - 1)
    result.corruptionsFixed = result.corruptions
    result.leaksFixed = result.leaks
    needsRebuild = false
  }

  // MARK: Copied flags

  private mutating func storedRefcount(of cluster: UInt64, _ cache: inout (UInt64, [UInt8]))
    throws(BlockImageError) -> UInt64
  {
    guard let offset = block(cluster >> header.refcountBlockBits) else { return 0 }
    if cache.0 != offset {
      if cache.1.isEmpty { cache.1 = [UInt8](repeating: 0, count: Int(header.clusterSize)) }
      try storage.fill(&cache.1, at: offset)
      cache.0 = offset
    }
    return cache.1.refcount(
      width: width, at: Int(cluster & ((1 << header.refcountBlockBits) - 1)))
  }

  /// Compares the copied flags of the active layer with the refcounts.
  private mutating func checkCopied() throws(BlockImageError) {
    let isMended =
      repair == .all || repair == .leaks && result.corruptions == 0
    var cache: (UInt64, [UInt8]) = (0, [])
    var bytes = [UInt8](repeating: 0, count: Int(header.clusterSize))
    let size = Int(header.l2EntrySize)
    for (index, entry) in activeL1.enumerated() {
      let table = entry & QCOW2.offsetMask
      guard table != 0, table & (header.clusterSize - 1) == 0,
        isInside(table, header.clusterSize)
      else { continue }
      let isOnce = try storedRefcount(of: table >> bits, &cache) == 1
      if isOnce != (entry & QCOW2.copied != 0) {
        let fixed = table | (isOnce ? QCOW2.copied : 0)
        copiedFault("L2 cluster: l1_index=\(index) l1_entry=\(hex(entry))", isMended)
        if isMended {
          var field = [UInt8](repeating: 0, count: 8)
          field.storeBigEndian(fixed, at: 0)
          try storage.store(field, at: header.l1TableOffset + UInt64(index) * 8)
          activeL1[index] = fixed
        }
      }
      guard !header.hasDataFile else { continue }
      try storage.fill(&bytes, at: table)
      var hasChanged = false
      for place in 0..<bytes.count / size {
        let word = bytes.bigEndian64(at: place * size)
        let host = word & QCOW2.offsetMask
        guard word & QCOW2.compressed == 0, host != 0, host & (header.clusterSize - 1) == 0,
          isInside(host, header.clusterSize)
        else { continue }
        let isOnce = try storedRefcount(of: host >> bits, &cache) == 1
        guard isOnce != (word & QCOW2.copied != 0) else { continue }
        copiedFault("data cluster: l2_entry=\(hex(word))", isMended)
        guard isMended else { continue }
        bytes.storeBigEndian(
          word & ~QCOW2.copied | (isOnce ? QCOW2.copied : 0), at: place * size)
        hasChanged = true
      }
      if hasChanged { try storage.store(bytes, at: table) }
    }
  }

  private mutating func copiedFault(_ what: String, _ isMended: Bool) {
    result.corruptions += 1
    if isMended { result.corruptionsFixed += 1 }
    result.note("\(isMended ? "Repairing" : "ERROR") OFLAG_COPIED \(what)")
  }

  /// Takes the marks "dirty" and "corrupt" away from an image that is whole again.
  private mutating func clearMarks() throws(BlockImageError) {
    guard header.version == 3, header.isDirty || header.isCorrupt else { return }
    header.incompatibleFeatures &= ~(QCOW2.dirty | QCOW2.corrupt)
    var field = [UInt8](repeating: 0, count: 8)
    field.storeBigEndian(header.incompatibleFeatures, at: 0)
    try storage.store(field, at: 72)
  }

  private func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
}
