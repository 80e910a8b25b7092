// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Monitor
import Testing

@Suite struct TraceMessageTests {
  @Test func `Requests and records come over the wire as they are`() throws {
    for request in [
      TraceRequest(isOn: false),
      TraceRequest(isOn: true, role: "ide", kinds: [.mirrored]),
      TraceRequest(
        isOn: true, kinds: [.live, .posted],
        range: .init(space: .ports, first: 0x1F0, last: 0x1F7)),
      TraceRequest(isOn: true, range: .init(space: .memory, first: 0, last: .max)),
    ] {
      #expect(try TraceRequest(wireBytes: request.wireBytes) == request)
    }
    let record = TraceReply.Record(
      time: 1, cpu: TraceReply.noCPU, device: 1, kind: .posted, operation: .writeBlock,
      space: .function, address: 2, width: 4, items: 3, value: 4, latency: 5)
    let reply = TraceReply(
      lost: 6, roles: ["piix", "ide"],
      records: [TraceReply.Record](repeating: record, count: TraceReply.most))
    #expect(try TraceReply(wireBytes: reply.wireBytes) == reply)
    #expect(reply.wireBytes.count <= 16384 - 16)
    #expect(reply.role(record) == "ide" && !record.isRead)
    #expect(TraceReply(lost: 0, roles: [], records: []).role(record) == "?")
    let ports = PortsReply(ports: ["stdio", "pty:/dev/pts/3"])
    #expect(try PortsReply(wireBytes: ports.wireBytes) == ports)
    for level in [nil, LogLevel.error, .debug] {
      let request = LogLevelRequest(level: level)
      #expect(try LogLevelRequest(wireBytes: request.wireBytes) == request)
    }
  }

  /// A request's bytes: state, role, kinds, range flag, space, first and last address.
  private func request(
    kinds: UInt8 = 7, isRange: UInt8 = 1, space: UInt8 = 1, first: UInt64 = 0, last: UInt64 = 0
  ) -> [UInt8] {
    var writer = WireWriter()
    writer.put(UInt8(1))
    writer.put("")
    writer.put(kinds)
    writer.put(isRange)
    writer.put(space)
    writer.put(first)
    writer.put(last)
    return writer.bytes
  }

  @Test func `What makes no sense is refused`() throws {
    #expect(throws: Never.self) { try TraceRequest(wireBytes: request()) }
    for bytes in [
      request(kinds: 8), request(isRange: 2), request(space: 3), request(space: 2),
      request(first: 2, last: 1), Array(request().dropLast()), request() + [0],
    ] {
      #expect(throws: ProtocolError.self) { try TraceRequest(wireBytes: bytes) }
    }
    for level in [UInt8(1), 2, 8, 255] {
      #expect(throws: ProtocolError.self) { try LogLevelRequest(wireBytes: [level]) }
    }
  }
}
