// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import IDE

@Suite("ATA disks")
struct ATATests {
  static let idle: ATAStatus = [.ready, .seekComplete]

  @Test("a reset leaves the disk's signature (ATA/ATAPI-6, 9.12)")
  func diskSignature() {
    var bench = Bench()
    bench.command(0x20, lba: 0x123456, count: 7)
    bench.ide.write(0x04, .primaryControl, at: 0, width: .byte)
    let during = bench.alternate()
    bench.ide.write(0x00, .primaryControl, at: 0, width: .byte)

    #expect(during == .busy)
    #expect((1...6).map { bench.read($0) } == [1, 1, 1, 0, 0, 0xA0])
    #expect(bench.status() == Self.idle)
    #expect(!bench.ide.interrupt(channel: 0))
    #expect(bench.ide.request(channel: 0) == nil)
  }

  @Test("a reset leaves the packet device's signature")
  func packetSignature() {
    var bench = Bench()
    bench.ide.write(0x04, .secondaryControl, at: 0, width: .byte)
    bench.ide.write(0x00, .secondaryControl, at: 0, width: .byte)

    #expect((1...5).map { bench.read($0, 1) } == [1, 1, 1, 0x14, 0xEB])
    #expect(bench.status(1) == [])
  }

  @Test("an absent slave and an empty channel read as 0 and take no commands")
  func absent() {
    var bench = Bench()
    bench.write(0xB0, 6)
    bench.write(0x55, 2)
    bench.write(0xAA, 3)
    bench.write(0xEC, 7)
    let slave = (0...7).dropFirst().map { bench.read(UInt16($0)) }
    bench.write(0xA0, 6)

    #expect(slave == [0, 0, 0, 0, 0, 0, 0])
    #expect(bench.read(2) == 0x55)
    #expect(bench.status() == Self.idle)

    var empty = IDEController()
    #expect(empty.read(.primaryCommand, at: 7, width: .byte) == 0)
    #expect(empty.read(.secondaryControl, at: 0, width: .byte) == 0)
  }

  @Test("IDENTIFY DEVICE tells the size that the operator has changed, and a reset keeps it")
  func resized() {
    var bench = Bench(sectors: 0x1000)
    #expect(bench.ide.isDisk(channel: 0, drive: 0) && !bench.ide.isDisk(channel: 0, drive: 1))
    #expect(!bench.ide.isDisk(channel: 1, drive: 0) && !bench.ide.isDisk(channel: 2, drive: 0))
    bench.ide.resizeDisk(channel: 0, drive: 0, sectorCount: 0x1_2345_6789)
    for _ in 0..<2 {
      bench.command(0xEC)
      let data = bench.dataIn(512)
      #expect(Array(data[120..<124]) == [0xFF, 0xFF, 0xFF, 0x0F])
      #expect(Array(data[200..<208]) == [0x89, 0x67, 0x45, 0x23, 1, 0, 0, 0])
      bench.ide.reset()
    }
  }

  @Test("IDENTIFY DEVICE tells the size, the names and adds up to 0")
  func identify() {
    var bench = Bench(sectors: 0x1_2345_6789)
    bench.command(0xEC)
    let raised = bench.ide.interrupt(channel: 0)
    let status = bench.status()
    let data = bench.dataIn(512)
    let words = (0..<256).map { UInt16(data[$0 * 2]) | UInt16(data[$0 * 2 + 1]) << 8 }

    #expect(raised)
    #expect(status == [.ready, .seekComplete, .dataRequest])
    #expect(words[0] == 0x0040)
    #expect((words[1], words[3], words[6]) == (16383, 16, 63))
    #expect(words[47] == 0x8010)
    #expect(words[49] & 0x0300 == 0x0300)
    #expect(UInt32(words[60]) | UInt32(words[61]) << 16 == 0x0FFF_FFFF)
    #expect(words[83] & 0x0400 != 0)
    #expect((words[100], words[101], words[102], words[103]) == (0x6789, 0x2345, 1, 0))
    #expect(Array(data[54..<62]) == Array("UBKLEHDA".utf8))
    #expect(words[255] & 0xFF == 0xA5)
    #expect(data.reduce(0, &+) == 0)
    #expect(bench.status() == Self.idle)
  }

  @Test("READ SECTORS interrupts once per sector and not at the end (9.5)")
  func readSectors() {
    var bench = Bench()
    bench.command(0x20, lba: 10, count: 3)
    #expect(bench.alternate() == [.busy, .ready, .seekComplete])
    #expect(!bench.ide.interrupt(channel: 0))
    bench.serve()

    for sector in 10..<13 {
      #expect(bench.ide.interrupt(channel: 0))
      #expect(bench.status().contains(.dataRequest))
      #expect(!bench.ide.interrupt(channel: 0))
      #expect(bench.dataIn(512) == Array(bench.media[0][sector * 512..<(sector + 1) * 512]))
    }
    #expect(!bench.ide.interrupt(channel: 0))
    #expect(bench.status() == Self.idle)
    #expect((bench.read(2), bench.read(3)) == (0, 12))
  }

  @Test("a count of 0 is 256 sectors, read in requests of at most 64 KiB")
  func read256() {
    var bench = Bench()
    bench.command(0x20, lba: 0, count: 0)
    var data: [UInt8] = []
    while bench.alternate() != Self.idle {
      bench.serve()
      data += bench.dataIn(512)
    }

    #expect(data == Array(bench.media[0][0..<131072]))
    #expect(bench.requests.count == 2)
  }

  @Test("READ MULTIPLE gives blocks of the set size, the last one shorter (8.30)")
  func readMultiple() {
    var bench = Bench()
    // The mode can be switched off.
    bench.command(0xC6, count: 0)
    bench.command(0xC4, lba: 0, count: 3)
    #expect(bench.status().contains(.error))
    #expect(bench.read(1) == 0x04)

    bench.command(0xC6, count: 2)
    #expect(bench.status() == Self.idle)
    bench.command(0xC4, lba: 0, count: 3)
    bench.serve()
    #expect(bench.ide.interrupt(channel: 0))
    _ = bench.status()
    _ = bench.dataIn(512)
    #expect(!bench.ide.interrupt(channel: 0))
    _ = bench.dataIn(512)
    #expect(bench.ide.interrupt(channel: 0))
    _ = bench.dataIn(512)
    #expect(bench.status() == Self.idle)
  }

  @Test("SET MULTIPLE MODE takes powers of two up to the limit", arguments: [0, 1, 2, 4, 8, 16])
  func setMultiple(count: UInt8) {
    var bench = Bench()
    bench.command(0xC6, count: count)
    #expect(!bench.status().contains(.error))
    bench.command(0xC6, count: count | 0x21)
    #expect(bench.status().contains(.error))
  }

  @Test("WRITE SECTORS asks for the first block without an interrupt (9.6)")
  func writeSectors() {
    var bench = Bench()
    bench.command(0x30, lba: 20, count: 2)
    #expect(!bench.ide.interrupt(channel: 0))
    #expect(bench.status().contains(.dataRequest))
    bench.dataOut([UInt8](repeating: 0x11, count: 512))
    #expect(bench.alternate().contains(.busy))
    bench.serve()
    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.status().contains(.dataRequest))
    bench.dataOut([UInt8](repeating: 0x22, count: 512))
    bench.serve()

    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.status() == Self.idle)
    #expect(bench.media[0][20 * 512] == 0x11 && bench.media[0][21 * 512] == 0x22)
  }

  @Test("WRITE MULTIPLE EXT moves a whole block in one request")
  func writeMultipleExtended() {
    var bench = Bench()
    bench.command(0xC6, count: 8)
    bench.commandExtended(0x39, lba: 100, count: 8)
    let taken = bench.ide.writeData(channel: 0, [UInt8](repeating: 9, count: 4096).span)
    bench.serve()

    #expect(taken == 4096)
    #expect(bench.requests.last?.kind == .write(sector: 100, count: 8, durable: false))
    #expect(bench.media[0][100 * 512..<108 * 512].allSatisfy { $0 == 9 })
    #expect(bench.status() == Self.idle)
  }

  @Test("a block read of the data port may be partial, and floats past the data")
  func blockRead() {
    var bench = Bench()
    bench.command(0x20, lba: 1, count: 1)
    bench.serve()
    var first = [UInt8](repeating: 0, count: 100)
    var second = [UInt8](repeating: 0, count: 500)
    var span = first.mutableSpan
    let one = bench.ide.readData(channel: 0, into: &span)
    var rest = second.mutableSpan
    let two = bench.ide.readData(channel: 0, into: &rest)

    #expect((one, two) == (100, 412))
    #expect(first + second[0..<412] == Array(bench.media[0][512..<1024]))
    #expect(second[412] == 0xFF)
  }

  @Test("LBA48 uses the previous register values, and HOB shows them (6.20)")
  func extendedAddress() {
    var bench = Bench(sectors: 1 << 40)
    bench.commandExtended(0x24, lba: 0x12_3456_789A, count: 0x0102)

    #expect(
      bench.ide.request(channel: 0)?.kind == .read(sector: 0x12_3456_789A, count: 128))
    bench.ide.write(0x80, .primaryControl, at: 0, width: .byte)
    #expect((2...5).map { bench.read($0) } == [0x01, 0x34, 0x12, 0x00])
    bench.ide.write(0x00, .primaryControl, at: 0, width: .byte)
    #expect((2...5).map { bench.read($0) } == [0x02, 0x9A, 0x78, 0x56])
  }

  @Test("cylinder, head and sector are translated with the set geometry")
  func cylinders() {
    var bench = Bench()
    bench.write(0xA3, 6)
    bench.write(10, 2)
    bench.write(0x91, 7)  // 4 heads, 10 sectors
    bench.write(0xA2, 6)
    bench.write(1, 2)
    bench.write(5, 3)
    bench.write(3, 4)
    bench.write(0, 5)
    bench.write(0x20, 7)

    #expect(bench.ide.request(channel: 0)?.kind == .read(sector: 144, count: 1))
    bench.serve()
    _ = bench.dataIn(512)
    bench.write(0, 3)
    bench.write(0x20, 7)
    #expect(bench.read(1) == 0x10)
  }

  @Test(
    "an address past the end is IDNF, and a request that crosses the end too",
    arguments: [(4096, 1), (4095, 2), (0x0FFF_FFFF, 1)])
  func pastEnd(lba: UInt32, count: UInt8) {
    var bench = Bench()
    bench.command(0x20, lba: lba, count: count)

    #expect(bench.status() == [.ready, .seekComplete, .error])
    #expect(bench.read(1) == 0x10)
    #expect(bench.ide.request(channel: 0) == nil)
  }

  @Test("a bad sector gives the good ones first, then UNC with its address (8.27.6)")
  func uncorrectable() {
    var bench = Bench()
    bench.failing = [12]
    bench.command(0x20, lba: 10, count: 5)
    bench.serve()
    for sector in 10..<12 {
      bench.serve()
      #expect(bench.dataIn(512) == Array(bench.media[0][sector * 512..<(sector + 1) * 512]))
    }
    bench.serve()

    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.status() == [.ready, .seekComplete, .error])
    #expect((bench.read(1), bench.read(3)) == (0x40, 12))
  }

  @Test("a failed write aborts with the sector's address")
  func failedWrite() {
    var bench = Bench()
    bench.failing = [20]
    bench.command(0x30, lba: 20, count: 1)
    bench.dataOut([UInt8](repeating: 0, count: 512))
    bench.serve()

    #expect(bench.status().contains(.error))
    #expect((bench.read(1), bench.read(3)) == (0x04, 20))
  }

  @Test("READ VERIFY reads without data and FLUSH CACHE waits", arguments: [0x40, 0xE7, 0xEA])
  func noData(code: UInt8) {
    var bench = Bench()
    bench.command(code, lba: 0, count: 4)
    #expect(bench.alternate().contains(.busy))
    bench.serve()
    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.status() == Self.idle)
  }

  @Test("with the write cache off, writes are durable")
  func writeCache() {
    var bench = Bench()
    bench.command(0xEF, features: 0x82)
    bench.serve()
    bench.command(0x30, lba: 5, count: 1)
    bench.dataOut([UInt8](repeating: 0, count: 512))

    #expect(
      bench.ide.request(channel: 0)?.kind == .write(sector: 5, count: 1, durable: true))
  }

  @Test("a write-through disk has no write cache, and every write is durable")
  func writeThrough() {
    var bench = Bench()
    bench.ide.attach(
      .disk(sectorCount: 4096), channel: 0, drive: 0, serial: "BH0001", model: "BULKHEAD DISK",
      isWriteThrough: true)
    bench.command(0xEC)
    let identity = bench.dataIn(512)
    for word in [82, 85] { #expect(identity[word * 2] & 0x20 == 0) }
    #expect(identity[83 * 2 + 1] & 0x30 == 0x30)  // FLUSH CACHE is there all the same
    bench.command(0xEF, features: 0x02)
    #expect(bench.status().contains(.error))
    bench.command(0x30, lba: 5, count: 1)
    bench.dataOut([UInt8](repeating: 0, count: 512))

    #expect(
      bench.ide.request(channel: 0)?.kind == .write(sector: 5, count: 1, durable: true))
  }

  @Test(
    "SET FEATURES takes the modes the drive has and aborts on others",
    arguments: [(0x03, 0x22, true), (0x03, 0x45, true), (0x03, 0x46, false), (0x99, 0, false)])
  func setFeatures(feature: UInt8, mode: UInt8, isGood: Bool) {
    var bench = Bench()
    bench.command(0xEF, count: mode, features: feature)
    #expect(bench.status().contains(.error) == !isGood)
  }

  @Test(
    "commands without data succeed",
    arguments: [0x10, 0x1F, 0x70, 0x91, 0xE0, 0xE1, 0xE2, 0xE3, 0x94, 0x95, 0x96, 0x97])
  func trivial(code: UInt8) {
    var bench = Bench()
    bench.command(code, lba: 0, count: 63)
    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.status() == Self.idle)
  }

  @Test("unknown commands abort", arguments: [0x00, 0x01, 0x08, 0xA0, 0xA1, 0xB0, 0xFF, 0xF5])
  func unknown(code: UInt8) {
    var bench = Bench()
    bench.command(code)
    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.status() == [.ready, .seekComplete, .error])
    #expect(bench.read(1) == 0x04)
  }

  @Test("CHECK POWER MODE tells standby, and a sleeping drive wakes by reset only")
  func power() {
    var bench = Bench()
    bench.command(0xE5)
    let active = bench.read(2)
    bench.command(0xE0)
    bench.command(0xE5)
    let standby = bench.read(2)
    bench.command(0xE6)
    _ = bench.status()
    bench.command(0xEC)
    let asleep = bench.alternate()
    bench.ide.write(4, .primaryControl, at: 0, width: .byte)
    bench.ide.write(0, .primaryControl, at: 0, width: .byte)
    bench.command(0xEC)

    #expect((active, standby) == (0xFF, 0))
    #expect(asleep == Self.idle)
    #expect(bench.alternate().contains(.dataRequest))
  }

  @Test("EXECUTE DEVICE DIAGNOSTIC reports on drive 0 with code 01 (8.11)")
  func diagnostic() {
    var bench = Bench()
    bench.command(0x90)
    #expect(bench.ide.interrupt(channel: 0))
    #expect((1...5).map { bench.read($0) } == [1, 1, 1, 0, 0])
  }

  @Test("READ NATIVE MAX ADDRESS gives the last sector, extended too")
  func nativeMax() {
    var bench = Bench(sectors: 0x1_0203_0405)
    bench.command(0xF8)
    #expect((3...6).map { bench.read($0) } == [0xFF, 0xFF, 0xFF, 0xEF])
    bench.commandExtended(0x27, lba: 0, count: 0)
    #expect((3...5).map { bench.read($0) } == [0x04, 0x04, 0x03])
    bench.ide.write(0x80, .primaryControl, at: 0, width: .byte)
    #expect((3...5).map { bench.read($0) } == [0x02, 0x01, 0x00])
  }

  @Test("nIEN holds the interrupt line down")
  func masked() {
    var bench = Bench()
    bench.ide.write(0x02, .primaryControl, at: 0, width: .byte)
    bench.command(0x10)
    #expect(!bench.ide.interrupt(channel: 0))
    bench.ide.write(0x00, .primaryControl, at: 0, width: .byte)
    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.alternate() == Self.idle)
    #expect(bench.ide.interrupt(channel: 0))
    _ = bench.status()
    #expect(!bench.ide.interrupt(channel: 0))
  }

  @Test("registers and commands are ignored while the drive is busy")
  func busy() {
    var bench = Bench()
    bench.command(0x20, lba: 7, count: 1)
    let before = bench.ide.request(channel: 0)
    bench.write(99, 3)
    bench.write(0xEC, 7)
    #expect(bench.ide.request(channel: 0) == before)
    #expect(bench.read(3) == 7)
  }

  @Test("a stale completion changes nothing")
  func stale() throws {
    var bench = Bench()
    bench.command(0x20, lba: 7, count: 1)
    let tag = try #require(bench.ide.request(channel: 0)).tag
    bench.ide.write(4, .primaryControl, at: 0, width: .byte)
    bench.ide.write(0, .primaryControl, at: 0, width: .byte)
    bench.command(0x20, lba: 9, count: 1)
    bench.ide.complete(channel: 0, tag: tag, .ok)
    #expect(bench.alternate().contains(.busy))
    #expect(bench.ide.request(channel: 0)?.kind == .read(sector: 9, count: 1))
  }
}
