// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Testing

@testable import Sandbox

@Suite("The control groups of a machine", .serialized)
struct CgroupTests {
  @Test("are looked for below the launcher's own, in both versions")
  func candidates() {
    let groups = "5:devices:/\n4:memory:/a/b\n3:cpu,cpuacct:/a\n1:name=systemd:/x\n0::/user.slice/s"
    let mounts = """
      30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
      31 25 0:27 /a /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
      32 25 0:28 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
      33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
      """
    let found = MachineCgroups.candidates(groups: groups, mounts: mounts) { path in
      path == "/sys/fs/cgroup/unified/user.slice/s" ? ["io", "hugetlb"] : []
    }
    #expect(
      found == [
        .init(folder: "/sys/fs/cgroup/memory/a/b", isUnified: false, controllers: ["memory"]),
        .init(folder: "/sys/fs/cgroup/cpu", isUnified: false, controllers: ["cpu"]),
        .init(
          folder: "/sys/fs/cgroup/unified/user.slice/s", isUnified: true, controllers: ["io"]),
      ])
  }

  @Test("have the files of either version")
  func settings() {
    var limits = SandboxProfile.Limits()
    limits.memory = 1 << 20
    limits.tasks = 5
    limits.weight = 50
    #expect(
      MachineCgroups.settings(limits, isUnified: true).map { "\($0.0)=\($0.1)" } == [
        "memory.max=1048576", "memory.swap.max=0", "memory.oom.group=1", "pids.max=5",
        "cpu.weight=50", "io.weight=50",
      ])
    #expect(
      MachineCgroups.settings(limits, isUnified: false).map { "\($0.0)=\($0.1)" } == [
        "memory.limit_in_bytes=1048576", "pids.max=5", "cpu.shares=512", "blkio.weight=50",
      ])
  }

  /// Whether this user can have a group with a limit of memory here.
  static let isAvailable: Bool = {
    let groups = MachineCgroups()
    groups.remove()
    return groups.missing == nil
  }()

  @Test(
    "end a process that takes too much memory, and leave the others alone",
    .enabled(if: isAvailable, "no control group may be made here"), .timeLimit(.minutes(1)))
  func memory() throws {
    let groups = MachineCgroups()
    defer { groups.remove() }
    var limits = SandboxProfile.Limits()
    limits.memory = 64 << 20
    let greedy = try Self.start(groups, "greedy", limits)
    limits.memory = 1 << 30
    let modest = try Self.start(groups, "modest", limits)
    try greedy.channel.send([1])
    #expect(try greedy.process.wait(timeout: 30_000_000_000) == .signalled(9))
    #expect(try modest.process.status() == nil)
    try modest.channel.send([1])
    #expect(try modest.channel.receive(8).bytes == [1])
    try modest.process.kill()
    _ = try modest.process.wait(timeout: 5_000_000_000)
  }

  static func start(
    _ groups: MachineCgroups, _ role: String, _ limits: SandboxProfile.Limits
  ) throws -> (process: ChildProcess, channel: PacketSocket) {
    let (here, there) = try PacketSocket.pair()
    let null = try Descriptor.open("/dev/null", 2)
    var prepared = try Spawn.prepare(
      executable: try ProbeRun.executable(), arguments: ["sandbox-probe", "hoard"],
      environment: ["SWIFT_BACKTRACE=enable=no"],
      descriptors: [
        (null, as: 0), (null, as: 1), (null, as: 2), (there.descriptor, as: 3),
      ], namespaces: [], identity: .own)
    groups.add(prepared.id, as: role, limits)
    try prepared.release()
    return (try prepared.confirm(), here)
  }
}
