// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceProtocol
import LinuxSystem
import Monitor

struct Console: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Connect this terminal with a serial port of the machine.",
    discussion: """
      The port's back end has to be pty or unix:PATH. Every key goes to the guest, ctrl-c too; \
      ctrl-] leaves. A port at unix:PATH has one peer at a time: others wait their turn.
      """)
  @OptionGroup var machine: MachineName
  @Option(help: "The port: 1 to 4, for COM1 to COM4.")
  var port = 1

  func validate() throws {
    guard (1...4).contains(port) else { throw ValidationError("accepted: --port 1 to 4") }
  }

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in
      let reply: PortsReply = try machine.connect().ask(.ports, Empty())
      guard port <= reply.ports.count else {
        throw ControlClient.Failure(
          "the machine has no COM\(port); it has \(reply.ports.count) serial ports")
      }
      let line = try open(reply.ports[port - 1])
      Signals.block(Signals.ending)
      do throws(SystemError) {
        let signals = try Signals.descriptor(Signals.ending)
        let input = try Files.standardStream(0)
        let output = try Files.standardStream(1)
        let terminal = RawTerminal(input, interruptKey: 0)
        if terminal?.enter() == true {
          try? Files.standardStream(2).writeAll(
            Array("connected with COM\(port); ctrl-] leaves\r\n".utf8))
        }
        defer { terminal?.restore() }
        try Self.connect(line, input, output, signals)
      } catch {
        throw ControlClient.Failure("the connection has ended: \(error)")
      }
    }
  }

  private func open(_ backend: String) throws(ControlClient.Failure) -> Descriptor {
    let parts = backend.split(separator: ":", maxSplits: 1).map(String.init)
    let title = "COM\(port) is \(VisibleText.escape(backend))"
    let launcher = try MachineProcesses(machine).launcher
    do throws(SystemError) {
      switch parts.first {
      case "pty" where parts.count == 2:
        return try Files.open(parts[1], [.readWrite, .noTerminal, .noWait])
      case "unix" where parts.count == 2:
        // A relative path is one in the launcher's folder.
        let path = parts[1].hasPrefix("/") ? parts[1] : "/proc/\(launcher)/cwd/\(parts[1])"
        return try StreamListener.connect(path)
      default: break
      }
    } catch {
      throw ControlClient.Failure("\(title): \(error)")
    }
    throw ControlClient.Failure(
      parts.first == "stdio"
        ? "\(title): it is the terminal that vmlaunch was started in"
        : "\(title), which nobody can connect with; accepted: pty, unix:PATH")
  }

  private static let leaveKey: UInt8 = 0x1D

  /// Passes bytes both ways until the user leaves or one end is gone.
  private static func connect(
    _ line: Descriptor, _ input: Descriptor, _ output: Descriptor, _ signals: Descriptor
  ) throws(SystemError) {
    var waiting: [UInt8] = []
    var hasInput = true
    while true {
      var poller = Poller()
      poller.add(signals, .readable)
      poller.add(line, .readable)
      let writing = waiting.isEmpty ? nil : poller.add(line, .writable)
      let reading = hasInput && waiting.isEmpty ? poller.add(input, .readable) : nil
      _ = try poller.wait()
      if !poller[0].isEmpty { return }
      if !poller[1].isEmpty {
        do {
          let bytes = try line.read(4096)
          guard !bytes.isEmpty else { return }
          try output.writeAll(bytes)
        } catch {
          guard error.isNotReady || error.isInterrupted else { throw error }
        }
      }
      if let writing, !poller[writing].isEmpty {
        do {
          waiting.removeFirst(try line.write(waiting))
        } catch {
          guard error.isNotReady || error.isInterrupted else { throw error }
        }
      }
      if let reading, !poller[reading].isEmpty {
        let bytes = try input.read(4096)
        // Without more input what the guest says still comes.
        if bytes.isEmpty { hasInput = false }
        guard let end = bytes.firstIndex(of: leaveKey) else {
          waiting = bytes
          continue
        }
        try? line.writeAll(Array(bytes[..<end]))
        return
      }
    }
  }
}
