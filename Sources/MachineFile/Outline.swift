// SPDX-License-Identifier: Apache-2.0

/// Where each key and value of a TOML document stands; the values themselves are not kept.
///
/// Nodes are in one array, the root first; a reference is an index.
struct Outline: Sendable {
  enum Kind: Sendable {
    case value
    case valueArray
    case inlineTable
    case headerTable
    case implicitTable
    case dottedTable
    case tableArray
  }

  struct Node: Sendable {
    var kind: Kind
    /// The path as messages show it, such as `drive[1].slot`.
    var path: String
    /// Where the key, or the header, stands.
    var keyOffset: Int
    /// Where the value stands; of a table, its header or brace.
    var valueOffset: Int
    var members: [String: Int] = [:]
    var elements: [Int] = []
  }

  static let root = 0
  var nodes = [Node(kind: .headerTable, path: "", keyOffset: 0, valueOffset: 0)]

  /// Why a scan ended early.
  enum Stop: Error {
    /// Something that is refused, with its reason.
    case refused(Diagnostic)
    /// Something that is not TOML: where, and what was expected there.
    case syntax(Int, String)
  }

  typealias Part = (name: String, offset: Int)

  /// Opens `[path]` or `[[path]]` and returns the table that the next keys belong to.
  mutating func open(_ path: [Part], isArray: Bool, at offset: Int) throws(Stop) -> Int {
    guard let last = path.last else { throw .syntax(offset, "a key") }
    var table = Self.root
    for part in path.dropLast() {
      table = try descend(from: table, to: part, creating: .implicitTable)
    }
    guard let existing = nodes[table].members[last.name] else {
      let kind: Kind = isArray ? .tableArray : .headerTable
      let child = add(last, to: table, kind: kind)
      return isArray ? append(to: child, kind: .headerTable, at: offset) : child
    }
    switch nodes[existing].kind {
    case .tableArray where isArray: return append(to: existing, kind: .headerTable, at: offset)
    case .implicitTable where !isArray:
      nodes[existing].kind = .headerTable
      nodes[existing].keyOffset = last.offset
      nodes[existing].valueOffset = last.offset
      return existing
    default: throw twice(existing, at: last.offset)
    }
  }

  /// Adds the key at the end of `path` to `table` and returns its node, still without a value.
  mutating func assign(_ path: [Part], in table: Int) throws(Stop) -> Int {
    guard let last = path.last else { throw .syntax(nodes[table].keyOffset, "a key") }
    var table = table
    for part in path.dropLast() {
      table = try descend(from: table, to: part, creating: .dottedTable)
    }
    if let existing = nodes[table].members[last.name] {
      throw twice(existing, at: last.offset)
    }
    return add(last, to: table, kind: .value)
  }

  /// Adds an element to an array and returns it.
  mutating func append(to array: Int, kind: Kind, at offset: Int) -> Int {
    let path = nodes[array].path + "[\(nodes[array].elements.count)]"
    nodes.append(Node(kind: kind, path: path, keyOffset: offset, valueOffset: offset))
    nodes[array].elements.append(nodes.count - 1)
    return nodes.count - 1
  }

  private mutating func descend(
    from table: Int, to part: Part, creating kind: Kind
  ) throws(Stop) -> Int {
    guard let child = nodes[table].members[part.name] else {
      return add(part, to: table, kind: kind)
    }
    switch nodes[child].kind {
    case .headerTable, .implicitTable, .dottedTable: return child
    case .tableArray: return nodes[child].elements.last ?? child
    case .value, .valueArray, .inlineTable: throw twice(child, at: part.offset)
    }
  }

  private mutating func add(_ part: Part, to table: Int, kind: Kind) -> Int {
    let parent = nodes[table].path
    let path = parent.isEmpty ? part.name : parent + "." + part.name
    nodes.append(
      Node(kind: kind, path: path, keyOffset: part.offset, valueOffset: part.offset))
    nodes[table].members[part.name] = nodes.count - 1
    return nodes.count - 1
  }

  private func twice(_ node: Int, at offset: Int) -> Stop {
    // The line of the first one is added where the text is at hand.
    .refused(
      Diagnostic(
        offset: offset, key: nodes[node].path, message: "given twice",
        remedy: "@\(nodes[node].keyOffset)"))
  }
}
