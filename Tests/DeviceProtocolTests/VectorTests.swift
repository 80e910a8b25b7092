// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import TestSupport
import Testing

@Suite struct VectorTests {
  @Test(arguments: Vector.golden)
  func `A golden vector decodes and encodes to the same bytes`(vector: Vector) throws {
    let value = try decodeMessage(vector.bytes, as: vector.type)
    #expect(value.wireBytes == Array(vector.bytes.dropFirst(16)))
  }

  @Test(arguments: Vector.malformed)
  func `A malformed vector is refused for the reason it names`(vector: Vector) throws {
    let reason = try #require(vector.error)
    #expect(throws: ProtocolError(reason)) { try decodeMessage(vector.bytes, as: vector.type) }
  }

  @Test func `Every message and reply has a golden vector`() throws {
    let table = try Table.load()
    var wanted: Set<String> = []
    for message in table.device + table.launch {
      if message.payload.count == 1 { wanted.insert("\(message.name).hex") }
      if message.reply != nil { wanted.insert("\(message.name).reply.hex") }
    }
    #expect(wanted.subtracting(Vector.golden.map(\.name)) == [])
    #expect(Vector.malformed.count > 50)
  }

  @Test(arguments: Vector.golden)
  func `A mutated message decodes or is refused, and what decodes is canonical`(
    vector: Vector
  ) throws {
    let wire = try #require(wireTypes[vector.type])
    for mutation in Mutator.mutations(of: vector.bytes, keepsSize: true) {
      guard mutation.bytes.count >= 16 else { continue }
      let payload = Array(mutation.bytes.dropFirst(16))
      do {
        _ = try Header(wireBytes: Array(mutation.bytes.prefix(16)))
        let value = try wire.init(wireBytes: payload)
        #expect(value.wireBytes == payload, "\(mutation.what)")
      } catch {
        #expect(!error.reason.isEmpty, "\(mutation.what)")
      }
    }
  }

  @Test func `A message with more descriptors than fit is refused`() throws {
    let (ours, theirs) = try PacketSocket.pair()
    let file = try MemoryFile.make("many", byteCount: 4096)
    let header = Header(request: 3, sequence: 1, size: 0)
    let many = [Descriptor](repeating: file, count: PacketSocket.mostDescriptors + 1)
    // The sending side refuses that many itself; the message never leaves.
    #expect(throws: SystemError.self) { try theirs.send(header.wireBytes, many) }
    #expect(try Channel(ours).receive(wait: false) == nil)
  }

  @Test func `Texts that are too long are cut at a scalar, within their limit`() throws {
    let long = String(repeating: "e\u{301}\u{1F600}", count: 4000)
    let values: [any WireCodable] = [
      Refusal(long), FaultMessage(role: "ide", kind: .gone, reason: long),
      EndedMessage(code: 1, reason: long), IsolationMessage(summary: long, missing: long),
      ScreendumpReply(width: 1, height: 1, text: long),
    ]
    for value in values {
      let bytes = value.wireBytes
      #expect(bytes.count <= Header.longestMessage - Header.byteCount)
      #expect(try type(of: value).init(wireBytes: bytes).wireBytes == bytes)
    }
  }
}
