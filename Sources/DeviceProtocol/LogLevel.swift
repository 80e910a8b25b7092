// SPDX-License-Identifier: Apache-2.0

/// How much a line of a machine's log matters; the numbers are syslog's (syslog(3)).
public enum LogLevel: UInt8, Sendable, CaseIterable, Comparable {
  /// Something does not work, and somebody has to see to it.
  case error = 3
  /// Something went wrong, and was dealt with.
  case warning = 4
  /// What an operator wants to know of any machine.
  case notice = 5
  /// What happens in the course of things.
  case info = 6
  /// What only somebody who looks for a fault wants to know.
  case debug = 7

  /// The names, from the fewest lines to the most, as the machine file and vmctl have them.
  public static let names = allCases.map { "\($0)" }

  /// The level of a name; `nil` when there is none.
  public init?(name: String) {
    guard let level = Self.allCases.first(where: { "\($0)" == name }) else { return nil }
    self = level
  }

  public static func < (one: LogLevel, other: LogLevel) -> Bool { one.rawValue < other.rawValue }

  /// What begins a line on its way to the launcher, or to the journal (sd-daemon(3)).
  public var prefix: String { "<\(rawValue)>" }

  /// Takes the level off a line; one without is the C library's or the runtime's: a warning.
  public static func split(_ line: [UInt8]) -> (level: LogLevel, text: ArraySlice<UInt8>) {
    guard line.count >= 3, line[0] == UInt8(ascii: "<"), line[2] == UInt8(ascii: ">"),
      let level = LogLevel(rawValue: line[1] &- UInt8(ascii: "0"))
    else { return (.warning, line[...]) }
    return (level, line[3...])
  }
}

/// ``LaunchRequest/logLevel``: which lines the launcher writes from now on.
public struct LogLevelMessage: Equatable, WireCodable, Sendable {
  public var level: LogLevel

  public init(level: LogLevel) { self.level = level }

  public func encode(to writer: inout WireWriter) { writer.put(level.rawValue) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    level = try reader.getCase("log level")
  }
}
