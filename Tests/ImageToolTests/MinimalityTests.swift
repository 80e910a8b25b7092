// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Sandbox
import Testing

/// What vmimage's profile allows, against what its worker does.
@Suite(
  "vmimage's profile",
  .enabled(if: getuid() == 0, "only root may trace a process in its sandbox"),
  .enabled(
    if: FileManager.default.isExecutableFile(atPath: "/usr/bin/strace"),
    "strace (package strace) is missing"))
struct MinimalityTests {
  @Test("is what the tool's commands do, or has a reason that says why it is seldom")
  func minimal() throws {
    let scratch = try Scratch()
    try scratch.makeSource()
    let commands = [
      ["convert", "-O", "qcow2", "source.raw", "a.qcow2"],
      ["create", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "top.qcow2"],
      ["resize", "a.qcow2", "+1M"], ["snapshot", "create", "one", "a.qcow2"],
      ["map", "source.raw"],
      ["bench", "-c", "50", "-d", "4", "-w", "top.qcow2"], ["info", "top.qcow2"],
      ["check", "top.qcow2"], ["commit", "top.qcow2"],
    ]
    var seen: Set<String> = []
    for command in commands {
      let outcome = try scratch.run(
        "strace", ["-f", "-qqq", "-e", "signal=none", "-o", "trace", Scratch.tool] + command)
      #expect(outcome.code == 0, "\(command): \(outcome.errors)")
      seen.formUnion(try Self.calls(String(decoding: scratch.bytes("trace"), as: UTF8.self)))
    }

    let profile = SandboxProfile.imageTool
    let seldom = Set(profile.allRules.filter(\.isSeldom).map(\.call))
    #expect(seen.subtracting(profile.steadyCalls) == [])
    #expect(profile.steadyCalls.subtracting(seen).subtracting(seldom) == [])
  }

  /// The calls of the process that has loaded a filter, and of its threads, from then on.
  static func calls(_ log: String) -> Set<String> {
    var calls: Set<String> = []
    var front: Substring?
    var isSealed = false
    for line in log.split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: true)
      guard words.count == 2 else { continue }
      if front == nil { front = words[0] }
      let text = words[1].drop { $0 == " " }
      if isSealed, words[0] != front {
        let name =
          text.hasPrefix("<... ")
          ? text.dropFirst(5).prefix { $0 != " " } : text.prefix { $0 != "(" }
        if name.allSatisfy({ $0.isLetter || $0.isNumber || $0 == "_" }), name != "seccomp" {
          calls.insert(String(name))
        }
      }
      if text.hasPrefix("seccomp("), text.contains("SECCOMP_SET_MODE_FILTER"),
        text.contains("{len=")
      {
        isSealed = true
      }
    }
    return calls
  }
}
