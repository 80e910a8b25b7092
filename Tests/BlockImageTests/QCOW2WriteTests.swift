// SPDX-License-Identifier: Apache-2.0

import Foundation
import ImageFiles
import Testing

@testable import BlockImage
@testable import image_writer

@Suite("Writing qcow2 images")
struct QCOW2WriteTests {
  @Test(
    "random writes and discards leave what qemu-img finds clean and equal to a raw twin",
    arguments: [
      "cluster_size=512,refcount_bits=1", "cluster_size=512,refcount_bits=16",
      "cluster_size=512,refcount_bits=64", "cluster_size=1024,refcount_bits=2",
      "cluster_size=4096,refcount_bits=4", "cluster_size=4096,compat=0.10",
      "cluster_size=65536,refcount_bits=8", "cluster_size=65536,refcount_bits=16",
      "cluster_size=65536,refcount_bits=32,lazy_refcounts=off", "cluster_size=2M",
    ])
  func randomWrites(options: String) throws {
    let bench = try Workbench()
    var image = try open(try bench.create(options, size: "5M"))
    var twin = [UInt8](repeating: 0, count: 5 << 20)
    var random = SeededGenerator(state: 42)

    let size = Int(image.header.clusterSize)
    for turn in 0..<160 {
      let sectors = Int.random(in: 1...128, using: &random)
      let first = Int.random(in: 0...10240 - sectors, using: &random)
      if turn % 4 == 3 {
        // Whole clusters, and what surrounds them stays.
        let start = first * 512
        let end = min(start + Int.random(in: 1...8, using: &random) * sectors * 512, 5 << 20)
        try image.discard(at: UInt64(start), count: UInt64(end - start))
        let from = (start + size - 1) / size * size
        let to = end == 5 << 20 ? end : end / size * size
        for index in from..<max(from, to) { twin[index] = 0 }
        continue
      }
      let fill = UInt8.random(in: 1...255, using: &random)
      let data = (0..<sectors * 512).map { fill &+ UInt8(truncatingIfNeeded: $0 / 512) }
      try image.write(data.span, at: UInt64(first * 512))
      twin.replaceSubrange(first * 512..<(first + sectors) * 512, with: data)
    }
    let seen = try image.contents()
    try bench.store(image.storage.bytes, "o")
    try bench.store(twin, "raw")

    #expect(seen == twin)
    #expect(size > 1 << 20 || image.storage.discardCount > 0)
    let check = try bench.run("qemu-img", ["check", "-f", "qcow2", "o"])
    #expect(check.code == 0, "\(check.output)")
    let compare = try bench.run("qemu-img", ["compare", "-f", "raw", "-F", "qcow2", "raw", "o"])
    #expect(compare.code == 0, "\(compare.output)")
  }

  @Test("filling small clusters moves the refcount table and stays clean")
  func growsRefcountTable() throws {
    let bench = try Workbench()
    var image = try open(
      try bench.create("cluster_size=512,refcount_bits=64", size: "5M"))
    let before = image.header.refcountTableOffset
    let data = [UInt8](repeating: 0xA5, count: 64 << 10)

    for index in 0..<80 { try image.write(data.span, at: UInt64(index * data.count)) }
    try bench.store(image.storage.bytes, "o")

    #expect(image.header.refcountTableOffset != before)
    let check = try bench.run("qemu-img", ["check", "-f", "qcow2", "o"])
    #expect(check.code == 0, "\(check.output)")
  }

  @Test("what qemu-io wrote reads back, with zero clusters of both kinds")
  func readsForeignContent() throws {
    let bench = try Workbench()
    var image = try open(
      try bench.create(
        "cluster_size=4096", size: "1M",
        commands: [
          "write -P 17 0 64k", "write -P 18 70000 3000", "write -z 8k 8k", "write -z 512k 64k",
          "write -z -u 0 4k",
        ]), writable: false)

    let seen = try image.contents()

    var expected = [UInt8](repeating: 0, count: 1 << 20)
    for index in 4096..<8192 { expected[index] = 17 }
    for index in 16384..<65536 { expected[index] = 17 }
    for index in 70000..<73000 { expected[index] = 18 }
    #expect(seen == expected)
    #expect(throws: BlockImageError.notWritable(reason: "it was opened read-only")) {
      try image.write([UInt8](repeating: 0, count: 512).span, at: 0)
    }
  }

  @Test("writing into zero clusters keeps the rest zero")
  func writesZeroClusters() throws {
    let bench = try Workbench()
    var image = try open(
      try bench.create(
        "cluster_size=4096", size: "1M",
        commands: ["write -P 17 0 64k", "write -z 0 16k", "write -z 512k 64k"]))

    try image.write([UInt8](repeating: 9, count: 512).span, at: 1024)
    try image.write([UInt8](repeating: 8, count: 512).span, at: (512 << 10) + 5120)

    let seen = try image.contents()
    #expect(seen[0..<1024].allSatisfy { $0 == 0 })
    #expect(seen[1024..<1536].allSatisfy { $0 == 9 })
    #expect(seen[1536..<16384].allSatisfy { $0 == 0 })
    #expect(seen[16384..<65536].allSatisfy { $0 == 17 })
    #expect(seen[(512 << 10) + 5120] == 8)
    try bench.store(image.storage.bytes, "o")
    let check = try bench.run("qemu-img", ["check", "-f", "qcow2", "o"])
    #expect(check.code == 0, "\(check.output)")
  }

  @Test("a cluster that a snapshot shares is copied before it is written")
  func copiesOnWrite() throws {
    let bench = try Workbench()
    _ = try bench.create("cluster_size=4096", size: "1M", commands: ["write -P 33 0 256k"])
    try bench.run("qemu-img", ["snapshot", "-c", "before", "i"])
    var image = try open(try bench.load("i"))

    try image.write([UInt8](repeating: 44, count: 10000 / 512 * 512).span, at: 6144)
    try bench.store(image.storage.bytes, "i")

    let check = try bench.run("qemu-img", ["check", "-f", "qcow2", "i"])
    #expect(check.code == 0, "\(check.output)")
    let now = try bench.run(
      "qemu-io", ["-f", "qcow2", "-c", "read -P 44 6k 4k", "-c", "read -P 33 0 6k", "i"])
    #expect(!now.output.contains("verification failed"), "\(now.output)")
    try bench.run("qemu-img", ["snapshot", "-a", "before", "i"])
    let then = try bench.run("qemu-io", ["-f", "qcow2", "-c", "read -P 33 0 256k", "i"])
    #expect(!then.output.contains("failed"), "\(then.output)")
  }

  @Test("compressed clusters read, and are replaced when written")
  func compressedClusters() throws {
    let bench = try Workbench()
    var plain: [UInt8] = []
    for index in 0..<300_000 {
      plain.append(UInt8(truncatingIfNeeded: index / 7 &* (index % 13)))
    }
    plain += [UInt8](repeating: 0, count: 301056 - plain.count)
    try bench.store(plain, "raw")
    try bench.run(
      "qemu-img",
      ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4096", "raw", "i"])
    var image = try open(try bench.load("i"))

    let before = try image.contents()
    try image.write([UInt8](repeating: 1, count: 512).span, at: 8704)
    plain.replaceSubrange(8704..<9216, with: [UInt8](repeating: 1, count: 512))
    let after = try image.contents()
    try bench.store(image.storage.bytes, "o")
    try bench.store(plain, "raw")

    #expect(before.count == plain.count)
    #expect(after == plain)
    let check = try bench.run("qemu-img", ["check", "-f", "qcow2", "o"])
    #expect(check.code == 0, "\(check.output)")
    let compare = try bench.run("qemu-img", ["compare", "-f", "raw", "-F", "qcow2", "raw", "o"])
    #expect(compare.code == 0, "\(compare.output)")
  }

  @Test("without a decompressor a compressed cluster is a clear error")
  func noDecompressor() throws {
    let bench = try Workbench()
    try bench.store([UInt8](repeating: 7, count: 65536), "raw")
    try bench.run("qemu-img", ["convert", "-c", "-f", "raw", "-O", "qcow2", "raw", "i"])
    var image = try QCOW2Image<MemoryStorage, NoDecompressor>(
      storage: MemoryStorage(try bench.load("i")), writable: false,
      decompressor: NoDecompressor())

    #expect(throws: BlockImageError.noDecompressor(guestOffset: 0)) {
      var buffer = [UInt8](repeating: 0, count: 512)
      var span = buffer.mutableSpan
      try image.read(into: &span, at: 0)
    }
  }

  @Test("unwritten parts come from the backing image, and zeros past its end")
  func backing() throws {
    let bench = try Workbench()
    let below = [UInt8](repeating: 0x5B, count: 100 * 512)
    try bench.store(below, "base")
    try bench.run(
      "qemu-img",
      [
        "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "-o", "cluster_size=4096", "i",
        "1M",
      ])
    var image = try open(try bench.load("i"), backing: below)

    try image.write([UInt8](repeating: 3, count: 512).span, at: 512)
    try image.write([UInt8](repeating: 4, count: 512).span, at: 98 * 512)

    let seen = try image.contents()
    #expect(image.header.backingFileName == "base")
    #expect(image.info.backingFormat == "raw")
    #expect(seen[0] == 0x5B && seen[512] == 3 && seen[1024] == 0x5B && seen[4095] == 0x5B)
    #expect(seen[98 * 512] == 4 && seen[99 * 512] == 0x5B && seen[100 * 512] == 0)
    try bench.store(image.storage.bytes, "i")
    let check = try bench.run("qemu-img", ["check", "-f", "qcow2", "i"])
    #expect(check.code == 0, "\(check.output)")
    #expect(throws: BlockImageError.backingFileMissing(name: "base")) {
      _ = try open(try bench.load("i"))
    }
  }

  @Test(
    "a discard hides the backing image in version 3, and leaves it alone in version 2",
    arguments: ["1.1", "0.10"])
  func discardOverBacking(version: String) throws {
    let bench = try Workbench()
    let below = [UInt8](repeating: 0x5B, count: 64 << 10)
    try bench.store(below, "base")
    try bench.run(
      "qemu-img",
      [
        "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "-o",
        "cluster_size=4096,compat=\(version)", "i", "128k",
      ])
    var image = try open(try bench.load("i"), backing: below)
    try image.write([UInt8](repeating: 3, count: 8192).span, at: 0)
    try image.write([UInt8](repeating: 4, count: 4096).span, at: 96 << 10)

    try image.discard(at: 0, count: 128 << 10)

    let seen = try image.contents()
    #expect(seen[96 << 10] == 0)
    #expect(seen[0] == (version == "1.1" ? 0 : 3))
    #expect(seen[32 << 10] == (version == "1.1" ? 0 : 0x5B))
    try bench.store(image.storage.bytes, "i")
    let check = try bench.run("qemu-img", ["check", "-f", "qcow2", "i"])
    #expect(check.code == 0, "\(check.output)")
    let raw = try bench.run("qemu-img", ["convert", "-O", "raw", "i", "o"])
    #expect(raw.code == 0, "\(raw.output)")
    #expect(try bench.load("o") == seen)
  }

  @Test("a discard leaves what a snapshot holds")
  func discardUnderSnapshot() throws {
    let bench = try Workbench()
    _ = try bench.create("cluster_size=4096", size: "1M", commands: ["write -P 7 0 1M"])
    try bench.run("qemu-img", ["snapshot", "-c", "one", "i"])
    var image = try open(try bench.load("i"))
    try image.discard(at: 4096, count: 512 << 10)
    #expect(image.storage.discardCount == 0)
    #expect(throws: BlockImageError.self) { try image.discard(at: 4096, count: 1 << 20) }
    try bench.store(image.storage.bytes, "i")
    let check = try bench.run("qemu-img", ["check", "-f", "qcow2", "i"])
    #expect(check.code == 0, "\(check.output)")
    try bench.run("qemu-img", ["snapshot", "-a", "one", "i"])
    try bench.run("qemu-img", ["convert", "-O", "raw", "i", "o"])
    #expect(try bench.load("o") == [UInt8](repeating: 7, count: 1 << 20))
  }

  @Test("opening for writing clears the autoclear bits, for reading it does not")
  func autoclear() throws {
    let bench = try Workbench()
    var bytes = try bench.create("cluster_size=4096", size: "1M")
    bytes[95] = 0x05

    let reader = try open(bytes, writable: false)
    let writer = try open(bytes)

    #expect(reader.header.autoclearFeatures == 5)
    #expect(reader.storage.bytes == bytes)
    #expect(writer.storage.bytes[88..<96].allSatisfy { $0 == 0 })
  }

  @Test("a request past the end of the disk is refused")
  func outOfRange() throws {
    let bench = try Workbench()
    var image = try open(try bench.create("cluster_size=4096", size: "1M"))

    #expect(
      throws: BlockImageError.outOfRange(offset: 1_048_064, count: 1024, virtualSize: 1 << 20)
    ) {
      try image.write([UInt8](repeating: 0, count: 1024).span, at: 1_048_064)
    }
  }
}
