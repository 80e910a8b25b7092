// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import ModelTestSupport
import Testing

@testable import IDE

@Suite("IDE controller: hostile guests and state")
struct RobustnessTests {
  /// Writes a state down and restores it into a controller of the same shape.
  static func roundTrip(_ bench: inout Bench) {
    let state = encoded(bench.ide)
    var fresh = Bench(discSectors: 100)
    restore(state, into: &fresh.ide)
    for channel in 0..<2 {
      let bytes = bench.ide.withBuffer(channel: channel) { s in (0..<s.count).map { s[$0] } }
      fresh.ide.withMutableBuffer(channel: channel) { s in
        for index in 0..<s.count { s[index] = bytes[index] }
      }
    }
    #expect(encoded(fresh.ide) == state)
    bench.ide = fresh.ide
  }

  @Test("a PIO read goes on after a round trip of its state at every step")
  func midRead() {
    var bench = Bench()
    bench.command(0x20, lba: 10, count: 2)
    let before = bench.ide.request(channel: 0)
    Self.roundTrip(&bench)
    #expect(bench.ide.request(channel: 0) == before)
    bench.serve()
    var data = bench.dataIn(100)
    Self.roundTrip(&bench)
    data += bench.dataIn(924)
    #expect(data == Array(bench.media[0][10 * 512..<12 * 512]))
    #expect(bench.status() == [.ready, .seekComplete])
  }

  @Test("a chunked DMA write goes on after a round trip between chunks")
  func midDMA() {
    var bench = Bench()
    bench.memory[0] = (0..<600 * 512).map { UInt8(truncatingIfNeeded: $0 / 512 &* 5) }
    bench.commandExtended(0x35, lba: 1, count: 600)
    bench.startDMA(0, byteCount: 600 * 512, toMemory: false)
    bench.serve()
    let before = bench.ide.request(channel: 0)
    Self.roundTrip(&bench)
    #expect(bench.ide.request(channel: 0) == before)
    while bench.serve() {}
    #expect(Array(bench.media[0][512..<601 * 512]) == bench.memory[0])
  }

  @Test("the dirty range covers what changed and is taken once")
  func dirty() {
    var bench = Bench()
    bench.command(0x20, lba: 0, count: 2)
    bench.serve()
    #expect(bench.ide.takeDirtyRange(channel: 0) == 0..<1024)
    #expect(bench.ide.takeDirtyRange(channel: 0).isEmpty)
    while bench.alternate().contains(.dataRequest) { _ = bench.dataIn(512) }
    bench.command(0x30, lba: 0, count: 1)
    bench.dataOut([1, 2, 3, 4])
    #expect(bench.ide.takeDirtyRange(channel: 0) == 0..<4)
  }

  @Test("a reset makes requests stale and keeps the drives")
  func reset() throws {
    var bench = Bench()
    bench.command(0x20, lba: 0, count: 2)
    let tag = try #require(bench.ide.request(channel: 0)).tag
    bench.ide.reset()
    bench.ide.complete(channel: 0, tag: tag, .ok)
    #expect(bench.alternate() == [.ready, .seekComplete])
    bench.command(0xEC)
    #expect(bench.alternate().contains(.dataRequest))
  }

  /// Does one random thing to the controller.
  static func poke(_ bench: inout Bench, _ random: inout SeededGenerator) {
    let region = IDERegion.allCases[Int.random(in: 0..<5, using: &random)]
    let offset = UInt16.random(in: 0..<region.length + 2, using: &random)
    let width = AccessWidth.allCases[Int.random(in: 0..<4, using: &random)]
    let channel = Int.random(in: 0..<2, using: &random)
    switch Int.random(in: 0..<16, using: &random) {
    case 0...3: _ = bench.ide.read(region, at: offset, width: width)
    case 4...8: bench.ide.write(random.next(), region, at: offset, width: width)
    case 9:
      let codes: [UInt8] = [
        0x20, 0x24, 0x25, 0x30, 0x35, 0x39, 0x40, 0x90, 0xA0, 0xA1, 0xC4, 0xC5, 0xC6, 0xC8, 0xCA,
        0xEC, 0xE7, 0x91, 0x08, 0xEF, 0xF8, 0x27, 0x3D, 0xCE, 0xE4, 0xE8,
      ]
      bench.write(codes[Int.random(in: 0..<codes.count, using: &random)], 7, channel)
    case 10:
      bench.ide.setWindow(
        channel: channel,
        IDEWindow(
          byteCount: UInt32.random(in: 0...200_000, using: &random),
          isValid: Bool.random(using: &random)))
    case 11:
      let results: [IDEResult] = [.ok, .ok, .failed(sector: random.next()), .refusedByBus]
      let result = results[Int.random(in: 0..<4, using: &random)]
      if let request = bench.ide.request(channel: channel) {
        bench.ide.complete(channel: channel, tag: request.tag, result)
      }
    case 12:
      var data = [UInt8](repeating: 0, count: Int.random(in: 0...1024, using: &random))
      var span = data.mutableSpan
      _ = bench.ide.readData(channel: channel, into: &span)
    case 13:
      let data = (0..<Int.random(in: 0...64, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      _ = bench.ide.writeData(channel: channel, data.span)
    case 14:
      let codes: [UInt8] = [0x00, 0x03, 0x12, 0x25, 0x28, 0x43, 0x46, 0x4A, 0x5A, 0xA8, 0xBE]
      var packet = (0..<12).map { _ in UInt8.random(in: 0...255, using: &random) }
      packet[0] = codes[Int.random(in: 0..<codes.count, using: &random)]
      bench.packet(packet, dma: Bool.random(using: &random))
    default:
      // Now and then a whole command, with the drive awake.
      let codes: [UInt8] = [0x20, 0x30, 0x40, 0xC4, 0xC5, 0xC8, 0xCA, 0xE7, 0xEC]
      if Bool.random(using: &random) {
        for value: UInt64 in [4, 0] {
          bench.ide.write(value, bench.control(channel), at: 0, width: .byte)
        }
      }
      bench.command(
        codes[Int.random(in: 0..<codes.count, using: &random)],
        lba: UInt32.random(in: 0..<4200, using: &random),
        count: UInt8.random(in: 0...255, using: &random), channel: channel)
    }
  }

  @Test("300,000 random accesses never trap", arguments: [1, 2, 3])
  func fuzz(seed: UInt64) {
    var bench = Bench()
    var random = SeededGenerator(seed: seed)
    var requestCount = 0

    for _ in 0..<100_000 {
      Self.poke(&bench, &random)
      for channel in 0..<2 {
        guard let request = bench.ide.request(channel: channel) else { continue }
        requestCount += 1
        let limit = request.drive == 0 && channel == 0 ? UInt64(4096) : 100
        switch request.kind {
        case .read(let sector, let count), .write(let sector, let count, _),
          .verify(let sector, let count):
          if count == 0 || sector + UInt64(count) > limit {
            Issue.record("request outside the medium: \(request)")
            return
          }
        case .trim, .flush, .copyBuffer: break
        }
        if case .window(let offset, let count) = request.transfer,
          UInt64(offset) + UInt64(count) > 200_000
        {
          Issue.record("request outside the window: \(request)")
          return
        }
      }
    }

    #expect(requestCount > 5000)
  }

  @Test("a damaged state never traps")
  func damagedState() {
    var random = SeededGenerator(seed: 99)
    var bench = Bench()
    bench.command(0x20, lba: 10, count: 2)
    let state = encoded(bench.ide)

    for _ in 0..<300 {
      var bytes = state
      for _ in 0..<8 {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        bytes[place] = UInt8.random(in: 0...255, using: &random)
      }
      var fresh = Bench()
      let left = StateBytes.decode(bytes, into: &fresh.ide)
      #expect(left == 0)
      for _ in 0..<100 { Self.poke(&fresh, &random) }
    }
  }
}
