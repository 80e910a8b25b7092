// SPDX-License-Identifier: Apache-2.0

/// Why a machine does not run, with the exit code that says so.
public struct LaunchError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The launcher's exit code: 1 before anything was started, 2 after, 3 for isolation.
  public var code: Int32
  /// The reason in one line, with a remedy where there is one.
  public var message: String

  public init(_ message: String, code: Int32 = 1) {
    self.code = code
    self.message = message
  }

  public var description: String { message }
}
