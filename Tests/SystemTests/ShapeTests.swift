// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Testing

extension SystemTests {
  @Suite(
    "QMP beside QEMU's",
    .enabled(if: Python.isThere, "missing: .build/python with qemu.qmp (deploy/test makes it)"))
  struct ShapeTests {
    private func folders(_ names: String..., in scratch: Scratch) throws {
      for name in names {
        try FileManager.default.createDirectory(
          atPath: scratch[name], withIntermediateDirectories: false)
      }
    }

    @Test(
      "every command that both have answers, fails and tells of events as in QEMU",
      .timeLimit(.minutes(5)), .enabled(if: Tool.find("qemu-system-x86_64") != nil),
      arguments: Requirements.accelerators)
    func shapes(accelerator: String) throws {
      let scratch = try Scratch()
      try folders("out", "discs", in: scratch)
      for disc in ["a.iso", "discs/b.iso"] {
        try scratch.write(disc, [UInt8](repeating: 7, count: 1 << 20))
      }
      try scratch.write("disk.raw", [UInt8](repeating: 0, count: 4 << 20))
      var file = MachineFile(
        accelerator: accelerator, cpus: 2,
        monitor: [
          "qmp = \"unix:qmp.sock\"", "output = \"\(scratch["out"])\"",
          "media = \"\(scratch["discs"])\"",
        ])
      file.drives = [("ide0.0", "disk.raw", "raw")]
      file.serial = "null"
      file.extra =
        "[[drive]]\nslot = \"ide1.0\"\nmedia = \"cdrom\"\nimage = \"a.iso\"\nformat = \"raw\""
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.hasLogged("No bootable device", seconds: 100), "\(machine.console)")
      let result = try Tool.result(
        Python.path,
        [
          Python.scripts + "/shapes.py", scratch["qmp.sock"], Python.schema, scratch["out"],
          scratch["discs"], accelerator,
        ], in: scratch, seconds: 150)
      #expect(result.code == 0, "\(result.output)\n\(machine.errors)")
      #expect(machine.exitCode(20) == 0, "\(machine.errors)")
    }

    @Test(
      "qmp-shell, on a terminal, completes commands, gives them and shows events",
      .timeLimit(.minutes(2)), arguments: Requirements.accelerators)
    func shell(accelerator: String) throws {
      let scratch = try Scratch()
      try folders("out", in: scratch)
      let machine = try RunningMachine(
        MachineFile(
          accelerator: accelerator,
          monitor: ["qmp = \"unix:qmp.sock\"", "output = \"\(scratch["out"])\""]), in: scratch)
      defer { machine.end() }
      try #require(machine.hasSaid("isolation: ", times: 6), "\(machine.errors)")
      func run(_ options: [String], _ steps: [String], endsWell: Bool = true) throws {
        let shell = (Python.path as NSString).deletingLastPathComponent + "/qmp-shell"
        let result = try Tool.result(
          Python.path,
          [Python.scripts + "/terminal.py"] + steps
            + [
              "--", "/usr/bin/env", "HOME=\(scratch["out"])", "TERM=dumb", "INPUTRC=/dev/null",
              shell,
            ] + options + [scratch["qmp.sock"]], in: scratch, seconds: 60)
        #expect(!endsWell || result.code == 0, "\(options): \(result.output)\n\(machine.errors)")
      }
      try run(
        [],
        [
          "expect:Connected to QEMU 7.2", "expect:(QEMU) ", "send:query-na\\t\\n",
          "expect:{\"return\": {\"name\": \"\(machine.name)\"}}", "expect:(QEMU) ",
          "send:query-nothing\\n", "expect:CommandNotFound", "expect:(QEMU) ",
          "send:human-monitor-command command-line=help cpu-index=0\\n",
          "expect:block_resize device size", "expect:(QEMU) ",
          "send:send-key keys=[{'type':'qcode','data':'a'}]\\n", "expect:{\"return\": {}}",
          "expect:(QEMU) ", "send:stop\\n", "expect:{\"return\": {}}", "expect:(QEMU) ",
          "send:\\n", "expect:'event': 'STOP'", "expect:(QEMU) ", "send:query-st\\t\\n",
          "expect:\"paused\"", "expect:(QEMU) ", "send:cont\\n", "expect:{\"return\": {}}",
          "expect:(QEMU) ", "send:pmemsave val=0 size=4096 filename=low\\n",
          "expect:{\"return\": {}}", "expect:(QEMU) ", "send:\\x04",
        ])
      #expect(scratch.bytes("out/low").count == 4096)
      // The human monitor through it, whose completion is made from `help` and `info`.
      try run(
        ["-H"],
        [
          "expect:(QEMU) ", "send:info versi\\t\\n", "expect:7.2.0", "expect:(QEMU) ",
          "send:info qom-t\\t\\n", "expect:/machine (pc-i440fx-7.2-machine)", "expect:(QEMU) ",
          "send:\\x04",
        ])
      // The shell says with a traceback that its machine has gone, as it does with QEMU.
      try run(
        ["-p"], ["expect:(QEMU) ", "send:quit\\n", "expect:\"return\": {}", "send:\\x04"],
        endsWell: false)
      #expect(machine.exitCode(20) == 0, "\(machine.errors)")
    }
  }
}
