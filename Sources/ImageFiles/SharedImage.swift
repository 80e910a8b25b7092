// SPDX-License-Identifier: Apache-2.0

public import BlockImage
internal import Synchronization

/// An image that several threads use at once; data is transferred without a lock over it.
///
/// Under the image's lock a request only finds out where its bytes are, or takes clusters for
/// them; pieces of tables are read, and space is given back to the host, without it. What changes
/// tables and refcounts writes them under it. Meanwhile it holds the guest clusters that it
/// touches: shared for reads and for writes
/// in place, exclusively for what changes how they are kept (allocation, copy on write, zeroing,
/// discarding). So what a request has found out stays so until its transfer has ended, and a
/// cluster is given to somebody else only after that.
public final class SharedImage<
  Storage: SharedStorage & ~Copyable, Decompressor: ClusterDecompressor & Sendable
>: Sendable {
  /// The size of the disk in bytes.
  public var virtualSize: UInt64 { size.load(ordering: .acquiring) }
  private let size: Atomic<UInt64>
  /// Whether the image is written, and its format.
  public let isWritable: Bool
  public let isRaw: Bool
  private let image: Shared<BlockImage<Storage, Decompressor>>
  private let ranges = RangeLock()
  private let decompressor: Decompressor
  /// What a raw image is read and written with; it has no tables to look anything up in.
  private let raw: (port: Storage.Port, isWritable: Bool)?
  /// How many pieces of tables are brought for one plan before it reads them itself: others may
  /// have changed or replaced them each time.
  private static var mostPieces: Int { 8 }
  /// The unit of what is held.
  private let clusterSize: UInt64

  /// Takes an image.
  public init(
    _ image: consuming sending BlockImage<Storage, Decompressor>, decompressor: Decompressor
  ) {
    let info = image.info
    size = Atomic(image.virtualSize)
    isWritable = info.isWritable
    isRaw = info.format == "raw"
    clusterSize = max(1, info.clusterSize)
    raw = info.format == "raw" ? (image.dataPort, info.isWritable) : nil
    self.decompressor = decompressor
    self.image = Shared(image)
  }

  /// Fills `buffer` with the disk's bytes from `offset`.
  public func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(BlockImageError)
  {
    try check(offset, UInt64(buffer.count))
    if let raw { return try raw.port.read(into: &buffer, at: offset, cipher: nil) }
    let ticket = ranges.lock(clusters(offset, buffer.count), isExclusive: false)
    defer { ranges.unlock(ticket) }
    try readHeld(into: &buffer, at: offset)
  }

  /// Fills `buffer` with the disk's bytes from `offset` when that needs no waiting.
  ///
  /// Where it does, or anything is wrong, the buffer holds anything.
  public func readCached(into buffer: inout MutableSpan<UInt8>, at offset: UInt64) -> Bool {
    guard offset <= virtualSize, UInt64(buffer.count) <= virtualSize - offset else { return false }
    if let raw { return raw.port.readCached(into: &buffer, at: offset) }
    guard let ticket = ranges.lockNow(clusters(offset, buffer.count), isExclusive: false) else {
      return false
    }
    defer { ranges.unlock(ticket) }
    var done = 0
    while done < buffer.count {
      let position = offset + UInt64(done)
      let limit = buffer.count - done
      let found = try? image.withLock { (image) throws(BlockImageError) in
        try image.withQCOW2 { (image) throws(BlockImageError) in
          try image.planRead(at: position, limit: limit, bringsTables: false)
        }
      }
      guard let plan = found ?? nil else { return false }
      var part = buffer._mutatingExtracting(done..<done + plan.count)
      switch plan.source {
      case .zero: part.update(repeating: 0)
      case .data(let port, let place, nil):
        guard port.readCached(into: &part, at: place) else { return false }
      case .data, .inflated, .compressed, .absent: return false
      }
      done += plan.count
    }
    return true
  }

  /// Writes `bytes` to the disk at `offset`.
  public func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(BlockImageError) {
    try check(offset, UInt64(bytes.count))
    guard !bytes.isEmpty else { return }
    if let raw {
      guard raw.isWritable else { throw .notWritable(reason: "it was opened read-only") }
      return try raw.port.write(bytes, at: offset, cipher: nil)
    }
    let done = try writeInPlace(bytes, at: offset)
    guard done < bytes.count else { return }
    let rest = bytes.extracting(done..<bytes.count)
    let start = offset + UInt64(done)
    let ticket = ranges.lock(clusters(start, rest.count), isExclusive: true)
    defer { ranges.unlock(ticket) }
    var written = 0
    while written < rest.count {
      written += try writeHeld(rest.extracting(written..<rest.count), at: start + UInt64(written))
    }
  }

  /// Makes a part of the disk read as zero.
  public func zero(at offset: UInt64, count: UInt64) throws(BlockImageError) {
    try change(offset, count, isDiscard: false)
  }

  /// Gives the space of a part of the disk back, as far as the format can.
  public func discard(at offset: UInt64, count: UInt64) throws(BlockImageError) {
    try change(offset, count, isDiscard: true)
  }

  /// Makes every finished write durable.
  public func flush() throws(BlockImageError) {
    if let raw { return try raw.port.flushed() }
    let plan = try image.withLock { (image) throws(BlockImageError) in
      try image.withQCOW2 { (image) throws(BlockImageError) in try image.beginFlush() }
    }
    guard let plan else { return }
    do throws(BlockImageError) {
      for port in plan.ports { try port.flushed() }
    } catch {
      try? end(plan, isDurable: false)
      throw error
    }
    plan.space.giveBack()
    try end(plan, isDurable: true)
  }

  /// Does something with the image while nobody else uses it.
  public func exclusively<Result: Sendable>(
    _ body: @Sendable (inout BlockImage<Storage, Decompressor>) throws(BlockImageError) -> Result
  ) throws(BlockImageError) -> Result {
    let ticket = ranges.lock(0..<UInt64.max, isExclusive: true)
    defer { ranges.unlock(ticket) }
    return try image.withLock { (image) throws(BlockImageError) in
      // It may have another size then.
      defer { size.store(image.virtualSize, ordering: .releasing) }
      return try body(&image)
    }
  }

  /// Makes the disk larger or smaller.
  ///
  /// - Precondition: Nobody reads or writes a raw image meanwhile: that holds nothing.
  /// - Throws: When the format does not allow it or the storage fails.
  public func resize(to count: UInt64) throws(BlockImageError) {
    let ticket = ranges.lock(0..<UInt64.max, isExclusive: true)
    defer { ranges.unlock(ticket) }
    try image.withLock { (image) throws(BlockImageError) in
      defer { size.store(image.virtualSize, ordering: .releasing) }
      try image.resize(to: count)
    }
  }

  // MARK: What is held

  private func check(_ offset: UInt64, _ count: UInt64) throws(BlockImageError) {
    guard offset <= virtualSize, count <= virtualSize - offset else {
      throw .outOfRange(offset: offset, count: count, virtualSize: virtualSize)
    }
  }

  /// The bytes of the clusters that `count` bytes from `offset` on touch.
  private func clusters(_ offset: UInt64, _ count: Int) -> Range<UInt64> {
    let end = offset + UInt64(count) + clusterSize - 1
    return offset / clusterSize * clusterSize..<end / clusterSize * clusterSize
  }

  /// Changes how a part of the disk is kept, in pieces, so that others get their turn.
  private func change(_ offset: UInt64, _ count: UInt64, isDiscard: Bool) throws(BlockImageError) {
    if let raw, isDiscard { return try discard(raw, offset, count) }
    let most = clusterSize * 256
    var done: UInt64 = 0
    repeat {
      let start = offset &+ done
      // A request outside of the disk is refused by the image.
      let end = raw == nil && start < virtualSize ? (start / most + 1) * most : UInt64.max
      let piece = min(count - done, end - start)
      let range = start / clusterSize * clusterSize..<max(start, end)
      let ticket = ranges.lock(range, isExclusive: true)
      defer { ranges.unlock(ticket) }
      let space = try image.withLock { (image) throws(BlockImageError) in
        let space = try image.withQCOW2 { (image) throws(BlockImageError) in
          try image.beginChange(at: start, count: piece, isDiscard: isDiscard)
        }
        if space == nil { try image.zero(at: start, count: piece) }
        return space
      }
      if let space {
        space.giveBack()
        try image.withLock { (image) throws(BlockImageError) in
          _ = try image.withQCOW2 { (image) throws(BlockImageError) in try image.giveUp(space) }
        }
      }
      done += piece
    } while done < count
  }

  private func discard(
    _ raw: (port: Storage.Port, isWritable: Bool), _ offset: UInt64, _ count: UInt64
  ) throws(BlockImageError) {
    guard raw.isWritable else { throw .notWritable(reason: "it was opened read-only") }
    try check(offset, count)
    guard count > 0 else { return }
    do throws(StorageError) { try raw.port.discard(at: offset, count: count) } catch {
      throw .storage(error)
    }
  }

  // MARK: Transfers

  private func readHeld(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(BlockImageError)
  {
    var done = 0
    var brought = 0
    while done < buffer.count {
      let position = offset + UInt64(done)
      let limit = buffer.count - done
      let bringsTables = brought == Self.mostPieces
      let plan = try image.withLock { (image) throws(BlockImageError) in
        try image.withQCOW2 { (image) throws(BlockImageError) in
          try image.planRead(at: position, limit: limit, bringsTables: bringsTables)
        }
      }
      guard let plan else { return }
      if case .absent(let piece) = plan.source {
        try bring(piece)
        brought += 1
        continue
      }
      brought = 0
      var part = buffer._mutatingExtracting(done..<done + plan.count)
      try read(plan.source, into: &part)
      done += plan.count
    }
  }

  private func read(_ source: ReadSource<Storage.Port>, into part: inout MutableSpan<UInt8>)
    throws(BlockImageError)
  {
    switch source {
    case .zero, .absent: part.update(repeating: 0)
    case .data(let port, let place, let cipher):
      try port.read(into: &part, at: place, cipher: cipher)
    case .inflated(let bytes, let start):
      for index in 0..<part.count { part[index] = bytes[start + index] }
    case .compressed(let cluster):
      let bytes = try inflate(cluster)
      for index in 0..<part.count { part[index] = bytes[cluster.start + index] }
    }
  }

  /// Reads a piece of a table into the image's cache.
  private func bring(_ piece: TablePiece<Storage.Port>) throws(BlockImageError) {
    var bytes = [UInt8](repeating: 0, count: piece.count)
    var span = bytes.mutableSpan
    try piece.port.read(into: &span, at: piece.offset, cipher: nil)
    let table = bytes
    image.withLock { image in
      _ = try? image.withQCOW2 { (image) throws(BlockImageError) in
        image.insert(table.span, piece)
      }
    }
  }

  private func inflate(_ cluster: CompressedCluster<Storage.Port>) throws(BlockImageError)
    -> [UInt8]
  {
    var input = [UInt8](repeating: 0, count: cluster.count)
    var span = input.mutableSpan
    try cluster.port.read(into: &span, at: cluster.offset, cipher: nil)
    var output = [UInt8](repeating: 0, count: cluster.clusterSize)
    var decompressor = decompressor
    guard decompressor.decompress(cluster.kind, input, intoAll: &output) else {
      throw .corruptCompressedCluster(guestOffset: cluster.guestOffset)
    }
    let bytes = output
    image.withLock { image in
      _ = try? image.withQCOW2 { (image) throws(BlockImageError) in image.keep(bytes, of: cluster) }
    }
    return output
  }

  /// Writes the start of `bytes` as far as that changes no table; returns how much it was.
  private func writeInPlace(_ bytes: Span<UInt8>, at offset: UInt64) throws(BlockImageError) -> Int
  {
    let ticket = ranges.lock(clusters(offset, bytes.count), isExclusive: false)
    defer { ranges.unlock(ticket) }
    var done = 0
    while done < bytes.count {
      let position = offset + UInt64(done)
      let limit = bytes.count - done
      guard let (plan, port, cipher) = try plan(at: position, limit, isExclusive: false) else {
        break
      }
      try perform(plan, bytes.extracting(done..<bytes.count), at: position, port, cipher)
      done += plan.count
    }
    return done
  }

  /// Writes the start of `bytes`, whose clusters are held exclusively; returns how much it was.
  private func writeHeld(_ bytes: Span<UInt8>, at offset: UInt64) throws(BlockImageError) -> Int {
    let count = bytes.count
    guard let (plan, port, cipher) = try plan(at: offset, count, isExclusive: true) else {
      return count
    }
    try perform(plan, bytes, at: offset, port, cipher)
    return plan.count
  }

  /// What writes a plan's bytes, and what encrypts them.
  private typealias Planned = (WritePlan, Storage.Port, (any SectorCipher)?)

  private enum Planning {
    case absent(TablePiece<Storage.Port>)
    case planned(Planned?)
  }

  /// Plans a write when the pieces of tables that it needs are there.
  private func plan(
    at offset: UInt64, _ count: Int, isExclusive: Bool
  ) throws(BlockImageError) -> Planned? {
    var brought = 0
    while true {
      let bringsTables = brought == Self.mostPieces
      let planning = try image.withLock { (image) throws(BlockImageError) in
        try image.withQCOW2 { (image) throws(BlockImageError) -> Planning in
          if !bringsTables, let piece = try image.absentTable(at: offset, count: count) {
            return .absent(piece)
          }
          let plan: WritePlan?
          if isExclusive {
            plan = try image.planExclusiveWrite(at: offset, count: count)
          } else if image.header.isEncrypted, offset % 512 != 0 || count % 512 != 0 {
            // A sector that is encrypted is written whole; what is not whole is done alone.
            plan = nil
          } else {
            plan = try image.planSharedWrite(at: offset, count: count)
          }
          guard let plan else { return .planned(nil) }
          return .planned((plan, image.dataPort, try image.dataCipher()))
        }
      }
      switch planning {
      case .absent(let piece): try bring(piece)
      case .planned(let plan): return plan
      case nil: return nil
      }
      brought += 1
    }
  }

  private func perform(
    _ plan: WritePlan, _ bytes: Span<UInt8>, at offset: UInt64, _ port: Storage.Port,
    _ cipher: (any SectorCipher)?
  ) throws(BlockImageError) {
    do throws(BlockImageError) {
      for step in plan.steps {
        let part = bytes.extracting(step.bytes)
        guard step.hasFiller else {
          try port.write(part, at: step.host, cipher: cipher)
          continue
        }
        try compose(step, part, at: offset + UInt64(step.bytes.lowerBound), port, cipher)
      }
    } catch {
      image.withLock { image in
        _ = try? image.withQCOW2 { (image) throws(BlockImageError) in image.giveUp(plan) }
      }
      throw error
    }
    guard plan.needsCommit else { return }
    try image.withLock { (image) throws(BlockImageError) in
      _ = try image.withQCOW2 { (image) throws(BlockImageError) in try image.finish(plan) }
    }
  }

  /// Writes a part of a cluster with what has to be kept of the rest.
  private func compose(
    _ step: WriteStep, _ part: Span<UInt8>, at position: UInt64, _ port: Storage.Port,
    _ cipher: (any SectorCipher)?
  ) throws(BlockImageError) {
    var whole = [UInt8](repeating: 0, count: step.count)
    var span = whole.mutableSpan
    do {
      var head = span._mutatingExtracting(0..<step.head)
      try readHeld(into: &head, at: position - UInt64(step.head))
    }
    do {
      var tail = span._mutatingExtracting(step.head + part.count..<step.count)
      try readHeld(into: &tail, at: position + UInt64(part.count))
    }
    for index in 0..<part.count { span[step.head + index] = part[index] }
    try port.write(span.span, at: step.host, cipher: cipher)
  }

  private func end(_ plan: FlushPlan<Storage.Port>, isDurable: Bool) throws(BlockImageError) {
    try image.withLock { (image) throws(BlockImageError) in
      _ = try image.withQCOW2 { (image) throws(BlockImageError) in
        try image.endFlush(plan, isDurable: isDurable)
      }
    }
  }
}

extension StoragePort {
  func flushed() throws(BlockImageError) {
    do throws(StorageError) { try flush() } catch { throw .storage(error) }
  }

  /// Reads data, which is decrypted where there is a cipher; sectors count from the file's start.
  func read(
    into part: inout MutableSpan<UInt8>, at place: UInt64, cipher: (any SectorCipher)?
  ) throws(BlockImageError) {
    guard let cipher, place % 512 != 0 || part.count % 512 != 0 else {
      do throws(StorageError) { try read(into: &part, at: place) } catch { throw .storage(error) }
      guard cipher?.decrypt(&part, sector: place / 512) ?? true else { throw .cipherFailed }
      return
    }
    let head = Int(place % 512)
    var whole = [UInt8](repeating: 0, count: (head + part.count + 511) & ~511)
    var span = whole.mutableSpan
    try read(into: &span, at: place - UInt64(head), cipher: cipher)
    for index in 0..<part.count { part[index] = span[head + index] }
  }

  /// Writes data, which is encrypted where there is a cipher.
  ///
  /// Sectors that are written in part are read first; nobody else may write to them meanwhile.
  func write(_ bytes: Span<UInt8>, at place: UInt64, cipher: (any SectorCipher)?)
    throws(BlockImageError)
  {
    guard let cipher else {
      do throws(StorageError) { try write(bytes, at: place) } catch { throw .storage(error) }
      return
    }
    let most = 256 << 10
    var done = 0
    while done < bytes.count {
      let start = place + UInt64(done)
      let head = Int(start % 512)
      let length = min(bytes.count - done, most - head)
      var piece = [UInt8](repeating: 0, count: (head + length + 511) & ~511)
      var span = piece.mutableSpan
      if span.count != length { try read(into: &span, at: start - UInt64(head), cipher: cipher) }
      for index in 0..<length { span[head + index] = bytes[done + index] }
      guard cipher.encrypt(&span, sector: start / 512) else { throw .cipherFailed }
      do throws(StorageError) { try write(span.span, at: start - UInt64(head)) } catch {
        throw .storage(error)
      }
      done += length
    }
  }
}
