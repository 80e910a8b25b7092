// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Supervisor
import Testing

@Suite("The janitor of a machine", .enabled(if: hasKVM && hasSeaBIOS), .serialized)
struct JanitorTests {
  private static let stdio = "[[serial]]\nbackend = \"stdio\""

  @Test(
    "a launcher that is killed leaves no socket, raw terminal or process", .timeLimit(.minutes(1)))
  func killed() throws {
    let terminal = try TestTerminal()
    let before = terminal.settings
    let machine = try FakeMachine("hang", extra: Self.stdio, on: terminal)
    try #require(machine.isUp())
    #expect(machine.ids.count == 7)
    #expect(machine.isSocketThere)
    #expect(terminal.settings != before)
    kill(try #require(machine.launcherID), SIGKILL)
    #expect(
      until(seconds: 2) {
        !machine.isSocketThere && terminal.settings == before && machine.ids.isEmpty
      })
  }

  @Test("a launcher that is killed while it starts leaves nothing", .timeLimit(.minutes(2)))
  func killedEarly() throws {
    let machine = try FakeMachine("clean")
    #expect(machine.launcher.wait() == 0)
    for delay in [0, 4, 8, 12, 16, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300] {
      let next = try machine.startAgain()
      usleep(UInt32(delay * 1000))
      kill(next.process.processIdentifier, SIGKILL)
      #expect(
        until(seconds: 5) { !machine.isSocketThere && machine.ids.isEmpty },
        "killed after \(delay) ms")
    }
  }

  @Test("the sockets of the monitor and of a serial port go as well", .timeLimit(.minutes(1)))
  func monitorSockets() throws {
    let machine = try FakeMachine(
      "hang",
      extra: "qmp = \"unix:qmp.sock\"\nhmp = \"unix:hmp.sock\"\ngdb = \"unix:gdb.sock\"\n"
        + "[[serial]]\nbackend = \"unix:com1.sock\"")
    try #require(machine.launcher.waitFor("isolation: none, a fake", times: 6))
    let paths = ["qmp", "hmp", "gdb", "com1"].map { "\(machine.scratch.path)/\($0).sock" }
    for path in paths { #expect(try ControlSocket.state(path) == .live) }
    kill(try #require(machine.launcherID), SIGKILL)
    #expect(until(seconds: 5) { !machine.isSocketThere && machine.ids.isEmpty })
    for path in paths { #expect(try ControlSocket.state(path) == .free) }
  }

  @Test("a machine that ends by itself leaves no janitor", .timeLimit(.minutes(1)))
  func clean() throws {
    let machine = try FakeMachine("clean")
    try #require(machine.isUp())
    let janitor = try #require(machine.janitorID)
    #expect(machine.launcher.wait() == 0)
    #expect(!FileManager.default.fileExists(atPath: "/proc/\(janitor)"))
    #expect(machine.ids.isEmpty)
  }

  @Test("SIGTERM leaves no janitor and no raw terminal", .timeLimit(.minutes(1)))
  func terminated() throws {
    let terminal = try TestTerminal()
    let before = terminal.settings
    let machine = try FakeMachine("serve", extra: Self.stdio, on: terminal)
    try #require(machine.isUp())
    kill(try #require(machine.launcherID), SIGTERM)
    #expect(until(seconds: 10) { machine.ids.isEmpty })
    #expect(terminal.settings == before)
    #expect(!machine.isSocketThere)
  }

  @Test("a start that fails leaves no janitor", .timeLimit(.minutes(1)))
  func fails() throws {
    let machine = try FakeMachine("serve")
    try #require(machine.isUp())
    let before = Set(machine.ids)
    #expect(try machine.startAgain().wait() == 1)
    #expect(Set(machine.ids) == before)
    #expect(machine.isSocketThere)
  }

  @Test("a late janitor leaves the socket of the next machine alone", .timeLimit(.minutes(1)))
  func nextMachine() throws {
    let machine = try FakeMachine("hang")
    try #require(machine.isUp())
    let janitor = try #require(machine.janitorID)
    kill(janitor, SIGSTOP)
    kill(try #require(machine.launcherID), SIGKILL)
    #expect(until(seconds: 5) { machine.ids == [janitor] })
    let next = try machine.startAgain()
    #expect(next.waitFor("isolation: none, a fake", times: 5))
    kill(janitor, SIGCONT)
    #expect(areGone([janitor]))
    #expect(try ControlSocket.state(machine.socket) == .live)
    kill(next.process.processIdentifier, SIGTERM)
    kill(next.process.processIdentifier, SIGINT)
    #expect(next.wait() == 2)
  }

  @Test("a machine started right after a kill keeps its socket", .timeLimit(.minutes(1)))
  func nextAtOnce() throws {
    let machine = try FakeMachine("hang")
    try #require(machine.isUp())
    let old = machine.ids
    let children = old.filter { $0 != machine.janitorID }
    kill(try #require(machine.launcherID), SIGKILL)
    #expect(areGone(children))
    let next = try machine.startAgain()
    #expect(next.waitFor("isolation: none, a fake", times: 5))
    #expect(areGone(old))
    #expect(try ControlSocket.state(machine.socket) == .live)
    kill(next.process.processIdentifier, SIGTERM)
    kill(next.process.processIdentifier, SIGINT)
    #expect(next.wait() == 2)
  }

  @Test(
    "the key that interrupts the launcher does not end the janitor", .timeLimit(.minutes(1)),
    arguments: [(JanitorTests.stdio, 0x1D), ("", 0x03)] as [(String, UInt8)])
  func interrupted(extra: String, key: UInt8) throws {
    let terminal = try TestTerminal()
    let before = terminal.settings
    let machine = try FakeMachine("hang", extra: extra, on: terminal)
    try #require(machine.isUp())
    let janitor = try #require(machine.janitorID)
    try terminal.type(key)
    #expect(machine.launcher.waitFor("once more kills it"))
    #expect(machine.janitorID == janitor)
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGTTOU] { kill(janitor, signal) }
    usleep(100_000)
    #expect(machine.janitorID == janitor)
    kill(try #require(machine.launcherID), SIGKILL)
    #expect(
      until(seconds: 2) {
        !machine.isSocketThere && terminal.settings == before && machine.ids.isEmpty
      })
  }

  @Test("settings that somebody else gave the terminal stay", .timeLimit(.minutes(1)))
  func otherSettings() throws {
    let terminal = try TestTerminal()
    let machine = try FakeMachine("hang", extra: Self.stdio, on: terminal)
    try #require(machine.isUp())
    let janitor = try #require(machine.janitorID)
    kill(janitor, SIGSTOP)
    kill(try #require(machine.launcherID), SIGKILL)
    try terminal.set("-icanon", "-echo", "intr", "^C")
    let others = terminal.settings
    kill(janitor, SIGCONT)
    #expect(areGone([janitor]))
    #expect(terminal.settings == others)
    #expect(!machine.isSocketThere)
  }

  @Test("a machine goes on without its janitor, and says so", .timeLimit(.minutes(1)))
  func janitorKilled() throws {
    let machine = try FakeMachine("serve")
    try #require(machine.isUp())
    kill(try #require(machine.janitorID), SIGKILL)
    #expect(machine.launcher.waitFor("vmlaunch: the janitor ended by signal 9; if vmlaunch"))
    kill(machine.launcher.process.processIdentifier, SIGTERM)
    #expect(machine.launcher.wait() == 0)
    #expect(!machine.isSocketThere)
  }
}

@Suite("The janitor by itself", .serialized)
struct JanitorProcessTests {
  /// Starts a janitor and returns the launcher's end of its socket.
  private func start() throws -> (ChildProcess, PacketSocket) {
    let (here, there) = try PacketSocket.pair()
    let null = try Files.open("/dev/null", .readWrite)
    let child = try Spawn.start(
      executable: Built.path("vmlaunch"), arguments: ["vmlaunch", Janitor.argument],
      environment: [],
      descriptors: [(null, as: 0), (null, as: 1), (null, as: 2), (there.descriptor, as: 3)],
      namespaces: [], identity: .own)
    return (child, here)
  }

  /// Tells a janitor that sockets are about to be made, and that the launcher is gone.
  private func expect(socketAt paths: String...) throws -> ChildProcess.Status? {
    var (child, here): (ChildProcess, PacketSocket?) = try start()
    for path in paths { try here?.send([1] + Array(path.utf8)) }
    here = nil
    return try child.wait(timeout: 10_000_000_000)
  }

  @Test("it ends with the launcher when it was told nothing", .timeLimit(.minutes(1)))
  func nothing() throws {
    var (child, here): (ChildProcess, PacketSocket?) = try start()
    #expect(try child.wait(timeout: 300_000_000) == nil)
    here = nil
    #expect(try child.wait(timeout: 10_000_000_000) == .exited(code: 0))
    _ = here
  }

  @Test("a socket that was about to be made goes when it is dead", .timeLimit(.minutes(1)))
  func dead() throws {
    let scratch = try Scratch()
    let path = "\(scratch.path)/c.sock"
    _ = try PacketSocket.listen(path)
    #expect(try ControlSocket.state(path) == .dead)
    #expect(try expect(socketAt: path) == .exited(code: 0))
    #expect(try ControlSocket.state(path) == .free)
  }

  @Test("of several sockets each goes that is dead", .timeLimit(.minutes(1)))
  func several() throws {
    let scratch = try Scratch()
    let paths = ["a", "b"].map { "\(scratch.path)/\($0).sock" }
    for path in paths { _ = try StreamListener.listen(path) }
    #expect(try expect(socketAt: paths[0], paths[1]) == .exited(code: 0))
    for path in paths { #expect(try ControlSocket.state(path) == .free) }
  }

  @Test("a socket that lives, and a file, stay", .timeLimit(.minutes(1)))
  func others() throws {
    let scratch = try Scratch()
    let path = "\(scratch.path)/c.sock"
    let live = try PacketSocket.listen(path)
    #expect(try expect(socketAt: path) == .exited(code: 0))
    // It asked more often than connections can wait, and neither it nor this one hangs.
    #expect(try ControlSocket.state(path) == .live)
    _ = live
    let file = try scratch.write("file", "text")
    #expect(try expect(socketAt: file) == .exited(code: 0))
    #expect(try ControlSocket.state(file) == .foreign)
  }

  @Test("messages that make no sense do nothing", .timeLimit(.minutes(1)))
  func nonsense() throws {
    var (child, here): (ChildProcess, PacketSocket?) = try start()
    for message in [[0], [9, 9], [2], [3, 1, 2], [1, 0xFF]] as [[UInt8]] {
      try here?.send(message)
    }
    here = nil
    #expect(try child.wait(timeout: 10_000_000_000) == .exited(code: 0))
  }

  @Test("called by hand it ends at once", .timeLimit(.minutes(1)))
  func byHand() throws {
    let scratch = try Scratch()
    #expect(
      try Running(Built.path("vmlaunch"), [Janitor.argument], in: scratch).wait(seconds: 10) == 1)
  }

  @Test("a control socket that something else replaced is not removed")
  func replaced() throws {
    let scratch = try Scratch()
    let path = "\(scratch.path)/c.sock"
    let control = try ControlSocket(path, machine: "m", isOwnFolder: false)
    try Files.remove(path)
    try scratch.write("c.sock", "mine")
    control.remove()
    #expect(try ControlSocket.state(path) == .foreign)
    try Files.remove(path)
    control.remove()
    #expect(try ControlSocket.state(path) == .free)
  }

  @Test("a control socket that is still there is removed")
  func removed() throws {
    let scratch = try Scratch()
    let path = "\(scratch.path)/c.sock"
    let control = try ControlSocket(path, machine: "m", isOwnFolder: false)
    #expect(try ControlSocket.state(path) == .live)
    control.remove()
    #expect(try ControlSocket.state(path) == .free)
  }
}
