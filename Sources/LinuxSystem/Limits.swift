// SPDX-License-Identifier: Apache-2.0

internal import CLinux

/// A resource that the kernel limits per process (getrlimit(2)).
public enum Resource: Int32, CaseIterable, Sendable {
  case fileSize = 1
  case coreSize = 4
  case processes = 6
  case descriptors = 7
  case lockedMemory = 8
  case addressSpace = 9

  /// No limit.
  public static let unlimited = UInt64.max

  /// Sets the limit for good: soft and hard.
  public func limit(to value: UInt64) throws(SystemError) {
    _ = try SystemError.check("setrlimit \(self)", bh_set_limit(rawValue, value))
  }

  /// The limit that can't be raised again without privilege.
  public func hardLimit() throws(SystemError) -> UInt64 {
    var soft: UInt64 = 0
    var hard: UInt64 = 0
    // SAFETY: the call fills the two values.
    _ = try SystemError.check("getrlimit \(self)", unsafe bh_get_limit(rawValue, &soft, &hard))
    return hard
  }
}
