// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
internal import LinuxSystem
internal import Synchronization

/// Lines for the operator, on standard error; the launcher names machine and process.
public enum Log {
  /// Writes one line; control characters in it, which may be another's, become spaces.
  ///
  /// When there is no room for it, it is lost, and the next one that is not says so.
  public static func line(_ text: String, _ level: LogLevel = .info) {
    let before = lost.exchange(0, ordering: .relaxed)
    if before > 0, !write("\(before) lines were lost", .warning) {
      lost.add(before, ordering: .relaxed)
    }
    if !write(text, level) { lost.add(1, ordering: .relaxed) }
  }

  private static let lost = Atomic<UInt64>(0)

  private static func write(_ text: String, _ level: LogLevel) -> Bool {
    var line = Array(level.prefix.utf8)
    line += text.utf8.prefix(2000).map { $0 < 0x20 || $0 == 0x7F ? 0x20 : $0 }
    line.append(10)
    return (try? StandardError.descriptor.write(line)) != nil
  }
}

private enum StandardError {
  static let descriptor = Descriptor(owning: 2)
}
