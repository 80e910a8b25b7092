// SPDX-License-Identifier: Apache-2.0

import ImageFiles
import Testing

@testable import BlockImage
@testable import image_writer

/// One damage to a good image and the words its error has to have.
struct Damage: Sendable, CustomTestStringConvertible {
  enum Place: Sendable {
    case header(Int)
    case l1(Int)
    case l2(Int)
    case refcountTable(Int)
  }

  var place: Place
  var bytes: [UInt8]
  var expected: String
  var writes = false

  init(_ place: Place, _ value: UInt64, _ width: Int, _ expected: String, writes: Bool = false) {
    self.place = place
    bytes = (0..<width).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (width - 1 - $0))) }
    self.expected = expected
    self.writes = writes
  }

  var testDescription: String { "\(place) = \(bytes): \(expected)" }

  func apply(to image: inout [UInt8]) {
    let offset =
      switch place {
      case .header(let offset): offset
      case .l1(let index): Int(image.bigEndian64(at: 40)) + index * 8
      case .l2(let index):
        Int(image.bigEndian64(at: Int(image.bigEndian64(at: 40))) & QCOW2.offsetMask) + index * 8
      case .refcountTable(let index): Int(image.bigEndian64(at: 48)) + index * 8
      }
    image.replaceSubrange(offset..<offset + bytes.count, with: bytes)
  }
}

@Suite("Malformed qcow2 images")
struct QCOW2MalformedTests {
  static let copied: UInt64 = 1 << 63

  static let header: [Damage] = [
    Damage(.header(0), 0, 4, "not a qcow2 image"),
    Damage(.header(0), 0x5146_49FA, 4, "not a qcow2 image"),
    Damage(.header(4), 0, 4, "qcow2 version 0"),
    Damage(.header(4), 1, 4, "qcow2 version 1"),
    Damage(.header(4), 4, 4, "qcow2 version 4"),
    Damage(.header(4), 0xFFFF_FFFF, 4, "qcow2 version"),
    Damage(.header(8), 50, 8, "backing_file_offset"),
    Damage(.header(8), 4096, 8, "backing_file"),
    Damage(.header(8), UInt64.max, 8, "backing_file"),
    Damage(.header(20), 0, 4, "cluster_bits"),
    Damage(.header(20), 8, 4, "cluster_bits"),
    Damage(.header(20), 22, 4, "cluster_bits"),
    Damage(.header(20), 64, 4, "cluster_bits"),
    Damage(.header(20), 0xFFFF_FFFF, 4, "cluster_bits"),
    Damage(.header(24), UInt64.max, 8, "size"),
    Damage(.header(24), 1 << 62, 8, "l1_size"),
    Damage(.header(24), 1 << 40, 8, "l1_size"),
    Damage(.header(32), 1, 4, "AES encryption"),
    Damage(.header(32), 2, 4, "crypt_method"),
    Damage(.header(32), 3, 4, "crypt_method"),
    Damage(.header(36), 0, 4, "l1_size"),
    Damage(.header(36), 0xFFFF_FFFF, 4, "l1_size"),
    Damage(.header(36), 0x40_0000, 4, "l1_table_offset"),
    Damage(.header(40), 0, 8, "l1_table_offset"),
    Damage(.header(40), 0x3008, 8, "l1_table_offset"),
    Damage(.header(40), 1 << 40, 8, "l1_table_offset"),
    Damage(.header(40), 0x1000, 8, "l1_table_offset"),
    Damage(.header(40), UInt64.max & ~4095, 8, "l1_table_offset"),
    Damage(.header(48), 0, 8, "refcount_table_offset"),
    Damage(.header(48), 0x1001, 8, "refcount_table_offset"),
    Damage(.header(48), 1 << 50, 8, "refcount_table_offset"),
    Damage(.header(56), 0, 4, "refcount_table_clusters"),
    Damage(.header(56), 0xFFFF_FFFF, 4, "refcount_table_clusters"),
    Damage(.header(56), 2000, 4, "refcount_table_offset"),
    Damage(.header(60), 100_000, 4, "nb_snapshots"),
    Damage(.header(60), 1, 4, "snapshots_offset"),
    Damage(.header(72), 1 << 2, 8, "external data file"),
    Damage(.header(72), 1 << 3, 8, "compression_type"),
    Damage(.header(72), 1 << 4, 8, "extended L2 entries need clusters"),
    Damage(.header(72), 1 << 40, 8, "incompatible feature bit 40"),
    Damage(.header(96), 7, 4, "refcount_order"),
    Damage(.header(96), 0xFFFF_FFFF, 4, "refcount_order"),
    Damage(.header(100), 96, 4, "header_length"),
    Damage(.header(100), 108, 4, "header_length"),
    Damage(.header(100), 8192, 4, "header_length"),
    Damage(.header(104), 1, 1, "compression_type"),
    Damage(.header(112), 0x1234_5678_FFFF_FFF0, 8, "header extension 0x12345678"),
    Damage(.header(112), 0xE279_2ACA_0000_0040, 8, "backing format name"),
    Damage(.header(112), 0x0537_BE77_0000_0010, 8, "encryption header length"),
    Damage(.header(112), 0x0537_BE77_0000_0008, 8, "encryption extension length"),
    Damage(.header(112), 0x4441_5441_0000_0000, 8, "data file name length"),
    Damage(.header(112), 0x4441_5441_0000_0008, 8, "data file name"),
  ]

  static let tables: [Damage] = [
    Damage(.l1(0), copied | 0x4001, 8, "L1 entry 0"),
    Damage(.l1(0), copied | 0x4200, 8, "L1 entry 0"),
    Damage(.l1(0), copied | 1 << 60 | 0x4000, 8, "L1 entry 0"),
    Damage(.l1(0), copied | 1 << 50, 8, "L1 entry 0"),
    Damage(.l2(0), copied | 0x5002, 8, "L2 entry of cluster 0"),
    Damage(.l2(0), copied | 0x5200, 8, "L2 entry of cluster 0"),
    Damage(.l2(0), copied | 1 << 56 | 0x5000, 8, "L2 entry of cluster 0"),
    Damage(.l2(0), copied | 1 << 50, 8, "L2 entry of cluster 0"),
    Damage(.l2(0), copied, 8, "L2 entry of cluster 0"),
    Damage(.l2(0), copied | 1 << 62 | 0x5000, 8, "L2 entry of cluster 0"),
    Damage(.l2(0), 1 << 62 | 1 << 50, 8, "compressed cluster"),
    Damage(.l2(0), 1 << 62 | 0x5000, 8, "compressed cluster at 0 is corrupt"),
  ]

  static let writing: [Damage] = [
    Damage(.header(72), 2, 8, "marked as corrupt", writes: true),
    Damage(.l1(0), copied | 0x1000, 8, "L1 entry 0", writes: true),
    Damage(.l1(0), copied | 0x2000, 8, "L1 entry 0", writes: true),
    Damage(.l1(0), copied | 0x3000, 8, "L1 entry 0", writes: true),
    Damage(.l2(0), copied | 0x1000, 8, "holds metadata", writes: true),
    Damage(.l2(0), copied | 0x2000, 8, "holds metadata", writes: true),
    Damage(.l2(0), copied | 0x3000, 8, "holds metadata", writes: true),
    Damage(.l2(0), copied | 0x4000, 8, "holds metadata", writes: true),
    Damage(.l2(0), copied | 0x1001, 8, "holds metadata", writes: true),
    Damage(.refcountTable(0), 0x2001, 8, "refcount table entry 0", writes: true),
    Damage(.refcountTable(0), 0x2200, 8, "refcount table entry 0", writes: true),
    Damage(.refcountTable(0), 1 << 57, 8, "refcount table entry 0", writes: true),
    Damage(.refcountTable(0), 1 << 50, 8, "refcount table entry 0", writes: true),
    Damage(.refcountTable(0), 0x1000, 8, "refcount table entry 0", writes: true),
    Damage(.refcountTable(1), 0x2000, 8, "refcount table entry 1", writes: true),
    Damage(.refcountTable(0), 0, 8, "holds metadata", writes: true),
  ]

  /// Opens and uses the image; returns the description of the first error.
  static func use(_ bytes: [UInt8], writes: Bool) -> String {
    do throws(BlockImageError) {
      var image = try open(bytes, writable: writes)
      if writes {
        try image.write([UInt8](repeating: 1, count: 512).span, at: 0)
        try image.write([UInt8](repeating: 1, count: 512).span, at: 512 << 10)
      } else {
        _ = try image.bytes(at: 0, count: 8192)
      }
      return ""
    } catch {
      return error.description
    }
  }

  @Test(
    "each damage is refused with an error that names the field",
    arguments: header + tables + writing)
  func refused(damage: Damage) throws {
    let bench = try Workbench()
    var bytes = try bench.create(
      "cluster_size=4096", size: "1M", commands: ["write -P 17 0 64k"])
    damage.apply(to: &bytes)

    let error = Self.use(bytes, writes: damage.writes)

    #expect(error.contains(damage.expected), "\(error)")
    #expect(!error.isEmpty)
  }

  @Test("version 2 has no zero clusters")
  func version2Zero() throws {
    let bench = try Workbench()
    var bytes = try bench.create(
      "cluster_size=4096,compat=0.10", size: "1M", commands: ["write -P 17 0 64k"])
    Damage(.l2(0), 1, 8, "").apply(to: &bytes)

    #expect(Self.use(bytes, writes: false).contains("version 2 has no zero clusters"))
  }

  @Test("an unknown feature is refused by the name that the image gives it")
  func namedFeature() throws {
    let bench = try Workbench()
    var bytes = try bench.create("cluster_size=4096", size: "1M")
    let table: [UInt8] =
      [0x68, 0x03, 0xF8, 0x57, 0, 0, 0, 48, 0, 41] + Array("warp drive".utf8)
    bytes.replaceSubrange(112..<112 + 200, with: [UInt8](repeating: 0, count: 200))
    bytes.replaceSubrange(112..<112 + table.count, with: table)
    Damage(.header(72), 1 << 41, 8, "").apply(to: &bytes)

    #expect(Self.use(bytes, writes: false).contains("the feature \"warp drive\""))
  }

  @Test("an image cut off at any length is refused or read, and never traps")
  func cutOff() throws {
    let bench = try Workbench()
    let bytes = try bench.create(
      "cluster_size=512", size: "64k", commands: ["write -P 17 0 64k"])

    for count in stride(from: 0, to: 4096, by: 37) {
      let error = Self.use(Array(bytes.prefix(count)), writes: count % 2 == 0)
      #expect(!error.isEmpty, "cut at \(count)")
    }
  }

  @Test("random bytes in header and tables never trap")
  func noise() throws {
    let bench = try Workbench()
    let good = try bench.create(
      "cluster_size=512,refcount_bits=2", size: "64k", commands: ["write -P 17 0 20k"])
    var random = SeededGenerator(state: 7)
    var refused = 0

    for _ in 0..<3000 {
      var bytes = good
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        let offset = Int.random(in: 4..<3072, using: &random)
        bytes[offset] = UInt8.random(in: 0...255, using: &random)
      }
      if !Self.use(bytes, writes: Bool.random(using: &random)).isEmpty { refused += 1 }
    }

    #expect(refused > 300)
  }
}
