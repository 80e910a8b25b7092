// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import LinuxSystem
internal import Sandbox

/// The process that the sandbox's tests lock up.
///
///     sandbox-probe launch LEVEL NAMESPACES FILTER SCENARIO
///     sandbox-probe inside LEVEL FILTER SCENARIO
///     sandbox-probe cost ROUNDS
///     sandbox-probe hoard
///
/// Under the name of a device it keeps a descriptor too many and becomes the real device.
///
/// As `launch` it starts itself as `inside`, and prints what came of that. FILTER is
/// `filtered`, or `allowed` where the system call filter lets the attempt's own call through,
/// which shows whether another layer stops it, or the name of a real profile to enter.
@main
enum Probe {
  static func main() {
    let words = CommandLine.arguments
    if words[0].hasPrefix("vmdev-") { Impostor.run(words[0]) }
    do {
      switch words.dropFirst().first {
      case "launch" where words.count == 6:
        try Launcher.run(level: words[2], namespaces: words[3], filter: words[4], words[5])
      case "inside" where words.count == 5:
        try Inside.run(level: words[2], filter: words[3], words[4])
      case "cost" where words.count == 3:
        try Cost.run(rounds: Int(words[2]) ?? 20)
      case "cost-inside" where words.count == 5:
        try Cost.inside(words[2], profile: words[3], isConfined: words[4] == "1")
      case "hoard":
        Hoard.run()
      case "descriptors":
        let numbers = try Descriptor.entries(of: "/proc/self/fd").compactMap { Int($0) }.sorted()
        // The last is the directory's own.
        try Descriptor(owning: 3).writeAll(
          Array(numbers.dropLast().map { "\($0)" }.joined(separator: " ").utf8))
      case "sleep":
        HostClock.sleep(60_000_000_000)
      default:
        ThisProcess.exit(64)
      }
    } catch {
      _ = try? Descriptor(owning: 2).write(Array("\(error)\n".utf8))
      ThisProcess.exit(error is SandboxError ? 3 : 1)
    }
    ThisProcess.exit(0)
  }
}

/// The side that holds the process.
enum Launcher {
  static func run(level: String, namespaces: String, filter: String, _ scenario: String) throws {
    let output = Descriptor(owning: 1)
    func say(_ line: String) throws { try output.writeAll(Array("\(line)\n".utf8)) }
    let (child, here) = try start(level, namespaces, filter, scenario)
    try say("pid \(child.pid)")

    let first = try here.receive(4096)
    if let report = IsolationReport(first.bytes) {
      try say("report \(first.bytes.map { String($0, radix: 16) }.joined(separator: ","))")
      try say("line \(report)")
    }
    if scenario == "serve" {
      try say("waiting")
      HostClock.sleep(60_000_000_000)
    }
    if scenario == "wait" {
      let audit = try ProcessAudit(pid: child.pid)
      try say("audit-empty \(audit.status.capabilities.isEmpty)")
      try say("audit-seccomp \(audit.status.seccompMode)")
      try say("audit-nonew \(audit.status.noNewPrivileges)")
      try say("audit-users \(audit.status.users)")
      try say("audit-files \(audit.files.map { "\($0.number)" }.joined(separator: " "))")
      try say("audit-code \(audit.hasWritableCode)")
      try say("audit-mounts \(audit.mounts.map { $0.target }.joined(separator: " "))")
      try say("audit-cores \(audit.limits["Max core file size"] ?? 1)")
      try say("audit-namespaces \(audit.namespaces.text)")
      try say("waiting")
      // Until the test ends this process.
      HostClock.sleep(60_000_000_000)
    }
    if scenario == "escapes" || scenario == "sweep" {
      while true {
        let message = try here.receive(4096)
        guard !message.bytes.isEmpty else { break }
        try say(String(decoding: message.bytes, as: UTF8.self))
      }
    } else if !first.bytes.isEmpty {
      let second = try here.receive(64)
      if !second.bytes.isEmpty {
        try say("result \(String(decoding: second.bytes, as: UTF8.self))")
      }
    }
    if let status = try child.wait(timeout: 10_000_000_000) {
      try say("status \(status)")
    } else {
      try say("status none")
      try child.kill()
    }
  }

  /// Starts the child; only it keeps the other end of the channel.
  private static func start(
    _ level: String, _ namespaces: String, _ filter: String, _ scenario: String
  ) throws(SystemError) -> (ChildProcess, PacketSocket) {
    let (here, there) = try PacketSocket.pair()
    let null = try Descriptor.open("/dev/null", O_RDWR)
    var kinds = Namespaces.all
    if namespaces == "none" { kinds = [] }
    if namespaces == "no-network" { kinds.remove(.network) }
    let arguments = ["sandbox-probe", "inside", level, filter, scenario]
    let descriptors: [(Descriptor, as: Int32)] = [
      (null, as: 0), (null, as: 1), (Descriptor(owning: dup(2)), as: 2), (there.descriptor, as: 3),
    ]
    if namespaces == "foreign-user" {
      // An identity that only a privileged caller may give.
      return (
        try Sandbox.start(
          executable: "/proc/self/exe", arguments: arguments, descriptors: descriptors,
          profile: .vga, level: IsolationLevel(rawValue: level) ?? .strict,
          identity: .host(user: 4242, group: 4242)), here
      )
    }
    let child = try Spawn.start(
      executable: "/proc/self/exe", arguments: arguments,
      environment: try Sandbox.environment(), descriptors: descriptors, namespaces: kinds,
      identity: .automatic(base: 100_000, number: 7))
    return (child, here)
  }
}

/// The side that is locked up.
enum Inside {
  static func run(level: String, filter: String, _ scenario: String) throws {
    let channel = PacketSocket(Descriptor(owning: 3))
    if scenario == "escapes" || scenario == "sweep" {
      return try Escapes(channel, profile(filter), level).run(isSweep: scenario == "sweep")
    }
    let attempt = Attempt.named(scenario)
    var rules = [
      SyscallRule("sendmsg", [.equals(argument: 0, 3)], "the report"),
      SyscallRule("recvmsg", [.equals(argument: 0, 3)], "waiting"),
      SyscallRule("clock_nanosleep", [], "waiting"),
      SyscallRule("exit", [], "the end of a thread"),
      SyscallRule("rt_sigprocmask", [], "the end of a thread"),
      SyscallRule("madvise", [], "the end of a thread, whose stack is given back"),
    ]
    if filter == "allowed", let attempt {
      rules += attempt.calls.map { SyscallRule($0, [], "tried") }
    }
    var profile = SandboxProfile("probe", rules)
    if let real = try? Self.profile(filter) { profile = real }
    if scenario == "late-thread" || scenario == "late-fork" { profile.threads = .later }
    if scenario == "early-thread" { try Thread.start("early") { HostClock.sleep(1 << 40) } }

    let hasThread = scenario == "other-thread" || scenario == "thread-memory"
    if hasThread { profile.rules.append(SyscallRule("write", [], "the gate")) }

    let sandbox = try Sandbox.enclose(profile, IsolationLevel(rawValue: level) ?? .strict)
    let gate = hasThread ? try EventFile.make() : nil
    if let gate {
      try gate.setNonBlocking(false)
      try Thread.start("other") {
        _ = try? gate.read(8)
        if scenario == "thread-memory" { return send("\(allocate())", channel) }
        send("\(Attempt.named("open-root")?.run() ?? 0)", channel)
      }
    }
    let report = try sandbox.seal()
    try channel.send(report.encoded())
    switch scenario {
    case "serve":
      try Sandbox.narrow(profile, .strict)
      _ = try channel.receive(1)
    case "wait":
      HostClock.sleep(60_000_000_000)
    case "other-thread", "thread-memory":
      if let gate { EventFile.signal(gate) }
      HostClock.sleep(scenario == "other-thread" ? 5_000_000_000 : 1_000_000_000)
    case "late-thread", "unexpected-thread":
      try Thread.start("late") { send("0", channel) }
      HostClock.sleep(300_000_000)
    case "late-fork":
      send("\(Attempt.named("fork")?.run() ?? 0)", channel)
    default:
      send("\(attempt?.run() ?? -9999)", channel)
    }
  }

  /// The real profile of this name; `NAME+CALL` is widened by a call.
  static func profile(_ name: String) throws(SystemError) -> SandboxProfile {
    let words = name.split(separator: "+")
    let isSoft = words[0] == "softCore"
    guard
      var profile = isSoft
        ? .softCore : SandboxProfile.all.first(where: { $0.name == words[0] })
    else { throw SystemError("no profile \(name)", 2) }
    if words.count > 1 { profile.rules.append(SyscallRule(String(words[1]), [], "too much")) }
    return profile
  }

  /// Takes memory from the heap, not from mmap, and gives it all back.
  private static func allocate() -> Int {
    let blocks = (0..<8).map { [UInt8](repeating: UInt8($0), count: 100_000) }
    return blocks.reduce(0) { $0 + Int($1[99_999]) }
  }

  static func send(_ text: String, _ channel: PacketSocket) {
    _ = try? channel.send(Array(text.utf8))
  }
}
