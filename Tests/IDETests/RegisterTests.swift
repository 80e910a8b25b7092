// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import IDE

/// Registers bit by bit: ATA/ATAPI-6, section 7, and 82371SB, 2.7.
@Suite("IDE registers, bit by bit")
struct RegisterTests {
  /// What one register reads as after each single bit was written to it.
  private static func readsBack(
    _ bench: inout Bench, _ register: UInt16, channel: Int = 0, keeping base: UInt8 = 0
  ) -> [UInt8] {
    (0..<8).map { bit in
      bench.write(base | 1 << UInt8(bit), register, channel)
      return bench.read(register, channel)
    }
  }

  private static let singleBits = (0..<8).map { UInt8(1) << UInt8($0) }

  @Test("power-on leaves signatures, idle drives, no interrupts and a bus master at rest")
  func powerOn() {
    var bench = Bench()
    #expect((1...7).map { bench.read($0) } == [1, 1, 1, 0, 0, 0xA0, 0x50])
    #expect((1...7).map { bench.read($0, 1) } == [1, 1, 1, 0x14, 0xEB, 0xA0, 0])
    for channel in 0..<2 {
      #expect(!bench.ide.interrupt(channel: channel))
      #expect(bench.ide.request(channel: channel) == nil)
    }
    for port in 0..<16 as Range<UInt16> {
      #expect(bench.ide.read(.busMaster, at: port, width: .byte) == 0, "\(port)")
    }
  }

  @Test("a reset of the machine gives the same, whatever was there before")
  func machineReset() {
    var bench = Bench()
    bench.command(0xC6, count: 8)
    bench.command(0xEF, count: 0x45, features: 0x03)
    bench.command(0x91, count: 32)
    bench.write(0xF5, 6)
    bench.ide.write(0x02, .primaryControl, at: 0, width: .byte)
    bench.ide.write(0xFFFF_FFFF, .busMaster, at: 4, width: .long)
    bench.startDMA(1, byteCount: 512, toMemory: true)
    bench.ide.reset()
    #expect((1...7).map { bench.read($0) } == [1, 1, 1, 0, 0, 0xA0, 0x50])
    for port in 0..<16 as Range<UInt16> {
      #expect(bench.ide.read(.busMaster, at: port, width: .byte) == 0, "\(port)")
    }
    bench.command(0xEC)
    #expect(bench.ide.interrupt(channel: 0))  // nIEN is gone
    var fresh = Bench()
    fresh.command(0xEC)
    #expect(bench.dataIn(512) == fresh.dataIn(512))
  }

  @Test("count and address registers hold all eight bits, on both drives of a channel")
  func taskFile() {
    for register in 2...5 as ClosedRange<UInt16> {
      var bench = Bench()
      bench.ide.attach(
        .disk(sectorCount: 64), channel: 0, drive: 1, serial: "BH0009", model: "SLAVE")
      #expect(Self.readsBack(&bench, register) == Self.singleBits)
      bench.write(0x5A, register)
      bench.write(0xB0, 6)
      #expect(bench.read(register) == 0x5A)
    }
  }

  @Test("HOB reads the value written before, and any write to the command block clears it (7.8)")
  func previousValues() {
    for register in 2...5 as ClosedRange<UInt16> {
      var bench = Bench()
      bench.write(0x12, register)
      bench.write(0x34, register)
      bench.ide.write(0x80, .primaryControl, at: 0, width: .byte)
      #expect(bench.read(register) == 0x12)
      bench.write(0xA0, 6)
      #expect(bench.read(register) == 0x34)
    }
  }

  @Test("the device register keeps LBA and head, reads bits 7 and 5 as ones, and selects by bit 4")
  func device() {
    var bench = Bench()
    bench.ide.attach(
      .disk(sectorCount: 64), channel: 0, drive: 1, serial: "BH0009", model: "SLAVE")
    #expect(
      Self.readsBack(&bench, 6) == Self.singleBits.map { $0 | 0xA0 })
    bench.write(0x10, 6)
    bench.command(0xEC, drive: 1)
    let words = bench.dataIn(512)
    #expect(words[60 * 2] == 64)
  }

  @Test("the features register is written only: its port reads the error register")
  func features() {
    var bench = Bench()
    #expect(Self.readsBack(&bench, 1) == [UInt8](repeating: 1, count: 8))
    bench.command(0xFF)
    #expect(bench.read(1) == 0x04)
    bench.write(0xFF, 1)
    #expect(bench.read(1) == 0x04)
  }

  @Test("no bit of the device control register reads back, and unused ones do nothing")
  func deviceControl() {
    for value in [0x01, 0x08, 0x10, 0x20, 0x40] as [UInt64] {
      var bench = Bench()
      bench.ide.write(value, .primaryControl, at: 0, width: .byte)
      #expect(bench.ide.read(.primaryControl, at: 0, width: .byte) == 0x50)
      bench.command(0xEC)
      #expect(bench.ide.interrupt(channel: 0), "\(value)")
      #expect(bench.status() == [.ready, .seekComplete, .dataRequest])
    }
  }

  @Test("reading status ends the interrupt, reading alternate status does not (7.15, 7.3)")
  func acknowledge() {
    var bench = Bench()
    bench.command(0xEC)
    #expect(bench.ide.read(.primaryControl, at: 0, width: .byte) == 0x58)
    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.status().rawValue == 0x58)
    #expect(!bench.ide.interrupt(channel: 0))
  }

  @Test("SRST holds both drives busy until it is cleared, and drops a command (7.8, 9.3)")
  func softwareReset() {
    var bench = Bench()
    bench.command(0x20, lba: 5, count: 2)
    bench.ide.write(0x04, .primaryControl, at: 0, width: .byte)
    #expect(bench.ide.request(channel: 0) == nil)
    bench.write(0x77, 2)
    bench.write(0xEC, 7)
    #expect(bench.alternate() == .busy)
    bench.ide.write(0x00, .primaryControl, at: 0, width: .byte)
    #expect((1...7).map { bench.read($0) } == [1, 1, 1, 0, 0, 0xA0, 0x50])
    #expect(!bench.ide.interrupt(channel: 0))
  }

  @Test("the bus master's command register holds start and direction only", arguments: [0, 1])
  func busMasterCommand(channel: Int) {
    var bench = Bench()
    let port = UInt16(8 * channel)
    for bit in 0..<8 {
      bench.ide.write(0, .busMaster, at: port, width: .byte)
      bench.ide.write(1 << UInt64(bit), .busMaster, at: port, width: .byte)
      let value = bench.ide.read(.busMaster, at: port, width: .byte)
      #expect(value == 1 << UInt64(bit) & 0x09, "bit \(bit)")
    }
  }

  @Test("its status: active is read-only, error and interrupt go by ones, 5 and 6 are kept")
  func busMasterStatus() {
    var bench = Bench()
    func write(_ value: UInt64, _ bench: inout Bench) -> UInt8 {
      bench.ide.write(value, .busMaster, at: 2, width: .byte)
      return bench.busMasterStatus(0)
    }
    #expect(write(0xFF, &bench) == 0x60)
    #expect(write(0x00, &bench) == 0x00)
    // A start without a good table: error, with the interrupt of the drive that gives up.
    bench.command(0xC8, lba: 0, count: 1)
    bench.startDMA(0, byteCount: 512, toMemory: true, isValid: false)
    #expect(bench.busMasterStatus(0) == 0x06)
    #expect(write(0x20, &bench) == 0x26)
    #expect(write(0x22, &bench) == 0x24)
    #expect(write(0x44, &bench) == 0x40)
    bench.stopDMA(0)
    bench.startDMA(0, byteCount: 512, toMemory: true)
    #expect(write(0x00, &bench) == 0x01)
    bench.stopDMA(0)
    #expect(bench.busMasterStatus(0) == 0x00)
  }

  @Test("its table register is 32 bits, by bytes, words and longs; bits 1 and 0 stay 0")
  func busMasterPointer() {
    var bench = Bench()
    for (lane, value) in [0x7F, 0x56, 0x34, 0x12].enumerated() {
      bench.ide.write(UInt64(value), .busMaster, at: UInt16(4 + lane), width: .byte)
    }
    #expect(bench.ide.read(.busMaster, at: 4, width: .long) == 0x1234_567C)
    #expect(bench.ide.read(.busMaster, at: 6, width: .word) == 0x1234)
    bench.ide.write(0xABCD, .busMaster, at: 12, width: .word)
    #expect(bench.ide.descriptorPointer(channel: 1) == 0xABCC)
    #expect(bench.ide.descriptorPointer(channel: 0) == 0x1234_567C)
    for port in [1, 3, 9, 11] as [UInt16] {
      bench.ide.write(0xFF, .busMaster, at: port, width: .byte)
      #expect(bench.ide.read(.busMaster, at: port, width: .byte) == 0)
    }
  }

  @Test(
    "a table that ends inside a sector moves the whole ones before it, and ends by itself (2.7.2)",
    arguments: [(1, 0), (511, 0), (512, 1), (700, 1), (1023, 1), (1024, 2), (1025, 2)])
  func tableEndsInside(byteCount: Int, moved: Int) {
    var bench = Bench()
    bench.command(0xC8, lba: 40, count: 4)
    bench.startDMA(0, byteCount: byteCount, toMemory: true)
    while bench.serve() {}
    let expected =
      Array(bench.media[0][40 * 512..<(40 + moved) * 512])
      + [UInt8](repeating: 0, count: byteCount - moved * 512)
    #expect(bench.memory[0] == expected)
    #expect(!bench.ide.interrupt(channel: 0))
    #expect(bench.busMasterStatus(0) & 0x03 == 0)
    #expect(!bench.alternate().contains(.busy))
  }

  @Test("a packet command's short answer leaves the rest of a longer table alone")
  func longTableForAnswer() {
    var bench = Bench()
    bench.memory[1] = [UInt8](repeating: 0xEE, count: 64)
    bench.packet([0x25], dma: true)
    bench.startDMA(1, byteCount: 64, toMemory: true)
    while bench.serve(1) {}
    #expect(bench.memory[1] == [0, 0, 0, 99, 0, 0, 8, 0] + [UInt8](repeating: 0xEE, count: 56))
    #expect(bench.ide.interrupt(channel: 1))
    // The table was not used up: active stays set, with the interrupt (2.7.2).
    #expect(bench.busMasterStatus(1) == 0x05)
  }
}
