// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem

/// Stands in for vmcore and the devices in the launcher's tests: it keeps to the launcher's
/// protocol, is not sandboxed, and the machine's name says what goes wrong.
@main
struct FakeChild {
  static let patience: UInt64 = 20_000_000_000

  static func main() {
    let launcher = Channel(PacketSocket(Descriptor(owning: 3)))
    let name = CommandLine.arguments.first ?? ""
    do {
      let setup = try launcher.receive(timeout: patience)
      guard setup.header.request == LaunchRequest.setup.rawValue else { quit("no setup", 1) }
      var reader = WireReader(setup.payload)
      let scenario = try CommonSettings(from: &reader).machine
      if scenario == "exit3" && name == "vmdev-vga" { quit("isolation: no \u{1B}[31mLandlock", 3) }
      if scenario == "exit1" && name == "vmdev-vga" { quit("no VGA BIOS", 1) }
      try launcher.send(
        LaunchRequest.report.rawValue, sequence: 0,
        payload: IsolationMessage(summary: "none, a fake", missing: "").wireBytes)
      if name == "vmcore" {
        let settings = try CoreSettings(wireBytes: setup.payload)
        var core = FakeCore(launcher, settings, setup.descriptors, scenario)
        try core.run()
      } else {
        try device(Channel(PacketSocket(setup.descriptors[0])), launcher, scenario, name)
      }
    } catch {
      quit("\(error)", 4)
    }
  }

  static func quit(_ line: String, _ code: Int32) -> Never {
    try? Files.standardStream(2).writeAll(Array((line + "\n").utf8))
    ThisProcess.exit(code)
  }

  /// Does what the core says: request 1 ends the device with code 9, request 2 with 0.
  static func device(_ core: Channel, _ launcher: Channel, _ scenario: String, _ name: String)
    throws
  {
    if scenario == "backing-flood", name == "vmdev-ide" {
      for sequence in 1...17 as ClosedRange<UInt32> {
        let request = BackingRequest(drive: 0, depth: 1, name: "base.img")
        try launcher.send(
          LaunchRequest.openBacking.rawValue, sequence: sequence, payload: request.wireBytes)
        _ = try launcher.receive(timeout: patience)
      }
      try core.send(3, sequence: 0, payload: Array("all answered".utf8))
    } else if scenario.hasPrefix("backing"), name == "vmdev-ide" {
      let request = BackingRequest(drive: 0, depth: 1, name: "base.img")
      try launcher.send(
        LaunchRequest.openBacking.rawValue, sequence: 5, payload: request.wireBytes)
      let packet = try launcher.receive(timeout: patience)
      let isRefused = packet.header.flags.contains(.refusal)
      let text =
        isRefused
        ? try packet.decode(Refusal.self).reason
        : String(decoding: try packet.descriptors[0].read(4), as: UTF8.self)
      try core.send(3, sequence: 0, payload: Array(text.utf8.prefix(300)))
    }
    while true {
      let packet = try core.receive(timeout: patience)
      if packet.header.request == 1 { quit("told to crash", 9) }
      if packet.header.request == 2 { ThisProcess.exit(0) }
    }
  }
}

/// The core's side of each scenario.
struct FakeCore {
  let launcher: Channel
  let roles: [String]
  var channels: [String: Channel] = [:]
  let scenario: String

  init(
    _ launcher: Channel, _ settings: CoreSettings, _ descriptors: [Descriptor], _ scenario: String
  ) {
    self.launcher = launcher
    self.scenario = scenario
    roles = settings.devices.map(\.role)
    for (index, role) in roles.enumerated() {
      channels[role] = Channel(PacketSocket(descriptors[3 + 2 * index + 1]))
    }
  }

  func tell(_ role: String, _ request: UInt32) throws {
    try channels[role]?.send(request, sequence: 0, payload: [])
  }

  func fault(_ role: String, _ kind: FaultMessage.Kind) throws {
    let message = FaultMessage(role: role, kind: kind, reason: "the test says so")
    try launcher.send(LaunchRequest.fault.rawValue, sequence: 0, payload: message.wireBytes)
  }

  func end(_ code: UInt8, _ reason: String) throws -> Never {
    for role in roles { try? tell(role, 2) }
    let message = EndedMessage(code: code, reason: reason)
    try launcher.send(LaunchRequest.ended.rawValue, sequence: 0, payload: message.wireBytes)
    ThisProcess.exit(0)
  }

  mutating func waitForAttach() throws {
    let packet = try launcher.receive(timeout: FakeChild.patience)
    if packet.header.request == LaunchRequest.stop.rawValue { try end(0, "") }
    let role = try packet.decode(AttachMessage.self).role
    channels[role] = Channel(PacketSocket(packet.descriptors[0]))
  }

  mutating func run() throws {
    HostClock.sleep(200_000_000)
    switch scenario {
    case "clean": try end(0, "")
    case "code7": try end(7, "the guest wrote 3\nto the \u{1B}debug exit port")
    case "core-dies": FakeChild.quit("no memory", 1)
    case "crash", "crash-stop":
      try tell("serial", 1)
      try waitForAttach()
      try end(5, "serial came back")
    case "crash-loop":
      while true {
        try tell("serial", 1)
        try waitForAttach()
      }
    case "deadline":
      try fault("ide", .deadline)
      try waitForAttach()
      try end(6, "ide came back")
    case "poison":
      try fault("ide", .poison)
      HostClock.sleep(500_000_000)
      // The operator has read how to go on.
      try fault("ide", .operatorRestart)
      try waitForAttach()
      try end(5, "ide came back")
    case "crash-twice-told":
      try tell("serial", 1)
      while (try? channels["serial"]?.receive(timeout: FakeChild.patience)) != nil {}
      HostClock.sleep(500_000_000)
      try fault("serial", .gone)
      HostClock.sleep(500_000_000)
      try end(5, "complained")
    case "operator":
      for _ in 0..<7 {
        try fault("ide", .operatorRestart)
        try waitForAttach()
      }
      try end(5, "ide came back")
    case "backing-flood":
      if let packet = try? channels["ide"]?.receive(timeout: FakeChild.patience) {
        try end(8, String(decoding: packet.payload, as: UTF8.self))
      }
      try waitForAttach()
      try end(9, "it goes on")
    case "backing", "backing-none":
      let packet = try channels["ide"]?.receive(timeout: FakeChild.patience)
      try end(8, String(decoding: packet?.payload ?? [], as: UTF8.self))
    case "hang": HostClock.sleep(FakeChild.patience)
    default:  // Serves until it is told to stop.
      while true { try waitForAttach() }
    }
  }
}
