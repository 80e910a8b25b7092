// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
public import DeviceProtocol
internal import KVM
public import LinuxSystem
internal import Monitor
internal import Synchronization

/// The main thread of the core: what the launcher, the operator and the machine itself ask.
public final class MachineControl {
  private let machine: Machine
  private let launcher: Channel
  private let listener: PacketSocket?
  private var clients: [Channel] = []
  private var isStarted = false

  /// The most operators at once; more are turned away.
  private static let mostClients = 16

  public init(_ machine: Machine, launcher: Channel, listener: PacketSocket?) {
    self.machine = machine
    self.launcher = launcher
    self.listener = listener
  }

  /// Serves until the machine ends; never returns.
  public func run() -> Never {
    while true {
      var poller = Poller()
      poller.add(machine.eventFile, .readable)
      poller.add(launcher.socket.descriptor, .readable)
      if let listener { poller.add(listener.descriptor, .readable) }
      let first = listener == nil ? 2 : 3
      for client in clients { poller.add(client.socket.descriptor, .readable) }
      guard (try? poller.wait()) != nil else { continue }
      if poller[0] != [] { attend() }
      if poller[1] != [] { hearLauncher() }
      var gone: [Int] = []
      for index in clients.indices where poller[first + index] != [] {
        if !serve(clients[index]) { gone.append(index) }
      }
      for index in gone.reversed() { clients.remove(at: index) }
      if let listener, poller[2] != [] { admit(listener) }
    }
  }

  // MARK: - The machine

  private func attend() {
    for event in machine.takeEvents() {
      switch event {
      case .ready: startIfComplete()
      case .reset(let reason): reset(reason)
      case .end(let code, let reason): end(code, reason)
      case .fault(let message): fault(message)
      }
    }
  }

  private func startIfComplete() {
    guard !isStarted, machine.links.allSatisfy({ $0.status == .up }) else { return }
    isStarted = true
    machine.run()
    ThisProcess.forgetStartCode()
  }

  private func reset(_ reason: String) {
    do throws(KVMError) {
      try machine.reset()
    } catch {
      end(2, "the machine could not be reset: \(error)")
    }
  }

  private func fault(_ message: FaultMessage) {
    guard let link = machine.links.first(where: { $0.role == message.role }) else { return }
    if !isStarted {
      // A device that never came up: its process has said why, or the launcher knows.
      tell(.fault, message)
      return
    }
    let policy: CoreSettings.OnFault =
      message.kind == .poison && link.settings.onFault == .restart ? .pause : link.settings.onFault
    let reason = "\(message.role): \(message.reason)"
    switch policy {
    case .restart: tell(.fault, message)
    case .pause:
      link.status = .gone
      machine.pause(reason)
      tell(.fault, message)
    case .stop: end(2, reason)
    }
  }

  private func end(_ code: UInt8, _ reason: String) -> Never {
    machine.progress.withLock { $0.state = "ending" }
    machine.quit()
    tell(.ended, EndedMessage(code: code, reason: reason))
    ProcessExit.now(0)
  }

  private func tell<M: WireCodable>(_ request: LaunchRequest, _ message: M) {
    try? launcher.send(request.rawValue, sequence: 0, payload: message.wireBytes)
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
    do throws(ProtocolError) {
      switch LaunchRequest(rawValue: packet.header.request) {
      case .attach:
        let message: AttachMessage = try packet.decode()
        guard let descriptor = packet.descriptors.first else {
          throw ProtocolError("attach without a channel")
        }
        machine.attach(message.role, Channel(PacketSocket(descriptor)))
      case .detach:
        let message: FaultMessage = try packet.decode()
        machine.links.first { $0.role == message.role }?.status = .absent
        end(2, "\(message.role): \(message.reason)")
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
        try client.refuse(packet.header, "there is no request \(packet.header.request)")
        return true
      }
      do throws(Refusal) {
        try answer(request, packet, client)
      } catch {
        try client.refuse(packet.header, error.reason)
      }
      return true
    } catch {
      return false
    }
  }

  private func answer(_ request: ControlRequest, _ packet: Packet, _ client: Channel)
    throws(Refusal)
  {
    switch request {
    case .status: reply(client, packet, status())
    case .screendump:
      try forward(packet, to: "vga", as: .screendump, ScreendumpRequest.self, client)
    case .input: try forward(packet, to: "piix", as: .input, InputRequest.self, client)
    case .stop:
      reply(client, packet, Empty())
      end(0, "the operator stopped the machine")
    case .reset:
      reset("the operator asked for it")
      reply(client, packet, Empty())
    case .pause:
      machine.pause("the operator asked for it")
      reply(client, packet, Empty())
    case .resume:
      machine.resume()
      reply(client, packet, Empty())
    case .restartDevice:
      let message: DeviceRequest = try decode(packet)
      guard let link = machine.links.first(where: { $0.role == message.role }) else {
        throw Refusal("the machine has no device \(message.role)")
      }
      link.state.withLock {
        $0.isFaultReported = true
        $0.record = DeviceLink.FaultRecord()
      }
      tell(
        .fault,
        FaultMessage(
          role: message.role, kind: .operatorRestart, reason: "the operator asked for it"))
      reply(client, packet, Empty())
    }
  }

  private func decode<M: WireCodable>(_ packet: Packet) throws(Refusal) -> M {
    do throws(ProtocolError) {
      return try packet.decode()
    } catch {
      throw Refusal(error.reason)
    }
  }

  private func reply<M: WireCodable>(_ client: Channel, _ packet: Packet, _ message: M) {
    try? client.send(
      packet.header.request, flags: .reply, sequence: packet.header.sequence,
      payload: message.wireBytes, wait: false)
  }

  /// Hands a request on to a device and its reply back.
  private func forward<M: WireCodable>(
    _ packet: Packet, to role: String, as request: Request, _ type: M.Type, _ client: Channel
  ) throws(Refusal) {
    let message: M = try decode(packet)
    guard let link = machine.links.first(where: { $0.role == role }), link.status == .up else {
      throw Refusal("\(role) is not there")
    }
    guard let reply = link.ask(request, message, packet.descriptors, timeout: 3_000_000_000) else {
      throw Refusal("\(role) did not answer in time")
    }
    try? client.send(
      packet.header.request, flags: reply.header.flags, sequence: packet.header.sequence,
      payload: reply.payload, wait: false)
  }

  private func status() -> StatusReply {
    let progress = machine.progress.withLock { $0 }
    return StatusReply(
      machine: machine.settings.common.machine, state: progress.state, reason: progress.reason,
      accelerator: "kvm: chosen by the machine file", cpus: UInt32(machine.settings.cpus),
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
    let now = HostClock.monotonic()
    let isHopeless = progress.withLock { progress in
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
    CoreLog.line("CPU \(cpu): triple fault; the machine is reset\n\(registers)")
    post(.reset("triple fault"))
  }
}

/// Lines for the operator, on standard error; the launcher names the process.
public enum CoreLog {
  private static let output = Descriptor(owning: 2)

  /// Writes some lines.
  public static func line(_ text: String) { _ = try? output.write(Array((text + "\n").utf8)) }
}
