// SPDX-License-Identifier: Apache-2.0

public import Foundation

/// Where the package's sources are.
public let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent()

/// protocols/device.json.
public struct Table: Codable, Sendable {
  public struct Field: Codable, Sendable {
    public var name: String
    public var type: String
    public var constant: UInt64?
  }
  public struct Structure: Codable, Sendable { public var fields: [Field] }
  public struct Enumeration: Codable, Sendable {
    public var type: String
    public var values: [String: UInt64]
  }
  public struct Message: Codable, Sendable {
    public var number: UInt32
    public var name: String
    public var from: String
    public var payload: [String]
    public var reply: String?
  }
  public var constants: [String: UInt64]
  public var structs: [String: Structure]
  public var enums: [String: Enumeration]
  public var device: [Message]
  public var launch: [Message]
  public var layouts: [String: [String: UInt64]]

  public static func load() throws -> Table {
    let file = root.appending(path: "protocols/device.json")
    return try JSONDecoder().decode(Table.self, from: Data(contentsOf: file))
  }
}

/// One file of protocols/vectors.
public struct Vector: Sendable {
  public var name: String
  public var type: String
  /// What a malformed one's decoder says.
  public var error: String?
  public var bytes: [UInt8]

  public static func load(_ folder: String) throws -> [Vector] {
    let path = root.appending(path: folder)
    return try FileManager.default.contentsOfDirectory(atPath: path.path())
      .filter { $0.hasSuffix(".hex") }.sorted().map { name in
        let text = try String(contentsOf: path.appending(path: name), encoding: .utf8)
        var vector = Vector(name: name, type: "", error: nil, bytes: [])
        for line in text.split(separator: "\n") {
          if line.hasPrefix("# type: ") { vector.type = String(line.dropFirst(8)) }
          if line.hasPrefix("# error: ") { vector.error = String(line.dropFirst(9)) }
          guard !line.hasPrefix("#") else { continue }
          vector.bytes += line.split(separator: " ").compactMap { UInt8($0, radix: 16) }
        }
        return vector
      }
  }

  public static let golden: [Vector] = (try? load("protocols/vectors")) ?? []
  public static let malformed: [Vector] = (try? load("protocols/vectors/malformed")) ?? []
}
