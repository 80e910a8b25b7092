// SPDX-License-Identifier: Apache-2.0

/// What is wrong with a machine file: one place, one key, one reason.
///
/// Its description is one line: `machine.toml:12:10: drive[0].slot: "ide2.0" is not a slot;
/// accepted: ide0.0, ide0.1, ide1.0, ide1.1`.
public struct MachineFileError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The file's name as the caller gave it.
  public let file: String
  /// The line, from 1.
  public let line: Int
  /// The column in Unicode scalars, from 1; a byte order mark is not counted.
  public let column: Int
  /// The key's path, such as `drive[1].slot`, or nothing where no key is concerned.
  public let key: String
  /// What is wrong.
  public let message: String
  /// What would be accepted, or nothing.
  public let remedy: String

  /// Creates an error.
  public init(
    file: String, line: Int, column: Int, key: String, message: String, remedy: String
  ) {
    self.file = file
    self.line = line
    self.column = column
    self.key = key
    self.message = message
    self.remedy = remedy
  }

  public var description: String {
    var text = "\(file):\(line):\(column): "
    if !key.isEmpty { text += "\(key): " }
    text += message
    if !remedy.isEmpty { text += "; \(remedy)" }
    return text
  }
}

/// An error whose place is still a byte offset.
struct Diagnostic: Error, Hashable, Sendable {
  var offset: Int
  var key: String
  var message: String
  var remedy: String
}

/// Returns `text` in quotation marks for a message, cut to a readable length.
func quoted(_ text: String) -> String {
  var result = "\""
  for (count, scalar) in text.unicodeScalars.enumerated() {
    guard count < 60 else {
      result += "…"
      break
    }
    if scalar.value < 0x20 || scalar.value == 0x7F {
      result += "\\u{" + String(scalar.value, radix: 16, uppercase: true) + "}"
    } else {
      result.unicodeScalars.append(scalar)
    }
  }
  return result + "\""
}
