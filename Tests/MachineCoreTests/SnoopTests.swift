// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import LinuxSystem
import PCI
import Synchronization
import Testing

@testable import MachineCore

@Suite(.enabled(if: hostHasKVM, "needs /dev/kvm"), .serialized, .timeLimit(.minutes(1)))
struct SnoopTests {
  let bench: Bench
  let device: FakeDevice
  var link: DeviceLink { bench.machine.links[0] }

  init() throws {
    let bench = try Bench("idle", roles: ["ide"])
    device = try FakeDevice(bench, "ide")
    try device.comeUp(FakeDevice.ideClaims)
    try bench.wait { bench.ready.count == 1 }
    self.bench = bench
    command(5)
    // Two regions, then the end.
    try bench.machine.memory.store(UInt64(0x200) << 32 | 0x20000, at: 0x1000)
    try bench.machine.memory.store(UInt64(0x8000_0010) << 32 | 0x30000, at: 0x1008)
  }

  /// Writes the function's command register, as the board does for the guest.
  func command(_ value: UInt32) {
    bench.machine.board.withLock {
      _ = $0.functions[0].space.write(value, at: 4, width: .word)
    }
  }

  func write(_ value: UInt64, _ offset: UInt64, _ width: AccessWidth) -> [UInt8]? {
    let region = RegionTarget(
      link: link, region: 11, registers: [], descriptors: FakeDevice.ideClaims.descriptors)
    return link.snoop(value, region, offset, width, bench.machine)?.bytes
  }

  func copy(
    _ direction: DMARequest.Direction, offset: UInt64 = 0, bounce: UInt32 = 0,
    count: UInt32 = 0x210, window: UInt16 = 0
  ) throws -> UInt32? {
    try link.transfer(
      DMARequest(
        window: window, direction: direction, windowOffset: offset, bounceOffset: bounce,
        byteCount: count), bench.machine)
  }

  @Test func `The start bit opens the window, and its fall closes it`() throws {
    #expect(write(0x1000, 4, .long) == nil)
    #expect(try copy(.toGuest) == nil)
    #expect(write(0x09, 0, .byte) == [0x10, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
    #expect(try copy(.toGuest) == 0x210)
    #expect(write(0x09, 0, .byte) == nil)
    #expect(write(0x08, 0, .byte) == nil)
    #expect(try copy(.toGuest) == nil)
  }

  @Test func `The pointer may be written byte by byte, in any order`() throws {
    for (index, byte) in [(7, 0), (5, 0x10), (4, 0), (6, 0)] as [(UInt64, UInt64)] {
      #expect(write(byte, index, .byte) == nil)
    }
    #expect(write(0x01, 0, .byte)?[8] == 1)
    #expect(try copy(.fromGuest) == 0x210)
    #expect(try copy(.toGuest) == nil)
  }

  @Test func `Each channel has a window of its own`() throws {
    _ = write(0x1000, 0xC, .long)
    #expect(write(0x09, 8, .byte)?[8] == 1)
    #expect(try copy(.toGuest, window: 0) == nil)
    #expect(try copy(.toGuest, window: 1) == 0x210)
    #expect(try copy(.close, window: 1) == 0)
    #expect(try copy(.toGuest, window: 1) == nil)
    #expect(try copy(.toGuest, window: 0xFFFF) == nil)
  }

  @Test func `Without the bus-master bit there is no window, and its fall closes one`() throws {
    command(1)
    _ = write(0x1000, 4, .long)
    #expect(write(0x09, 0, .byte) == [UInt8](repeating: 0, count: 12))
    #expect(try copy(.toGuest) == nil)
    _ = write(0, 0, .byte)
    command(5)
    _ = write(0x09, 0, .byte)
    #expect(try copy(.toGuest) == 0x210)
    link.closeWindows(of: 8)
    #expect(try copy(.toGuest) == 0x210)
    link.closeWindows(of: 9)
    #expect(try copy(.toGuest) == nil)
  }

  @Test func `A copy moves the bytes and stops at the window's end`() throws {
    _ = write(0x1000, 4, .long)
    _ = write(0x09, 0, .byte)
    let bounce = try #require(link.state.withLock { $0.bounce?.mapping })
    bounce.fill(0xAB, at: 0x100, count: 0x1000)
    #expect(try copy(.toGuest, offset: 0x1FF, bounce: 0x100, count: 0x1000) == 0x11)
    let memory = bench.machine.memory
    #expect(try memory.bytes(at: 0x201FE, count: 3) == [0, 0xAB, 0])
    #expect(try memory.bytes(at: 0x3000F, count: 2) == [0xAB, 0])
    #expect(try copy(.toGuest, offset: .max, count: 1) == 0)
  }

  @Test func `A copy outside the bounce buffer breaks the protocol`() throws {
    _ = write(0x1000, 4, .long)
    _ = write(0x09, 0, .byte)
    for (offset, count) in [(1 << 20, 1), (0, 1 << 20 + 1), (.max, .max), (0xFFFFF, 2)]
      as [(UInt32, UInt32)]
    {
      #expect(throws: ChannelError.self) { try copy(.toGuest, bounce: offset, count: count) }
    }
  }
}
