// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import LinuxSystem
import PCI
import Synchronization
import Testing

@testable import MachineCore

/// The board of a machine with a fake `piix` and `vga`, programmed as a guest does it.
@Suite(.enabled(if: hostHasKVM, "needs /dev/kvm"), .serialized, .timeLimit(.minutes(1)))
struct BoardTests {
  let bench: Bench
  let piix: FakeDevice
  let vga: FakeDevice
  var machine: Machine { bench.machine }

  init() throws {
    let bench = try Bench("idle", roles: ["piix", "vga"])
    self.bench = bench
    piix = try FakeDevice(bench, "piix")
    try piix.comeUp(
      Claims(ports: [
        PortClaim(region: 0, base: 0x60, count: 5),
        PortClaim(region: 1, base: 0x600, count: 64, isMovable: true),
      ]))
    vga = try FakeDevice(bench, "vga")
    try vga.comeUp(
      Claims(
        ports: [PortClaim(region: 0, base: 0x3B0, count: 0x30)],
        memories: [MemoryClaim(region: 2, base: 0xA0000, byteCount: 0x20000)],
        functions: [
          FunctionClaim(
            devfn: 0x10, region: 3, vendor: 0x1234, device: 0x1111, classCode: 0x030000,
            revision: 2,
            bars: [
              BARClaim(
                index: 0, kind: .prefetchableMemory, byteCount: 16 << 20, region: 4, memory: 0),
              BARClaim(index: 2, kind: .memory, byteCount: 4096, region: 5),
              BARClaim(index: 4, kind: .ports, byteCount: 16, region: 6),
            ])
        ],
        registers: [
          RegisterClaim(region: 0, offset: 0, byteCount: 0x30, write: .posted),
          RegisterClaim(region: 2, offset: 0, byteCount: 0x20000, write: .posted),
        ],
        backings: [BackingClaim(memory: 0, kind: .readWrite, byteCount: 16 << 20)]))
    try bench.wait { bench.ready.count == 2 }
  }

  /// Writes a doubleword of the display's header, and lets the buses follow.
  func configure(_ offset: UInt8, _ value: UInt32) throws {
    try machine.change { board throws(ProtocolError) in
      _ = board.functions[0].space.write(value, at: offset, width: .long)
    }
  }

  func header(_ offset: UInt8) -> UInt32 {
    machine.board.withLock { $0.functions[0].space.read(at: offset, width: .long) }
  }

  /// Where memory BARs without a backing decode.
  func bars() -> [UInt64] { machine.snapshot().memoryRegions.map(\.base).filter { $0 != 0xA0000 } }

  func slots() -> [MemoryMap.Slot] { machine.snapshot().map.slots }

  func owner(_ port: UInt16) -> UInt16? {
    let bus = machine.snapshot()
    let number = bus.ports[Int(port)]
    return number == 0 ? nil : bus.portRegions[Int(number) - 1].target.region
  }

  @Test func `A header names its function, and its BARs tell their sizes`() throws {
    #expect(header(0) == 0x1111_1234)
    #expect(header(8) == 0x0300_0002)
    for offset: UInt8 in [0x10, 0x18, 0x20] { try configure(offset, .max) }
    #expect([0x10, 0x18, 0x20].map { header($0) } == [0xFF00_0008, 0xFFFF_F000, 0xFFFF_FFF1])
  }

  @Test func `A BAR decodes where the guest puts it, while the command register says so`() throws {
    try configure(0x10, 0xE000_0000)
    try configure(0x18, 0xE100_0000)
    try configure(0x20, 0xC000)
    #expect(owner(0xC000) == nil && bars().isEmpty)
    try configure(4, 3)
    #expect(owner(0xC000) == 6 && owner(0xC00F) == 6 && owner(0xC010) == nil)
    #expect(bars() == [0xE100_0000])
    #expect(slots().contains { $0.start == 0xE000_0000 && $0.byteCount == 16 << 20 })
    try configure(0x10, 0xD000_0000)
    #expect(!slots().contains { $0.start == 0xE000_0000 })
    #expect(slots().contains { $0.start == 0xD000_0000 })
    try machine.change { board throws(ProtocolError) in board.reset() }
    #expect(owner(0xC000) == nil && !slots().contains { $0.start == 0xD000_0000 })
  }

  @Test func `A BAR onto fixed ports, RAM, firmware or KVM's own pages hides none of them`() throws
  {
    try configure(4, 3)
    try configure(0x20, 0x60)
    #expect(owner(0x60) == 0 && owner(0x64) == 0 && owner(0x65) == 6)
    let ram = slots().filter { $0.backing == .ram }
    for base: UInt32 in [0, 0x0100_0000, 0xFE00_0000, 0xFF00_0000, 0xFD00_0000, 0xFEC0_0000] {
      try configure(0x10, base)
      try configure(0x18, base)
      #expect(slots().filter { $0.backing == .ram } == ram)
      #expect(slots().last?.backing == .firmware)
      #expect(
        !slots().contains {
          $0.backing != .firmware && $0.start < 0xFF00_0000 && $0.end > 0xFEFF_C000
        })
    }
    #expect(bench.ends.isEmpty)
  }

  @Test func `PAM registers put RAM in place of the firmware, and back`() throws {
    func top() -> MemoryMap.Slot? {
      slots().first { $0.start <= 0xF0000 && $0.end > 0xF0000 }
    }
    func pam(_ value: UInt32) throws {
      try machine.change { board throws(ProtocolError) in
        _ = board.bridge.write(value, at: 0x59, width: .byte)
      }
    }
    #expect(top()?.backing == .firmware)
    #expect(!machine.isReachable(0xF0000, 16, .toGuest))
    try pam(0x30)
    #expect(top()?.backing == .ram && top()?.isReadOnly == false)
    #expect(machine.isReachable(0xF0000, 16, .toGuest))
    #expect(!machine.isReachable(0xEFFF8, 16, .toGuest))
    try pam(0x10)
    #expect(top()?.backing == .ram && top()?.isReadOnly == true)
    #expect(!machine.isReachable(0xF0000, 16, .toGuest))
    #expect(machine.isReachable(0xF0000, 16, .fromGuest))
    try pam(0x20)
    #expect(top()?.backing == .firmware)
    #expect(!machine.isReachable(0xF0000, 16, .fromGuest))
    #expect(!machine.isReachable(0x9FFF8, 16, .toGuest))
    #expect(!machine.isReachable(.max, 2, .toGuest))
    #expect(!machine.isReachable(0, .max, .toGuest))
    #expect(!machine.isReachable(0x1000, 0, .toGuest))
  }

  @Test func `A mapped window is a slot, and what may end it is live meanwhile`() throws {
    let link = machine.links[1]
    func map(_ message: WindowMapping, _ owner: DeviceLink? = nil) throws {
      try machine.change { board throws(ProtocolError) in
        try board.mapWindow(owner ?? link, message, memoryByteCount: 16 << 20)
      }
    }
    func isPosted(_ port: UInt16, _ width: AccessWidth = .byte) throws -> Bool {
      let region = try #require(machine.snapshot().region(port, width))
      return region.target.isPosted(UInt64(port - region.base), width)
    }
    func window() -> MemoryMap.Slot? { slots().first { $0.start >= 0xA0000 && $0.end <= 0xC0000 } }
    #expect(window() == nil)
    #expect(try isPosted(0x3C5) && isPosted(0x3C4, .word))
    var message = WindowMapping(
      region: 2, offset: 0x10000, byteCount: 0x8000, memoryOffset: 0x3000,
      guards: [.init(region: 0, offset: 0x15), .init(region: 0, offset: 0x1F)])
    try map(message)
    #expect(
      window()
        == MemoryMap.Slot(
          start: 0xB0000, byteCount: 0x8000, backing: .device(1 << 16), offset: 0x3000))
    #expect(try !isPosted(0x3C5) && !isPosted(0x3C4, .word) && !isPosted(0x3CF))
    #expect(try isPosted(0x3C4) && isPosted(0x3C6) && isPosted(0x3B0) && isPosted(0x3DF))

    // What is wrong changes nothing.
    for (offset, byteCount, memoryOffset) in [
      (0x1F000, 0x2000, 0), (0, 0x21000, 0), (0, 0x1000, 16 << 20),
      (0, 0x2000, (16 << 20) - 0x1000),
    ] as [(UInt32, UInt32, UInt32)] {
      let wrong = WindowMapping(
        region: 2, offset: offset, byteCount: byteCount, memoryOffset: memoryOffset)
      #expect(throws: ProtocolError.self) { try map(wrong) }
    }
    message.region = 0
    #expect(throws: ProtocolError.self) { try map(message) }
    message.region = 2
    #expect(throws: ProtocolError.self) { try map(message, machine.links[0]) }
    #expect(window()?.start == 0xB0000)

    try map(WindowMapping(region: 2, isMapped: false))
    #expect(window() == nil)
    #expect(try isPosted(0x3C4, .word))
    try map(message)
    #expect(window() != nil)
    try machine.change { board throws(ProtocolError) in board.reset() }
    #expect(window() == nil)
    #expect(try isPosted(0x3CE, .word))
  }

  @Test func `A machine that wakes keeps the shadow of its firmware`() throws {
    try machine.change { board throws(ProtocolError) in
      _ = board.bridge.write(0x30, at: 0x59, width: .byte)
      _ = board.bridge.write(0x1A, at: 0x72, width: .byte)
      board.reset(isWaking: true)
    }
    #expect(slots().first { $0.start <= 0xF0000 && $0.end > 0xF0000 }?.backing == .ram)
    #expect(machine.board.withLock { $0.bridge.read(at: 0x72, width: .byte) } == 0x02)
    try machine.change { board throws(ProtocolError) in board.reset() }
    #expect(slots().first { $0.start <= 0xF0000 && $0.end > 0xF0000 }?.backing == .firmware)
  }

  @Test func `A movable region goes where it is granted, and nowhere else`() throws {
    let link = machine.links[0]
    func move(_ region: UInt16, _ base: UInt16, _ isEnabled: Bool = true) throws {
      try machine.move(link, MoveRegion(region: region, isEnabled: isEnabled, base: base))
    }
    #expect(owner(0x600) == nil)
    try move(1, 0x600)
    #expect(owner(0x600) == 1 && owner(0x63F) == 1 && owner(0x640) == nil)
    try move(1, 0xB000)
    #expect(owner(0x600) == nil && owner(0xB000) == 1)
    for base: UInt16 in [0, 0x60, 0x3FF, 0xFFC1, 0xFFFF] {
      #expect(throws: ProtocolError.self) { try move(1, base) }
    }
    #expect(owner(0xB000) == 1)
    #expect(throws: ProtocolError.self) { try move(0, 0xB000) }
    #expect(throws: ProtocolError.self) { try move(.max, 0xB000) }
    #expect(throws: ProtocolError.self) {
      try machine.move(machine.links[1], MoveRegion(region: 1, isEnabled: true, base: 0x600))
    }
    try move(1, 0, false)
    #expect(owner(0xB000) == nil)
  }
}
