// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Foundation
import TestSupport
import Testing

@Suite struct HeaderTests {
  static let warnings = ["-Wall", "-Wextra", "-Werror"]

  /// The macro that a name of the table has in the header.
  static func macro(_ parts: String...) -> String {
    var result = "BH"
    for part in parts {
      let letters = Array(part)
      for (index, letter) in letters.enumerated() {
        let isStart =
          index == 0
          || letter.isUppercase
            && (letters[index - 1].isLowercase || letters[index - 1].isNumber
              || letters[index - 1].isUppercase && index + 1 < letters.count
                && letters[index + 1].isLowercase)
        if isStart { result += "_" }
        result += letter == "." ? "_" : letter.uppercased()
      }
    }
    return result.replacing("__", with: "_")
  }

  @Test func `The header is C11 and C++17 without warnings, and has the table's constants`() throws
  {
    let table = try Table.load()
    var wanted: [String: UInt64] = [:]
    for (name, value) in table.constants { wanted[Self.macro(name)] = value }
    for message in table.device {
      wanted[Self.macro("request", message.name)] = UInt64(message.number)
    }
    for (name, all) in table.enums {
      for (label, value) in all.values { wanted[Self.macro(name, label)] = value }
    }
    for (layout, all) in table.layouts {
      for (name, value) in all { wanted[Self.macro(layout, name)] = value }
    }
    let header = root.appending(path: "protocols/bulkhead-device.h")
    let text = try String(contentsOf: header, encoding: .utf8)
    let defined = text.split(separator: "\n").filter { $0.hasPrefix("#define BH_") }
      .compactMap { $0.split(separator: " ").dropFirst().first.map(String.init) }
    #expect(Set(defined) == Set(wanted.keys))

    let folder = try temporaryFolder()
    defer { try? FileManager.default.removeItem(at: folder) }
    let names = defined.sorted()
    let prints = names.map { "printf(\"%llu\\n\", (unsigned long long)\($0));" }
    let program = """
      #include <stdio.h>
      #include "\(header.path())"
      int main(void) { \(prints.joined(separator: "\n")) return 0; }
      """
    for (language, compiler) in [("c", ["gcc", "-std=c11"]), ("cpp", ["g++", "-std=c++17"])] {
      let source = folder.appending(path: "constants.\(language)")
      try program.write(to: source, atomically: true, encoding: .utf8)
      let binary = folder.appending(path: "constants-\(language)").path()
      let built = try run(compiler + Self.warnings + [source.path(), "-o", binary])
      #expect(built.code == 0, "\(built.output)")
      let values = try run([binary]).output.split(separator: "\n").compactMap { UInt64($0) }
      #expect(values == names.map { wanted[$0] ?? .max })
    }
  }
}
