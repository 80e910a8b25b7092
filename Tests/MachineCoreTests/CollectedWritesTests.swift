// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import KVM
import LinuxSystem
import PCI
import Synchronization
import Testing

@testable import MachineCore
import TestSupport

/// A display whose window and first ports are posted, and which writes down what comes.
private final class RecordingDisplay {
  static let claims = Claims(
    ports: [PortClaim(region: 0, base: 0x3C0, count: 16)],
    memories: [MemoryClaim(region: 1, base: 0xA0000, byteCount: 0x20000)],
    registers: [
      RegisterClaim(region: 0, offset: 0, byteCount: 2, write: .posted),
      RegisterClaim(region: 1, offset: 0, byteCount: 0x20000, write: .posted),
    ])

  private let device: FakeDevice
  private var tail: UInt32 = 0
  private var sequences: [UInt32] = [0, 0]
  /// What each processor wrote, in the order of its coming.
  private(set) var seen: [[UInt64]] = [[], []]
  /// How many requests a processor had to wait for.
  private(set) var requests = 0

  init(_ bench: Bench) throws {
    device = try FakeDevice(bench, "vga")
    try device.comeUp(Self.claims)
    try bench.wait { bench.ready.contains("vga") }
  }

  private func note(_ access: LaneAccess) {
    seen[Int(access.value >> 15 & 1)].append(access.value & 0x7FFF)
  }

  private func drain(_ lane: DeviceLane) {
    let head = lane.head
    while tail != head {
      if let access = lane.posted(tail) { note(access) }
      tail &+= 1
    }
    lane.setTail(tail)
  }

  /// Does what is there to do, in the protocol's order.
  func serve() {
    guard let lane = device.lane else { return }
    for slot in 0..<lane.slotCount where lane.isRequested(slot) {
      let sequence = lane.sequence(slot)
      guard sequence != sequences[slot], let request = lane.request(slot) else { continue }
      sequences[slot] = sequence
      drain(lane)
      var value: UInt64 = 0
      if request.operation == .write {
        note(request)
      } else {
        let cpu = request.offset == 10 ? 1 : 0
        value = (seen[cpu].last ?? 0) | UInt64(cpu) << 15
      }
      requests += 1
      lane.prepare(slot, value: value, items: 1)
      lane.answer(slot)
    }
    drain(lane)
  }
}

@Suite(.enabled(if: hostHasKVM, "needs /dev/kvm"), .serialized, .timeLimit(.minutes(1)))
struct CollectedWritesTests {
  @Test(arguments: [UInt16(1), 2])
  func `Writes to window and ports are collected, and stay in order with reads`(cpus: UInt16)
    throws
  {
    let bench = try Bench("collect", cpus: cpus, roles: ["vga"])
    let collected = try #require(bench.machine.accelerator.collected)
    let display = try RecordingDisplay(bench)
    bench.machine.run()
    try bench.wait {
      display.serve()
      return try bench.word(0xFF8) == UInt32(cpus)
    }
    bench.machine.handOnCollected()
    display.serve()

    for cpu in 0..<Int(cpus) { #expect(display.seen[cpu] == Array(1...880)) }
    #expect(try bench.word(0x904) == 0)
    // 880 writes of each, of which one in 170 finds the ring full, and five reads.
    #expect(collected.count.load(ordering: .relaxed) > 800 * UInt64(cpus))
    #expect(display.requests < 60)
  }

  @Test func `A display that takes nothing holds up only who writes to it`() throws {
    let bench = try Bench("collect-full", cpus: 2, roles: ["vga"])
    let display = try RecordingDisplay(bench)
    let link = bench.machine.links[0]
    bench.machine.run()
    // The lane's ring is full, and a processor waits for room.
    try bench.wait { !link.lane.isGarbled(1) }
    let before = try bench.word(0x914)
    try bench.wait { try bench.word(0x914) > before + 100 }
    #expect(try bench.word(0xFF8) == 0)

    try bench.wait {
      display.serve()
      return try bench.word(0xFF8) == 1
    }
    bench.machine.handOnCollected()
    display.serve()
    #expect(display.seen[0] == Array(1...3000))
    #expect(bench.faults.isEmpty)
  }

  @Test func `A pause, a reset and a look at the screen leave nothing behind`() throws {
    let bench = try Bench("collect", roles: ["vga"])
    let collected = try #require(bench.machine.accelerator.collected)
    let display = try RecordingDisplay(bench)
    bench.machine.run()
    try bench.wait {
      display.serve()
      return try bench.word(0xFF8) == 1
    }
    // The last reads came before the last writes, and the processor halts.
    #expect(!collected.isEmpty)
    bench.machine.park()
    #expect(collected.isEmpty)
    display.serve()
    #expect(display.seen[0].count == 880)
  }

  @Test func `Zones follow a moving base address, and leave out what starts a transfer`() throws {
    let bench = try Bench("idle", roles: ["ide"])
    let collected = try #require(bench.machine.accelerator.collected)
    var claims = FakeDevice.ideClaims
    claims.registers = [0, 4, 12].map {
      RegisterClaim(region: 11, offset: $0, byteCount: 4, write: .posted)
    }
    let ide = try FakeDevice(bench, "ide")
    try ide.comeUp(claims)
    try bench.wait { bench.ready.contains("ide") }
    func configure(_ offset: UInt8, _ value: UInt32) throws {
      try bench.machine.change { board throws(ProtocolError) in
        _ = board.functions[0].space.write(value, at: offset, width: .long)
      }
    }
    func zones() -> [VirtualMachine.CoalescedZone] {
      collected.current.sorted { $0.address < $1.address }
    }
    func ports(_ base: UInt64) -> [VirtualMachine.CoalescedZone] {
      [4, 12].map { .init(address: base + $0, byteCount: 4, isPort: true) }
    }

    #expect(zones() == [])
    try configure(0x20, 0xC000)
    try configure(4, 1)
    #expect(zones() == ports(0xC000))
    try configure(0x20, 0xD000)
    #expect(zones() == ports(0xD000))
    // The configuration mechanism's own ports are never a device's.
    try configure(0x20, 0xCF0)
    #expect(zones() == [.init(address: 0xCF4, byteCount: 4, isPort: true)])
    try configure(4, 0)
    #expect(zones() == [])
  }

  @Test func `A transmitter's byte is not collected: its interrupt must not be late`() throws {
    let serial = try #require(DeviceGrants.role("serial", exitPort: 0x10000))
    let vga = try #require(DeviceGrants.role("vga", exitPort: 0x10000))
    #expect(!serial.mayCollect && vga.mayCollect)
  }
}
