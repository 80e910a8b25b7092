// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Testing

@testable import Sandbox

@Suite("The audit of a process", .timeLimit(.minutes(2)))
struct AuditTests {
  /// What the audit says of a process that runs with one profile and should with another.
  static func findings(_ actual: String, _ profile: SandboxProfile) throws -> [AuditFinding] {
    var run = try ProbeRun(.caller, filter: actual, "serve")
    defer { try? run.process.kill() }
    try run.read(until: "waiting")
    let pid = try #require(Int32(run.lines["pid"] ?? ""))
    // The probe has said that it is sealed; the second filter comes a moment later.
    let isServing = try eventually { try ProcessAudit(pid: pid).status.seccompFilters == 2 }
    #expect(isServing)
    let process = try ProcessAudit(pid: pid)
    let launcher = try ProcessAudit(pid: ThisProcess.id)
    return Comparison(
      profile: profile, process: process, launcher: launcher, isRoot: ThisProcess.user == 0
    ).findings()
  }

  static func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
    for _ in 0..<1000 {
      if try condition() { return true }
      HostClock.sleep(5_000_000)
    }
    return false
  }

  static func difference(_ findings: [AuditFinding], _ layer: String) -> String? {
    findings.first { $0.layer == layer }?.difference
  }

  @Test("finds nothing to say of a process that is as its profile says")
  func same() throws {
    let findings = try Self.findings("vga", .vga)
    // The probe holds other descriptors than a VGA.
    for finding in findings where finding.layer != "descriptors" {
      #expect(finding.difference == nil, "\(finding)")
    }
    #expect(findings.map(\.layer).count == 10)
  }

  @Test(
    "finds a filter that is wider by one call",
    .enabled(if: ThisProcess.user == 0, "only root may read a filter that is in force"))
  func widened() throws {
    let findings = try Self.findings("vga+socketpair", .vga)
    #expect(Self.difference(findings, "seccomp") == "the filter in force is not the profile's")
  }

  @Test("finds what is missing in a process without a sandbox")
  func unconfined() throws {
    let own = try ProcessAudit(pid: ThisProcess.id)
    let findings = Comparison(
      profile: .vga, process: own, launcher: own, isRoot: ThisProcess.user == 0
    ).findings()
    for layer in ["namespaces", "root", "no-new-privs", "limits"] {
      #expect(Self.difference(findings, layer) != nil, "\(layer)")
    }
  }

  @Test(
    "finds descriptors, memory and limits that no profile has",
    arguments: [
      ("descriptors", "/etc/shadow"), ("descriptors", "anon_inode:[eventfd]"),
      ("descriptors", "socket:[1]"), ("descriptors", "anon_inode:bpf-map"),
      ("descriptors", "/memfd:guest-ram (deleted)"), ("descriptors", "/dev/null"),
    ])
  func oneTooMany(layer: String, target: String) throws {
    var process = try ProcessAudit(pid: ThisProcess.id)
    var launcher = process
    // Other suites open files in this process.
    launcher.files = []
    process.files = [
      "/dev/null", "pipe:[7]", "pipe:[7]", "socket:[8]", "socket:[9]", "anon_inode:[eventfd]",
      "anon_inode:[eventfd]",
    ].enumerated().map { ProcessAudit.File(number: Int32($0.offset), target: $0.element) }
    func descriptors() -> String? {
      Self.difference(
        Comparison(profile: .vga, process: process, launcher: launcher, isRoot: false).findings(),
        layer)
    }
    #expect(descriptors() == nil)
    process.files.append(ProcessAudit.File(number: 20, target: target))
    #expect(descriptors() != nil)
  }

  @Test("finds guest memory and new code in a device")
  func memory() throws {
    var process = try ProcessAudit(pid: ThisProcess.id)
    let lines = [
      "7f0000000000-7f0000001000 rw-s 00000000 00:01 5 /memfd:guest-ram (deleted)",
      "7f0000000000-7f0000001000 rwxp 00000000 00:00 0",
      "7f0000000000-7f0000001000 r-xp 00000000 00:00 0",
    ]
    for line in lines {
      process.areas = [try #require(MemoryArea(line))]
      let findings = Comparison(
        profile: .vga, process: process, launcher: process, isRoot: false
      ).findings()
      #expect(Self.difference(findings, "memory") != nil, "\(line)")
    }
  }
}
