// SPDX-License-Identifier: Apache-2.0

/// QMP's commands, events and types, as protocols/qmp-schema.json has them.
public struct QMPSchema: Sendable {
  /// The whole schema, as `query-qmp-schema` gives it.
  public let entries: JSONValue
  private let byName: [String: JSONValue]
  /// The names of the commands, in order.
  public let commands: [String]
  /// The names of the events, in order.
  public let events: [String]

  /// Reads a schema; `nil` when it is none.
  public init?(_ bytes: [UInt8]) {
    guard let value = JSONValue(parsing: bytes), let list = value.array else { return nil }
    entries = value
    var byName: [String: JSONValue] = [:]
    for entry in list {
      guard let name = entry["name"]?.string else { return nil }
      byName[name] = entry
    }
    self.byName = byName
    func names(_ kind: String) -> [String] {
      list.compactMap { $0["meta-type"]?.string == kind ? $0["name"]?.string : nil }
    }
    commands = names("command")
    events = names("event")
  }

  /// The schema that this program was built with.
  public static let own = QMPSchema(PackageResources.qmp_schema_json)

  /// Checks a command's arguments, in QEMU's words.
  func check(_ arguments: [String: JSONValue], of command: String) throws(CommandError) {
    guard let entry = byName[command], entry["meta-type"]?.string == "command" else {
      throw CommandError("The command \(command) has not been found", .commandNotFound)
    }
    try check(.object(arguments), entry["arg-type"]?.string ?? "Empty", "")
  }

  private func check(_ value: JSONValue, _ type: String, _ path: String) throws(CommandError) {
    guard let entry = byName[type] else { return }
    func wrong(_ expected: String) -> CommandError {
      CommandError("Invalid parameter type for '\(path)', expected: \(expected)")
    }
    switch entry["meta-type"]?.string {
    case "builtin":
      switch (entry["json-type"]?.string, value) {
      case ("string", .string), ("int", .integer), ("number", .integer), ("number", .number),
        ("boolean", .bool), ("value", _), ("null", .null):
        return
      case ("int", _): throw wrong("integer")
      case (let expected, _): throw wrong(expected ?? "")
      }
    case "enum":
      guard let text = value.string else { throw wrong("string") }
      let known = entry["values"]?.array ?? []
      guard known.contains(.string(text)) else {
        // QEMU names the last part of the path alone, and an array's element not at all.
        let name = path.hasSuffix("]") ? "null" : path.split(separator: ".").last ?? "null"
        throw CommandError("Parameter '\(name)' does not accept value '\(text)'")
      }
    case "array":
      guard let values = value.array else { throw wrong("array") }
      for (index, one) in values.enumerated() {
        try check(one, entry["element-type"]?.string ?? "", "\(path)[\(index)]")
      }
    case "object": try check(value, entry, path)
    default: return
    }
  }

  private func check(
    _ value: JSONValue, _ entry: JSONValue, _ path: String
  ) throws(CommandError) {
    guard let members = value.object else {
      throw CommandError("Invalid parameter type for '\(path)', expected: object")
    }
    let prefix = path.isEmpty ? "" : path + "."
    var known = entry["members"]?.array ?? []
    if let tag = entry["tag"]?.string {
      let variant = entry["variants"]?.array?.first { $0["case"] == members[tag] }
      let type = variant?["type"]?.string ?? ""
      known += byName[type]?["members"]?.array ?? []
    }
    for member in known {
      guard let name = member["name"]?.string, let type = member["type"]?.string else { continue }
      guard let value = members[name] else {
        guard member["default"] != nil else {
          throw CommandError("Parameter '\(prefix)\(name)' is missing")
        }
        continue
      }
      try check(value, type, prefix + name)
    }
    let names = known.compactMap { $0["name"]?.string }
    if let other = members.keys.sorted().first(where: { !names.contains($0) }) {
      throw CommandError("Parameter '\(prefix)\(other)' is unexpected")
    }
  }
}
