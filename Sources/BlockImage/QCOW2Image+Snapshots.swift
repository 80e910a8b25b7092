// SPDX-License-Identifier: Apache-2.0

extension QCOW2Image where Storage: ~Copyable {
  /// Takes an internal snapshot of the disk as it is.
  ///
  /// - Parameters:
  ///   - name: Its name.
  ///   - seconds: The time, in seconds since 1970.
  ///   - nanoseconds: The nanoseconds of that second.
  ///   - guestNanoseconds: How long the guest had run.
  /// - Throws: When the image can't be written or the storage fails.
  public mutating func createSnapshot(
    _ name: String, seconds: UInt32, nanoseconds: UInt32, guestNanoseconds: UInt64 = 0
  ) throws(BlockImageError) {
    try checkSnapshots()
    var all = try snapshots()
    try require(
      name.utf8.count <= 65535, "snapshot name", name.utf8.count, "must be at most 65535 bytes")
    try require(all.count < 65536, "snapshot count", all.count, "must be at most 65536")
    try setInterrupted(true)
    let clusters = try allocateTogether(
      max(1, (UInt64(l1.count) * 8 + header.clusterSize - 1) >> clusterBits))
    try changeUses(of: l1, .share)
    try refreshCopied()
    metadata.add(clusters)
    let place = clusters.lowerBound << clusterBits
    try storage.store(l1.map { $0 & ~QCOW2.copied }.bigEndianBytes, at: place)
    let id = (all.compactMap { UInt64($0.id) }.max() ?? 0) + 1
    var snapshot = QCOW2Snapshot(
      id: "\(id)", name: name, seconds: seconds, nanoseconds: nanoseconds,
      guestNanoseconds: guestNanoseconds, virtualSize: virtualSize, l1TableOffset: place,
      l1Size: UInt32(l1.count))
    snapshot.extra = [UInt8](repeating: 0, count: 24)
    snapshot.extra.storeBigEndian(virtualSize, at: 8)
    all.append(snapshot)
    try storeSnapshots(all)
    try setInterrupted(false)
  }

  /// Makes the disk what it was when a snapshot was taken.
  ///
  /// - Parameter name: Which one.
  /// - Throws: When there is none, the image can't be written or the storage fails.
  public mutating func applySnapshot(_ name: QCOW2SnapshotName) throws(BlockImageError) {
    try checkSnapshots()
    guard let snapshot = try snapshots().first(where: { name.matches($0) }) else {
      throw .snapshotMissing(name: name.text)
    }
    try setInterrupted(true)
    let table = try QCOW2Tables.table(
      at: snapshot.l1TableOffset, entries: Int(snapshot.l1Size), from: &storage)
    try growL1(to: UInt64(table.count))
    try changeUses(of: table, .share)
    let old = l1
    for index in l1.indices {
      l1[index] = index < table.count ? table[index] & ~QCOW2.copied : 0
    }
    try storage.store(l1.bigEndianBytes, at: header.l1TableOffset)
    try storeSize(snapshot.virtualSize)
    try barrier()
    try changeUses(of: old, .release)
    try refreshCopied()
    try setInterrupted(false)
  }

  /// Deletes an internal snapshot.
  ///
  /// - Parameter name: Which one.
  /// - Throws: When there is none, the image can't be written or the storage fails.
  public mutating func deleteSnapshot(_ name: QCOW2SnapshotName) throws(BlockImageError) {
    try checkSnapshots()
    var all = try snapshots()
    guard let index = all.firstIndex(where: { name.matches($0) }) else {
      throw .snapshotMissing(name: name.text)
    }
    try setInterrupted(true)
    let snapshot = all.remove(at: index)
    let table = try QCOW2Tables.table(
      at: snapshot.l1TableOffset, entries: Int(snapshot.l1Size), from: &storage)
    try storeSnapshots(all)
    try changeUses(of: table, .release)
    let place = header.clusterRange(snapshot.l1TableOffset, UInt64(table.count) * 8)
    if !place.isEmpty {
      metadata.drop(place)
      try changeRefcounts(place.lowerBound, count: UInt64(place.count), .release)
    }
    try refreshCopied()
    try setInterrupted(false)
  }

  private func checkSnapshots() throws(BlockImageError) {
    try checkWritable()
    guard !header.hasDataFile else {
      throw .unsupported(feature: "internal snapshots of an image with an external data file")
    }
  }

  /// Marks the image as not closed cleanly while refcounts and flags do not fit each other.
  ///
  /// Whoever opens it after a kill counts the refcounts anew. Version 2 has no such mark; there
  /// the order of the writes leaves leaks or flags that a check repairs.
  mutating func setInterrupted(_ on: Bool) throws(BlockImageError) {
    // The tables are then read from the file.
    try writeTables()
    try barrier()
    guard header.version == 3 else { return }
    if on { header.incompatibleFeatures |= QCOW2.dirty }
    if !on { header.incompatibleFeatures &= ~QCOW2.dirty }
    var field = [UInt8](repeating: 0, count: 8)
    field.storeBigEndian(header.incompatibleFeatures, at: 0)
    try storage.store(field, at: 72)
    try barrier()
  }

  /// Counts one use more, or one less, of all that an L1 table leads to.
  private mutating func changeUses(of table: [UInt64], _ change: RefcountChange)
    throws(BlockImageError)
  {
    var bytes = [UInt8](repeating: 0, count: Int(header.clusterSize))
    for (index, entry) in table.enumerated() {
      guard let l2 = try header.l2Table(entry, index: index, fileSize: storage.byteCount) else {
        continue
      }
      try storage.fill(&bytes, at: l2)
      var run: Range<UInt64>?
      for place in 0..<UInt64(1) << header.l2Bits {
        let state = try storedState(bytes, place, index)
        var part: Range<UInt64>?
        if state.isCompressed {
          let (offset, count) = compressedRange(state.entry.word)
          part = header.clusterRange(offset, count)
        } else if let host = state.host {
          part = host >> clusterBits..<host >> clusterBits + 1
        }
        guard let part else { continue }
        if let old = run, old.upperBound == part.lowerBound {
          run = old.lowerBound..<part.upperBound
          continue
        }
        if let old = run {
          try changeRefcounts(old.lowerBound, count: UInt64(old.count), change)
        }
        run = part
      }
      if let old = run { try changeRefcounts(old.lowerBound, count: UInt64(old.count), change) }
      try changeRefcounts(l2 >> clusterBits, count: 1, change)
    }
  }

  private func storedState(_ bytes: [UInt8], _ place: UInt64, _ index: Int)
    throws(BlockImageError) -> ClusterState
  {
    let at = Int(place * header.l2EntrySize)
    var entry = L2Entry(word: bytes.bigEndian64(at: at))
    if header.hasExtendedL2 { entry.bitmap = bytes.bigEndian64(at: at + 8) }
    return try header.decode(
      entry, cluster: UInt64(index) << header.l2Bits | place, dataSize: dataByteCount)
  }

  /// Makes the copied flags of the active layer say which clusters are used once.
  private mutating func refreshCopied() throws(BlockImageError) {
    var bytes = [UInt8](repeating: 0, count: Int(header.clusterSize))
    for (index, entry) in l1.enumerated() {
      guard let l2 = try header.l2Table(entry, index: index, fileSize: storage.byteCount) else {
        continue
      }
      try storage.fill(&bytes, at: l2)
      var hasChanged = false
      for place in 0..<UInt64(1) << header.l2Bits {
        let state = try storedState(bytes, place, index)
        guard !state.isCompressed, let host = state.host else { continue }
        let isOnce = try refcount(of: host >> clusterBits) == 1
        guard isOnce != state.isOwned else { continue }
        bytes.storeBigEndian(
          state.entry.word & ~QCOW2.copied | (isOnce ? QCOW2.copied : 0),
          at: Int(place * header.l2EntrySize))
        hasChanged = true
      }
      if hasChanged {
        try storage.store(bytes, at: l2)
        l2Cache.drop(l2, count: header.clusterSize)
      }
      let isOnce = try refcount(of: l2 >> clusterBits) == 1
      guard isOnce != (entry & QCOW2.copied != 0) else { continue }
      l1[index] = l2 | (isOnce ? QCOW2.copied : 0)
      try storeL1Entry(index)
    }
  }

  /// Writes the snapshot table to a new place, enters it in the header and gives up the old one.
  private mutating func storeSnapshots(_ all: [QCOW2Snapshot]) throws(BlockImageError) {
    let oldLength = try header.forEachSnapshot(on: &storage) { (_) throws(BlockImageError) in true }
    let old = header.clusterRange(header.snapshotTableOffset, oldLength)
    var bytes: [UInt8] = []
    for snapshot in all { bytes += snapshot.tableBytes }
    var place: UInt64 = 0
    if !bytes.isEmpty {
      let clusters = try allocateTogether(
        (UInt64(bytes.count) + header.clusterSize - 1) >> clusterBits)
      metadata.add(clusters)
      place = clusters.lowerBound << clusterBits
      bytes += [UInt8](
        repeating: 0, count: Int(UInt64(clusters.count) << clusterBits) - bytes.count)
      try storage.store(bytes, at: place)
    }
    try barrier()
    var field = [UInt8](repeating: 0, count: 12)
    field.storeBigEndian(UInt32(all.count), at: 0)
    field.storeBigEndian(place, at: 4)
    try storage.store(field, at: 60)
    try barrier()
    header.snapshotCount = UInt32(all.count)
    header.snapshotTableOffset = place
    guard !old.isEmpty else { return }
    metadata.drop(old)
    try changeRefcounts(old.lowerBound, count: UInt64(old.count), .release)
  }

  /// Enters a new size of the disk in the header.
  mutating func storeSize(_ size: UInt64) throws(BlockImageError) {
    var field = [UInt8](repeating: 0, count: 8)
    field.storeBigEndian(size, at: 0)
    try storage.store(field, at: 24)
    header.virtualSize = size
  }

  /// Makes the disk larger or smaller.
  ///
  /// - Parameter size: The new size in bytes.
  /// - Throws: When the format does not allow it or the storage fails.
  public mutating func resize(to size: UInt64) throws(BlockImageError) {
    try checkWritable()
    try require(size <= 1 << 62, "size", size, "must be at most 2^62")
    if header.snapshotCount > 0, header.version == 2 {
      throw .unsupported(feature: "a new size for an image of version 2 with snapshots")
    }
    let old = virtualSize
    if size < old {
      let first = min(old, (size + header.clusterSize - 1) & ~(header.clusterSize - 1))
      if size < first { try zero(at: size, count: first - size) }
      try discard(at: first, count: old - first)
      try flush()
    } else {
      try growL1(to: header.l1Entries(for: size))
      // What the backing image has there must not come to light, also not when this is cut short.
      if old < backingSize {
        header.virtualSize = size
        do throws(BlockImageError) {
          try zero(at: old, count: min(size, backingSize) - old)
          try flush()
        } catch {
          header.virtualSize = old
          throw error
        }
      }
    }
    try storeSize(size)
    try flush()
  }

  /// Makes every cluster of the disk come from the backing image again.
  ///
  /// - Throws: When the image can't be written or the storage fails.
  public mutating func makeEmpty() throws(BlockImageError) {
    try checkSnapshots()
    try setInterrupted(true)
    let old = l1
    for index in l1.indices { l1[index] = 0 }
    try storage.store(l1.bigEndianBytes, at: header.l1TableOffset)
    try barrier()
    try changeUses(of: old, .release)
    for cluster in old where cluster & QCOW2.offsetMask != 0 {
      metadata.remove((cluster & QCOW2.offsetMask) >> clusterBits)
    }
    try setInterrupted(false)
  }

  /// Names another backing file in the header, or none.
  ///
  /// - Parameters:
  ///   - name: The name as it goes into the image; `nil` for none.
  ///   - format: Its format.
  /// - Throws: When the names do not fit the header's cluster or the storage fails.
  public mutating func changeBacking(_ name: String?, format: String?) throws(BlockImageError) {
    try checkWritable()
    var first = [UInt8](repeating: 0, count: Int(min(header.clusterSize, storage.byteCount)))
    try storage.fill(&first, at: 0)
    var extensions: [(UInt32, [UInt8])] = []
    let end = Int(first.bigEndian64(at: 8))
    var position = Int(header.headerLength)
    while position + 8 <= (end > 0 ? min(end, first.count) : first.count) {
      let type = first.bigEndian32(at: position)
      let length = Int(first.bigEndian32(at: position + 4))
      guard type != QCOW2.extensionEnd, length <= first.count - position - 8 else { break }
      if type != QCOW2.extensionBackingFormat {
        extensions.append((type, Array(first[position + 8..<position + 8 + length])))
      }
      position += 8 + (length + 7) & ~7
    }
    var bytes = try QCOW2.assembleHeader(
      Array(first[..<Int(header.headerLength)]), extensions, backing: name, format: format,
      clusterSize: Int(header.clusterSize))
    bytes += [UInt8](repeating: 0, count: max(0, first.count - bytes.count))
    try storage.store(bytes, at: 0)
    header.backingFileName = name
    header.backingFormat = format
    try barrier()
  }
}

extension QCOW2Snapshot {
  /// The entry of the snapshot table, padded to eight bytes.
  var tableBytes: [UInt8] {
    let idBytes = Array(id.utf8)
    let nameBytes = Array(name.utf8)
    var bytes = [UInt8](repeating: 0, count: 40)
    bytes.storeBigEndian(l1TableOffset, at: 0)
    bytes.storeBigEndian(l1Size, at: 8)
    bytes.storeBigEndian(UInt16(clamping: idBytes.count), at: 12)
    bytes.storeBigEndian(UInt16(clamping: nameBytes.count), at: 14)
    bytes.storeBigEndian(seconds, at: 16)
    bytes.storeBigEndian(nanoseconds, at: 20)
    bytes.storeBigEndian(guestNanoseconds, at: 24)
    bytes.storeBigEndian(UInt32(clamping: stateSize), at: 32)
    bytes.storeBigEndian(UInt32(extra.count), at: 36)
    bytes += extra + idBytes + nameBytes
    return bytes + [UInt8](repeating: 0, count: (8 - bytes.count % 8) % 8)
  }
}

extension QCOW2Header {
  /// Reads the table of internal snapshots.
  ///
  /// - Parameter storage: The image file.
  /// - Returns: The snapshots, in the table's order.
  /// - Throws: An error that names the field at fault.
  public func snapshots<Storage: BlockStorage & ~Copyable>(on storage: inout Storage)
    throws(BlockImageError) -> [QCOW2Snapshot]
  {
    var all: [QCOW2Snapshot] = []
    try forEachSnapshot(on: &storage) { (snapshot) throws(BlockImageError) in
      all.append(snapshot)
      return true
    }
    return all
  }
}
