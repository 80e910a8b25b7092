// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import IDE

@Suite("Disks: forced writes, the buffer, and commands that must abort")
struct OptionTests {
  private static let pattern = (0..<1024).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) }

  @Test("IDENTIFY tells of them, supported and in force")
  func identify() {
    var bench = Bench()
    bench.command(0xEC)
    let data = bench.dataIn(512)
    for word in [82, 85] { #expect(data[word * 2 + 1] & 0x30 == 0x30) }
    for word in [84, 87] { #expect(data[word * 2] & 0x40 == 0x40) }
    #expect(data.reduce(0, &+) == 0)
  }

  @Test("WRITE DMA FUA EXT and WRITE MULTIPLE FUA EXT are durable", arguments: [0x3D, 0xCE])
  func forced(code: UInt8) {
    var bench = Bench()
    bench.command(0xC6, count: 2)
    bench.commandExtended(code, lba: 9, count: 2)
    if code == 0x3D {
      bench.memory[0] = Self.pattern
      bench.startDMA(0, byteCount: 1024, toMemory: false)
    } else {
      bench.dataOut(Self.pattern)
    }
    RobustnessTests.roundTrip(&bench)
    #expect(bench.ide.request(channel: 0)?.kind == .write(sector: 9, count: 2, durable: true))
    bench.serve()
    #expect(bench.status() == [.ready, .seekComplete])
    #expect(Array(bench.media[0][9 * 512..<11 * 512]) == Self.pattern)

    bench.stopDMA(0)
    bench.commandExtended(0x39, lba: 9, count: 2)
    bench.dataOut(Self.pattern)
    #expect(bench.ide.request(channel: 0)?.kind == .write(sector: 9, count: 2, durable: false))
  }

  @Test("READ BUFFER gives what WRITE BUFFER has written (8.26, 8.64)")
  func buffers() {
    var bench = Bench()
    let data = Array(Self.pattern[0..<512])
    bench.command(0xE8)
    #expect(!bench.ide.interrupt(channel: 0))
    #expect(bench.alternate().contains(.dataRequest))
    bench.dataOut(data)
    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.status() == [.ready, .seekComplete])
    #expect(bench.ide.request(channel: 0) == nil)
    RobustnessTests.roundTrip(&bench)
    bench.command(0xE4)
    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.dataIn(512) == data)
    #expect(bench.status() == [.ready, .seekComplete])
  }

  /// What drivers send to find out, or to be sure: NOP, CFA's commands, the logs, queued
  /// transfers, media locks, device configuration, security, SET MAX.
  @Test(
    "a disk aborts what it does not have",
    arguments: [
      0x00, 0x03, 0x0E, 0x22, 0x23, 0x26, 0x2F, 0x32, 0x33, 0x37, 0x38, 0x3F, 0x45, 0x50, 0x51,
      0x87, 0x92, 0xA2, 0xB1, 0xC0, 0xC7, 0xCC, 0xCD, 0xD1, 0xDA, 0xDE, 0xDF, 0xED, 0xF1, 0xF2,
      0xF3, 0xF4, 0xF5, 0xF6, 0xF9,
    ] as [UInt8])
  func aborts(code: UInt8) {
    var bench = Bench()
    bench.command(code, lba: 3, count: 1)
    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.status() == [.ready, .seekComplete, .error])
    #expect(bench.read(1) == 0x04)
    #expect(bench.ide.request(channel: 0) == nil)
    bench.command(0xEC)
    #expect(bench.status() == [.ready, .seekComplete, .dataRequest])
  }
}
