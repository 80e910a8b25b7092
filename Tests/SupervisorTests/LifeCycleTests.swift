// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@Suite("The life cycle of a machine", .enabled(if: hasKVM && hasSeaBIOS), .serialized)
struct LifeCycleTests {
  @Test("a machine that ends with code 0 ends silently and leaves nothing", .timeLimit(.minutes(1)))
  func clean() throws {
    let machine = try FakeMachine("clean")
    #expect(machine.launcher.wait() == 0)
    #expect(!machine.isSocketThere)
    #expect(!machine.launcher.standardError.contains("starting it anew"))
  }

  @Test("the guest's exit code and reason come through, escaped", .timeLimit(.minutes(1)))
  func code() throws {
    let machine = try FakeMachine("code7")
    #expect(machine.launcher.wait() == 7)
    #expect(machine.launcher.standardError.contains("vmlaunch: to the \\u{1B}debug exit port\n"))
  }

  @Test("SIGTERM ends the machine in order with code 0", .timeLimit(.minutes(1)))
  func terminates() throws {
    let machine = try FakeMachine("serve")
    #expect(machine.isUp())
    let children = childProcesses(of: machine.launcher.process.processIdentifier)
    #expect(children.count == 6)
    #expect(machine.isSocketThere)
    kill(machine.launcher.process.processIdentifier, SIGTERM)
    #expect(machine.launcher.wait() == 0)
    #expect(areGone(children))
    #expect(!machine.isSocketThere)
  }

  @Test("a second signal kills a core that does not stop", .timeLimit(.minutes(1)))
  func killsHanging() throws {
    let machine = try FakeMachine("hang")
    #expect(machine.isUp())
    let children = childProcesses(of: machine.launcher.process.processIdentifier)
    kill(machine.launcher.process.processIdentifier, SIGTERM)
    #expect(machine.launcher.waitFor("once more kills it"))
    kill(machine.launcher.process.processIdentifier, SIGINT)
    #expect(machine.launcher.wait() == 2)
    #expect(areGone(children))
    #expect(!machine.isSocketThere)
  }

  @Test("a core that does not stop is killed after 10 seconds", .timeLimit(.minutes(1)))
  func patience() throws {
    let machine = try FakeMachine("hang")
    #expect(machine.isUp())
    kill(machine.launcher.process.processIdentifier, SIGTERM)
    #expect(machine.launcher.wait() == 2)
    #expect(machine.launcher.standardError.contains("did not end within 10 seconds"))
  }

  @Test("no process outlives a launcher that is killed", .timeLimit(.minutes(1)))
  func launcherKilled() throws {
    let machine = try FakeMachine("hang")
    #expect(machine.isUp())
    let children = childProcesses(of: machine.launcher.process.processIdentifier)
    #expect(children.count == 6)
    kill(machine.launcher.process.processIdentifier, SIGKILL)
    #expect(areGone(children))
  }

  @Test(
    "the next machine replaces the socket of one that was killed with its janitor",
    .timeLimit(.minutes(1)))
  func staleSocket() throws {
    let machine = try FakeMachine("hang")
    #expect(machine.isUp())
    let children = childProcesses(of: machine.launcher.process.processIdentifier)
    kill(try #require(machine.janitorID), SIGKILL)
    kill(machine.launcher.process.processIdentifier, SIGKILL)
    #expect(areGone(children))
    #expect(machine.isSocketThere)
    let next = try Running(
      "\(machine.scratch.path)/vmlaunch", ["\(machine.scratch.path)/machine.toml"],
      in: machine.scratch)
    #expect(next.waitFor("isolation: none, a fake", times: 5))
    kill(next.process.processIdentifier, SIGTERM)
    kill(next.process.processIdentifier, SIGINT)
    #expect(next.wait() == 2)
  }

  @Test("a second machine of the same name is refused", .timeLimit(.minutes(1)))
  func twice() throws {
    let machine = try FakeMachine("serve")
    #expect(machine.isUp())
    let second = try Running(
      "\(machine.scratch.path)/vmlaunch", ["\(machine.scratch.path)/machine.toml"],
      in: machine.scratch)
    #expect(second.wait() == 1)
    #expect(
      second.standardError
        == "machine \"serve\" is running already (control socket \(machine.socket)); "
        + "end it with: vmctl stop serve\n")
    #expect(machine.isSocketThere)
    kill(machine.launcher.process.processIdentifier, SIGTERM)
    #expect(machine.launcher.wait() == 0)
  }

  @Test("a device that dies is started anew and attached", .timeLimit(.minutes(1)))
  func restarts() throws {
    let machine = try FakeMachine("crash")
    #expect(machine.launcher.wait() == 5)
    let log = machine.launcher.standardError
    #expect(log.contains("vmdev-serial: told to crash\n"))
    #expect(log.contains("vmdev-serial: exited with code 9; starting it anew\n"))
    #expect(log.contains("serial came back"))
  }

  @Test("a device that misses its deadline is killed and started anew", .timeLimit(.minutes(1)))
  func deadline() throws {
    let machine = try FakeMachine("deadline")
    #expect(machine.launcher.wait() == 6)
    #expect(machine.launcher.standardError.contains("the test says so; starting it anew"))
  }

  @Test("a device that dies for ever ends the machine with code 2", .timeLimit(.minutes(1)))
  func crashLoop() throws {
    let machine = try FakeMachine("crash-loop")
    #expect(machine.launcher.wait() == 2)
    #expect(
      machine.launcher.standardError.contains("vmdev-serial failed more than 5 times within 10"))
    #expect(!machine.isSocketThere)
  }

  @Test(
    "a poison request holds the machine until the operator wants the device anew",
    .timeLimit(.minutes(1)))
  func poison() throws {
    let machine = try FakeMachine("poison")
    #expect(machine.launcher.wait() == 5)
    let log = machine.launcher.standardError
    #expect(
      log.contains(
        "vmdev-ide: the test says so; the machine is held until: "
          + "vmctl device restart poison ide\n"))
    #expect(log.contains("vmdev-ide: started anew for the operator\n"))
    #expect(!log.contains("starting it anew"))
  }

  @Test("a device that is held is reported once", .timeLimit(.minutes(1)))
  func reportedOnce() throws {
    let machine = try FakeMachine(
      "crash-twice-told", extra: "[device.serial]\non-fault = \"pause\"")
    #expect(machine.launcher.wait() == 5)
    let log = machine.launcher.standardError
    #expect(log.components(separatedBy: "the machine is held until").count == 2, "\(log)")
  }

  @Test("what the operator starts anew is no failure, however often", .timeLimit(.minutes(1)))
  func operatorRestarts() throws {
    let machine = try FakeMachine("operator")
    #expect(machine.launcher.wait() == 5)
    #expect(
      machine.launcher.standardError.components(separatedBy: "for the operator").count == 8)
  }

  @Test("on-fault stop ends the machine with code 2", .timeLimit(.minutes(1)))
  func policyStop() throws {
    let machine = try FakeMachine(
      "crash-stop", extra: "[device.serial]\non-fault = \"stop\"")
    #expect(machine.launcher.wait() == 2)
    #expect(machine.launcher.standardError.contains("vmlaunch: vmdev-serial: exited with code 9\n"))
  }

  @Test("on-fault pause keeps the machine without the device", .timeLimit(.minutes(1)))
  func policyPause() throws {
    let machine = try FakeMachine("crash", extra: "[device.serial]\non-fault = \"pause\"")
    #expect(
      machine.launcher.waitFor("the machine is held until: vmctl device restart crash serial"))
    #expect(childProcesses(of: machine.launcher.process.processIdentifier).count == 5)
    kill(machine.launcher.process.processIdentifier, SIGTERM)
    #expect(machine.launcher.wait() == 0)
  }

  @Test("a core that dies ends the machine with code 2 and its last words", .timeLimit(.minutes(1)))
  func coreDies() throws {
    let machine = try FakeMachine("core-dies")
    #expect(machine.launcher.wait() == 2)
    #expect(machine.launcher.standardError.contains("vmcore exited with code 1: no memory"))
  }

  @Test("a missing layer of isolation ends the start with code 3", .timeLimit(.minutes(1)))
  func exit3() throws {
    let machine = try FakeMachine("exit3")
    #expect(machine.launcher.wait() == 3)
    #expect(machine.launcher.standardError.contains("isolation: no \\u{1B}[31mLandlock"))
  }

  @Test("a device that cannot start is not tried again", .timeLimit(.minutes(1)))
  func exit1() throws {
    let machine = try FakeMachine("exit1")
    #expect(machine.launcher.wait() == 2)
    #expect(machine.launcher.standardError.contains("vmdev-vga exited with code 1: no VGA BIOS"))
  }

  private static let drive = """
    [[drive]]
    slot = "ide0.0"
    image = "disk.qcow2"
    format = "qcow2"
    """

  @Test("a backing file that the machine file allows reaches the device", .timeLimit(.minutes(1)))
  func backing() throws {
    let machine = try FakeMachine(
      "backing", extra: Self.drive + "\nbacking = \"same-folder\"",
      files: ["disk.qcow2": "disk", "base.img": "BASE"])
    #expect(machine.launcher.wait() == 8)
    #expect(machine.launcher.standardError.contains("vmlaunch: BASE\n"))
  }

  @Test("a device that asks for backing files without end is cut off", .timeLimit(.minutes(1)))
  func backingFlood() throws {
    let machine = try FakeMachine(
      "backing-flood",
      extra: Self.drive + "\nbacking = \"same-folder\"\n[device.ide]\non-fault = \"pause\"",
      files: ["disk.qcow2": "disk", "base.img": "BASE"])
    #expect(machine.launcher.waitFor("the machine is held until"))
    #expect(machine.launcher.standardError.contains("more than 16 requests for backing files"))
    kill(machine.launcher.process.processIdentifier, SIGTERM)
    #expect(machine.launcher.wait() == 0)
  }

  @Test("a backing file that it does not allow is refused with a reason", .timeLimit(.minutes(1)))
  func noBacking() throws {
    let machine = try FakeMachine(
      "backing-none", extra: Self.drive, files: ["disk.qcow2": "disk", "base.img": "BASE"])
    #expect(machine.launcher.wait() == 8)
    #expect(machine.launcher.standardError.contains("does not allow the backing file \"base.img\""))
  }
}
