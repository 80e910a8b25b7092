// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Testing

@testable import Sandbox

@Suite("A process in its sandbox", .serialized, .timeLimit(.minutes(5)))
struct SandboxTests {
  static let attempts = [
    "open-passwd", "open-root", "create-file", "make-directory", "execute", "chroot", "mount",
    "unmount", "host-name", "socket", "connect", "unshare-user", "unshare-network", "set-user",
    "fork", "trace", "kill", "bpf", "io-uring", "userfaultfd", "map-code", "make-code",
    "call-32-bit", "call-x32", "write-elsewhere", "prctl-dumpable",
  ]

  @Test("is killed by the filter when it tries a call that its profile lacks", arguments: attempts)
  func filterKills(attempt: String) throws {
    for starter in Starter.available {
      let run = try ProbeRun.run(starter, attempt)
      #expect(run.report != nil, "it got as far as its report")
      #expect(run.result == nil)
      #expect(run.status == "ended by signal 31")
    }
  }

  @Test(
    "is stopped by another layer where the filter lets a call through",
    arguments: [
      ("open-passwd", [2]),  // ENOENT: there is no such file in its root
      ("open-root", [13]),  // EACCES: Landlock
      ("create-file", [13, 30]),  // EACCES or EROFS: Landlock, the read-only root
      ("make-directory", [13, 30]),
      ("execute", [2]),
      ("chroot", [1]),  // EPERM: no capability
      ("mount", [1]),
      ("unmount", [1]),
      ("host-name", [1]),
      ("unshare-network", [1]),
      ("connect", [13]),  // EACCES: Landlock
      ("set-user", [1, 22]),  // EINVAL: no other user exists in its namespace
      ("fork", [11]),  // EAGAIN: the limit of processes
      ("map-code", [13]),  // EACCES: memory-deny-write-execute
      ("make-code", [13]),
    ])
  func otherLayersHold(attempt: String, errors: [Int]) throws {
    for starter in Starter.available {
      let run = try ProbeRun.run(starter, filter: "allowed", attempt)
      #expect(errors.contains(0 - (run.result ?? 0)), "\(starter): \(run.lines)")
      #expect(run.status == "exited with code 0")
    }
  }

  @Test("reports every layer, read from the kernel", arguments: Starter.available)
  func reportsAllLayers(starter: Starter) throws {
    let run = try ProbeRun.run(starter, "nothing")
    let report = try #require(run.report)
    #expect(run.status == "exited with code 0")
    #expect(report.ownNamespaces == .all)
    #expect(report.capabilities.isEmpty)
    #expect(report.noNewPrivileges)
    #expect(!report.isDumpable)
    #expect(report.secureBits == 0xEF)
    #expect(report.refusesNewCode)
    #expect(report.seccompMode == 2)
    #expect(report.seccompFilters == 1)
    #expect(report.landlock > 0)
    #expect(report.rootEntries == 0)
    #expect(report.rootIsReadOnly)
    #expect(report.mounts == 1)
    #expect(report.limit(.coreSize) == 0)
    #expect(report.limit(.processes) == 0)
    #expect(report.limit(.lockedMemory) == 0)
    #expect(report.limit(.descriptors) < 64)
    #expect(report.missing.isEmpty)
  }

  @Test("looks the same from outside", arguments: Starter.available)
  func auditAgrees(starter: Starter) throws {
    var run = try ProbeRun(starter, "wait")
    defer { try? run.process.kill() }
    try run.read(until: "waiting")
    let ours = try NamespaceIdentities(process: Descriptor.open("/proc/self", 0))
    let theirs = try #require(NamespaceIdentities(run.lines["audit-namespaces"] ?? ""))
    for (mine, other) in zip(ours.numbers, theirs.numbers) { #expect(mine != other && other != 0) }
    #expect(theirs == run.report?.namespaces)
    #expect(run.lines["audit-empty"] == "true")
    #expect(run.lines["audit-seccomp"] == "2")
    #expect(run.lines["audit-nonew"] == "true")
    #expect(run.lines["audit-files"] == "0 1 2 3")
    #expect(run.lines["audit-code"] == "false")
    #expect(run.lines["audit-mounts"] == "/")
    #expect(run.lines["audit-cores"] == "0")
    if ThisProcess.user == 0 {
      let id = starter == .nobody ? "65534" : "100007"
      #expect(run.lines["audit-users"] == "[\(id), \(id), \(id), \(id)]")
    }
  }

  @Test("ends when the process that started it is killed", arguments: Starter.available)
  func diesWithParent(starter: Starter) throws {
    var run = try ProbeRun(starter, "wait")
    try run.read(until: "waiting")
    let pid = try #require(Int32(run.lines["pid"] ?? ""))
    #expect(Self.isRunning(pid))
    try run.process.kill()
    var tries = 0
    while Self.isRunning(pid) && tries < 500 {
      HostClock.sleep(10_000_000)
      tries += 1
    }
    #expect(!Self.isRunning(pid))
  }

  /// Whether a process exists and is not waiting to be reaped.
  static func isRunning(_ pid: Int32) -> Bool {
    guard let file = try? Descriptor.open("/proc/\(pid)/status", 0),
      let text = try? file.readToEnd()
    else { return false }
    return !String(decoding: text, as: UTF8.self).contains("State:\tZ")
  }

  @Test("binds threads that were started before the filter")
  func filterBindsThreads() throws {
    let run = try ProbeRun.run(.caller, "other-thread")
    #expect(run.report?.threads == 2)
    #expect(run.status == "ended by signal 31")
  }

  @Test("lets a thread give memory back, which must not open a file")
  func threadMemory() throws {
    let run = try ProbeRun.run(.caller, "thread-memory")
    #expect(run.result == 28)
    #expect(run.status != "ended by signal 31")
  }

  @Test("can start no thread later unless its profile says so")
  func lateThreads() throws {
    #expect(try ProbeRun.run(.caller, "unexpected-thread").status == "ended by signal 31")
    let allowed = try ProbeRun.run(.caller, "late-thread")
    #expect(allowed.result == 0)
    #expect(allowed.status == "exited with code 0")
    #expect(try ProbeRun.run(.caller, "late-fork").status == "ended by signal 31")
  }

  @Test("refuses to enter with threads, which the layers would not bind")
  func refusesThreads() throws {
    let run = try ProbeRun.run(.caller, "early-thread")
    #expect(run.status == "exited with code 3")
    #expect(run.report == nil)
  }

  @Test("is an error with a layer missing when strict", arguments: Starter.available)
  func strictFails(starter: Starter) throws {
    for namespaces in ["none", "no-network"] {
      let run = try ProbeRun.run(starter, namespaces: namespaces, "nothing")
      #expect(run.status == "exited with code 3")
      #expect(run.report == nil)
      #expect(run.lines["isolation:"]?.contains("shared with the launcher") == true)
    }
  }

  @Test("says what is missing when relaxed", arguments: Starter.available)
  func relaxedReports(starter: Starter) throws {
    let one = try ProbeRun.run(
      starter, level: "relaxed", namespaces: "no-network", "nothing")
    #expect(one.report?.missing.map(\.layer) == [.namespaces])
    #expect(one.report?.ownNamespaces == Namespaces.all.subtracting(.network))
    #expect(one.report?.hasEmptyRoot == true)
    let none = try ProbeRun.run(starter, level: "relaxed", namespaces: "none", "nothing")
    #expect(none.report?.ownNamespaces == [])
    #expect(none.report?.missing.map(\.layer).contains(.emptyRoot) == true)
    #expect(none.report?.hasEmptyRoot == false)
    #expect(none.report?.seccompMode == 2)
  }

  @Test("starts with fewer namespaces where they can't be had, and only when relaxed")
  func fallsBack() throws {
    let starter = ThisProcess.user == 0 ? Starter.nobody : .caller
    let strict = try ProbeRun.run(starter, namespaces: "foreign-user", "nothing")
    #expect(strict.report == nil)
    #expect(strict.lines["write"]?.contains("uid_map: Operation not permitted") == true)
    let relaxed = try ProbeRun.run(
      starter, level: "relaxed", namespaces: "foreign-user", "nothing")
    #expect(relaxed.report?.missing.map(\.layer).first == .namespaces)
    #expect(relaxed.report?.seccompMode == 2)
    #expect(relaxed.status == "exited with code 0")
  }

  @Test(
    "can be entered with the profile of each of a machine's processes",
    arguments: SandboxProfile.all.map(\.name))
  func realProfiles(name: String) throws {
    for starter in Starter.available {
      let run = try ProbeRun.run(starter, filter: name, "nothing")
      #expect(run.report?.profile == name)
      #expect(run.status == "exited with code 0")
      for attempt in ["open-root", "execute", "socket", "map-code", "fork"] {
        let bad = try ProbeRun.run(starter, filter: name, attempt)
        #expect(bad.status == "ended by signal 31")
      }
    }
  }
}
