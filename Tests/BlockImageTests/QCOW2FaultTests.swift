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
    arguments: ["cluster_size=512,refcount_bits=64", "cluster_size=4096,refcount_bits=1"],
    [false, true])
  func everyWrite(options: String, once: Bool) throws {
    let bench = try Workbench()
    let base = try bench.create(options, size: "1M")
    var whole = try open(base)
    _ = Self.run(&whole)
    let total = whole.storage.writeCount

    for failing in 0..<total {
      var image = try open(base, fault: once ? .onlyAt(failing) : .from(failing))
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
