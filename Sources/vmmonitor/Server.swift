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
    /// The launcher's own terminal, with a serial port beside the monitor.
    case terminal(TerminalSession)
  }

  private final class Client {
    let socket: Descriptor
    /// Where its output goes.
    let sink: Descriptor
    /// When it last said something that had an answer, or came; on the host's clock.
    var lastAnswer = HostClock.monotonic()
    /// Whether it has ever said something that makes sense.
    var isKnown = false
    /// Whether nothing more comes from it.
    var isSilent = false
    var language: Language
    /// What it has not taken yet.
    var output: [UInt8] = []
    var isGone = false
    /// Whether it goes when it has taken what is left.
    var isLeaving = false

    init(_ socket: Descriptor, sink: Descriptor? = nil, _ language: Language) {
      self.socket = socket
      self.sink = sink ?? socket
      self.language = language
    }
  }

  private let link: MachineLink
  private let commands: QMPCommands
  private struct Listener {
    var socket: StreamListener
    var isDebugger = false
    var language: () -> Language
  }

  private var listeners: [Listener]
  private var clients: [Client] = []
  /// The serial port that shares the terminal, and the keys that it has not taken yet.
  private let serial: Descriptor?
  private var keys: [UInt8] = []

  /// The most clients at once; for one more, one that is idle goes.
  private static let mostClients = 24
  /// How long a client that is known has to be idle before it goes for another.
  private static let longIdle: UInt64 = 60_000_000_000
  /// A client that does not take its answers is dropped.
  private static let mostOutput = 16 << 20
  /// What is read of one client before the others have their turn: every byte may be a text of
  /// its own that wants an answer.
  private static let readingSize = 1 << 12

  init(
    _ link: MachineLink, _ schema: QMPSchema, qmp: StreamListener?, human: StreamListener?,
    gdb: StreamListener?, metrics: StreamListener?, stream: [Descriptor]
  ) {
    self.link = link
    serial = stream.count > 2 ? stream[2] : nil
    let commands = QMPCommands(link, schema)
    self.commands = commands
    var listeners: [Listener] = []
    func listen(_ socket: StreamListener?, _ language: @escaping () -> Language) {
      if let socket { listeners.append(Listener(socket: socket, language: language)) }
    }
    listen(qmp) { .qmp(QMPSession(commands)) }
    listen(human) { .human(HumanSession(HumanMonitor(link))) }
    listen(metrics) { .metrics(MetricsSession(link)) }
    if let gdb { listeners.append(Self.debuggerListener(gdb, link)) }
    self.listeners = listeners
    guard stream.count > 1 else { return }
    if link.settings.stream == .qmp {
      clients.append(Client(stream[0], sink: stream[1], .qmp(QMPSession(commands))))
    } else {
      let session = TerminalSession(HumanMonitor(link), hasSerial: serial != nil)
      clients.append(Client(stream[0], sink: stream[1], .terminal(session)))
    }
  }

  private static func debuggerListener(_ socket: StreamListener, _ link: MachineLink) -> Listener {
    Listener(socket: socket, isDebugger: true) { .gdb(GDBSession(link)) }
  }

  /// Serves gdb where a command wants it from now on, or no more.
  private func adoptDebuggerSocket() {
    guard let change = link.takeDebuggerChange() else { return }
    for client in clients {
      guard case .gdb(var session) = client.language else { continue }
      session.end()
      client.language = .gdb(session)
      client.isGone = true
    }
    clients.removeAll(where: \.isGone)
    listeners.removeAll(where: \.isDebugger)
    if let socket = change { listeners.append(Self.debuggerListener(socket, link)) }
  }

  /// Serves until the machine ends; never returns.
  func run() -> Never {
    _ = try? link.ask(.subscribe, Empty(), [], as: Empty.self)
    for client in clients { greet(client) }
    while !link.isGone { turn() }
    tellEvents()
    // What is left is sent as far as the clients take it at once.
    for client in clients { flush(client) }
    ProcessExit.now(0)
  }

  private func turn() {
    adoptDebuggerSocket()
    var poller = Poller()
    poller.add(link.core.socket.descriptor, .readable)
    poller.add(link.launcher.socket.descriptor, .readable)
    for listener in listeners { poller.add(listener.socket.descriptor, .readable) }
    let first = 2 + listeners.count
    for client in clients {
      // Who has answers to take says nothing new meanwhile.
      if !client.output.isEmpty {
        poller.add(client.sink, .writable)
      } else {
        let place = poller.add(client.socket, .readable)
        // A pipe whose other end is closed is always ready.
        if client.isSilent || isFull(client) { poller.change(place, client.socket, nil) }
      }
    }
    let serialPlace = serial.map { poller.add($0, serialInterest) }
    guard (try? poller.wait()) != nil else { return }
    if poller[0] != [] { link.hear() }
    if poller[1] != [] {
      // Nothing comes from the launcher by itself but its end.
      guard let packet = try? link.launcher.receive(wait: false) else { ProcessExit.now(0) }
      _ = packet
    }
    tellEvents()
    for (index, client) in clients.enumerated() where poller[first + index] != [] {
      if !client.output.isEmpty {
        flush(client)
      } else if !client.isSilent, !isFull(client) {
        hear(client)
      }
    }
    if let serialPlace, poller[serialPlace] != [] { hearSerial() }
    for client in clients where client.isGone {
      noteReplies(lost: client.output, of: client)
      if case .gdb(var session) = client.language { session.end() }
    }
    clients.removeAll(where: \.isGone)
    for (index, listener) in listeners.enumerated() where poller[2 + index] != [] {
      admit(listener.socket, listener.language)
    }
  }

  private func admit(_ listener: StreamListener, _ language: () -> Language) {
    guard let socket = try? listener.accept() else { return }
    guard makeRoom() else {
      link.counts.refusedClients += 1
      return
    }
    let client = Client(socket, language())
    clients.append(client)
    greet(client)
  }

  /// Lets a client go when there are too many; `false` when none can go.
  ///
  /// It is the oldest that never said anything of sense, or else the one that has been idle for
  /// longest. A debugger and the terminal stay.
  private func makeRoom() -> Bool {
    guard clients.count >= Self.mostClients else { return true }
    let others = clients.filter {
      switch $0.language {
      case .qmp, .human, .metrics: true
      case .gdb, .terminal: false
      }
    }
    let oldest: (Client, Client) -> Bool = { $0.lastAnswer < $1.lastAnswer }
    let known = others.filter(\.isKnown).min(by: oldest)
    let isIdle = known.map { HostClock.monotonic() &- $0.lastAnswer > Self.longIdle } ?? false
    guard let victim = others.filter({ !$0.isKnown }).min(by: oldest) ?? (isIdle ? known : nil)
    else { return false }
    noteReplies(lost: victim.output, of: victim)
    clients.removeAll { $0 === victim }
    link.counts.evictedClients += 1
    return true
  }

  private func greet(_ client: Client) {
    switch client.language {
    case .qmp(let session): send(client, session.greeting)
    case .human(let session): send(client, session.greeting)
    case .metrics: break
    case .terminal(var session):
      let text = session.begin()
      client.language = .terminal(session)
      send(client, text)
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
      // A terminal that has nothing more to say still shows what the port sends.
      if case .terminal = client.language { client.isSilent = true } else { client.isGone = true }
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
    case .terminal(var session):
      let output = session.take(bytes, now: HostClock.monotonic())
      client.language = .terminal(session)
      keys += output.serial
      tellEvents()
      send(client, output.terminal)
      sendKeys()
      return
    case .gdb(var session):
      answer = session.take(bytes)
      client.language = .gdb(session)
      if session.hasDetached { client.isLeaving = true }
      // A stop comes after the acknowledgement.
      send(client, answer)
      tellEvents()
      return
    }
    if !answer.isEmpty { client.lastAnswer = HostClock.monotonic() }
    switch client.language {
    case .qmp(let session): client.isKnown = session.hasNegotiated
    case .human: client.isKnown = client.isKnown || !answer.isEmpty
    case .gdb, .metrics, .terminal: break
    }
    // What the command has brought about comes before its answer.
    tellEvents()
    send(client, answer)
  }

  private func tellEvents() {
    while true {
      let events = link.takeEvents()
      guard !events.isEmpty else { return }
      tell(events)
    }
  }

  private func tell(_ events: [(event: EventMessage, nanoseconds: UInt64)]) {
    for (event, time) in events {
      if event.kind == .snapshotEnded { commands.jobs.end(event.detail, link) }
      for client in clients {
        switch client.language {
        case .qmp(let session):
          send(client, session.event(event, nanoseconds: time), isEvent: true)
        case .human, .metrics, .terminal: break
        case .gdb(var session):
          let text = session.event(event)
          client.language = .gdb(session)
          send(client, text)
        }
      }
    }
  }

  // MARK: - The serial port beside the terminal

  /// The most keys that wait for the port; no more are read meanwhile.
  private static let mostKeys = 4096
  /// What of the port's output waits for the terminal; no more is read meanwhile.
  private static let mostShown = 1 << 16

  private var terminal: Client? {
    clients.first { if case .terminal = $0.language { true } else { false } }
  }

  private func isFull(_ client: Client) -> Bool {
    if case .terminal = client.language { keys.count >= Self.mostKeys } else { false }
  }

  private var serialInterest: Poller.Events {
    var interest: Poller.Events = keys.isEmpty ? [] : .writable
    if let terminal, terminal.output.count < Self.mostShown { interest.insert(.readable) }
    return interest
  }

  /// Shows what the port has sent, and gives it keys that it had no room for.
  private func hearSerial() {
    sendKeys()
    guard let serial, let terminal, case .terminal(var session) = terminal.language,
      terminal.output.count < Self.mostShown,
      let bytes = try? serial.read(Self.readingSize), !bytes.isEmpty
    else { return }
    let shown = session.show(bytes, now: HostClock.monotonic())
    terminal.language = .terminal(session)
    send(terminal, shown)
  }

  private func sendKeys() {
    guard let serial else { return keys = [] }
    while !keys.isEmpty {
      guard let count = try? serial.write(keys), count > 0 else { return }
      keys.removeFirst(count)
    }
  }

  private func send(_ client: Client, _ text: String, isEvent: Bool = false) {
    send(client, Array(text.utf8), isEvent: isEvent)
  }

  private func send(_ client: Client, _ bytes: [UInt8], isEvent: Bool = false) {
    guard !bytes.isEmpty else { return }
    let isOver = client.output.count + bytes.count > Self.mostOutput
    guard !client.isGone, !isOver else {
      if isEvent {
        link.counts.lostEvents += 1
      } else {
        noteReplies(lost: bytes, of: client)
      }
      client.isGone = true
      return
    }
    client.output += bytes
    flush(client)
  }

  /// Counts what a client has not taken: each line that QMP ends is a reply.
  private func noteReplies(lost bytes: [UInt8], of client: Client) {
    guard !bytes.isEmpty else { return }
    guard case .qmp = client.language else { return link.counts.lostReplies += 1 }
    link.counts.lostReplies += UInt64(bytes.count { $0 == 0x0A })
  }

  private func flush(_ client: Client) {
    defer { if client.isLeaving, client.output.isEmpty { client.isGone = true } }
    while !client.output.isEmpty {
      do throws(SystemError) {
        let count = try client.sink.write(Array(client.output.prefix(1 << 16)))
        client.output.removeFirst(count)
      } catch {
        if !error.isNotReady && !error.isInterrupted { client.isGone = true }
        return
      }
    }
  }
}
