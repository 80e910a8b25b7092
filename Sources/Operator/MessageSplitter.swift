// SPDX-License-Identifier: Apache-2.0

/// Cuts a stream of bytes into JSON texts, which need nothing between them.
///
/// A text that is too long or too deep is given up: the rest of its line is skipped.
public struct MessageSplitter: Sendable {
  /// What was found in the stream.
  public enum Piece: Equatable, Sendable {
    /// The bytes of what may be one JSON text.
    case text([UInt8])
    /// More than ``longest`` bytes, or more than ``deepest`` brackets inside each other.
    case refused(String)
  }

  public static let longest = 1 << 20
  public static let deepest = 128

  private var bytes: [UInt8] = []
  private var depth = 0
  private var isInString = false
  private var isEscaped = false
  private var isSkipping = false

  public init() {}

  /// Takes more of the stream; `body` is called for each piece.
  public mutating func add(_ new: [UInt8], _ body: (Piece) -> Void) {
    for byte in new {
      if isSkipping {
        if byte == 0x0A { isSkipping = false }
        continue
      }
      if bytes.isEmpty && Self.isSpace(byte) { continue }
      bytes.append(byte)
      guard bytes.count <= Self.longest else {
        give(up: "a message of more than \(Self.longest) bytes", body)
        continue
      }
      if isInString {
        if isEscaped {
          isEscaped = false
        } else if byte == 0x5C {
          isEscaped = true
        } else if byte == 0x22 {
          isInString = false
          if depth == 0 { finish(body) }
        } else if byte == 0x0A {
          // No JSON string goes over a line's end: the quote was never closed.
          finish(body)
        }
        continue
      }
      switch byte {
      case 0x22: isInString = true
      case 0x7B, 0x5B:
        depth += 1
        if depth > Self.deepest {
          give(up: "brackets more than \(Self.deepest) deep", body)
          isSkipping = true
        }
      case 0x7D, 0x5D:
        depth -= 1
        if depth <= 0 { finish(body) }
      default:
        // Something else than an object or an array ends where a space is.
        if depth == 0, Self.isSpace(byte) { finish(body) }
      }
    }
  }

  private mutating func finish(_ body: (Piece) -> Void) {
    body(.text(bytes))
    restart()
  }

  private mutating func give(up reason: String, _ body: (Piece) -> Void) {
    body(.refused(reason))
    restart()
    isSkipping = true
  }

  private mutating func restart() {
    bytes.removeAll(keepingCapacity: bytes.capacity <= 1 << 16)
    depth = 0
    isInString = false
    isEscaped = false
  }

  private static func isSpace(_ byte: UInt8) -> Bool {
    byte == 0x20 || (0x09...0x0D).contains(byte)
  }
}
