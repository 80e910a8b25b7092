// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import Monitor
import Synchronization
import Testing

@testable import MachineCore

@Suite(.serialized, .timeLimit(.minutes(1)))
struct AccessTraceTests {
  private func access(_ region: UInt16, _ offset: UInt64, width: UInt8 = 1) -> LaneAccess {
    LaneAccess(.read, width: width, region: region, offset: offset)
  }

  @Test func `A filter takes what touches its places, of its device and its kinds`() {
    var filter = AccessTrace.Filter(kinds: [.live, .posted])
    #expect(filter.wants(0, access(0, 0), .live) && filter.wants(3, access(9, 9), .posted))
    #expect(!filter.wants(0, access(0, 0), .mirrored))
    filter.link = 2
    #expect(filter.wants(2, access(0, 0), .live) && !filter.wants(1, access(0, 0), .live))
    filter.places = [.init(link: 2, region: 1, offsets: 4...7)]
    #expect(filter.wants(2, access(1, 4), .live) && filter.wants(2, access(1, 7), .live))
    #expect(!filter.wants(2, access(1, 3), .live) && !filter.wants(2, access(1, 8), .live))
    #expect(filter.wants(2, access(1, 0, width: 8), .live))
    #expect(!filter.wants(2, access(1, 0, width: 4), .live))
    #expect(!filter.wants(2, access(0, 4), .live))
    // The end of the address space is no way around.
    #expect(!filter.wants(2, access(1, .max), .live))
    filter.places = []
    #expect(!filter.wants(2, access(1, 4), .live))
  }

  @Test func `What has no place in the ring is lost and counted, and the oldest comes first`()
    throws
  {
    let bench = try Bench("example", accelerator: .soft)
    let link = bench.machine.links[0]
    let trace = bench.machine.trace
    func note(_ value: UInt64) { trace.note(access(0, 2), .live, value, of: link, cpu: 0) }
    note(1)
    #expect(!trace.isOn && trace.take(10).records.isEmpty)
    trace.start(AccessTrace.Filter(kinds: [.live]))
    #expect(trace.isOn)
    for value in 0..<UInt64(AccessTrace.capacity + 100) { note(value) }
    let first = trace.take(50)
    #expect(first.records.map(\.value) == Array(0..<50) && first.lost == 100)
    // Places that were freed are used again.
    for value in 0..<UInt64(60) { note(1_000_000 + value) }
    let all = trace.take(.max)
    #expect(all.records.count == AccessTrace.capacity && all.lost == 110)
    #expect(all.records.first?.value == 50 && all.records.last?.value == 1_000_049)
    #expect(trace.take(1).records.isEmpty)
    note(7)
    trace.stop()
    note(8)
    #expect(!trace.isOn && trace.take(10).records.isEmpty && trace.take(10).lost == 0)
    trace.start(AccessTrace.Filter(kinds: [.live]))
    #expect(trace.take(10).records.isEmpty && trace.take(10).lost == 0)
  }

  @Test(arguments: Bench.accelerators)
  func `A guest's accesses are in the trace, each as it was done`(
    accelerator: CoreSettings.Accelerator
  ) throws {
    let bench = try Bench("example", accelerator: accelerator)
    bench.machine.trace.start(AccessTrace.Filter(kinds: Set(TraceReply.Kind.allCases)))
    try bench.boot()
    try bench.wait { try bench.word(0xFF8) == 0x600D_600D }
    let link = bench.machine.links[0]
    let records = bench.machine.trace.take(.max).records
    func count(_ kind: TraceReply.Kind) -> UInt64 { UInt64(records.count { $0.kind == kind }) }
    #expect(count(.live) == link.liveCount.load(ordering: .relaxed))
    #expect(count(.posted) == link.postedCount.load(ordering: .relaxed))
    #expect(count(.mirrored) == 1)
    #expect(records.allSatisfy { ($0.latency > 0) == ($0.kind == .live) })
    let mirrored = try #require(records.first { $0.kind == .mirrored })
    #expect(mirrored.access.operation == .read && mirrored.access.offset == 2)
    #expect(mirrored.value == (0x5A ^ 0x42) && mirrored.cpu == 0)
  }
}
