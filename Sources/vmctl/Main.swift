// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceProtocol
import LinuxSystem
import Monitor

typealias Control = Monitor.ControlRequest

@main
struct VMCtl: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vmctl",
    abstract: "Look at and steer a machine that vmlaunch runs.",
    discussion: """
      NAME is the machine's name, or the path of its control socket (with a slash in it). \
      Every command but top, trace and console ends within a bounded time; exit code 1 says \
      that it failed, 64 that the command line is wrong.
      """,
    version: "bulkhead 0.1.0",
    subcommands: [
      List.self, Status.self, Top.self, Trace.self, Console.self, Screendump.self, Stop.self,
      Kill.self, Reset.self, Pause.self, Resume.self, PowerDown.self, Eject.self, Change.self,
      Snapshot.self, Device.self, SendKey.self, TypeText.self, Isolation.self, SetLogLevel.self,
    ])

  /// Runs the work of a command; on an error writes one line and ends with exit code 1.
  static func attempt(_ work: () throws(ControlClient.Failure) -> Void) {
    do throws(ControlClient.Failure) {
      try work()
    } catch {
      try? Files.standardStream(2).writeAll(Array("vmctl: \(error)\n".utf8))
      ThisProcess.exit(1)
    }
  }
}

struct MachineName: ParsableArguments {
  @Argument(help: "The machine's name, or its control socket's path.")
  var name: String

  func connect() throws(ControlClient.Failure) -> ControlClient {
    try ControlClient(machine: name)
  }
}

struct Stop: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "End the machine in an orderly way.")
  @OptionGroup var machine: MachineName

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in try machine.connect().order(.stop) }
  }
}

struct PowerDown: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "powerdown", abstract: "Press the power button: ask the guest to shut down.")
  @OptionGroup var machine: MachineName

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in try machine.connect().order(.powerButton) }
  }
}

struct Reset: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Reset the machine.")
  @OptionGroup var machine: MachineName

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in try machine.connect().order(.reset) }
  }
}

struct Pause: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Hold the vCPUs and the clock.")
  @OptionGroup var machine: MachineName

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in try machine.connect().order(.pause) }
  }
}

struct Resume: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Let a paused machine go on.")
  @OptionGroup var machine: MachineName

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in try machine.connect().order(.resume) }
  }
}

struct Device: ParsableCommand {
  /// The devices that every machine has.
  static let roles = ["piix", "ide", "serial", "vga"]

  static let configuration = CommandConfiguration(
    abstract: "Steer one device's process.", subcommands: [Restart.self])

  struct Restart: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Start a device's process anew; the guest sees a short pause.")
    @OptionGroup var machine: MachineName
    @Argument(help: "piix, ide, serial or vga.")
    var role: String

    func run() {
      VMCtl.attempt { () throws(ControlClient.Failure) in
        guard Device.roles.contains(role) else {
          throw ControlClient.Failure(
            "there is no device \"\(VisibleText.escape(role))\"; accepted: piix, ide, serial, vga")
        }
        let _: Empty = try machine.connect().ask(.restartDevice, DeviceRequest(role: role))
      }
    }
  }
}
