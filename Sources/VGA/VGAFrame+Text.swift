// SPDX-License-Identifier: Apache-2.0

extension VGAFrame {
  /// The characters on the screen in a text mode, a line each, or none in a graphics mode.
  ///
  /// Code page 437 becomes Unicode; 0 and FFh become spaces. Lines keep their full width.
  public func textLines<V: VideoMemory & ~Copyable>(memory: borrowing V) -> [String] {
    guard layout == .text else { return [] }
    let rows = height / max(linesPerRow * text.characterHeight, 1)
    var lines: [String] = []
    var cells = [UInt8](repeating: 0, count: text.columns * 4)
    for row in 0..<rows {
      memory.copy(from: start + row * stride, into: &cells)
      var line = ""
      for cell in 0..<text.columns {
        line.unicodeScalars.append(CodePage437.scalar(cells[4 * cell]))
      }
      lines.append(line)
    }
    return lines
  }
}

/// The character set of the PC's ROM font.
enum CodePage437 {
  /// Returns the Unicode scalar that looks like character `code`.
  static func scalar(_ code: UInt8) -> Unicode.Scalar {
    switch code {
    case 0x20...0x7E: Unicode.Scalar(code)
    case 0x7F: "\u{2302}"
    case 0x80...0xFF: upper[Int(code) - 0x80]
    default: controls[Int(code)]
    }
  }

  private static let controls = Array(" ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼".unicodeScalars)
  private static let upper = Array(
    ("ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀"
      + "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ").unicodeScalars)
}
