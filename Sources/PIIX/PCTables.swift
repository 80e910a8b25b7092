// SPDX-License-Identifier: Apache-2.0

/// What a `pc` machine tells its firmware: the fw_cfg items with e820, ACPI and SMBIOS.
public enum PCTables {
  /// Where firmware puts the PIIX4's ports, and where the FADT says they are.
  public static let powerManagementBase: UInt16 = 0x600
  public static let smbusBase: UInt16 = 0x700

  /// Which root pointer the ACPI tables get.
  public enum RootRevision: UInt8, Sendable {
    /// ACPI 1.0: an RSDT only.
    case first = 0
    /// ACPI 2.0: an XSDT too.
    case extended = 2
  }

  /// One line of the memory map.
  public struct MemoryRange: Sendable, Equatable {
    public var base: UInt64
    public var size: UInt64
    /// 1 for RAM, 2 for reserved.
    public var type: UInt32

    public init(base: UInt64, size: UInt64, type: UInt32) {
      self.base = base
      self.size = size
      self.type = type
    }
  }

  /// The machine that the tables describe.
  public struct Configuration: Sendable {
    /// Bytes of RAM from address 0 up to the hole below 4 GiB.
    public var memoryBelow4G: UInt64
    /// Bytes of RAM from 4 GiB up.
    public var memoryAbove4G: UInt64
    public let cpuCount: Int
    /// CPUs that the tables have room for, at most 255.
    public let maxCPUs: Int
    /// Sixteen bytes in the order of the text form.
    public let uuid: [UInt8]
    /// How many of COM1 to COM4 exist.
    public let serialPorts: Int
    public var hasDebugConsole: Bool
    public var debugExitPort: UInt16?
    /// Whether the guest can say that it has panicked.
    public var hasPanicPort: Bool
    public var rootRevision: RootRevision
    /// Ranges besides RAM; by default the pages that KVM takes for itself below the firmware.
    public var reservedMemory: [MemoryRange]
    /// OpenFirmware paths in the order in which to boot; see ``bootPath(channel:unit:)``.
    public var bootOrder: [String]
    public var showsBootMenu: Bool
    public var hasDisplay: Bool

    public init(
      memoryBelow4G: UInt64, memoryAbove4G: UInt64 = 0, cpuCount: Int = 1, maxCPUs: Int? = nil,
      uuid: [UInt8] = [], serialPorts: Int = 4, hasDebugConsole: Bool = true,
      debugExitPort: UInt16? = nil, hasPanicPort: Bool = false,
      rootRevision: RootRevision = .first,
      reservedMemory: [MemoryRange] = [.init(base: 0xFEFF_C000, size: 0x4000, type: 2)],
      bootOrder: [String] = [], showsBootMenu: Bool = false, hasDisplay: Bool = true
    ) {
      self.memoryBelow4G = memoryBelow4G
      self.memoryAbove4G = memoryAbove4G
      self.cpuCount = max(1, min(cpuCount, 255))
      self.maxCPUs = max(self.cpuCount, min(maxCPUs ?? cpuCount, 255))
      self.uuid = Array((uuid + [UInt8](repeating: 0, count: 16)).prefix(16))
      self.serialPorts = max(0, min(serialPorts, 4))
      self.hasDebugConsole = hasDebugConsole
      self.debugExitPort = debugExitPort
      self.hasPanicPort = hasPanicPort
      self.rootRevision = rootRevision
      self.reservedMemory = reservedMemory
      self.bootOrder = bootOrder
      self.showsBootMenu = showsBootMenu
      self.hasDisplay = hasDisplay
    }

    /// The I/O APIC's id after reset, as KVM and the `pc` machine have it.
    var ioAPICID: UInt8 { 0 }
  }

  /// Splits RAM around the hole below 4 GiB as the `pc` machine does: 3 GiB below it as
  /// soon as 3.5 GiB would not hold it all.
  public static func splitMemory(_ size: UInt64) -> (below4G: UInt64, above4G: UInt64) {
    guard size >= 0xE000_0000 else { return (size, 0) }
    return (0xC000_0000, size - 0xC000_0000)
  }

  /// Returns the path by which `bootorder` names an IDE drive.
  public static func bootPath(channel: Int, unit: Int) -> String {
    "/pci@i0cf8/ide@1,1/drive@\(channel)/disk@\(unit)"
  }

  /// Returns the items of a machine's fw_cfg device.
  ///
  /// A kernel for direct boot and other files are added by the caller.
  public static func items(_ configuration: Configuration) -> FwCfgItems {
    var items = FwCfgItems()
    items.set(FwCfgItems.Key.uuid, .bytes(configuration.uuid))
    items.setInteger(
      FwCfgItems.Key.ramSize, configuration.memoryBelow4G &+ configuration.memoryAbove4G)
    items.setInteger(FwCfgItems.Key.noGraphic, UInt16(configuration.hasDisplay ? 0 : 1))
    items.setInteger(FwCfgItems.Key.cpuCount, UInt16(configuration.cpuCount))
    items.setInteger(FwCfgItems.Key.maxCPUs, UInt16(configuration.maxCPUs))
    items.setInteger(FwCfgItems.Key.bootDevice, UInt16(0))
    items.setInteger(FwCfgItems.Key.bootMenu, UInt16(configuration.showsBootMenu ? 1 : 0))
    // One node count, then a node for each CPU and a size for each node: no nodes.
    items.set(
      FwCfgItems.Key.numa,
      .bytes([UInt8](repeating: 0, count: 8 * (1 + configuration.maxCPUs))))
    items.setInteger(FwCfgItems.Key.irq0Override, UInt32(1))
    items.addFile("etc/e820", .bytes(memoryMap(configuration)))
    // S0 to S5: bit 7 says that the state exists, the rest is its sleep type.
    items.addFile("etc/system-states", .bytes([0x80, 0, 0, 0x81, 0x82, 0x80]))
    // After a suspend the firmware is to set the display up again: no driver does for text.
    items.addFile("etc/s3-resume-vga-init", .bytes(littleEndianBytes(UInt64(1))))
    if configuration.hasPanicPort {
      items.addFile(PanicPort.file, .bytes(littleEndianBytes(PanicPort.base)))
    }
    let acpi = ACPITables(configuration)
    items.addFile(ACPITables.tablesFile, .bytes(acpi.tables))
    items.addFile(ACPITables.rootFile, .bytes(acpi.root))
    items.addFile(ACPITables.loaderFile, .bytes(acpi.loader.bytes))
    let smbios = SMBIOS(configuration)
    items.addFile(SMBIOS.tablesFile, .bytes(smbios.tables))
    items.addFile(SMBIOS.anchorFile, .bytes(smbios.anchor))
    if !configuration.bootOrder.isEmpty {
      let lines = configuration.bootOrder.joined(separator: "\n")
      items.addFile("bootorder", .bytes(Array(lines.utf8) + [0]))
    }
    return items
  }

  /// `etc/e820`: base, size and type of each range, little-endian, packed.
  private static func memoryMap(_ configuration: Configuration) -> [UInt8] {
    var ranges = configuration.reservedMemory
    ranges.append(.init(base: 0, size: configuration.memoryBelow4G, type: 1))
    if configuration.memoryAbove4G > 0 {
      ranges.append(.init(base: 1 << 32, size: configuration.memoryAbove4G, type: 1))
    }
    return ranges.flatMap {
      littleEndianBytes($0.base) + littleEndianBytes($0.size) + littleEndianBytes($0.type)
    }
  }
}
