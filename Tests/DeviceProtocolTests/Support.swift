// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Foundation
import LinuxSystem
import Testing

/// Where the package's sources are.
let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent()

/// protocols/device.json.
struct Table: Codable, Sendable {
  struct Field: Codable, Sendable {
    var name: String
    var type: String
    var constant: UInt64?
  }
  struct Structure: Codable, Sendable { var fields: [Field] }
  struct Enumeration: Codable, Sendable {
    var type: String
    var values: [String: UInt64]
  }
  struct Message: Codable, Sendable {
    var number: UInt32
    var name: String
    var from: String
    var payload: [String]
    var reply: String?
  }
  var constants: [String: UInt64]
  var structs: [String: Structure]
  var enums: [String: Enumeration]
  var device: [Message]
  var launch: [Message]
  var layouts: [String: [String: UInt64]]

  static func load() throws -> Table {
    let file = root.appending(path: "protocols/device.json")
    return try JSONDecoder().decode(Table.self, from: Data(contentsOf: file))
  }
}

/// One file of protocols/vectors.
struct Vector: Sendable, CustomTestStringConvertible {
  var name: String
  var type: String
  /// What a malformed one's decoder says.
  var error: String?
  var bytes: [UInt8]

  var testDescription: String { name }

  static func load(_ folder: String) throws -> [Vector] {
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

  static let golden: [Vector] = (try? load("protocols/vectors")) ?? []
  static let malformed: [Vector] = (try? load("protocols/vectors/malformed")) ?? []
}

/// Every type that is in a message, by its name in the table.
let wireTypes: [String: any WireCodable.Type] = [
  "Header": Header.self, "Empty": Empty.self, "Refusal": Refusal.self, "Hello": Hello.self,
  "PortClaim": PortClaim.self, "MemoryClaim": MemoryClaim.self, "BARClaim": BARClaim.self,
  "FunctionClaim": FunctionClaim.self, "RegisterClaim": RegisterClaim.self,
  "LineClaim": LineClaim.self, "BackingClaim": BackingClaim.self,
  "DescriptorClaim": DescriptorClaim.self, "Claims": Claims.self, "Grant": Grant.self,
  "DMARequest": DMARequest.self, "DMAReply": DMAReply.self, "MoveRegion": MoveRegion.self,
  "PIRQRoutes": PIRQRoutes.self, "PowerRequest": PowerRequest.self,
  "ScreendumpRequest": ScreendumpRequest.self, "ScreendumpReply": ScreendumpReply.self,
  "InputRequest": InputRequest.self, "InputRequest.Key": InputRequest.Key.self,
  "CommonSettings": CommonSettings.self, "CoreSettings": CoreSettings.self,
  "CoreSettings.Device": CoreSettings.Device.self, "PIIXSettings": PIIXSettings.self,
  "IDESettings": IDESettings.self, "IDESettings.Drive": IDESettings.Drive.self,
  "SerialSettings": SerialSettings.self, "SerialSettings.Port": SerialSettings.Port.self,
  "VGASettings": VGASettings.self, "IsolationMessage": IsolationMessage.self,
  "AttachMessage": AttachMessage.self, "FaultMessage": FaultMessage.self,
  "EndedMessage": EndedMessage.self, "BackingRequest": BackingRequest.self,
]

/// Why a test cannot go on.
struct Failure: Error { var reason: String }

/// Takes a whole message apart as a receiver does: the header, then the payload.
func decodeMessage(_ bytes: [UInt8], as type: String) throws -> any WireCodable {
  let (ours, theirs) = try PacketSocket.pair()
  try theirs.send(bytes)
  let packet: Packet?
  do {
    packet = try Channel(ours).receive()
  } catch {
    guard case .broken(let problem) = error else { throw error }
    throw problem
  }
  guard let packet, let wire = wireTypes[type] else { throw Failure(reason: "no type \(type)") }
  return try wire.init(wireBytes: packet.payload)
}
