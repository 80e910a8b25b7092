// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem
internal import Synchronization

/// Transfers that pass the host's page cache: whole blocks, from and to aligned memory.
///
/// What is no whole block is read first, and nobody else writes to these blocks meanwhile.
final class DirectTransfer: Sendable {
  /// The blocks of a transfer, and where in them the bytes are that are meant.
  struct Blocks: Equatable {
    var range: Range<UInt64>
    var head: Int
    var tail: Int

    init(at offset: UInt64, count: Int, alignment: Int) {
      let mask = UInt64(alignment - 1)
      let end = offset + UInt64(count)
      range = offset & ~mask..<(end + mask) & ~mask
      head = Int(offset & mask)
      tail = Int(range.upperBound - end)
    }
  }

  /// The bytes of a block: what the disk below reads and writes at once.
  let alignment: Int
  private let file: Descriptor
  private let blocks = RangeLock()
  private let idle = Mutex<[AlignedBuffer]>([])

  /// The most bytes that are transferred at once.
  private static let mostBytes = 256 << 10
  private static let alignments = [512, 1024, 2048, 4096]

  init(_ file: Descriptor, alignment: Int) {
    self.file = file
    self.alignment = alignment
  }

  /// Finds out how the transfers of a file have to be aligned, by reading; of an empty file, and
  /// where the host does not say, the largest alignment that there is.
  static func alignment(of file: Descriptor) throws(SystemError) -> Int {
    let buffer = AlignedBuffer(byteCount: 4096)
    var refusal: SystemError?
    for alignment in alignments {
      do throws(SystemError) {
        return try buffer.read(file, at: 0, count: alignment, to: 0) > 0 ? alignment : 4096
      } catch {
        guard error.isInvalid else { throw error }
        refusal = error
      }
    }
    throw refusal ?? SystemError("pread", 0)
  }

  /// Does something while nobody else writes to the blocks of a range.
  func alone<Result>(
    at offset: UInt64, count: UInt64, _ body: () throws(SystemError) -> Result
  ) throws(SystemError) -> Result {
    let mask = UInt64(alignment - 1)
    let ticket = blocks.lock(
      offset & ~mask..<(offset + count + mask) & ~mask, isExclusive: true)
    defer { blocks.unlock(ticket) }
    return try body()
  }

  /// Fills `output` from `offset`; returns how much, fewer only at the end of the file.
  func read(into output: inout MutableSpan<UInt8>, at offset: UInt64) throws(SystemError) -> Int {
    let buffer = take()
    defer { give(buffer) }
    var done = 0
    while done < output.count {
      let blocks = Blocks(
        at: offset + UInt64(done), count: min(output.count - done, Self.mostBytes - alignment),
        alignment: alignment)
      let (got, isEnd) = try fill(buffer, blocks.range)
      let count = min(got, blocks.range.count - blocks.tail) - blocks.head
      if count > 0 {
        var part = output._mutatingExtracting(done..<done + count)
        buffer.copy(at: blocks.head, into: &part)
        done += count
      }
      if isEnd, got < blocks.range.count - blocks.tail { break }
    }
    return done
  }

  /// Reads blocks to the buffer's start; a read ends inside a block at the end of the file only.
  private func fill(_ buffer: AlignedBuffer, _ range: Range<UInt64>, to place: Int = 0)
    throws(SystemError) -> (count: Int, isEnd: Bool)
  {
    var done = 0
    while done < range.count {
      let got = try buffer.read(
        file, at: range.lowerBound + UInt64(done), count: range.count - done, to: place + done)
      done += got
      if got == 0 || done % alignment != 0 { return (done, true) }
    }
    return (done, false)
  }

  /// Writes all of `bytes` at `offset`.
  func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(SystemError) {
    let buffer = take()
    defer { give(buffer) }
    var done = 0
    while done < bytes.count {
      let place = offset + UInt64(done)
      let head = Int(place % UInt64(alignment))
      let count = min(bytes.count - done, Self.mostBytes - head)
      let blocks = Blocks(at: place, count: count, alignment: alignment)
      let ticket = self.blocks.lock(blocks.range, isExclusive: blocks.head + blocks.tail > 0)
      defer { self.blocks.unlock(ticket) }
      if blocks.head > 0 { try fillBlock(buffer, blocks.range.lowerBound, to: 0) }
      if blocks.tail > 0, blocks.head == 0 || blocks.range.count > alignment {
        let last = blocks.range.count - alignment
        try fillBlock(buffer, blocks.range.lowerBound + UInt64(last), to: last)
      }
      buffer.copy(bytes.extracting(done..<done + count), to: blocks.head)
      try buffer.write(file, at: blocks.range.lowerBound, count: blocks.range.count)
      done += count
    }
  }

  private func fillBlock(_ buffer: AlignedBuffer, _ start: UInt64, to place: Int)
    throws(SystemError)
  {
    let (got, _) = try fill(buffer, start..<start + UInt64(alignment), to: place)
    buffer.clear(place + got..<place + alignment)
  }

  private func take() -> AlignedBuffer {
    idle.withLock { $0.popLast() } ?? AlignedBuffer(byteCount: Self.mostBytes)
  }

  private func give(_ buffer: AlignedBuffer) { idle.withLock { $0.append(buffer) } }
}
