// SPDX-License-Identifier: Apache-2.0

/// Walks TOML text once and notes where everything stands.
///
/// It takes every valid document and some that are not (it does not look into numbers and
/// dates): the parser that gives the values has the last word. That parser sees no text that
/// was refused here: on a broken key it would run into an assertion, on deep nesting out of
/// stack, and U+0000 would end its strings.
struct OutlineScanner {
  static let maximumDepth = 16
  static let maximumKeyParts = 8
  static let maximumKeyLength = 64

  let bytes: [UInt8]
  var index = 0
  var outline = Outline()

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// Scans the whole text.
  mutating func scan() throws(Outline.Stop) {
    var table = Outline.root
    while true {
      skipBlankLines()
      guard let byte = peek() else { return }
      if byte == UInt8(ascii: "[") {
        table = try header()
      } else {
        try assignment(in: table, depth: 0)
      }
      try endOfLine()
    }
  }

  // MARK: Lines

  private mutating func header() throws(Outline.Stop) -> Int {
    let start = index
    index += 1
    let isArray = take("[")
    let path = try keyPath()
    guard take("]"), !isArray || take("]") else {
      throw .syntax(index, isArray ? "\"]]\"" : "\"]\"")
    }
    return try outline.open(path, isArray: isArray, at: path.first?.offset ?? start)
  }

  private mutating func assignment(in table: Int, depth: Int) throws(Outline.Stop) {
    let path = try keyPath()
    guard take("=") else { throw .syntax(index, "\"=\"") }
    skipSpaces()
    let node = try outline.assign(path, in: table)
    try value(of: node, depth: depth)
  }

  private mutating func endOfLine() throws(Outline.Stop) {
    skipSpaces()
    skipComment()
    if peek() == UInt8(ascii: "\r") { index += 1 }
    guard let byte = peek() else { return }
    guard byte == UInt8(ascii: "\n") else { throw .syntax(index, "the end of the line") }
    index += 1
  }

  // MARK: Keys

  private mutating func keyPath() throws(Outline.Stop) -> [Outline.Part] {
    var parts: [Outline.Part] = []
    repeat {
      skipSpaces()
      let offset = index
      guard parts.count < Self.maximumKeyParts else {
        throw refused(offset, "more than \(Self.maximumKeyParts) parts in one key")
      }
      let name = try key()
      guard name.unicodeScalars.count <= Self.maximumKeyLength else {
        throw refused(offset, "a key of more than \(Self.maximumKeyLength) characters")
      }
      parts.append((name, offset))
      skipSpaces()
    } while take(".")
    return parts
  }

  private mutating func key() throws(Outline.Stop) -> String {
    switch peek() {
    case UInt8(ascii: "\""), UInt8(ascii: "'"):
      return try string(allowsLines: false)
    default:
      let start = index
      while let byte = peek(), Self.isBareKey(byte) { index += 1 }
      guard index > start else { throw .syntax(index, "a key") }
      return String(decoding: bytes[start..<index], as: UTF8.self)
    }
  }

  private static func isBareKey(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
      true
    default: false
    }
  }

  // MARK: Values

  private mutating func value(of node: Int, depth: Int) throws(Outline.Stop) {
    outline.nodes[node].valueOffset = index
    guard depth < Self.maximumDepth else {
      throw refused(index, "more than \(Self.maximumDepth) levels of nesting")
    }
    switch peek() {
    case UInt8(ascii: "\""), UInt8(ascii: "'"): _ = try string(allowsLines: true)
    case UInt8(ascii: "["): try array(node, depth: depth)
    case UInt8(ascii: "{"): try inlineTable(node, depth: depth)
    default: try scalar()
    }
  }

  private mutating func array(_ node: Int, depth: Int) throws(Outline.Stop) {
    outline.nodes[node].kind = .valueArray
    index += 1
    while true {
      skipBlankLines()
      if take("]") { return }
      let element = outline.append(to: node, kind: .value, at: index)
      try value(of: element, depth: depth + 1)
      skipBlankLines()
      if take(",") { continue }
      guard take("]") else { throw .syntax(index, "\",\" or \"]\"") }
      return
    }
  }

  private mutating func inlineTable(_ node: Int, depth: Int) throws(Outline.Stop) {
    outline.nodes[node].kind = .inlineTable
    index += 1
    skipSpaces()
    if take("}") { return }
    while true {
      skipSpaces()
      try assignment(in: node, depth: depth + 1)
      skipSpaces()
      if take(",") { continue }
      guard take("}") else { throw .syntax(index, "\",\" or \"}\"") }
      return
    }
  }

  /// Passes a number, a boolean or a date by its characters; the parser looks closer.
  private mutating func scalar() throws(Outline.Stop) {
    switch peek() ?? 0 {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "-"),
      UInt8(ascii: "t"), UInt8(ascii: "f"), UInt8(ascii: "i"), UInt8(ascii: "n"):
      break
    default: throw .syntax(index, "a value")
    }
    while let byte = peek(), Self.isScalar(byte) { index += 1 }
  }

  private static func isScalar(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "."), UInt8(ascii: ":"), UInt8(ascii: "+"), UInt8(ascii: " "),
      UInt8(ascii: "\t"):
      true
    default: isBareKey(byte)
    }
  }

  // MARK: Strings

  private mutating func string(allowsLines: Bool) throws(Outline.Stop) -> String {
    guard let quote = peek() else { throw .syntax(index, "a string") }
    let isLiteral = quote == UInt8(ascii: "'")
    let isLong = allowsLines && peek(1) == quote && peek(2) == quote
    index += isLong ? 3 : 1
    let end = "the end of the string"
    var content: [UInt8] = []
    while let byte = peek() {
      if byte == quote, !isLong {
        index += 1
        return String(decoding: content, as: UTF8.self)
      }
      if byte == quote, peek(1) == quote, peek(2) == quote {
        index += 3
        // One or two quotation marks may stand directly before the closing three.
        while peek() == quote { index += 1 }
        return String(decoding: content, as: UTF8.self)
      }
      if byte == UInt8(ascii: "\n"), !isLong { throw .syntax(index, end) }
      if byte == UInt8(ascii: "\\"), !isLiteral {
        try escape(into: &content)
      } else {
        content.append(byte)
        index += 1
      }
    }
    throw .syntax(index, end)
  }

  private mutating func escape(into content: inout [UInt8]) throws(Outline.Stop) {
    let start = index
    index += 1
    guard let byte = peek() else { throw .syntax(index, "an escaped character") }
    index += 1
    let digits: Int
    switch byte {
    case UInt8(ascii: "u"): digits = 4
    case UInt8(ascii: "U"): digits = 8
    default:
      content.append(byte)
      return
    }
    var code: UInt32 = 0
    for _ in 0..<digits {
      guard let digit = peek().flatMap({ Character(Unicode.Scalar($0)).hexDigitValue }) else {
        throw .syntax(index, "\(digits) hexadecimal digits")
      }
      code = code << 4 | UInt32(digit)
      index += 1
    }
    guard code != 0 else { throw refused(start, "U+0000 in a string") }
    guard let scalar = Unicode.Scalar(code) else {
      throw .syntax(start, "the number of a Unicode scalar")
    }
    content.append(contentsOf: Array(String(Character(scalar)).utf8))
  }

  // MARK: Bytes

  private func refused(_ offset: Int, _ message: String) -> Outline.Stop {
    .refused(Diagnostic(offset: offset, key: "", message: message, remedy: ""))
  }

  private func peek(_ distance: Int = 0) -> UInt8? {
    index + distance < bytes.count ? bytes[index + distance] : nil
  }

  private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
    guard peek() == UInt8(ascii: scalar) else { return false }
    index += 1
    return true
  }

  private mutating func skipSpaces() {
    while let byte = peek(), byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") {
      index += 1
    }
  }

  private mutating func skipComment() {
    guard peek() == UInt8(ascii: "#") else { return }
    while let byte = peek(), byte != UInt8(ascii: "\n"), byte != UInt8(ascii: "\r") {
      index += 1
    }
  }

  private mutating func skipBlankLines() {
    while true {
      skipSpaces()
      skipComment()
      guard let byte = peek(), byte == UInt8(ascii: "\r") || byte == UInt8(ascii: "\n") else {
        return
      }
      index += 1
    }
  }
}
