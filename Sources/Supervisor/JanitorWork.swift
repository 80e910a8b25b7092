// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

extension Janitor {
  /// Is the janitor: waits for the launcher's end, clears up and ends.
  public static func work() -> Never {
    // A session of its own keeps a terminal's signals away; these are for those of people.
    for signal in Signals.usual { Signals.ignore(signal) }
    Thread.name = "vmjanitor"
    try? Privileges.refuseNew()
    // Root's sockets may lie in folders of others.
    if Privileges.isRoot {
      try? Privileges.dropAllButFileAccess()
    } else {
      try? Privileges.dropAll()
    }
    var work = JanitorWork()
    do throws(SystemError) {
      try work.listen(PacketSocket(Descriptor(owning: 3)))
    } catch {
      ThisProcess.exit(1)  // Descriptor 3 is no launcher's.
    }
    work.clear()
    ThisProcess.exit(0)
  }
}

/// What the janitor knows.
struct JanitorWork {
  /// Sockets that were about to be made when nothing more was heard of them.
  private var expected: [String] = []
  private var sockets: [(path: String, file: Descriptor)] = []
  private var terminal: RawTerminal?

  /// Takes messages until the launcher's end of the socket closes.
  mutating func listen(_ launcher: PacketSocket) throws(SystemError) {
    while true {
      let message = try launcher.receive(8192)
      guard let first = message.bytes.first else { return }
      let rest = Array(message.bytes.dropFirst())
      let path = String(decoding: rest, as: UTF8.self)
      switch (Janitor.Message(rawValue: first), message.descriptors.first) {
      case (.expectSocket, _): expected.append(path)
      case (.socket, let file?):
        expected.removeAll { $0 == path }
        sockets.append((path, file))
      case (.terminal, let file?): terminal = RawTerminal(file, record: rest)
      default: break
      }
    }
  }

  /// Clears away what the launcher has left.
  func clear() {
    terminal?.restoreIfRaw()
    for socket in sockets { ControlSocket.remove(socket.path, ifStill: socket.file) }
    for path in expected { ControlSocket.removeDead(path) }
  }
}
