// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import TestSupport
import Testing

@Suite struct LaneTests {
  let core: CoreLane
  let device: DeviceLane
  init() throws {
    core = try CoreLane(name: "test", slots: 2)
    device = try DeviceLane(core.file, slots: 2)
  }

  @Test func `A request's fields come over, and the reply goes back`() throws {
    let access = LaneAccess(
      .writeBlock, width: 2, region: 7, offset: 0x1234, value: 0xABCD, items: 9,
      descriptorBytes: 16, window: 3)
    core.submit(access, slot: 1, sequence: 5)
    #expect(!device.isRequested(0) && device.isRequested(1))
    #expect(device.request(1) == access)
    #expect(device.sequence(1) == 5)
    device.prepare(1, value: 42, items: 9)
    #expect(!core.isAnswered(1))
    device.answer(1)
    #expect(core.isAnswered(1))
    #expect(core.take(1) == (value: 42, items: 9))
    #expect(!core.isAnswered(1) && !device.isRequested(1))
  }

  @Test(arguments: [(0, 1, 1), (5, 1, 1), (1, 0, 1), (1, 3, 1), (1, 16, 1), (3, 2, 2049)])
  func `Fields that are no request's are refused`(operation: Int, width: Int, items: Int) {
    core.submit(LaneAccess(.read, width: 1, region: 0, offset: 0), slot: 0, sequence: 1)
    let at = LaneLayout.slot(0)
    core.blockMemory.store(UInt8(operation), at: at + LaneLayout.slotOperation)
    core.blockMemory.store(UInt8(width), at: at + LaneLayout.slotWidth)
    core.blockMemory.store(UInt32(items), at: at + LaneLayout.slotItems)
    #expect(device.request(0) == nil)
  }

  @Test func `Posted writes keep their order across the ends of the ring and of the count`() {
    var head: UInt32 = 0 &- 1500
    device.setTail(head)
    var tail = head
    for round in 0..<3000 {
      let access = LaneAccess(.write, width: 4, region: 1, offset: 2, value: UInt64(round))
      #expect(core.post(access, head: head))
      head &+= 1
      guard round % 700 == 699 else { continue }
      while tail != device.head {
        #expect(device.posted(tail)?.value == UInt64(tail &+ 1500))
        tail &+= 1
      }
      device.setTail(tail)
      #expect(core.isDrained(head: head))
    }
  }

  @Test func `Counters come over, and a successor goes on with them`() throws {
    device.count(5, in: 0)
    device.count(.max, in: 63)
    let successor = try DeviceLane(core.file, slots: 2)
    successor.count(7, in: 0)
    successor.count(2, in: 63)
    #expect(core.counter(0) == 12 && core.counter(1) == 0 && core.counter(63) == 1)
    // They are apart from everything else in the lane.
    core.submit(LaneAccess(.read, width: 1, region: 0, offset: 0), slot: 0, sequence: 1)
    #expect(core.mirrored(0, head: 0) == nil)
    device.mirror(0, 9)
    #expect(core.counter(63) == 1 && core.mirrored(0, head: 0) == 9)
  }

  @Test func `A full ring takes no more until the device has taken some`() {
    let access = LaneAccess(.write, width: 1, region: 0, offset: 0)
    for head in 0..<1024 { #expect(core.post(access, head: UInt32(head))) }
    #expect(!core.post(access, head: 1024))
    device.setTail(1)
    #expect(core.post(access, head: 1024))
    #expect(!core.post(access, head: 1025))
  }

  @Test(arguments: [UInt32(1), 0x8000_0000, 0xFFFF_FFFF])
  func `A hostile tail only costs the device its ring`(tail: UInt32) {
    device.setTail(tail)
    _ = core.post(LaneAccess(.write, width: 1, region: 0, offset: 0), head: 0)
    #expect(!core.isDrained(head: 0))
  }

  @Test func `A mirrored register is given out only while it is valid`() {
    #expect(core.mirrored(3, head: 0) == nil)
    device.mirror(3, 0x1234_5678)
    #expect(core.mirrored(3, head: 0) == 0x1234_5678)
    #expect(core.mirrored(3, head: 1) == nil)
    device.mirror(3, 7, withPosts: true)
    #expect(core.mirrored(3, head: 1) == 7)
    device.mirror(3, nil)
    #expect(core.mirrored(3, head: 0) == nil)
  }

  @Test(.timeLimit(.minutes(1)))
  func `A device that sleeps on the doorbell answers every request`() throws {
    let device = device
    try Thread.start("device") {
      var done = 0
      while done < 2000 {
        let count = device.doorbell
        if device.isRequested(0) {
          device.prepare(0, value: UInt64(device.sequence(0)), items: 0)
          device.answer(0)
          done += 1
        } else {
          device.sleep(doorbell: count, timeout: nil)
        }
      }
    }
    for sequence in 1...UInt32(2000) {
      core.submit(LaneAccess(.read, width: 4, region: 0, offset: 0), slot: 0, sequence: sequence)
      while !core.isAnswered(0) { core.sleep(0, timeout: 1_000_000_000) }
      #expect(core.take(0).value == UInt64(sequence))
    }
  }

  @Test func `Memory that is no lane is refused`() throws {
    let short = try MemoryFile.make("short", byteCount: LaneLayout.byteCount(slots: 1))
    let blank = try MemoryFile.make("blank", byteCount: LaneLayout.byteCount(slots: 2))
    let event = try EventFile.make()
    #expect(throws: ChannelError.self) { try DeviceLane(short, slots: 2) }
    #expect(throws: ChannelError.self) { try DeviceLane(blank, slots: 2) }
    #expect(throws: ChannelError.self) { try DeviceLane(event, slots: 2) }
    #expect(throws: ChannelError.self) { try DeviceLane(core.file, slots: 1) }
  }
}
