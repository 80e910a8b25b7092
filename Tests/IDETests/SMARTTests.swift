// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import IDE

@Suite("SMART and TRIM")
struct SMARTTests {
  static let idle: ATAStatus = [.ready, .seekComplete]
  /// 4Fh and C2h in the cylinder registers (ATA/ATAPI-7, 7.52).
  static let key: UInt32 = 0xC2_4F00

  private func identification(_ bench: inout Bench) -> [UInt16] {
    bench.command(0xEC)
    let data = bench.dataIn(512)
    return (0..<256).map { UInt16(data[$0 * 2]) | UInt16(data[$0 * 2 + 1]) << 8 }
  }

  @Test("is offered, can be switched off and on, and is on after a hardware reset")
  func switched() {
    var bench = Bench()
    #expect(identification(&bench)[82] & 1 == 1)
    #expect(identification(&bench)[85] & 1 == 1)
    bench.command(0xB0, lba: Self.key, features: 0xD9)
    #expect(bench.status() == Self.idle)
    #expect(identification(&bench)[82] & 1 == 1)
    #expect(identification(&bench)[85] & 1 == 0)
    for command: UInt8 in [0xD0, 0xD1, 0xD2, 0xD4, 0xD9, 0xDA] {
      bench.command(0xB0, lba: Self.key, features: command)
      #expect(bench.status().contains(.error) && bench.read(1) == ATAError.aborted)
    }
    bench.command(0xB0, lba: Self.key, features: 0xD8)
    #expect(bench.status() == Self.idle)
    #expect(identification(&bench)[85] & 1 == 1)
    bench.command(0xB0, lba: Self.key, features: 0xD9)
    bench.ide.reset()
    #expect(identification(&bench)[85] & 1 == 1)
  }

  @Test("RETURN STATUS leaves 4Fh and C2h: no threshold is exceeded (7.52.8)")
  func status() {
    var bench = Bench()
    bench.command(0xB0, lba: Self.key, features: 0xDA)
    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.status() == Self.idle)
    #expect(bench.read(4) == 0x4F && bench.read(5) == 0xC2)
  }

  @Test("without the key, and for what is not offered, a command aborts")
  func aborts() {
    var bench = Bench()
    for (key, command) in [
      (UInt32(0), UInt8(0xDA)), (0xC2_4E00, 0xD0), (Self.key, 0xD5), (Self.key, 0x00),
    ] {
      bench.command(0xB0, lba: key, features: command)
      #expect(bench.status().contains(.error) && bench.read(1) == ATAError.aborted)
    }
    bench.command(0xB0, lba: Self.key | 1, features: 0xD4)
    #expect(bench.status().contains(.error))
    bench.command(0xB0, lba: Self.key, features: 0xD4)
    #expect(bench.status() == Self.idle)
    bench.command(0xB0, lba: Self.key, count: 0xF1, features: 0xD2)
    #expect(bench.status() == Self.idle)
    bench.command(0xB0, lba: Self.key, count: 0x12, features: 0xD2)
    #expect(bench.status().contains(.error))
  }

  @Test("READ DATA counts the reads that failed; the thresholds name the same attributes")
  func data() {
    var bench = Bench()
    bench.failing = [12]
    for _ in 0..<3 {
      bench.command(0xC8, lba: 12, count: 1)
      bench.startDMA(0, byteCount: 512, toMemory: true)
      bench.serve()
      #expect(bench.status().contains(.error))
      bench.stopDMA(0)
    }
    bench.command(0xB0, lba: Self.key, features: 0xD0)
    #expect(bench.status().contains(.dataRequest))
    let data = bench.dataIn(512)
    bench.command(0xB0, lba: Self.key, features: 0xD1)
    let thresholds = bench.dataIn(512)
    #expect(data.reduce(0, &+) == 0 && thresholds.reduce(0, &+) == 0)
    #expect(data[0] == 0x10 && thresholds[0] == 0x10)
    let ids = stride(from: 2, to: 362, by: 12).map { data[$0] }
    #expect(ids == stride(from: 2, to: 362, by: 12).map { thresholds[$0] })
    #expect(Set(ids).isSuperset(of: [1, 5, 187, 197]))
    for (index, id) in ids.enumerated() where id != 0 {
      #expect(data[2 + 12 * index + 3] > thresholds[2 + 12 * index + 1])
      #expect(data[2 + 12 * index + 5] == (id == 1 || id == 187 ? 3 : 0))
    }
  }

  @Test("DATA SET MANAGEMENT brings its list by DMA (ACS-2, 7.10)")
  func trim() {
    var bench = Bench()
    #expect(identification(&bench)[169] & 1 == 1)
    #expect(identification(&bench)[105] == 1)
    bench.memory[0] = (0..<512).map { UInt8(truncatingIfNeeded: $0 * 7) }
    bench.write(1, 1)
    bench.commandExtended(0x06, lba: 0, count: 1)
    #expect(bench.alternate().contains(.dataRequest))
    bench.startDMA(0, byteCount: 512, toMemory: false)
    #expect(bench.ide.request(channel: 0)?.kind == .trim(blocks: 1))
    bench.serve()
    #expect(bench.trimmed == [bench.memory[0]])
    #expect(bench.ide.interrupt(channel: 0))
    #expect(bench.status() == Self.idle)
    #expect(bench.busMasterStatus(0) == 4)
  }

  @Test(
    "DATA SET MANAGEMENT aborts without TRIM, with more than it takes, and in the wrong direction")
  func trimRefused() {
    var bench = Bench()
    for (features, count) in [(UInt8(0), UInt16(1)), (3, 1), (1, 2), (1, 0)] {
      bench.write(features, 1)
      bench.commandExtended(0x06, lba: 0, count: count)
      #expect(bench.status().contains(.error) && bench.read(1) == ATAError.aborted)
      #expect(bench.ide.request(channel: 0) == nil)
    }
    bench.write(1, 1)
    bench.commandExtended(0x06, lba: 0, count: 1)
    bench.startDMA(0, byteCount: 512, toMemory: true)
    #expect(bench.ide.request(channel: 0) == nil)
    #expect(bench.busMasterStatus(0) & 2 == 2)
  }

  @Test("READ MULTIPLE works at once, with blocks of 16 sectors")
  func multiple() {
    var bench = Bench()
    #expect(identification(&bench)[59] == 0x0110)
    bench.command(0xC4, lba: 0, count: 16)
    bench.serve()
    #expect(bench.dataIn(16 * 512) == Array(bench.media[0][..<8192]))
    #expect(bench.status() == Self.idle)
  }
}
