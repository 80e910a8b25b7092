// SPDX-License-Identifier: Apache-2.0

internal import DeviceHost
internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import Serial

/// The four UARTs and their back ends.
struct SerialEndpoint: DeviceEndpoint {
  private var ports = SerialPorts()
  private var backends: [SerialBackend]
  /// The launcher, which says who has connected.
  private let launcher: Channel
  private var launcherSource = -1

  /// Takes the settings and the descriptors that they name.
  init(
    _ settings: SerialSettings, _ descriptors: [Descriptor], launcher: Channel
  ) throws(SystemError) {
    self.launcher = launcher
    var rest = descriptors[...]
    backends = []
    for port in settings.ports { backends.append(try SerialBackend(port, &rest)) }
  }

  // MARK: - Claims

  /// The entries of the register table that mirror LSR and MSR.
  private static func entry(_ port: Int, _ register: Int) -> Int { 2 * port + register }

  func claims() -> Claims {
    var claims = Claims()
    for index in backends.indices {
      let claim = SerialPorts.claims[index]
      let region = UInt16(index)
      claims.ports.append(PortClaim(region: region, base: claim.base, count: claim.portCount))
      claims.registers += [
        // Nothing reads THR back, and the queue behind it has room for a full ring.
        RegisterClaim(region: region, offset: 0, write: .posted),
        RegisterClaim(
          region: region, offset: 5, read: .mirrored, entry: UInt16(Self.entry(index, 0))),
        RegisterClaim(
          region: region, offset: 6, read: .mirrored, entry: UInt16(Self.entry(index, 1))),
      ]
    }
    claims.lines = interrupts.map { LineClaim(interrupt: $0) }
    return claims
  }

  /// The ISA interrupts that the ports there are drive, in the order of the claims.
  private var interrupts: [UInt8] {
    var interrupts: [UInt8] = []
    for index in backends.indices {
      let interrupt = SerialPorts.claims[index].irq
      if !interrupts.contains(interrupt) { interrupts.append(interrupt) }
    }
    return interrupts
  }

  // MARK: - Accesses

  mutating func read(region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices)
    -> UInt64
  {
    guard Int(region) < backends.count, let offset = UInt16(exactly: offset) else {
      return width.floating
    }
    return ports.uarts[Int(region)].read(at: offset, width: width, now: services.now)
  }

  mutating func write(
    _ value: UInt64, region: UInt16, offset: UInt64, width: AccessWidth, services: HostServices
  ) {
    guard Int(region) < backends.count, let offset = UInt16(exactly: offset) else { return }
    ports.uarts[Int(region)].write(value, at: offset, width: width, now: services.now)
  }

  // MARK: - Events

  mutating func granted(_ services: HostServices) throws(ChannelError) {
    for index in backends.indices { backends[index].watch(services.watcher) }
    if backends.contains(where: \.hasPeers) {
      launcherSource = services.watcher.add(launcher.socket.descriptor, .readable)
    }
  }

  mutating func restored(_ services: HostServices) {
    for index in backends.indices { backends[index].restored() }
  }

  mutating func ready(_ sources: UInt64, services: HostServices) {
    if launcherSource >= 0, sources & 1 << UInt64(launcherSource) != 0 { takePeers(services) }
    for index in backends.indices { backends[index].ready(sources, services.watcher) }
    feed(services)
  }

  /// Takes the peers that the launcher has accepted.
  private mutating func takePeers(_ services: HostServices) {
    do throws(ChannelError) {
      while let packet = try launcher.receive(wait: false) {
        guard packet.header.request == LaunchRequest.connection.rawValue,
          let peer = packet.descriptors.first
        else { continue }
        let port: Int
        do throws(ProtocolError) {
          port = Int((try packet.decode() as ConnectionMessage).port)
        } catch {
          throw .broken(error)
        }
        guard port < backends.count else { continue }
        backends[port].connect(peer, services.watcher)
      }
    } catch {
      // The launcher is gone, and this process goes with it.
      services.watcher.set(launcherSource, isOn: false)
    }
  }

  var deadline: VMTime? { ports.deadline }

  mutating func elapsed(_ services: HostServices) { ports.advance(to: services.now) }

  mutating func publish(_ services: HostServices) {
    feed(services)
    for index in backends.indices {
      let line = ports.uarts[index].lineStatus
      let modem = ports.uarts[index].modemStatus
      // Posted bytes cannot make THRE wrong: the queue has room for a full ring beyond the
      // level at which it turns off.
      services.mirror(
        Self.entry(index, 0), line.hasSideEffect ? nil : UInt32(line.value), withPosts: true)
      services.mirror(
        Self.entry(index, 1), modem.hasSideEffect ? nil : UInt32(modem.value), withPosts: true)
    }
    for (place, interrupt) in interrupts.enumerated() {
      let level = ports.interrupt(irq: interrupt)
      if ports.takePulse(irq: interrupt), level { services.setLine(place, false) }
      services.setLine(place, level)
    }
  }

  mutating func pump(_ services: HostServices) -> Bool {
    var changed = false
    for index in backends.indices {
      let before = ports.uarts[index].outgoingCount
      changed = backends[index].pump(&ports.uarts[index], services.watcher) || changed
      let sent = before - ports.uarts[index].outgoingCount
      if sent > 0 {
        services.count(UInt64(sent), in: DeviceCounter.place(.sentBytes, port: index))
      }
    }
    return changed
  }

  /// Gives the receivers what has come in, as far as they have room.
  private mutating func feed(_ services: HostServices) {
    for index in backends.indices {
      while ports.uarts[index].canReceive, let byte = backends[index].nextInput() {
        ports.uarts[index].receive(byte, now: services.now)
        services.count(1, in: DeviceCounter.place(.receivedBytes, port: index))
      }
      backends[index].updateWatch(services.watcher)
    }
  }

  mutating func reset(_ services: HostServices) { ports.reset() }

  mutating func sendBreak(_ request: BreakRequest, services: HostServices) throws(Refusal) {
    let port = Int(request.port)
    guard port < backends.count else { throw Refusal("there is no port COM\(port + 1)") }
    ports.uarts[port].receiveBreak(now: services.now)
  }

  mutating func flush(_ services: HostServices) {
    // A reader that has stopped reading does not hold up the machine's end for ever.
    let end = HostClock.monotonic() + 1_000_000_000
    while ports.uarts.indices.contains(where: { ports.uarts[$0].hasOutgoing }),
      HostClock.monotonic() < end
    {
      guard !pump(services) else { continue }
      for index in backends.indices { backends[index].lookAtOutput() }
    }
  }

  // MARK: - State

  @specialized(where V == StateEncoder)
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("ports", &ports)
    visitor.parts("backend", &backends)
  }
}
