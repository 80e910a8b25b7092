// SPDX-License-Identifier: Apache-2.0

import KVM
import LinuxSystem
import Testing

/// The kernel's side of a ring, which the test plays.
private struct Producer {
  let memory: Mapping
  let offset = 4096
  var last: UInt32 = 0

  init() throws {
    memory = try Mapping(
      try MemoryFile.make("ring", byteCount: 8192), byteCount: 8192, .readWrite)
  }

  var ring: CoalescedRing { CoalescedRing(memory, at: offset) }
  var isFull: Bool {
    (last + 1) % UInt32(CoalescedRing.capacity) == memory.load(UInt32.self, at: offset)
  }

  mutating func put(
    _ data: UInt64, at address: UInt64 = 0xB8000, byteCount: UInt32 = 2, flags: UInt32 = 0
  ) {
    let at = offset + 8 + 24 * Int(last)
    memory.store(address, at: at)
    memory.store(byteCount, at: at + 8)
    memory.store(flags, at: at + 12)
    memory.store(data, at: at + 16)
    last = (last + 1) % UInt32(CoalescedRing.capacity)
    memory.release32(last, at: offset + 4)
  }
}

@Suite struct CoalescedRingTests {
  @Test("a new ring is empty, and taking from it changes nothing")
  func empty() throws {
    let producer = try Producer()
    var ring = producer.ring
    ring.drop()
    #expect(ring.isEmpty && ring.peek() == nil)
    #expect(producer.memory.load(UInt32.self, at: producer.offset) == 0)
  }

  @Test("an entry's address, width, data and kind come out as they were put in")
  func entry() throws {
    var producer = try Producer()
    var ring = producer.ring
    producer.put(0xFFFF_FFFF_1234_5678, at: 0xA0004, byteCount: 4)
    producer.put(0x42, at: 0x3D4, byteCount: 1, flags: 1)
    #expect(
      ring.peek()
        == CoalescedWrite(address: 0xA0004, data: 0x1234_5678, byteCount: 4, isPort: false))
    ring.drop()
    #expect(
      ring.peek() == CoalescedWrite(address: 0x3D4, data: 0x42, byteCount: 1, isPort: true))
  }

  @Test("writes come out in order, through several rounds of a ring that is filled up")
  func order() throws {
    var producer = try Producer()
    var ring = producer.ring
    var put: UInt64 = 0
    var taken: UInt64 = 0
    for round in 1...7 {
      while !producer.isFull {
        producer.put(put)
        put += 1
      }
      for _ in 0..<(23 * round) {
        #expect(ring.peek()?.data == taken)
        ring.drop()
        taken += 1
      }
      #expect(!ring.isEmpty)
    }
    while let write = ring.peek() {
      #expect(write.data == taken)
      ring.drop()
      taken += 1
    }
    #expect(put == taken && ring.isEmpty)
  }

  @Test("a write that was looked at stays in the ring until it is dropped")
  func peek() throws {
    var producer = try Producer()
    var ring = producer.ring
    producer.put(7)
    #expect(ring.peek()?.data == 7 && ring.peek()?.data == 7 && !producer.ring.isEmpty)
    ring.drop()
    #expect(ring.peek() == nil && producer.ring.isEmpty)
  }

  @Test(
    "a place outside the ring is none, and a width beyond eight bytes is eight",
    arguments: [UInt32(CoalescedRing.capacity), .max])
  func garbage(last: UInt32) throws {
    var producer = try Producer()
    let ring = producer.ring
    producer.put(.max, byteCount: .max)
    #expect(ring.peek()?.byteCount == 8 && ring.peek()?.data == .max)
    producer.memory.release32(last, at: producer.offset + 4)
    #expect(ring.peek() == nil)
  }
}

@Suite(
  "Coalesced zones on /dev/kvm", .enabled(if: hasKVM, "needs a /dev/kvm"), .serialized,
  .timeLimit(.minutes(1)))
struct CoalescedZoneTests {
  private let zone = VirtualMachine.CoalescedZone(address: 0x80, byteCount: 1, isPort: true)

  @Test("a collected write waits in the ring until the next exit")
  func collected() throws {
    let guest = try GuestMachine("ports")
    try #require(guest.machine.canCoalesce.ports)
    var ring = try #require(guest.cpu.coalescedRing)
    try guest.machine.addCoalescedZone(zone)
    #expect(try guest.run().ports?.port == 0x1F0)
    #expect(
      ring.peek() == CoalescedWrite(address: 0x80, data: 0x42, byteCount: 1, isPort: true))
    ring.drop()
    #expect(ring.isEmpty)
  }

  @Test("a write to a zone that was taken away leaves the guest")
  func removed() throws {
    let guest = try GuestMachine("ports")
    try #require(guest.machine.canCoalesce.ports)
    let ring = try #require(guest.cpu.coalescedRing)
    try guest.machine.addCoalescedZone(zone)
    try guest.machine.removeCoalescedZone(zone)
    #expect(try guest.run().ports?.port == 0x80)
    #expect(ring.isEmpty)
  }
}
