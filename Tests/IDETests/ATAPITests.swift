// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import IDE

@Suite("ATAPI CD-ROM drives")
struct ATAPITests {
  @Test("IDENTIFY DEVICE aborts with the packet signature, IDENTIFY PACKET DEVICE answers")
  func identify() {
    var bench = Bench()
    bench.command(0xEC, channel: 1)
    #expect(bench.status(1).contains(.error))
    #expect((bench.read(4, 1), bench.read(5, 1)) == (0x14, 0xEB))
    bench.command(0xA1, channel: 1)
    let data = bench.dataIn(512, 1)
    #expect((data[0], data[1]) == (0xC0, 0x85))
    #expect(data.reduce(0, &+) == 0)
  }

  @Test("a packet goes through the phases of the interrupt reason register (9.8)")
  func phases() {
    var bench = Bench()
    bench.write(0xA0, 6, 1)
    bench.write(0, 1, 1)
    bench.write(0, 4, 1)
    bench.write(8, 5, 1)
    bench.write(0xA0, 7, 1)
    #expect(bench.read(2, 1) == 1)
    #expect(bench.alternate(1).contains(.dataRequest))
    #expect(!bench.ide.interrupt(channel: 1))
    bench.dataOut([0x28, 0, 0, 0, 0, 5, 0, 0, 2, 0, 0, 0], 1)
    bench.serve(1)
    for half in 0..<2 {
      #expect(bench.ide.interrupt(channel: 1))
      _ = bench.status(1)
      #expect((bench.read(2, 1), bench.read(4, 1), bench.read(5, 1)) == (2, 0, 8))
      let start = 5 * 2048 + half * 2048
      #expect(bench.dataIn(2048, 1) == Array(bench.media[2][start..<start + 2048]))
    }
    #expect(bench.ide.interrupt(channel: 1))
    #expect(bench.read(2, 1) == 3)
    #expect(bench.status(1) == [.ready, .seekComplete])
  }

  @Test("READ (12) by DMA fills the window")
  func readDMA() {
    var bench = Bench()
    bench.packet([0xA8, 0, 0, 0, 0, 3, 0, 0, 0, 4], dma: true)
    bench.startDMA(1, byteCount: 8192, toMemory: true)
    bench.serve(1)
    #expect(bench.memory[1] == Array(bench.media[2][3 * 2048..<7 * 2048]))
    #expect(bench.busMasterStatus(1) == 4)
    #expect(bench.status(1) == [.ready, .seekComplete])
  }

  @Test("INQUIRY by DMA is a copy of the buffer")
  func inquiryDMA() {
    var bench = Bench()
    bench.packet([0x12, 0, 0, 0, 36], dma: true)
    bench.startDMA(1, byteCount: 36, toMemory: true)
    #expect(bench.ide.request(channel: 1)?.kind == .copyBuffer(0..<36))
    bench.serve(1)
    #expect(Array(bench.memory[1][8..<16]) == Array("BULKHEAD".utf8))
    #expect(bench.busMasterStatus(1) == 4)
  }

  @Test("READ CAPACITY gives the last sector and 2048")
  func capacity() {
    var bench = Bench()
    bench.packet([0x25])
    #expect(bench.dataIn(8, 1) == [0, 0, 0, 99, 0, 0, 8, 0])
  }

  @Test("without a disc, commands that need one fail with sense 2/3A")
  func noDisc() {
    var bench = Bench(discSectors: nil)
    bench.packet([0x00])
    #expect(bench.status(1).contains(.error))
    #expect(bench.read(1, 1) == 0x20)
    bench.packet([0x03, 0, 0, 0, 18])
    let sense = bench.dataIn(18, 1)
    #expect((sense[0], sense[2], sense[12]) == (0x70, 2, 0x3A))
  }

  @Test("a changed disc is a unit attention, once, and a media event")
  func changed() {
    var bench = Bench()
    #expect(bench.ide.changeDisc(channel: 1, drive: 0, sectorCount: 50, force: false) == nil)
    #expect(bench.ide.changeDisc(channel: 0, drive: 0, sectorCount: 50, force: true) == .noDrive)
    bench.packet([0x00])
    #expect(bench.read(1, 1) == 0x60)
    bench.packet([0x00])
    #expect(!bench.status(1).contains(.error))
    bench.packet([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8])
    #expect(bench.dataIn(8, 1) == [0, 6, 4, 0x10, 2, 2, 0, 0])
  }

  @Test("a tray that the guest has locked stays shut, and the guest is asked for the disc")
  func lockedTray() {
    var bench = Bench()
    bench.packet([0x1E, 0, 0, 0, 1])
    #expect(bench.ide.changeDisc(channel: 1, drive: 0, sectorCount: nil, force: false) == .locked)
    bench.packet([0x00])
    #expect(!bench.status(1).contains(.error))
    // Its own wish is refused as well (START STOP UNIT, sense 5/53/02).
    bench.packet([0x1B, 0, 0, 0, 2])
    #expect(bench.read(1, 1) == 0x54)
    bench.packet([0x03, 0, 0, 0, 18])
    #expect(Array(bench.dataIn(18, 1)[12...13]) == [0x53, 0x02])
    for event: UInt8 in [1, 0] {
      bench.packet([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8])
      #expect(bench.dataIn(8, 1) == [0, 6, 4, 0x10, event, 2, 0, 0])
    }
    #expect(bench.ide.changeDisc(channel: 1, drive: 0, sectorCount: nil, force: true) == nil)
    bench.packet([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8])
    #expect(bench.dataIn(8, 1) == [0, 6, 4, 0x10, 3, 1, 0, 0])
    bench.packet([0x00])
    #expect(bench.read(1, 1) == 0x20)
    bench.packet([0x03, 0, 0, 0, 18])
    #expect(Array(bench.dataIn(18, 1)[12...13]) == [0x3A, 0x02])
  }

  @Test("the guest opens and shuts the tray, and finds its disc again")
  func tray() {
    var bench = Bench()
    bench.packet([0x1B, 0, 0, 0, 2])
    #expect(!bench.status(1).contains(.error))
    bench.packet([0x28, 0, 0, 0, 0, 0, 0, 0, 1])
    #expect(bench.read(1, 1) == 0x20)
    bench.packet([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8])
    #expect(bench.dataIn(8, 1) == [0, 6, 4, 0x10, 3, 1, 0, 0])
    let opened = bench.ide
    bench.ide.reset()
    bench.packet([0x00])
    #expect(bench.read(1, 1) == 0x20)
    bench.ide = opened
    bench.packet([0x1B, 0, 0, 0, 3])
    bench.packet([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8])
    #expect(bench.dataIn(8, 1) == [0, 6, 4, 0x10, 2, 2, 0, 0])
    bench.packet([0x00])
    #expect(bench.read(1, 1) == 0x60)
    bench.packet([0x28, 0, 0, 0, 0, 0, 0, 0, 1])
    bench.serve(1)
    #expect(bench.dataIn(2048, 1) == Array(bench.media[2][..<2048]))
  }

  @Test("a disc is not changed under a command")
  func busyDrive() {
    var bench = Bench()
    bench.packet([0x28, 0, 0, 0, 0, 0, 0, 0, 1])
    #expect(bench.ide.changeDisc(channel: 1, drive: 0, sectorCount: 5, force: true) == .busy)
    bench.serve(1)
    _ = bench.dataIn(2048, 1)
    #expect(bench.ide.changeDisc(channel: 1, drive: 0, sectorCount: 5, force: true) == nil)
  }

  @Test("an address past the disc and unknown commands are illegal requests")
  func illegal() {
    var bench = Bench()
    bench.packet([0x28, 0, 0, 0, 0, 99, 0, 0, 2])
    #expect(bench.read(1, 1) == 0x54)
    bench.packet([0x03, 0, 0, 0, 18])
    #expect(bench.dataIn(18, 1)[12] == 0x21)
    bench.packet([0xFF])
    #expect(bench.read(1, 1) == 0x54)
    bench.packet([0x28, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF])
    #expect(bench.read(1, 1) == 0x54)
  }

  @Test("a bad sector is a medium error")
  func mediumError() {
    var bench = Bench()
    bench.failing = [7]
    bench.packet([0x28, 0, 0, 0, 0, 5, 0, 0, 4], dma: true)
    bench.startDMA(1, byteCount: 8192, toMemory: true)
    while bench.serve(1) {}
    #expect(bench.read(1, 1) == 0x30)
    bench.packet([0x03, 0, 0, 0, 18])
    let sense = bench.dataIn(18, 1)
    // The valid bit, and the sector in the information field (SPC-2, 7.20.2).
    #expect(sense[0..<8] == [0xF0, 0, 3, 0, 0, 0, 7, 10])
    #expect(sense[12] == 0x11)
  }

  @Test("READ TOC tells of one data track", arguments: [false, true])
  func tableOfContents(usesTime: Bool) {
    var bench = Bench()
    bench.packet([0x43, usesTime ? 2 : 0, 0, 0, 0, 0, 0, 0, 20])
    let data = bench.dataIn(20, 1)
    #expect(Array(data[0..<7]) == [0, 18, 1, 1, 0, 0x14, 1])
    #expect(Array(data[16..<20]) == (usesTime ? [0, 0, 3, 25] : [0, 0, 0, 100]))
  }

  @Test(
    "information commands answer with a length that fits",
    arguments: [0x46, 0x51, 0x5A, 0xBD])
  func information(code: UInt8) {
    var bench = Bench()
    var packet: [UInt8] = [code, 0, code == 0x5A ? 0x3F : 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]
    if code == 0xBD { packet[9] = 8 }
    bench.packet(packet)
    #expect(bench.alternate(1).contains(.dataRequest))
    #expect(bench.read(4, 1) == 8)
    _ = bench.dataIn(8, 1)
    #expect(bench.status(1) == [.ready, .seekComplete])
  }

  @Test("a locked tray can't be ejected")
  func locked() {
    var bench = Bench()
    bench.packet([0x1E, 0, 0, 0, 1])
    bench.packet([0x1B, 0, 0, 0, 2])
    #expect(bench.read(1, 1) == 0x54)
    bench.packet([0x1E, 0, 0, 0, 0])
    bench.packet([0x1B, 0, 0, 0, 2])
    #expect(!bench.status(1).contains(.error))
  }

  @Test("DEVICE RESET works while the drive is busy and raises no interrupt")
  func deviceReset() {
    var bench = Bench()
    bench.packet([0x28, 0, 0, 0, 0, 5, 0, 0, 1])
    bench.write(0x08, 7, 1)
    #expect(bench.ide.request(channel: 1) == nil)
    #expect(!bench.ide.interrupt(channel: 1))
    #expect((bench.read(4, 1), bench.read(5, 1)) == (0x14, 0xEB))
    #expect(bench.status(1) == [])
  }
}
