// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import Monitor

/// One object of the machine's tree, as `qom-list` and `qom-get` show it.
struct QOMObject {
  /// A property; the value of one that changes is asked for when it is wanted.
  struct Property {
    var name: String
    var type: String
    var value: () throws(CommandError) -> JSONValue
  }

  var type: String
  var properties: [Property] = []
  var children: [(name: String, object: QOMObject)] = []

  init(_ type: String) { self.type = type }

  mutating func add(_ name: String, _ type: String, _ value: JSONValue) {
    properties.append(Property(name: name, type: type, value: { value }))
  }

  mutating func add(
    _ name: String, _ type: String, live value: @escaping () throws(CommandError) -> JSONValue
  ) {
    properties.append(Property(name: name, type: type, value: value))
  }

  mutating func add(_ name: String, child: QOMObject) { children.append((name, child)) }

  /// The object at a path below this one.
  func find(_ parts: ArraySlice<String>) -> QOMObject? {
    guard let first = parts.first else { return self }
    return children.first { $0.name == first }?.object.find(parts.dropFirst())
  }

  /// Every object at such a path below this one or below any of its children.
  func findAll(_ parts: ArraySlice<String>, _ path: String = "") -> [(
    path: String, object: QOMObject
  )] {
    var found: [(path: String, object: QOMObject)] = []
    if let object = find(parts) {
      found.append((parts.reduce(path) { $0 + "/" + $1 }, object))
    }
    for child in children {
      found += child.object.findAll(parts, path + "/" + child.name)
    }
    return found
  }
}

/// The commands that look at the tree.
extension QMPCommands {
  /// The object at a path: an absolute one, or the end of one that only one object has.
  private func object(_ path: String) throws(CommandError) -> (path: String, object: QOMObject) {
    let root = try QOMTree(machine).root
    let parts = path.split(separator: "/").map(String.init)[...]
    if path.hasPrefix("/") {
      guard let object = root.find(parts) else {
        throw CommandError("Device '\(path)' not found", .deviceNotFound)
      }
      return (path, object)
    }
    let found = root.findAll(parts)
    guard let first = found.first else {
      throw CommandError("Device '\(path)' not found", .deviceNotFound)
    }
    guard found.count == 1 else { throw CommandError("Path '\(path)' is ambiguous") }
    return first
  }

  func list(_ path: String) throws(CommandError) -> JSONValue {
    let object = try object(path).object
    let properties = [("type", "string")] + object.properties.map { ($0.name, $0.type) }
    let children = object.children.map { ($0.name, "child<\($0.object.type)>") }
    return .array(
      (properties + children).map { ["name": .string($0.0), "type": .string($0.1)] })
  }

  func get(_ path: String, _ name: String) throws(CommandError) -> JSONValue {
    let (path, object) = try object(path)
    if name == "type" { return .string(object.type) }
    if object.children.contains(where: { $0.name == name }) {
      return .string(path == "/" ? "/" + name : path + "/" + name)
    }
    guard let property = object.properties.first(where: { $0.name == name }) else {
      throw CommandError("Property '\(object.type).\(name)' not found")
    }
    return try property.value()
  }
}

extension HumanMonitor {
  /// Does `info qom-tree [path]`.
  func objectTree(_ path: String?) throws(CommandError) -> String {
    let path = path ?? "/machine"
    let parts = path.split(separator: "/").map(String.init)[...]
    guard let object = try QOMTree(machine).root.find(parts) else {
      return "Path '\(path)' could not be resolved.\n"
    }
    func lines(_ name: String, _ object: QOMObject, _ depth: Int) -> String {
      let indent = String(repeating: "  ", count: depth)
      return "\(indent)/\(name) (\(object.type))\n"
        + object.children.sorted { $0.name < $1.name }.map {
          lines($0.name, $0.object, depth + 1)
        }.joined()
    }
    return lines(parts.last ?? "", object, 0)
  }
}
