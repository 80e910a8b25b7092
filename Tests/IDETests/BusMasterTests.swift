// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import IDE

@Suite("Bus master and configuration space")
struct BusMasterTests {
  @Test("the registers keep what the data sheet lets them (82371SB, 2.7)")
  func registers() {
    var bench = Bench()
    bench.ide.write(0xFFFF_FFFF, .busMaster, at: 4, width: .long)
    bench.ide.write(0x1234_5678, .busMaster, at: 12, width: .long)
    bench.ide.write(0x60, .busMaster, at: 2, width: .byte)

    #expect(bench.ide.read(.busMaster, at: 4, width: .long) == 0xFFFF_FFFC)
    #expect(bench.ide.descriptorPointer(channel: 1) == 0x1234_5678)
    #expect(bench.busMasterStatus(0) == 0x60)
    #expect(bench.ide.read(.busMaster, at: 1, width: .byte) == 0)
    #expect(bench.ide.read(.busMaster, at: 16, width: .byte) == 0xFF)
  }

  @Test("READ DMA fills the window and ends with interrupt and no active bit")
  func readDMA() {
    var bench = Bench()
    bench.command(0xC8, lba: 8, count: 16)
    #expect(bench.alternate().contains(.dataRequest))
    #expect(bench.ide.request(channel: 0) == nil)
    bench.startDMA(0, byteCount: 8192, toMemory: true)
    #expect(bench.busMasterStatus(0) & 1 == 1)
    #expect(bench.alternate().contains(.busy))
    bench.serve()

    #expect(bench.memory[0] == Array(bench.media[0][8 * 512..<24 * 512]))
    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.busMasterStatus(0) == 4)
    #expect(bench.status() == [.ready, .seekComplete])
    bench.ide.write(4, .busMaster, at: 2, width: .byte)
    bench.stopDMA(0)
    #expect(bench.busMasterStatus(0) == 0)
  }

  @Test("the bus master may be started before the command")
  func startFirst() {
    var bench = Bench()
    bench.startDMA(0, byteCount: 512, toMemory: true)
    bench.command(0xC8, lba: 3, count: 1)
    bench.serve()
    #expect(bench.memory[0] == Array(bench.media[0][3 * 512..<4 * 512]))
    #expect(bench.busMasterStatus(0) == 4)
  }

  @Test("WRITE DMA EXT of 1024 sectors goes in chunks of 128 KiB")
  func writeDMA() {
    var bench = Bench()
    bench.memory[0] = (0..<1024 * 512).map { UInt8(truncatingIfNeeded: $0 / 512 &* 7) }
    bench.commandExtended(0x35, lba: 512, count: 1024)
    bench.startDMA(0, byteCount: 1024 * 512, toMemory: false)
    while bench.serve() {}

    #expect(bench.requests.count == 4)
    #expect(bench.requests[1].transfer == .window(offset: 131072, byteCount: 131072))
    #expect(Array(bench.media[0][512 * 512..<1536 * 512]) == bench.memory[0])
    #expect(bench.busMasterStatus(0) == 4)
  }

  @Test("a table larger than the transfer leaves the active bit set (2.7.2)")
  func largeTable() {
    var bench = Bench()
    bench.command(0xC8, lba: 0, count: 1)
    bench.startDMA(0, byteCount: 4096, toMemory: true)
    bench.serve()
    #expect(bench.busMasterStatus(0) == 5)
    bench.stopDMA(0)
    #expect(bench.busMasterStatus(0) == 4)
  }

  @Test("a table shorter than the transfer ends it without an interrupt (2.7.2)")
  func shortTable() {
    var bench = Bench()
    bench.command(0xC8, lba: 0, count: 4)
    bench.startDMA(0, byteCount: 1024, toMemory: true)
    bench.serve()
    #expect(bench.memory[0] == Array(bench.media[0][0..<1024]))
    #expect(!bench.ide.interrupt(channel: 0))
    #expect(bench.busMasterStatus(0) == 0)
    #expect(!bench.alternate().contains(.busy))
  }

  @Test("a bad table or direction sets the error bit", arguments: [(false, true), (true, false)])
  func badTable(isValid: Bool, toMemory: Bool) {
    var bench = Bench()
    bench.command(0xC8, lba: 0, count: 1)
    bench.startDMA(0, byteCount: 512, toMemory: toMemory, isValid: isValid)
    #expect(bench.ide.request(channel: 0) == nil)
    #expect(bench.busMasterStatus(0) == 6)
    #expect(bench.status().contains(.error))
    bench.ide.write(6, .busMaster, at: 2, width: .byte)
    #expect(bench.busMasterStatus(0) == 0)
  }

  @Test("a refusal by the core while data moves sets the error bit")
  func refused() throws {
    var bench = Bench()
    bench.command(0xC8, lba: 0, count: 1)
    bench.startDMA(0, byteCount: 512, toMemory: true)
    let tag = try #require(bench.ide.request(channel: 0)).tag
    bench.ide.complete(channel: 0, tag: tag, .refusedByBus)
    #expect(bench.busMasterStatus(0) == 6)
    #expect(bench.status().contains(.error))
  }

  @Test("stopping the bus master drops the request under way")
  func stopped() throws {
    var bench = Bench()
    bench.command(0xC8, lba: 0, count: 1)
    bench.startDMA(0, byteCount: 512, toMemory: true)
    let tag = try #require(bench.ide.request(channel: 0)).tag
    bench.stopDMA(0)
    bench.ide.complete(channel: 0, tag: tag, .ok)
    #expect(bench.busMasterStatus(0) == 0)
    #expect(bench.ide.request(channel: 0) == nil)
    #expect(bench.alternate().contains(.dataRequest))
  }

  @Test("a bad sector in a DMA read gives UNC and its address")
  func uncorrectable() {
    var bench = Bench()
    bench.failing = [2]
    bench.command(0xC8, lba: 0, count: 4)
    bench.startDMA(0, byteCount: 2048, toMemory: true)
    bench.serve()
    #expect(bench.status().contains(.error))
    #expect((bench.read(1), bench.read(3)) == (0x40, 2))
    #expect(bench.busMasterStatus(0) == 4)
  }

  @Test("the timing registers read back, reserved bits as 0")
  func configuration() {
    var configuration = IDEPCIConfiguration()
    for offset in 0x40...0xFF { configuration.write(0xFF, at: UInt8(offset)) }
    #expect(
      (0x40...0x4B).map { configuration.read(at: UInt8($0)) }
        == [0xFF, 0xF3, 0xFF, 0xF3, 0xFF, 0, 0, 0, 0x0F, 0, 0x33, 0x33])
    #expect(configuration.isDecodeEnabled(channel: 0))
    #expect(configuration.read(at: 0xF8) == 0)
    #expect(!IDEPCIConfiguration().isDecodeEnabled(channel: 1))
  }

  @Test("only the data and status ports have side effects when read")
  func sideEffects() {
    #expect(IDERegion.primaryCommand.readHasSideEffects(at: 0))
    #expect(IDERegion.secondaryCommand.readHasSideEffects(at: 7))
    #expect(!IDERegion.primaryCommand.readHasSideEffects(at: 3))
    #expect(IDERegion.primaryControl.kind(at: 0, isWrite: false) == .mirrored)
    #expect(IDERegion.primaryCommand.kind(at: 7, isWrite: true) == .live)
    #expect(IDERegion.primaryCommand.kind(at: 3, isWrite: true) == .posted)
    #expect(
      (0..<8).map { IDERegion.busMaster.kind(at: $0, isWrite: true) == .posted }
        == [false, false, true, false, true, true, true, true])
    #expect(IDERegion.allCases.map(\.base) == [0x1F0, 0x3F6, 0x170, 0x376, nil])
  }
}
