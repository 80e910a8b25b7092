// SPDX-License-Identifier: Apache-2.0

/// The monitor's EDID 1.3 block, 1024×768 preferred (VESA E-EDID A.2, section 3).
enum EDID {
  /// Returns a byte of the block; past its 128 bytes there are zeros.
  static func byte(at offset: Int) -> UInt8 { offset < 128 ? block[offset] : 0 }

  private static let block: [UInt8] = {
    var bytes: [UInt8] = [
      0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00,  // header
      0x08, 0xAC, 0x01, 0x00, 0x01, 0x00, 0x00, 0x00, 1, 36,  // "BEL", product 1, 2026
      1, 3,  // EDID 1.3
      0x80, 34, 26, 0x78, 0x0A,  // digital, 34 × 26 cm, gamma 2.2, RGB, preferred timing
      0xEE, 0x91, 0xA3, 0x54, 0x4C, 0x99, 0x26, 0x0F, 0x50, 0x54,  // sRGB
      0x21, 0x08, 0x00,  // established: 640×480, 800×600, 1024×768, all at 60 Hz
    ]
    for _ in 0..<8 { bytes += [0x01, 0x01] }  // no standard timings
    bytes += [
      0x64, 0x19, 0x00, 0x40, 0x41, 0x00, 0x26, 0x30, 0x18, 0x88, 0x36, 0x00,  // 65 MHz
      0x54, 0x04, 0x11, 0x00, 0x00, 0x18,
    ]
    bytes += [0x00, 0x00, 0x00, 0xFC, 0x00] + Array("Bulkhead VGA\n".utf8)
    for _ in 0..<2 { bytes += [0, 0, 0, 0x10, 0] + [UInt8](repeating: 0, count: 13) }
    bytes.append(0)  // no extensions
    let sum = bytes.reduce(0) { $0 &+ $1 }
    bytes.append(0 &- sum)
    return bytes
  }()
}
