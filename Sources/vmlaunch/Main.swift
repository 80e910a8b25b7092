// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import LinuxSystem
import MachineFile
import Supervisor

@main
struct VMLaunch: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vmlaunch",
    abstract: "Start a PC from a machine file, each of its devices in a process of its own.",
    usage: """
      vmlaunch MACHINE.toml
      vmlaunch check MACHINE.toml
      """,
    discussion: """
      The machine file says what the PC is made of; protocols/machine-file.md has every key, \
      and deploy/machines has examples. Relative paths in it are relative to its folder.

      vmlaunch stays in the foreground until the machine ends. With a serial port on stdio the \
      terminal is the guest's, ctrl-c included; ctrl-] ends the machine (ctrl-a x with the monitor on stdio). SIGINT, SIGTERM and \
      SIGHUP end the machine in order, a second one kills it. If vmlaunch itself is killed \
      (SIGKILL), its processes go with it, and its janitor, a process that waits for that, \
      gives the terminal its modes back and removes the control socket.

      vmctl talks to a running machine: its status, a picture of its screen, keys, reset, stop.

      Exit codes: 0 the guest powered off, or the machine was told to end; 1 the command \
      line, the machine file or the host is wrong and nothing was started; 2 the guest or a \
      process ended in an error, or had to be killed; 3 a layer of the isolation could not be had. A write to the debug exit port ends with \
      the guest's own code.
      """,
    version: "bulkhead 0.1.0",
    subcommands: [Run.self, Check.self],
    defaultSubcommand: Run.self)

  /// The janitor is this executable too; no subcommand, because nobody is to call it.
  static func main() {
    if Array(CommandLine.arguments.dropFirst()) == [Janitor.argument] { Janitor.work() }
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch {
      // The parser's own code for a wrong command line would be 64.
      guard !exitCode(for: error).isSuccess else { exit(withError: error) }
      fail(LaunchError(fullMessage(for: error)))
    }
  }

  /// Reads a machine file.
  static func parse(_ path: String) throws(LaunchError) -> ParsedMachine {
    let bytes: [UInt8]
    do throws(SystemError) {
      let file = try Files.open(path, [.readOnly, .noWait])
      bytes = try file.readToEnd(most: 1 << 20)
    } catch {
      throw LaunchError("\(path): cannot be read: \(SystemError.text(error.number))")
    }
    do throws(MachineFileError) {
      return try ParsedMachine.parse(bytes, fileName: path)
    } catch {
      throw LaunchError("\(error)")
    }
  }

  /// Writes one line to standard error and ends the process.
  static func fail(_ error: LaunchError) -> Never {
    try? Files.standardStream(2).writeAll(Array("\(error)\n".utf8))
    ThisProcess.exit(error.code)
  }
}

struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Start the machine and stay until it ends (the default).")

  @Argument(help: "The machine file.", completion: .file(extensions: ["toml"]))
  var file: String

  func run() {
    let janitor = Janitor()
    do throws(LaunchError) {
      let code = try runMachine(janitor)
      janitor.dismiss()
      ThisProcess.exit(code)
    } catch {
      janitor.dismiss()
      VMLaunch.fail(error)
    }
  }

  private func runMachine(_ janitor: Janitor) throws(LaunchError) -> Int32 {
    let parsed = try VMLaunch.parse(file)
    let signals = try Supervisor.catchSignals()
    let executables = try Executables()
    let resources = try HostResources(parsed, host: HostProbe(), janitor: janitor)
    let supervisor: Supervisor
    do throws(LaunchError) {
      supervisor = try Supervisor(
        parsed.machine, resources, executables, signals: signals, janitor: janitor)
    } catch {
      resources.removeSockets()
      throw error
    }
    return supervisor.run()
  }
}

struct Check: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Check a machine file against this host and print what would be started.",
    discussion: """
      Files are opened to see whether they can be and closed again; nothing is changed and \
      nothing is started.
      """)

  @Argument(help: "The machine file.", completion: .file(extensions: ["toml"]))
  var file: String

  func run() {
    do throws(LaunchError) {
      let parsed = try VMLaunch.parse(file)
      try parsed.check(HostProbe())
      try Executables().checkAll(of: parsed.machine)
      try ControlSocket.checkFree(parsed.machine)
      print(Plan(parsed.machine), terminator: "")
    } catch {
      VMLaunch.fail(error)
    }
  }
}
