// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

/// Makes lines out of what a process that is not trusted writes to its log.
///
/// A line comes out whole, at most ``longest`` characters of it, with everything escaped that a
/// terminal would act on.
public struct LogLines: Sendable {
  /// The most bytes of one line that are shown.
  public static let longest = 1000

  private var rest: [UInt8] = []
  private var isCut = false

  public init() {}

  /// Takes bytes and returns the lines that they complete.
  public mutating func add(_ bytes: [UInt8]) -> [String] {
    var lines: [String] = []
    for byte in bytes {
      if byte == UInt8(ascii: "\n") {
        lines.append(take())
      } else if rest.count < Self.longest {
        rest.append(byte)
      } else {
        isCut = true
      }
    }
    return lines
  }

  /// Returns an unfinished last line, if there is one.
  public mutating func finish() -> String? { rest.isEmpty ? nil : take() }

  private mutating func take() -> String {
    defer {
      rest.removeAll(keepingCapacity: true)
      isCut = false
    }
    return VisibleText.escape(String(decoding: rest, as: UTF8.self)) + (isCut ? "…" : "")
  }
}
