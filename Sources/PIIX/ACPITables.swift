// SPDX-License-Identifier: Apache-2.0

/// The machine's ACPI tables, as the three files that firmware loads from fw_cfg.
///
/// ACPI 2.0 where not said otherwise. Pointers hold offsets within `etc/acpi/tables`; the
/// loader script adds where the file came to lie, and then fixes the checksums.
struct ACPITables {
  static let tablesFile = "etc/acpi/tables"
  static let rootFile = "etc/acpi/rsdp"
  static let loaderFile = "etc/table-loader"

  private(set) var tables: [UInt8] = []
  private(set) var root: [UInt8] = []
  private(set) var loader = TableLoader()
  /// Offset and signature of each table in ``tables``, in order.
  private(set) var index: [(signature: String, offset: Int)] = []

  init(_ configuration: PCTables.Configuration) {
    loader.allocate(Self.tablesFile, alignment: 64, zone: .high)
    loader.allocate(Self.rootFile, alignment: 16, zone: .biosSegment)
    let facs = append("FACS", Self.facs)
    let dsdt = appendTable("DSDT", revision: 1, DSDT.body(configuration).bytes)
    let fadt = appendTable("FACP", revision: 3, Self.fadt(facs: facs, dsdt: dsdt))
    addPointer(at: fadt + 36, size: 4)  // FIRMWARE_CTRL
    addPointer(at: fadt + 40, size: 4)  // DSDT
    addPointer(at: fadt + 140, size: 8)  // X_DSDT
    let madt = appendTable("APIC", revision: 1, Self.madt(configuration))
    let listed = [fadt, madt]
    let rsdt = appendTable(
      "RSDT", revision: 1, listed.flatMap { littleEndianBytes(UInt32($0)) })
    for entry in listed.indices { addPointer(at: rsdt + 36 + 4 * entry, size: 4) }
    guard configuration.rootRevision == .extended else {
      makeRoot(rsdt: rsdt, xsdt: nil)
      return
    }
    let xsdt = appendTable(
      "XSDT", revision: 1, listed.flatMap { littleEndianBytes(UInt64($0)) })
    for entry in listed.indices { addPointer(at: xsdt + 36 + 8 * entry, size: 8) }
    makeRoot(rsdt: rsdt, xsdt: xsdt)
  }

  private mutating func append(_ signature: String, _ bytes: [UInt8]) -> Int {
    let alignment = signature == "FACS" ? 64 : 8
    while tables.count % alignment != 0 { tables.append(0) }
    let offset = tables.count
    tables += bytes
    index.append((signature, offset))
    return offset
  }

  /// Appends a table with a header (5.2.5) and has its checksum fixed.
  private mutating func appendTable(
    _ signature: String, revision: UInt8, _ body: [UInt8]
  ) -> Int {
    var table = Array(signature.utf8) + littleEndianBytes(UInt32(36 + body.count))
    table += [revision, 0] + Self.maker + Array("PCI440FX".utf8) + littleEndianBytes(UInt32(1))
    table += Array("BLKH".utf8) + littleEndianBytes(UInt32(1)) + body
    let offset = append(signature, table)
    checksums.append((offset, table.count))
    return offset
  }

  /// OEM id, six characters.
  static let maker = Array("BULKHD".utf8)

  /// Tables whose checksum is fixed after all pointers.
  private var checksums: [(offset: Int, count: Int)] = []

  private mutating func addPointer(at offset: Int, size: UInt8) {
    loader.addPointer(
      in: Self.tablesFile, at: UInt32(offset), size: size, to: Self.tablesFile)
  }

  /// The root pointer (5.2.4), and the last commands of the script.
  private mutating func makeRoot(rsdt: Int, xsdt: Int?) {
    root = Array("RSD PTR ".utf8) + [0] + Self.maker + [xsdt == nil ? 0 : 2]
    root += littleEndianBytes(UInt32(rsdt))
    loader.addPointer(in: Self.rootFile, at: 16, size: 4, to: Self.tablesFile)
    if let xsdt {
      root += littleEndianBytes(UInt32(36)) + littleEndianBytes(UInt64(xsdt)) + [0, 0, 0, 0]
      loader.addPointer(in: Self.rootFile, at: 24, size: 8, to: Self.tablesFile)
    }
    for table in checksums {
      loader.addChecksum(
        in: Self.tablesFile, at: UInt32(table.offset + 9), start: UInt32(table.offset),
        length: UInt32(table.count))
    }
    loader.addChecksum(in: Self.rootFile, at: 8, start: 0, length: 20)
    if xsdt != nil { loader.addChecksum(in: Self.rootFile, at: 32, start: 0, length: 36) }
  }

  /// The firmware control structure (5.2.9): 64 bytes, no checksum.
  private static let facs: [UInt8] =
    Array("FACS".utf8) + littleEndianBytes(UInt32(64)) + [UInt8](repeating: 0, count: 56)

  /// A generic address (5.2.3.1): I/O space.
  private static func port(_ address: UInt16, bits: UInt8) -> [UInt8] {
    address == 0 && bits == 0
      ? [UInt8](repeating: 0, count: 12)
      : [1, bits, 0, 0] + littleEndianBytes(UInt64(address))
  }

  /// The fixed description table's body, after the header (5.2.8), revision 3.
  private static func fadt(facs: Int, dsdt: Int) -> [UInt8] {
    let pm = PCTables.powerManagementBase
    let gpe = PIIXBoard.Region.generalEvents.fixedBase ?? 0
    var body = littleEndianBytes(UInt32(facs)) + littleEndianBytes(UInt32(dsdt))
    body += [0x01, 0x00]  // INT_MODEL as in ACPI 1.0: dual 8259s; no preferred profile
    body += littleEndianBytes(UInt16(9))  // SCI_INT
    body += littleEndianBytes(UInt32(0xB2))  // SMI_CMD
    body += [PIIX4PowerManagement.acpiEnable, PIIX4PowerManagement.acpiDisable, 0, 0]
    body += littleEndianBytes(UInt32(pm)) + littleEndianBytes(UInt32(0))  // PM1 events
    body += littleEndianBytes(UInt32(pm + 4)) + littleEndianBytes(UInt32(0))  // PM1 control
    body += littleEndianBytes(UInt32(0)) + littleEndianBytes(UInt32(pm + 8))  // PM2, timer
    body += littleEndianBytes(UInt32(gpe)) + littleEndianBytes(UInt32(0))  // GPE0, GPE1
    body += [4, 2, 0, 4, 4, 0, 0, 0]  // lengths of PM1, PM1 control, PM2, timer, GPE0, GPE1
    body += littleEndianBytes(UInt16(0x0FFF)) + littleEndianBytes(UInt16(0x0FFF))  // no C2, C3
    body += [0, 0, 0, 0, 0, 0, 0, 0, 0x32]  // cache flush, duty cycle, alarms; CENTURY
    body += [0x03, 0x00]  // IAPC_BOOT_ARCH: legacy devices, 8042
    body.append(0)
    // Flags: WBINVD, PROC_C1, no sleep button, RESET_REG.
    body += littleEndianBytes(UInt32(1 << 0 | 1 << 2 | 1 << 5 | 1 << 10))
    body += port(0xCF9, bits: 8) + [0x06, 0, 0, 0]  // RESET_REG, RESET_VALUE
    body += littleEndianBytes(UInt64(0)) + littleEndianBytes(UInt64(dsdt))  // X_FACS, X_DSDT
    body += port(pm, bits: 32) + port(0, bits: 0)
    body += port(pm + 4, bits: 16) + port(0, bits: 0)
    body += port(0, bits: 0) + port(pm + 8, bits: 32)
    body += port(gpe, bits: 32) + port(0, bits: 0)
    return body
  }

  /// The interrupt controller table's body (5.2.10.4).
  private static func madt(_ configuration: PCTables.Configuration) -> [UInt8] {
    var body = littleEndianBytes(UInt32(0xFEE0_0000)) + littleEndianBytes(UInt32(1))
    for cpu in 0..<UInt8(configuration.maxCPUs) {
      let isPresent: UInt32 = Int(cpu) < configuration.cpuCount ? 1 : 0
      body += [0, 8, cpu, cpu] + littleEndianBytes(isPresent)
    }
    body += [1, 12, configuration.ioAPICID, 0] + littleEndianBytes(UInt32(0xFEC0_0000))
    body += littleEndianBytes(UInt32(0))
    // The timer arrives at input 2; PCI's interrupts and the SCI are level, active high.
    body += [2, 10, 0, 0] + littleEndianBytes(UInt32(2)) + [0, 0]
    for line: UInt8 in [5, 9, 10, 11] {
      body += [2, 10, 0, line] + littleEndianBytes(UInt32(line)) + [0x0D, 0]
    }
    return body + [4, 6, 0xFF, 0, 0, 1]  // NMI at LINT1 of every CPU
  }
}
