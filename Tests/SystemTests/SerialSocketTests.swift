// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Monitor
import Testing

extension SystemTests {
  @Suite("Serial ports on Unix sockets")
  struct SerialSocketTests {
    /// What one end of a connection has received.
    private final class Peer {
      private(set) var socket: Descriptor?
      private var bytes: [UInt8] = []

      init(_ socket: Descriptor) { self.socket = socket }

      func close() { socket = nil }

      var text: String {
        while let more = try? socket?.read(65536), !more.isEmpty { bytes += more }
        return String(decoding: bytes, as: UTF8.self)
      }

      func type(_ text: String) throws { try #require(socket).writeAll(Array(text.utf8)) }

      func has(_ text: String, in machine: RunningMachine, seconds: Double = 60) -> Bool {
        machine.waits(seconds) { self.text.contains(text) }
      }
    }

    /// Connects once the machine listens.
    private func connect(_ machine: RunningMachine, _ path: String) throws -> Peer {
      try #require(machine.hasSaid("COM1 listens at "), "\(machine.errors)")
      return Peer(try StreamListener.connect(path))
    }

    @Test(
      "socat has its turn, then the next in line, and nothing that was sent is lost",
      .timeLimit(.minutes(5)))
    func turns() throws {
      let scratch = try Scratch()
      let path = scratch["com1.sock"]
      let file = MachineFile(
        firmware: try scratch.assemble("echo"), serial: "unix:com1.sock")
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.hasSaid("COM1 listens at "), "\(machine.errors)")
      #expect(try Files.status(path)?.mode == 0o600)

      let socat = Process()
      socat.executableURL = URL(fileURLWithPath: "/usr/bin/socat")
      socat.arguments = ["-", "UNIX-CONNECT:\(path)"]
      let (down, up) = (Pipe(), Pipe())
      (socat.standardInput, socat.standardOutput) = (down, up)
      try socat.run()
      // It inherits a mask in which all other signals are blocked.
      func endSocat() { if socat.isRunning { kill(socat.processIdentifier, SIGKILL) } }
      defer { endSocat() }
      let first = Peer(Descriptor(owning: dup(up.fileHandleForReading.fileDescriptor)))
      try first.socket?.setNonBlocking(true)
      func type(_ text: String) throws {
        try down.fileHandleForWriting.write(contentsOf: Data(text.utf8))
      }
      try type("abc")
      #expect(first.has("<a><b><c>", in: machine))

      // The next one waits until the first has gone.
      let second = Peer(try StreamListener.connect(path))
      try second.type("2")
      HostClock.sleep(500_000_000)
      try type("d")
      #expect(first.has("<d>", in: machine))
      #expect(second.text == "" && first.text == "<a><b><c><d>")
      endSocat()
      #expect(second.has("<2>", in: machine), "\(machine.errors)")

      // A new process of the ports serves the same peer.
      try machine.killDevice("vmdev-serial")
      try second.type("3")
      #expect(second.has("<2><3>", in: machine), "\(machine.errors)")
      let audit = try machine.control(["isolation"])
      #expect(audit.code == 0, "\(audit.output)")

      // What one sends before it goes is read, also when the next one is there already.
      let third = Peer(try StreamListener.connect(path))
      try third.type("z")
      try second.type(String(repeating: "x", count: 3000))
      second.close()
      #expect(machine.waits(60) { third.text.hasSuffix("<x><z>") }, "\(third.text.suffix(100))")
      // The echoes of the first few went to nobody.
      #expect((6000...9003).contains(third.text.utf8.count), "\(third.text.utf8.count)")
      try third.type("q")
      #expect(machine.exitCode(20) == exitCode(of: 0x16), "\(machine.errors)")
      #expect(!scratch.exists("com1.sock"))
    }

    @Test(
      "a reader that stops holds back what is sent, and loses none of it",
      .timeLimit(.minutes(8)))
    func stoppedReader() throws {
      let scratch = try Scratch()
      // Far more than the socket's buffers hold.
      let lines = 5000
      var file = MachineFile(serial: "unix:com1.sock")
      file.firmware = try scratch.assemble("stream", "LINES=\(lines)", "WAIT")
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      let expected = "g" + KillTests.text(lines: lines)
      let peer = try connect(machine, scratch["com1.sock"])
      #expect(machine.isUp())
      try peer.type("g")
      // It comes to a stand, and its process is killed while it does.
      var count = -1
      #expect(
        machine.waits(60) {
          let before = count
          HostClock.sleep(300_000_000)
          count = (try? peer.socket?.readableCount()) ?? 0
          return count > 0 && count == before
        })
      #expect(count < expected.utf8.count * 3 / 4)
      try machine.killDevice("vmdev-serial")
      #expect(try machine.status().state == "running")
      #expect(
        machine.waits(120) { peer.text.utf8.count >= expected.utf8.count * 7 / 8 },
        "\(machine.errors)")
      try machine.killDevice("vmdev-serial")
      #expect(
        eventually(120) {
          peer.text.utf8.count >= expected.utf8.count || !machine.process.isRunning
        })
      #expect(machine.exitCode() == exitCode(of: 0x15), "\(machine.errors)")
      #expect(peer.text == expected)
      #expect(machine.restarts("vmdev-serial") == 2)
    }

    @Test(
      "a port connects to a socket of another program, and again when that has been away",
      .timeLimit(.minutes(5)))
    func client() throws {
      let scratch = try Scratch()
      var file = MachineFile(serial: "connect:other.sock")
      file.firmware = try scratch.assemble("stream", "LINES=65535", "WAIT")
      do {
        let machine = try RunningMachine(file, in: scratch)
        defer { machine.end() }
        #expect(machine.exitCode(20) == 1)
        #expect(
          machine.errors.contains("other.sock\" does not exist; accepted: a Unix socket that"),
          "\(machine.errors)")
      }
      var listener: StreamListener? = try StreamListener.listen(scratch["other.sock"])
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      func peer() throws -> Peer {
        var poller = Poller()
        let listener = try #require(listener)
        poller.add(listener.descriptor, .readable)
        try #require(try poller.wait(timeout: 20_000_000_000) == 1, "\(machine.errors)")
        return Peer(try listener.accept())
      }
      do {
        let first = try peer()
        try first.type("g")
        #expect(first.has("g0000 the quick", in: machine))
      }
      // The guest goes on sending to nobody; then to whoever takes its place.
      do {
        let second = try peer()
        #expect(second.has(" the quick brown fox", in: machine))
        listener = nil
        try Files.remove(scratch["other.sock"])
      }
      HostClock.sleep(1_500_000_000)
      #expect(try machine.status().state == "running")
      listener = try StreamListener.listen(scratch["other.sock"])
      let third = try peer()
      #expect(third.has(" the quick brown fox", in: machine))
      #expect(try machine.control(["stop"]).code == 0)
      #expect(machine.exitCode(20) == 0, "\(machine.errors)")
      // What belongs to another program stays.
      #expect(scratch.exists("other.sock"))
    }
  }
}
