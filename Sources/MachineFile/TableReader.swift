// SPDX-License-Identifier: Apache-2.0

/// A table with its path, as the machine reader walks it.
struct Table: Sendable {
  var path: String
  var offset: Int
  var members: TOMLMembers

  func path(of key: String) -> String { path.isEmpty ? key : path + "." + key }
}

/// A value with its place and its key.
struct Located<Value> {
  var value: Value
  var offset: Int
  var key: String
}

/// Reads typed values out of tables and collects everything that is wrong.
struct TableReader {
  var diagnostics: [Diagnostic] = []
  /// Where each key that was read has its value.
  var places: [String: Int] = [:]

  mutating func report(_ offset: Int, _ key: String, _ message: String, _ remedy: String = "") {
    diagnostics.append(Diagnostic(offset: offset, key: key, message: message, remedy: remedy))
  }

  mutating func report<Value>(
    _ value: Located<Value>, _ message: String, accepted: String
  ) {
    report(value.offset, value.key, message, "accepted: " + accepted)
  }

  /// Reports a value of the wrong kind.
  mutating func mismatch(_ node: TOMLNode, _ key: String, wanted: String, accepted: String) {
    report(
      node.offset, key, "must be \(wanted), not \(node.kind)",
      accepted.isEmpty ? "" : "accepted: " + accepted)
  }

  // MARK: Tables

  /// Takes a node as a table and checks its keys against the schema.
  mutating func table(_ node: TOMLNode, path: String) -> Table? {
    guard case .table(let members) = node.content else {
      mismatch(node, path, wanted: "a table", accepted: keyList(Schema.keys(of: path)))
      return nil
    }
    let known = Schema.keys(of: path)
    let table = Table(path: path, offset: node.offset, members: members)
    places[path] = node.offset
    if let unknown = members.inOrder.first(where: { !known.contains($0.key) }) {
      let remedy =
        Schema.suggestion(for: unknown.key, in: known).map { "did you mean \($0)?" }
        ?? "accepted: " + keyList(known)
      report(
        unknown.keyOffset, Self.printable(table.path(of: unknown.key)), "unknown key", remedy)
    }
    return table
  }

  /// Returns the table under `key`, if there is one.
  mutating func table(_ key: String, in parent: Table) -> Table? {
    guard let member = parent.members[key] else { return nil }
    return table(member.node, path: parent.path(of: key))
  }

  /// Returns the tables of an array of tables; more than `limit` is an error.
  mutating func tables(
    _ key: String, in parent: Table, limit: Int, example: String
  ) -> [Table] {
    guard let member = parent.members[key] else { return [] }
    guard case .array(let elements) = member.node.content else {
      mismatch(
        member.node, key, wanted: "an array of tables", accepted: "[[\(key)]] with \(example)")
      return []
    }
    if elements.count > limit {
      report(
        elements[limit].offset, key, "\(elements.count) entries",
        "accepted: at most \(limit)")
    }
    var result: [Table] = []
    for (index, element) in elements.prefix(limit).enumerated() {
      if let table = table(element, path: "\(key)[\(index)]") { result.append(table) }
    }
    return result
  }

  /// Reports a key that has to be there, unless a misspelt key explains why it is not.
  mutating func missing(_ key: String, in table: Table, accepted: String) {
    let known = Schema.keys(of: table.path)
    guard table.members.inOrder.allSatisfy({ known.contains($0.key) }) else { return }
    report(table.offset, table.path(of: key), "required but missing", "accepted: " + accepted)
  }

  private func keyList(_ keys: [String]) -> String { keys.joined(separator: ", ") }

  private static func printable(_ path: String) -> String {
    String(quoted(path).dropFirst().dropLast())
  }

  // MARK: Values

  mutating func string(
    _ key: String, in table: Table, accepted: String
  ) -> Located<String>? {
    guard let member = table.members[key] else { return nil }
    let path = table.path(of: key)
    places[path] = member.node.offset
    guard case .string(let text) = member.node.content else {
      mismatch(member.node, path, wanted: "a string", accepted: accepted)
      return nil
    }
    return Located(value: text, offset: member.node.offset, key: path)
  }

  mutating func boolean(_ key: String, in table: Table) -> Located<Bool>? {
    guard let member = table.members[key] else { return nil }
    let path = table.path(of: key)
    places[path] = member.node.offset
    guard case .boolean(let value) = member.node.content else {
      mismatch(member.node, path, wanted: "a boolean", accepted: "true, false")
      return nil
    }
    return Located(value: value, offset: member.node.offset, key: path)
  }

  mutating func integer(
    _ key: String, in table: Table, range: ClosedRange<Int>, accepted: String
  ) -> Located<Int>? {
    guard let member = table.members[key] else { return nil }
    let path = table.path(of: key)
    places[path] = member.node.offset
    guard case .integer(let value) = member.node.content else {
      mismatch(member.node, path, wanted: "an integer", accepted: accepted)
      return nil
    }
    guard range.contains(value) else {
      report(member.node.offset, path, "\(value) is out of range", "accepted: " + accepted)
      return nil
    }
    return Located(value: value, offset: member.node.offset, key: path)
  }

  /// Reads one of an enumeration's words; `noun` is what it is called, with its article.
  mutating func choice<Choice: CaseIterable & RawRepresentable<String>>(
    _ key: String, in table: Table, _ noun: String, as type: Choice.Type = Choice.self
  ) -> Located<Choice>? {
    let accepted = Choice.allCases.map(\.rawValue).joined(separator: ", ")
    guard let text = string(key, in: table, accepted: accepted) else { return nil }
    guard let choice = Choice(rawValue: text.value) else {
      report(text, "\(quoted(text.value)) is not \(noun)", accepted: accepted)
      return nil
    }
    return Located(value: choice, offset: text.offset, key: text.key)
  }

  /// Reads a list of strings, each with its place; the first wrong element is reported.
  mutating func strings(
    _ node: TOMLNode, path: String, accepted: String
  ) -> [Located<String>]? {
    guard case .array(let elements) = node.content else {
      mismatch(node, path, wanted: "a list", accepted: accepted)
      return nil
    }
    var result: [Located<String>] = []
    for (index, element) in elements.enumerated() {
      let key = "\(path)[\(index)]"
      guard case .string(let text) = element.content else {
        mismatch(element, key, wanted: "a string", accepted: accepted)
        return nil
      }
      result.append(Located(value: text, offset: element.offset, key: key))
    }
    return result
  }
}
