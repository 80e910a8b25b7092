// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
public import LinuxSystem

/// The log of one machine: a line for each event, on standard error.
///
/// A line begins with the machine's name and the process's. For the journal a number in front
/// says how much it matters (sd-daemon(3)).
public struct MachineLog: Sendable {
  private let machine: String
  private let output: Descriptor?
  private let isForJournal: Bool
  /// Lines that matter less are not written.
  public var level: LogLevel
  /// How many lines were not taken in time.
  public private(set) var lostLines: UInt64 = 0

  /// Begins a log; `journal` is the value of the environment's JOURNAL_STREAM.
  public init(machine: String, level: LogLevel, output: Descriptor?, journal: String?) {
    self.machine = machine
    self.level = level
    self.output = output
    let identity = try? output?.identity()
    isForJournal =
      journal != nil && identity.map { "\($0.device):\($0.inode)" } == journal
  }

  /// Writes a line of a process's, with everything escaped already that a terminal would act on.
  ///
  /// What is not taken within a moment is dropped, and counted: nobody may be reading there, and
  /// the machine goes on all the same.
  public mutating func write(_ text: String, from process: String, _ level: LogLevel) {
    guard level <= self.level, let output else { return }
    let line = "\(isForJournal ? level.prefix : "")\(machine) \(process): \(text)\n"
    var rest = Array(line.utf8)[...]
    var poller = Poller()
    poller.add(output, .writable)
    while !rest.isEmpty, let ready = try? poller.wait(timeout: 100_000_000), ready > 0 {
      // No more at once than a pipe that is writable takes.
      guard let count = try? output.write(Array(rest.prefix(4096))) else { break }
      rest = rest.dropFirst(count)
    }
    if !rest.isEmpty { lostLines &+= 1 }
  }
}
