// SPDX-License-Identifier: Apache-2.0

import TOMLKit

/// A TOML value with its place in the text.
struct TOMLNode: Sendable {
  indirect enum Content: Sendable {
    case string(String)
    case integer(Int)
    case boolean(Bool)
    case array([TOMLNode])
    case table(TOMLMembers)
    /// A kind that no key of ours takes, by its name.
    case other(String)
  }

  var offset: Int
  var content: Content

  /// The kind in words, with its article.
  var kind: String {
    switch content {
    case .string: "a string"
    case .integer: "an integer"
    case .boolean: "a boolean"
    case .array: "a list"
    case .table: "a table"
    case .other(let name): name
    }
  }
}

/// The members of a table, in file order and by name.
struct TOMLMembers: Sendable {
  struct Member: Sendable {
    var key: String
    var keyOffset: Int
    var node: TOMLNode
  }

  var inOrder: [Member] = []
  var byName: [String: Int] = [:]

  subscript(key: String) -> Member? { byName[key].map { inOrder[$0] } }
}

/// A parsed TOML document in which everything knows where it stands.
enum TOMLDocument {
  /// Parses the text.
  static func parse(_ source: SourceText) throws(MachineFileError) -> TOMLNode {
    var scanner = OutlineScanner(source.bytes)
    do {
      try scanner.scan()
    } catch {
      switch error {
      case .refused(var diagnostic):
        if diagnostic.remedy.hasPrefix("@"), let first = Int(diagnostic.remedy.dropFirst()) {
          diagnostic.remedy = "the first is in line \(source.line(of: first))"
        }
        throw source.error(diagnostic)
      case .syntax(let offset, let expected):
        throw source.error(
          Diagnostic(
            offset: offset, key: "",
            message: "this is not TOML: expected \(expected), not \(source.found(at: offset))",
            remedy: ""))
      }
    }
    let table = try values(source)
    return node(of: table, at: Outline.root, in: scanner.outline)
  }

  private static func values(
    _ source: SourceText
  ) throws(MachineFileError) -> TOMLTable {
    do {
      return try TOMLTable(string: source.text)
    } catch let error as TOMLParseError {
      throw MachineFileError(
        file: source.fileName, line: error.source.begin.line, column: error.source.begin.column,
        key: "", message: "this is not TOML: \(error.description)", remedy: "")
    } catch {
      throw MachineFileError(
        file: source.fileName, line: 1, column: 1, key: "", message: "this is not TOML",
        remedy: "")
    }
  }

  private static func node(
    of table: TOMLTable, at place: Int, in outline: Outline
  ) -> TOMLNode {
    let here = outline.nodes[place]
    var members: [TOMLMembers.Member] = []
    for key in table.keys {
      guard let value = table[key] else { continue }
      let child = here.members[key]
      members.append(
        TOMLMembers.Member(
          key: key, keyOffset: child.map { outline.nodes[$0].keyOffset } ?? here.keyOffset,
          node: node(of: value, at: child ?? place, in: outline)))
    }
    members.sort { ($0.keyOffset, $0.key) < ($1.keyOffset, $1.key) }
    var result = TOMLMembers(inOrder: members)
    for (index, member) in members.enumerated() { result.byName[member.key] = index }
    return TOMLNode(offset: here.valueOffset, content: .table(result))
  }

  private static func node(
    of value: any TOMLValueConvertible, at place: Int, in outline: Outline
  ) -> TOMLNode {
    let here = outline.nodes[place]
    let content: TOMLNode.Content
    switch value.type {
    case .table:
      guard let table = value.table else { return TOMLNode(offset: 0, content: .other("")) }
      return node(of: table, at: place, in: outline)
    case .array:
      var elements: [TOMLNode] = []
      if let array = value.array {
        for (index, element) in array.enumerated() {
          let child = index < here.elements.count ? here.elements[index] : place
          elements.append(node(of: element, at: child, in: outline))
        }
      }
      content = .array(elements)
    case .string: content = .string(value.string ?? "")
    case .int: content = .integer(value.int ?? 0)
    case .bool: content = .boolean(value.bool ?? false)
    case .double: content = .other("a float")
    case .date: content = .other("a date")
    case .time: content = .other("a time")
    case .dateTime: content = .other("a date and time")
    }
    return TOMLNode(offset: here.valueOffset, content: content)
  }
}
