// SPDX-License-Identifier: Apache-2.0

internal import DeviceHost
internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor
internal import Operator

/// Serves every client of the sockets, one command after the other, until the machine ends.
final class Server {
  /// What a client speaks.
  private enum Language {
    case qmp(QMPSession)
    case human(HumanSession)
    case gdb(GDBSession)
    case metrics(MetricsSession)
  }

  private final class Client {
    let socket: Descriptor
    var language: Language
    /// What it has not taken yet.
    var output: [UInt8] = []
    var isGone = false
    /// Whether it goes when it has taken what is left.
    var isLeaving = false

    init(_ socket: Descriptor, _ language: Language) {
      self.socket = socket
      self.language = language
    }
  }

  private let link: MachineLink
  private let commands: QMPCommands
  private let listeners: [(socket: StreamListener, language: () -> Language)]
  private var clients: [Client] = []

  /// More clients at once are turned away.
  private static let mostClients = 24
  /// A client that does not take its answers is dropped.
  private static let mostOutput = 16 << 20
  /// What is read of one client before the others have their turn: every byte may be a text of
  /// its own that wants an answer.
  private static let readingSize = 1 << 12

  init(
    _ link: MachineLink, _ schema: QMPSchema, qmp: StreamListener?, human: StreamListener?,
    gdb: StreamListener?, metrics: StreamListener?
  ) {
    self.link = link
    let commands = QMPCommands(link, schema)
    self.commands = commands
    var listeners: [(socket: StreamListener, language: () -> Language)] = []
    if let qmp { listeners.append((qmp, { .qmp(QMPSession(commands)) })) }
    if let human { listeners.append((human, { .human(HumanSession(HumanMonitor(link))) })) }
    if let gdb { listeners.append((gdb, { .gdb(GDBSession(link)) })) }
    if let metrics { listeners.append((metrics, { .metrics(MetricsSession(link)) })) }
    self.listeners = listeners
  }

  /// Serves until the machine ends; never returns.
  func run() -> Never {
    _ = try? link.ask(.subscribe, Empty(), [], as: Empty.self)
    while !link.isGone { turn() }
    tellEvents()
    // What is left is sent as far as the clients take it at once.
    for client in clients { flush(client) }
    ProcessExit.now(0)
  }

  private func turn() {
    var poller = Poller()
    poller.add(link.core.socket.descriptor, .readable)
    poller.add(link.launcher.socket.descriptor, .readable)
    for listener in listeners { poller.add(listener.socket.descriptor, .readable) }
    let first = 2 + listeners.count
    for client in clients {
      // Who has answers to take says nothing new meanwhile.
      poller.add(client.socket, client.output.isEmpty ? .readable : .writable)
    }
    guard (try? poller.wait()) != nil else { return }
    if poller[0] != [] { link.hear() }
    if poller[1] != [] {
      // Nothing comes from the launcher by itself but its end.
      guard let packet = try? link.launcher.receive(wait: false) else { ProcessExit.now(0) }
      _ = packet
    }
    tellEvents()
    for (index, client) in clients.enumerated() where poller[first + index] != [] {
      if client.output.isEmpty { hear(client) } else { flush(client) }
    }
    for client in clients where client.isGone {
      if case .gdb(var session) = client.language { session.end() }
    }
    clients.removeAll(where: \.isGone)
    for (index, listener) in listeners.enumerated() where poller[2 + index] != [] {
      admit(listener.socket, listener.language)
    }
  }

  private func admit(_ listener: StreamListener, _ language: () -> Language) {
    guard let socket = try? listener.accept(), clients.count < Self.mostClients else { return }
    let client = Client(socket, language())
    clients.append(client)
    switch client.language {
    case .qmp(let session): send(client, session.greeting)
    case .human(let session): send(client, session.greeting)
    case .metrics: break
    case .gdb(var session):
      // One debugger at a time.
      let isOther = clients.dropLast().contains {
        if case .gdb = $0.language { true } else { false }
      }
      guard !isOther else {
        clients.removeLast()
        return
      }
      session.begin()
      client.language = .gdb(session)
    }
  }

  private func hear(_ client: Client) {
    let bytes: [UInt8]
    do throws(SystemError) {
      bytes = try client.socket.read(Self.readingSize)
    } catch {
      if !error.isNotReady && !error.isInterrupted { client.isGone = true }
      return
    }
    guard !bytes.isEmpty else {
      client.isGone = true
      return
    }
    let answer: String
    switch client.language {
    case .qmp(var session):
      // No copy: the splitter's buffer is the session's alone while it takes the bytes.
      client.language = .human(HumanSession(HumanMonitor(link)))
      answer = session.take(bytes)
      client.language = .qmp(session)
    case .human(var session):
      answer = session.take(bytes)
      client.language = .human(session)
    case .metrics(var session):
      answer = session.take(bytes)
      client.language = .metrics(session)
      if session.isOver { client.isLeaving = true }
    case .gdb(var session):
      answer = session.take(bytes)
      client.language = .gdb(session)
      if session.hasDetached { client.isLeaving = true }
      // A stop comes after the acknowledgement.
      send(client, answer)
      tellEvents()
      return
    }
    // What the command has brought about comes before its answer.
    tellEvents()
    send(client, answer)
  }

  private func tellEvents() {
    for (event, time) in link.takeEvents() {
      for client in clients {
        switch client.language {
        case .qmp(let session): send(client, session.event(event, nanoseconds: time))
        case .human, .metrics: break
        case .gdb(var session):
          let text = session.event(event)
          client.language = .gdb(session)
          send(client, text)
        }
      }
    }
  }

  private func send(_ client: Client, _ text: String) {
    guard !text.isEmpty, !client.isGone else { return }
    client.output += Array(text.utf8)
    guard client.output.count <= Self.mostOutput else {
      client.isGone = true
      return
    }
    flush(client)
  }

  private func flush(_ client: Client) {
    defer { if client.isLeaving, client.output.isEmpty { client.isGone = true } }
    while !client.output.isEmpty {
      do throws(SystemError) {
        let count = try client.socket.write(Array(client.output.prefix(1 << 16)))
        client.output.removeFirst(count)
      } catch {
        if !error.isNotReady && !error.isInterrupted { client.isGone = true }
        return
      }
    }
  }
}
