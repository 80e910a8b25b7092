// SPDX-License-Identifier: Apache-2.0

/// A machine with the places of its keys, so that later checks can name them.
public struct ParsedMachine: Sendable {
  /// The machine.
  public let machine: Machine
  let source: SourceText
  let places: [String: Int]

  /// Parses a machine file; pure, it looks at nothing but the bytes.
  ///
  /// Of several errors the first in the file is thrown. Relative paths are put under the
  /// folder part of `fileName`.
  /// - Throws: An error with line and column.
  public static func parse(
    _ bytes: [UInt8], fileName: String
  ) throws(MachineFileError) -> ParsedMachine {
    try parse(bytes, fileName: fileName, unsupported: Unsupported.thisVersion)
  }

  /// Parses a machine file given as text.
  public static func parse(
    text: String, fileName: String
  ) throws(MachineFileError) -> ParsedMachine {
    try parse(Array(text.utf8), fileName: fileName)
  }

  /// Parses with a chosen table of what is not supported.
  static func parse(
    _ bytes: [UInt8], fileName: String, unsupported: [Unsupported]
  ) throws(MachineFileError) -> ParsedMachine {
    let source = try SourceText(bytes, fileName: fileName)
    let document = try TOMLDocument.parse(source)
    var machineReader = MachineReader(fileName: fileName)
    let machine = machineReader.machine(document)
    var reader = machineReader.reader
    refuse(document, path: "", keyOffset: 0, unsupported, &reader)
    if let first = reader.diagnostics.min(by: { $0.offset < $1.offset }) {
      throw source.error(first)
    }
    return ParsedMachine(machine: machine, source: source, places: reader.places)
  }

  /// Makes an error about a key of this file, for checks that are made elsewhere.
  ///
  /// The place is the key's value; of a key that is not in the file, its nearest table.
  public func error(_ key: String, _ message: String, remedy: String = "") -> MachineFileError {
    var place = key
    while places[place] == nil, let dot = place.lastIndex(of: ".") { place = String(place[..<dot]) }
    return source.error(
      Diagnostic(offset: places[place] ?? 0, key: key, message: message, remedy: remedy))
  }

  /// Reports every key and value that this version does not support.
  private static func refuse(
    _ node: TOMLNode, path: String, keyOffset: Int, _ unsupported: [Unsupported],
    _ reader: inout TableReader
  ) {
    switch node.content {
    case .table(let members):
      for member in members.inOrder {
        refuse(
          member.node, path: path.isEmpty ? member.key : path + "." + member.key,
          keyOffset: member.keyOffset, unsupported, &reader)
      }
    case .array(let elements):
      for (index, element) in elements.prefix(8).enumerated() {
        refuse(
          element, path: "\(path)[\(index)]", keyOffset: element.offset, unsupported, &reader)
      }
    default: break
    }
    let pattern = Schema.pattern(of: path)
    for row in unsupported where row.key == pattern && row.matches(node.content) {
      var subject = ""
      var offset = keyOffset
      if !row.match.isAny, case .string(let text) = node.content {
        subject = quoted(text) + " is "
        offset = node.offset
      }
      let diagnostic = Diagnostic(
        offset: offset, key: path, message: subject + "not supported by this version",
        remedy: "accepted: " + row.accepted)
      // Of two errors in one place the first is thrown: a whole key that is not supported
      // needs no other error, but a value is first of all malformed.
      if row.match.isAny {
        reader.diagnostics.insert(diagnostic, at: 0)
      } else {
        reader.diagnostics.append(diagnostic)
      }
    }
  }
}
