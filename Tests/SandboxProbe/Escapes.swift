// SPDX-License-Identifier: Apache-2.0

internal import CSandboxProbe
internal import Glibc
internal import LinuxSystem
internal import Sandbox

/// Everything that an intruder would try, each in a process that is as confined as a real one.
///
/// The process enters its sandbox up to the filter. Then it makes a copy of itself for each
/// attempt, which loads the profile's filters and tries; a filter kills the copy alone.
struct Escapes {
  let channel: PacketSocket
  let profile: SandboxProfile
  let level: IsolationLevel

  init(_ channel: PacketSocket, _ profile: SandboxProfile, _ level: String) {
    self.channel = channel
    self.profile = profile
    self.level = IsolationLevel(rawValue: level) ?? .strict
  }

  /// The numbers of system calls up to one that no kernel of today has.
  private static let numbers = 0..<480

  func run(isSweep: Bool) throws {
    _ = probe_open_read_only()
    var processes = profile
    // The copies are this process's own affair; each takes the limit itself.
    processes.threads = .later
    let sandbox = try Sandbox.enclose(processes, level)
    _ = consume sandbox
    try channel.send(Array("enclosed".utf8))
    if isSweep {
      for number in Self.numbers { try tell("call:\(number)") { probe_any($0) }(number) }
      return
    }
    for index in 0..<probe_escape_count() {
      // SAFETY: the table's names are constants that end with NUL.
      let name = unsafe probe_escape_name(index).map { unsafe String(cString: $0) } ?? ""
      try tell("escape:\(name)") { probe_escape(UInt32($0)) }(Int(index))
    }
  }

  /// Makes a copy that tries, and says how it ended.
  private func tell(_ title: String, _ attempt: @escaping (Int) -> Void)
    -> (Int) throws(SystemError) -> Void
  {
    { number throws(SystemError) in
      let copy = probe_fork()
      if copy == 0 {
        do throws(SystemError) {
          try Resource.processes.limit(to: 0)
          for filter in try profile.makeFilters() { try filter.load(allThreads: true) }
          attempt(number)
        } catch {}
        ThisProcess.exit(254)
      }
      let code = probe_wait(copy)
      let outcome =
        switch code {
        case -31: "killed"
        case ..<0: "signal \(0 - code)"
        case Int32(PROBE_SUCCEEDED): "succeeded"
        case 254: "untried"
        default: "\(code)"
        }
      try channel.send(Array("\(title) \(outcome)".utf8))
    }
  }
}
