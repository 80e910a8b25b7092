// SPDX-License-Identifier: Apache-2.0

/// Why a kernel cannot be started.
public struct BootProblem: Error, Equatable, Sendable, CustomStringConvertible {
  public let description: String

  init(_ description: String) { self.description = description }
}

/// A kernel's file as its readers see it: bytes that nothing is known of.
public struct BootFile {
  public let byteCount: UInt64
  private let bytes: (UInt64, Int) -> [UInt8]

  /// - Parameters:
  ///   - byteCount: the file's size.
  ///   - bytes: reads from an offset on; fewer bytes than asked for at the file's end.
  public init(byteCount: UInt64, bytes: @escaping (UInt64, Int) -> [UInt8]) {
    self.byteCount = byteCount
    self.bytes = bytes
  }

  /// Up to `count` bytes from an offset on.
  func start(_ count: Int) -> [UInt8] {
    Array(bytes(0, Int(min(UInt64(count), byteCount))).prefix(count))
  }

  /// Bytes that must be there; `what` names them for the error.
  func read(_ offset: UInt64, _ count: Int, _ what: String) throws(BootProblem) -> BootBytes {
    guard offset <= byteCount, UInt64(count) <= byteCount - offset else {
      throw BootProblem("the kernel's file ends before \(what)")
    }
    let found = bytes(offset, count)
    guard found.count == count else { throw BootProblem("the kernel's file became shorter") }
    return BootBytes(bytes: found)
  }
}

/// Little-endian fields in bytes.
struct BootBytes {
  let bytes: [UInt8]

  /// - Precondition: the field is inside the bytes.
  func word(_ offset: Int, _ count: Int) -> UInt64 {
    (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
  }

  func word32(_ offset: Int) -> UInt32 { UInt32(truncatingIfNeeded: word(offset, 4)) }
}

/// The files of direct boot.
public enum BootSource: Sendable, Equatable {
  case kernel
  case initrd
}

/// What a loader copies into memory in one piece: parts of files, with zeroes between them.
public struct LoadImage: Sendable, Equatable {
  /// A part of a file.
  public struct Piece: Sendable, Equatable {
    /// Where it goes, from the image's start.
    public var offset: UInt64
    public var source: BootSource
    public var fileOffset: UInt64
    public var byteCount: UInt64
  }

  /// Where the image goes.
  public private(set) var address: UInt32
  public private(set) var byteCount: UInt64 = 0
  /// In the order of their offsets, and without overlaps.
  public private(set) var pieces: [Piece] = []

  init(address: UInt32) { self.address = address }

  /// The address after the image.
  var end: UInt64 { UInt64(address) + byteCount }

  /// Adds a part of a file, and zeroes up to `memoryByteCount`.
  ///
  /// - Precondition: `place` is the image's end or after it.
  mutating func append(
    at place: UInt64, _ source: BootSource, _ fileOffset: UInt64, _ byteCount: UInt64,
    memoryByteCount: UInt64? = nil
  ) {
    precondition(place >= end, "pieces of an image overlap")
    let offset = place - UInt64(address)
    if byteCount > 0 {
      pieces.append(
        Piece(offset: offset, source: source, fileOffset: fileOffset, byteCount: byteCount))
    }
    self.byteCount = offset + max(byteCount, memoryByteCount ?? byteCount)
  }

  /// Where the bytes of a part of the image come from; what is in no piece is zero.
  public func pieces(in range: Range<UInt64>) -> [Piece] {
    pieces.compactMap { piece in
      let start = max(piece.offset, range.lowerBound)
      let end = min(piece.offset + piece.byteCount, range.upperBound)
      guard start < end else { return nil }
      return Piece(
        offset: start, source: piece.source, fileOffset: piece.fileOffset + start - piece.offset,
        byteCount: end - start)
    }
  }
}
