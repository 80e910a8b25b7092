// SPDX-License-Identifier: Apache-2.0

/// A key, or a value of one, that the schema has and this version does not.
///
/// A feature that is finished deletes its rows from ``thisVersion``; nothing else changes.
struct Unsupported: Sendable {
  /// Which values of the key are meant.
  enum Match: Sendable {
    case any
    case equal(String)
    case prefix(String)
    case noneOf([String])

    /// Whether the key itself is meant, whatever its value.
    var isAny: Bool {
      guard case .any = self else { return false }
      return true
    }
  }

  /// The key in the schema's form, such as `serial[].backend`.
  var key: String
  var match: Match
  /// What this version accepts instead.
  var accepted: String

  static let thisVersion: [Unsupported] = [
    Unsupported(key: "machine.accelerator", match: .equal("none"), accepted: "auto, kvm, soft"),
    Unsupported(
      key: "machine.cpu-model", match: .noneOf(["host", "base", "v2"]),
      accepted: "host, base, v2"),
    Unsupported(key: "display.vnc", match: .any, accepted: "no display key"),
    Unsupported(key: "display.web", match: .any, accepted: "no display key"),
    Unsupported(key: "display.password-file", match: .any, accepted: "no display key"),
    Unsupported(
      key: "debug.console", match: .prefix("unix:"), accepted: "stdio, pty, file:PATH, null"),
    Unsupported(key: "device.*.socket", match: .any, accepted: "no socket key"),
    Unsupported(key: "device.*.dma", match: .equal("shared"), accepted: "mediated"),
  ]

  func matches(_ content: TOMLNode.Content) -> Bool {
    switch match {
    case .any: return true
    case .equal(let value):
      guard case .string(let text) = content else { return false }
      return text == value
    case .prefix(let value):
      guard case .string(let text) = content else { return false }
      return text.hasPrefix(value)
    case .noneOf(let values):
      guard case .string(let text) = content else { return false }
      return !values.contains(text)
    }
  }
}
