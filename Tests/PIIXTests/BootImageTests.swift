// SPDX-License-Identifier: Apache-2.0

import Foundation
import TestSupport
import Testing

@testable import PIIX

/// Kernels of all kinds, right and malformed.
@Suite("Direct boot")
struct BootImageTests {
  static let memory: UInt64 = 64 << 20

  static func open(_ bytes: [UInt8], initrd: UInt64 = 0) throws -> BootImage {
    let file = BootFile(byteCount: UInt64(bytes.count)) { offset, count in
      Array(bytes.dropFirst(Int(offset)).prefix(count))
    }
    return try BootImage(file, initrdByteCount: initrd, memoryBelow4G: memory)
  }

  /// What a file is refused with.
  static func problem(_ bytes: [UInt8], initrd: UInt64 = 0) -> String {
    do {
      return "accepted: \(try open(bytes, initrd: initrd))"
    } catch {
      return "\(error)"
    }
  }

  static func put(_ value: UInt64, _ count: Int, at offset: Int, in bytes: inout [UInt8]) {
    for lane in 0..<count {
      bytes[offset + lane] = UInt8(truncatingIfNeeded: value >> UInt64(8 * lane))
    }
  }

  /// An ELF file with two segments at 2 MiB and 4 MiB, and PVH's note with the entry 200010h.
  static func elf(isWide: Bool, hasNote: Bool = true) -> [UInt8] {
    var b = [UInt8](repeating: 0, count: 0x400)
    b.replaceSubrange(0..<7, with: [0x7F, 0x45, 0x4C, 0x46, isWide ? 2 : 1, 1, 1])
    put(2, 2, at: 16, in: &b)
    put(isWide ? 62 : 3, 2, at: 18, in: &b)
    put(isWide ? 0xFFFF_FFFF_8020_0020 : 0xC020_0020, isWide ? 8 : 4, at: 24, in: &b)
    put(64, isWide ? 8 : 4, at: isWide ? 32 : 28, in: &b)
    let entrySize = isWide ? 56 : 32
    put(UInt64(entrySize), 2, at: isWide ? 54 : 42, in: &b)
    put(3, 2, at: isWide ? 56 : 44, in: &b)
    func header(
      _ number: Int, _ type: UInt64, _ offset: UInt64, _ address: UInt64, _ size: UInt64,
      _ memorySize: UInt64
    ) {
      let base = 64 + number * entrySize
      put(type, 4, at: base, in: &b)
      let fields: [(UInt64, Int)] = [
        (offset, isWide ? 8 : 4),
        (address | (isWide ? 0xFFFF_FFFF_8000_0000 : 0xC000_0000), isWide ? 16 : 8),
        (address, isWide ? 24 : 12), (size, isWide ? 32 : 16), (memorySize, isWide ? 40 : 20),
      ]
      for (value, place) in fields { put(value, isWide ? 8 : 4, at: base + place, in: &b) }
    }
    header(0, 1, 0x200, 0x20_0000, 0x100, 0x300)
    header(1, 1, 0x300, 0x40_0000, 0x80, 0x80)
    header(2, hasNote ? 4 : 0, 0x380, 0, 20, 20)
    put(4, 4, at: 0x380, in: &b)
    put(4, 4, at: 0x384, in: &b)
    put(18, 4, at: 0x388, in: &b)
    b.replaceSubrange(0x38C..<0x390, with: Array("Xen\0".utf8))
    put(0x20_0010, 4, at: 0x390, in: &b)
    return b
  }

  /// A Multiboot kernel with addresses: 100000h to 100400h, 100 bytes of zeroes after that.
  static func multiboot(
    flags: UInt64 = 0x1_0003, headerAddress: UInt64 = 0x10_0010, load: UInt64 = 0x10_0000,
    loadEnd: UInt64 = 0x10_0200, bssEnd: UInt64 = 0x10_0264, entry: UInt64 = 0x10_0030
  ) -> [UInt8] {
    var b = [UInt8](repeating: 0xAB, count: 0x200)
    let fields = [
      0x1BAD_B002, flags, (0 &- 0x1BAD_B002 &- flags) & 0xFFFF_FFFF, headerAddress, load, loadEnd,
      bssEnd, entry,
    ]
    for (place, value) in fields.enumerated() { put(value, 4, at: 0x10 + 4 * place, in: &b) }
    return b
  }

  // MARK: - What is right

  @Test("an ELF kernel with PVH's note goes where its segments say", arguments: [true, false])
  func pvh(isWide: Bool) throws {
    let bytes = Self.elf(isWide: isWide)
    guard case .multiboot(let kernel) = try Self.open(bytes, initrd: 5000) else {
      Issue.record("not an ELF kernel")
      return
    }
    #expect(kernel.startProtocol == .pvh)
    #expect(kernel.entry == 0x20_0010)
    #expect(kernel.image.address == 0x20_0000)
    #expect(
      kernel.image.pieces == [
        .init(offset: 0, source: .kernel, fileOffset: 0x200, byteCount: 0x100),
        .init(offset: 0x20_0000, source: .kernel, fileOffset: 0x300, byteCount: 0x80),
        .init(offset: 0x40_0000, source: .initrd, fileOffset: 0, byteCount: 5000),
      ])
    #expect(kernel.module == 0x60_0000..<0x60_0000 + 5000)
    #expect(kernel.image.byteCount == 0x40_0000 + 5000)
    #expect(
      kernel.image.pieces(in: 0x80..<0x20_0010) == [
        .init(offset: 0x80, source: .kernel, fileOffset: 0x280, byteCount: 0x80),
        .init(offset: 0x20_0000, source: .kernel, fileOffset: 0x300, byteCount: 0x10),
      ])
    #expect(kernel.image.pieces(in: 0x100..<0x20_0000).isEmpty)
  }

  @Test("an ELF file with a Multiboot header and no note is a Multiboot kernel")
  func multibootELF() throws {
    var bytes = Self.elf(isWide: false, hasNote: false)
    for (place, value) in [0x1BAD_B002, 0, 0xE452_4FFE].enumerated() {
      Self.put(UInt64(value), 4, at: 0x3C0 + 4 * place, in: &bytes)
    }
    guard case .multiboot(let kernel) = try Self.open(bytes) else {
      Issue.record("not a Multiboot kernel")
      return
    }
    #expect(kernel.startProtocol == .multiboot)
    // e_entry is virtual.
    #expect(kernel.entry == 0x20_0020)
    #expect(kernel.module.isEmpty)
  }

  @Test("a Multiboot kernel goes where its header says")
  func addressed() throws {
    guard case .multiboot(let kernel) = try Self.open(Self.multiboot()) else {
      Issue.record("not a Multiboot kernel")
      return
    }
    #expect(kernel.entry == 0x10_0030)
    #expect(kernel.image.byteCount == 0x264)
    #expect(
      kernel.image.pieces == [
        .init(offset: 0, source: .kernel, fileOffset: 0, byteCount: 0x200)
      ])
  }

  @Test("the information block has what a Multiboot kernel reads")
  func information() throws {
    guard case .multiboot(let kernel) = try Self.open(Self.multiboot(), initrd: 100) else {
      Issue.record("not a Multiboot kernel")
      return
    }
    let block = BootBytes(bytes: MultibootInformation(kernel, commandLine: "a=b").bytes)
    func text(_ address: UInt32) -> String {
      let rest = block.bytes[Int(address - MultibootInformation.address)...]
      return String(decoding: rest.prefix { $0 != 0 }, as: UTF8.self)
    }
    #expect(block.word32(0) == 0x24F)
    #expect(text(block.word32(16)) == "kernel a=b")
    #expect(text(block.word32(0x40)) == "Bulkhead")
    #expect(block.word32(20) == 1)
    let module = Int(block.word32(24) - MultibootInformation.address)
    #expect(block.word32(module) == 0x20_0000)
    #expect(block.word32(module + 4) == 0x20_0064)
    // The option ROM makes a segment of it.
    #expect(block.word32(0x30) & 15 == 0)
  }

  @Test("the code that starts PVH's kernels is that of its source")
  func startCode() throws {
    let folder = try temporaryFolder()
    defer { try? FileManager.default.removeItem(at: folder) }
    let output = folder.appending(path: "code").path()
    let source = root.appending(path: "Tests/PIIXTests/Guests/pvhstart.asm").path()
    let built = try run(["nasm", "-f", "bin", source, "-o", output])
    #expect(built.code == 0, "\(built.output)")
    #expect(try [UInt8](Data(contentsOf: URL(filePath: output))) == PVHStart.code)
  }

  // MARK: - What is wrong

  @Test("what is no kernel is refused")
  func nothing() {
    #expect(Self.problem([]).contains("no bzImage"))
    #expect(Self.problem([UInt8](repeating: 0, count: 9000)).contains("no bzImage"))
    #expect(Self.problem(Self.elf(isWide: true, hasNote: false)).contains("without PVH's note"))
    // The sum of the header's fields is not zero.
    var bytes = Self.multiboot()
    bytes[0x18] ^= 1
    #expect(Self.problem(bytes).contains("no Multiboot header"))
  }

  @Test(
    "a malformed ELF file is refused with its field's name",
    arguments: [
      (4, 1, 3, "e_ident"), (5, 1, 2, "e_ident"), (16, 2, 1, "e_type"), (18, 2, 40, "e_machine"),
      (32, 8, 0x3F0, "program headers"), (32, 8, UInt64.max - 3, "program headers"),
      (54, 2, 8, "e_phentsize"), (56, 2, 0, "e_phnum"), (56, 2, 0xFFFF, "e_phnum"),
      (64 + 8, 8, 0x390, "p_offset"), (64 + 8, 8, UInt64.max, "p_offset"),
      (64 + 24, 8, 0xF_F000, "p_paddr"), (64 + 24, 8, UInt64.max - 0x10, "more memory"),
      (64 + 24, 8, 0x3FF_FF00, "more memory"), (64 + 24, 8, 0x3F_FFF0, "overlap"),
      (64 + 32, 8, 0x301, "p_filesz"), (64 + 40, 8, 1 << 40, "more memory"),
      (64 + 112 + 8, 8, 0x3F8, "notes"), (0x384, 4, 0x7FFF_FFFF, "note"),
      (0x380, 4, 0xFFFF_FFFF, "note"), (0x390, 4, 0x10_0000, "in no segment"),
    ] as [(Int, Int, UInt64, String)])
  func malformedELF(offset: Int, count: Int, value: UInt64, name: String) {
    var bytes = Self.elf(isWide: true)
    Self.put(value, count, at: offset, in: &bytes)
    #expect(Self.problem(bytes).contains(name), "\(Self.problem(bytes))")
  }

  @Test("an ELF file that ends anywhere is refused or right", arguments: [true, false])
  func cutELF(isWide: Bool) {
    let bytes = Self.elf(isWide: isWide)
    for count in 0..<bytes.count where count < 0x394 {
      #expect(!Self.problem(Array(bytes.prefix(count))).hasPrefix("accepted"), "\(count)")
    }
  }

  @Test("any bytes of the headers may be wrong")
  func mutated() {
    var random = SystemRandomNumberGenerator()
    for isWide in [true, false] {
      for offset in 0..<0x394 {
        var bytes = Self.elf(isWide: isWide)
        bytes[offset] = UInt8.random(in: 0...255, using: &random)
        bytes[Int.random(in: 0..<0x394, using: &random)] = 0xFF
        _ = Self.problem(bytes, initrd: 1000)
        var other = Self.multiboot()
        other[offset % 0x30] = UInt8.random(in: 0...255, using: &random)
        _ = Self.problem(other)
      }
    }
  }

  @Test("a malformed Multiboot header is refused with its field's name")
  func malformedMultiboot() {
    #expect(Self.problem(Self.multiboot(flags: 0x1_0010)).contains("flags"))
    #expect(Self.problem(Self.multiboot(headerAddress: 0xF_FFFF)).contains("header_addr"))
    #expect(Self.problem(Self.multiboot(headerAddress: 0x10_0014)).contains("header_addr"))
    #expect(
      Self.problem(Self.multiboot(headerAddress: 0x8_0010, load: 0x8_0000)).contains("load_addr"))
    #expect(Self.problem(Self.multiboot(loadEnd: 0x10_0201)).contains("load_end_addr"))
    #expect(Self.problem(Self.multiboot(loadEnd: 0xF_0000)).contains("load_end_addr"))
    #expect(Self.problem(Self.multiboot(bssEnd: 0x10_01FF)).contains("bss_end_addr"))
    #expect(Self.problem(Self.multiboot(bssEnd: 0x400_0000)).contains("bss_end_addr"))
    #expect(Self.problem(Self.multiboot(entry: 0x10_0264)).contains("entry_addr"))
    #expect(Self.problem(Self.multiboot(flags: 3)).contains("ELF"))
  }

  @Test("a RAM disk that does not fit is refused")
  func largeDisk() {
    #expect(Self.problem(Self.multiboot(), initrd: 63 << 20).contains("initial RAM disk"))
    #expect(Self.problem(Self.elf(isWide: true), initrd: .max >> 1).contains("initial RAM disk"))
  }
}
