// SPDX-License-Identifier: Apache-2.0

/// The width of one register access, in bytes.
public enum AccessWidth: UInt8, Sendable, CaseIterable {
  case byte = 1
  case word = 2
  case long = 4
  case quad = 8

  /// The bits that an access of this width carries.
  @inlinable
  public var mask: UInt64 {
    switch self {
    case .byte: 0xFF
    case .word: 0xFFFF
    case .long: 0xFFFF_FFFF
    case .quad: UInt64.max
    }
  }

  /// What a bus that nobody drives reads as: all ones.
  @inlinable
  public var floating: UInt64 { mask }

  /// The width in bytes.
  @inlinable
  public var byteCount: Int { Int(rawValue) }
}
