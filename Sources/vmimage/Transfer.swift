// SPDX-License-Identifier: Apache-2.0

import BlockImage
import Compression
import LinuxSystem

/// Where a conversion writes to: a raw image, or a new one of qcow2.
struct Sink: ~Copyable {
  var raw: DiskFile?
  var writer: QCOW2Writer<DiskFile>?
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
    unit = Self.rawUnit
    self.isNew = isNew
    isCompressed = false
    compression = .deflate
  }

  init(_ writer: consuming QCOW2Writer<DiskFile>, isCompressed: Bool) {
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
    guard !isNew else { return }
    do throws(StorageError) { try raw?.zero(at: offset, count: count) } catch {
      throw .storage(error)
    }
  }

  mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(BlockImageError) {
    do throws(StorageError) { try raw?.write(bytes, at: offset) } catch {
      throw .storage(error)
    }
    try writer?.append(bytes, at: offset)
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
    if let writer = writer.take() { _ = try writer.finish() }
  }
}

/// Copies a disk in large pieces and leaves out what is zero.
struct Transfer {
  /// Bytes read at once; a multiple of every cluster size.
  static let pieceSize = 2 << 20

  private var buffer = [UInt8](repeating: 0, count: pieceSize)
  private var packed: [UInt8] = []
  private let hasProgress: Bool
  private var shown = -1

  init(hasProgress: Bool) { self.hasProgress = hasProgress }

  /// Copies the whole disk.
  mutating func copy(_ source: inout ToolImage, to sink: inout Sink, size: UInt64)
    throws(BlockImageError)
  {
    let end = min(size, source.virtualSize)
    var position: UInt64 = 0
    while position < end {
      show(position, end)
      let limit = min(UInt64(Self.pieceSize), end - position)
      let extent = try source.extent(at: position, limit: end - position)
      if extent.isZero {
        // Whole pieces of a hole are passed over at once.
        let whole =
          extent.count >= end - position
          ? extent.count : extent.count / UInt64(Self.pieceSize) * UInt64(Self.pieceSize)
        if whole > 0 {
          try sink.zero(at: position, count: whole)
          position += whole
          continue
        }
      }
      try readPiece(&source, extent, position, limit)
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
      let isZero = Bytes.areZero(buffer.span.extracting(start..<min(start + unit, count)))
      var end = min(start + unit, count)
      if !sink.isCompressed || isZero {
        while end < count,
          Bytes.areZero(buffer.span.extracting(end..<min(end + unit, count))) == isZero
        {
          end = min(end + unit, count)
        }
      }
      let place = position + UInt64(start)
      if isZero {
        try sink.zero(at: place, count: UInt64(end - start))
      } else if sink.isCompressed {
        try writeCompressed(to: &sink, start..<end, unit, at: place)
      } else {
        try sink.write(buffer.span.extracting(start..<end), at: place)
      }
      start = end
    }
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
