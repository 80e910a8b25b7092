// SPDX-License-Identifier: Apache-2.0

import InterruptControllers
import Testing

/// Two 8259A, initialised as a PC's firmware does: vectors 08h and 70h.
private func initialized(automatic: Bool = false, nested: Bool = false) -> I8259Pair {
  var pics = I8259Pair()
  let fourth: UInt8 = 1 | (automatic ? 2 : 0) | (nested ? 0x10 : 0)
  for (port, value) in [
    (0x20, 0x11), (0x21, 0x08), (0x21, 4), (0x21, fourth), (0xA0, 0x11), (0xA1, 0x70), (0xA1, 2),
    (0xA1, 1),
  ] as [(UInt16, UInt8)] {
    pics.write(port, value)
  }
  return pics
}

/// IRR of the first (20h) or the second (A0h).
private func requests(_ pics: inout I8259Pair, _ port: UInt16 = 0x20) -> UInt8 {
  pics.write(port, 0x0A)
  return pics.read(port)
}

/// ISR.
private func service(_ pics: inout I8259Pair, _ port: UInt16 = 0x20) -> UInt8 {
  pics.write(port, 0x0B)
  return pics.read(port)
}

@Suite struct I8259Tests {
  @Test func `The words of the initialisation set the vectors and clear the rest`() {
    var pics = initialized()
    #expect(pics.read(0x21) == 0)
    pics.write(0x21, 0xFF)
    pics.write(0xA1, 0x55)
    #expect(pics.read(0x21) == 0xFF)
    #expect(pics.read(0xA1) == 0x55)
    pics.write(0x21, 0)
    pics.setLine(3, true)
    #expect(pics.acknowledge() == 0x0B)
    pics.write(0x20, 0x11)
    #expect(!pics.hasInterrupt)
    pics.write(0x21, 0x47)
    pics.write(0x21, 4)
    pics.write(0x21, 1)
    #expect(pics.read(0x21) == 0)
    #expect(service(&pics) == 0)
    // The edge was taken: the line must fall first.
    #expect(requests(&pics) == 0)
    pics.setLine(3, false)
    pics.setLine(3, true)
    #expect(pics.acknowledge() == 0x43)
  }

  @Test func `Lower inputs come first, and what is in service keeps back its like and less`() {
    var pics = initialized()
    for line: UInt8 in [6, 3, 5] { pics.setLine(line, true) }
    #expect(requests(&pics) == 0x68)
    #expect(pics.acknowledge() == 0x0B)
    #expect(!pics.hasInterrupt)
    #expect(service(&pics) == 0x08)
    pics.setLine(1, true)
    #expect(pics.acknowledge() == 0x09)
    pics.write(0x20, 0x20)
    #expect(service(&pics) == 0x08)
    pics.write(0x20, 0x20)
    #expect(pics.acknowledge() == 0x0D)
    pics.write(0x20, 0x65)
    #expect(service(&pics) == 0)
    #expect(pics.acknowledge() == 0x0E)
  }

  @Test func `A masked input's request waits`() {
    var pics = initialized()
    pics.write(0x21, 0x08)
    pics.setLine(3, true)
    #expect(!pics.hasInterrupt)
    #expect(requests(&pics) == 0x08)
    pics.write(0x21, 0)
    #expect(pics.hasInterrupt)
  }

  @Test func `The second's inputs come through the first's input 2, in their order`() {
    var pics = initialized()
    pics.setLine(14, true)
    pics.setLine(8, true)
    #expect(requests(&pics) == 0x04)
    #expect(pics.acknowledge() == 0x70)
    #expect(service(&pics) == 0x04)
    #expect(service(&pics, 0xA0) == 0x01)
    pics.write(0xA0, 0x20)
    pics.write(0x20, 0x20)
    #expect(pics.acknowledge() == 0x76)
    // Line 1 is before the cascade, line 3 after it.
    pics.setLine(3, true)
    #expect(!pics.hasInterrupt)
    pics.setLine(1, true)
    #expect(pics.acknowledge() == 0x09)
  }

  @Test func `In the special fully nested mode a higher input of the second passes`() {
    for isNested in [false, true] {
      var pics = initialized(nested: isNested)
      pics.setLine(14, true)
      #expect(pics.acknowledge() == 0x76)
      pics.setLine(8, true)
      #expect(pics.hasInterrupt == isNested)
      if isNested { #expect(pics.acknowledge() == 0x70) }
    }
  }

  @Test func `The rotations make the input that was served the last`() {
    var pics = initialized()
    pics.setLine(3, true)
    #expect(pics.acknowledge() == 0x0B)
    pics.write(0x20, 0xA0)
    // Input 4 is the highest now, 3 the lowest.
    pics.setLine(3, false)
    pics.setLine(3, true)
    pics.setLine(7, true)
    pics.setLine(1, true)
    #expect(pics.acknowledge() == 0x0F)
    pics.write(0x20, 0xE7)
    #expect(pics.acknowledge() == 0x09)
    pics.write(0x20, 0x20)
    // The set priority command alone: 2 the lowest, so 3 is the highest.
    pics.setLine(1, false)
    pics.setLine(1, true)
    pics.write(0x20, 0xC2)
    #expect(pics.acknowledge() == 0x0B)
  }

  @Test func `With automatic end nothing stays in service, and rotation can go with it`() {
    var pics = initialized(automatic: true)
    pics.setLine(3, true)
    #expect(pics.acknowledge() == 0x0B)
    #expect(service(&pics) == 0)
    pics.write(0x20, 0x80)
    pics.setLine(5, true)
    #expect(pics.acknowledge() == 0x0D)
    pics.setLine(5, false)
    pics.setLine(5, true)
    pics.setLine(6, true)
    #expect(pics.acknowledge() == 0x0E)
    pics.write(0x20, 0x00)
  }

  @Test func `The special mask mode lets lower inputs through, and their end leaves the masked`() {
    var pics = initialized()
    pics.setLine(1, true)
    #expect(pics.acknowledge() == 0x09)
    pics.setLine(4, true)
    pics.write(0x21, 0x02)
    #expect(!pics.hasInterrupt)
    pics.write(0x20, 0x68)
    #expect(pics.acknowledge() == 0x0C)
    #expect(service(&pics) == 0x12)
    pics.write(0x20, 0x20)
    #expect(service(&pics) == 0x02)
    pics.write(0x20, 0x20)
    #expect(service(&pics) == 0x02)
    pics.write(0x20, 0x48)
    pics.write(0x20, 0x20)
    #expect(service(&pics) == 0)
  }

  @Test func `A poll is an acknowledgement`() {
    var pics = initialized()
    pics.write(0x20, 0x0C)
    #expect(pics.read(0x20) & 0x80 == 0)
    pics.setLine(5, true)
    pics.write(0x20, 0x0C)
    #expect(pics.read(0x20) == 0x85)
    #expect(service(&pics) == 0x20)
    #expect(!pics.hasInterrupt)
  }

  @Test func `A level asks as long as it is there, an edge once`() {
    var pics = initialized()
    pics.write(0x4D0, 0xFF)
    pics.write(0x4D1, 0xFF)
    #expect(pics.read(0x4D0) == 0xF8)
    #expect(pics.read(0x4D1) == 0xDE)
    pics.setLine(5, true)
    for _ in 0..<2 {
      #expect(pics.acknowledge() == 0x0D)
      #expect(!pics.hasInterrupt)
      pics.write(0x20, 0x20)
      #expect(pics.hasInterrupt)
    }
    pics.setLine(5, false)
    #expect(!pics.hasInterrupt)
    pics.setLine(1, true)
    #expect(pics.acknowledge() == 0x09)
    pics.write(0x20, 0x20)
    #expect(!pics.hasInterrupt)
  }

  @Test func `A level that is gone gives the spurious interrupt 7, and nothing in service`() {
    var pics = initialized()
    pics.write(0x4D0, 0x20)
    pics.setLine(5, true)
    pics.setLine(5, false)
    #expect(pics.acknowledge() == 0x0F)
    #expect(service(&pics) == 0)
    // The second's is its own 7; the first has its input 2 in service.
    pics.write(0x4D1, 0x04)
    pics.setLine(10, true)
    pics.setLine(10, false)
    #expect(pics.acknowledge() == 0x77)
    #expect(service(&pics) == 4)
    #expect(service(&pics, 0xA0) == 0)
  }
}
