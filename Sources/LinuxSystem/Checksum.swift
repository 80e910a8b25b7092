// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// A checksum of 64 bits that finds what a disk or a bad copy has changed, and no forger.
public enum Checksum {
  /// The sum of some bytes, going on from `seed`.
  public static func of(_ bytes: [UInt8], seed: UInt64 = 0) -> UInt64 {
    // SAFETY: the array's bytes stay valid for the call.
    unsafe bytes.withUnsafeBytes { unsafe bh_checksum(seed, $0.baseAddress, $0.count) }
  }
}

extension Mapping {
  /// Whether bytes are all zero.
  public func isZero(at offset: Int, count: Int) -> Bool {
    check(offset, count)
    guard count > 0 else { return true }
    // SAFETY: the bounds were checked; both ranges lie within them.
    return unsafe load(UInt8.self, at: offset) == 0
      && memcmp(base + offset, base + offset + 1, count - 1) == 0
  }
}
