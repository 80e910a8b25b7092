// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import BlockImage

@Suite("qcow2 images whose storage fails")
struct QCOW2FaultTests {
  /// Writes before the flush, then writes after it; sector and count.
  static let flushed = [(0, 9), (100, 20), (3, 2), (900, 16)]
  static let later = [(40, 30), (101, 3), (1000, 40), (1500, 9), (8, 100), (2047, 1)]

  static func data(_ write: (Int, Int), _ seed: Int) -> [UInt8] {
    [UInt8](repeating: UInt8(seed + 1), count: write.1 * 512)
  }

  /// Runs the workload; returns what the disk holds for sure, and which bytes may differ.
  static func run(_ image: inout TestImage) -> (bytes: [UInt8], unsure: Set<Int>) {
    var twin = [UInt8](repeating: 0, count: Int(image.virtualSize))
    var unsure: Set<Int> = []
    for (index, write) in (flushed + later).enumerated() {
      let bytes = data(write, index)
      let sectors = write.0..<write.0 + write.1
      do throws(BlockImageError) {
        try image.write(bytes.span, at: UInt64(write.0 * 512))
        twin.replaceSubrange(write.0 * 512..<(write.0 + write.1) * 512, with: bytes)
        unsure.subtract(sectors)
      } catch {
        unsure.formUnion(sectors)
      }
      if index == flushed.count - 1 { try? image.flush() }
    }
    return (twin, unsure)
  }

  @Test(
    "a kill before any write leaves finished data intact and at worst leaked clusters",
    arguments: [
      ("cluster_size=512,refcount_bits=64", "once"),
      ("cluster_size=512,refcount_bits=64", "for good"),
      ("cluster_size=4096,refcount_bits=1", "torn"),
      ("cluster_size=16k,extended_l2=on", "once"),
      ("cluster_size=16k,extended_l2=on", "torn"),
    ])
  func everyWrite(options: String, kind: String) throws {
    let bench = try Workbench()
    let base = try bench.create(options, size: "1M")
    var whole = try open(base)
    _ = Self.run(&whole)
    let total = whole.storage.writeCount

    for failing in 0..<total {
      let fault: MemoryStorage.Fault =
        switch kind {
        case "once": .onlyAt(failing)
        case "torn": .tornFrom(failing)
        default: .from(failing)
        }
      var image = try open(base, fault: fault)
      let (twin, unsure) = Self.run(&image)
      try bench.store(image.storage.bytes, "o")
      var again = try open(image.storage.bytes)
      let seen = try again.contents()
      let wrong = (0..<2048).first { sector in
        !unsure.contains(sector)
          && seen[sector * 512..<(sector + 1) * 512] != twin[sector * 512..<(sector + 1) * 512]
      }
      #expect(wrong == nil, "write \(failing) failed; a sector differs")
      let check = try bench.run("qemu-img", ["check", "-f", "qcow2", "o"])
      #expect(check.code == 0 || check.code == 3, "write \(failing): \(check.output)")
    }
    #expect(total > 15)
  }

  @Test("a kill while the refcount table moves leaves at worst leaked clusters")
  func tableGrowth() throws {
    let bench = try Workbench()
    var image = try open(
      try bench.create("cluster_size=512,refcount_bits=64", size: "4M"))
    let data = [UInt8](repeating: 0x77, count: 4096)
    let table = image.header.refcountTableOffset
    var base: [UInt8] = []
    var offset: UInt64 = 0
    while image.header.refcountTableOffset == table {
      base = image.storage.bytes
      try image.write(data.span, at: offset)
      offset += 4096
    }

    for failing in 0..<40 {
      var cut = try open(base, fault: .from(failing))
      try? cut.write(data.span, at: offset - 4096)
      try bench.store(cut.storage.bytes, "o")
      let check = try bench.run("qemu-img", ["check", "-f", "qcow2", "o"])
      #expect(check.code == 0 || check.code == 3, "write \(failing): \(check.output)")
      var again = try open(cut.storage.bytes)
      let seen = try again.bytes(at: 0, count: Int(offset - 4096))
      #expect(seen.allSatisfy { $0 == 0x77 })
    }
  }
}

extension QCOW2FaultTests {
  @Test("what the host can't store is reported, and goes well once there is space again")
  func noSpace() throws {
    let bench = try Workbench()
    let base = try bench.create("cluster_size=4096", size: "1M", commands: ["write -P 3 0 64k"])
    for tables in [QCOW2Options.TableWrites.through, .back] {
      var options = QCOW2Options()
      options.tables = tables
      var image = try open(base, fault: .tornFrom(0), options: options)
      let data = [UInt8](repeating: 9, count: 40 << 10)

      #expect(throws: BlockImageError.storage(.noSpace)) {
        try image.write(data.span, at: 100 << 10)
        try image.flush()
      }
      image.storage.fault = .never
      try image.write(data.span, at: 100 << 10)
      try image.write(data.span, at: 4096)
      try image.close()

      try bench.store(image.storage.bytes, "o")
      var twin = Twin(bytes: [UInt8](repeating: 0, count: 1 << 20))
      for index in 0..<64 << 10 { twin.bytes[index] = 3 }
      twin.bytes.replaceSubrange(4096..<4096 + data.count, with: data)
      twin.bytes.replaceSubrange(100 << 10..<140 << 10, with: data)
      try bench.judge("o", twin, "\(tables)", leaksAllowed: true)
    }
  }

  @Test("corruption that is met marks the image, and nothing is written any more")
  func marksCorruption() throws {
    let bench = try Workbench()
    var bytes = try bench.create("cluster_size=4096", size: "1M", commands: ["write -P 3 0 64k"])
    // The first cluster of the disk is the L1 table.
    Damage(.l2(0), 1 << 63 | bytes.bigEndian64(at: 40), 8, "").apply(to: &bytes)
    var image = try open(bytes)
    let data = [UInt8](repeating: 9, count: 512)

    #expect(throws: BlockImageError.self) { try image.write(data.span, at: 0) }
    let after = image.storage.bytes

    #expect(after[79] == 2)
    #expect(throws: BlockImageError.notWritable(reason: "it is marked as corrupt")) {
      try image.write(data.span, at: 8192)
    }
    #expect(image.storage.bytes == after)
    try bench.store(after, "o")
    let info = try bench.run("qemu-img", ["info", "-f", "qcow2", "o"])
    #expect(info.output.contains("corrupt: true"))
  }
}
