// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem

/// A machine of fake processes: the launcher is real, the executables beside it are not.
struct FakeMachine {
  let scratch: Scratch
  let launcher: Running
  var socket: String { "\(scratch.path)/control.sock" }

  /// Starts the launcher, without a terminal or below a shell in the foreground of one.
  init(
    _ scenario: String, extra: String = "", files: [String: String] = [:],
    on terminal: TestTerminal? = nil
  ) throws {
    scratch = try Scratch()
    for (name, text) in files { try scratch.write(name, text) }
    try FileManager.default.copyItem(
      atPath: Built.path("vmlaunch"), toPath: "\(scratch.path)/vmlaunch")
    for name in ["vmcore", "vmdev-piix", "vmdev-ide", "vmdev-serial", "vmdev-vga", "vmmonitor"] {
      try FileManager.default.copyItem(
        atPath: Built.path("fake-child"), toPath: "\(scratch.path)/\(name)")
    }
    let file = try scratch.write(
      "machine.toml",
      """
      name = "\(scenario)"
      [monitor]
      control = "unix:control.sock"
      \(extra)
      """)
    launcher =
      if let terminal {
        // The shell stays, because a terminal is hung up when its session's leader ends.
        try Running(
          "/usr/bin/setsid",
          [
            "--ctty", "--wait", "/bin/sh", "-c",
            "trap : INT; '\(scratch.path)/vmlaunch' '\(file)'; read line",
          ], in: scratch, input: terminal.input)
      } else {
        try Running("\(scratch.path)/vmlaunch", [file], in: scratch)
      }
  }

  /// Starts the launcher once more.
  func startAgain() throws -> Running {
    try Running("\(scratch.path)/vmlaunch", ["\(scratch.path)/machine.toml"], in: scratch)
  }

  /// All processes of the machine, the launcher and its janitor among them.
  var ids: [Int32] { Array(processes(in: scratch.path).keys) }
  var janitorID: Int32? {
    processes(in: scratch.path).first { $0.value.last == "--janitor" }?.key
  }
  var launcherID: Int32? {
    processes(in: scratch.path).first { $0.value.last?.hasSuffix("machine.toml") == true }?.key
  }

  /// Waits until all five processes have reported.
  func isUp() -> Bool { launcher.waitFor("isolation: none, a fake", times: 5) }

  var isSocketThere: Bool { FileManager.default.fileExists(atPath: socket) }
}

/// A terminal of a test, with the settings of a shell's.
struct TestTerminal {
  private let pair: PseudoTerminal
  private let scratch: Scratch

  init() throws {
    pair = try PseudoTerminal()
    scratch = try Scratch()
    try set("sane")
  }

  /// What a program gets as its standard input.
  var input: FileHandle {
    FileHandle(fileDescriptor: pair.terminal.raw, closeOnDealloc: false)
  }

  /// Its settings, as stty writes them.
  var settings: String { (try? stty("-g").standardOutput) ?? "" }

  /// Changes its settings with stty.
  func set(_ words: String...) throws { _ = try stty(words) }

  /// Types a key.
  func type(_ key: UInt8) throws { try pair.controller.writeAll([key]) }

  private func stty(_ words: [String]) throws -> Running {
    let run = try Running("/usr/bin/stty", words, in: scratch, input: input)
    guard run.wait(seconds: 5) == 0 else { throw SystemError("stty \(words)", 0) }
    return run
  }

  private func stty(_ word: String) throws -> Running { try stty([word]) }
}
