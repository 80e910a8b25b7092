// SPDX-License-Identifier: Apache-2.0

extension VGAFrame {
  /// Renders one line as XRGB8888 into the first ``width`` elements of `pixels`.
  ///
  /// A line outside of the picture renders black; what does not fit `pixels` is left out.
  public func render<V: VideoMemory & ~Copyable>(
    line: Int, memory: borrowing V, into pixels: inout [UInt32]
  ) {
    let count = min(width, pixels.count)
    guard (0..<height).contains(line), count > 0, layout != .blank else {
      for index in 0..<count { pixels[index] = 0 }
      return
    }
    let isSplit = line >= splitLine
    let shownLine = isSplit ? line - splitLine : line
    let shift = isSplit && isSplitFixed ? 0 : panning
    let row = shownLine / max(linesPerRow, 1)
    let base = isSplit ? 0 : start
    switch layout {
    case .blank: break
    case .text: renderText(row, base, shift, isSplit, memory, &pixels, count)
    case .linear(let bits): renderLinear(base + row * stride, bits, memory, &pixels, count)
    default: renderDots(rowAddress(row, base), shift, memory, &pixels, count)
    }
  }

  /// Renders one line as RGB, three bytes a pixel.
  public func renderRGB<V: VideoMemory & ~Copyable>(
    line: Int, memory: borrowing V, into row: inout [UInt8]
  ) {
    var pixels = [UInt32](repeating: 0, count: min(width, row.count / 3))
    render(line: line, memory: memory, into: &pixels)
    for (index, pixel) in pixels.enumerated() {
      row[3 * index] = UInt8(truncatingIfNeeded: pixel >> 16)
      row[3 * index + 1] = UInt8(truncatingIfNeeded: pixel >> 8)
      row[3 * index + 2] = UInt8(truncatingIfNeeded: pixel)
    }
  }

  /// Where a row of graphics begins.
  ///
  /// With CR17 bit 0 or 1 clear a bit of the row counter stands in for an address bit, as
  /// the CGA and the Hercules had it.
  private func rowAddress(_ row: Int, _ base: Int) -> Int {
    let substituted = Int(~addressing & 3)
    let rowsPerStep = substituted == 0 ? 1 : substituted == 3 ? 4 : 2
    var address = base + row / rowsPerStep * stride
    if addressing & 1 == 0 {
      let bit = 14 + Int(addressing >> 6 & 1)
      address = address & ~(1 << bit) | (row & 1) << bit
    }
    if addressing & 2 == 0 {
      let counter = substituted == 3 ? row >> 1 & 1 : row & 1
      address = address & ~0x8000 | counter << 15
    }
    return address
  }

  /// The VGA's graphics modes: each 32 bits of memory are eight dots, or four packed pixels.
  private func renderDots<V: VideoMemory & ~Copyable>(
    _ address: Int, _ shift: Int, _ memory: borrowing V, _ pixels: inout [UInt32], _ count: Int
  ) {
    let widening = (isDoubleWidth ? 2 : 1) * (layout == .packed ? 2 : 1)
    let perLong = layout == .packed ? 4 : 8
    let needed = (count + widening - 1) / widening + shift
    var bytes = [UInt8](repeating: 0, count: (needed + perLong - 1) / perLong * 4)
    memory.copy(from: address, into: &bytes)
    let spreadPlanes = VGAController.spread(UInt8(truncatingIfNeeded: colorPlanes))
    for index in 0..<count {
      let dot = index / widening + shift
      if layout == .packed {
        pixels[index] = colors[Int(bytes[dot])]
        continue
      }
      let at = dot / 8 * 4
      let long =
        (UInt32(bytes[at]) | UInt32(bytes[at + 1]) << 8 | UInt32(bytes[at + 2]) << 16
          | UInt32(bytes[at + 3]) << 24) & spreadPlanes
      pixels[index] =
        colors[
          layout == .planar ? Self.planarDot(long, dot & 7) : Self.interleavedDot(long, dot & 7)]
    }
  }

  /// One bit of each plane; the leftmost dot is bit 7.
  private static func planarDot(_ long: UInt32, _ dot: Int) -> Int {
    let bits = long >> UInt32(7 - dot)
    return Int(bits & 1 | bits >> 7 & 2 | bits >> 14 & 4 | bits >> 21 & 8)
  }

  /// Two bits of plane 0 or 1, with two of plane 2 or 3 above them.
  private static func interleavedDot(_ long: UInt32, _ dot: Int) -> Int {
    let pair = UInt32(dot < 4 ? 0 : 8) + UInt32(6 - 2 * (dot & 3))
    return Int(long >> pair & 3 | (long >> (pair + 16) & 3) << 2)
  }

  private func renderLinear<V: VideoMemory & ~Copyable>(
    _ address: Int, _ bitsPerPixel: Int, _ memory: borrowing V, _ pixels: inout [UInt32],
    _ count: Int
  ) {
    let size = (bitsPerPixel + 7) / 8
    var bytes = [UInt8](repeating: 0, count: count * size)
    memory.copy(from: address, into: &bytes)
    for index in 0..<count {
      var value: UInt32 = 0
      for lane in 0..<size {
        let place = isBigEndian ? size - 1 - lane : lane
        value |= UInt32(bytes[index * size + lane]) << UInt32(8 * place)
      }
      switch bitsPerPixel {
      case 15: pixels[index] = Self.color(value, green: 5)
      case 16: pixels[index] = Self.color(value, green: 6)
      case 24, 32: pixels[index] = value & 0xFF_FFFF
      default: pixels[index] = colors[Int(value & 0xFF)]
      }
    }
  }

  /// Widens a 5-5-5 or 5-6-5 colour; full intensity becomes FFh.
  private static func color(_ value: UInt32, green greenBits: UInt32) -> UInt32 {
    let red = value >> (5 + greenBits) & 0x1F
    let green = value >> 5 & (1 << greenBits - 1)
    let blue = value & 0x1F
    let wideGreen = green << (8 - greenBits) | green >> (2 * greenBits - 8)
    return (red << 3 | red >> 2) << 16 | wideGreen << 8 | blue << 3 | blue >> 2
  }

  private func renderText<V: VideoMemory & ~Copyable>(
    _ row: Int, _ base: Int, _ shift: Int, _ isSplit: Bool, _ memory: borrowing V,
    _ pixels: inout [UInt32], _ count: Int
  ) {
    let scan = row + (isSplit ? 0 : text.presetRow)
    let glyphLine = scan % text.characterHeight
    let address = base + scan / text.characterHeight * stride
    let widening = isDoubleWidth ? 2 : 1
    let dots = (count + widening - 1) / widening + shift
    var cells = [UInt8](
      repeating: 0, count: (dots + text.characterWidth - 1) / text.characterWidth * 4)
    memory.copy(from: address, into: &cells)
    var pixel = -shift * widening
    for cell in 0..<(cells.count / 4) {
      let character = cells[4 * cell]
      let look = cells[4 * cell + 1]
      let font = look & 0x08 != 0 ? text.fonts.1 : text.fonts.0
      var glyph = memory.load(4 * (font + 32 * Int(character) + glyphLine) + 2)
      if text.isMonochrome, look & 0x77 == 0x01, glyphLine == text.underline { glyph = 0xFF }
      let isCursor =
        address / 4 + cell == text.cursor && text.cursorLines.contains(glyphLine)
      let colors = cellColors(look, isCursor: isCursor)
      let isLine = text.extendsLineGraphics && (0xC0...0xDF).contains(character)
      for dot in 0..<text.characterWidth {
        let isSet = dot < 8 ? glyph >> UInt8(7 - dot) & 1 != 0 : isLine && glyph & 1 != 0
        for _ in 0..<widening {
          if pixel >= 0, pixel < count { pixels[pixel] = isSet ? colors.ink : colors.paper }
          pixel += 1
        }
      }
    }
  }

  /// The colours of a cell; a cursor is a block of ink.
  private func cellColors(_ look: UInt8, isCursor: Bool) -> (ink: UInt32, paper: UInt32) {
    let mask = Int(colorPlanes)
    let paper = colors[Int(look >> 4 & (text.hasBlink ? 7 : 15)) & mask]
    let ink = colors[Int(look & 0x0F) & mask]
    if isCursor { return (ink, ink) }
    let isDark = text.hasBlink && look & 0x80 != 0 && text.isBlinkDark
    return (isDark ? paper : ink, paper)
  }
}
