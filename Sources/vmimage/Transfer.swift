// SPDX-License-Identifier: Apache-2.0

import BlockImage
import Compression
import LinuxSystem

/// Where a conversion writes to: a raw image, a new one of qcow2, or one that is there.
struct Sink: ~Copyable {
  var raw: DiskFile?
  var writer: QCOW2Writer<DiskFile>?
  var existing: ToolImage?
  /// What shows through where a new image has nothing.
  var base: ToolImage?
  let hasBase: Bool
  /// The bytes that are kept or left out together.
  let unit: Int
  /// Whether what is not written reads as zero.
  let isNew: Bool
  let isCompressed: Bool
  private let compression: QCOW2Compression

  /// The smallest hole in a raw image, as qemu-img has it.
  private static let rawUnit = 4096

  init(raw: consuming DiskFile, isNew: Bool) {
    self.raw = .some(consume raw)
    writer = nil
    existing = nil
    base = nil
    hasBase = false
    unit = Self.rawUnit
    self.isNew = isNew
    isCompressed = false
    compression = .deflate
  }

  /// Takes an image that may hold anything.
  init(existing: consuming ToolImage) {
    unit = Int(max(existing.info.clusterSize, UInt64(Self.rawUnit)))
    self.existing = .some(consume existing)
    raw = nil
    writer = nil
    base = nil
    hasBase = false
    isNew = false
    isCompressed = false
    compression = .deflate
  }

  init(
    _ writer: consuming QCOW2Writer<DiskFile>, isCompressed: Bool, base: consuming ToolImage?
  ) {
    switch base {
    case .some: hasBase = true
    case .none: hasBase = false
    }
    self.base = base
    existing = nil
    unit = Int(writer.creation.clusterSize)
    compression = writer.creation.compression
    raw = nil
    self.writer = .some(consume writer)
    isNew = true
    self.isCompressed = isCompressed
  }

  func compress(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>) -> Int? {
    compression == .zstd
      ? ClusterCompressor.zstd(input, into: &output)
      : ClusterCompressor.deflate(input, into: &output)
  }

  mutating func zero(at offset: UInt64, count: UInt64) throws(BlockImageError) {
    if hasBase { return try zeroOverBase(at: offset, count: count) }
    guard !isNew else { return }
    try existing?.zero(at: offset, count: count)
    do throws(StorageError) { try raw?.zero(at: offset, count: count) } catch {
      throw .storage(error)
    }
  }

  private mutating func zeroOverBase(at offset: UInt64, count: UInt64) throws(BlockImageError) {
    guard let version = writer?.creation.version, version == 2 else {
      try writer?.appendZeros(at: offset, count: count)
      return
    }
    let zeros = [UInt8](repeating: 0, count: unit)
    var done: UInt64 = 0
    while done < count {
      let piece = Int(min(count - done, UInt64(unit)))
      try writer?.append(zeros.span.extracting(0..<piece), at: offset + done)
      done += UInt64(piece)
    }
  }

  /// Reads what shows through; behind its end there are zeros.
  mutating func readBase(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(BlockImageError)
  {
    let size = base?.virtualSize ?? 0
    let count = Int(min(UInt64(buffer.count), size > offset ? size - offset : 0))
    do {
      var inside = buffer._mutatingExtracting(0..<count)
      try base?.read(into: &inside, at: offset)
    }
    var outside = buffer._mutatingExtracting(count..<buffer.count)
    outside.update(repeating: 0)
  }

  mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(BlockImageError) {
    do throws(StorageError) { try raw?.write(bytes, at: offset) } catch {
      throw .storage(error)
    }
    try writer?.append(bytes, at: offset)
    try existing?.write(bytes, at: offset)
  }

  mutating func writeCompressed(_ bytes: Span<UInt8>, at offset: UInt64) throws(BlockImageError) {
    try writer?.appendCompressed(bytes, at: offset)
  }

  /// Ends a disk of `size` bytes.
  consuming func finish(size: UInt64) throws(BlockImageError) {
    do throws(StorageError) {
      if var file = raw.take() {
        if file.byteCount < size { try file.resize(to: size) }
        try file.flush()
      }
    } catch {
      throw .storage(error)
    }
    try existing?.flush()
    if let writer = writer.take() { _ = try writer.finish() }
  }
}

/// Copies a disk in large pieces and leaves out what is zero.
struct Transfer {
  /// Bytes read at once: what was read is still in the processor's cache when it is written.
  static let pieceSize = 256 << 10

  /// Bytes read at once where clusters of `unit` bytes are kept or left out together.
  static func pieceSize(_ unit: UInt64) -> Int { max(pieceSize, Int(unit)) }

  private var buffer: [UInt8] = []
  private var packed: [UInt8] = []
  /// What the base has in the place of the buffer.
  private var below: [UInt8] = []
  private let hasProgress: Bool
  private var shown = -1

  init(hasProgress: Bool) { self.hasProgress = hasProgress }

  /// Copies the whole disk.
  mutating func copy(_ source: inout ToolImage, to sink: inout Sink, size: UInt64)
    throws(BlockImageError)
  {
    let end = min(size, source.virtualSize)
    let pieceSize = Self.pieceSize(UInt64(sink.unit))
    buffer = [UInt8](repeating: 0, count: pieceSize)
    var position: UInt64 = 0
    while position < end {
      show(position, end)
      let limit = min(UInt64(pieceSize), end - position)
      let extent = try source.extent(at: position, limit: end - position)
      if extent.isZero, !sink.hasBase {
        // Whole pieces of a hole are passed over at once.
        let whole =
          extent.count >= end - position
          ? extent.count : extent.count / UInt64(pieceSize) * UInt64(pieceSize)
        if whole > 0 {
          try sink.zero(at: position, count: whole)
          position += whole
          continue
        }
      }
      try readPiece(&source, extent, position, limit)
      if sink.hasBase {
        if below.isEmpty { below = [UInt8](repeating: 0, count: pieceSize) }
        var span = below.mutableSpan
        var part = span._mutatingExtracting(0..<Int(limit))
        try sink.readBase(into: &part, at: position)
      }
      try write(to: &sink, at: position, count: Int(limit))
      position += limit
    }
    show(end, end)
  }

  /// Fills the buffer; parts that are zero by the tables are not read.
  private mutating func readPiece(
    _ source: inout ToolImage, _ first: ImageExtent, _ position: UInt64, _ limit: UInt64
  ) throws(BlockImageError) {
    var extent = first
    var done: UInt64 = 0
    while true {
      let count = Int(min(extent.count, limit - done))
      var span = buffer.mutableSpan
      var part = span._mutatingExtracting(Int(done)..<Int(done) + count)
      if extent.isZero {
        part.update(repeating: 0)
      } else {
        try source.read(into: &part, at: position + done)
      }
      done += UInt64(count)
      guard done < limit else { return }
      extent = try source.extent(at: position + done, limit: limit - done)
    }
  }

  /// Writes a piece in runs of what is zero and what is not.
  private mutating func write(to sink: inout Sink, at position: UInt64, count: Int)
    throws(BlockImageError)
  {
    let unit = sink.unit
    var start = 0
    while start < count {
      let kind = kind(start..<min(start + unit, count), hasBase: sink.hasBase)
      var end = min(start + unit, count)
      if !sink.isCompressed || kind != .data {
        while end < count,
          self.kind(end..<min(end + unit, count), hasBase: sink.hasBase) == kind
        {
          end = min(end + unit, count)
        }
      }
      let place = position + UInt64(start)
      if kind == .same {
        // It shows through.
      } else if kind == .zero {
        try sink.zero(at: place, count: UInt64(end - start))
      } else if sink.isCompressed {
        try writeCompressed(to: &sink, start..<end, unit, at: place)
      } else {
        try sink.write(buffer.span.extracting(start..<end), at: place)
      }
      start = end
    }
  }

  private enum Kind {
    /// As in the base.
    case same
    case zero
    case data
  }

  private func kind(_ range: Range<Int>, hasBase: Bool) -> Kind {
    let part = buffer.span.extracting(range)
    if hasBase, Bytes.areEqual(part, below.span.extracting(range)) { return .same }
    return Bytes.areZero(part) ? .zero : .data
  }

  private mutating func writeCompressed(
    to sink: inout Sink, _ range: Range<Int>, _ unit: Int, at place: UInt64
  ) throws(BlockImageError) {
    var packed = self.packed
    self.packed = []
    defer { self.packed = packed }
    if packed.count != unit - 1 { packed = [UInt8](repeating: 0, count: unit - 1) }
    let whole = range.lowerBound..<range.lowerBound + unit
    // The disk may end inside the last cluster.
    for index in range.upperBound..<max(range.upperBound, whole.upperBound) { buffer[index] = 0 }
    var output = packed.mutableSpan
    let length = sink.compress(buffer.span.extracting(whole), into: &output)
    if let length {
      try sink.writeCompressed(packed.span.extracting(0..<length), at: place)
    } else {
      try sink.write(buffer.span.extracting(range), at: place)
    }
  }

  private mutating func show(_ done: UInt64, _ all: UInt64) {
    guard hasProgress else { return }
    let percent = all == 0 ? 100 : Int(Double(done) * 100 / Double(all))
    guard percent != shown else { return }
    shown = percent
    Worker.print("    (\(Words.percent(done, of: max(all, 1)))/100%)\r" + (done == all ? "\n" : ""))
  }
}
