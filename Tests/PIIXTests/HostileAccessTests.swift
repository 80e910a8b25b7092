// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import PIIX
import ModelTestSupport
import Testing

/// Two hundred thousand random accesses for each region and each function by itself.
@Suite("Hostile accesses")
struct HostileAccessTests {
  @Test("no access to a region traps", arguments: PIIXBoard.Region.allCases)
  func region(_ region: PIIXBoard.Region) {
    var random = SeededGenerator(seed: 0x1000 + UInt64(region.rawValue))
    var board = PIIXBoardTests.makeBoard()
    var now: UInt64 = 0
    for _ in 0..<200_000 {
      let word = random.next()
      now = word >> 52 == 0 ? random.next() : now &+ (word >> 46)
      let time = VMTime(nanoseconds: now)
      let width = AccessWidth.allCases[Int(word & 3)]
      let inside = UInt16(word >> 4 & 0xFFFF) % region.portCount
      let offset = word & 0x0C == 0 ? UInt16(word >> 4 & 0xFFFF) : inside
      if word >> 20 & 1 == 0 {
        let value = UInt32(truncatingIfNeeded: word >> 24)
        _ = board.write(region, value, at: offset, width: width, now: time)
      } else {
        _ = board.read(region, at: offset, width: width, now: time)
      }
      _ = board.nextDeadline
    }
    board.reset()
    #expect(board.read(.systemControlA, at: 0, width: .byte, now: .zero) == 0x24)
  }

  @Test("no configuration access traps", arguments: PIIXBoard.Function.allCases)
  func configuration(_ function: PIIXBoard.Function) {
    var random = SeededGenerator(seed: 0x2000 + UInt64(function.rawValue))
    var board = PIIXBoardTests.makeBoard()
    for _ in 0..<200_000 {
      let word = random.next()
      let width = AccessWidth.allCases[Int(word & 3)]
      let offset = UInt8(truncatingIfNeeded: word >> 8)
      if word & 4 == 0 {
        _ = board.writeConfig(
          function, UInt32(truncatingIfNeeded: word >> 32), at: offset, width: width)
      } else {
        _ = board.readConfig(function, at: offset, width: width)
      }
      for link in 0..<PIIX3ISABridge.linkCount {
        guard let line = board.bridge.interrupt(forLink: link) else { continue }
        #expect([3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15].contains(line))
      }
      if let base = board.base(of: .powerManagement) { #expect(base % 64 == 0) }
      if let base = board.base(of: .smbus) { #expect(base % 16 == 0) }
    }
  }

  @Test("no DMA descriptor traps or reaches past its item or window")
  func descriptors() {
    var random = SeededGenerator(seed: 0x510)
    var items = FwCfgItems()
    items.addFile("small", .bytes([UInt8](repeating: 1, count: 37)))
    items.addFile("blob", .blob(id: 1, size: .max))
    var device = FwCfg(items)
    for _ in 0..<200_000 {
      let (word, length) = (random.next(), random.next())
      var descriptor = [16 of UInt8](repeating: 0)
      descriptor[1] = UInt8(word & 0x3F)  // the selector's low byte
      descriptor[3] = UInt8(word >> 8 & 0x1F)
      for index in 4..<8 where length & 1 == 0 || index == 7 {
        descriptor[index] = UInt8(truncatingIfNeeded: length >> UInt64(8 * index))
      }
      let window = (4..<8).reduce(UInt64(0)) { $0 << 8 | UInt64(descriptor[$1]) }
      var next: UInt64 = 0
      for step in device.beginTransfer(descriptor).steps {
        let (start, count): (UInt32, UInt32)
        switch step {
        case .copyItem(let key, let offset, let first, let length):
          (start, count) = (first, length)
          #expect(UInt64(offset) + UInt64(length) <= UInt64(device.bytes(of: key)?.count ?? 0))
        case .copyBlob(_, let offset, let first, let length):
          (start, count) = (first, length)
          #expect(UInt64(offset) + UInt64(length) <= UInt64(UInt32.max))
        case .zero(let first, let length): (start, count) = (first, length)
        }
        #expect(UInt64(start) == next)
        next += UInt64(count)
      }
      #expect(next == 0 || next == window)
    }
  }
}
