// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Sandbox
import Testing

/// The system calls of a machine's processes, out of a log of strace.
struct CallTrace {
  /// For each process, the calls after its first filter and after its last.
  private(set) var calls: [String: (all: Set<String>, steady: Set<String>)] = [:]

  /// Reads a log with a thread's id at the start of each line.
  ///
  /// `threads` says which process a thread belongs to.
  init(_ log: String, threads: [Int32: String], filters: [String: Int]) {
    var stages: [String: Int] = [:]
    for line in log.split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 1)
      guard words.count == 2, let thread = Int32(words[0]), let role = threads[thread],
        let name = Self.name(words[1])
      else { continue }
      // The end of a load that is counted below.
      if name == "seccomp", line.contains("resumed") { continue }
      let stage = stages[role, default: 0]
      if stage > 0 { calls[role, default: ([], [])].all.insert(name) }
      if stage >= filters[role, default: 1] { calls[role, default: ([], [])].steady.insert(name) }
      // With a program: the library asks for flags without one, which loads nothing.
      if name == "seccomp", line.contains("SECCOMP_SET_MODE_FILTER"), line.contains("{len=") {
        stages[role] = stage + 1
      }
    }
  }

  /// The call that a line tells of: `name(...`, or `<... name resumed>`.
  private static func name(_ line: Substring) -> String? {
    let text = line.drop { $0 == " " }
    if text.hasPrefix("<... ") {
      return text.dropFirst(5).split(separator: " ").first.map(String.init)
    }
    guard let open = text.firstIndex(of: "(") else { return nil }
    let name = text[..<open]
    return name.allSatisfy { $0.isLetter || $0.isNumber || $0 == "_" } ? String(name) : nil
  }
}

extension SystemTests {
  @Suite(
    "What the profiles allow",
    .enabled(if: Requirements.isRoot, "only root may trace processes in their sandboxes"),
    .enabled(if: Tool.find("strace") != nil, "strace (package strace) is missing"))
  struct MinimalityTests {
    private static let profiles: [String: SandboxProfile] = [
      "vmcore": .core, "vmdev-piix": .piix, "vmdev-ide": .ide, "vmdev-serial": .serial,
      "vmdev-vga": .vga,
    ]

    /// Runs a machine under strace through everything that it does, and returns the log.
    private func trace(_ accelerator: String, in scratch: Scratch) throws -> CallTrace {
      _ = try scratch.assemble("disk", "ROUNDS=400", "PACE")
      let guest = DiskGuest(program: scratch.bytes("disk.bin"), rounds: 400)
      try scratch.write("before.raw", guest.expected)
      try Tool.run(
        "qemu-img", ["convert", "-O", "qcow2", scratch["before.raw"], scratch["disk"]],
        in: scratch)
      var file = MachineFile(accelerator: accelerator)
      file.drives = [("ide0.0", "disk", "qcow2")]
      file.serial = "stdio"
      // -D: the launcher is the process that the test starts, strace is beside it.
      let machine = try RunningMachine(
        file, in: scratch,
        prefix: [
          try #require(Tool.find("strace")), "-D", "-f", "-qqq", "-e", "signal=none", "-o",
          scratch["trace"],
        ])
      defer { machine.end() }
      try #require(machine.isUp(), "\(machine.errors)")
      func dots(_ count: Int) -> Bool {
        machine.waits(60) { machine.serialBytes.count { $0 == UInt8(ascii: ".") } >= count }
      }
      try #require(dots(8), "\(machine.errors)")
      _ = try machine.screen()
      for command in [["pause"], ["resume"], ["reset"]] {
        #expect(try machine.control(command).code == 0)
      }
      #expect(machine.hasSent("disk\n", times: 2), "\(machine.errors)")
      try machine.type("x")
      #expect(dots(12))
      #expect(try machine.control(["sendkey"], "a").code == 0)
      var threads: [Int32: String] = [:]
      for role in RunningMachine.roles {
        let pid = try machine.pid(role)
        for thread in try Descriptor.entries(of: "/proc/\(pid)/task") {
          threads[try #require(Int32(thread))] = role
        }
      }
      #expect(try machine.control(["stop"]).code == 0)
      #expect(machine.exitCode(60) == 0, "\(machine.errors)")
      let filters = Self.profiles.mapValues { $0.setup == nil ? 1 : 2 }
      // strace ends after the last of them.
      _ = eventually(5) { scratch.text("trace").contains("exit_group") }
      return CallTrace(scratch.text("trace"), threads: threads, filters: filters)
    }

    @Test(
      "is what a machine does, or has a reason that says why it is seldom",
      .timeLimit(.minutes(5)), arguments: Requirements.accelerators)
    func minimal(accelerator: String) throws {
      let scratch = try Scratch()
      let trace = try trace(accelerator, in: scratch)
      for role in RunningMachine.roles {
        var profile = try #require(Self.profiles[role])
        if role == "vmcore", accelerator == "soft" { profile = .softCore }
        let seen = try #require(trace.calls[role], "\(role)")
        let seldom = Set(profile.allRules.filter(\.isSeldom).map(\.call))
        let all = Set(profile.allRules.filter { $0.answer == .allow }.map(\.call))
        #expect(seen.steady.subtracting(profile.steadyCalls) == [], "\(role)")
        #expect(
          profile.steadyCalls.subtracting(seen.steady).subtracting(seldom) == [],
          "\(role) never makes these once it serves")
        #expect(
          all.subtracting(seen.all).subtracting(seldom) == [], "\(role) never makes these")
      }
    }
  }
}
