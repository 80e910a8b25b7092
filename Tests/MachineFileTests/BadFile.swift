// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MachineFile

/// A machine file with one thing wrong, and the line that says so.
struct BadFile: Sendable, CustomTestStringConvertible {
  var text: String
  var error: String

  init(_ text: String, _ error: String) {
    self.text = text
    self.error = error
  }

  var testDescription: String { error }

  /// A file whose first line is a good name.
  static func named(_ text: String, _ error: String) -> BadFile {
    BadFile("name = \"a\"\n" + text, error)
  }

  /// A file with a good name and a good drive in lines 1 to 5, to which lines are added.
  static func drive(_ text: String, _ error: String) -> BadFile {
    named("[[drive]]\nslot = \"ide0.0\"\nimage = \"a\"\nformat = \"qcow2\"\n" + text, error)
  }
}

/// Parses and returns the error's text, or a note that there was none.
func parseError(
  _ text: String, unsupported: [Unsupported] = Unsupported.thisVersion
) -> String {
  do {
    _ = try ParsedMachine.parse(Array(text.utf8), fileName: "m.toml", unsupported: unsupported)
    return "no error"
  } catch {
    return error.description
  }
}
