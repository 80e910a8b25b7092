// SPDX-License-Identifier: Apache-2.0

/// A machine file's bytes, checked to be text, with the way from an offset to a line.
struct SourceText: Hashable, Sendable {
  /// The largest file that is read, in bytes.
  static let maximumByteCount = 1 << 20

  let fileName: String
  /// The text without a byte order mark.
  let bytes: [UInt8]
  let text: String

  /// Checks size, encoding and control characters (TOML 1.0, "Spec" and "Comment").
  init(_ bytes: [UInt8], fileName: String) throws(MachineFileError) {
    self.fileName = fileName
    guard bytes.count <= Self.maximumByteCount else {
      throw MachineFileError(
        file: fileName, line: 1, column: 1, key: "",
        message: "the file has \(bytes.count) bytes",
        remedy: "accepted: at most \(Self.maximumByteCount) bytes")
    }
    let mark: [UInt8] = [0xEF, 0xBB, 0xBF]
    self.bytes = bytes.starts(with: mark) ? Array(bytes.dropFirst(3)) : bytes
    guard let text = String(validating: self.bytes, as: UTF8.self) else {
      let (offset, byte) = Self.firstInvalidByte(self.bytes)
      let (line, column) = Self.place(of: offset, in: self.bytes)
      throw MachineFileError(
        file: fileName, line: line, column: column, key: "",
        message: "byte 0x\(String(byte, radix: 16, uppercase: true)) is not valid UTF-8",
        remedy: "accepted: TOML in UTF-8")
    }
    self.text = text
    if let offset = Self.firstControlCharacter(self.bytes) {
      let code = String(self.bytes[offset], radix: 16, uppercase: true)
      throw error(
        Diagnostic(
          offset: offset, key: "",
          message: "control character U+\(String(repeating: "0", count: 4 - code.count))\(code)",
          remedy: "accepted: printable text, tabs and line ends"))
    }
  }

  /// Gives a diagnostic its line and column.
  func error(_ diagnostic: Diagnostic) -> MachineFileError {
    let (line, column) = Self.place(of: diagnostic.offset, in: bytes)
    return MachineFileError(
      file: fileName, line: line, column: column, key: diagnostic.key,
      message: diagnostic.message, remedy: diagnostic.remedy)
  }

  /// Returns the line of an offset, from 1.
  func line(of offset: Int) -> Int { Self.place(of: offset, in: bytes).line }

  /// Names what stands at an offset.
  func found(at offset: Int) -> String {
    guard offset < bytes.count else { return "the end of the file" }
    if bytes[offset] == UInt8(ascii: "\n") || bytes[offset] == UInt8(ascii: "\r") {
      return "the end of the line"
    }
    // An offset is never inside a scalar.
    let text = String(decoding: bytes[offset...].prefix(4), as: UTF8.self)
    return text.unicodeScalars.first.map { quoted(String(Character($0))) } ?? "nothing"
  }

  private static func place(of offset: Int, in bytes: [UInt8]) -> (line: Int, column: Int) {
    var line = 1
    var column = 1
    for byte in bytes.prefix(offset) {
      if byte == UInt8(ascii: "\n") {
        line += 1
        column = 1
      } else if byte & 0xC0 != 0x80 {
        column += 1
      }
    }
    return (line, column)
  }

  private static func firstControlCharacter(_ bytes: [UInt8]) -> Int? {
    for (offset, byte) in bytes.enumerated() where byte < 0x20 || byte == 0x7F {
      switch byte {
      case UInt8(ascii: "\t"), UInt8(ascii: "\n"): continue
      case UInt8(ascii: "\r"):
        if offset + 1 < bytes.count, bytes[offset + 1] == UInt8(ascii: "\n") { continue }
        return offset
      default: return offset
      }
    }
    return nil
  }

  /// Finds the first byte that no decoder takes: the longest valid prefix ends before it.
  private static func firstInvalidByte(_ bytes: [UInt8]) -> (offset: Int, byte: UInt8) {
    var iterator = bytes.makeIterator()
    var parser = Unicode.UTF8.ForwardParser()
    var offset = 0
    while true {
      switch parser.parseScalar(from: &iterator) {
      case .valid(let scalar): offset += scalar.count
      case .error, .emptyInput:
        return offset < bytes.count ? (offset, bytes[offset]) : (max(0, bytes.count - 1), 0)
      }
    }
  }
}
