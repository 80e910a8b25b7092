// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
public import DeviceProtocol
internal import KVM
public import LinuxSystem
internal import Monitor
internal import Synchronization

/// The main thread of the core: what the launcher, the operator and the machine itself ask.
public final class MachineControl {
  let machine: Machine
  let launcher: Channel
  private let listener: PacketSocket?
  var clients: [Channel] = []
  var isStarted = false
  /// Devices whose faults hold the machine until the operator starts them anew.
  var held: Set<String> = []
  /// Whether the operator holds the machine.
  var isHeldByOperator = false
  /// What operators wait for.
  var forwards: [Forward] = []
  var restarts: [String: Restart] = [:]
  /// Who wants to be told what happens.
  var subscribers: [PacketSocket] = []
  /// Who has register accesses traced.
  var tracer: PacketSocket?
  /// The level of lines that the launcher was told last.
  var logLevel: LogLevel
  /// Events that subscribers have not taken.
  var lostEvents: UInt64 = 0
  /// Who waits for an access to a port.
  var portReply: PendingReply?
  /// Work on a snapshot that is under way, and what has to wait for its end.
  var work: SnapshotWork?
  var postponed: [MachineEvent] = []
  var launcherSequence: UInt32 = 0

  /// The most operators at once; more are turned away.
  private static let mostClients = 16

  public init(_ machine: Machine, launcher: Channel, listener: PacketSocket?) {
    self.machine = machine
    self.launcher = launcher
    self.listener = listener
    logLevel = machine.settings.logLevel
  }

  /// Serves until the machine ends; never returns.
  public func run() -> Never {
    while true { turn() }
  }

  /// Waits for the next event and deals with what is ready.
  func turn() {
    var poller = Poller()
    poller.add(machine.eventFile, .readable)
    poller.add(launcher.socket.descriptor, .readable)
    if let listener { poller.add(listener.descriptor, .readable) }
    let first = listener == nil ? 2 : 3
    for client in clients { poller.add(client.socket.descriptor, .readable) }
    guard (try? poller.wait(timeout: timeout())) != nil else { return }
    machine.handOnCollected()
    if poller[0] != [] { attend() }
    var gone: [Int] = []
    for index in clients.indices where poller[first + index] != [] {
      if !serve(clients[index]) { gone.append(index) }
    }
    for index in gone.reversed() {
      let client = clients.remove(at: index)
      subscribers.removeAll { $0 === client.socket }
      stopTracing(client.socket)
    }
    // Both may add clients, which were not polled.
    if poller[1] != [] { hearLauncher() }
    if let listener, poller[2] != [] { admit(listener) }
    settle()
  }

  /// How long to wait for an event: until an answer is due, or what KVM has collected is late.
  private func timeout() -> UInt64? {
    let patience = patience()
    guard let collected = machine.accelerator.collected, collected.isUsed,
      machine.progress.withLock({ $0.state == "running" })
    else { return patience }
    return min(patience ?? .max, Self.lateness)
  }

  /// How late a posted write may be that no access follows, in nanoseconds: a screen's flicker.
  private static let lateness: UInt64 = 50_000_000

  // MARK: - The machine

  /// The most events that wait for the end of work on a snapshot.
  private static let mostPostponed = 128

  private func attend() {
    for event in machine.takeEvents() {
      switch event {
      case .reset, .suspend, .wake, .hold, .debugStop, .notice:
        if work != nil {
          // A device may go on and on: what is beyond is lost, as notices are.
          if postponed.count < Self.mostPostponed { postponed.append(event) }
          continue
        }
      case .ready, .end, .fault: break
      }
      switch event {
      case .ready:
        startIfComplete()
        settleRestarts()
      case .reset(let reason): reset(reason, byGuest: true)
      case .end(let code, let reason): end(code, reason, byGuest: true)
      case .suspend:
        if machine.suspend() { announce(EventMessage(.suspend, byGuest: true)) }
      case .wake: wake()
      case .fault(let message): fault(message)
      case .hold(let reason):
        pauseForHost(reason)
      case .debugStop(let cpu, let reason): stopForDebugger(cpu, reason)
      case .notice(let notice): tell(of: notice)
      }
    }
  }

  private func startIfComplete() {
    guard !isStarted, !isHeldByOperator, machine.links.allSatisfy({ $0.status == .up }) else {
      return
    }
    isStarted = true
    machine.run()
  }

  private func reset(_ reason: String, byGuest: Bool = false) {
    do throws(KVMError) {
      try machine.reset()
      announce(EventMessage(.reset, byGuest: byGuest, detail: reason))
    } catch {
      end(2, "the machine could not be reset: \(error)")
    }
  }

  /// Resets the machine as one that wakes.
  private func wake() {
    do throws(KVMError) {
      try machine.reset(isWaking: true)
      announce(EventMessage(.wakeup))
    } catch {
      end(2, "the machine could not be woken: \(error)")
    }
  }

  private func fault(_ message: FaultMessage) {
    guard let link = machine.links.first(where: { $0.role == message.role }) else { return }
    let reason = "\(message.role): \(message.reason)"
    if !isStarted {
      // A device that never comes up: its process has said why, or the launcher knows.
      if message.kind == .poison { end(2, reason) }
      tell(.fault, message)
      return
    }
    switch link.settings.onFault {
    case .restart where message.kind != .poison: tell(.fault, message)
    case .restart, .pause:
      hold(message.role, reason)
      tell(.fault, message)
    case .stop: end(2, reason)
    }
  }

  /// Holds the machine because of a device.
  private func hold(_ role: String, _ reason: String) {
    held.insert(role)
    announce(EventMessage(.deviceFault, detail: reason))
    if let restart = restarts.removeValue(forKey: role), let reply = restart.reply {
      reply.refuse(reason)
    }
    guard !machine.progress.withLock({ $0.state == "paused" }) else {
      machine.progress.withLock { $0.reason = reason }
      return
    }
    machine.pause(reason)
    announce(EventMessage(.stop, detail: reason))
  }

  func end(_ code: UInt8, _ reason: String, byGuest: Bool = false) -> Never {
    machine.progress.withLock { $0.state = "ending" }
    announce(EventMessage(.shutdown, byGuest: byGuest, detail: reason))
    machine.quit()
    tell(.ended, EndedMessage(code: code, reason: reason))
    ProcessExit.now(0)
  }

  func tell<M: WireCodable>(
    _ request: LaunchRequest, _ message: M, _ descriptors: [Descriptor] = []
  ) {
    try? launcher.send(request.rawValue, sequence: 0, payload: message.wireBytes, descriptors)
  }

  // MARK: - The launcher

  private func hearLauncher() {
    do throws(ChannelError) {
      while let packet = try launcher.receive(wait: false) { try hear(packet) }
    } catch {
      // Without its launcher a machine has nobody to end it: it ends itself, in order.
      machine.quit()
      ProcessExit.now(1)
    }
  }

  private func hear(_ packet: Packet) throws(ChannelError) {
    guard !packet.header.flags.contains(.reply) else { return hearReply(packet) }
    do throws(ProtocolError) {
      switch LaunchRequest(rawValue: packet.header.request) {
      case .attach:
        let message: AttachMessage = try packet.decode()
        guard let descriptor = packet.descriptors.first else {
          throw ProtocolError("attach without a channel")
        }
        let channel = Channel(PacketSocket(descriptor))
        // The process that speaks QMP is an operator like others, which needs no socket to find.
        if message.role == "monitor" {
          clients.append(channel)
        } else {
          machine.attach(message.role, channel)
        }
      case .stop: end(0, "the machine was stopped")
      default: throw ProtocolError("unexpected message \(packet.header.request)")
      }
    } catch {
      throw .broken(error)
    }
  }

  // MARK: - Operators

  private func admit(_ listener: PacketSocket) {
    guard let socket = try? listener.accept(), clients.count < Self.mostClients else { return }
    clients.append(Channel(socket))
  }

  /// Serves what a client has sent; `false` when it is gone, or is turned away.
  private func serve(_ client: Channel) -> Bool {
    do throws(ChannelError) {
      guard let packet = try client.receive(wait: false) else { return true }
      guard let request = ControlRequest(rawValue: packet.header.request),
        packet.header.flags == []
      else {
        // A client that does not read its replies is dropped rather than waited for.
        try client.refuse(
          packet.header, "there is no request \(packet.header.request)", wait: false)
        return true
      }
      do throws(Refusal) {
        try answer(request, packet, client)
      } catch {
        try client.refuse(packet.header, error.reason, wait: false)
      }
      return true
    } catch {
      return false
    }
  }

  private func answer(_ request: ControlRequest, _ packet: Packet, _ client: Channel)
    throws(Refusal)
  {
    guard work == nil || Self.isQuiet(request) else { throw Refusal(Self.snapshotReason) }
    switch request {
    case .status: reply(client, packet, status())
    case .metrics: reply(client, packet, metrics())
    case .trace:
      try trace(try decode(packet), client)
      reply(client, packet, Empty())
    case .traceRecords:
      guard tracer === client.socket else { throw Refusal("this client traces nothing") }
      reply(client, packet, traceRecords())
    case .logLevel: reply(client, packet, LogLevelMessage(level: try setLogLevel(decode(packet))))
    case .ports: reply(client, packet, PortsReply(ports: machine.settings.ports.map(\.backend)))
    case .screendump:
      try forward(packet, to: "vga", as: .screendump, ScreendumpRequest.self, client)
    case .input: try forward(packet, to: "piix", as: .input, InputRequest.self, client)
    case .pointer:
      try forward(packet, to: "piix", as: .pointer, PointerRequest.self, client)
    case .resize: try forward(packet, to: "ide", as: .resize, ResizeRequest.self, client)
    case .sendBreak:
      try forward(packet, to: "serial", as: .sendBreak, BreakRequest.self, client)
    case .drives: try forward(packet, to: "ide", as: .drives, Empty.self, client)
    case .interruptChips: reply(client, packet, try interruptChips())
    case .port: try accessPort(packet, client)
    case .snapshot: try snapshot(packet, client)
    case .medium: try changeMedium(packet, client)
    case .powerButton:
      let wakes = machine.progress.withLock { $0.isSuspended }
      try forward(packet, to: "piix", as: .powerButton, Empty.self, client)
      if !wakes { announce(EventMessage(.powerdown)) }
    case .stop:
      reply(client, packet, Empty())
      end(0, "the operator stopped the machine")
    case .reset:
      reset("the operator asked for it")
      reply(client, packet, Empty())
    case .pause:
      pauseForOperator()
      reply(client, packet, Empty())
    case .resume:
      try resumeForOperator()
      isStarted = true
      reply(client, packet, Empty())
    case .restartDevice: try restart(packet, client)
    case .subscribe:
      if !subscribers.contains(where: { $0 === client.socket }) {
        subscribers.append(client.socket)
      }
      reply(client, packet, Empty())
    case .event: throw Refusal("events come from the machine")
    case .vcpu: reply(client, packet, try registers(try decode(packet)))
    case .setVCPU:
      try setRegisters(try decode(packet))
      reply(client, packet, Empty())
    case .readMemory: reply(client, packet, try readMemory(try decode(packet)))
    case .writeMemory:
      try writeMemory(try decode(packet))
      reply(client, packet, Empty())
    case .functions: reply(client, packet, functions())
    case .addressMap: reply(client, packet, addressMap())
    case .nmi:
      try sendNMI()
      reply(client, packet, Empty())
    case .debug:
      try debug(try decode(packet))
      reply(client, packet, Empty())
    }
  }

  func decode<M: WireCodable>(_ packet: Packet) throws(Refusal) -> M {
    do throws(ProtocolError) {
      return try packet.decode()
    } catch {
      throw Refusal(error.reason)
    }
  }

  func reply<M: WireCodable>(_ client: Channel, _ packet: Packet, _ message: M) {
    try? client.send(
      packet.header.request, flags: .reply, sequence: packet.header.sequence,
      payload: message.wireBytes, wait: false)
  }

  private func status() -> StatusReply {
    let progress = machine.progress.withLock { $0 }
    return StatusReply(
      machine: machine.settings.common.machine, state: progress.state, reason: progress.reason,
      accelerator: machine.accelerator.text, cpus: UInt32(machine.settings.cpus),
      memoryByteCount: machine.settings.memoryByteCount, clock: machine.clock.now().nanoseconds,
      devices: machine.links.map {
        StatusReply.Device(
          role: $0.role, state: "\($0.status)", restarts: progress.restarts[$0.role] ?? 0,
          live: $0.liveCount.load(ordering: .relaxed),
          posted: $0.postedCount.load(ordering: .relaxed),
          mirrored: $0.mirroredCount.load(ordering: .relaxed))
      })
  }
}

extension Machine {
  /// Notes a triple fault: the machine is reset, unless it faults again and again.
  func tripleFault(_ cpu: Int, _ registers: String) {
    let isHopeless = progress.withLock { progress in
      // Taken under the lock, so that it is not before what another vCPU has put in.
      let now = HostClock.monotonic()
      progress.tripleFaults = progress.tripleFaults.filter { now - $0 < 10_000_000_000 } + [now]
      return progress.tripleFaults.count >= 3
    }
    guard !isHopeless else {
      post(
        .end(
          code: 2,
          reason: "CPU \(cpu): triple fault, the third within ten seconds\n\(registers)"))
      return
    }
    CoreLog.line("CPU \(cpu): triple fault; the machine is reset\n\(registers)", .warning)
    post(.reset("triple fault"))
  }
}
