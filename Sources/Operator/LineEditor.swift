// SPDX-License-Identifier: Apache-2.0

/// A line that is typed at a terminal without an editor of its own: echo, erasing, history.
struct LineEditor {
  private var line: [Character] = []
  private var history: [String] = []
  /// The line of the history that is shown; its count for the one that is typed.
  private var place = 0
  private var partial: [UInt8] = []
  private var sequence: [UInt8]?

  private static let longest = 4096
  private static let mostHistory = 100

  /// What a byte has brought about.
  enum Event: Equatable {
    /// What is to be shown.
    case echo(String)
    /// A whole line.
    case line(String)
  }

  /// The line as it is now, to be shown again behind a prompt.
  var text: String { String(line) }

  /// Takes one byte; `complete` finds the rest of a word for the tabulator.
  mutating func take(_ byte: UInt8, complete: (String) -> String?) -> Event {
    if sequence != nil { return takeSequence(byte) }
    switch byte {
    case 0x0A, 0x0D:
      let text = String(line)
      if !text.isEmpty, history.last != text { history.append(text) }
      if history.count > Self.mostHistory { history.removeFirst() }
      place = history.count
      line = []
      return .line(text)
    case 0x7F, 0x08: return .echo(line.popLast() == nil ? "" : "\u{8} \u{8}")
    case 0x15: return .echo(replace(with: ""))
    case 0x09:
      guard let rest = complete(String(line)), !rest.isEmpty else { return .echo("") }
      line += Array(rest)
      return .echo(rest)
    case 0x1B:
      sequence = []
      return .echo("")
    case 0..<0x20: return .echo("")
    default: return .echo(append(byte))
    }
  }

  private mutating func append(_ byte: UInt8) -> String {
    // What begins a character ends one that was cut off.
    if byte < 0x80 || byte >= 0xC0 { partial = [] }
    partial.append(byte)
    guard let text = String(validating: partial, as: UTF8.self) else {
      if partial.count >= 4 { partial = [] }
      return ""
    }
    partial = []
    guard line.count < Self.longest else { return "" }
    line += Array(text)
    return text
  }

  /// The arrows: ESC [ A and ESC [ B; other sequences are passed over.
  private mutating func takeSequence(_ byte: UInt8) -> Event {
    let before = sequence ?? []
    guard before.count < 8, before.isEmpty ? byte == 0x5B || byte == 0x4F : byte < 0x40 else {
      sequence = nil
      guard before.count == 1 else { return .echo("") }
      switch byte {
      case 0x41 where place > 0: place -= 1
      case 0x42 where place < history.count: place += 1
      default: return .echo("")
      }
      return .echo(replace(with: place < history.count ? history[place] : ""))
    }
    sequence = before + [byte]
    return .echo("")
  }

  private mutating func replace(with text: String) -> String {
    let erase = String(repeating: "\u{8} \u{8}", count: line.count)
    line = Array(text)
    return erase + text
  }
}
