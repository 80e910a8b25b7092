// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
internal import LinuxSystem
internal import Synchronization

/// Lines for the operator, on standard error; the launcher names machine and process.
public enum CoreLog {
  private static let output = Descriptor(owning: 2)
  private static let lost = Atomic<UInt64>(0)

  /// Writes one line; several lines in the text become one.
  ///
  /// When there is no room for it, it is lost, and the next one that is not says so.
  public static func line(_ text: String, _ level: LogLevel = .info) {
    let before = lost.exchange(0, ordering: .relaxed)
    if before > 0, !write("\(before) lines were lost", .warning) {
      lost.add(before, ordering: .relaxed)
    }
    if !write(text.replacing("\n", with: "; "), level) { lost.add(1, ordering: .relaxed) }
  }

  private static func write(_ text: String, _ level: LogLevel) -> Bool {
    (try? output.write(Array("\(level.prefix)\(text)\n".utf8))) != nil
  }
}
