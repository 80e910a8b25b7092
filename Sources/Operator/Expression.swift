// SPDX-License-Identifier: Apache-2.0

internal import Monitor

/// The human monitor's arithmetic: numbers, registers by `$name`, C's operators and brackets.
struct Expression {
  private var rest: Substring
  private let register: (String) -> UInt64?

  /// Reads an expression from the front of a text; returns its value and what is left.
  static func read(
    _ text: Substring, register: @escaping (String) -> UInt64?
  ) throws(CommandError) -> (value: UInt64, rest: Substring) {
    var reader = Expression(rest: text, register: register)
    let value = try reader.sum(depth: 0)
    return (value, reader.rest)
  }

  private init(rest: Substring, register: @escaping (String) -> UInt64?) {
    self.rest = rest
    self.register = register
  }

  private mutating func skip() { rest = rest.drop { $0 == " " || $0 == "\t" } }

  private mutating func take(_ accepted: String) -> Character? {
    skip()
    guard let first = rest.first, accepted.contains(first) else { return nil }
    rest.removeFirst()
    return first
  }

  private mutating func sum(depth: Int) throws(CommandError) -> UInt64 {
    guard depth < 64 else { throw CommandError("the expression is too deep") }
    var value = try logic(depth)
    while let sign = take("+-") {
      let next = try logic(depth)
      value = sign == "+" ? value &+ next : value &- next
    }
    return value
  }

  private mutating func logic(_ depth: Int) throws(CommandError) -> UInt64 {
    var value = try product(depth)
    while let sign = take("&|^") {
      let next = try product(depth)
      value = sign == "&" ? value & next : sign == "|" ? value | next : value ^ next
    }
    return value
  }

  private mutating func product(_ depth: Int) throws(CommandError) -> UInt64 {
    var value = try unary(depth)
    while let sign = take("*/%") {
      let next = try unary(depth)
      if sign == "*" {
        value = value &* next
        continue
      }
      guard next != 0 else { throw CommandError("division by zero") }
      value = sign == "/" ? value / next : value % next
    }
    return value
  }

  private mutating func unary(_ depth: Int) throws(CommandError) -> UInt64 {
    guard depth < 64 else { throw CommandError("the expression is too deep") }
    if let sign = take("+-~") {
      let value = try unary(depth + 1)
      return sign == "-" ? 0 &- value : sign == "~" ? ~value : value
    }
    if take("(") != nil {
      let value = try sum(depth: depth + 1)
      guard take(")") != nil else { throw CommandError("')' expected") }
      return value
    }
    if take("$") != nil {
      let name = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
      rest = rest.dropFirst(name.count)
      guard let value = register(String(name)) else { throw CommandError("unknown register") }
      return value
    }
    skip()
    let digits = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber) }
    let value: UInt64? =
      if digits.hasPrefix("0x") || digits.hasPrefix("0X") {
        UInt64(digits.dropFirst(2), radix: 16)
      } else if digits.hasPrefix("0"), digits.count > 1 {
        UInt64(digits.dropFirst(), radix: 8)
      } else {
        UInt64(digits)
      }
    guard let value else {
      throw CommandError(digits.isEmpty ? "unexpected end of expression" : "invalid number")
    }
    rest = rest.dropFirst(digits.count)
    return value
  }
}

/// The `/COUNT FORMAT SIZE` of x, xp and print.
struct DumpFormat {
  var count = 1
  var format: Character = "x"
  /// Bytes of one item.
  var size = 4

  /// Takes it from the front of a text, if it is there.
  init(_ text: inout Substring, size: Int = 4, format: Character = "x") throws(CommandError) {
    self.size = size
    self.format = format
    guard text.first == "/" else { return }
    text.removeFirst()
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    if !digits.isEmpty {
      guard let number = Int(digits), number <= 65536 else { throw CommandError("invalid count") }
      count = number
      text = text.dropFirst(digits.count)
    }
    while let letter = text.first, letter != " ", letter != "\t" {
      switch letter {
      case "x", "d", "u", "o", "c", "i": self.format = letter
      case "b": self.size = 1
      case "h": self.size = 2
      case "w": self.size = 4
      case "g", "L": self.size = 8
      default: throw CommandError("invalid char in format: '\(letter)'")
      }
      text.removeFirst()
    }
    if self.format == "c" { self.size = 1 }
    text = text.drop { $0 == " " || $0 == "\t" }
  }

  /// One item as the dump shows it, with the width that others of its size have.
  func text(_ value: UInt64) -> String {
    let bits = size * 8
    func padded(_ text: String, _ width: Int) -> String {
      String(repeating: " ", count: max(0, width - text.count)) + text
    }
    switch format {
    case "d":
      let signed = Int64(bitPattern: value << UInt64(64 - bits)) >> Int64(64 - bits)
      return padded(String(signed), (bits * 10 + 32) / 33)
    case "u": return padded(String(value), (bits * 10 + 32) / 33)
    case "o": return padded(value == 0 ? "0" : "0" + String(value, radix: 8), (bits + 2) / 3)
    case "c": return Self.character(UInt8(truncatingIfNeeded: value))
    default: return "0x" + hex(value, bits / 4)
    }
  }

  private static func character(_ byte: UInt8) -> String {
    switch byte {
    case 0x27: "'\\''"
    case 0x5C: "'\\\\'"
    case 0x0A: "'\\n'"
    case 0x0D: "'\\r'"
    case 0x20...0x7E: "'\(Character(Unicode.Scalar(byte)))'"
    default: "'\\x" + hex(UInt64(byte), 2) + "'"
    }
  }

  /// Lines of 16 bytes, of 8 where the items are bytes; as far as memory can be read.
  func dump(_ address: UInt64, _ read: (UInt64, Int) -> [UInt8]?) -> String {
    let line = size == 1 ? 8 : 16
    var text = ""
    var left = count * size
    var address = address
    while left > 0 {
      let length = min(line, left)
      text += hex(address, 16) + ":"
      guard let bytes = read(address, length) else { return text + " Cannot access memory\n" }
      for at in stride(from: 0, to: length, by: size) {
        let value = bytes[at..<at + size].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        text += " " + self.text(value)
      }
      text += "\n"
      address &+= UInt64(length)
      left -= length
    }
    return text
  }
}
