// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceProtocol
import LinuxSystem
import Monitor

struct SetLogLevel: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "log-level",
    abstract: "Show which lines the machine logs, or change it.",
    discussion: """
      Lines that matter less than the level are not written: error, warning, notice, info, debug. \
      It holds until the machine ends; the machine file has log.level for its start.
      """)
  @OptionGroup var machine: MachineName
  @Argument(help: "error, warning, notice, info or debug.", completion: .list(LogLevel.names))
  var level: String?
  @Flag(help: "As a JSON object.")
  var json = false

  func validate() throws {
    guard let level, LogLevel(name: level) == nil else { return }
    throw ValidationError("accepted: " + LogLevel.names.joined(separator: ", "))
  }

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in
      let reply: LogLevelMessage = try machine.connect().ask(
        .logLevel, LogLevelRequest(level: level.flatMap { LogLevel(name: $0) }))
      print(json ? "{\"level\":\"\(reply.level)\"}" : "\(reply.level)")
    }
  }
}
