// SPDX-License-Identifier: Apache-2.0

import BlockImage
import DeviceHost
import DeviceProtocol
import IDE
import ImageFiles
import LinuxSystem
import Synchronization

typealias DriveImage = BlockImage<ImageFile, Inflater>

/// A drive's image, used by several threads at once.
final class Drive: Sendable {
  /// As in the machine file, such as `ide0.1`.
  let name: String
  var virtualSize: UInt64 { image.virtualSize }
  /// Whether the guest's writes go into the image.
  var isWritable: Bool { image.isWritable }
  var isQCOW2: Bool { !image.isRaw }
  fileprivate let image: SharedImage<ImageFile, Inflater>
  /// How many errors went to the log.
  private let reports = Atomic(0)

  /// How a request ended.
  struct Outcome: Sendable {
    var result: IDEResult
    /// Why it failed, in words; empty when it did not.
    var reason = ""
    /// Whether it failed for want of space on the host.
    var isFull = false
  }

  /// The most bytes that one request moves.
  static let mostBytes = 512 << 10
  /// The most that is read while the guest waits: as long as some ten register accesses.
  private static let mostCachedBytes = 256 << 10
  private static let mostReports = 100

  init(name: String, image: consuming sending DriveImage) {
    self.name = name
    self.image = SharedImage(image, decompressor: Inflater())
  }

  /// Does a request; its data is in the bounce buffer from `start` on, or goes there.
  ///
  /// With `ignoringReadErrors` what cannot be read is zeroes.
  func run(
    _ request: IDERequest, bounce: Mapping, at start: Int, ignoringReadErrors: Bool
  ) -> Outcome {
    var work = DriveWork(drive: self, ignoresReadErrors: ignoringReadErrors)
    let result = work.run(request, bounce: bounce, at: start)
    guard result != .ok, let failure = work.failure else { return Outcome(result: result) }
    var outcome = Outcome(result: result, reason: "\(name): \(failure.text)")
    if case .storage(.noSpace) = failure.error { outcome.isFull = true }
    return outcome
  }

  /// Reads what a request wants when the host has it in its page cache; no thread waits then.
  func readCached(_ request: IDERequest, bounce: Mapping, at start: Int) -> Bool {
    guard case .read(let sector, let count) = request.kind, sector <= 1 << 48 else { return false }
    let size = UInt64(request.sectorSize)
    guard UInt64(count) * size <= UInt64(Self.mostCachedBytes) else { return false }
    return bounce.withMutableSpan(at: start, count: Int(UInt64(count) * size)) { span in
      image.readCached(into: &span, at: sector * size)
    }
  }

  /// Makes everything written durable.
  func flush() -> IDEResult {
    var work = DriveWork(drive: self, ignoresReadErrors: false)
    return work.flush()
  }

  /// Makes the disk larger or smaller, while none of its requests is under way.
  func resize(to byteCount: UInt64) throws(Refusal) {
    guard image.isWritable else { throw Refusal("Image is read-only") }
    guard image.isRaw || byteCount % 512 == 0 else {
      throw Refusal("The new size must be a multiple of 512")
    }
    do throws(BlockImageError) {
      try image.resize(to: byteCount)
    } catch {
      throw Refusal("Could not resize file: \(error)")
    }
    Log.line("\(name): the disk has \(byteCount) bytes now", .notice)
  }

  /// Does something with a qcow2 image while nobody else uses it; `nil` for another.
  func exclusively<Result: Sendable>(
    _ body: @Sendable (inout QCOW2Image<ImageFile, Inflater>) throws(BlockImageError) -> Result
  ) throws(BlockImageError) -> Result? {
    try image.exclusively { (image) throws(BlockImageError) in try image.withQCOW2(body) }
  }

  fileprivate func report(_ text: String) {
    guard reports.add(1, ordering: .relaxed).oldValue < Self.mostReports else { return }
    Log.line("\(name): \(text)", .warning)
  }
}

/// One request's way through the image.
private struct DriveWork {
  let drive: Drive
  let ignoresReadErrors: Bool
  /// The last error.
  var failure: (error: BlockImageError, text: String)?

  private var image: SharedImage<ImageFile, Inflater> { drive.image }

  private static let pieceByteCount = 128 << 10

  init(drive: Drive, ignoresReadErrors: Bool) {
    self.drive = drive
    self.ignoresReadErrors = ignoresReadErrors
  }

  /// What is done with a run of sectors.
  private enum Direction: String {
    case read
    case write
    case verify
  }

  mutating func run(_ request: IDERequest, bounce: Mapping, at start: Int) -> IDEResult {
    let size = UInt64(request.sectorSize)
    switch request.kind {
    case .read(let sector, let count):
      return move(.read, sector, UInt64(count), size, bounce, start)
    case .verify(let sector, let count):
      return move(.verify, sector, UInt64(count), size, bounce, start)
    case .write(let sector, let count, let durable):
      let result = move(.write, sector, UInt64(count), size, bounce, start)
      return result == .ok && durable ? flush() : result
    case .trim(let blocks): return trim(Int(blocks) * 512, bounce, start)
    case .flush: return flush()
    case .copyBuffer: return .ok
    }
  }

  /// Gives up the ranges of a list: 48 bits of address, 16 of a count of sectors, 0 for none.
  private mutating func trim(_ byteCount: Int, _ bounce: Mapping, _ start: Int) -> IDEResult {
    guard byteCount <= Drive.mostBytes else { return .failed(sector: 0) }
    let list = bounce.bytes(at: start, count: byteCount)
    for place in stride(from: 0, to: byteCount, by: 8) {
      let entry = (0..<8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64(list[place + $1]) }
      let sector = entry & 0xFFFF_FFFF_FFFF
      let count = entry >> 48
      guard count > 0 else { continue }
      do throws(BlockImageError) {
        try image.discard(at: sector * 512, count: count * 512)
      } catch {
        report(error, "trim at sector \(sector): \(error)")
        return .failed(sector: sector)
      }
    }
    return .ok
  }

  mutating func flush() -> IDEResult {
    do throws(BlockImageError) {
      try image.flush()
      return .ok
    } catch {
      report(error, "flush: \(error)")
      return .failed(sector: 0)
    }
  }

  /// Moves sectors in pieces; where a piece fails, finds the first sector that does.
  private mutating func move(
    _ direction: Direction, _ sector: UInt64, _ count: UInt64, _ size: UInt64, _ bounce: Mapping,
    _ start: Int
  ) -> IDEResult {
    guard count * size <= UInt64(Drive.mostBytes), sector <= 1 << 48 else {
      return .failed(sector: sector)
    }
    var done: UInt64 = 0
    while done < count {
      let piece = min(count - done, UInt64(Self.pieceByteCount) / size)
      let place = start + Int(done * size)
      do throws(BlockImageError) {
        try movePiece(direction, (sector + done) * size, Int(piece * size), bounce, place)
      } catch {
        let failed = firstFailure(direction, sector + done, piece, size, bounce, place)
        report(error, "\(direction.rawValue) at sector \(failed ?? sector + done): \(error)")
        if let failed {
          guard ignoresReadErrors, direction != .write else { return .failed(sector: failed) }
          if direction == .read {
            let hole = [UInt8](repeating: 0, count: Int(size))
            bounce.copy(hole, to: start + Int((failed - sector) * size))
          }
          done = failed + 1 - sector
          continue
        }
      }
      done += piece
    }
    return .ok
  }

  private mutating func firstFailure(
    _ direction: Direction, _ sector: UInt64, _ count: UInt64, _ size: UInt64, _ bounce: Mapping,
    _ place: Int
  ) -> UInt64? {
    for index in 0..<count {
      do throws(BlockImageError) {
        try movePiece(
          direction, (sector + index) * size, Int(size), bounce, place + Int(index * size))
      } catch {
        return sector + index
      }
    }
    return nil
  }

  private mutating func movePiece(
    _ direction: Direction, _ position: UInt64, _ count: Int, _ bounce: Mapping, _ place: Int
  ) throws(BlockImageError) {
    if direction == .write {
      return try image.write(bounce.bytes(at: place, count: count).span, at: position)
    }
    // What is only verified goes to the same place; nobody looks at it there.
    try bounce.withMutableSpan(at: place, count: count) { (span) throws(BlockImageError) in
      try image.read(into: &span, at: position)
    }
  }

  private mutating func report(_ error: BlockImageError, _ text: String) {
    failure = (error, text)
    drive.report(text)
  }
}
