// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import MachineFile

extension Supervisor {
  /// Takes the status of a child that has ended, and draws the consequences.
  func reap(_ child: Child) {
    // It may have been dealt with in this turn.
    guard children.contains(where: { $0 === child }) else { return }
    let status: ChildProcess.Status
    do throws(SystemError) {
      guard let taken = try child.process.status() else { return }
      status = taken
    } catch {
      return end(2, "\(child.role.executable): \(error)")
    }
    takeRemaining(child)
    drain(child)
    children.removeAll { $0 === child }
    switch phase {
    case .leaving, .over:
      // The core may have seen the channel close first, and how the process ended says more.
      if case .device = child.role, status != .exited(code: 0) {
        say("\(child.role.executable): \(Self.reason(child, status))")
      }
      return
    case .stopping:
      if child.role == .core { end(2, "vmcore \(status) before the machine had ended") }
      return
    case .running: break
    }
    if !child.hasReported, status == .exited(code: 3) {
      return end(3, "\(child.role.executable): \(Self.reason(child, status))")
    }
    switch child.role {
    case .core: end(2, "vmcore \(Self.reason(child, status))")
    case .device(let name): deviceEnded(name, child, status)
    case .monitor: monitorEnded(child, status)
    }
  }

  private static func reason(_ child: Child, _ status: ChildProcess.Status) -> String {
    child.lastLine.isEmpty ? "\(status)" : "\(status): \(child.lastLine)"
  }

  private func deviceEnded(
    _ name: Machine.DeviceName, _ child: Child, _ status: ChildProcess.Status
  ) {
    if !child.hasReported, budgets[name] == nil {
      // Its first start failed: another one would, too.
      return end(2, "\(child.role.executable) \(Self.reason(child, status))")
    }
    if status == .exited(code: 0) {
      // The core tells the devices to end just before it says that the machine has.
      quitDeadlines[name] = HostClock.monotonic() &+ Self.quitPatience
      return
    }
    knownDeaths[name] = HostClock.monotonic() &+ Self.complaintPatience
    recover(name, .gone, "\(status)")
  }

  /// Deals with a device at fault as the machine file says.
  func recover(_ name: Machine.DeviceName, _ kind: FaultMessage.Kind, _ reason: String) {
    guard case .running = phase else { return }
    let title = "vmdev-\(name.rawValue)"
    switch machine.devices[name].onFault {
    case .restart where kind != .poison:
      say("\(title): \(reason); starting it anew", .warning)
      restart(name, isFailure: true)
    case .restart, .pause:
      // The core holds the machine: it has found the poison, or the device's channel closes.
      held.insert(name)
      say(
        "\(title): \(reason); the machine is held until: "
          + "vmctl device restart \(machine.name) \(name.rawValue)", .error)
      removeProcess(name)
    case .stop:
      result = Result(code: 2, reason: "\(title): \(reason)")
      stop()
    }
  }

  /// Kills a device's process, if there still is one; the new one must not meet it on the page.
  @discardableResult
  func removeProcess(_ name: Machine.DeviceName) -> Bool {
    guard let old = child(.device(name)) else { return true }
    let isGone = old.kill()
    drain(old)
    if isGone { children.removeAll { $0 === old } }
    return isGone
  }

  /// Starts a new process on a device's state page, and gives the core its channel.
  ///
  /// Only restarts after a failure count.
  func restart(_ name: Machine.DeviceName, isFailure: Bool) {
    let title = "vmdev-\(name.rawValue)"
    quitDeadlines[name] = nil
    held.remove(name)
    var budget = budgets[name] ?? RestartBudget()
    guard !isFailure || budget.take(at: HostClock.monotonic()) else {
      return end(
        2,
        "\(title) failed more than \(budget.most) times within "
          + "\(budget.span / 1_000_000_000) seconds")
    }
    budgets[name] = budget
    guard removeProcess(name) else { return end(2, "\(title) cannot be killed") }
    do throws(LaunchError) {
      let (coreEnd, deviceEnd) = try pair()
      var started: Child?
      try starter.start([.device(name)]) { started = $0 }
      guard let started else { throw LaunchError("\(title) did not start", code: 2) }
      children.append(started)
      try setUp(started, ChildSetup.device(name, machine, resources, channel: deviceEnd))
      try attach(name.rawValue, coreEnd)
    } catch {
      if !isCoreGone() { end(2, "\(title) could not be started anew: \(error.message)") }
    }
  }

  /// Whether the core has ended, which the devices may have noticed first; then this is the end.
  private func isCoreGone() -> Bool {
    guard let core = child(.core),
      let status = try? core.process.wait(timeout: Self.quitPatience)
    else { return false }
    takeRemaining(core)
    drain(core)
    children.removeAll { $0 === core }
    // It may have said why, and went in order.
    if case .running = phase { end(2, "vmcore \(Self.reason(core, status))") }
    return true
  }

  /// Starts the monitor's process anew: its clients have to connect again, the guest sees nothing.
  private func monitorEnded(_ child: Child, _ status: ChildProcess.Status) {
    let reason = Self.reason(child, status)
    // Its first start failed: another one would, too.
    guard child.hasReported else { return end(2, "vmmonitor \(reason)") }
    guard monitorBudget.take(at: HostClock.monotonic()) else {
      say("vmmonitor \(reason), again and again; the machine goes on without it", .error)
      return
    }
    say("vmmonitor: \(reason); starting it anew", .warning)
    do throws(LaunchError) {
      var started: Child?
      try starter.start([.monitor]) { started = $0 }
      guard let started else { return }
      children.append(started)
      try setUp(monitor: started)
    } catch {
      if !isCoreGone() { say("vmmonitor could not be started anew: \(error.message)", .error) }
    }
  }

  func attach(_ role: String, _ channel: Descriptor) throws(LaunchError) {
    guard let core = child(.core) else { return }
    do throws(ChannelError) {
      try core.channel.send(
        LaunchRequest.attach.rawValue, sequence: 0,
        payload: AttachMessage(role: role).wireBytes, [channel], wait: false)
    } catch {
      throw LaunchError("vmcore does not take the new channel: \(error)", code: 2)
    }
  }
}
