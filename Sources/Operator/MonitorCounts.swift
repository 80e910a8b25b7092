// SPDX-License-Identifier: Apache-2.0

/// What vmmonitor has counted of its own work since its process began.
public struct MonitorCounts: Equatable, Sendable {
  /// Events of the machine, by QMP's names.
  public var events: [String: UInt64] = [:]
  /// Events that a client was not sent, because it did not take what it had.
  public var lostEvents: UInt64 = 0
  /// Replies that were dropped with a client that did not take them.
  public var lostReplies: UInt64 = 0
  /// Clients that had to go for another.
  public var evictedClients: UInt64 = 0
  /// Clients that were not let in.
  public var refusedClients: UInt64 = 0

  public init() {}
}
