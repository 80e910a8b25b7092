// SPDX-License-Identifier: Apache-2.0

/// The differentiated system description: what is on the board, in AML.
enum DSDT {
  /// The table's body, after its header.
  static func body(_ configuration: PCTables.Configuration) -> AML {
    .list([
      .scope("\\_SB", [rootBridge(configuration)]),
      .scope("\\_SB", links),
      .scope("\\_SB", processors(configuration)),
      .scope("\\_GPE", [.name("_HID", .string("ACPI0006"))]),
      sleepingState("\\_S3", .suspendToRAM), sleepingState("\\_S4", .suspendToDisk),
      sleepingState("\\_S5", .softOff),
    ])
  }

  /// The sleep types for PM1a and PM1b control (ACPI 1.0b, 7.5.2).
  private static func sleepingState(
    _ name: String, _ state: PIIX4PowerManagement.SleepingState
  ) -> AML {
    let type = AML.integer(UInt64(state.rawValue))
    return .name(name, .package([type, type, .integer(0), .integer(0)]))
  }

  // MARK: PCI

  private static func rootBridge(_ configuration: PCTables.Configuration) -> AML {
    let hole = UInt32(truncatingIfNeeded: configuration.memoryBelow4G)
    return .device(
      "PCI0",
      [
        .name("_HID", .eisaID("PNP0A03")),
        .name("_UID", .integer(0)),
        .name(
          "_CRS",
          .resources([
            .buses(0...0xFF),
            .ports(0xCF8, 8),
            .portWindow(0...0xCF7),
            .portWindow(0xD00...0xFFFF),
            .memoryWindow(0xA_0000...0xB_FFFF, isCacheable: true),
            .memoryWindow(min(hole, 0xFEBF_F000)...0xFEBF_FFFF, isCacheable: false),
          ])),
        .name("_PRT", routing),
        isaBridge(configuration),
      ])
  }

  /// All pins of all slots, by link devices; power management's INTA# is wired to the SCI.
  private static var routing: AML {
    var entries: [AML] = []
    for slot in UInt8(0)..<32 {
      for pin in UInt8(0)..<4 {
        let link = PIIX3ISABridge.link(slot: slot, pin: pin)
        let name = slot == 1 && pin == 0 ? "LNKS" : linkNames[link]
        entries.append(
          .package([
            .integer(UInt64(slot) << 16 | 0xFFFF), .integer(UInt64(pin)), .path(name), .integer(0),
          ]))
      }
    }
    return .package(entries)
  }

  private static let linkNames = ["LNKA", "LNKB", "LNKC", "LNKD"]
  private static let routeNames = ["PRQ0", "PRQ1", "PRQ2", "PRQ3"]

  /// The link devices and their two helpers: routing state, and current interrupt.
  private static var links: [AML] {
    let route = AML.argument(0)
    var terms: [AML] = [
      .method(
        "IQST", arguments: 1,
        [
          .ifTrue(.and(.integer(0x80), route), [.returning(.integer(0x09))]),
          .returning(.integer(0x0B)),
        ]),
      .method(
        "IQCR", arguments: 1, isSerialized: true,
        [
          .name("PRR0", .resources([.sharedInterrupts([0])])),
          .createDWordField(.path("PRR0"), offset: 5, "PRRI"),
          .ifTrue(.isLess(route, .integer(0x80)), [.store(route, .path("PRRI"))]),
          .returning(.path("PRR0")),
        ]),
    ]
    for link in 0..<PIIX3ISABridge.linkCount {
      let register = AML.path("\\_SB.PCI0.ISA.\(routeNames[link])")
      terms.append(
        .device(
          linkNames[link],
          [
            .name("_HID", .eisaID("PNP0C0F")),
            .name("_UID", .integer(UInt64(link))),
            .name("_PRS", .resources([.sharedInterrupts([5, 10, 11])])),
            .method("_STA", [.returning(.call("IQST", [register]))]),
            .method("_DIS", [.or(register, .integer(0x80), target: register)]),
            .method("_CRS", [.returning(.call("IQCR", [register]))]),
            .method(
              "_SRS", arguments: 1, isSerialized: true,
              [
                .createDWordField(.argument(0), offset: 5, "PRRI"),
                .store(.path("PRRI"), register),
              ]),
          ]))
    }
    terms.append(
      .device(
        "LNKS",
        [
          .name("_HID", .eisaID("PNP0C0F")),
          .name("_UID", .integer(4)),
          .name("_PRS", .resources([.sharedInterrupts([9])])),
          .method("_STA", [.returning(.integer(0x0B))]),
          .method("_DIS", []),
          .method("_CRS", [.returning(.path("_PRS"))]),
          .method("_SRS", arguments: 1, []),
        ]))
    return terms
  }

  // MARK: ISA

  private static func isaBridge(_ configuration: PCTables.Configuration) -> AML {
    var terms: [AML] = [
      .name("_ADR", .integer(0x0001_0000)),
      .region("P40C", .pciConfiguration, offset: 0x60, length: 4),
      .field("P40C", routeNames.map { ($0, 8) }),
      isa("PIC", "PNP0000", [.ports(0x20, 2), .ports(0xA0, 2), .ports(0x4D0, 2), .interrupt(2)]),
      isa("PIT", "PNP0100", [.ports(0x40, 4), .interrupt(0)]),
      isa(
        "DMAC", "PNP0200",
        [.ports(0x00, 0x10), .ports(0x81, 0x0F), .ports(0xC0, 0x20), .dmaCascade]),
      isa("FPU", "PNP0C04", [.ports(0xF0, 1), .interrupt(13)]),
      isa("SPKR", "PNP0800", [.ports(0x61, 1)]),
      isa("RTC", "PNP0B00", [.ports(0x70, 2), .interrupt(8)]),
      isa("KBD", "PNP0303", [.ports(0x60, 1), .ports(0x64, 1), .interrupt(1)]),
      isa("MOU", "PNP0F13", [.interrupt(12)]),
    ]
    let serial: [(base: UInt16, line: UInt8)] = [(0x3F8, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3)]
    for (index, port) in serial.enumerated() where index < configuration.serialPorts {
      terms.append(
        isa(
          "COM\(index + 1)", "PNP0501", uid: UInt64(index + 1),
          [.ports(port.base, 8), .interrupt(port.line)]))
    }
    terms.append(motherboard(configuration))
    terms.append(
      .device(
        "FWCF",
        [
          .name("_HID", .string("QEMU0002")),
          .name("_STA", .integer(0x0B)),
          .name(
            "_CRS", .resources([.ports(0x510, UInt8(FwCfg.portCount))])),
        ]))
    if configuration.hasPanicPort { terms.append(panicPort) }
    return .device("ISA", terms)
  }

  /// The device whose port a guest's driver finds by the id that QEMU gave it.
  private static var panicPort: AML {
    .device(
      "PEVT",
      [
        .name("_HID", .string("QEMU0001")),
        .name("_STA", .integer(0x0F)),
        .name("_CRS", .resources([.ports(PanicPort.base, 1)])),
      ])
  }

  /// Ports that are taken but belong to no other device.
  private static func motherboard(_ configuration: PCTables.Configuration) -> AML {
    var ports: [Resource] = [
      .ports(0x80, 1), .ports(0x92, 1), .ports(0xB2, 2),
      .ports(PCTables.powerManagementBase, 64), .ports(PCTables.smbusBase, 16),
      .ports(PIIXBoard.Region.generalEvents.fixedBase ?? 0, 4),
    ]
    if configuration.hasDebugConsole { ports.append(.ports(0x402, 1)) }
    if let port = configuration.debugExitPort { ports.append(.ports(port, 4)) }
    return isa("MBRD", "PNP0C02", ports)
  }

  private static func isa(
    _ name: String, _ id: String, uid: UInt64? = nil, _ resources: [Resource]
  ) -> AML {
    var terms: [AML] = [.name("_HID", .eisaID(id))]
    if let uid { terms.append(.name("_UID", .integer(uid))) }
    terms.append(.name("_CRS", .resources(resources)))
    return .device(name, terms)
  }

  // MARK: CPUs

  /// Processor objects C000 and up, their names counting in hexadecimal.
  private static func processors(_ configuration: PCTables.Configuration) -> [AML] {
    (0..<configuration.maxCPUs).map { index in
      let digits = String(index, radix: 16, uppercase: true)
      let name = "C" + String(repeating: "0", count: max(0, 3 - digits.count)) + digits
      let status: UInt64 = index < configuration.cpuCount ? 0x0F : 0x00
      return .processor(
        name, id: UInt8(truncatingIfNeeded: index), [.name("_STA", .integer(status))])
    }
  }
}
