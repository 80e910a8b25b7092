// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

extension VGAController {
  /// Reads a Bochs VBE register; ones that do not exist read as zero.
  func readVBE(_ index: Int) -> UInt16 {
    let isCapability = vbe[VBE.enable] & VBE.getCapabilities != 0
    return switch index {
    case VBE.width where isCapability: UInt16(VBE.maximumWidth)
    case VBE.height where isCapability: UInt16(VBE.maximumHeight)
    case VBE.bitsPerPixel where isCapability: UInt16(VBE.maximumBitsPerPixel)
    case VBE.memory64K: UInt16(truncatingIfNeeded: memoryByteCount >> 16)
    case 0..<VBE.memory64K: vbe[index]
    default: 0
    }
  }

  /// Writes a Bochs VBE register; returns what must be zeroed in video memory.
  mutating func writeVBE(_ value: UInt16, at index: Int) -> Range<Int>? {
    switch index {
    case VBE.id:
      if (VBE.oldestID...VBE.newestID).contains(value) { vbe[index] = value }
    case VBE.width, VBE.height, VBE.bitsPerPixel, VBE.virtualWidth, VBE.x, VBE.y:
      vbe[index] = value
      if isVBEEnabled {
        fixVBE()
        setUpForVBE()
      }
    case VBE.bank:
      let planes = vbe[VBE.bitsPerPixel] == 4 ? 4 : 1  // a planar address is four bytes
      let banks = max(memoryByteCount >> 16 / planes, 1)
      vbe[index] = UInt16(Int(value) % banks)
      bankOffset = UInt32(vbe[index]) << 16
    case VBE.enable: return enableVBE(value)
    default: break
    }
    return nil
  }

  private mutating func enableVBE(_ value: UInt16) -> Range<Int>? {
    let wasEnabled = isVBEEnabled
    vbe[VBE.enable] = value & 0x00E3
    guard value & VBE.enabled != 0 else {
      bankOffset = 0
      return nil
    }
    guard !wasEnabled else { return nil }
    vbe[VBE.virtualWidth] = 0
    vbe[VBE.x] = 0
    vbe[VBE.y] = 0
    fixVBE()
    setUpForVBE()
    guard value & VBE.keepMemory == 0 else { return nil }
    return 0..<min(vbeStride * Int(vbe[VBE.height]), memoryByteCount)
  }

  /// The bytes from one line to the next; a planar line counts its four planes.
  var vbeStride: Int { vbeByteCount(pixels: Int(vbe[VBE.virtualWidth])) }

  private func vbeByteCount(pixels: Int) -> Int {
    switch vbe[VBE.bitsPerPixel] {
    case 4: pixels / 2
    case 15: pixels * 2
    default: pixels * Int(vbe[VBE.bitsPerPixel]) / 8
    }
  }

  /// Where the picture begins in video memory.
  var vbeStart: Int { vbeByteCount(pixels: Int(vbe[VBE.x])) + Int(vbe[VBE.y]) * vbeStride }

  /// Brings the registers to what can be shown out of this video memory.
  private mutating func fixVBE() {
    switch vbe[VBE.bitsPerPixel] {
    case 4, 8, 15, 16, 24, 32: break
    default: vbe[VBE.bitsPerPixel] = 8
    }
    let width = max(min(Int(vbe[VBE.width]), VBE.maximumWidth) & ~7, 8)
    let virtualWidth = max(min(Int(vbe[VBE.virtualWidth]), VBE.maximumWidth) & ~7, width)
    vbe[VBE.width] = UInt16(width)
    vbe[VBE.virtualWidth] = UInt16(virtualWidth)
    // The smallest memory holds at least four of the longest lines.
    let lines = min(memoryByteCount / vbeStride, Int(UInt16.max))
    let height = max(min(Int(vbe[VBE.height]), VBE.maximumHeight, lines), 1)
    vbe[VBE.height] = UInt16(height)
    vbe[VBE.virtualHeight] = UInt16(lines)
    if vbeStart + height * vbeStride > memoryByteCount { vbe[VBE.y] = 0 }
    if vbeStart + height * vbeStride > memoryByteCount { vbe[VBE.x] = 0 }
  }

  /// Sets the VGA registers as they must be for the window and for guests that look.
  private mutating func setUpForVBE() {
    let lastLine = UInt16(vbe[VBE.height] &- 1)
    let isPlanar = vbe[VBE.bitsPerPixel] == 4
    graphics[6] = graphics[6] & ~0x0C | 0x05  // graphics, A0000h, 64 KiB
    graphics[5] = graphics[5] & ~0x60 | (isPlanar ? 0x00 : 0x40)
    sequencer[2] |= 0x0F
    sequencer[4] = isPlanar ? sequencer[4] & ~0x08 | 0x06 : sequencer[4] | 0x0E
    crtc[0x17] |= 0x03
    crtc[0x13] = UInt8(truncatingIfNeeded: vbeStride >> 3)
    crtc[0x01] = UInt8(truncatingIfNeeded: vbe[VBE.width] >> 3 &- 1)
    crtc[0x12] = UInt8(truncatingIfNeeded: lastLine)
    let overflow = UInt8(truncatingIfNeeded: (lastLine >> 7 & 0x02) | (lastLine >> 3 & 0x40))
    crtc[0x07] = crtc[0x07] & ~0x42 | overflow | 0x10
    crtc[0x18] = 0xFF
    crtc[0x09] = crtc[0x09] & ~0x9F | 0x40
  }

  // MARK: The register region (BAR 2)

  /// Reads the register region: EDID, VGA ports, VBE registers and byte order.
  public mutating func readRegion(at offset: UInt16, width: AccessWidth, now: VMTime) -> UInt64 {
    var value: UInt64 = 0
    for lane in 0..<width.rawValue {
      let byte = readRegionByte(offset &+ UInt16(lane), now: now)
      value |= UInt64(byte) << (8 * UInt64(lane))
    }
    return value
  }

  private mutating func readRegionByte(_ offset: UInt16, now: VMTime) -> UInt8 {
    switch offset {
    case 0x000..<0x400: return EDID.byte(at: Int(offset))
    case 0x400..<0x420: return readByte(0x3C0 + (offset - 0x400), now: now, isRegion: true)
    case 0x500..<0x516:
      let register = readVBE(Int(offset - 0x500) / 2)
      return UInt8(truncatingIfNeeded: offset & 1 == 0 ? register : register >> 8)
    case 0x600: return 8  // the size of this block
    case 0x601..<0x604: return 0
    case 0x604..<0x608: return isBigEndian ? 0xBE : 0x1E
    default: return 0xFF
    }
  }

  /// Writes the register region; returns what must be zeroed in video memory.
  public mutating func writeRegion(
    _ value: UInt64, at offset: UInt16, width: AccessWidth, now: VMTime
  ) -> Range<Int>? {
    switch offset {
    case 0x400..<0x420:
      for lane in 0..<UInt16(width.rawValue) where offset + lane < 0x420 {
        let byte = UInt8(truncatingIfNeeded: value >> (8 * UInt64(lane)))
        writeByte(byte, at: 0x3C0 + (offset + lane - 0x400), isRegion: true)
      }
      return nil
    case 0x500..<0x516: return writeRegionVBE(value, at: offset - 0x500, width: width)
    case 0x604 where width == .long:
      if value & width.mask == 0x1E1E_1E1E { isBigEndian = false }
      if value & width.mask == 0xBEBE_BEBE { isBigEndian = true }
      return nil
    default: return nil
    }
  }

  /// Splits a write into the 16-bit registers; a byte is merged into its register.
  private mutating func writeRegionVBE(
    _ value: UInt64, at offset: UInt16, width: AccessWidth
  ) -> Range<Int>? {
    let index = Int(offset / 2)
    guard width != .byte else {
      let old = readVBE(index)
      let byte = UInt16(value & 0xFF)
      return writeVBE(offset & 1 == 0 ? old & 0xFF00 | byte : old & 0x00FF | byte << 8, at: index)
    }
    guard offset & 1 == 0 else { return nil }
    var cleared: Range<Int>?
    for lane in 0..<(width.byteCount / 2) {
      let word = UInt16(truncatingIfNeeded: value >> (16 * UInt64(lane)))
      if let range = writeVBE(word, at: index + lane) { cleared = range }
    }
    return cleared
  }
}
