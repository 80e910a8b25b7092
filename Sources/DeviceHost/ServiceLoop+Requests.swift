// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem

/// What comes by other ways than the lane: the core's requests, back ends, workers.
extension ServiceLoop {
  mutating func attend<E: DeviceEndpoint>(_ endpoint: inout E) {
    let sources = services.watcher.take()
    if sources & 1 != 0 || !services.deferred.isEmpty { obey(&endpoint) }
    services.interruptsEnded(sources)
    if sources & ~1 != 0 {
      endpoint.ready(sources, services: services)
      commit(&endpoint)
      endpoint.publish(services)
    }
    services.watcher.rearm(sources)
  }

  /// Does what the core asks over the control channel.
  private mutating func obey<E: DeviceEndpoint>(_ endpoint: inout E) {
    do throws(ChannelError) {
      while true {
        let packet: Packet
        if !services.deferred.isEmpty {
          packet = services.deferred.removeFirst()
        } else if let next = try services.channel.receive(wait: false) {
          packet = next
        } else {
          return
        }
        try obey(packet, &endpoint)
      }
    } catch {
      switch error {
      case .closed: ProcessExit.now(0)
      default: DeviceProcess.end("\(error)")
      }
    }
  }

  private mutating func obey<E: DeviceEndpoint>(_ packet: Packet, _ endpoint: inout E)
    throws(ChannelError)
  {
    let header = packet.header
    guard !header.flags.contains(.reply), let request = Request(rawValue: header.request) else {
      throw .broken(ProtocolError("unexpected message \(header.request)"))
    }
    if lane.head != tail { drain(&endpoint, to: lane.head) }
    do {
      switch request {
      case .reset, .wake:
        let _: Empty = try packet.decode()
        services.isWaking = header.request == Request.wake.rawValue
        endpoint.reset(services)
        commit(&endpoint)
        endpoint.publish(services)
        try services.channel.reply(to: header, Empty())
      case .pause:
        let _: Empty = try packet.decode()
        endpoint.pause(services)
        commit(&endpoint)
        endpoint.publish(services)
        try services.channel.reply(to: header, Empty())
      case .resume:
        let _: Empty = try packet.decode()
        endpoint.resume(services)
        commit(&endpoint)
        try services.channel.reply(to: header, Empty())
      case .quit:
        let _: Empty = try packet.decode()
        endpoint.flush(services)
        commit(&endpoint)
        try services.channel.reply(to: header, Empty())
        ProcessExit.now(0)
      case .screendump:
        let message: ScreendumpRequest = try packet.decode()
        services.attached = packet.descriptors.first
        defer { services.attached = nil }
        do throws(Refusal) {
          let reply = try endpoint.screendump(Int(message.byteCount), services: services)
          try? services.channel.reply(to: header, reply)
        } catch {
          try? services.channel.refuse(header, error.reason)
        }
      case .input:
        endpoint.input(try packet.decode(), services: services)
        commit(&endpoint)
        endpoint.publish(services)
        try services.channel.reply(to: header, Empty())
      case .pointer:
        endpoint.point(try packet.decode(), services: services)
        commit(&endpoint)
        endpoint.publish(services)
        try services.channel.reply(to: header, Empty())
      case .drives:
        let _: Empty = try packet.decode()
        do throws(Refusal) {
          let reply = try endpoint.drives(services)
          try? services.channel.reply(to: header, reply)
        } catch {
          try? services.channel.refuse(header, error.reason)
        }
      case .medium:
        let message: MediumRequest = try packet.decode()
        services.attached = packet.descriptors.first
        defer { services.attached = nil }
        let services = services
        try answer(header, &endpoint) { (endpoint: inout E) throws(Refusal) in
          try endpoint.changeMedium(message, services: services)
        }
      case .resize:
        let message: ResizeRequest = try packet.decode()
        let services = services
        try answer(header, &endpoint) { (endpoint: inout E) throws(Refusal) in
          try endpoint.resize(message, services: services)
        }
      case .sendBreak:
        let message: BreakRequest = try packet.decode()
        let services = services
        try answer(header, &endpoint) { (endpoint: inout E) throws(Refusal) in
          try endpoint.sendBreak(message, services: services)
        }
      case .snapshot:
        let message: DriveSnapshotRequest = try packet.decode()
        services.attached = packet.descriptors.first
        defer { services.attached = nil }
        do throws(Refusal) {
          let reply = try endpoint.snapshot(message, services: services)
          commit(&endpoint)
          try? services.channel.reply(to: header, reply)
        } catch {
          commit(&endpoint)
          try? services.channel.refuse(header, error.reason)
        }
        endpoint.publish(services)
      case .powerButton:
        let _: Empty = try packet.decode()
        let services = services
        try answer(header, &endpoint) { (endpoint: inout E) throws(Refusal) in
          try endpoint.pressPowerButton(services)
        }
      case .hello, .claim, .ready, .dma, .moveRegion, .routePIRQ, .power, .hold, .notice,
        .mapWindow:
        throw ChannelError.broken(ProtocolError("the core sent \(request)"))
      }
    } catch let error as ProtocolError {
      throw .broken(error)
    } catch let error as ChannelError {
      throw error
    } catch {
      throw .closed
    }
  }

  /// Does what a request wants, commits what it has changed, and answers it.
  private mutating func answer<E: DeviceEndpoint>(
    _ header: Header, _ endpoint: inout E, _ work: (inout E) throws(Refusal) -> Void
  ) throws(ChannelError) {
    var refusal: Refusal?
    do throws(Refusal) { try work(&endpoint) } catch { refusal = error }
    commit(&endpoint)
    endpoint.publish(services)
    if let refusal {
      try services.channel.refuse(header, refusal.reason)
    } else {
      try services.channel.reply(to: header, Empty())
    }
  }
}
