// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Foundation
import LinuxSystem
import Synchronization
import TestSupport
import Testing

@testable import MachineCore

/// A hostile `ide` beside the healthy C device, which a guest hammers all the time.
@Suite(
  .enabled(if: hostHasKVM, "needs a /dev/kvm that can be read and written"), .serialized,
  .timeLimit(.minutes(2)))
struct HostileDeviceTests {
  let bench: Bench
  init() throws {
    bench = try Bench("hammer", roles: ["example", "ide"])
    try bench.boot()
  }

  /// What the process uses, in bytes.
  static func residentBytes() throws -> Int {
    let text = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
    return try #require(Int(text.split(separator: " ")[1])) * 4096
  }

  /// The most that the process may grow; the tests of other modules run in it at the same time.
  static let mostGrowth = 512 << 20

  /// How many descriptors of the memory with this name are open; other tests open others.
  static func descriptors(of name: String) throws -> Int {
    let folder = "/proc/self/fd"
    return try FileManager.default.contentsOfDirectory(atPath: folder).count {
      let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\($0)")
      return target?.contains("memfd:\(name)") == true
    }
  }

  /// The healthy device goes on answering, and the hostile one was cut off for this reason.
  func expectCut(_ what: String, _ reason: String? = nil) throws {
    try bench.wait(3) { !bench.faults.isEmpty }
    let fault = try #require(bench.faults.first)
    #expect(fault.role == "ide" && fault.kind == .protocolBroken, "\(what): \(fault)")
    if let reason { #expect(fault.reason.contains(reason), "\(what): \(fault.reason)") }
    bench.faults = []
    try expectHealthy()
  }

  func expectHealthy() throws {
    let before = try bench.word(0x910)
    try bench.wait(3) { try bench.word(0x910) != before }
  }

  enum Stage: CaseIterable { case hello, claim, ready, up }

  func bring(to stage: Stage) throws -> FakeDevice {
    // What went before does not count: each of these processes is a first offender.
    bench.machine.links[1].state.withLock { $0.record = DeviceLink.FaultRecord() }
    let device = try FakeDevice(bench, "ide")
    if stage == .hello { return device }
    try device.hello()
    if stage == .claim { return device }
    try device.claim(FakeDevice.ideClaims)
    if stage == .ready { return device }
    bench.ready = []
    try device.open().request(.ready, sequence: 3, Empty())
    try bench.wait(3) { bench.ready == ["ide"] }
    return device
  }

  @Test func `Messages out of order cut it off`() throws {
    let stages: [(Stage, Request)] = [
      (.hello, .claim), (.hello, .ready), (.hello, .dma), (.claim, .hello), (.claim, .ready),
      (.ready, .claim), (.ready, .dma), (.up, .hello), (.up, .claim), (.up, .ready), (.up, .quit),
    ]
    for (stage, request) in stages {
      let device = try bring(to: stage)
      try device.open().request(request, sequence: 9, Empty())
      try expectCut("\(request) at \(stage)")
    }
  }

  @Test func `What its role may not do cuts it off`() throws {
    for (request, payload) in [
      (Request.routePIRQ, PIRQRoutes([1, 2, 3, 4]).wireBytes),
      (.power, PowerRequest(.powerOff).wireBytes),
    ] {
      let device = try bring(to: .up)
      try device.open().send(request.rawValue, sequence: 1, payload: payload)
      try expectCut("\(request)", "may not send")
    }
    #expect(bench.ends.isEmpty)
    let device = try bring(to: .up)
    try device.open().request(
      .moveRegion, sequence: 1, MoveRegion(region: 10, isEnabled: true, base: 0x560))
    let reply = try device.open().receive(timeout: 2_000_000_000)
    #expect(reply.header.flags == [.reply, .refusal])
  }

  @Test func `Claims outside the grants, or another's, cut it off, and leave nothing`() throws {
    var bad: [Claims] = [FakeDevice.exampleClaims]
    bad.append(Claims(ports: [PortClaim(region: 0, base: 0x1F0, count: 9)]))
    bad.append(
      Claims(ports: [
        PortClaim(region: 0, base: 0x1F0, count: 8), PortClaim(region: 1, base: 0x1F4, count: 2),
      ]))
    for claims in bad {
      let device = try bring(to: .claim)
      #expect(throws: ChannelError.self) { try device.claim(claims) }
      try expectCut("\(claims.ports)")
    }
    #expect(bench.machine.board.withLock { $0.ports.count } == 1)
    // The next, honest process gets everything.
    _ = try bring(to: .up)
  }

  @Test func `A successor with other claims is cut off`() throws {
    try bring(to: .up).close()
    try bench.wait { bench.faults.count == 1 }
    bench.faults = []
    let device = try bring(to: .claim)
    var claims = FakeDevice.ideClaims
    claims.bounceByteCount = 4096
    #expect(throws: ChannelError.self) { try device.claim(claims) }
    try expectCut("other claims", "differ")
  }

  @Test func `DMA outside the bounce buffer cuts it off`() throws {
    let device = try bring(to: .up)
    try device.open().request(
      .dma, sequence: 1,
      DMARequest(window: 0, direction: .toGuest, bounceOffset: .max, byteCount: .max))
    try expectCut("DMA", "outside the bounce buffer")
  }

  @Test func `A copy in a slot that is none, or outside the bounce buffer, cuts it off`() throws {
    let (link, machine) = (bench.machine.links[1], bench.machine)
    for direction in [UInt32(7), 2, 0] {
      let device = try bring(to: .up)
      let gate = try Gate()
      try LinuxSystem.Thread.start("vcpu") {
        var cpu = CPUContext(machine: machine, slot: 0, links: 2)
        _ = link.live(LaneAccess(.read, width: 1, region: 11, offset: 2), &cpu)
        gate.value = 1
      }
      let lane = try #require(device.lane)
      try bench.wait(3) { lane.isRequested(0) }
      let file = device.descriptors[0]
      let memory = try Mapping(file, byteCount: Int(try file.size()), .readWrite)
      let slot = LaneLayout.slot(0)
      memory.store(direction, at: slot + LaneLayout.slotCopyDirection)
      memory.store(UInt32.max, at: slot + LaneLayout.slotCopyBounceOffset)
      memory.store(UInt32.max, at: slot + LaneLayout.slotCopyByteCount)
      memory.storeSequential32(SlotState.copying, at: slot + LaneLayout.slotState)
      memory.wake(at: slot + LaneLayout.slotState)
      try expectCut("a copy", direction == 0 ? "outside the bounce buffer" : "no copy")
      device.close()
      // The vCPU waits for the successor, which finds the request as it was.
      let successor = try bring(to: .up)
      let next = try #require(successor.lane)
      try bench.wait(3) { next.isRequested(0) }
      next.prepare(0, value: 0, items: 1)
      next.answer(0)
      try bench.wait(3) { gate.value == 1 }
      successor.close()
      try bench.wait(3) { bench.faults.count == 1 }
      bench.faults = []
    }
  }

  @Test func `A device that floods and does not read is cut off`() throws {
    let before = try Self.residentBytes()
    let device = try bring(to: .up)
    let message = DMARequest(window: 0, direction: .close)
    for _ in 0..<100_000 {
      do { try device.open().request(.dma, sequence: 1, message) } catch { break }
    }
    try expectCut("flood", "not read")
    #expect(try Self.residentBytes() - before < Self.mostGrowth)
  }

  @Test func `Descriptors that nobody wants are closed`() throws {
    let file = try MemoryFile.make("unwanted", byteCount: 4096)
    for _ in 0..<20 {
      let device = try bring(to: .up)
      try device.open().send(
        Request.dma.rawValue, sequence: 1,
        payload: DMARequest(window: 0, direction: .close).wireBytes,
        [Descriptor](repeating: file, count: 32))
      try expectCut("descriptors", "descriptors with dma")
    }
    try bench.wait(3) { try Self.descriptors(of: "unwanted") == 1 }
  }

  @Test func `Every mutated message at every stage is refused or harmless`() throws {
    let before = try Self.residentBytes()
    let table = try Table.load()
    let numbers = Set(table.device.filter { $0.from == "device" }.map(\.number))
    var count = 0
    for stage in Stage.allCases {
      for vector in Vector.golden {
        guard let header = try? Header(wireBytes: Array(vector.bytes.prefix(16))),
          numbers.contains(header.request), !header.flags.contains(.reply)
        else { continue }
        let all = Mutator.mutations(of: vector.bytes, keepsSize: count % 2 == 0)
        for index in stride(from: count % 97, to: all.count, by: 97) {
          count += 1
          let device = try bring(to: stage)
          try device.open().socket.send(all[index].bytes)
          device.close()
          try bench.wait(3) { !bench.faults.isEmpty }
          #expect(bench.faults.count == 1)
          #expect(bench.faults.allSatisfy { $0.role == "ide" && !$0.reason.isEmpty })
          bench.faults = []
        }
      }
    }
    #expect(count > 100)
    #expect(bench.ends.isEmpty)
    try expectHealthy()
    #expect(try Self.residentBytes() - before < Self.mostGrowth)
  }

  @Test func `Garbage all over its lane stops nobody, and a successor serves`() throws {
    let bench = try Bench("hammer", cpus: 2, deadline: 300_000_000)
    let device = try FakeDevice(bench, "example")
    try device.comeUp(FakeDevice.exampleClaims)
    try bench.wait { bench.ready.count == 1 }
    let lane = try Mapping(
      device.descriptors[0], byteCount: LaneLayout.byteCount(slots: 2), .readWrite)
    let garbage = Garbage(lane)
    try Thread.start("garbage") { garbage.run() }
    bench.machine.run()
    try bench.wait { !bench.faults.isEmpty }
    garbage.stop()
    #expect(bench.faults.count == 1)
    let kinds: [FaultMessage.Kind] = [.protocolBroken, .deadline]
    #expect(bench.faults.allSatisfy { kinds.contains($0.kind) })
    try bench.startExample()
    let before = try bench.word(0x910)
    try bench.wait { try bench.word(0x910) > before &+ 100 }
    #expect(bench.machine.links[0].status == .up)
    #expect(bench.faults.count == 1)
  }
}

/// Writes pseudo-random words all over a lane.
final class Garbage: Sendable {
  private let lane: Mapping
  private let state = Atomic<Int>(0)
  init(_ lane: Mapping) { self.lane = lane }

  func run() {
    var word: UInt64 = 88_172_645_463_325_252
    while state.load(ordering: .acquiring) == 0 {
      for at in stride(from: 0, to: lane.byteCount - 8, by: 8) {
        word ^= word << 13
        word ^= word >> 7
        word ^= word << 17
        // Never a reply by chance: the test is about what is none.
        lane.store(word & 0xFFFF_FFFF_FFFF_FFFC | 4, at: at)
      }
    }
    state.store(2, ordering: .releasing)
  }

  func stop() {
    state.store(1, ordering: .releasing)
    let end = HostClock.monotonic() + 5_000_000_000
    while state.load(ordering: .acquiring) != 2, HostClock.monotonic() < end {
      HostClock.sleep(1_000_000)
    }
  }
}
