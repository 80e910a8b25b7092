// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

// The planes lie interleaved: plane p of address a is byte 4 × a + p of video memory, and
// a chain-4 address is a byte of it.
extension VGAController {
  /// Reads `width` bytes at `offset` from A0000h.
  @inlinable
  public mutating func readWindow<V: VideoMemory & ~Copyable>(
    at offset: Int, width: AccessWidth, memory: borrowing V
  ) -> UInt64 {
    var value: UInt64 = 0
    for lane in 0..<width.byteCount {
      let byte = readWindowByte(offset &+ lane, memory)
      value |= UInt64(byte) << UInt64(8 * lane)
    }
    return value
  }

  /// Writes `width` bytes at `offset` from A0000h.
  @inlinable
  public mutating func writeWindow<V: VideoMemory & ~Copyable>(
    _ value: UInt64, at offset: Int, width: AccessWidth, memory: inout V
  ) {
    for lane in 0..<width.byteCount {
      let byte = UInt8(truncatingIfNeeded: value >> UInt64(8 * lane))
      writeWindowByte(byte, at: offset &+ lane, &memory)
    }
  }

  /// Maps a place in the window to a CPU address of the display memory (GR6, bits 2 and 3).
  @inlinable
  func windowAddress(_ offset: Int) -> Int? {
    guard miscellaneous & 0x02 != 0, (0..<0x20000).contains(offset) else { return nil }
    switch graphics[6] >> 2 & 3 {
    case 0: return offset
    case 1: return offset < 0x10000 ? offset + Int(bankOffset) : nil
    case 2: return (0x10000..<0x18000).contains(offset) ? offset - 0x10000 : nil
    default: return offset >= 0x18000 ? offset - 0x18000 : nil
    }
  }

  @inlinable
  mutating func readWindowByte<V: VideoMemory & ~Copyable>(
    _ offset: Int, _ memory: borrowing V
  ) -> UInt8 {
    guard let address = windowAddress(offset) else { return 0xFF }
    if sequencer[4] & 0x08 != 0 {
      latches = memory.loadLong(address & ~3)
      return memory.load(address)
    }
    var plane = UInt32(graphics[4] & 3)
    if graphics[5] & 0x10 != 0 {
      // Odd/even: the lowest address bit chooses the plane.
      plane = plane & 2 | UInt32(address & 1)
      latches = memory.loadLong((address & ~1) << 1)
    } else {
      latches = memory.loadLong(address << 2)
    }
    guard graphics[5] & 0x08 != 0 else {
      return UInt8(truncatingIfNeeded: latches >> (8 * plane))
    }
    // Read mode 1: a one where all planes that matter have the colour.
    let difference = (latches ^ Self.spread(graphics[2])) & Self.spread(graphics[7])
    let halves = difference | difference >> 16
    return ~UInt8(truncatingIfNeeded: halves | halves >> 8)
  }

  @inlinable
  mutating func writeWindowByte<V: VideoMemory & ~Copyable>(
    _ byte: UInt8, at offset: Int, _ memory: inout V
  ) {
    guard let address = windowAddress(offset) else { return }
    let planes = sequencer[2]
    if sequencer[4] & 0x08 != 0 {
      if planes >> UInt8(address & 3) & 1 != 0 { memory.store(byte, at: address) }
    } else if graphics[5] & 0x10 != 0 {
      let plane = address & 1
      if planes >> UInt8(plane) & 1 != 0 {
        memory.store(byte, at: (address & ~1) << 1 | plane)
      }
    } else {
      let mask = Self.spread(planes)
      let old = memory.loadLong(address << 2)
      memory.storeLong(old & ~mask | planarValue(byte) & mask, at: address << 2)
    }
  }

  /// What a write of `byte` makes of the latches (GR5, bits 0 and 1).
  @inlinable
  func planarValue(_ byte: UInt8) -> UInt32 {
    let rotation = graphics[3] & 7
    let rotated = byte >> rotation | byte << (8 - rotation)
    var bits = graphics[8]
    var value: UInt32
    switch graphics[5] & 3 {
    case 0:
      let set = Self.spread(graphics[1])
      value = UInt32(rotated) &* 0x0101_0101 & ~set | Self.spread(graphics[0]) & set
    case 1: return latches
    case 2: value = Self.spread(byte & 0x0F)
    default:
      bits &= rotated
      value = Self.spread(graphics[0])
    }
    switch graphics[3] >> 3 & 3 {
    case 1: value &= latches
    case 2: value |= latches
    case 3: value ^= latches
    default: break
    }
    let mask = UInt32(bits) &* 0x0101_0101
    return value & mask | latches & ~mask
  }

  /// Makes each of the low four bits a whole byte.
  @inlinable
  static func spread(_ planes: UInt8) -> UInt32 {
    let bits = UInt32(planes & 0x0F)
    return ((bits | bits << 7 | bits << 14 | bits << 21) & 0x0101_0101) &* 0xFF
  }
}
