// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Sandbox
import Testing

/// Who starts the probe.
enum Starter: String, CaseIterable, CustomTestStringConvertible {
  /// The user of the tests.
  case caller
  /// User and group 65534, without supplementary groups.
  case nobody

  /// Becoming somebody else takes root.
  static let available: [Starter] = ThisProcess.user == 0 ? [.caller, .nobody] : [.caller]

  var testDescription: String { rawValue }
}

/// A run of `sandbox-probe launch`.
struct ProbeRun {
  let process: ChildProcess
  private let output: Descriptor
  /// What it printed, by the first word of each line.
  private(set) var lines: [String: String] = [:]

  static func executable() throws -> String {
    let tests = try Descriptor.open("/proc/self", 0).link("exe")
    let folder = tests.split(separator: "/").dropLast().joined(separator: "/")
    return "/\(folder)/sandbox-probe"
  }

  /// Starts the probe.
  init(
    _ starter: Starter, level: String = "strict", namespaces: String = "all",
    filter: String = "filtered", _ scenario: String
  ) throws {
    let probe = try Self.executable()
    var words = ["sandbox-probe", "launch", level, namespaces, filter, scenario]
    var program = probe
    if starter == .nobody {
      program = "/usr/bin/setpriv"
      words[0] = probe
      words =
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] + words
    }
    (process, output) = try Self.start(program, words)
  }

  private static func start(_ program: String, _ words: [String]) throws -> (
    ChildProcess, Descriptor
  ) {
    let (here, there) = try PacketSocket.pair()
    let null = try Descriptor.open("/dev/null", 2)
    let child = try Spawn.start(
      executable: program, arguments: words, environment: ["SWIFT_BACKTRACE=enable=no"],
      descriptors: [(null, as: 0), (there.descriptor, as: 1), (there.descriptor, as: 2)],
      namespaces: [], identity: .own)
    return (child, here.descriptor)
  }

  /// Reads what it prints, to the end or to a line that starts with `last`.
  mutating func read(until last: String? = nil) throws {
    let end = HostClock.monotonic() + 30_000_000_000
    var poller = Poller()
    poller.add(output, .readable)
    while HostClock.monotonic() < end {
      guard try poller.wait(timeout: end - HostClock.monotonic()) > 0 else { continue }
      let message = try output.read(16384)
      if message.isEmpty { return }
      for line in String(decoding: message, as: UTF8.self).split(separator: "\n") {
        let words = line.split(separator: " ", maxSplits: 1)
        guard let name = words.first else { continue }
        lines[String(name)] = words.count > 1 ? String(words[1]) : ""
        if let last, name == last { return }
      }
    }
    try process.kill()
    throw SystemError("the probe did not end", 110)
  }

  /// Runs the probe to its end.
  static func run(
    _ starter: Starter, level: String = "strict", namespaces: String = "all",
    filter: String = "filtered", _ scenario: String
  ) throws -> ProbeRun {
    var run = try ProbeRun(
      starter, level: level, namespaces: namespaces, filter: filter, scenario)
    try run.read()
    if try run.process.wait(timeout: 20_000_000_000) == nil { try run.process.kill() }
    return run
  }

  /// How the locked-up process ended.
  var status: String? { lines["status"] }
  /// What its attempt returned; `nil` when it did not live to say.
  var result: Int? { lines["result"].flatMap { Int($0) } }
  /// Its report.
  var report: IsolationReport? {
    guard let text = lines["report"] else { return nil }
    return IsolationReport(text.split(separator: ",").compactMap { UInt8($0, radix: 16) })
  }
}
