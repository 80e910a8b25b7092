// SPDX-License-Identifier: Apache-2.0

/// The machine's SMBIOS 2.8 structures and their entry point (DMTF DSP0134, 2.8).
///
/// Firmware takes both as files, places the structures, and fills in their address and the
/// entry point's checksums anew.
struct SMBIOS {
  static let tablesFile = "etc/smbios/smbios-tables"
  static let anchorFile = "etc/smbios/smbios-anchor"

  private static let vendor = "Bulkhead"
  private static let product = "Standard PC (i440FX + PIIX)"
  /// Of the machine that these tables describe; a guest may tell machines apart by it.
  private static let version = "1"
  /// When that version was settled, as month, day and year (7.1).
  private static let releaseDate = "11/22/2026"

  private(set) var tables: [UInt8] = []
  private var count: UInt16 = 0
  private var largest: UInt16 = 0

  init(_ configuration: PCTables.Configuration) {
    let total = configuration.memoryBelow4G &+ configuration.memoryAbove4G
    addIdentity(configuration)
    addProcessor(cores: UInt8(clamping: max(1, configuration.cpuCount)))
    addMemory(configuration, total: total)
    // 32: system boot information, no errors. 127: the end.
    add(32, 0x2000, [UInt8](repeating: 0, count: 7), [])
    add(127, 0x7F00, [], [])
  }

  private mutating func addIdentity(_ configuration: PCTables.Configuration) {
    // 0: vendor, version, segment, date, ROM size, characteristics: a virtual machine.
    add(
      0, 0x0000,
      [1, 2] + littleEndianBytes(UInt16(0xE800)) + [3, 0]
        + littleEndianBytes(UInt64(0x08)) + [0x00, 0x14, 0, 0, 0xFF, 0xFF],
      [Self.vendor, Self.version, Self.releaseDate])
    // 1: the system; the first three fields of its UUID are little-endian (7.2.1).
    let uuid = configuration.uuid
    let swapped = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map { uuid[$0] }
    add(
      1, 0x0100, [1, 2, 3, 0] + swapped + [0x06, 0, 0],
      [Self.vendor, Self.product, Self.version])
    // 3: the chassis: other, safe states, no lock.
    add(
      3, 0x0300,
      [1, 1, 2, 0, 0, 3, 3, 3, 2] + littleEndianBytes(UInt32(0)) + [0, 0, 0, 0, 0],
      [Self.vendor, Self.version])
  }

  private mutating func addProcessor(cores: UInt8) {
    // 4: central processor, family other, enabled, upgrade other; the vCPUs are its cores, as
    // CPUID has it.
    var fields: [UInt8] = [1, 3, 0x01, 2] + [UInt8](repeating: 0, count: 8) + [3, 0]
    fields += littleEndianBytes(UInt16(0)) + littleEndianBytes(UInt16(2000))
    fields += littleEndianBytes(UInt16(2000)) + [0x41, 0x01]
    fields += [UInt8](repeating: 0xFF, count: 6)  // no cache structures
    fields += [0, 0, 0, cores, cores, cores] + littleEndianBytes(UInt16(0x04))  // 64-bit capable
    fields += littleEndianBytes(UInt16(0x01))
    add(4, 0x0400, fields, ["CPU 0", Self.vendor, Self.version])
  }

  private mutating func addMemory(_ configuration: PCTables.Configuration, total: UInt64) {
    // 16: system memory on the board, no ECC, one device of the whole size.
    let kibibytes = total / 1024
    let isLarge = kibibytes >= 0x8000_0000
    add(
      16, 0x1000,
      [0x01, 0x03, 0x03] + littleEndianBytes(isLarge ? 0x8000_0000 : UInt32(kibibytes))
        + littleEndianBytes(UInt16(0xFFFE)) + littleEndianBytes(UInt16(1))
        + littleEndianBytes(isLarge ? total : 0), [])
    // 17: the DIMM.
    let mebibytes = total >> 20
    let size = mebibytes < 0x7FFF ? UInt16(mebibytes) : 0x7FFF
    let extended = mebibytes < 0x7FFF ? 0 : UInt32(truncatingIfNeeded: mebibytes) & 0x7FFF_FFFF
    var fields = littleEndianBytes(UInt16(0x1000)) + littleEndianBytes(UInt16(0xFFFE))
    fields += littleEndianBytes(UInt16(0xFFFF)) + littleEndianBytes(UInt16(0xFFFF))
    fields += littleEndianBytes(size) + [0x09, 0, 1, 0, 0x07]
    fields += littleEndianBytes(UInt16(2)) + littleEndianBytes(UInt16(0))
    fields += [2, 0, 0, 0, 0] + littleEndianBytes(extended)
    fields += [UInt8](repeating: 0, count: 8)
    add(17, 0x1100, fields, ["DIMM 0", Self.vendor])
    // 19: where it appears.
    addMapping(0x1300, base: 0, size: configuration.memoryBelow4G)
    if configuration.memoryAbove4G > 0 {
      addMapping(0x1301, base: 1 << 32, size: configuration.memoryAbove4G)
    }
  }

  private mutating func addMapping(_ handle: UInt16, base: UInt64, size: UInt64) {
    guard size > 0 else { return }
    let end = base &+ size &- 1
    let fits = end >> 10 < 0xFFFF_FFFF
    var fields = littleEndianBytes(fits ? UInt32(truncatingIfNeeded: base >> 10) : 0xFFFF_FFFF)
    fields += littleEndianBytes(fits ? UInt32(truncatingIfNeeded: end >> 10) : 0xFFFF_FFFF)
    fields += littleEndianBytes(UInt16(0x1000)) + [1]
    fields += littleEndianBytes(fits ? 0 : base) + littleEndianBytes(fits ? 0 : end)
    add(19, handle, fields, [])
  }

  /// Appends a structure: header, fields, and strings numbered from one (6.1).
  private mutating func add(
    _ type: UInt8, _ handle: UInt16, _ fields: [UInt8], _ strings: [String]
  ) {
    let start = tables.count
    tables += [type, UInt8(truncatingIfNeeded: 4 + fields.count)] + littleEndianBytes(handle)
    tables += fields
    for string in strings { tables += Array(string.utf8) + [0] }
    tables += strings.isEmpty ? [0, 0] : [0]
    largest = max(largest, UInt16(truncatingIfNeeded: tables.count - start))
    count &+= 1
  }

  /// The entry point (5.2.1), its table address still zero.
  var anchor: [UInt8] {
    var end =
      Array("_DMI_".utf8) + [0] + littleEndianBytes(UInt16(truncatingIfNeeded: tables.count))
    end += littleEndianBytes(UInt32(0)) + littleEndianBytes(count) + [0x28]
    end[5] = 0 &- end.reduce(0, &+)
    var anchor = Array("_SM_".utf8) + [0, 0x1F, 2, 8] + littleEndianBytes(largest)
    anchor += [UInt8](repeating: 0, count: 6) + end
    anchor[4] = 0 &- anchor.reduce(0, &+)
    return anchor
  }
}
