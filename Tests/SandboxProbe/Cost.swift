// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import LinuxSystem
internal import Sandbox

/// What the sandbox costs: `sandbox-probe cost ROUNDS` (Tests/Benchmarks/isolation).
enum Cost {
  private static let profiles: [SandboxProfile] = [.core, .piix, .ide, .serial, .vga]
  private static let reads = 200_000

  /// Prints the medians.
  static func run(rounds: Int) throws {
    var confined: [UInt64] = []
    var free: [UInt64] = []
    for _ in 0..<rounds {
      confined.append(try start(isConfined: true))
      free.append(try start(isConfined: false))
    }
    let output = Descriptor(owning: 1)
    func say(_ line: String) throws { try output.writeAll(Array("\(line)\n".utf8)) }
    func milliseconds(_ times: [UInt64]) -> String {
      let microseconds = times.sorted()[times.count / 2] / 1000
      return "\(microseconds / 1000).\(String(1000 + microseconds % 1000).dropFirst())"
    }
    try say("five processes, confined: \(milliseconds(confined)) ms")
    try say("five processes, free: \(milliseconds(free)) ms")
    for profile in profiles { try say("calls of \(profile.name): \(profile.steadyCalls.count)") }
    let ide = try start("read", isConfined: true, [.ide])[0]
    try say(String(decoding: try take(ide).bytes, as: UTF8.self))
    try ide.process.kill()
  }

  private typealias Started = (process: ChildProcess, channel: PacketSocket)

  private static func take(_ one: Started) throws -> PacketSocket.Message {
    let message = try one.channel.receive(200)
    guard !message.bytes.isEmpty else { throw SystemError("a process ended", ECHILD) }
    return message
  }

  /// Starts a machine's five processes side by side; until the last one is ready, in ns.
  private static func start(isConfined: Bool) throws -> UInt64 {
    let begin = HostClock.monotonic()
    let started = try start("ready", isConfined: isConfined, profiles[...])
    for one in started { _ = try take(one) }
    let time = HostClock.monotonic() - begin
    for one in started { try one.process.kill() }
    for one in started { _ = try one.process.wait() }
    return time
  }

  /// As the launcher does it: the way down releases each, the way back up waits for each.
  private static func start(
    _ task: String, isConfined: Bool, _ rest: ArraySlice<SandboxProfile>
  ) throws(SystemError) -> [Started] {
    guard let profile = rest.first else { return [] }
    let (here, there) = try PacketSocket.pair()
    let null = try Descriptor.open("/dev/null", O_RDWR)
    var prepared = try Spawn.prepare(
      executable: "/proc/self/exe",
      arguments: ["sandbox-probe", "cost-inside", task, profile.name, isConfined ? "1" : "0"],
      environment: try Sandbox.environment(),
      descriptors: [
        (null, as: 0), (null, as: 1), (Descriptor(owning: dup(2)), as: 2),
        (there.descriptor, as: 3),
      ], namespaces: isConfined ? .all : [],
      identity: isConfined ? .automatic(base: 100_000, number: UInt32(rest.startIndex)) : .own)
    try prepared.release()
    let others = try start(task, isConfined: isConfined, rest.dropFirst())
    return [(try prepared.confirm(), here)] + others
  }

  /// The other side: locks itself up and says so.
  static func inside(_ task: String, profile name: String, isConfined: Bool) throws {
    let channel = PacketSocket(Descriptor(owning: 3))
    let profile = try Inside.profile(name)
    let file = try Descriptor.open("/proc/self", O_RDONLY).open("exe", O_RDONLY)
    let before = task == "read" ? try readTime(file) : 0
    if isConfined {
      _ = try Sandbox.enter(profile, .strict)
      try Sandbox.narrow(profile, .strict)
    }
    if task == "read" {
      let after = try readTime(file)
      try channel.send(Array("pread64 of 512 bytes: \(before) ns free, \(after) ns filtered".utf8))
    } else {
      try channel.send([1])
    }
    _ = try channel.receive(1)
  }

  private static func readTime(_ file: Descriptor) throws(SystemError) -> UInt64 {
    let begin = HostClock.monotonic()
    for _ in 0..<reads { _ = try file.read(512, at: 4096) }
    return (HostClock.monotonic() - begin) / UInt64(reads)
  }
}
