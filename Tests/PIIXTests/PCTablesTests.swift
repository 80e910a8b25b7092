// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Foundation
import Testing

@testable import PIIX

@Suite("AML")
struct AMLTests {
  @Test(
    "integers take their shortest form",
    arguments: [
      (UInt64(0), [UInt8(0x00)]), (1, [0x01]), (2, [0x0A, 2]), (0x100, [0x0B, 0, 1]),
      (0x1_0000, [0x0C, 0, 0, 1, 0]), (0x1_0000_0000, [0x0E, 0, 0, 0, 0, 1, 0, 0, 0]),
    ] as [(UInt64, [UInt8])])
  func integers(value: UInt64, bytes: [UInt8]) {
    #expect(AML.integer(value).bytes == bytes)
  }

  @Test(
    "names are padded, prefixed and joined",
    arguments: [
      ("A", Array("A___".utf8)), ("\\_SB", Array("\\_SB_".utf8)),
      ("^PCI0.ISA", [0x5E, 0x2E] + Array("PCI0ISA_".utf8)),
      ("\\_SB.PCI0.ISA", [0x5C, 0x2F, 3] + Array("_SB_PCI0ISA_".utf8)),
    ] as [(String, [UInt8])])
  func names(path: String, bytes: [UInt8]) {
    #expect(AML.nameString(path) == bytes)
  }

  @Test(
    "package lengths count themselves",
    arguments: [
      (0, [UInt8(0x01)]), (62, [0x3F]), (63, [0x41, 0x04]), (4093, [0x4F, 0xFF]),
      (4094, [0x81, 0x00, 0x01]),
    ] as [(Int, [UInt8])])
  func packageLengths(count: Int, head: [UInt8]) {
    let bytes = AML.package([UInt8](repeating: 0xAA, count: count))
    #expect(bytes.count == count + head.count)
    #expect(Array(bytes.prefix(head.count)) == head)
  }

  @Test("EISA ids are compressed")
  func eisaID() {
    #expect(AML.eisaID("PNP0A03").bytes == [0x0C, 0x41, 0xD0, 0x0A, 0x03])
  }
}

@Suite("PCTables")
struct PCTablesTests {
  static let configuration = PCTables.Configuration(
    memoryBelow4G: 512 << 20, cpuCount: 2, maxCPUs: 4,
    uuid: (0..<16).map { UInt8($0) }, debugExitPort: 0xF4,
    bootOrder: [PCTables.bootPath(channel: 0, unit: 0), PCTables.bootPath(channel: 1, unit: 0)])

  static func file(_ name: String, _ configuration: PCTables.Configuration = configuration)
    -> [UInt8]
  {
    guard case .bytes(let bytes) = PCTables.items(configuration).file(name) else { return [] }
    return bytes
  }

  static func integer(_ bytes: [UInt8], _ offset: Int, _ count: Int) -> UInt64 {
    (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
  }

  @Test(
    "memory is split as on the pc machine",
    arguments: [
      (UInt64(1) << 30, UInt64(1) << 30, UInt64(0)), (0xDFFF_F000, 0xDFFF_F000, 0),
      (0xE000_0000, 0xC000_0000, 0x2000_0000), (8 << 30, 0xC000_0000, 0x1_4000_0000),
    ] as [(UInt64, UInt64, UInt64)])
  func split(size: UInt64, below: UInt64, above: UInt64) {
    #expect(PCTables.splitMemory(size) == (below, above))
  }

  @Test("e820 lists the reserved pages and the RAM")
  func memoryMap() {
    let bytes = Self.file("etc/e820", .init(memoryBelow4G: 3 << 30, memoryAbove4G: 1 << 30))
    #expect(bytes.count == 60)
    let entries = (0..<3).map { entry in
      [
        Self.integer(bytes, 20 * entry, 8), Self.integer(bytes, 20 * entry + 8, 8),
        Self.integer(bytes, 20 * entry + 16, 4),
      ]
    }
    #expect(
      entries == [[0xFEFF_C000, 0x4000, 2], [0, 3 << 30, 1], [1 << 32, 1 << 30, 1]])
  }

  @Test(
    "items found by key",
    arguments: [
      (UInt16(0x02), (0..<16).map { UInt8($0) }), (0x03, [0, 0, 0, 0x20, 0, 0, 0, 0]),
      (0x04, [0, 0]), (0x05, [2, 0]), (0x0F, [4, 0]), (0x0E, [0, 0]), (0x8002, [1, 0, 0, 0]),
      (0x0D, [UInt8](repeating: 0, count: 40)),
    ] as [(UInt16, [UInt8])])
  func items(key: UInt16, bytes: [UInt8]) {
    #expect(PCTables.items(Self.configuration).item(key) == .bytes(bytes))
  }

  @Test("the boot order is lines and a zero")
  func bootOrder() {
    #expect(
      String(decoding: Self.file("bootorder"), as: UTF8.self)
        == "/pci@i0cf8/ide@1,1/drive@0/disk@0\n/pci@i0cf8/ide@1,1/drive@1/disk@0\0")
  }

  @Test("the SMBIOS entry point's checksums are right and its tables walk to the end")
  func smbios() {
    let anchor = Self.file("etc/smbios/smbios-anchor")
    #expect(anchor.count == 31)
    #expect(anchor.reduce(0, &+) == 0)
    #expect(anchor[16...].reduce(0, &+) == 0)
    let tables = Self.file("etc/smbios/smbios-tables")
    #expect(Self.integer(anchor, 22, 2) == UInt64(tables.count))
    var types: [UInt8] = []
    var lengths: [UInt8: UInt8] = [:]
    var strings: [UInt8: [String]] = [:]
    var offset = 0
    while offset + 4 <= tables.count {
      let type = tables[offset]
      types.append(type)
      lengths[type] = tables[offset + 1]
      offset += Int(tables[offset + 1])
      strings[type] = Self.strings(tables[offset...])
      while offset + 1 < tables.count, tables[offset] != 0 || tables[offset + 1] != 0 {
        offset += 1
      }
      offset += 2
    }
    #expect(offset == tables.count)
    #expect(types == [0, 1, 3, 4, 16, 17, 19, 32, 127])
    #expect(Self.integer(anchor, 28, 2) == UInt64(types.count))
    // Structure lengths of SMBIOS 2.8.
    #expect(
      lengths == [0: 24, 1: 27, 3: 22, 4: 42, 16: 23, 17: 40, 19: 31, 32: 11, 127: 4])
    // What a guest reads as the machine's identity is this machine's own.
    #expect(strings[0]?.prefix(2) == ["Bulkhead", "1"])
    #expect(strings[1] == ["Bulkhead", "Standard PC (i440FX + PIIX)", "1"])
    #expect(!String(decoding: tables, as: UTF8.self).contains("SeaBIOS"))
  }

  /// The strings behind a structure's fields, up to the empty one that ends them.
  private static func strings(_ bytes: ArraySlice<UInt8>) -> [String] {
    var strings: [String] = []
    var rest = bytes
    while let first = rest.first, first != 0 {
      let text = rest.prefix { $0 != 0 }
      strings.append(String(decoding: text, as: UTF8.self))
      rest = rest.dropFirst(text.count + 1)
    }
    return strings
  }
}

/// Runs the loader script as firmware does, then reads the tables from memory.
struct LoadedTables {
  var memory: [String: (address: UInt64, bytes: [UInt8])] = [:]

  init(_ configuration: PCTables.Configuration, base: UInt64 = 0x1FF0_0000) {
    var next = base
    let items = PCTables.items(configuration)
    let script = Self.bytes(items, "etc/table-loader")
    #expect(script.count % 128 == 0)
    for start in stride(from: 0, to: script.count, by: 128) {
      let entry = Array(script[start..<start + 128])
      let file = Self.name(entry, 4)
      switch entry[0] {
      case 1:
        let alignment = PCTablesTests.integer(entry, 60, 4)
        next = (next + alignment - 1) / alignment * alignment
        memory[file] = (next, Self.bytes(items, file))
        next += UInt64(Self.bytes(items, file).count)
      case 2:
        guard let source = memory[Self.name(entry, 60)]?.address else { break }
        let offset = Int(PCTablesTests.integer(entry, 116, 4))
        let size = Int(entry[120])
        let value = PCTablesTests.integer(memory[file]?.bytes ?? [], offset, size) + source
        for index in 0..<size {
          memory[file]?.bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * index))
        }
      case 3:
        let offset = Int(PCTablesTests.integer(entry, 60, 4))
        let first = Int(PCTablesTests.integer(entry, 64, 4))
        let count = Int(PCTablesTests.integer(entry, 68, 4))
        let sum = (memory[file]?.bytes ?? [])[first..<first + count].reduce(0, &+)
        memory[file]?.bytes[offset] &-= sum
      default: Issue.record("no such command")
      }
    }
  }

  static func bytes(_ items: FwCfgItems, _ name: String) -> [UInt8] {
    guard case .bytes(let bytes) = items.file(name) else { return [] }
    return bytes
  }

  static func name(_ entry: [UInt8], _ offset: Int) -> String {
    String(decoding: entry[offset..<offset + 56].prefix { $0 != 0 }, as: UTF8.self)
  }

  var root: [UInt8] { memory["etc/acpi/rsdp"]?.bytes ?? [] }

  /// Returns the table at an address, as long as its header says.
  func table(at address: UInt64) -> [UInt8] {
    guard let (base, bytes) = memory["etc/acpi/tables"], address >= base,
      address - base + 8 <= UInt64(bytes.count)
    else { return [] }
    let offset = Int(address - base)
    return Array(bytes[offset..<offset + Int(PCTablesTests.integer(bytes, offset + 4, 4))])
  }

  /// The tables that the root pointer leads to, by signature.
  var tables: [String: [UInt8]] {
    var found: [String: [UInt8]] = [:]
    var lists = [(PCTablesTests.integer(root, 16, 4), 4)]
    if root[15] >= 2 { lists.append((PCTablesTests.integer(root, 24, 8), 8)) }
    for (address, width) in lists {
      let list = table(at: address)
      found[String(decoding: list.prefix(4), as: UTF8.self)] = list
      for offset in stride(from: 36, to: list.count, by: width) {
        let entry = table(at: PCTablesTests.integer(list, offset, width))
        found[String(decoding: entry.prefix(4), as: UTF8.self)] = entry
      }
    }
    if let fadt = found["FACP"] {
      found["FACS"] = table(at: PCTablesTests.integer(fadt, 36, 4))
      found["DSDT"] = table(at: PCTablesTests.integer(fadt, 40, 4))
    }
    return found
  }
}

@Suite("ACPI tables")
struct ACPITablesTests {
  static let configurations: [PCTables.Configuration] = [
    PCTablesTests.configuration,
    .init(memoryBelow4G: 3 << 30, memoryAbove4G: 5 << 30, cpuCount: 255, rootRevision: .extended),
    .init(memoryBelow4G: 64 << 20, serialPorts: 0, hasDebugConsole: false),
  ]

  @Test("the script links and sums up every table", arguments: [0, 1, 2] as [Int])
  func loading(index: Int) {
    let loaded = LoadedTables(Self.configurations[index])
    #expect(loaded.root.prefix(8) == ArraySlice("RSD PTR ".utf8))
    #expect(loaded.root.prefix(20).reduce(0, &+) == 0)
    #expect(loaded.root.reduce(0, &+) == 0)
    let tables = loaded.tables
    let expected = ["RSDT", "FACP", "APIC", "FACS", "DSDT"] + (index == 1 ? ["XSDT"] : [])
    #expect(Set(tables.keys) == Set(expected))
    for (signature, table) in tables where signature != "FACS" {
      #expect(table.reduce(0, &+) == 0, "checksum of \(signature)")
    }
    #expect((loaded.memory["etc/acpi/tables"]?.address ?? 1) % 64 == 0)
  }

  @Test(
    "the FADT says where the fixed hardware is",
    arguments: [
      (0x08, 1, UInt64(3)), (0x04, 4, 244), (46, 2, 9), (48, 4, 0xB2), (52, 1, 0xF1), (53, 1, 0xF0),
      (56, 4, 0x600), (64, 4, 0x604), (76, 4, 0x608), (80, 4, 0xAFE0), (88, 1, 4), (89, 1, 2),
      (91, 1, 4), (92, 1, 4), (108, 1, 0x32), (109, 2, 3), (112, 4, 0x425), (116, 1, 1),
      (117, 1, 8), (120, 8, 0xCF9), (128, 1, 6), (152, 8, 0x600), (176, 8, 0x604),
      (212, 8, 0x608), (224, 8, 0xAFE0),
    ] as [(Int, Int, UInt64)])
  func fadt(offset: Int, count: Int, value: UInt64) throws {
    let fadt = try #require(LoadedTables(PCTablesTests.configuration).tables["FACP"])
    #expect(PCTablesTests.integer(fadt, offset, count) == value)
  }

  @Test("both DSDT pointers of the FADT agree")
  func dsdtPointers() throws {
    let fadt = try #require(LoadedTables(PCTablesTests.configuration).tables["FACP"])
    #expect(PCTablesTests.integer(fadt, 40, 4) == PCTablesTests.integer(fadt, 140, 8))
  }

  @Test("the MADT lists CPUs, the I/O APIC and the overrides")
  func madt() throws {
    let madt = try #require(LoadedTables(PCTablesTests.configuration).tables["APIC"])
    var entries: [[UInt8]] = []
    var offset = 44
    while offset < madt.count {
      entries.append(Array(madt[offset..<offset + Int(madt[offset + 1])]))
      offset += Int(madt[offset + 1])
    }
    #expect(
      entries.filter { $0[0] == 0 }.map { [$0[2], $0[3], $0[4]] } == [
        [0, 0, 1], [1, 1, 1], [2, 2, 0], [3, 3, 0],
      ])
    #expect(entries.filter { $0[0] == 1 } == [[1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0]])
    #expect(
      entries.filter { $0[0] == 2 }.map { [$0[3], $0[4], $0[8]] } == [
        [0, 2, 0], [5, 5, 0x0D], [9, 9, 0x0D], [10, 10, 0x0D], [11, 11, 0x0D],
      ])
    #expect(entries.filter { $0[0] == 4 } == [[4, 6, 0xFF, 0, 0, 1]])
  }

  @Test("iasl takes every table apart and puts it together again", arguments: [0, 1, 2] as [Int])
  func iasl(index: Int) throws {
    let compiler = "/usr/bin/iasl"
    try #require(
      FileManager.default.isExecutableFile(atPath: compiler),
      "this test needs iasl from the package acpica-tools")
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
      "piix-acpi-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    for (signature, table) in LoadedTables(Self.configurations[index]).tables {
      try Data(table).write(to: folder.appendingPathComponent("\(signature).aml"))
      let apart = try Self.run(compiler, ["-d", "\(signature).aml"], in: folder)
      #expect(apart.status == 0, "\(signature): \(apart.output)")
      #expect(!apart.output.contains("Error"), "\(signature): \(apart.output)")
      #expect(!apart.output.contains("Warning"), "\(signature): \(apart.output)")
      // Without optimisation of names the compiler writes down what it read.
      let together = try Self.run(
        compiler, ["-oa", "-p", "again-\(signature)", "\(signature).dsl"], in: folder)
      #expect(together.status == 0, "\(signature): \(together.output)")
      guard signature == "DSDT" else { continue }
      #expect(together.output.contains(" 0 Errors"), "\(together.output)")
      let again = try Data(contentsOf: folder.appendingPathComponent("again-DSDT.aml"))
      let isSame = Array(again.dropFirst(36)) == Array(table.dropFirst(36))
      #expect(isSame, "the DSDT differs once recompiled")
    }
  }

  static func run(_ program: String, _ arguments: [String], in folder: URL) throws
    -> (status: Int32, output: String)
  {
    let process = Process()
    let pipe = Pipe()
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments
    process.currentDirectoryURL = folder
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: output, as: UTF8.self))
  }
}
