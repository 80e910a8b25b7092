// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Sandbox
import Testing

extension SystemTests {
  @Suite("vmctl isolation")
  struct AuditTests {
    private func start(
      in scratch: Scratch, accelerator: String, executables: String = Built.folder
    ) throws -> RunningMachine {
      try scratch.write("disk", [UInt8](repeating: 0, count: 1 << 20))
      var file = MachineFile(accelerator: accelerator)
      file.firmware = try scratch.assemble("idle")
      file.drives = [("ide0.0", "disk", "raw")]
      let machine = try RunningMachine(file, in: scratch, executables: executables)
      try #require(machine.isUp(), "\(machine.errors)")
      try #require(machine.hasSent("idle"), "\(machine.errors)")
      return machine
    }

    @Test(
      "says that a machine is as its profiles say", .timeLimit(.minutes(2)),
      arguments: Requirements.accelerators)
    func holds(accelerator: String) throws {
      let scratch = try Scratch()
      let machine = try start(in: scratch, accelerator: accelerator)
      defer { machine.end() }
      let (code, output) = try machine.control(["isolation"])
      #expect(code == 0, "\(output)")
      for role in RunningMachine.roles { #expect(output.contains(role), "\(output)") }
      #expect(output.contains("everything is as the profiles say"))
      if Requirements.isRoot {
        #expect(output.components(separatedBy: "calls, exact").count == 6, "\(output)")
      }
      // Looking on has disturbed nobody.
      #expect(try machine.status().devices.allSatisfy { $0.state == "up" && $0.restarts == 0 })
      let json = try machine.control(["isolation"], "--json")
      #expect(json.code == 0)
      let object = try #require(
        JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
      #expect(object["holds"] as? Bool == true)
      #expect((object["processes"] as? [Any])?.count == 5)
    }

    @Test("finds a device that keeps one descriptor too many", .timeLimit(.minutes(2)))
    func tampered() throws {
      let scratch = try Scratch()
      let programs = scratch["programs"]
      let files = FileManager.default
      try files.createDirectory(atPath: "\(programs)/real", withIntermediateDirectories: true)
      for name in RunningMachine.roles + ["vmlaunch"] where name != "vmdev-serial" {
        try files.copyItem(atPath: Built.path(name), toPath: "\(programs)/\(name)")
      }
      try files.copyItem(
        atPath: Built.path("vmdev-serial"), toPath: "\(programs)/real/vmdev-serial")
      try files.copyItem(
        atPath: Built.path("sandbox-probe"), toPath: "\(programs)/vmdev-serial")
      let machine = try start(
        in: scratch, accelerator: Requirements.accelerators[0], executables: programs)
      defer { machine.end() }
      let (code, output) = try machine.control(["isolation"])
      #expect(code == 1, "\(output)")
      #expect(
        output.contains(
          "differs: vmdev-serial: descriptors: 1 of kind file (/dev/zero) instead of 0"),
        "\(output)")
      #expect(output.components(separatedBy: "differs: ").count == 2, "\(output)")
    }

    @Test("says so when there is no such machine")
    func absent() throws {
      let scratch = try Scratch()
      let (code, output) = try Tool.result(
        Built.path("vmctl"), ["isolation", scratch["none.sock"]], in: scratch)
      #expect(code == 1)
      #expect(output.hasPrefix("vmctl: no machine "))
    }
  }
}
