// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import Testing

@testable import MachineCore

@Suite struct DMAWindowTests {
  let memory: GuestMemory
  init() throws { memory = try GuestMemory(byteCount: 16 << 20) }

  func reachable(_ address: UInt64, _ count: UInt64, _ direction: DMARequest.Direction) -> Bool {
    count > 0 && memory.layout.offset(of: address, count: count) != nil
      // As if E0000h to FFFFFh were a ROM over RAM that can be read.
      && (direction == .fromGuest || address + count <= 0xE0000 || address >= 0x100000)
  }

  func prd(_ table: UInt32, _ direction: DMARequest.Direction = .toGuest) -> DMAWindow? {
    DMAWindow.prd(
      table: table, direction: direction, memory: memory, isReachable: reachable)
  }

  func put(_ at: UInt64, _ entries: [(address: UInt64, count: UInt64, isLast: Bool)]) throws {
    for (index, entry) in entries.enumerated() {
      try memory.store(
        entry.address | entry.count << 32 | (entry.isLast ? 1 << 63 : 0), at: at + 8 * UInt64(index)
      )
    }
  }

  @Test func `A table gives its regions in order, and a count of 0 is 64 KiB`() throws {
    try put(0x1000, [(0x20000, 0x200, false), (0x100000, 0, false), (0x30001, 3, true)])
    let window = try #require(prd(0x1003))
    #expect(window.pieces.map(\.address) == [0x20000, 0x100000, 0x30000])
    #expect(window.pieces.map(\.byteCount) == [0x200, 0x10000, 2])
    #expect(window.byteCount == 0x10202)
  }

  @Test func `A table ends at its 64 KiB boundary`() throws {
    try put(0x1FFF0, [(0x200000, 16, false), (0x200000, 16, true), (0x200000, 16, true)])
    #expect(prd(0x1FFF0)?.pieces.count == 2)
    try put(0x1FFF0, [(0x200000, 16, false), (0x200000, 16, false), (0x200000, 16, true)])
    #expect(prd(0x1FFF0) == nil)
  }

  @Test func `A table of 8192 entries without an end is none`() throws {
    try put(0x40000, (0..<8192).map { _ in (0x200000, 2, false) })
    #expect(prd(0x40000) == nil)
    try put(0x4FFF8, [(0x200000, 2, true)])
    #expect(prd(0x40000)?.pieces.count == 8192)
  }

  @Test(
    arguments: [
      (0xFFFFFE, 4), (0x1000000, 2), (0x9FFFE, 4), (0xA0000, 2), (0xBFFFE, 2), (0xFFFF_FFFE, 2),
      (0xFFFF_0000, 0), (0xE0000, 2), (0xDFFFE, 4),
    ] as [(UInt64, UInt64)])
  func `A region that is not all RAM to write spoils the table`(
    address: UInt64, count: UInt64
  ) throws {
    try put(0x1000, [(0x20000, 0x200, false), (address, count, true)])
    #expect(prd(0x1000) == nil)
  }

  @Test func `A table outside RAM is none`() {
    for table: UInt32 in [0xFFFF_FFFC, 0xFFFF_FFFF, 0x100_0000, 0xA0000, 0xFEC0_0000] {
      #expect(prd(table) == nil)
    }
  }

  @Test func `A region that may be read only goes from the guest`() throws {
    try put(0x1000, [(0xE0000, 16, true)])
    #expect(prd(0x1000, .toGuest) == nil)
    #expect(prd(0x1000, .fromGuest)?.pieces.map(\.direction) == [.fromGuest])
  }

  @Test func `Ranges are cut at both ends, whatever is asked`() {
    let window = DMAWindow(pieces: [
      .init(address: 0x1000, byteCount: 0x100, direction: .toGuest),
      .init(address: 0x9000, byteCount: 0x10, direction: .toGuest),
      .init(address: 0x5000, byteCount: 0x100, direction: .fromGuest),
    ])
    func ranges(_ offset: UInt64, _ count: UInt64) -> [[UInt64]] {
      window.ranges(offset: offset, byteCount: count, .toGuest).map { [$0.address, $0.byteCount] }
    }
    #expect(ranges(0, 0x110) == [[0x1000, 0x100], [0x9000, 0x10]])
    #expect(ranges(0xF0, 0x18) == [[0x10F0, 0x10], [0x9000, 8]])
    #expect(ranges(0x100, 1) == [[0x9000, 1]])
    #expect(ranges(0x110, 1) == [])
    #expect(ranges(0, 0x111) == [])
    #expect(ranges(.max, .max) == [])
    #expect(ranges(0, 0) == [])
    #expect(window.ranges(offset: 0x110, byteCount: .max, .fromGuest).map(\.byteCount) == [0x100])
  }

  func block(_ control: UInt32, _ count: UInt32, _ address: UInt64, at: UInt64 = 0x2000) throws {
    try memory.store(control.bigEndian, at: at)
    try memory.store(count.bigEndian, at: at + 4)
    try memory.store(address.bigEndian, at: at + 8)
  }

  func fwCfg(_ at: UInt64 = 0x2000) -> DMAWindow? {
    DMAWindow.fwCfg(block: at, memory: memory, isReachable: reachable)?.window
  }

  @Test func `A fw_cfg block opens its control field and its data`() throws {
    try block(0x0019_000A, 0x300, 0x8000)
    #expect(
      fwCfg()?.pieces == [
        .init(address: 0x2000, byteCount: 4, direction: .toGuest),
        .init(address: 0x8000, byteCount: 0x300, direction: .toGuest),
      ])
    try block(0x10, 0x300, 0x8000)
    #expect(fwCfg()?.pieces.last?.direction == .fromGuest)
  }

  @Test(
    arguments: [
      (2, 0, 0x8000), (4, 8, 0x8000), (8, 8, 0x8000), (2, .max, 0x8000), (2, 16, .max - 7),
      (2, 16, 0xFFFFF8), (2, 16, 0x9FFF8), (2, 16, 0xE0000), (0, 16, 0x8000),
    ] as [(UInt32, UInt32, UInt64)])
  func `A fw_cfg block without data in RAM opens its control field only`(
    control: UInt32, count: UInt32, address: UInt64
  ) throws {
    try block(control, count, address)
    #expect(fwCfg()?.pieces.count == 1)
  }

  @Test func `A fw_cfg block that is not all RAM is none`() {
    for address: UInt64 in [0xFFFFF8, 0x9FFF8, 0xA0000, .max, .max - 15, 0xE0000, 1 << 63] {
      #expect(fwCfg(address) == nil)
    }
  }
}
