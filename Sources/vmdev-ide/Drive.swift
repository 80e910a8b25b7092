// SPDX-License-Identifier: Apache-2.0

import BlockImage
import DeviceHost
import IDE
import LinuxSystem
import Synchronization

/// A drive's image, used by one worker at a time.
final class Drive: Sendable {
  /// As in the machine file, such as `ide0.1`.
  let name: String
  let virtualSize: UInt64
  private let state: Mutex<DriveState>

  /// The most bytes that one request moves.
  static let mostBytes = 512 << 10

  init(name: String, image: consuming sending DriveImage) {
    self.name = name
    virtualSize = image.virtualSize
    state = Mutex(DriveState(name: name, image: image))
  }

  /// Does a request; its data is in the bounce buffer from `start` on, or goes there.
  func run(_ request: IDERequest, bounce: Mapping, at start: Int) -> IDEResult {
    state.withLock { $0.run(request, bounce: bounce, at: start) }
  }

  /// Makes everything written durable.
  func flush() -> IDEResult { state.withLock { $0.flush() } }
}

/// The image and what belongs to it.
private struct DriveState: ~Copyable {
  let name: String
  var image: DriveImage
  /// What goes between the image and the bounce buffer.
  var buffer = [UInt8](repeating: 0, count: pieceByteCount)
  /// How many errors went to the log.
  var reports = 0

  static let pieceByteCount = 128 << 10
  private static let mostReports = 100

  init(name: String, image: consuming DriveImage) {
    self.name = name
    self.image = image
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
    case .flush: return flush()
    case .copyBuffer: return .ok
    }
  }

  mutating func flush() -> IDEResult {
    do throws(BlockImageError) {
      try image.flush()
      return .ok
    } catch {
      report("flush: \(error)")
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
        report("\(direction.rawValue) at sector \(failed ?? sector + done): \(error)")
        if let failed { return .failed(sector: failed) }
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
    var bytes: [UInt8] = []
    swap(&bytes, &buffer)
    defer { swap(&bytes, &buffer) }
    if bytes.count != count { bytes = [UInt8](repeating: 0, count: count) }
    var span = bytes.mutableSpan
    try image.read(into: &span, at: position)
    if direction == .read { bounce.copy(bytes, to: place) }
  }

  private mutating func report(_ text: String) {
    guard reports < Self.mostReports else { return }
    reports += 1
    Log.line("\(name): \(text)")
  }
}
