// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
public import LinuxSystem
internal import Logging
internal import Synchronization

/// The log of one machine: a line for each event, on standard error.
///
/// A line begins with the machine's name and the process's. For the journal a number in front
/// says how much it matters (sd-daemon(3)).
public struct MachineLog: Sendable {
  private let sink: LogSink
  /// One for each process; made with its first line.
  private var loggers: [String: Logger] = [:]
  /// Lines that matter less are not written.
  public var level: LogLevel {
    didSet { for process in loggers.keys { loggers[process]?.logLevel = level.library } }
  }
  /// How many lines were not taken in time.
  public var lostLines: UInt64 { sink.lostLines.load(ordering: .relaxed) }

  /// Begins a log; `journal` is the value of the environment's JOURNAL_STREAM.
  public init(machine: String, level: LogLevel, output: Descriptor?, journal: String?) {
    sink = LogSink(machine: machine, output: output, journal: journal)
    self.level = level
  }

  /// Writes a line of a process's, with everything escaped already that a terminal would act on.
  public mutating func write(_ text: String, from process: String, _ level: LogLevel) {
    if loggers[process] == nil {
      let handler = LineHandler(sink: sink, process: process, logLevel: self.level.library)
      loggers[process] = Logger(label: process) { _ in handler }
    }
    loggers[process]?.log(level: level.library, "\(text)")
  }
}

/// Where the lines of all processes of a machine go.
private final class LogSink: Sendable {
  let machine: String
  let lostLines = Atomic<UInt64>(0)
  private let output: Descriptor?
  private let isForJournal: Bool

  init(machine: String, output: Descriptor?, journal: String?) {
    self.machine = machine
    self.output = output
    let identity = try? output?.identity()
    isForJournal =
      journal != nil && identity.map { "\($0.device):\($0.inode)" } == journal
  }

  /// Writes one line.
  ///
  /// What is not taken within a moment is dropped, and counted: nobody may be reading there, and
  /// the machine goes on all the same.
  func write(_ text: String, from process: String, _ level: LogLevel) {
    guard let output else { return }
    let line = "\(isForJournal ? level.prefix : "")\(machine) \(process): \(text)\n"
    var rest = Array(line.utf8)[...]
    var poller = Poller()
    poller.add(output, .writable)
    while !rest.isEmpty, let ready = try? poller.wait(timeout: 100_000_000), ready > 0 {
      // No more at once than a pipe that is writable takes.
      guard let count = try? output.write(Array(rest.prefix(4096))) else { break }
      rest = rest.dropFirst(count)
    }
    if !rest.isEmpty { lostLines.add(1, ordering: .relaxed) }
  }
}

/// Makes one line of what swift-log hands on of one process.
private struct LineHandler: LogHandler {
  let sink: LogSink
  let process: String
  var logLevel: Logger.Level
  var metadata: Logger.Metadata = [:]

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    sink.write("\(event.message)", from: process, LogLevel(event.level))
  }
}

extension LogLevel {
  /// The library's level.
  fileprivate var library: Logger.Level {
    switch self {
    case .error: .error
    case .warning: .warning
    case .notice: .notice
    case .info: .info
    case .debug: .debug
    }
  }

  /// The level of the library's; it has two more.
  fileprivate init(_ level: Logger.Level) {
    switch level {
    case .critical, .error: self = .error
    case .warning: self = .warning
    case .notice: self = .notice
    case .info: self = .info
    case .debug, .trace: self = .debug
    }
  }
}
