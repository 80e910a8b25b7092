// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import MachineFile

@Suite("The schema, the examples and the parser agree")
struct SchemaTests {
  static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent()

  struct Key: Sendable {
    var path: String
    var isRequired: Bool
    var example: String
    var supported: String
  }

  static func keys() throws -> [Key] {
    let url = root.appendingPathComponent("protocols/machine-file.schema.toml")
    let source = try SourceText(Array(Data(contentsOf: url)), fileName: "schema")
    guard case .table(let members) = try TOMLDocument.parse(source).content,
      case .array(let rows)? = members["key"]?.node.content
    else { return [] }
    return rows.compactMap { row in
      guard case .table(let fields) = row.content,
        case .string(let path)? = fields["path"]?.node.content,
        case .boolean(let isRequired)? = fields["required"]?.node.content,
        case .string(let example)? = fields["example"]?.node.content,
        case .string(let supported)? = fields["supported"]?.node.content
      else { return nil }
      return Key(path: path, isRequired: isRequired, example: example, supported: supported)
    }
  }

  @Test("the schema file lists the parser's keys and no others")
  func sameKeys() throws {
    let tables: Set = ["machine", "boot", "drive", "serial", "display", "monitor", "debug"]
    let code = Schema.sections.filter { $0.path != "device" }.flatMap { section in
      section.keys.filter { !section.path.isEmpty || $0 == "name" }
        .map { section.path.isEmpty ? $0 : section.path + "." + $0 }
    }

    let file = try Self.keys().map(\.path)

    #expect(file == code)
    #expect(tables.isSubset(of: Schema.keys(of: "")))
  }

  /// A file with one key of the schema and what that key needs beside it.
  static func file(with key: Key) -> String {
    let parts = key.path.split(separator: ".").map(String.init)
    let line = "\(parts.last ?? "") = \(key.example)\n"
    var text = key.path == "name" ? "" : "name = 'a'\n"
    let others = ["slot = 'ide1.1'", "image = 'i'", "format = 'qcow2'"]
      .filter { !$0.hasPrefix(parts.last ?? "") }.joined(separator: "\n")
    switch parts.first {
    case "drive[]": text += "[[drive]]\n\(others)\n"
    case "serial[]": text += "[[serial]]\n"
    case "device": text += "[device.ide]\n"
    case let table? where parts.count > 1: text += "[\(table)]\n"
    default: break
    }
    if key.path == "boot.initrd" || key.path == "boot.cmdline" { text += "kernel = 'k'\n" }
    if key.path == "display.password-file" { text += "vnc = '127.0.0.1:1'\n" }
    return text + line
  }

  @Test("every key of the schema file is accepted with its example")
  func examplesOfKeys() throws {
    for key in try Self.keys() {
      #expect(parseError(Self.file(with: key), unsupported: []) == "no error", "\(key.path)")
    }
  }

  @Test("this version refuses the keys that the schema file calls unsupported, and only them")
  func supportedKeys() throws {
    let refused = Set(Unsupported.thisVersion.map(\.key))
    let wholly = Set(Unsupported.thisVersion.filter(\.match.isAny).map(\.key))

    let keys = try Self.keys()

    #expect(Set(keys.filter { $0.supported != "yes" }.map(\.path)) == refused)
    #expect(Set(keys.filter { $0.supported == "no" }.map(\.path)) == wholly)
  }

  @Test("a key that is required in the schema file is missed, and no other")
  func requiredKeys() throws {
    for key in try Self.keys() {
      let text = Self.file(with: key).split(separator: "\n").dropLast().joined(separator: "\n")
      let error = parseError(text, unsupported: [])

      #expect(error.contains("required but missing") == key.isRequired, "\(key.path): \(error)")
    }
  }

  @Test("the text names every key")
  func text() throws {
    let url = Self.root.appendingPathComponent("protocols/machine-file.md")
    let text = try String(contentsOf: url, encoding: .utf8)

    for key in try Self.keys() {
      let name = key.path.split(separator: ".").last ?? ""
      #expect(text.contains("\n| `\(name)` | "), "\(key.path)")
    }
  }

  @Test("the example machines parse", arguments: ["minimal", "grub", "two-disks"])
  func examples(name: String) throws {
    let url = Self.root.appendingPathComponent("deploy/machines/\(name).toml")

    let parsed = try ParsedMachine.parse(
      Array(Data(contentsOf: url)), fileName: "deploy/machines/\(name).toml")

    #expect(parsed.machine.name == name)
    #expect(parsed.machine.drives.allSatisfy { $0.image.hasPrefix("deploy/machines/") })
  }

  @Test("every file in the folder of examples is tested")
  func allExamples() throws {
    let folder = Self.root.appendingPathComponent("deploy/machines").path

    let files = try FileManager.default.contentsOfDirectory(atPath: folder)
      // Beside them lie the disk that the quick start makes, and its log.
      .filter { $0.hasSuffix(".toml") }

    #expect(
      Set(files) == [
        "minimal.toml", "debian.toml", "grub.toml", "linux.toml", "two-disks.toml",
      ])
  }
}
