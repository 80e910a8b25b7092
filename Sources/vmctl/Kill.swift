// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import LinuxSystem
import Monitor

struct Kill: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "End the machine at once, as a power cut does.",
    discussion: """
      The launcher is killed (SIGKILL) and its processes go with it; its janitor removes the \
      sockets and restores the terminal. Nothing is asked of the guest or of the core, so it helps \
      when these do not answer. What the guest has not flushed may be lost; stop ends the machine \
      in order.
      """)
  @OptionGroup var machine: MachineName

  private static let patience: UInt64 = 10_000_000_000

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in
      let pid = try MachineProcesses(machine).launcher
      do throws(SystemError) {
        let process = try ProcessHandle(pid: pid)
        // With the launcher all of its processes end, so while somebody still listens there the
        // process that was taken hold of is the launcher, and no later one with its number.
        let again = try PacketSocket.connect(ControlClient.path(machine.name), wait: false)
        let name = try Files.open("/proc/\(pid)/comm", .readOnly).readToEnd(most: 64)
        guard try again.peerProcess() == pid, name == Array("vmlaunch\n".utf8) else {
          throw SystemError("process \(pid) is no vmlaunch", 3 /* ESRCH */)
        }
        try process.signal()
        guard process.waitForEnd(timeout: Self.patience) else {
          throw SystemError("process \(pid) does not go", 110 /* ETIMEDOUT */)
        }
      } catch {
        throw ControlClient.Failure(
          "\"\(VisibleText.escape(machine.name))\" cannot be killed: \(error)")
      }
      // The janitor has a moment.
      let end = HostClock.monotonic() + Self.patience
      while HostClock.monotonic() < end,
        (try? Files.status(ControlClient.path(machine.name))) != nil
      {
        HostClock.sleep(5_000_000)
      }
    }
  }
}
