// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

extension SystemTests {
  @Suite("Suspend to RAM")
  struct SuspendTests {
    @Test(
      "the firmware wakes a system by its vector, with its memory, and says what woke it",
      .timeLimit(.minutes(3)), arguments: Requirements.accelerators)
    func firmware(accelerator: String) throws {
      let scratch = try Scratch()
      try scratch.disk("disk.raw", scratch.assemble("suspend"))
      var file = MachineFile(accelerator: accelerator)
      file.drives = [("ide0.0", "disk.raw", "raw")]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      for count in 1...3 {
        #expect(isSuspended(machine), "\(machine.errors)")
        // Nothing of the guest runs meanwhile.
        let before = machine.serial
        HostClock.sleep(300_000_000)
        #expect(machine.serial == before)
        let wake =
          try count == 2 ? machine.control(["sendkey"], "ret") : machine.control(["powerdown"])
        #expect(wake.code == 0)
        // WAK_STS and PWRBTN_STS.
        #expect(machine.hasSent("awake 8100\n", times: count, seconds: 30), "\(machine.serial)")
      }
      #expect(machine.exitCode() == exitCode(of: 8), "\(machine.errors)")
    }

    /// Linux with busybox's shell on the serial port.
    private func linux(in scratch: Scratch) throws -> RunningMachine {
      try Tool.run(
        "\(Requirements.repository)/deploy/make-linux-initrd", [scratch["initrd.img"]],
        in: scratch)
      var file = LinuxGuests.machine(
        kernel: LinuxGuests.standardKernel, cpus: 2, arguments: "no_console_suspend")
      file.serial = "stdio"
      file.monitor = ["qmp = \"unix:qmp.sock\""]
      let machine = try RunningMachine(file, in: scratch)
      try #require(
        machine.hasSent("/ # ", seconds: 200), "\(machine.serial.suffix(2000)) \(machine.errors)")
      return machine
    }

    /// Suspends, does what wakes, and waits for the guest to go on.
    private func sleep(
      _ machine: RunningMachine, _ mark: String, before: String, wake: () throws -> Void
    )
      throws
    {
      try machine.type("\(before)echo mem > /sys/power/state && echo '\(mark)-''awake'\r")
      try wake()
      try #require(
        machine.hasSent("\(mark)-awake", seconds: 120),
        "\(machine.serial.suffix(3000)) \(machine.errors)")
    }

    private func isSuspended(_ machine: RunningMachine) -> Bool {
      machine.waits(60) { (try? machine.status().state) == "suspended" }
    }

    @Test(
      "Linux sleeps and is woken by its clock, the power button, a key and QMP, with all of its memory",
      .timeLimit(.minutes(8)),
      .enabled(
        if: LinuxGuests.missing.isEmpty && Python.isThere,
        "missing: \(LinuxGuests.missing.joined(separator: ", ")), or .build/python"))
    func linuxSleeps() throws {
      let scratch = try Scratch()
      let machine = try linux(in: scratch)
      defer { machine.end() }
      // What has to survive: a file of random bytes in RAM, and a process.
      try machine.type(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=64 2>/dev/null; md5sum /tmp/a > /tmp/sum; "
          + "cat /sys/power/state; sleep 100000 & \r")
      #expect(machine.hasSent("mem", seconds: 60))

      try sleep(
        machine, "clock", before: "echo +3 > /sys/class/rtc/rtc0/wakealarm; ",
        wake: { #expect(isSuspended(machine), "\(machine.serial.suffix(2000))") })
      // The device that is to wake the machine may be replaced meanwhile.
      try sleep(
        machine, "button", before: "",
        wake: { () throws in
          #expect(isSuspended(machine))
          try machine.killDevice("vmdev-piix")
          #expect(machine.waits(20) { machine.isUp() })
          #expect(isSuspended(machine))
          #expect(try machine.control(["powerdown"]).code == 0)
        })
      // What the operator holds stays asleep when it goes on.
      try sleep(
        machine, "key", before: "",
        wake: { () throws in
          #expect(isSuspended(machine))
          #expect(try machine.control(["pause"]).code == 0)
          #expect(try machine.status().state == "paused")
          #expect(try machine.control(["resume"]).code == 0)
          #expect(isSuspended(machine))
          #expect(try machine.control(["sendkey"], "ret").code == 0)
        })
      try sleep(
        machine, "monitor", before: "",
        wake: { () throws in
          #expect(isSuspended(machine))
          let result = try Tool.result(
            Python.path,
            [
              Python.scripts + "/events.py", scratch["qmp.sock"], Python.schema, "system_wakeup",
              "WAKEUP",
            ], in: scratch, seconds: 60)
          #expect(result.code == 0, "\(result.output)")
        })
      try machine.type(
        "jobs | grep -c sleep; md5sum -c /tmp/sum && nproc && dmesg | grep -c 'PM: suspend exit' "
          + "&& echo 'all-''there'\r")
      #expect(machine.hasSent("all-there", seconds: 60), "\(machine.serial.suffix(2000))")
      #expect(machine.serial.contains("/tmp/a: OK\r\n2\r\n4\r\n"), "\(machine.serial.suffix(2000))")
      try machine.type("poweroff -f\r")
      #expect(machine.exitCode(60) == 0, "\(machine.errors)")
    }

    @Test(
      "a reset of a machine that sleeps starts it as new", .timeLimit(.minutes(3)),
      arguments: Requirements.accelerators)
    func reset(accelerator: String) throws {
      let scratch = try Scratch()
      try scratch.disk("disk.raw", scratch.assemble("suspend"))
      var file = MachineFile(accelerator: accelerator)
      file.drives = [("ide0.0", "disk.raw", "raw")]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      #expect(isSuspended(machine), "\(machine.errors)")
      let starts = machine.starts
      #expect(try machine.control(["reset"]).code == 0)
      // It boots, and comes to its sleep again.
      #expect(machine.waits(60) { machine.starts > starts })
      #expect(isSuspended(machine), "\(machine.errors)")
      #expect(!machine.serial.contains("awake"))
    }
  }
}
