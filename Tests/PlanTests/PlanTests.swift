// SPDX-License-Identifier: Apache-2.0

@testable import DeviceHost
import DeviceProtocol
import IDE
import LinuxSystem
import MachineFile
import Testing

@testable import vmdev_ide
@testable import vmdev_piix
@testable import vmdev_serial
@testable import vmdev_vga

/// What `vmlaunch check` says that the processes claim, against what they do claim.
@Suite("The plan and the claims of the device processes")
struct PlanTests {
  static let common = CommonSettings(machine: "a", isStrict: true)

  /// What a machine's plan says of one process, without the words.
  static func planned(_ name: String, _ machine: Machine) throws -> [Plan.Claim.Kind] {
    let process = try #require(Plan(machine).processes.first { $0.name == name })
    return process.claims.map(\.kind)
  }

  /// The same of what the process sends to the core.
  static func kinds(_ claims: Claims) -> Set<Plan.Claim.Kind> {
    var kinds = Set(
      claims.ports.map { port -> Plan.Claim.Kind in
        port.isMovable
          ? .movablePorts(first: port.base, count: port.count)
          : .ports(first: port.base, count: port.count)
      })
    kinds.formUnion(claims.memories.map { .memory(first: $0.base, byteCount: $0.byteCount) })
    kinds.formUnion(claims.lines.map { .interrupt($0.interrupt) })
    kinds.formUnion(
      claims.functions.map { .function(device: $0.devfn >> 3, function: $0.devfn & 7) })
    if claims.bounceByteCount > 0 { kinds.insert(.mediatedDMA) }
    return kinds
  }

  /// Expects that a plan names each claim once, and no other.
  static func expect(_ name: String, _ machine: Machine, _ claims: Claims) throws {
    let planned = try planned(name, machine)

    #expect(Set(planned) == kinds(claims))
    #expect(Set(planned).count == planned.count)
  }

  @Test(
    "agree for piix, with and without debug devices", arguments: [false, true],
    [nil, 0x501, 0xFFFC, 0xFFFD, 0xFFFF] as [UInt16?])
  func piix(hasConsole: Bool, exitPort: UInt16?) throws {
    var machine = Machine(name: "a")
    machine.debug.console = hasConsole ? .null : nil
    machine.debug.exitPort = exitPort
    let settings = PIIXSettings(
      common: Self.common, memoryByteCount: machine.memory.byteCount, cpus: 1, bootOrder: "c",
      hasBootMenu: false, drives: [0, 0, 0, 0], serialPorts: 0,
      exitPort: exitPort.map(UInt32.init) ?? 0x10000, hasDebugConsole: hasConsole,
      unixSeconds: 0)

    let endpoint = PIIXEndpoint(settings, console: DebugOutput(nil))

    try Self.expect("vmdev-piix", machine, endpoint.claims())
  }

  @Test("agree for serial, whatever the number of ports", arguments: 0...4)
  func serial(count: Int) throws {
    var machine = Machine(name: "a")
    machine.serial = Array(repeating: .null, count: count)
    let settings = SerialSettings(
      common: Self.common, ports: Array(repeating: .init(backend: .null), count: count))

    let (launcher, _) = try PacketSocket.pair()
    let endpoint = try SerialEndpoint(settings, [], launcher: Channel(launcher))

    try Self.expect("vmdev-serial", machine, endpoint.claims())
  }

  @Test("agree for ide")
  func ide() throws {
    let endpoint = IDEEndpoint(
      controller: IDEController(), drives: [nil, nil, nil, nil], workers: try WorkerPool(0),
      completions: try Completions())

    try Self.expect("vmdev-ide", Machine(name: "a"), endpoint.claims())
  }

  @Test("agree for vga")
  func vga() throws {
    let endpoint = try VGAEndpoint(videoByteCount: 16 << 20, firmwareByteCount: 38400)

    try Self.expect("vmdev-vga", Machine(name: "a"), endpoint.claims())
  }
}
