// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import LinuxSystem

@Suite("Starting processes", .timeLimit(.minutes(2)))
struct SpawnTests {
  static func start(
    _ executable: String, _ arguments: [String],
    _ descriptors: [(Descriptor, as: Int32)] = [], _ namespaces: Namespaces = []
  ) throws -> ChildProcess {
    try Spawn.start(
      executable: executable, arguments: arguments, environment: ["GREETING=hello there"],
      descriptors: descriptors, namespaces: namespaces,
      identity: .automatic(base: 200_000, number: 1))
  }

  @Test("an exit code comes back")
  func exitCode() throws {
    let child = try Self.start("/bin/sh", ["sh", "-c", "exit 7"])
    #expect(try child.wait(timeout: 10_000_000_000) == .exited(code: 7))
  }

  @Test("a killed child is told from one that exited, and its status is taken once")
  func killed() throws {
    let child = try Self.start("/bin/sleep", ["sleep", "30"])
    #expect(try child.status() == nil)
    #expect(try child.wait(timeout: 20_000_000) == nil)
    try child.kill()
    #expect(try child.wait(timeout: 10_000_000_000) == .signalled(9))
    #expect(throws: SystemError("waitid", 10 /* ECHILD */)) { try child.status() }
  }

  @Test("a file that is missing, or no program, is an error with its number")
  func cannotExecute() throws {
    #expect(throws: SystemError("open /no/such/program", 2 /* ENOENT */)) {
      try Self.start("/no/such/program", ["x"])
    }
    #expect(throws: SystemError("execute /etc/passwd", 13 /* EACCES */)) {
      try Self.start("/etc/passwd", ["x"])
    }
    #expect(throws: SystemError("execute /etc/passwd", 13 /* EACCES */)) {
      try Self.start("/etc/passwd", ["x"], [], .all)
    }
  }

  @Test("descriptors get the wanted numbers, also crosswise")
  func crossedDescriptors() throws {
    let (oneHere, one) = try PacketSocket.pair()
    let (twoHere, two) = try PacketSocket.pair()
    let low = min(one.descriptor.raw, two.descriptor.raw)
    let high = max(one.descriptor.raw, two.descriptor.raw)
    // Each goes where the other one is now, if the numbers are of one digit; else to 3 and 4.
    let toOne = high < 10 ? two.descriptor.raw : 4
    let toTwo = high < 10 ? one.descriptor.raw : 3
    #expect(low > 2)
    let child = try Self.start(
      "/bin/sh", ["sh", "-c", "printf one >&\(toOne); printf \"$GREETING\" >&\(toTwo)"],
      [(one.descriptor, as: toOne), (two.descriptor, as: toTwo)])
    #expect(try child.wait(timeout: 10_000_000_000) == .exited(code: 0))
    #expect(try oneHere.receive(64, wait: false).bytes == Array("one".utf8))
    #expect(try twoHere.receive(64, wait: false).bytes == Array("hello there".utf8))
  }

  @Test("a child in all namespaces is user 0 and process 1 there, alone with itself")
  func namespaces() throws {
    let (here, there) = try PacketSocket.pair()
    let child = try Self.start(
      "/bin/sh", ["sh", "-c", "printf \"$$ $(id -u) $(id -g)\" >&3"], [(there.descriptor, as: 3)],
      .all)
    #expect(try child.wait(timeout: 10_000_000_000) == .exited(code: 0))
    #expect(try here.receive(64, wait: false).bytes == Array("1 0 0".utf8))
  }

  @Test("several children wait together and start when released")
  func twoPhases() throws {
    var first = try Self.prepareExit(3)
    var second = try Self.prepareExit(4)
    try first.release()
    try second.release()
    #expect(try second.confirm().wait(timeout: 10_000_000_000) == .exited(code: 4))
    #expect(try first.confirm().wait(timeout: 10_000_000_000) == .exited(code: 3))
  }

  static func prepareExit(_ code: Int) throws(SystemError) -> PreparedProcess {
    try Spawn.prepare(
      executable: "/bin/sh", arguments: ["sh", "-c", "exit \(code)"], environment: [],
      descriptors: [], namespaces: .all, identity: .automatic(base: 200_000, number: 2))
  }

  @Test("Landlock's rights grow with its version")
  func landlockRights() {
    #expect(Landlock.rights(1) == (0x1FFF, 0, 0))
    #expect(Landlock.rights(3) == (0x7FFF, 0, 0))
    #expect(Landlock.rights(4) == (0x7FFF, 3, 0))
    #expect(Landlock.rights(7) == (0xFFFF, 3, 3))
  }
}
