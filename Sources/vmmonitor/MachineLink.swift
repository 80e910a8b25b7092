// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor
internal import Operator

/// The channels to the core and to the launcher.
final class MachineLink: MachineAccess {
  let settings: MonitorSettings
  let core: Channel
  let launcher: Channel
  /// What has happened while a reply was waited for, and when.
  private(set) var events: [(event: EventMessage, nanoseconds: UInt64)] = []
  private(set) var isGone = false
  private var sequence: UInt32 = 0
  var media: [UInt8: String] = [:]
  private(set) var isHeldForHost = false
  var counts = MonitorCounts()
  /// The socket that a command has had made for gdb since it was last looked at; `nil` in it where
  /// there is to be none.
  private var debuggerChange: StreamListener??

  /// Less than a client of vmctl's kind waits.
  private static let patience: UInt64 = 9_000_000_000
  /// Longer than the core gives up a snapshot.
  private static let longPatience: UInt64 = 3_600_000_000_000
  private static let mostEvents = 4096

  init(_ settings: MonitorSettings, core: Channel, launcher: Channel) {
    self.settings = settings
    self.core = core
    self.launcher = launcher
  }

  func takeEvents() -> [(event: EventMessage, nanoseconds: UInt64)] {
    defer { events = [] }
    return events
  }

  /// Takes an event that has come by itself.
  func hear() {
    do throws(ChannelError) {
      while let packet = try core.receive(wait: false) { note(packet) }
    } catch {
      isGone = true
    }
  }

  private func note(_ packet: Packet) {
    guard packet.header.request == Control.event.rawValue, packet.header.flags == [],
      let event = try? packet.decode(EventMessage.self)
    else { return }
    if let name = QMPSession.name(of: event.kind) { counts.events[name, default: 0] += 1 }
    guard events.count < Self.mostEvents else {
      counts.lostEvents += 1
      return
    }
    events.append((event, HostClock.unixNanoseconds()))
    let words = event.detail.split(separator: " ", maxSplits: 4)
    switch event.kind {
    case .resume: isHeldForHost = false
    case .hostError where words.count > 2 && words[2] == "hold": isHeldForHost = true
    case .trayMoved where words.count == 2 && words[1] == "1":
      if let slot = UInt8(words[0]) { media[slot] = "" }
    default: break
    }
  }

  // MARK: - Asking

  func ask<Q: WireCodable, A: WireCodable>(
    _ request: Control, _ question: Q, _ descriptors: [Descriptor], as type: A.Type
  ) throws(CommandError) -> A {
    try ask(core, request.rawValue, question, descriptors).value
  }

  func askLong<Q: WireCodable, A: WireCodable>(
    _ request: Control, _ question: Q, as type: A.Type
  ) throws(CommandError) -> A {
    try ask(core, request.rawValue, question, patience: Self.longPatience).value
  }

  func post(_ event: EventMessage) {
    if let name = QMPSession.name(of: event.kind) { counts.events[name, default: 0] += 1 }
    events.append((event, HostClock.unixNanoseconds()))
  }

  private func ask<Q: WireCodable, A: WireCodable>(
    _ channel: Channel, _ request: UInt32, _ question: Q, _ descriptors: [Descriptor] = [],
    patience: UInt64 = MachineLink.patience
  ) throws(CommandError) -> (value: A, descriptors: [Descriptor]) {
    guard !isGone else { throw CommandError("the machine has ended") }
    sequence &+= 1
    let end = HostClock.monotonic() + patience
    do throws(ChannelError) {
      try channel.send(
        request, sequence: sequence, payload: question.wireBytes, descriptors, wait: false)
      while true {
        let now = HostClock.monotonic()
        let packet = try channel.receive(timeout: end > now ? end - now : 0)
        guard packet.header.flags.contains(.reply) else {
          note(packet)
          continue
        }
        // The late answer to a question that was given up.
        guard packet.header.sequence == sequence else { continue }
        return (try Self.read(packet), packet.descriptors)
      }
    } catch {
      switch error {
      case .refused(let refusal): throw CommandError(VisibleText.escape("\(refusal)"))
      case .timedOut: throw CommandError("the machine did not answer in time")
      case .closed:
        isGone = true
        throw CommandError("the machine has ended")
      default: throw CommandError(VisibleText.escape("\(error)"))
      }
    }
  }

  private static func read<A: WireCodable>(_ packet: Packet) throws(ChannelError) -> A {
    let refusal: Refusal
    do throws(ProtocolError) {
      guard packet.header.flags.contains(.refusal) else { return try packet.decode() }
      refusal = try packet.decode()
    } catch {
      throw .broken(error)
    }
    throw .refused(refusal)
  }

  func threads() throws(CommandError) -> [ThreadsReply.Entry] {
    let reply: (value: ThreadsReply, descriptors: [Descriptor]) = try ask(
      launcher, LaunchRequest.threads.rawValue, Empty())
    return reply.value.threads
  }

  func processes() throws(CommandError) -> ProcessesReply {
    let reply: (value: ProcessesReply, descriptors: [Descriptor]) = try ask(
      launcher, LaunchRequest.processes.rawValue, Empty())
    return reply.value
  }

  func openMedium(_ path: String) throws(CommandError) -> (image: Descriptor, byteCount: UInt64) {
    guard path.utf8.count <= 4000 else { throw CommandError("the path is too long") }
    let reply: (value: DiscReply, descriptors: [Descriptor]) = try ask(
      launcher, LaunchRequest.openMedium.rawValue, DiscRequest(path: path))
    guard let image = reply.descriptors.first else { throw CommandError("no image came") }
    return (image, reply.value.byteCount)
  }

  func setDebuggerSocket(isWanted: Bool, at path: String) throws(CommandError) -> String {
    guard path.utf8.count <= 4000 else { throw CommandError("the path is too long") }
    let reply: (value: DebuggerSocketReply, descriptors: [Descriptor]) = try ask(
      launcher, LaunchRequest.debuggerSocket.rawValue,
      DebuggerSocketRequest(isWanted: isWanted, path: path))
    guard !isWanted || !reply.descriptors.isEmpty else { throw CommandError("no socket came") }
    debuggerChange = .some(isWanted ? reply.descriptors.first.map { StreamListener($0) } : nil)
    return VisibleText.escape(reply.value.path)
  }

  /// What has become of the socket that gdb connects to; `nil` when nothing has.
  func takeDebuggerChange() -> StreamListener?? {
    defer { debuggerChange = nil }
    return debuggerChange
  }

  func makeFile(_ path: String) throws(CommandError) -> Descriptor {
    guard path.utf8.count <= 4000 else { throw CommandError("the path is too long") }
    let reply: (value: Empty, descriptors: [Descriptor]) = try ask(
      launcher, LaunchRequest.openOutput.rawValue, OutputRequest(path: path))
    guard let file = reply.descriptors.first else { throw CommandError("no file came") }
    return file
  }
}
