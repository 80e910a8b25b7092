// SPDX-License-Identifier: Apache-2.0

/// The port by which a guest says that it has panicked, as QEMU's `pvpanic` device has it.
///
/// QEMU's docs/specs/pvpanic: a read tells which events may be written.
enum PanicPort {
  static let base: UInt16 = 0x505
  /// The file of fw_cfg that says where the port is.
  static let file = "etc/pvpanic-port"
  private static let panicked: UInt8 = 1 << 0
  private static let crashLoaded: UInt8 = 1 << 1
  /// The events that there are.
  static let events = panicked | crashLoaded

  /// What a write says; bits that mean nothing are ignored.
  static func request(for byte: UInt8) -> PIIXBoard.Request? {
    if byte & panicked != 0 { return .panicked(isCrashLoaded: false) }
    return byte & crashLoaded != 0 ? .panicked(isCrashLoaded: true) : nil
  }
}
