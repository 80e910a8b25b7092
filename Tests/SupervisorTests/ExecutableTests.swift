// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// Whether only root and a group may use /dev/kvm.
private let isKVMPrivate =
  ((try? FileManager.default.attributesOfItem(atPath: "/dev/kvm")[.posixPermissions]) as? Int)
  .map { $0 & 0o006 == 0 } ?? false

@Suite("The executables")
struct ExecutableTests {
  @Test(
    "vmlaunch check prints the plan and changes nothing", .enabled(if: hasKVM && hasSeaBIOS),
    .timeLimit(.minutes(1)))
  func check() throws {
    let scratch = try Scratch()
    try scratch.write("disk.img", [UInt8](repeating: 0, count: 512))
    let file = try scratch.write(
      "machine.toml",
      """
      name = "check"
      [monitor]
      control = "unix:c.sock"
      [[drive]]
      slot = "ide0.0"
      image = "disk.img"
      format = "raw"
      [[serial]]
      backend = "file:com1.log"
      """)
    let run = try Running(Built.path("vmlaunch"), ["check", file], in: scratch)
    #expect(run.wait() == 0)
    #expect(run.standardError == "")
    #expect(run.standardOutput.hasPrefix("machine check\n"))
    #expect(run.standardOutput.contains("process vmdev-ide (sandbox profile ide)"))
    #expect(!FileManager.default.fileExists(atPath: "\(scratch.path)/c.sock"))
    #expect(!FileManager.default.fileExists(atPath: "\(scratch.path)/com1.log"))
  }

  @Test(
    "a bad machine file is one line with its place, exit code 1, and nothing is started",
    .timeLimit(.minutes(1)), arguments: [["check"], []])
  func badFile(subcommand: [String]) throws {
    let scratch = try Scratch()
    let file = try scratch.write(
      "machine.toml", "name = \"bad\"\n[machine]\ncpus = 0\n[monitor]\ncontrol = \"unix:c.sock\"\n")
    let run = try Running(Built.path("vmlaunch"), subcommand + [file], in: scratch)
    #expect(run.wait() == 1)
    #expect(run.standardError.hasPrefix("\(file):3:8: machine.cpus: "))
    #expect(run.standardError.split(separator: "\n").count == 1)
    #expect(run.standardOutput == "")
    #expect(!FileManager.default.fileExists(atPath: "\(scratch.path)/c.sock"))
  }

  @Test("a machine file that is not there is one line, exit code 1", .timeLimit(.minutes(1)))
  func missingFile() throws {
    let scratch = try Scratch()
    let run = try Running(Built.path("vmlaunch"), ["/nowhere/m.toml"], in: scratch)
    #expect(run.wait() == 1)
    #expect(run.standardError == "/nowhere/m.toml: cannot be read: No such file or directory\n")
  }

  @Test(
    "a /dev/kvm without permission is refused with the place and what to do",
    .enabled(if: hasKVM && getuid() == 0 && isKVMPrivate), .timeLimit(.minutes(1)))
  func noPermission() throws {
    let scratch = try Scratch()
    let file = try scratch.write(
      "machine.toml", "name = \"nobody\"\n[machine]\naccelerator = \"kvm\"\n")
    try FileManager.default.copyItem(
      atPath: Built.path("vmlaunch"), toPath: "\(scratch.path)/vmlaunch")
    let run = try Running(
      "/usr/bin/setpriv",
      [
        "--reuid", "65534", "--regid", "65534", "--clear-groups", "\(scratch.path)/vmlaunch", file,
      ], in: scratch)
    #expect(run.wait() == 1)
    #expect(
      run.standardError.contains(
        "/dev/kvm cannot be used: open /dev/kvm: Permission denied; join the group kvm"))
  }

  @Test("executables that are missing are named", .timeLimit(.minutes(1)))
  func missingExecutables() throws {
    let scratch = try Scratch()
    try FileManager.default.copyItem(
      atPath: Built.path("vmlaunch"), toPath: "\(scratch.path)/vmlaunch")
    let file = try scratch.write("machine.toml", "name = \"lonely\"\n")
    let run = try Running("\(scratch.path)/vmlaunch", ["check", file], in: scratch)
    #expect(run.wait() == 1)
    if hasKVM && hasSeaBIOS { #expect(run.standardError.hasPrefix("vmcore is not installed: ")) }
  }

  @Test(
    "a wrong command line is explained, exit code 1", .timeLimit(.minutes(1)),
    arguments: [["--nonsense"], [], ["check", "a", "b"]])
  func usage(arguments: [String]) throws {
    let scratch = try Scratch()
    let run = try Running(Built.path("vmlaunch"), arguments, in: scratch)
    #expect(run.wait() == 1)
    #expect(run.standardError.lowercased().contains("usage: vmlaunch"))
    let help = try Running(Built.path("vmlaunch"), ["--help"], in: scratch)
    #expect(help.wait() == 0)
    #expect(help.standardOutput.contains("Exit codes: "))
    #expect(help.standardError == "")
  }

  @Test("vmctl says that a machine is not running", .timeLimit(.minutes(1)))
  func noMachine() throws {
    let scratch = try Scratch()
    let path = "\(scratch.path)/none.sock"
    let run = try Running(Built.path("vmctl"), ["status", path], in: scratch)
    #expect(run.wait() == 1)
    #expect(
      run.standardError
        == "vmctl: no machine \"\(path)\" is running (\(path)); vmctl list shows those that are\n")
  }

  @Test("vmctl refuses a key that does not exist before it connects", .timeLimit(.minutes(1)))
  func noKey() throws {
    let scratch = try Scratch()
    let run = try Running(
      Built.path("vmctl"), ["sendkey", "/nowhere/x", "ctrl-nokey"], in: scratch)
    #expect(run.wait() == 1)
    #expect(run.standardError.hasPrefix("vmctl: there is no key \"nokey\"; accepted: "))
  }

  @Test(
    "the parsers give completions, and what man pages are made of", .timeLimit(.minutes(1)),
    arguments: ["vmlaunch", "vmctl"])
  func manuals(program: String) throws {
    let scratch = try Scratch()
    let help = try Running(Built.path(program), ["--experimental-dump-help"], in: scratch)
    #expect(help.wait() == 0)
    for word in program == "vmctl" ? ["\"trace\"", "\"interval\""] : ["\"check\""] {
      #expect(help.standardOutput.contains(word), "\(word)")
    }
    let script = try Running(
      Built.path(program), ["--generate-completion-script", "bash"], in: scratch)
    #expect(script.wait() == 0)
    #expect(script.standardOutput.hasSuffix("-F _\(program) \(program)\n"))
  }
}
