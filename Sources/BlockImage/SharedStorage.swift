// SPDX-License-Identifier: Apache-2.0

/// What reads and writes the bytes of a storage, by several threads at once.
public protocol StoragePort: Sendable {
  /// Fills `buffer` with the bytes from `offset`; bytes past the end read as zero.
  func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64) throws(StorageError)

  /// Writes all of `bytes` at `offset`.
  func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError)

  /// Lets the host have the space of `count` bytes from `offset` back, as far as it takes it.
  ///
  /// They read as zero afterwards, or as before.
  func discard(at offset: UInt64, count: UInt64) throws(StorageError)

  /// Makes everything written so far durable.
  func flush() throws(StorageError)
}

/// A storage whose data may be read and written past it, while others use the storage itself.
public protocol SharedStorage: BlockStorage, ~Copyable {
  associatedtype Port: StoragePort

  var port: Port { get }

  /// Takes note that bytes up to `end` were written through the port.
  mutating func noteWritten(upTo end: UInt64)
}

/// Where the bytes of a part of a disk are read from.
public enum ReadSource<Port: StoragePort>: Sendable {
  case zero
  /// Bytes of a file, decrypted where there is a cipher.
  case data(Port, offset: UInt64, cipher: (any SectorCipher)?)
  /// A cluster that was decompressed before; the bytes begin at `start`.
  case inflated([UInt8], start: Int)
  case compressed(CompressedCluster<Port>)
  /// A piece of a table has to be brought in first; then the bytes are planned anew.
  case absent(TablePiece<Port>)
}

/// A piece of an L2 table that is not in the cache.
public struct TablePiece<Port: StoragePort>: Sendable {
  public var port: Port
  /// Where it is in the file.
  public var offset: UInt64
  /// Its length in bytes.
  public var count: Int
  /// The image of the chain that it is in, the first being 0.
  var depth: Int
  var stamp: UInt64
}

/// A compressed cluster, and which of its bytes are meant.
public struct CompressedCluster<Port: StoragePort>: Sendable {
  public var port: Port
  /// Where it is in the file.
  public var offset: UInt64
  /// How many bytes it has there at most.
  public var count: Int
  public var kind: QCOW2Compression
  public var clusterSize: Int
  /// Where in the cluster the bytes begin.
  public var start: Int
  /// The place of the cluster on the disk, for an error.
  public var guestOffset: UInt64
  /// The image of the chain that it is in, the first being 0.
  var depth: Int
  var entry: UInt64
}

/// A part of a disk that is read from one place.
public struct ReadPlan<Port: StoragePort>: Sendable {
  public var source: ReadSource<Port>
  /// Its length in bytes, at least 1; 0 when a table is absent.
  public var count: Int
}

extension BlockImage where Storage: SharedStorage & ~Copyable {
  /// What reads and writes the file that the data is in.
  public var dataPort: Storage.Port {
    switch self {
    case .raw(let image): image.storage.port
    case .qcow2(let image): image.dataPort
    }
  }

  /// Does something with a qcow2 image; `nil` for a raw one.
  public mutating func withQCOW2<Result>(
    _ body: (inout QCOW2Image<Storage, Decompressor>) throws(BlockImageError) -> Result
  ) throws(BlockImageError) -> Result? {
    switch consume self {
    case .raw(let image):
      self = .raw(image)
      return nil
    case .qcow2(var image):
      do throws(BlockImageError) {
        let result = try body(&image)
        self = .qcow2(image)
        return result
      } catch {
        self = .qcow2(image)
        throw error
      }
    }
  }

  /// Says where the bytes at `offset` are read from, and how many of `limit` from there.
  mutating func planRead(at offset: UInt64, limit: Int, bringsTables: Bool, depth: Int)
    throws(BlockImageError) -> ReadPlan<Storage.Port>
  {
    let plan = try withQCOW2 { (image) throws(BlockImageError) in
      try image.planRead(at: offset, limit: limit, bringsTables: bringsTables, depth: depth)
    }
    return plan
      ?? ReadPlan(source: .data(dataPort, offset: offset, cipher: nil), count: limit)
  }

  /// Takes a piece of a table.
  mutating func insert(_ bytes: Span<UInt8>, _ piece: TablePiece<Storage.Port>, depth: Int) {
    _ = try? withQCOW2 { (image) throws(BlockImageError) in
      image.insert(bytes, piece, depth: depth)
    }
  }

  /// Keeps a decompressed cluster for the next read.
  mutating func keep(
    _ bytes: [UInt8], of cluster: CompressedCluster<Storage.Port>, depth: Int
  ) {
    _ = try? withQCOW2 { (image) throws(BlockImageError) in
      image.keep(bytes, of: cluster, depth: depth)
    }
  }
}

extension QCOW2Image where Storage: SharedStorage & ~Copyable {
  /// What reads and writes the file that the data is in.
  public var dataPort: Storage.Port {
    switch dataFile {
    case .some(let file): file.port
    case .none: storage.port
    }
  }

  /// What has to be flushed, in this order.
  var ports: [Storage.Port] {
    switch dataFile {
    case .some(let file): [file.port, storage.port]
    case .none: [storage.port]
    }
  }

  /// What encrypts the data.
  public func dataCipher() throws(BlockImageError) -> (any SectorCipher)? {
    guard header.isEncrypted else { return nil }
    guard let cipher else { throw .keyMissing }
    return cipher
  }

  /// Says where the bytes at `offset` are read from, and how many of `limit` from there.
  ///
  /// It holds for as long as nobody changes how these clusters are kept.
  ///
  /// - Parameters:
  ///   - offset: Inside the disk, or in its last cluster.
  ///   - limit: The most bytes, at least 1.
  ///   - bringsTables: Whether a table that is not in the cache is read here, or returned as
  ///     absent.
  ///   - depth: How many images lie in front of this one.
  /// - Returns: The part, from `offset` on.
  /// - Throws: An error that names the field at fault; the image is then marked as corrupt.
  public mutating func planRead(
    at offset: UInt64, limit: Int, bringsTables: Bool = true, depth: Int = 0
  ) throws(BlockImageError) -> ReadPlan<Storage.Port> {
    try markingCorrupt { (image) throws(BlockImageError) in
      if !bringsTables, let piece = try image.absentTable(at: offset, count: limit, depth: depth) {
        return ReadPlan(source: .absent(piece), count: 0)
      }
      let (source, count) = try image.run(at: offset, limit: limit)
      switch source {
      case .zero: return ReadPlan(source: .zero, count: count)
      case .unallocated:
        guard let backing = image.backing, offset < image.backingSize else {
          return ReadPlan(source: .zero, count: count)
        }
        let inside = Int(min(UInt64(count), image.backingSize - offset))
        return try backing.image.planRead(
          at: offset, limit: inside, bringsTables: bringsTables, depth: depth + 1)
      case .data(let host):
        return ReadPlan(
          source: .data(
            image.dataPort, offset: host + offset % image.header.clusterSize,
            cipher: try image.dataCipher()), count: count)
      case .compressed(let entry):
        return ReadPlan(source: try image.compressed(entry, offset, depth), count: count)
      }
    }
  }

  /// Returns the first piece of the L2 table for `offset` that a request needs and that is not
  /// in the cache.
  private func absentTable(at offset: UInt64, count: Int, depth: Int) throws(BlockImageError)
    -> TablePiece<Storage.Port>?
  {
    let first = offset >> clusterBits
    let index = Int(first >> header.l2Bits)
    guard index < l1.count,
      let table = try header.l2Table(l1[index], index: index, fileSize: storage.byteCount)
    else { return nil }
    let end = min(
      (offset + UInt64(count) - 1) >> clusterBits, first | ((1 << header.l2Bits) - 1))
    let size = l2Cache.sliceBytes
    var place = l2EntryOffset(first, table) / size * size
    while place <= l2EntryOffset(end, table) {
      if !l2Cache.isPresent(place) {
        return TablePiece(
          port: storage.port, offset: place, count: Int(size), depth: depth,
          stamp: l2Cache.stamp)
      }
      place += size
    }
    return nil
  }

  /// The piece of a table that a write needs before it can be planned, if there is one.
  public mutating func absentTable(at offset: UInt64, count: Int) throws(BlockImageError)
    -> TablePiece<Storage.Port>?
  {
    try markingCorrupt { (image) throws(BlockImageError) in
      try image.absentTable(at: offset, count: count, depth: 0)
    }
  }

  /// Takes a piece of a table that was read through the port, unless tables changed meanwhile.
  public mutating func insert(
    _ bytes: Span<UInt8>, _ piece: TablePiece<Storage.Port>, depth: Int = 0
  ) {
    guard depth < piece.depth else {
      l2Cache.insert(bytes, at: piece.offset, stamp: piece.stamp)
      return
    }
    backing?.image.insert(bytes, piece, depth: depth + 1)
  }

  private func compressed(_ entry: UInt64, _ offset: UInt64, _ depth: Int) throws(BlockImageError)
    -> ReadSource<Storage.Port>
  {
    let within = Int(offset % header.clusterSize)
    if inflatedEntry == entry { return .inflated(inflated, start: within) }
    let (place, count) = try compressedPlace(entry, guestOffset: offset)
    return .compressed(
      CompressedCluster(
        port: storage.port, offset: place, count: count, kind: header.compression,
        clusterSize: Int(header.clusterSize), start: within, guestOffset: offset, depth: depth,
        entry: entry))
  }

  /// Keeps a decompressed cluster for the next read.
  public mutating func keep(
    _ bytes: [UInt8], of cluster: CompressedCluster<Storage.Port>, depth: Int = 0
  ) {
    guard depth < cluster.depth else {
      inflated = bytes
      inflatedEntry = cluster.entry
      return
    }
    backing?.image.keep(bytes, of: cluster, depth: depth + 1)
  }

  /// Prepares the start of a write, as far as that changes no table; `nil` where one has to.
  public mutating func planSharedWrite(at offset: UInt64, count: Int) throws(BlockImageError)
    -> WritePlan?
  {
    try checkWritable()
    return try markingCorrupt { (image) throws(BlockImageError) in
      try image.planInPlace(at: offset, count: count)
    }
  }

  /// Prepares the start of a write for one who has its clusters alone.
  public mutating func planExclusiveWrite(at offset: UInt64, count: Int) throws(BlockImageError)
    -> WritePlan
  {
    try checkWritable()
    return try markingCorrupt { (image) throws(BlockImageError) in
      try image.planWrite(at: offset, count: count)
    }
  }

  /// Ends a write that was done through the port.
  public mutating func finish(_ plan: WritePlan) throws(BlockImageError) {
    for step in plan.steps { noteWritten(upTo: step.host + UInt64(step.count)) }
    try markingCorrupt { (image) throws(BlockImageError) in try image.commit(plan) }
  }

  /// Gives up what was taken for a write that failed.
  public mutating func giveUp(_ plan: WritePlan) { abandon(plan) }

  private mutating func noteWritten(upTo end: UInt64) {
    if header.hasDataFile {
      dataFile?.noteWritten(upTo: end)
    } else {
      storage.noteWritten(upTo: end)
    }
  }

  /// Begins a flush: what is returned has to be flushed then, in this order.
  ///
  /// - Returns: What flushes the files, and the clusters to give up afterwards.
  /// - Throws: When a table can't be written.
  public mutating func beginFlush() throws(BlockImageError) -> FlushPlan<Storage.Port> {
    if hasUnwrittenTables() { try writeTables() }
    let releases = pendingReleases
    pendingReleases = []
    do throws(BlockImageError) {
      return FlushPlan(ports: ports, space: try spacePlan(releases))
    } catch {
      pendingReleases = releases
      throw error
    }
  }

  /// Ends a flush, well or not.
  public mutating func endFlush(_ plan: FlushPlan<Storage.Port>, isDurable: Bool)
    throws(BlockImageError)
  {
    guard isDurable else {
      pendingReleases = plan.space.releases + pendingReleases
      return
    }
    guard !plan.space.releases.isEmpty else { return }
    try giveUp(plan.space)
    try refcountCache.writeDirty(to: &storage)
  }

  /// Zeroes or discards a part of the disk in the tables.
  ///
  /// The space is given back by what is returned. Nobody else may use that part meanwhile.
  public mutating func beginChange(at offset: UInt64, count: UInt64, isDiscard: Bool)
    throws(BlockImageError) -> SpacePlan<Storage.Port>
  {
    heldDiscards = []
    do throws(BlockImageError) {
      if isDiscard {
        try discard(at: offset, count: count)
      } else {
        try zero(at: offset, count: count)
      }
      let releases = heldDiscards ?? []
      heldDiscards = nil
      return try spacePlan(releases)
    } catch {
      // What no table refers to any more may leak, but need not.
      for release in heldDiscards ?? [] { try? releaseNow(release) }
      heldDiscards = nil
      throw error
    }
  }

  /// Says which space of clusters that are given up the host can have.
  ///
  /// It is that of clusters that have no other use. They stay taken until they are given up.
  private mutating func spacePlan(_ releases: [PendingRelease]) throws(BlockImageError)
    -> SpacePlan<Storage.Port>
  {
    var plan = SpacePlan(port: storage.port)
    for release in releases {
      guard release.isDiscard else {
        plan.releases.append(release)
        continue
      }
      var first = release.first
      let end = release.first + release.count
      while first < end {
        let isLast = try isLastUse(first)
        var next = first + 1
        while next < end, try isLastUse(next) == isLast { next += 1 }
        if isLast { plan.holes.append(first << clusterBits..<next << clusterBits) }
        plan.releases.append(
          PendingRelease(first: first, count: next - first, isDiscard: !isLast))
        first = next
      }
    }
    return plan
  }

  private mutating func isLastUse(_ cluster: UInt64) throws(BlockImageError) -> Bool {
    try refcount(of: cluster) == 1 && !metadata.contains(cluster)
  }

  /// Gives up the clusters whose space was given back.
  public mutating func giveUp(_ plan: SpacePlan<Storage.Port>) throws(BlockImageError) {
    for release in plan.releases { try releaseNow(release) }
  }

  private mutating func markingCorrupt<Result>(
    _ body: (inout Self) throws(BlockImageError) -> Result
  ) throws(BlockImageError) -> Result {
    do throws(BlockImageError) { return try body(&self) } catch {
      if case .malformed = error { markCorrupt() }
      throw error
    }
  }
}

/// A flush that was begun.
public struct FlushPlan<Port: StoragePort>: Sendable {
  /// What has to be flushed, in this order.
  public var ports: [Port]
  /// What is given back after that.
  public var space: SpacePlan<Port>
}

/// Clusters that no table refers to any more, and that are still taken.
public struct SpacePlan<Port: StoragePort>: Sendable {
  var port: Port
  /// The bytes of the file that the host can have.
  var holes: [Range<UInt64>] = []
  var releases: [PendingRelease] = []

  init(port: Port) { self.port = port }

  /// Lets the host have the space.
  ///
  /// That it can't is no failure: the space is only its to save.
  public func giveBack() {
    for hole in holes {
      try? port.discard(at: hole.lowerBound, count: hole.upperBound - hole.lowerBound)
    }
  }
}

extension ClusterDecompressor {
  /// Decompresses `input` so that it fills `output`.
  public mutating func decompress(
    _ kind: QCOW2Compression, _ input: [UInt8], intoAll output: inout [UInt8]
  ) -> Bool {
    var span = output.mutableSpan
    switch kind {
    case .deflate: return inflate(input.span, into: &span)
    case .zstd: return decompressZstd(input.span, into: &span)
    }
  }
}
