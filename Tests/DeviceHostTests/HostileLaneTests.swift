// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import Testing

/// Whatever stands in the memory that a device shares with its core.
@Suite("A device before a hostile lane", .serialized, .timeLimit(.minutes(5)))
struct HostileLaneTests {
  @Test("answers every access that is one, wherever it goes", arguments: Role.allCases)
  func accesses(_ role: Role) throws {
    var dice = Dice(5)
    let victim = try Victim(role)
    let clock = try Mapping(victim.clock, byteCount: ClockLayout.byteCount, .readWrite)
    try victim.serve()
    let regions: [UInt16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 20, 63, 64, 255, 256, 260, 0xFFFF]
    let offsets: [UInt64] = [
      0, 1, 2, 4, 5, 7, 8, 0x2F, 0x3F, 0xFF, 0x100, 0xFFFF, 0x1_0000, 0x1_FFFF, 0x2_0000,
      0xFFFF_FFFF, 1 << 32, 1 << 63, .max,
    ]
    let values: [UInt64] = [0, 1, 9, 0x20, 0x80, 0xC8, 0xEC, 0xFF, 0x8001, 0xFFFF_FFFF, .max]
    let times: [UInt64] = [0, 1 << 40, 1 << 63, .max - 1_000_000, .max]
    func pick<T>(_ from: [T]) -> T { from[Int(dice.next() % UInt64(from.count))] }

    for round in 0..<1500 {
      if round % 100 == 0 {
        clock.store(UInt32(dice.next() & 1), at: ClockLayout.runningOffset)
        clock.store(pick(times), at: ClockLayout.valueOffset)
      }
      let width: UInt8 = pick([1, 2, 4, 8])
      let access = LaneAccess(
        pick([.read, .write, .readBlock, .writeBlock]), width: width, region: pick(regions),
        offset: pick(offsets), value: pick(values),
        items: pick([0, 1, 7, 4096 / UInt32(width)]),
        descriptorBytes: pick([0, 0, 1, 12, 16, 4096]),
        window: pick([0, 1, 7, 0x1_0000, .max]))
      guard try victim.isAnswered(access, transferred: pick([0, 4, .max])) else {
        return try victim.judge("\(access)", codes: [])
      }
    }

    #expect(try victim.isSane())
    try victim.judge("accesses", codes: [0])
  }

  @Test("does posted writes wherever they go", arguments: Role.allCases)
  func posts(_ role: Role) throws {
    var dice = Dice(6)
    let victim = try Victim(role)
    try victim.serve()
    for head in 0..<3000 as Range<UInt32> {
      let access = LaneAccess(
        .write, width: UInt8(truncatingIfNeeded: dice.next() % 10),
        region: UInt16(truncatingIfNeeded: dice.next() % 16),
        offset: dice.next() >> (dice.next() % 64), value: dice.next())
      while !victim.lane.post(access, head: head) { #expect(try victim.isSane()) }
    }

    #expect(try victim.isSane())
    #expect(victim.lane.isDrained(head: 3000))
    try victim.judge("posts", codes: [0])
  }

  @Test("ends with a reason at a request that is none", arguments: Role.allCases)
  func malformed(_ role: Role) throws {
    typealias At = LaneLayout
    let slot = LaneLayout.slot(0)
    let damages: [(String, (Mapping) -> Void)] = [
      ("operation 0", { $0.store(UInt8(0), at: slot + At.slotOperation) }),
      ("width 0", { $0.store(UInt8(0), at: slot + At.slotWidth) }),
      ("width 3", { $0.store(UInt8(3), at: slot + At.slotWidth) }),
      ("too many items", { $0.store(UInt32(4097), at: slot + At.slotItems) }),
      ("all items", { $0.store(UInt32.max, at: slot + At.slotItems) }),
      ("a long descriptor", { $0.store(UInt32(4097), at: slot + At.slotDescriptorBytes) }),
    ]
    for (what, damage) in damages {
      let victim = try Victim(role)
      try victim.serve()
      let memory = victim.lane.blockMemory
      memory.store(UInt8(3), at: slot + At.slotOperation)
      memory.store(UInt8(1), at: slot + At.slotWidth)
      memory.store(UInt32(1), at: slot + At.slotItems)
      memory.store(UInt32(77), at: slot + At.slotSequence)
      damage(memory)
      memory.release32(SlotState.requested, at: slot + At.slotState)
      memory.add32(1, at: At.doorbellOffset)
      memory.wake(at: At.doorbellOffset)

      #expect(try !victim.awaitAnswer(0), "\(what)")
      try victim.judge(what, codes: [1])
    }
  }

  @Test("ends with a reason when the ring is too full", arguments: Role.allCases)
  func ring(_ role: Role) throws {
    for head in [1025, 0x8000_0000, UInt32.max] {
      let victim = try Victim(role)
      try victim.serve()
      victim.lane.blockMemory.storeSequential32(head, at: LaneLayout.headOffset)

      #expect(try !victim.isSane())
      try victim.judge("head \(head)", codes: [1])
    }
  }

  @Test("answers a repeated sequence at once, and does not care what else is written")
  func noise() throws {
    var dice = Dice(7)
    let victim = try Victim(.serial)
    try victim.serve()
    let access = LaneAccess(.write, width: 1, region: 0, offset: 7, value: 0x5A)
    victim.lane.submit(access, slot: 0, sequence: 9)
    #expect(try victim.awaitAnswer(0))
    victim.lane.submit(
      LaneAccess(.write, width: 1, region: 0, offset: 7, value: 0xA5), slot: 0, sequence: 9)
    #expect(try victim.awaitAnswer(0))
    victim.lane.submit(
      LaneAccess(.read, width: 1, region: 0, offset: 7), slot: 0, sequence: 10)
    #expect(try victim.awaitAnswer(0))
    #expect(
      victim.lane.blockMemory.load(
        UInt64.self, at: LaneLayout.slot(0) + LaneLayout.slotReplyValue) == 0x5A)

    // All of the lane but what says that there is work.
    for _ in 0..<2000 {
      let at = Int(dice.next() % UInt64(LaneLayout.byteCount(slots: 2) / 4)) * 4
      guard at != LaneLayout.headOffset, at != LaneLayout.slot(0), at != LaneLayout.slot(1) else {
        continue
      }
      victim.lane.blockMemory.store(UInt32(truncatingIfNeeded: dice.next()), at: at)
    }

    #expect(try victim.isSane())
    try victim.judge("noise", codes: [0])
  }

  @Test("is not held up by a clock page that is being changed for ever")
  func clock() throws {
    let victim = try Victim(.serial)
    let clock = try Mapping(victim.clock, byteCount: ClockLayout.byteCount, .readWrite)
    try victim.serve()

    clock.storeSequential32(1, at: ClockLayout.sequenceOffset)

    #expect(try victim.isSane())
    try victim.judge("clock", codes: [0])
  }

  @Test("takes a state page of noise, or ends with a reason", arguments: Role.allCases)
  func statePage(_ role: Role) throws {
    var dice = Dice(8)
    typealias At = StateLayoutInPage
    let first = try Victim(role)
    try first.serve()
    #expect(try first.isSane())
    try first.process.kill()
    _ = try first.process.wait(timeout: Victim.patience)
    let page = try Mapping(first.state, byteCount: Victim.stateByteCount, .readWrite)
    let good = page.bytes(at: 0, count: Victim.stateByteCount)
    let active = Int(page.load(UInt32.self, at: At.activeOffset))
    let record = At.recordsOffset + (active - 1) * At.recordBytes
    let values = Int(page.load(UInt32.self, at: record + At.recordCount))
    #expect(active == 1 || active == 2)

    for round in 0..<10 {
      let victim = try Victim(role)
      try victim.greet()
      let files = try victim.takeClaims()
      let copy = try Mapping(victim.state, byteCount: Victim.stateByteCount, .readWrite)
      copy.copy(good, to: 0)
      for _ in 0..<(round < 7 ? 400 : 3) {
        // The values that a device wrote itself, or the page's own structure.
        let at =
          round < 7
          ? record + At.recordValues + Int(dice.next() % UInt64(values))
          : [0, 4, 8, At.layoutOffset + Int(dice.next() % 64), record + 8, record + 12][
            Int(dice.next() % 6)]
        copy.store(
          round % 2 == 0 ? UInt8(0xFF) : UInt8(truncatingIfNeeded: dice.next()), at: at)
      }
      let grant = Grant(
        slots: 2, isRestart: true, stateByteCount: UInt32(Victim.stateByteCount))
      victim.send(Victim.message(Request.claim.rawValue, .reply, grant.wireBytes), files)
      if try victim.next() != nil { _ = try victim.isSane() }
      try victim.judge("state page \(round)")
    }
  }
}
