// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import InterruptControllers
internal import LinuxSystem
internal import Monitor
internal import Synchronization

/// The accesses to ports that an operator asks for, in a thread of their own.
///
/// A device answers them as it answers a vCPU's, in its own time; the main thread cannot wait for
/// that, because it is the one that has a device replaced which does not answer at all.
final class OperatorPorts: Sendable {
  private struct State: Sendable {
    var request: PortRequest?
    var isBusy = false
    var result: UInt32?
  }

  private let state = Mutex(State())
  private let gate: Gate

  init() throws(SystemError) { gate = try Gate() }

  /// Begins an access; `false` while another is under way.
  func begin(_ request: PortRequest) -> Bool {
    let isFree = state.withLock { state in
      guard !state.isBusy else { return false }
      state = State(request: request, isBusy: true)
      return true
    }
    if isFree { gate.add(1) }
    return isFree
  }

  /// Takes the result of the access that was begun, if it is there.
  func take() -> UInt32? {
    state.withLock { state in
      defer { state.result = nil }
      return state.result
    }
  }

  /// Does the accesses; never returns while the machine lives.
  func serve(_ machine: Machine) {
    let bus = GuestBus(machine, machine.accelerator.count)
    var count: UInt32 = 0
    while !machine.isEnding {
      guard
        let request = state.withLock({ state in
          defer { state.request = nil }
          return state.request
        })
      else {
        gate.wait(while: count)
        count = gate.value
        continue
      }
      let value = Self.access(request, bus, machine)
      state.withLock { state in
        state.isBusy = false
        state.result = value
      }
      EventFile.signal(machine.eventFile)
    }
  }

  private static func access(_ request: PortRequest, _ bus: GuestBus, _ machine: Machine) -> UInt32
  {
    bus.refresh()
    bus.takeCollected()
    guard let width = AccessWidth(rawValue: request.width) else { return .max }
    if case .soft(let soft, _) = machine.accelerator, InterruptSystem.hasPort(request.port) {
      var value: UInt32 = 0
      for lane in 0..<UInt16(request.width) {
        let byte = UInt8(truncatingIfNeeded: request.value >> UInt32(8 * lane))
        if request.isWrite {
          soft.hub.writePort(request.port &+ lane, byte)
        } else {
          value |= UInt32(soft.hub.readPort(request.port &+ lane)) << UInt32(8 * lane)
        }
      }
      return value
    }
    guard request.isWrite else {
      return UInt32(truncatingIfNeeded: bus.read(request.port, width))
    }
    bus.write(UInt64(request.value), request.port, width)
    if case .soft(let soft, _) = machine.accelerator {
      for lane in 0..<UInt16(request.width) where A20Gate.watches(request.port &+ lane) {
        let byte = UInt8(truncatingIfNeeded: request.value >> UInt32(8 * lane))
        soft.noteGate(request.port &+ lane, byte, machine.physical)
      }
    }
    return 0
  }
}

extension MachineControl {
  private static let portPatience: UInt64 = 3_000_000_000

  /// Begins an access to a port; the answer comes when the device has given one.
  func accessPort(_ packet: Packet, _ client: Channel) throws(Refusal) {
    let request: PortRequest = try decode(packet)
    let ports = request.port...(request.port | UInt16(request.width - 1))
    if case .kvm = machine.accelerator, ports.contains(where: { InterruptSystem.hasPort($0) }) {
      throw Refusal("port \(hex(UInt64(request.port))) belongs to KVM, which lets only vCPUs at it")
    }
    guard machine.settings.cpus < LaneLayout.mostSlots else {
      throw Refusal(
        "with \(machine.settings.cpus) vCPUs there is no place for the operator's accesses")
    }
    guard portReply == nil, machine.operatorPorts.begin(request) else {
      throw Refusal("an access to a port is under way")
    }
    portReply = PendingReply(packet, client, patience: Self.portPatience)
  }

  /// Answers an access to a port that is done, or has taken too long.
  func settlePort(by now: UInt64) {
    let value = machine.operatorPorts.take()
    guard let reply = portReply else { return }
    if let value {
      portReply = nil
      reply.send(.reply, PortReply(value: value).wireBytes)
    } else if now >= reply.end {
      portReply = nil
      reply.refuse("the device did not answer in time")
    }
  }
}
