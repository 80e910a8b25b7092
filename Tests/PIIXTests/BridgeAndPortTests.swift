// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import PIIX
import ModelTestSupport
import Testing

@Suite("PIIX3ISABridge")
struct PIIX3ISABridgeTests {
  @Test(
    "registers after reset",
    arguments: [
      (UInt8(0x4C), UInt32(0x0003_004D)), (0x60, 0x8080_8080), (0x68, 0x0000_0200),
      (0x70, 0x0000_0080), (0x74, 0x0C0C_0000), (0x78, 0x0000_0002), (0x80, 0), (0xA0, 0x0000_0008),
      (0xA8, 0x0000_000F), (0x00, 0xFFFF_FFFF),
    ] as [(UInt8, UInt32)])
  func reset(offset: UInt8, value: UInt32) {
    #expect(PIIX3ISABridge().readConfig(at: offset, width: .long) == value)
  }

  @Test(
    "a route names an interrupt unless it is off or reserved",
    arguments: [
      (UInt32(0x0A), UInt8?(10)), (0x0B, 11), (0x05, 5), (0x0F, 15), (0x8A, nil), (0x00, nil),
      (0x01, nil), (0x02, nil), (0x08, nil), (0x0D, nil),
    ] as [(UInt32, UInt8?)])
  func routes(register: UInt32, line: UInt8?) {
    var bridge = PIIX3ISABridge()
    for link in 0..<4 { #expect(bridge.interrupt(forLink: link) == nil) }
    #expect(bridge.writeConfig(register, at: 0x62, width: .byte) == true)
    #expect(bridge.interrupt(forLink: 2) == line)
    #expect(bridge.writeConfig(register, at: 0x62, width: .byte) == false)
    #expect(bridge.interrupt(forLink: 4) == nil)
  }

  @Test("reserved route bits stay zero, and other registers are no routing")
  func masks() {
    var bridge = PIIX3ISABridge()
    _ = bridge.writeConfig(0xFFFF_FFFF, at: 0x60, width: .long)
    #expect(bridge.routes == 0x8F8F_8F8F)
    #expect(bridge.writeConfig(0xFF, at: 0x69, width: .byte) == false)
    #expect(bridge.readConfig(at: 0x69, width: .byte) == 0xFE)
  }

  @Test(
    "slots rotate over the links",
    arguments: [
      (UInt8(1), UInt8(0), 0), (2, 0, 1), (3, 0, 2), (3, 3, 1), (4, 0, 3), (5, 0, 0), (0, 0, 3),
    ] as [(UInt8, UInt8, Int)])
  func links(slot: UInt8, pin: UInt8, link: Int) {
    #expect(PIIX3ISABridge.link(slot: slot, pin: pin) == link)
  }

  @Test("system interrupts are always edge-triggered in ELCR")
  func edgeLevel() {
    var levels = EdgeLevelControl()
    levels.write(0xFF, at: 0)
    levels.write(0xFF, at: 1)
    #expect(levels.read(at: 0) == 0xF8)
    #expect(levels.read(at: 1) == 0xDE)
    #expect(levels.levels == 0xDEF8)
    #expect(levels.read(at: 2) == 0xFF)
  }
}

@Suite("Board ports")
struct BoardPortTests {
  @Test("8237 addresses go through the flip-flop")
  func flipFlop() {
    var dma = I8237()
    dma.write(0x34, to: 4)
    dma.write(0x12, to: 4)
    #expect(dma.read(4) == 0x34)
    dma.write(0xFF, to: 12)
    #expect(dma.read(4) == 0x34)
    #expect(dma.read(4) == 0x12)
    dma.write(0x78, to: 5)
    dma.write(0x56, to: 5)
    #expect([dma.read(5), dma.read(5)] == [0x78, 0x56])
  }

  @Test("8237 masks, requests and master clear")
  func masks() {
    var dma = I8237()
    #expect(dma.read(15) == 0xFF)
    dma.write(0x02, to: 10)
    #expect(!dma.isMasked(channel: 2) && dma.isMasked(channel: 3))
    dma.write(0x06, to: 10)
    #expect(dma.isMasked(channel: 2))
    dma.write(0, to: 14)
    #expect(dma.read(15) == 0xF0)
    dma.write(0x05, to: 9)
    #expect(dma.read(8) == 0x20)
    dma.write(0, to: 13)
    #expect(dma.read(15) == 0xFF)
    #expect(dma.read(8) == 0)
  }

  @Test("port 92h resets on a rising bit 0 and gates A20")
  func port92() {
    var port = Port92()
    #expect(port.read() == 0x24)
    #expect(port.write(0x02) == false)
    #expect(port.isA20Enabled)
    #expect(port.write(0x03) == true)
    #expect(port.write(0x03) == false)
    #expect(port.read() == 0x27)
  }

  @Test("port 61h keeps four bits; refresh toggles, the timer shows")
  func port61() {
    var port = Port61()
    port.write(0xFF)
    #expect(port.read(now: .zero) == 0x0F)
    #expect(port.read(now: VMTime(nanoseconds: 15_085)) == 0x1F)
    port.timerOutput = true
    #expect(port.read(now: .zero) == 0x2F)
    #expect(port.isTimerGateOpen && port.isSpeakerEnabled)
  }

  @Test(
    "CF9h resets as bit 2 rises, hard with bit 1",
    arguments: [
      ([UInt8(0x06)], ResetKind?.some(.hard)), ([0x04], .cpu), ([0x02, 0x06], .hard),
      ([0x02], nil), ([0x06, 0x06], nil), ([0xFB], nil),
    ] as [([UInt8], ResetKind?)])
  func resetControl(bytes: [UInt8], kind: ResetKind?) {
    var control = ResetControl()
    var last: ResetKind?
    for byte in bytes { last = control.write(byte) }
    #expect(last == kind)
  }

  @Test(
    "the debug exit code is the value doubled and one",
    arguments: [
      (UInt32(0), UInt32(1)), (1, 3), (0x10, 0x21), (0xFFFF_FFFF, 0xFFFF_FFFF),
    ] as [(UInt32, UInt32)])
  func exitCode(value: UInt32, code: UInt32) {
    #expect(DebugExit.code(for: value) == code)
  }
}

@Suite("PIIXBoard")
struct PIIXBoardTests {
  static func makeBoard() -> PIIXBoard {
    PIIXBoard(
      clock: MC146818(unixSeconds: 1_795_377_600),
      items: PCTables.items(.init(memoryBelow4G: 64 << 20)))
  }

  @Test("fixed regions do not overlap")
  func regions() {
    var owner: [Int: PIIXBoard.Region] = [:]
    for region in PIIXBoard.Region.allCases {
      guard let base = region.fixedBase else { continue }
      for port in Int(base)..<Int(base) + Int(region.portCount) {
        #expect(owner[port] == nil || region == .systemControlA)
        owner[port] = region
      }
    }
  }

  @Test(
    "writes ask for what they mean",
    arguments: [
      (
        PIIXBoard.Region.debugConsole, UInt16(0), UInt32(0x41), AccessWidth.byte,
        PIIXBoard.Request?.some(.print(0x41))
      ),
      (.debugExit, 0, 0x10, .byte, .exit(code: 0x21)),
      (.debugExit, 0, 0x1_0000, .long, .exit(code: 0x2_0001)),
      (.debugExit, 1, 0x10, .byte, nil), (.resetControl, 0, 0x06, .byte, .reset(.hard)),
      (.systemControlA, 0, 0x01, .byte, .reset(.cpu)),
      (.powerManagement, 4, 0x2000, .word, .powerOff),
      (.postCode, 0, 0x55, .byte, nil),
      (
        .firmwareConfiguration, 8, 0x0000_1000, .long,
        .firmwareTransfer(descriptorAddress: 0x0010_0000)
      ),
    ] as [(PIIXBoard.Region, UInt16, UInt32, AccessWidth, PIIXBoard.Request?)])
  func requests(
    region: PIIXBoard.Region, offset: UInt16, value: UInt32, width: AccessWidth,
    request: PIIXBoard.Request?
  ) {
    var board = Self.makeBoard()
    #expect(board.write(region, value, at: offset, width: width, now: .zero) == request)
  }

  @Test("wide accesses are one for each byte")
  func lanes() {
    var board = Self.makeBoard()
    _ = board.write(.clock, 0xA570, at: 0, width: .word, now: .zero)
    #expect(board.clock.peek(0x70) == 0xA5)
    #expect(board.read(.clock, at: 0, width: .word, now: .zero) == 0xA5FF)
    #expect(board.read(.debugConsole, at: 0, width: .word, now: .zero) == 0xFFE9)
    #expect(
      board.read(.powerManagement, at: 8, width: .long, now: VMTime(nanoseconds: 1_000_000_000))
        == 3_579_545)
  }

  @Test("the second DMA controller's registers are two ports apart")
  func secondDMA() {
    var board = Self.makeBoard()
    _ = board.write(.dma2, 0x00, at: 28, width: .byte, now: .zero)
    #expect(board.read(.dma2, at: 30, width: .byte, now: .zero) == 0xF0)
    #expect(board.read(.dma2, at: 31, width: .byte, now: .zero) == 0xFF)
    _ = board.write(.dmaPages, 0x7E, at: 14, width: .byte, now: .zero)
    #expect(board.pages.read(0x0F) == 0x7E)
  }

  @Test("the clock's interrupt sets RTC_STS")
  func clockStatus() {
    var board = Self.makeBoard()
    _ = board.write(.clock, 0x120B, at: 0, width: .word, now: .zero)
    #expect(board.nextDeadline == VMTime(nanoseconds: 1_000_000_000))
    board.advance(to: VMTime(nanoseconds: 1_000_000_000))
    #expect(board.clockInterrupt)
    #expect(board.read(.powerManagement, at: 0, width: .word, now: .zero) & 0x0400 != 0)
  }

  @Test("configuration writes say what they changed")
  func configuration() {
    var board = Self.makeBoard()
    #expect(board.writeConfig(.isaBridge, 0x0A, at: 0x60, width: .byte) == .routes)
    #expect(board.writeConfig(.isaBridge, 0x4D, at: 0x4C, width: .byte) == [])
    #expect(board.writeConfig(.powerManagement, 0x0601, at: 0x40, width: .word) == [])
    #expect(board.base(of: .powerManagement) == nil)
    #expect(board.writeConfig(.powerManagement, 0x01, at: 0x80, width: .byte) == .ports)
    #expect(board.base(of: .powerManagement) == 0x600)
    #expect(board.readConfig(.isaBridge, at: 0x60, width: .byte) == 0x0A)
  }

  @Test("a reset takes everything back but the clock's memory")
  func reset() {
    var board = Self.makeBoard()
    let fresh = encoded(board)
    _ = board.writeConfig(.isaBridge, 0x0A, at: 0x60, width: .byte)
    _ = board.write(.resetControl, 0x06, at: 0, width: .byte, now: .zero)
    _ = board.write(.firmwareConfiguration, 0x19, at: 0, width: .word, now: .zero)
    board.reset()
    #expect(encoded(board) == fresh)
    _ = board.write(.clock, 0x5570, at: 0, width: .word, now: .zero)
    board.reset()
    #expect(board.clock.peek(0x70) == 0x55)
  }

  @Test("state survives a round trip after random use", arguments: [UInt64(1), 2, 3] as [UInt64])
  func state(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var board = Self.makeBoard()
    for step in 0..<2000 {
      let word = random.next()
      let region = PIIXBoard.Region.allCases[Int(word & 15)]
      _ = board.write(
        region, UInt32(truncatingIfNeeded: word >> 32), at: UInt16(word >> 8 & 0x3F),
        width: AccessWidth.allCases[Int(word >> 20 & 3)],
        now: VMTime(nanoseconds: UInt64(step) * 1_000_000))
    }
    var other = Self.makeBoard()
    restore(encoded(board), into: &other)
    #expect(encoded(other) == encoded(board))
  }

  @Test("no access or restored state traps", arguments: [UInt64(82371), 82093] as [UInt64])
  func hostile(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var board = Self.makeBoard()
    var now: UInt64 = 0
    for round in 0..<200_000 {
      let word = random.next()
      now = word >> 50 == 0 ? random.next() : now &+ (word >> 44)
      let time = VMTime(nanoseconds: now)
      let region = PIIXBoard.Region.allCases[Int(word & 15)]
      let width = AccessWidth.allCases[Int(word >> 4 & 3)]
      let value = UInt32(truncatingIfNeeded: random.next())
      let offset = UInt16(truncatingIfNeeded: word >> 16) & (word & 0x80 == 0 ? 0x3F : 0xFFFF)
      switch word >> 8 & 7 {
      case 0, 1, 2: _ = board.write(region, value, at: offset, width: width, now: time)
      case 3, 4: _ = board.read(region, at: offset, width: width, now: time)
      case 5:
        _ = board.writeConfig(
          word & 1 == 0 ? .isaBridge : .powerManagement, value, at: UInt8(offset & 0xFF),
          width: width)
      case 6:
        _ = board.readConfig(
          word & 1 == 0 ? .isaBridge : .powerManagement, at: UInt8(offset & 0xFF), width: width)
      default:
        var descriptor = [16 of UInt8](repeating: 0)
        for index in 0..<16 {
          descriptor[index] = UInt8(truncatingIfNeeded: random.next()) & (index == 3 ? 0x1F : 0xFF)
        }
        _ = board.firmware.beginTransfer(descriptor)
      }
      board.advance(to: time)
      _ = board.nextDeadline
      if round % 2000 == 0 {
        restore((0..<1500).map { _ in UInt8(truncatingIfNeeded: random.next()) }, into: &board)
      }
    }
    #expect(board.read(.debugConsole, at: 0, width: .byte, now: .zero) == 0xE9)
  }
}
