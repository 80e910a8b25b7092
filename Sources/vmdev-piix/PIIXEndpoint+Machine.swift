// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import PIIX

extension PIIXEndpoint {
  /// Makes the board of the machine that the settings describe, with all it tells firmware.
  static func board(_ settings: PIIXSettings, _ files: KernelFiles?) -> PIIXBoard {
    let (low, high) = PCTables.splitMemory(settings.memoryByteCount)
    let cpus = Int(settings.cpus)
    var items = PCTables.items(
      PCTables.Configuration(
        memoryBelow4G: low, memoryAbove4G: high, cpuCount: cpus,
        uuid: settings.uuid, serialPorts: Int(settings.serialPorts),
        hasDebugConsole: settings.hasDebugConsole,
        debugExitPort: UInt16(exactly: settings.exitPort), hasPanicPort: settings.hasPanicPort,
        bootOrder: files.map { [$0.bootPath] } ?? bootPaths(settings),
        showsBootMenu: settings.hasBootMenu))
    files?.offer(in: &items)
    var clock = MC146818(unixSeconds: settings.unixSeconds)
    var order: [CMOSSetup.BootDevice] = []
    for letter in settings.bootOrder.utf8 {
      if letter == UInt8(ascii: "c") { order.append(.disk) }
      if letter == UInt8(ascii: "d") { order.append(.cdrom) }
    }
    clock.apply(
      CMOSSetup(
        memoryBelow4G: low, memoryAbove4G: high, cpuCount: cpus, bootOrder: order,
        translations: settings.drives.map { $0 == DriveKind.disk ? .lba : .none }))
    return PIIXBoard(clock: clock, items: items)
  }

  /// How the settings number what is in a drive's slot.
  private enum DriveKind {
    static let disk: UInt8 = 1
    static let disc: UInt8 = 2
  }

  /// The drives in the order in which firmware tries them.
  private static func bootPaths(_ settings: PIIXSettings) -> [String] {
    settings.bootOrder.utf8.flatMap { letter -> [String] in
      let kind = letter == UInt8(ascii: "c") ? DriveKind.disk : DriveKind.disc
      return settings.drives.enumerated().filter { $0.element == kind }.map {
        PCTables.bootPath(channel: $0.offset / 2, unit: $0.offset % 2)
      }
    }
  }
}
