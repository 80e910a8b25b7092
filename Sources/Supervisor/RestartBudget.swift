// SPDX-License-Identifier: Apache-2.0

/// How often a device's process may be started anew within a span of time.
public struct RestartBudget: Sendable {
  /// The most restarts within ``span``.
  public let most: Int
  /// The span in nanoseconds.
  public let span: UInt64

  private var times: [UInt64] = []

  public init(most: Int = 5, span: UInt64 = 10_000_000_000) {
    self.most = most
    self.span = span
  }

  /// Takes one restart at `now`; returns `false` when there were too many already.
  public mutating func take(at now: UInt64) -> Bool {
    times.removeAll { $0 &+ span <= now }
    guard times.count < most else { return false }
    times.append(now)
    return true
  }
}
