// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import Monitor
import Synchronization
import TestSupport
import Testing

@testable import MachineCore

/// The core's main thread, between a launcher, an operator and devices that the test plays.
@Suite(
  .enabled(if: hostHasKVM, "needs a /dev/kvm that can be read and written"), .serialized,
  .timeLimit(.minutes(2)))
struct MachineControlTests {
  let bench: Bench
  let control: MachineControl
  let launcher: Channel

  init() throws {
    bench = try Bench("hammer", roles: ["vga", "ide"])
    let (ours, theirs) = try PacketSocket.pair()
    launcher = Channel(ours)
    control = MachineControl(bench.machine, launcher: Channel(theirs), listener: nil)
  }

  var state: String { bench.machine.progress.withLock { $0.state } }
  var reason: String { bench.machine.progress.withLock { $0.reason } }

  /// Brings both devices and the machine up.
  func start() throws -> (vga: FakeDevice, ide: FakeDevice) {
    let vga = try FakeDevice(bench, "vga")
    let ide = try FakeDevice(bench, "ide")
    try vga.comeUp(Claims())
    try ide.comeUp(Claims())
    while state != "running" { control.turn() }
    return (vga, ide)
  }

  func connect() throws -> Channel {
    let (ours, theirs) = try PacketSocket.pair()
    control.clients.append(Channel(theirs))
    return Channel(ours)
  }

  func ask<M: WireCodable>(
    _ client: Channel, _ request: ControlRequest, _ message: M = Empty(),
    _ descriptors: [Descriptor] = []
  ) throws {
    try client.send(request.rawValue, sequence: 7, payload: message.wireBytes, descriptors)
    control.turn()
  }

  func refusal(_ packet: Packet?) throws -> String {
    let packet = try #require(packet)
    #expect(packet.header.flags == [.reply, .refusal])
    return try packet.decode(Refusal.self).reason
  }

  /// Lets the device fail as one that is poisoned, and the machine pause.
  func poison(_ device: FakeDevice) throws {
    device.close()
    while bench.machine.links[1].status == .up { HostClock.sleep(1_000_000) }
    bench.machine.post(
      .fault(FaultMessage(role: "ide", kind: .poison, reason: "it fails again and again")))
    while !control.held.contains("ide") { control.turn() }
    #expect(state == "paused")
    var fault: FaultMessage
    repeat {
      fault = try launcher.receive(timeout: 5_000_000_000).decode()
    } while fault.kind != .poison
    #expect(fault.role == "ide")
  }

  @Test func `Poison holds the machine until the device is up again at the operator's word`()
    throws
  {
    let devices = try start()
    try poison(devices.ide)
    #expect(reason == "ide: it fails again and again")

    let operatorChannel = try connect()
    try ask(operatorChannel, .resume)
    let refused = try refusal(operatorChannel.receive(timeout: 5_000_000_000))
    #expect(refused.contains("ide is not up (gone)"))
    #expect(refused.contains("vmctl device restart test ide"))
    #expect(state == "paused")

    try ask(operatorChannel, .restartDevice, DeviceRequest(role: "ide"))
    let wish: FaultMessage = try launcher.receive(timeout: 5_000_000_000).decode()
    #expect(wish.kind == .operatorRestart)
    #expect(try operatorChannel.receive(wait: false) == nil, "answered before it is up")
    let next = try FakeDevice(bench, "ide")
    try next.comeUp(Claims())
    while state != "running" { control.turn() }
    let reply = try operatorChannel.receive(timeout: 5_000_000_000)
    #expect(reply.header.flags == .reply)
    #expect(reply.header.request == ControlRequest.restartDevice.rawValue)
    #expect(reason == "")
  }

  @Test func `A process that the operator did not ask for does not end the hold`() throws {
    let devices = try start()
    try poison(devices.ide)
    let next = try FakeDevice(bench, "ide")
    try next.comeUp(Claims())
    while bench.machine.links[1].status != .up { HostClock.sleep(1_000_000) }
    control.turn()
    #expect(state == "paused")
  }

  @Test func `A machine that the operator holds stays held when a device comes back`() throws {
    let devices = try start()
    let operatorChannel = try connect()
    try ask(operatorChannel, .pause)
    _ = try operatorChannel.receive(timeout: 5_000_000_000)
    try poison(devices.ide)
    try ask(operatorChannel, .restartDevice, DeviceRequest(role: "ide"))
    let next = try FakeDevice(bench, "ide")
    try next.comeUp(Claims())
    while control.restarts["ide"] != nil { control.turn() }
    #expect(state == "paused")
    #expect(reason == "the operator asked for it")
    try ask(operatorChannel, .resume)
    #expect(state == "running")
  }

  @Test func `An operator's restart that comes to nothing is refused in time`() throws {
    _ = try start()
    let operatorChannel = try connect()
    let begin = HostClock.monotonic()
    try ask(operatorChannel, .restartDevice, DeviceRequest(role: "ide"))
    try ask(operatorChannel, .restartDevice, DeviceRequest(role: "ide"))
    #expect(try refusal(operatorChannel.receive(wait: false)).contains("already"))
    while control.restarts["ide"]?.reply != nil { control.turn() }
    #expect(try refusal(operatorChannel.receive(wait: false)) == "ide is not up after 8 seconds")
    #expect(HostClock.monotonic() - begin < 10_000_000_000)
  }

  @Test func `A device that does not answer keeps nobody else waiting`() throws {
    let devices = try start()
    let first = try connect()
    let second = try connect()
    let begin = HostClock.monotonic()
    let memory = try MemoryFile.make("picture", byteCount: 4096)
    try ask(first, .screendump, ScreendumpRequest(byteCount: 4096), [memory])
    try ask(second, .status)
    let status: StatusReply = try second.receive(timeout: 1_000_000_000).decode()
    #expect(status.state == "running")
    #expect(HostClock.monotonic() - begin < 1_000_000_000)

    // Its reply goes to the one who asked.
    let request = try devices.vga.open().receive(timeout: 5_000_000_000)
    #expect(request.header.request == Request.screendump.rawValue)
    try devices.vga.open().reply(
      to: request.header, ScreendumpReply(width: 2, height: 1, text: "hello"))
    while !control.forwards.isEmpty { control.turn() }
    let reply: ScreendumpReply = try first.receive(timeout: 1_000_000_000).decode()
    #expect(reply.text == "hello")
    #expect(try second.receive(wait: false) == nil)

    try ask(first, .screendump, ScreendumpRequest(byteCount: 4096), [memory])
    while !control.forwards.isEmpty { control.turn() }
    #expect(try refusal(first.receive(wait: false)) == "vga did not answer in time")
  }

  @Test func `All silent devices together get the time of one`() throws {
    let devices = try start()
    defer { withExtendedLifetime(devices) {} }
    let begin = HostClock.monotonic()
    bench.machine.pause("the test says so")
    #expect((2_000_000_000..<3_500_000_000).contains(HostClock.monotonic() - begin))
    let middle = HostClock.monotonic()
    try bench.machine.reset()
    #expect((5_000_000_000..<8_000_000_000).contains(HostClock.monotonic() - middle))
    #expect(bench.machine.links.allSatisfy { $0.status == .gone })
  }

  @Test func `A machine whose devices are silent ends within 5 seconds`() throws {
    let devices = try start()
    defer { withExtendedLifetime(devices) {} }
    let begin = HostClock.monotonic()
    bench.machine.quit()
    #expect((4_000_000_000..<7_000_000_000).contains(HostClock.monotonic() - begin))
  }
}
