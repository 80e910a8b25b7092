// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Sandbox
import Testing

extension SystemTests {
  @Suite(
    "A machine of an ordinary user",
    .enabled(if: Requirements.isRoot, "only root can start a machine as somebody else"),
    .enabled(
      if: Tool.find("setpriv") != nil && Tool.find("unshare") != nil,
      "setpriv or unshare (package util-linux) is missing"))
  struct OrdinaryUserTests {
    @Test("starts, is isolated as far as that user can, and ends", .timeLimit(.minutes(5)))
    func starts() throws {
      let scratch = try Scratch()
      // The programs may be in a folder that others cannot enter.
      let programs = scratch["programs"]
      try FileManager.default.createDirectory(
        atPath: programs, withIntermediateDirectories: false)
      for name in RunningMachine.roles + ["vmlaunch", "vmctl"] {
        try FileManager.default.copyItem(atPath: Built.path(name), toPath: "\(programs)/\(name)")
      }
      for name in ["stderr.log", "stdout.log"] {
        try scratch.write(name, [])
      }
      try FileManager.default.setAttributes(
        [.ownerAccountID: 65534, .groupOwnerAccountID: 65534], ofItemAtPath: scratch.path)
      // A /dev/kvm that everybody may use, in a mount namespace of this machine's launcher only.
      try Tool.run("cp", ["-a", "/dev/kvm", scratch["kvm"]], in: scratch)
      try scratch.allow(0o666, scratch["kvm"])
      let asUser = """
        mount --bind "$0" /dev/kvm && exec setpriv --reuid=65534 --regid=65534 --clear-groups \
        --inh-caps=-all --bounding-set=-all "$@"
        """
      let file = MachineFile(cpus: 2)
      let machine = try RunningMachine(
        file, in: scratch, executables: programs,
        prefix: [
          try #require(Tool.find("unshare")), "--mount", "--propagation", "private", "sh", "-c",
          asUser, scratch["kvm"],
        ])
      defer { machine.end() }
      try #require(machine.isUp(), "\(machine.errors)")
      #expect(machine.hasLogged("SeaBIOS (version"), "\(machine.errors)")
      let launcher = try ProcessAudit(pid: machine.process.processIdentifier)
      #expect(Set(launcher.status.users) == [65534])
      var seen = [launcher.namespaces.numbers]
      for role in RunningMachine.roles {
        let audit = try ProcessAudit(pid: try machine.pid(role))
        #expect(Set(audit.status.users) == [65534], "\(role)")
        #expect(audit.status.capabilities.isEmpty, "\(role)")
        #expect(audit.status.seccompMode == 2, "\(role)")
        #expect(audit.status.noNewPrivileges, "\(role)")
        for other in seen {
          for (own, others) in zip(audit.namespaces.numbers, other) { #expect(own != others) }
        }
        seen.append(audit.namespaces.numbers)
        if role != "vmcore" {
          #expect(!audit.areas.contains { $0.path.contains("guest-ram") }, "\(role)")
        }
      }
      // That user may look, and finds all as it should be; the filters only root may read.
      let audit = try Tool.result(
        "setpriv",
        [
          "--reuid=65534", "--regid=65534", "--clear-groups", "\(programs)/vmctl", "isolation",
          scratch["control.sock"],
        ], in: scratch)
      #expect(audit.code == 0, "\(audit.output)")
      #expect(audit.output.contains("everything is as the profiles say"), "\(audit.output)")
      #expect(try machine.shows("No bootable device"))
      kill(machine.process.processIdentifier, SIGTERM)
      #expect(machine.exitCode(15) == 0, "\(machine.errors)")
      #expect(machine.isGone())
      #expect(!scratch.exists("control.sock"))
    }
  }
}
