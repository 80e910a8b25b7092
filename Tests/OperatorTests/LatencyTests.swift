// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Monitor
import Testing

@Suite struct LatencyTests {
  @Test func `Every latency is in the bucket that its bounds say`() {
    var edges: [UInt64] = [0, 1, 255, 256, 257, .max]
    for exponent in UInt64(8)..<64 {
      let start = UInt64(1) << exponent
      edges += [start - 1, start, start + 1, start + start / 2 - 1, start + start / 2]
      edges.append(start + start / 2 + 1)
    }
    for value in edges {
      let index = LatencyBuckets.index(of: value)
      if let bound = LatencyBuckets.bound(index) { #expect(value <= bound) }
      if index > 0, let below = LatencyBuckets.bound(index - 1) { #expect(value > below) }
    }
    #expect(LatencyBuckets.bound(LatencyBuckets.count - 1) == nil)
    #expect(LatencyBuckets.index(of: .max) == LatencyBuckets.count - 1)
  }

  @Test func `A share of the accesses is found by its bucket's bound`() throws {
    var histogram = LatencyHistogram()
    #expect(histogram.quantile(0.5) == nil)
    for _ in 0..<98 { histogram.add(1000) }
    histogram.add(90_000)
    histogram.add(5_000_000)
    #expect(histogram.total == 100)
    #expect(histogram.sum == 98_000 + 90_000 + 5_000_000)
    #expect(histogram.quantile(0.5) == 1024)
    #expect(histogram.quantile(0.98) == 1024)
    #expect(histogram.quantile(0.99) == 98_304)
    #expect(histogram.quantile(1) == 6_291_456)
    var later = histogram
    later.add(400)
    let between = later.since(histogram)
    #expect(between.total == 1 && between.sum == 400 && between.quantile(0.5) == 512)
    // A histogram that has gone back, which no honest one does, gives no nonsense.
    #expect(histogram.since(later).total == 0)
  }

  @Test func `Histograms come over the wire, and full ones still fit into a message`() throws {
    var histogram = LatencyHistogram()
    for index in 0..<LatencyBuckets.count { histogram.counts[index] = UInt64(index) + 1 }
    histogram.sum = 77
    let device = MetricsReply.Device(
      role: "serial", isUp: true, restarts: 3, live: 1, posted: 2, mirrored: 3,
      latencies: [LatencyHistogram](repeating: histogram, count: 4))
    let reply = MetricsReply(
      machine: String(repeating: "m", count: 63), isRunning: true, clock: 5, lostEvents: 6,
      devices: [MetricsReply.Device](repeating: device, count: 4),
      drives: [MetricsReply.Counters](repeating: .init(values: [1, 2, 3, 4, 5, 6, 7]), count: 4),
      ports: [MetricsReply.Counters](repeating: .init(values: [8, 9]), count: 4))
    let bytes = reply.wireBytes
    #expect(bytes.count <= 16384 - 16)
    #expect(try MetricsReply(wireBytes: bytes) == reply)
    #expect(reply.drives[3][.errors] == 7 && reply.ports[0][.sentBytes] == 9)
  }

  @Test(arguments: [UInt8(LatencyBuckets.count), 255])
  func `A bucket that there is not is refused`(index: UInt8) throws {
    var writer = WireWriter()
    writer.put(UInt64(0))
    writer.put(UInt32(1))
    writer.put(index)
    writer.put(UInt64(1))
    #expect(throws: ProtocolError.self) { try LatencyHistogram(wireBytes: writer.bytes) }
  }
}
