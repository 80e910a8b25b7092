// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

/// Lines for the operator, on standard error; the launcher names the process.
public enum Log {
  /// Writes one line; control characters in it, which may be another's, become spaces.
  public static func line(_ text: String) {
    var line = text.utf8.prefix(2000).map { $0 < 0x20 || $0 == 0x7F ? 0x20 : $0 }
    line.append(10)
    _ = try? StandardError.descriptor.write(line)
  }
}

private enum StandardError {
  static let descriptor = Descriptor(owning: 2)
}
