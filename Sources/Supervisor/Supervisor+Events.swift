// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import MachineFile

extension Supervisor {
  /// Waits for the next event and deals with what is ready.
  func turn() {
    var poller = Poller()
    poller.add(signals, .readable)
    let janitorPlace = janitor?.descriptor.map { poller.add($0, .readable) }
    let peers = watchPeers(&poller)
    var places: [(child: Child, process: Int, channel: Int?, log: Int?)] = []
    for child in children {
      places.append(
        (
          child, poller.add(child.process.descriptor, .readable),
          child.isChannelOpen ? poller.add(child.channel.socket.descriptor, .readable) : nil,
          child.isLogOpen ? poller.add(child.log, .readable) : nil
        ))
    }
    do throws(SystemError) {
      _ = try poller.wait(timeout: timeout())
    } catch {
      return end(2, "\(error)")
    }
    while let signal = Signals.next(signals) { take(signal: signal) }
    if let place = janitorPlace, !poller[place].isEmpty, let status = janitor?.takeStatus() {
      say(
        "the janitor \(status); if vmlaunch is killed now, the control socket and a raw terminal "
          + "stay as they are", .warning)
    }
    takePeers(poller, peers)
    for place in places {
      if let log = place.log, !poller[log].isEmpty { show(place.child) }
      if let channel = place.channel, !poller[channel].isEmpty { receive(place.child) }
    }
    // The core is the first of the children: when it has ended, the devices end because of it.
    for place in places where !poller[place.process].isEmpty { reap(place.child) }
    lookAtClock()
  }

  // MARK: Time

  private func timeout() -> UInt64? {
    var next: UInt64?
    func consider(_ time: UInt64) { next = min(next ?? time, time) }
    switch phase {
    case .running: break
    case .stopping(let until), .leaving(let until): consider(until)
    case .over: consider(0)
    }
    for child in children where !child.hasReported {
      consider(child.started &+ Self.reportPatience)
    }
    for deadline in quitDeadlines.values { consider(deadline) }
    for backend in resources.serial { if let time = backend.peers?.nextTry { consider(time) } }
    let now = HostClock.monotonic()
    return next.map { $0 > now ? $0 - now : 0 }
  }

  private func lookAtClock() {
    let now = HostClock.monotonic()
    switch phase {
    case .stopping(let until) where now >= until:
      return end(2, "the machine did not end within 10 seconds; its processes were killed")
    case .leaving(let until) where now >= until: phase = .over
    default: break
    }
    guard case .running = phase else { return }
    connectAgain(now)
    for child in children where !child.hasReported && now >= child.started &+ Self.reportPatience {
      return end(2, "\(child.role.executable) did not lock itself down within 30 seconds")
    }
    for (name, deadline) in quitDeadlines where now >= deadline {
      quitDeadlines[name] = nil
      recover(name, .gone, "it ended while the machine runs")
    }
  }

  private func take(signal: Int32) {
    switch phase {
    case .running:
      say("ending the machine (signal \(signal)); once more kills it", .notice)
      stop()
    case .stopping, .leaving: end(2, "killed by a second signal")
    case .over: break
    }
  }

  // MARK: Messages

  /// Takes the messages that are there, at most a few so that nobody else has to wait.
  private func receive(_ child: Child) {
    for _ in 0..<16 where child.isChannelOpen {
      do throws(ChannelError) {
        guard let packet = try child.channel.receive(wait: false) else { return }
        try take(packet, from: child)
      } catch {
        child.isChannelOpen = false
        if case .closed = error { return }  // Its process is ending; the pidfd tells.
        let reason = VisibleText.escape("\(error)")
        switch child.role {
        case .core: end(2, "vmcore: \(reason)")
        case .device(let name): recover(name, .protocolBroken, reason)
        case .monitor:
          say("vmmonitor: \(reason)", .warning)
          try? child.process.kill()
        }
      }
    }
  }

  /// Takes what a process that has ended said last.
  func takeRemaining(_ child: Child) {
    if child.isChannelOpen { receive(child) }
  }

  private func take(_ packet: Packet, from child: Child) throws(ChannelError) {
    do throws(ProtocolError) {
      switch (LaunchRequest(rawValue: packet.header.request), child.role) {
      case (.report, _): try take(report: try packet.decode(), from: child)
      case (.ended, .core): take(ended: try packet.decode())
      case (.fault, .core): try take(fault: try packet.decode())
      case (.logLevel, .core): log.level = (try packet.decode() as LogLevelMessage).level
      case (.medium, .core): try take(medium: try packet.decode(), packet.descriptors)
      case (.stateFile, .core): answerStateFile(try packet.decode(), packet.header, child)
      case (.endDevices, .core): endDevices(packet.header, child)
      case (.overlay, .core): answerOverlay(try packet.decode(), packet.header, child)
      case (.openBacking, .device(.ide)):
        try openBacking(try packet.decode(), packet.header, child)
      case (.openOutput, .monitor):
        try openOutput(try packet.decode(), packet.header, child)
      case (.openMedium, .monitor): openMedium(try packet.decode(), packet.header, child)
      case (.debuggerSocket, .monitor):
        answerDebuggerSocket(try packet.decode(), packet.header, child)
      case (.threads, .monitor): answerThreads(packet.header, child)
      case (.processes, .monitor): answerProcesses(packet.header, child)
      default: throw ProtocolError("request \(packet.header.request) is not for the launcher")
      }
    } catch {
      throw .broken(error)
    }
  }

  private func take(report: IsolationMessage, from child: Child) throws(ProtocolError) {
    guard !child.hasReported else { throw ProtocolError("a second report") }
    child.hasReported = true
    say("\(child.role.executable): isolation: \(VisibleText.escape(report.summary))")
    let missing = String(decoding: report.missing, as: UTF8.self)
    for line in missing.split(separator: "\n").prefix(16) {
      say(
        "\(child.role.executable): isolation: missing: \(VisibleText.escape(String(line)))",
        .warning)
    }
  }

  private func take(ended: EndedMessage) {
    switch phase {
    case .leaving, .over: return
    case .running, .stopping: break
    }
    result = result ?? Result(code: Int32(ended.code), reason: ended.reason)
    phase = .leaving(until: HostClock.monotonic() &+ Self.leavePatience)
  }

  private func take(fault: FaultMessage) throws(ProtocolError) {
    guard let name = Machine.DeviceName(rawValue: fault.role) else {
      throw ProtocolError("there is no device of the role in the fault")
    }
    guard case .running = phase else { return }
    let reason = VisibleText.escape(fault.reason)
    switch fault.kind {
    case .operatorRestart:
      say("vmdev-\(name.rawValue): started anew for the operator")
      restart(name, isFailure: false)
    case .deadline, .protocolBroken, .gone, .poison:
      // Of what is held there is nothing more to say.
      if held.contains(name), child(.device(name)) == nil {
        knownDeaths[name] = nil
        return
      }
      // The core may complain of a channel whose process was seen to end here first.
      if fault.kind == .gone, let until = knownDeaths.removeValue(forKey: name),
        HostClock.monotonic() < until, child(.device(name)) != nil
      {
        return
      }
      // A channel closes a moment before its process is seen to end: how it did says more.
      if fault.kind == .gone, let child = child(.device(name)),
        let status = try? child.process.wait(timeout: Self.endPatience)
      {
        return recover(name, fault.kind, "\(status)")
      }
      recover(name, fault.kind, reason)
    }
  }

  /// How long to wait for the end of a process whose channel has closed, in nanoseconds.
  private static let endPatience: UInt64 = 50_000_000

  /// Remembers a drive's new disc for the next process of vmdev-ide.
  private func take(
    medium: MediumMessage, _ descriptors: [Descriptor]
  ) throws(ProtocolError) {
    guard descriptors.count == (medium.isPresent ? 1 : 0),
      let index = machine.drives.firstIndex(where: {
        ChildSetup.place($0.slot) == medium.slot && $0.media == .cdrom
      })
    else { throw ProtocolError("a disc that belongs to no drive") }
    resources.images[index] = descriptors.first
    say(
      "\(machine.drives[index].slot.rawValue): "
        + (medium.isPresent ? "another disc is in the drive" : "the disc was taken out"))
  }

  private func openBacking(
    _ request: BackingRequest, _ header: Header, _ child: Child
  ) throws(ProtocolError) {
    let drive = Int(request.drive)
    guard drive < resources.backings.count else {
      throw ProtocolError("there is no drive \(drive)")
    }
    child.backingCounts[drive, default: 0] += 1
    guard child.backingCounts[drive, default: 0] <= BackingFiles.deepest else {
      throw ProtocolError(
        "more than \(BackingFiles.deepest) requests for backing files of drive \(drive)")
    }
    let reply: (flags: Header.Flags, payload: [UInt8], descriptors: [Descriptor])
    do throws(BackingFiles.Refused) {
      let file = try resources.backings[drive].open(request.name, depth: Int(request.depth))
      reply = (.reply, Empty().wireBytes, [file])
    } catch {
      say("vmdev-ide: \(VisibleText.escape(error.reason))", .warning)
      reply = ([.reply, .refusal], Refusal(error.reason).wireBytes, [])
    }
    // A device that does not take its replies has its time limit in the core.
    try? child.channel.send(
      header.request, flags: reply.flags, sequence: header.sequence, payload: reply.payload,
      reply.descriptors, wait: false)
  }
}
