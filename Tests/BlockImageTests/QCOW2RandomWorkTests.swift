// SPDX-License-Identifier: Apache-2.0

import Foundation
import ImageFiles
import Testing

@testable import BlockImage
@testable import image_writer

@Suite("qcow2 images under long random work")
struct QCOW2RandomWorkTests {
  /// Options of qemu-img create, and whether there is a backing file.
  static let geometries = [
    "cluster_size=512,refcount_bits=1", "cluster_size=512,refcount_bits=64",
    "cluster_size=1024,refcount_bits=2", "cluster_size=2048,refcount_bits=4",
    "cluster_size=4096,refcount_bits=8", "cluster_size=65536,refcount_bits=16",
    "cluster_size=65536,refcount_bits=32,lazy_refcounts=on", "cluster_size=2M",
    "cluster_size=4096,compat=0.10", "cluster_size=16k,extended_l2=on",
    "cluster_size=64k,extended_l2=on,refcount_bits=2", "cluster_size=2M,extended_l2=on",
    "cluster_size=4096,data_file=d", "cluster_size=65536,data_file=d,data_file_raw=on",
    "cluster_size=65536,data_file=d,extended_l2=on",
    "cluster_size=65536,preallocation=metadata",
    "backing=below,cluster_size=4096", "backing=below,cluster_size=512,refcount_bits=2",
    "backing=below,cluster_size=65536", "backing=below,cluster_size=32k,extended_l2=on",
    "backing=below,cluster_size=4096,compat=0.10", "backing=below,cluster_size=4096,data_file=d",
  ]

  /// Makes the image `i`; returns its disk's bytes and how many of them the backing file gives.
  static func make(_ geometry: String, _ bench: Workbench, sectors: Int) throws -> (Twin, Int) {
    var words = geometry.split(separator: ",").map(String.init)
    var twin = Twin(bytes: [UInt8](repeating: 0, count: sectors * 512))
    var arguments = ["create", "-q", "-f", "qcow2"]
    var below = 0
    if words[0].hasPrefix("backing=") {
      words.removeFirst()
      // Shorter than the disk, and its end is in the middle of a cluster.
      below = sectors / 3 * 512
      let bytes = RandomWork.data(0xBACC, count: sectors / 3)
      twin.bytes.replaceSubrange(0..<below, with: bytes)
      try bench.store(bytes, "below")
      arguments += ["-b", "below", "-F", "raw"]
    }
    arguments += ["-o", words.joined(separator: ","), "i", "\(sectors * 512)"]
    let made = try bench.run("qemu-img", arguments)
    try #require(made.code == 0, "\(made.output)")
    return (twin, below)
  }

  @Test(
    "the disk equals its raw twin, and qemu-img finds no error",
    arguments: geometries, [QCOW2Options.TableWrites.through, .back])
  func twins(geometry: String, tables: QCOW2Options.TableWrites) throws {
    let runs = environmentNumber("BULKHEAD_DISK_RUNS", 1)
    let first = environmentNumber("BULKHEAD_DISK_SEED", 1)
    for seed in first..<first + runs {
      try run(geometry, tables, UInt64(seed))
    }
  }

  private func run(_ geometry: String, _ tables: QCOW2Options.TableWrites, _ seed: UInt64) throws {
    let note = "\(geometry) \(tables) seed \(seed)"
    let bench = try Workbench()
    var sectors = 3 << 11  // 3 MiB
    var (twin, below) = try Self.make(geometry, bench, sectors: sectors)
    var random = SeededGenerator(state: seed ^ 0xABCD)
    var options = QCOW2Options()
    options.tables = tables
    options.hasBarriers = seed % 2 == 0
    // Small, so that slices are replaced often.
    options.l2CacheByteCount = 8192
    options.refcountCacheByteCount = 4096
    var number = 0
    let isVersion2 = geometry.contains("compat=0.10")
    let rounds = environmentNumber("BULKHEAD_DISK_ROUNDS", 3)
    for round in 0..<rounds {
      var image = try openFile(bench.path("i"), options: options)
      var work = RandomWork(seed: random.next(), sectorCount: sectors)
      let clusterSize = Int(image.header.clusterSize)
      for _ in 0..<40 {
        let next = work.next()
        try image.perform(next, number)
        twin.perform(
          next, number, clusterSize: clusterSize, keepsFrom: isVersion2 ? below : 0)
        number += 1
      }
      let place = Int.random(in: 0..<sectors - 64, using: &random) * 512
      let seen = try image.bytes(at: UInt64(place), count: 32768)
      #expect(seen == Array(twin.bytes[place..<place + 32768]), "\(note) at \(place)")
      try image.close()
      try bench.judge("i", twin, "\(note) round \(round)")
      guard round < rounds - 1 else { break }
      try change(bench, geometry, &twin, &sectors, round, &random)
      _ = below
    }
  }

  /// Makes a snapshot, or the disk longer.
  private func change(
    _ bench: Workbench, _ geometry: String, _ twin: inout Twin, _ sectors: inout Int, _ round: Int,
    _ random: inout SeededGenerator
  ) throws {
    let isShared = geometry.contains("refcount_bits=1,") || geometry.hasSuffix("refcount_bits=1")
    if round % 2 == 0, !isShared, !geometry.contains("data_file") {
      let made = try bench.run("qemu-img", ["snapshot", "-c", "s\(round)", "i"])
      #expect(made.code == 0, "\(made.output)")
    } else if !geometry.contains("data_file_raw") {
      let more = Int.random(in: 1...600, using: &random) * 8
      let made = try bench.run(
        "qemu-img", ["resize", "-q", "-f", "qcow2", "i", "\((sectors + more) * 512)"])
      // QEMU does not resize a version 2 image with snapshots.
      guard made.code == 0 else { return }
      sectors += more
      twin.bytes += [UInt8](repeating: 0, count: more * 512)
    }
  }

  @Test(
    "a power cut with barriers loses nothing that was flushed, and leaves at worst leaks",
    arguments: [
      "cluster_size=512", "cluster_size=4096", "cluster_size=16k,extended_l2=on",
      "backing=below,cluster_size=4096",
    ], [QCOW2Options.TableWrites.through, .back])
  func powerCut(geometry: String, tables: QCOW2Options.TableWrites) throws {
    for seed in 1...environmentNumber("BULKHEAD_POWER_CUTS", 6) {
      let note = "\(geometry) \(tables) seed \(seed)"
      let bench = try Workbench()
      let sectors = 2048
      let (start, below) = try Self.make(geometry, bench, sectors: sectors)
      if sectors > 0, seed % 2 == 0 { try bench.run("qemu-img", ["snapshot", "-c", "s", "i"]) }
      var options = QCOW2Options()
      options.tables = tables
      options.hasBarriers = true
      let backing = try below > 0 ? bench.load("below") : nil
      let cuts = PowerCutStorage(try bench.load("i"))
      var image = try QCOW2Image<PowerCutStorage, TestInflater>(
        storage: cuts, writable: true,
        backing: backing.map {
          BackingImage(.raw(RawImage(storage: PowerCutStorage($0), writable: false)))
        }, decompressor: TestInflater(), options: options)
      var work = RandomWork(seed: UInt64(seed), sectorCount: sectors)
      var random = SeededGenerator(state: UInt64(seed))
      var durable = start
      var doubtful: Set<Int> = []
      var twin = start
      let clusterSize = Int(image.header.clusterSize)
      for number in 0..<Int.random(in: 5...60, using: &random) {
        let next = work.next()
        try image.perform(next, number)
        twin.perform(next, number, clusterSize: clusterSize)
        doubtful.formUnion(next.sectors)
        if next == .flush {
          durable = twin
          doubtful = []
        }
      }
      try bench.store(image.storage.afterCut(&random), "i")
      let check = try bench.run("qemu-img", ["check", "-f", "qcow2", "i"])
      #expect(check.code == 0 || check.code == 3, "\(note): \(check.output)")
      var again = try openFile(bench.path("i"))
      let seen = try again.contents()
      let wrong = firstDifference(seen, durable.bytes, except: doubtful)
      #expect(wrong == nil, "\(note): sector \(wrong ?? 0)")
    }
  }

  @Test("a longer L1 table moves, and the image stays clean")
  func growsL1() throws {
    let bench = try Workbench()
    _ = try bench.create(
      "cluster_size=512,refcount_bits=64", size: "1M", commands: ["write -P 7 0 1M"])
    var image = try openFile(bench.path("i"))

    try image.growL1(to: 40_000)
    try image.close()

    #expect(image.header.l1Size == 40_000)
    try bench.judge("i", Twin(bytes: [UInt8](repeating: 7, count: 1 << 20)), "grown")
  }

  @Test("the refcounts of an image that was not closed are counted anew")
  func rebuilds() throws {
    let bench = try Workbench()
    var bytes = try bench.create(
      "cluster_size=4096,lazy_refcounts=on", size: "1M", commands: ["write -P 7 0 1M"])
    // The refcounts of the second half are lost, and the image says so.
    let block = Int(bytes.bigEndian64(at: Int(bytes.bigEndian64(at: 48))))
    for index in block + 256..<block + 4096 { bytes[index] = 0 }
    bytes[79] |= 1
    try bench.store(bytes, "i")

    var image = try openFile(bench.path("i"))
    try image.write([UInt8](repeating: 7, count: 4096).span, at: 0)
    try image.close()

    #expect(!image.header.isDirty)
    try bench.judge("i", Twin(bytes: [UInt8](repeating: 7, count: 1 << 20)), "rebuilt")
  }
}

/// A disk with a cache: what is not flushed may be there after a power cut, or not.
struct PowerCutStorage: BlockStorage {
  private var bytes: [UInt8]
  private var durable: [UInt8]
  private var pending: [(offset: Int, data: [UInt8])] = []

  init(_ bytes: [UInt8]) {
    self.bytes = bytes
    durable = bytes
  }

  var byteCount: UInt64 { UInt64(bytes.count) }

  mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(StorageError)
  {
    for index in 0..<buffer.count {
      let place = Int(offset) + index
      buffer[index] = place < bytes.count ? bytes[place] : 0
    }
  }

  mutating func write(_ data: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    var copy: [UInt8] = []
    for index in 0..<data.count { copy.append(data[index]) }
    Self.put(copy, Int(offset), &bytes)
    pending.append((Int(offset), copy))
  }

  mutating func flush() throws(StorageError) {
    pending = []
    durable = bytes
  }

  /// What is on the disk after the power cut: of each sector that was written since the last
  /// flush the old or the new bytes.
  func afterCut(_ random: inout SeededGenerator) -> [UInt8] {
    var result = durable
    for (offset, data) in pending {
      var done = 0
      while done < data.count {
        let end = min(data.count, done + 512 - (offset + done) % 512)
        if Bool.random(using: &random) { Self.put(Array(data[done..<end]), offset + done, &result) }
        done = end
      }
    }
    return result
  }

  private static func put(_ data: [UInt8], _ offset: Int, _ bytes: inout [UInt8]) {
    let end = offset + data.count
    if end > bytes.count { bytes += [UInt8](repeating: 0, count: end - bytes.count) }
    bytes.replaceSubrange(offset..<end, with: data)
  }
}
