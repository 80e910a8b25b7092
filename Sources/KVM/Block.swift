// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

/// Where a structure of the kernel can be read from, field by field.
protocol ByteSource {
  func load<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, at offset: Int) -> T
}

extension Mapping: ByteSource {}

/// A structure for the kernel, as bytes; fields are little-endian at their offsets.
struct Block: ByteSource {
  var bytes: [UInt8]

  init(byteCount: Int) { bytes = [UInt8](repeating: 0, count: byteCount) }

  func load<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, at offset: Int) -> T {
    var value: T = 0
    for lane in 0..<(T.bitWidth / 8) {
      value |= T(truncatingIfNeeded: bytes[offset + lane]) << T(truncatingIfNeeded: 8 * lane)
    }
    return value
  }

  mutating func store<T: FixedWidthInteger>(_ value: T, at offset: Int) {
    for lane in 0..<(T.bitWidth / 8) {
      bytes[offset + lane] = UInt8(truncatingIfNeeded: value >> T(truncatingIfNeeded: 8 * lane))
    }
  }
}
