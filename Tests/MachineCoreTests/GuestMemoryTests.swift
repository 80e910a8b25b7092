// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import MachineCore
import Testing

@Suite("Guest RAM")
struct GuestMemoryTests {
  @Test(
    "RAM below 3.5 GiB is in one piece; from there on 3 GiB lie low and the rest above 4 GiB",
    arguments: [
      (0x0010_0000, 0x0010_0000, 0), (0xDFFF_F000, 0xDFFF_F000, 0),
      (0xE000_0000, 0xC000_0000, 0x2000_0000), (0x2_0000_0000, 0xC000_0000, 0x1_4000_0000),
    ] as [(UInt64, UInt64, UInt64)])
  func layout(byteCount: UInt64, low: UInt64, high: UInt64) {
    let layout = RAMLayout(byteCount: byteCount)
    #expect(layout.low == low && layout.high == high)
  }

  @Test(
    "what is not all RAM has no place",
    arguments: [
      (0xC000_0000, 1), (0xBFFF_FFFF, 2), (0xFFFF_FFFF, 1), (0x1_2000_0000, 1),
      (0x1_1FFF_FFFC, 8), (0xA0000, 1), (0x9FFFF, 2), (0xBFFFF, 2), (0x9000, 0xC_0000),
      (UInt64.max, 1), (UInt64.max, UInt64.max), (0, UInt64.max), (0x1_0000_0000, UInt64.max),
    ] as [(UInt64, UInt64)])
  func refused(address: UInt64, count: UInt64) {
    #expect(RAMLayout(byteCount: 0xE000_0000).offset(of: address, count: count) == nil)
  }

  @Test(
    "RAM has its place in the file",
    arguments: [
      (0, 0xA0000, 0), (0xC0000, 0x1000, 0xC0000), (0xBFFF_FFFF, 1, 0xBFFF_FFFF),
      (0x1_0000_0000, 0x2000_0000, 0xC000_0000), (0x1_1FFF_FFFF, 1, 0xDFFF_FFFF),
    ] as [(UInt64, UInt64, UInt64)])
  func placed(address: UInt64, count: UInt64, offset: UInt64) {
    #expect(RAMLayout(byteCount: 0xE000_0000).offset(of: address, count: count) == offset)
  }

  @Test("bytes and integers written are read back, and a buffer is copied both ways")
  func copies() throws {
    let memory = try GuestMemory(byteCount: 1 << 20)
    let buffer = try Mapping(
      try MemoryFile.make("buffer", byteCount: 4096), byteCount: 4096, .readWrite)

    try memory.write([1, 2, 3, 4], at: 0x5000)
    try memory.store(UInt16(0xABCD), at: 0x5004)
    try memory.copy(fromGuest: 0x5000, count: 6, to: buffer, at: 100)
    try memory.copy(from: buffer, at: 102, count: 4, toGuest: 0xF_FFFC)
    try memory.fill(9, at: 0x5000, count: 1)

    #expect(buffer.bytes(at: 100, count: 6) == [1, 2, 3, 4, 0xCD, 0xAB])
    #expect(try memory.bytes(at: 0xF_FFFC, count: 4) == [3, 4, 0xCD, 0xAB])
    #expect(try memory.load(UInt32.self, at: 0x5000) == 0x0403_0209)
  }

  @Test("an access outside RAM is refused with its address and changes nothing")
  func outside() throws {
    let memory = try GuestMemory(byteCount: 1 << 20)
    #expect(throws: GuestMemoryError(address: 0xF_FFFE, byteCount: 4)) {
      try memory.write([1, 2, 3, 4], at: 0xF_FFFE)
    }
    #expect(throws: GuestMemoryError(address: 0xA0000, byteCount: 4)) {
      try memory.load(UInt32.self, at: 0xA0000)
    }
    #expect(try memory.bytes(at: 0xF_FFFE, count: 2) == [0, 0])
  }

  @Test("the file can neither grow nor shrink")
  func sealed() throws {
    let memory = try GuestMemory(byteCount: 1 << 20)
    #expect(MemoryFile.isSealed(memory.file))
    #expect(throws: SystemError.self) { try memory.file.truncate(to: 4096) }
  }
}
