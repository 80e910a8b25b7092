// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Sandbox
import Testing

extension SystemTests {
  @Suite("The isolation of a machine that runs")
  struct IsolationTests {
    /// What a process holds besides the null device, its log and its channels.
    struct Holdings {
      /// Descriptors, by kind and number of them.
      var files: [String: Int]
      /// Shared memory that is mapped.
      var memory: Set<String>
    }

    /// The names that descriptors have in the tables below.
    private func kind(_ target: String, _ scratch: Scratch) -> String {
      if target.hasPrefix(scratch.path) {
        return "file " + target.dropFirst(scratch.path.count + 1)
      }
      if target.hasPrefix("/memfd:") {
        return "memory " + target.dropFirst(7).prefix { $0 != " " }
      }
      return target.prefix { $0 != "[" && $0 != ":" } + suffix(target)
    }

    private func suffix(_ target: String) -> String {
      guard target.hasPrefix("anon_inode:") else { return "" }
      let name = target.dropFirst("anon_inode:".count)
      // vCPU descriptors have their number behind the name.
      return " " + name.prefix { $0 != ":" }
    }

    private func memory(_ audit: ProcessAudit) -> Set<String> {
      Set(
        audit.areas.compactMap { area in
          area.path.hasPrefix("/memfd:")
            ? String(area.path.dropFirst(7).prefix { $0 != " " }) : nil
        })
    }

    /// The exact holdings of a machine with one disk, one serial port and a debug console.
    private static let expected: [String: Holdings] = [
      "vmcore": Holdings(
        files: [
          "/dev/null": 1, "pipe": 2, "socket": 6, "/dev/kvm": 1,
          "memory state-piix": 1, "memory state-ide": 1, "memory state-serial": 1,
          "memory state-vga": 1, "memory guest-ram": 1, "memory clock": 1,
          "memory piix-lane": 1, "memory ide-lane": 1, "memory serial-lane": 1,
          "memory vga-lane": 1, "memory piix-bounce": 1, "memory ide-bounce": 1,
          "memory vga-memory": 2, "anon_inode kvm-vm": 1, "anon_inode kvm-vcpu": 1,
          "anon_inode [eventfd]": 13,
        ],
        memory: [
          "gate", "vga-memory", "piix-lane", "ide-lane", "serial-lane", "vga-lane", "piix-bounce",
          "ide-bounce", "guest-ram", "firmware", "clock", "flight", "meter",
        ]),
      "vmdev-piix": Holdings(
        files: [
          "/dev/null": 1, "pipe": 2, "socket": 2, "file console.log": 1, "anon_inode [eventfd]": 7,
        ],
        memory: ["state-piix", "piix-lane", "piix-bounce", "clock"]),
      "vmdev-ide": Holdings(
        files: [
          "/dev/null": 1, "pipe": 2, "socket": 2, "file disk": 1, "anon_inode [eventfd]": 5,
        ],
        memory: ["state-ide", "ide-lane", "ide-bounce", "clock"]),
      "vmdev-serial": Holdings(
        files: [
          "/dev/null": 1, "pipe": 2, "socket": 2, "file serial.log": 1, "anon_inode [eventfd]": 3,
        ],
        memory: ["state-serial", "serial-lane", "clock"]),
      "vmdev-vga": Holdings(
        files: [
          "/dev/null": 1, "pipe": 2, "socket": 2, "/usr/share/seabios/vgabios-stdvga.bin": 1,
          "anon_inode [eventfd]": 2,
        ],
        memory: ["state-vga", "vga-lane", "vga-memory", "clock"]),
    ]

    private func start(in scratch: Scratch) throws -> RunningMachine {
      try scratch.write("disk", [UInt8](repeating: 0, count: 1 << 20))
      var file = MachineFile(firmware: try scratch.assemble("idle"))
      file.drives = [("ide0.0", "disk", "raw")]
      let machine = try RunningMachine(file, in: scratch)
      try #require(machine.isUp(), "\(machine.errors)")
      try #require(machine.hasSent("idle"), "\(machine.errors)")
      return machine
    }

    @Test(
      "each process holds what its profile lists, and nothing else", .timeLimit(.minutes(2)),
      arguments: [false, true])
    func holdings(restarted: Bool) throws {
      let scratch = try Scratch()
      let machine = try start(in: scratch)
      defer { machine.end() }
      if restarted {
        // A second process of each device is as confined as the first.
        for role in RunningMachine.roles.dropFirst() { try machine.killDevice(role) }
        #expect(
          try eventually(30) {
            try machine.status().devices.allSatisfy { $0.state == "up" && $0.restarts == 1 }
          })
      }
      for role in RunningMachine.roles {
        let pid = try machine.pid(role)
        // The core closes what this test's questions needed.
        _ = try eventually(5) {
          try ProcessAudit(pid: pid).files.count { $0.target.hasPrefix("socket:") }
            <= (role == "vmcore" ? 6 : 2)
        }
        let audit = try ProcessAudit(pid: pid)
        let expected = try #require(Self.expected[role])
        let files = Dictionary(
          audit.files.map { (kind($0.target, scratch), 1) }, uniquingKeysWith: +)
        #expect(files == expected.files, "\(role)")
        #expect(memory(audit) == expected.memory, "\(role)")
        #expect(!audit.hasWritableCode, "\(role)")
        if role != "vmcore" {
          #expect(!audit.areas.contains { $0.path.contains("guest-ram") }, "\(role)")
          #expect(!audit.areas.contains { $0.path.contains("kvm") }, "\(role)")
        }
      }
    }

    @Test("each process is without rights, in namespaces of its own", .timeLimit(.minutes(2)))
    func rights() throws {
      let scratch = try Scratch()
      let machine = try start(in: scratch)
      defer { machine.end() }
      let launcher = try ProcessAudit(pid: machine.process.processIdentifier)
      var seen: [[UInt64]] = [launcher.namespaces.numbers]
      var users: Set<UInt32> = []
      for role in RunningMachine.roles {
        let pid = try machine.pid(role)
        let audit = try ProcessAudit(pid: pid)
        #expect(audit.status.capabilities.isEmpty, "\(role)")
        #expect(audit.status.seccompMode == 2, "\(role)")
        #expect(audit.status.seccompFilters >= 1, "\(role)")
        #expect(audit.status.noNewPrivileges, "\(role)")
        let ids = Set(audit.status.users + audit.status.groups)
        #expect(ids.count == 1, "\(role): \(ids)")
        if Requirements.isRoot {
          #expect(!ids.contains(0), "\(role)")
          users.formUnion(ids)
        }
        // user, mnt, pid, net, ipc, uts, cgroup: none is anybody else's.
        let numbers = audit.namespaces.numbers
        #expect(!numbers.contains(0), "\(role)")
        for other in seen {
          for (own, others) in zip(numbers, other) { #expect(own != others, "\(role)") }
        }
        seen.append(numbers)
        let root = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/root")
        #expect(root.isEmpty, "\(role)")
        #expect(
          audit.mounts.allSatisfy { $0.target == "/" && $0.options.contains("ro") }, "\(role)")
        #expect(audit.limits["Max core file size"] == 0, "\(role)")
        #expect(audit.limits["Max processes"].map { $0 < 100 } == true, "\(role)")
        #expect(audit.limits["Max open files"].map { $0 < 512 } == true, "\(role)")
      }
      if Requirements.isRoot { #expect(users.count == RunningMachine.roles.count) }
    }
  }
}
