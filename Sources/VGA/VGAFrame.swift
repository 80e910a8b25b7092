// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// A description of the picture at one moment: size, layout and colours.
///
/// It is a copy of what matters of the registers. Lines are rendered one by one with
/// ``render(line:memory:into:)``, so that a caller can write the picture out piecewise.
/// Every size is bounded and every place in video memory that does not exist shows as FFh,
/// whatever the guest programmed.
public struct VGAFrame: Sendable {
  /// How video memory becomes pixels.
  public enum Layout: Equatable, Sendable {
    /// The screen is off: all black.
    case blank
    /// Characters of plane 0 with attributes of plane 1 and fonts of plane 2.
    case text
    /// Four planes of one bit.
    case planar
    /// Two bits per pixel, as the CGA had them.
    case interleaved
    /// One byte per pixel, each shown twice.
    case packed
    /// One pixel after the other: 8, 15, 16, 24 or 32 bits each.
    case linear(bitsPerPixel: Int)
  }

  /// The largest picture that is shown, in pixels; what lies outside is cut off.
  public static let maximumWidth = 16000
  /// The largest picture that is shown, in lines.
  public static let maximumHeight = 12000

  /// The width in pixels.
  public internal(set) var width = 0
  /// The height in lines.
  public internal(set) var height = 0
  /// How video memory becomes pixels.
  public internal(set) var layout = Layout.blank

  /// Colours as XRGB8888: of attribute values in the VGA modes, of bytes in the others.
  var colors = [256 of UInt32](repeating: 0)
  /// The byte of video memory where the picture starts.
  var start = 0
  /// The bytes from one row to the next.
  var stride = 0
  /// Whether pixels are shown twice (half dot clock).
  var isDoubleWidth = false
  /// How many lines show one row of memory.
  var linesPerRow = 1
  /// The first line that starts again at address zero; past the end without a split.
  var splitLine = Int.max
  /// How many dots the picture moves to the left.
  var panning = 0
  /// Whether lines after the split do not move.
  var isSplitFixed = false
  var colorPlanes: UInt32 = 0x0F
  var addressing: UInt8 = 3  // CR17
  var isBigEndian = false
  var text = TextMode()

  /// What a text mode has on top.
  struct TextMode: Sendable {
    var columns = 0
    var characterWidth = 8
    var characterHeight = 16
    var presetRow = 0
    var fonts = (0, 0)  // offsets into plane 2, for attribute bit 3 clear and set
    var hasBlink = false
    var isBlinkDark = false
    var extendsLineGraphics = false
    var isMonochrome = false
    var underline = 31
    var cursor = -1  // in cells from address zero; negative while invisible
    var cursorLines = 0...0
  }
}

extension VGAController {
  /// Describes the picture that the registers make at `now` (cursor and blink phase).
  public func frame(now: VMTime) -> VGAFrame {
    var frame = VGAFrame()
    if isVBEEnabled { describeVBE(&frame) } else { describeVGA(&frame, now: now) }
    frame.width = min(max(frame.width, 0), VGAFrame.maximumWidth)
    frame.height = min(max(frame.height, 0), VGAFrame.maximumHeight)
    return frame
  }

  /// The colour of a DAC entry as XRGB8888.
  private func dacColor(_ index: UInt8) -> UInt32 {
    let entry = 3 * Int(index & dacMask)
    var color: UInt32 = 0
    for component in 0..<3 {
      let value = UInt32(palette[entry + component])
      let wide = hasWideDAC ? value : (value & 0x3F) << 2 | (value & 0x3F) >> 4
      color = color << 8 | wide
    }
    return color
  }

  /// The DAC entry that the attribute controller makes of a four-bit colour (AR0 to AR14).
  private func attributeColor(_ index: Int) -> UInt32 {
    let entry = attribute[index & 0x0F]
    let select = attribute[0x14]
    return attribute[0x10] & 0x80 != 0
      ? dacColor((select & 0x0F) << 4 | entry & 0x0F)
      : dacColor((select & 0x0C) << 4 | entry & 0x3F)
  }

  private func describeVBE(_ frame: inout VGAFrame) {
    frame.width = Int(vbe[VBE.width])
    frame.height = Int(vbe[VBE.height])
    frame.start = vbeStart
    frame.stride = vbeStride
    frame.isBigEndian = isBigEndian
    guard vbe[VBE.bitsPerPixel] == 4 else {
      // More than 32 bits come from damaged state only, and would make rows of megabytes.
      let bits = min(Int(vbe[VBE.bitsPerPixel]), VBE.maximumBitsPerPixel)
      frame.layout = .linear(bitsPerPixel: bits)
      for index in 0..<256 { frame.colors[index] = dacColor(UInt8(index)) }
      return
    }
    frame.layout = .planar
    frame.panning = Int(vbe[VBE.x]) & 7
    frame.start &= ~3
    for index in 0..<16 { frame.colors[index] = attributeColor(index) }
  }

  private func describeVGA(_ frame: inout VGAFrame, now: VMTime) {
    let overflow = Int(crtc[7])
    let isText = graphics[6] & 0x01 == 0
    frame.width = (Int(crtc[1]) + 1) * (isText && sequencer[1] & 0x01 == 0 ? 9 : 8)
    frame.height = (Int(crtc[0x12]) | (overflow & 0x02) << 7 | (overflow & 0x40) << 3) + 1
    frame.isDoubleWidth = sequencer[1] & 0x08 != 0
    if frame.isDoubleWidth { frame.width *= 2 }
    frame.start = (Int(crtc[0x0C]) << 8 | Int(crtc[0x0D])) * 4
    frame.stride = Int(crtc[0x13]) * 8
    frame.splitLine =
      (Int(crtc[0x18]) | (overflow & 0x10) << 4 | (Int(crtc[9]) & 0x40) << 3) + 1
    frame.addressing = crtc[0x17]
    frame.colorPlanes = UInt32(attribute[0x12] & 0x0F)
    frame.isSplitFixed = attribute[0x10] & 0x20 != 0
    frame.panning = Int(attribute[0x13] & 0x0F)
    frame.start += Int(crtc[8] >> 5 & 3) * 4  // byte panning
    for index in 0..<16 { frame.colors[index] = attributeColor(index) }
    let doubling = crtc[9] & 0x80 != 0 ? 2 : 1
    guard attributeIndex & 0x20 != 0, sequencer[1] & 0x20 == 0 else { return }
    if isText {
      frame.layout = .text
      frame.linesPerRow = doubling
      describeText(&frame, now: now)
      return
    }
    // The CGA modes have the row scan counter in the address instead of repeated lines.
    let scans = frame.addressing & 3 == 3 ? Int(crtc[9] & 0x1F) + 1 : 1
    frame.linesPerRow = scans * doubling
    switch graphics[5] >> 5 & 3 {
    case 0: frame.layout = .planar
    case 1: frame.layout = .interleaved
    default:
      frame.layout = .packed
      frame.panning = frame.panning >> 1 & 3
      for index in 0..<256 { frame.colors[index] = dacColor(UInt8(index)) }
    }
    if frame.layout != .packed, frame.panning > 7 { frame.panning = 0 }
  }

  private func describeText(_ frame: inout VGAFrame, now: VMTime) {
    var text = VGAFrame.TextMode()
    text.columns = Int(crtc[1]) + 1
    text.characterWidth = sequencer[1] & 0x01 == 0 ? 9 : 8
    text.characterHeight = Int(crtc[9] & 0x1F) + 1
    text.presetRow = Int(crtc[8] & 0x1F)
    // Character map select: three bits each, the high one apart (SR3).
    let maps = Int(sequencer[3])
    text.fonts.0 = ((maps >> 4 & 1) | (maps << 1 & 6)) * 8192
    text.fonts.1 = ((maps >> 5 & 1) | (maps >> 1 & 6)) * 8192
    let control = attribute[0x10]
    text.hasBlink = control & 0x08 != 0
    text.extendsLineGraphics = control & 0x04 != 0
    text.isMonochrome = control & 0x02 != 0
    text.underline = Int(crtc[0x14] & 0x1F)
    // The cursor blinks every 8 frames and characters every 16, at 70 frames a second.
    let count = now.ticks(frequency: 70)
    text.isBlinkDark = count & 16 != 0
    let first = Int(crtc[0x0A] & 0x1F)
    let last = Int(crtc[0x0B] & 0x1F)
    if crtc[0x0A] & 0x20 == 0, first <= last, count & 8 == 0 {
      text.cursor = Int(crtc[0x0E]) << 8 | Int(crtc[0x0F])
      text.cursorLines = first...last
    }
    // In nine-dot modes 8 means no shift and 0 to 7 mean one to eight dots.
    if text.characterWidth == 9 {
      frame.panning = frame.panning >= 8 ? 0 : frame.panning + 1
    } else if frame.panning > 7 {
      frame.panning = 0
    }
    frame.text = text
  }
}
