// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

extension VGAController {
  /// Reads `width` bytes at an absolute I/O port; ports that do not decode read as ones.
  public mutating func read(at port: UInt16, width: AccessWidth, now: VMTime) -> UInt64 {
    if Self.isVBE(port) {
      let low = UInt64(readVBEPort(port))
      guard width.byteCount > 2 else { return low & width.mask }
      let high: UInt64 = port == 0x1CE ? UInt64(readVBE(Int(vbeIndex))) : 0xFFFF
      return (low | high << 16 | ~0xFFFF_FFFF) & width.mask
    }
    var value: UInt64 = 0
    for lane in 0..<width.rawValue {
      let byte = readByte(port &+ UInt16(lane), now: now, isRegion: false)
      value |= UInt64(byte) << (8 * UInt64(lane))
    }
    return value
  }

  /// Writes `width` bytes at an absolute I/O port.
  ///
  /// Returns the part of video memory that must be zeroed before the guest goes on, when the
  /// write switched a VBE mode on.
  public mutating func write(
    _ value: UInt64, at port: UInt16, width: AccessWidth, now: VMTime
  ) -> Range<Int>? {
    if Self.isVBE(port) {
      let low = UInt16(truncatingIfNeeded: value & width.mask)
      guard port == 0x1CE else { return writeVBE(low, at: Int(vbeIndex)) }
      vbeIndex = low
      guard width.byteCount > 2 else { return nil }
      return writeVBE(UInt16(truncatingIfNeeded: value >> 16), at: Int(vbeIndex))
    }
    for lane in 0..<width.rawValue {
      let byte = UInt8(truncatingIfNeeded: value >> (8 * UInt64(lane)))
      writeByte(byte, at: port &+ UInt16(lane), isRegion: false)
    }
    return nil
  }

  private static func isVBE(_ port: UInt16) -> Bool { (0x1CE...0x1D1).contains(port) }

  private func readVBEPort(_ port: UInt16) -> UInt16 {
    switch port {
    case 0x1CE: vbeIndex
    case 0x1CF, 0x1D0: readVBE(Int(vbeIndex))
    default: 0xFFFF
    }
  }

  /// Whether `port` decodes: of the CRT controller's two places one is dark.
  private func isDark(_ port: UInt16) -> Bool {
    switch port {
    case 0x3B0...0x3BF: isColor
    case 0x3D0...0x3DF: !isColor
    default: false
    }
  }

  mutating func readByte(_ port: UInt16, now: VMTime, isRegion: Bool) -> UInt8 {
    guard isRegion || !isDark(port) else { return 0xFF }
    switch port {
    case 0x3C0: return attributeExpectsData ? 0 : attributeIndex
    case 0x3C1: return attribute[Int(attributeIndex & 0x1F)]
    case 0x3C2: return 0x00  // no CRT interrupt, switch open
    case 0x3C3: return enable
    case 0x3C4: return sequencerIndex
    case 0x3C5: return sequencer[Int(sequencerIndex & 0x07)]
    case 0x3C6: return dacMask
    case 0x3C7: return dacState
    case 0x3C8: return dacWriteIndex
    case 0x3C9: return readDAC()
    case 0x3CA: return featureControl
    case 0x3CC: return miscellaneous
    case 0x3CE: return graphicsIndex
    case 0x3CF: return graphics[Int(graphicsIndex & 0x0F)]
    case 0x3B4, 0x3D4: return crtcIndex
    case 0x3B5, 0x3D5: return crtcIndex < 0x19 ? crtc[Int(crtcIndex)] : 0
    case 0x3BA, 0x3DA:
      attributeExpectsData = false
      return inputStatus(now: now)
    default: return 0xFF
    }
  }

  mutating func writeByte(_ byte: UInt8, at port: UInt16, isRegion: Bool) {
    guard isRegion || !isDark(port) else { return }
    switch port {
    case 0x3C0: writeAttribute(byte)
    case 0x3C2: miscellaneous = byte & 0xEF
    case 0x3C3: enable = byte & 0x01
    case 0x3C4: sequencerIndex = byte & 0x07
    case 0x3C5: writeSequencer(byte)
    case 0x3C6: dacMask = byte
    case 0x3C7:
      dacReadIndex = byte
      dacComponent = 0
      dacState = 3
    case 0x3C8:
      dacWriteIndex = byte
      dacComponent = 0
      dacState = 0
    case 0x3C9: writeDAC(byte)
    case 0x3CE: graphicsIndex = byte & 0x0F
    case 0x3CF: writeGraphics(byte)
    case 0x3B4, 0x3D4: crtcIndex = byte
    case 0x3B5, 0x3D5: writeCRTC(byte)
    case 0x3BA, 0x3DA: featureControl = byte & 0x10
    default: break
    }
  }

  // MARK: Register files

  private mutating func writeAttribute(_ byte: UInt8) {
    defer { attributeExpectsData.toggle() }
    guard attributeExpectsData else { return attributeIndex = byte & 0x3F }
    let index = Int(attributeIndex & 0x1F)
    switch index {
    case 0x00...0x0F: attribute[index] = byte & 0x3F
    case 0x10: attribute[index] = byte & 0xEF
    case 0x11: attribute[index] = byte
    case 0x12: attribute[index] = byte & 0x3F
    case 0x13, 0x14: attribute[index] = byte & 0x0F
    default: break
    }
  }

  private mutating func writeSequencer(_ byte: UInt8) {
    switch sequencerIndex {
    case 0: sequencer[0] = byte & 0x03
    case 1: sequencer[1] = byte & 0x3D
    case 2: sequencer[2] = byte & 0x0F
    case 3: sequencer[3] = byte & 0x3F
    case 4: sequencer[4] = byte & 0x0E
    default: break
    }
  }

  private mutating func writeGraphics(_ byte: UInt8) {
    let index = Int(graphicsIndex)
    switch index {
    case 0, 1, 2, 6, 7: graphics[index] = byte & 0x0F
    case 3: graphics[index] = byte & 0x1F
    case 4: graphics[index] = byte & 0x03
    case 5: graphics[index] = byte & 0x7B
    case 8: graphics[index] = byte
    default: break
    }
  }

  /// CR11 bit 7 protects CR0 to CR7, but for CR7 bit 4, a part of the line compare.
  private mutating func writeCRTC(_ byte: UInt8) {
    let index = Int(crtcIndex)
    guard index < 0x19 else { return }
    guard index <= 7, crtc[0x11] & 0x80 != 0 else { return crtc[index] = byte }
    if index == 7 { crtc[7] = crtc[7] & ~0x10 | byte & 0x10 }
  }

  private mutating func readDAC() -> UInt8 {
    let value = palette[3 * Int(dacReadIndex) + Int(dacComponent)]
    dacComponent += 1
    if dacComponent == 3 {
      dacComponent = 0
      dacReadIndex &+= 1
    }
    return value
  }

  /// A colour is stored when its third component arrives.
  private mutating func writeDAC(_ byte: UInt8) {
    let component = hasWideDAC ? byte : byte & 0x3F
    guard dacComponent == 2 else {
      dacPending[Int(dacComponent)] = component
      dacComponent += 1
      return
    }
    let entry = 3 * Int(dacWriteIndex)
    palette[entry] = dacPending[0]
    palette[entry + 1] = dacPending[1]
    palette[entry + 2] = component
    dacComponent = 0
    dacWriteIndex &+= 1
  }

  // MARK: Retrace

  /// Nanoseconds of one scan line at 31.469 kHz, the rate of all VGA modes.
  static let lineNanoseconds: UInt64 = 31_778

  /// Input status 1: display disabled (bit 0) and vertical retrace (bit 3), from the clock.
  private func inputStatus(now: VMTime) -> UInt8 {
    let overflow = UInt64(crtc[7])
    func vertical(_ low: UInt8, _ bit8: UInt64, _ bit9: UInt64) -> UInt64 {
      UInt64(low) | (overflow >> bit8 & 1) << 8 | (overflow >> bit9 & 1) << 9
    }
    var total = vertical(crtc[6], 0, 5) + 2
    var retrace = vertical(crtc[0x10], 2, 7)
    var end = vertical(crtc[0x12], 1, 6) + 1
    if end >= total || retrace < end || retrace + 2 > total {
      (total, end, retrace) = (449, 400, 412)  // registers not set up: those of mode 3
    }
    let retraceLines = max((UInt64(crtc[0x11] & 0x0F) &- retrace) & 0x0F, 2)
    let line = now.nanoseconds / Self.lineNanoseconds % total
    let characters = UInt64(crtc[0]) + 5
    let position = now.nanoseconds % Self.lineNanoseconds * characters / Self.lineNanoseconds
    let isBlank = line >= end || position > min(UInt64(crtc[1]), characters * 4 / 5)
    let isRetrace = line >= retrace && line < retrace + retraceLines
    return (isBlank ? 0x01 : 0) | (isRetrace ? 0x08 : 0)
  }
}
