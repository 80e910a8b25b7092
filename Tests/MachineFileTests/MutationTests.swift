// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MachineFile

@Suite("Damaged machine files")
struct MutationTests {
  /// A small generator (xorshift), the same on every run.
  struct Generator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return state
    }
  }

  static let snippets = [
    "\"", "'", "\"\"\"", "'''", "[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\n", "\r\n", "#",
    "\\", "\\u0000", "\\u00e9", "é", " ", "\t", "1e5", "07:32:00", "a.b", "-", "nan", "\u{0}",
  ]

  @Test("end in a machine or in an error inside the text", arguments: 1...8)
  func damage(seed: Int) {
    var generator = Generator(state: UInt64(seed) &* 0x9E37_79B9_7F4A_7C15)
    let original = Array(GoodFileTests.everyKey.utf8)
    let lineCount = { (bytes: [UInt8]) in bytes.count { $0 == UInt8(ascii: "\n") } + 1 }
    var good = 0
    var bad = 0
    for _ in 0..<400 {
      var bytes = original
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        let start = Int.random(in: 0...bytes.count, using: &generator)
        let end = min(bytes.count, start + Int.random(in: 0...4, using: &generator))
        let snippet = Self.snippets.randomElement(using: &generator) ?? ""
        bytes.replaceSubrange(start..<end, with: Array(snippet.utf8))
      }
      do {
        _ = try ParsedMachine.parse(bytes, fileName: "m", unsupported: [])
        good += 1
      } catch {
        bad += 1
        #expect((1...lineCount(bytes) + 1).contains(error.line), "\(error)")
        #expect(error.column >= 1)
      }
    }
    #expect(good > 0 && bad > 0)
  }

  static let valueCharacters = Array("0123456789+-._:TZeExobinfatrue \t\"'\\\n#,[]{}=é")

  @Test("with values of chance characters end in an error or a machine", arguments: 1...8)
  func chanceValues(seed: Int) {
    var generator = Generator(state: UInt64(seed) &* 0xD1B5_4A32_D192_ED03)
    for _ in 0..<1500 {
      var value = ""
      for _ in 0..<Int.random(in: 1...12, using: &generator) {
        value.append(Self.valueCharacters.randomElement(using: &generator) ?? " ")
      }
      let error = parseError("name = \"a\"\nname2 = " + value)

      #expect(error.hasPrefix("m.toml:"), "\(value): \(error)")
    }
  }

  @Test("cut anywhere, a file ends in a machine or an error")
  func cuts() {
    let original = Array(GoodFileTests.everyKey.utf8)
    for end in original.indices {
      do {
        _ = try ParsedMachine.parse(Array(original[..<end]), fileName: "m", unsupported: [])
      } catch {
        #expect(!error.message.isEmpty)
      }
    }
  }
}
