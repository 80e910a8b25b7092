// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MachineFile

@Suite("Text that is not a TOML document")
struct TextTests {
  @Test("syntax errors have the place and say so", arguments: syntaxCases)
  func syntax(bad: BadFile) {
    #expect(parseError(bad.text).hasPrefix(bad.error), "\(parseError(bad.text))")
  }

  static let syntaxCases: [BadFile] = [
    BadFile("name", "m.toml:1:5: this is not TOML: expected \"=\", not the end of the file"),
    BadFile("name = ", "m.toml:1:8: this is not TOML: expected a value, not the end of the file"),
    BadFile(
      "name = \"a",
      "m.toml:1:10: this is not TOML: expected the end of the string, not the end of the file"),
    BadFile(
      "name = 'a\n'",
      "m.toml:1:10: this is not TOML: expected the end of the string, not the end of the line"),
    .named("[machine", "m.toml:2:9: this is not TOML: expected \"]\", not the end of the file"),
    .named("[[drive]", "m.toml:2:9: this is not TOML: expected \"]]\", not the end of the file"),
    .named("[]", "m.toml:2:2: this is not TOML: expected a key, not \"]\""),
    .named("a. = 1", "m.toml:2:4: this is not TOML: expected a key, not \"=\""),
    .named("ä = 1", "m.toml:2:1: this is not TOML: expected a key, not \"ä\""),
    .named("a = 1 = 2", "m.toml:2:7: this is not TOML: expected the end of the line, not \"=\""),
    .named(
      "x = [\"a\"\ny = 1",
      "m.toml:3:1: this is not TOML: expected \",\" or \"]\", not \"y\""),
    .named(
      "x = { a = 1\n",
      "m.toml:2:12: this is not TOML: expected \",\" or \"}\", not the end of the line"),
    .named(
      "a = \"\\u12\"",
      "m.toml:2:10: this is not TOML: expected 4 hexadecimal digits, not \"\"\""),
    .named(
      "a = \"\\uD800\"",
      "m.toml:2:6: this is not TOML: expected the number of a Unicode scalar, not \"\\\""),
    .named("a = yes", "m.toml:2:5: this is not TOML: expected a value, not \"y\""),
    .named("a = 1é", "m.toml:2:6: this is not TOML: expected the end of the line, not \"é\""),
    // The following are found by the parser, in its words.
    .named("[machine]\ncpus = 2 3", "m.toml:3:10: this is not TOML: "),
    .named("a = 09", "m.toml:2:7: this is not TOML: "),
    .named("a = nay", "m.toml:2:7: this is not TOML: "),
    .named("a = \"\\x\"", "m.toml:2:7: this is not TOML: "),
    .named("a = 2026-13-01", "m.toml:2:"),
    .named("a = 9223372036854775808", "m.toml:2:"),
  ]

  @Test("what the parser must not see is refused before", arguments: refusedCases)
  func refused(bad: BadFile) {
    #expect(parseError(bad.text) == bad.error)
  }

  static let refusedCases: [BadFile] = [
    .named("name = \"b\"", "m.toml:2:1: name: given twice; the first is in line 1"),
    .named(
      "[machine]\ncpus = 1\n[machine]\ncpus = 2",
      "m.toml:4:2: machine: given twice; the first is in line 2"),
    .named(
      "[machine]\ncpus = 1\n\"cpus\" = 2",
      "m.toml:4:1: machine.cpus: given twice; the first is in line 3"),
    .named(
      "machine = { cpus = 1 }\n[machine.x]",
      "m.toml:3:2: machine: given twice; the first is in line 2"),
    BadFile("name = \"a\u{0}b\"", "m.toml:1:10: control character U+0000; \(controlRule)"),
    BadFile("name = \"a\"\rx = 1", "m.toml:1:11: control character U+000D; \(controlRule)"),
    BadFile("# \u{7F}", "m.toml:1:3: control character U+007F; \(controlRule)"),
    BadFile("name = \"a\\u0000b\"", "m.toml:1:10: U+0000 in a string"),
    BadFile("\"na\\U00000000me\" = 1", "m.toml:1:4: U+0000 in a string"),
    BadFile(
      "x = " + String(repeating: "[", count: 100_000), "m.toml:1:21: more than 16 levels of nesting"
    ),
    BadFile(
      "x = " + String(repeating: "{a=", count: 100_000),
      "m.toml:1:53: more than 16 levels of nesting"),
    BadFile(
      "[" + String(repeating: "a.", count: 200_000) + "a]",
      "m.toml:1:18: more than 8 parts in one key"),
    BadFile(
      String(repeating: "a.", count: 200_000) + "a = 1",
      "m.toml:1:17: more than 8 parts in one key"),
    BadFile(
      String(repeating: "k", count: 65) + " = 1", "m.toml:1:1: a key of more than 64 characters"),
  ]

  static let controlRule = "accepted: printable text, tabs and line ends"

  @Test("what follows a syntax error is not looked at")
  func nestingAfterSyntaxError() {
    let text = "name = =\nx = " + String(repeating: "[", count: 500_000)

    let error = parseError(text)

    #expect(error.hasPrefix("m.toml:1:8: this is not TOML: expected a value, not \"=\""))
  }

  @Test(
    "bytes that are not UTF-8 are named",
    arguments: [
      ([0x61, 0x0A, 0xFF] as [UInt8], "m.toml:2:1: byte 0xFF is not valid UTF-8"),
      ([0xFF, 0xFE, 0x6E, 0x00], "m.toml:1:1: byte 0xFF is not valid UTF-8"),
      ([0x23, 0xC3, 0xA9, 0xED, 0xA0, 0x80], "m.toml:1:3: byte 0xED is not valid UTF-8"),
      ([0x23, 0xC3], "m.toml:1:2: byte 0xC3 is not valid UTF-8"),
    ])
  func encoding(bytes: [UInt8], expected: String) {
    let error = #expect(throws: MachineFileError.self) {
      _ = try ParsedMachine.parse(bytes, fileName: "m.toml")
    }

    #expect(error?.description == expected + "; accepted: TOML in UTF-8")
  }

  @Test("a file of more than 1 MiB is refused and one of 1 MiB is not")
  func size() {
    let name = "name = \"a\"\n#"
    let fitting = name + String(repeating: "x", count: (1 << 20) - name.utf8.count)

    #expect(parseError(fitting) == "no error")
    #expect(
      parseError(fitting + "x")
        == "m.toml:1:1: the file has 1048577 bytes; accepted: at most 1048576 bytes")
  }

  @Test("a byte order mark and CRLF are taken and columns count scalars")
  func markAndLineEnds() throws {
    let good = try ParsedMachine.parse(
      text: "\u{FEFF}name = \"a\"\r\n\r\n[machine]\r\ncpus = 3\r\n", fileName: "m.toml")
    let bad = parseError("\u{FEFF}name = \"a\"\r\n[machine]\r\nfirmware = \"é\"\r\n\"ü\" = 1")
    let shifted = parseError("\u{FEFF}x={\"ü\"=1,name=2}")

    #expect(good.machine.cpus == 3)
    #expect(bad.hasPrefix("m.toml:4:1: machine.ü: unknown key; "))
    #expect(shifted.hasPrefix("m.toml:1:1: x: unknown key; "))
  }

  @Test("many keys and many tables end in one error")
  func masses() {
    let keys = (0..<40_000).map { "k\($0) = 1\n" }.joined()
    let tables = String(repeating: "[[drive]]\n", count: 40_000)

    #expect(parseError("name = \"a\"\n" + keys).hasPrefix("m.toml:2:1: k0: unknown key"))
    #expect(
      parseError("name = \"a\"\n" + tables).hasPrefix("m.toml:2:3: drive[0].slot: required"))
  }
}
