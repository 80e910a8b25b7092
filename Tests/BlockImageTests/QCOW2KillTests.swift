// SPDX-License-Identifier: Apache-2.0

import Foundation
import ImageFiles
import LinuxSystem
import Testing

@testable import BlockImage
@testable import image_writer

@Suite("qcow2 images whose writer is killed")
struct QCOW2KillTests {
  static let geometries = [
    "cluster_size=512,refcount_bits=1", "cluster_size=4096", "cluster_size=65536",
    "cluster_size=16k,extended_l2=on", "backing=below,cluster_size=4096",
    "cluster_size=4096,compat=0.10", "cluster_size=1024,refcount_bits=64",
    "cluster_size=65536,lazy_refcounts=on", "encrypted,cluster_size=4096",
  ]

  @Test("SIGKILL at any moment loses nothing that was flushed, and leaves at worst leaks")
  func killed() throws {
    let kills = environmentNumber("BULKHEAD_KILLS", 50)
    let seed = environmentNumber("BULKHEAD_DISK_SEED", 1)
    var random = SeededGenerator(state: UInt64(seed))
    var finished = 0
    for number in 0..<kills {
      finished += try killOnce(
        Self.geometries[number % Self.geometries.count],
        back: number / Self.geometries.count % 2 == 1, seed: UInt64(seed * 100_000 + number),
        after: Int.random(in: 200...20000, using: &random))
    }
    // Else nothing was tested: most were killed in the middle of work.
    #expect(finished > kills * 5)
  }

  /// Returns how many pieces of work had finished.
  private func killOnce(_ geometry: String, back: Bool, seed: UInt64, after micros: Int) throws
    -> Int
  {
    let note = "\(geometry) \(back ? "back" : "through") seed \(seed)"
    let bench = try Workbench()
    let sectors = 4096
    let isEncrypted = geometry.hasPrefix("encrypted,")
    var start = Twin(bytes: [UInt8](repeating: 0, count: sectors * 512))
    var below = 0
    if isEncrypted {
      try bench.createEncrypted(String(geometry.dropFirst(10)), size: sectors * 512)
    } else {
      (start, below) = try QCOW2RandomWorkTests.make(geometry, bench, sectors: sectors)
    }
    if !isEncrypted, seed % 3 == 0, !geometry.contains("refcount_bits=1") {
      try bench.run("qemu-img", ["snapshot", "-c", "s", "i"])
    }
    let count = try runAndKill(
      bench, seed, back: back,
      [below > 0 ? bench.path("below") : ""]
        + (isEncrypted ? [bench.path("key")] : []), micros)
    let clusterSize = geometry.contains("65536") ? 65536 : try clusterSize(bench)

    // What is there for sure, and where one of several things may be.
    var work = RandomWork(seed: seed, sectorCount: sectors)
    var twin = start
    var sure = start
    var doubtful: Set<Int> = []
    for number in 0...count.count {
      let next = work.next()
      doubtful.formUnion(next.sectors)
      guard number < count.count else { break }
      #expect((next == .flush) == (count[number] == 0x46), "\(note): another sequence")
      let isVersion2 = geometry.contains("compat=0.10")
      twin.perform(
        next, number, clusterSize: clusterSize, keepsFrom: isVersion2 ? below : 0)
      if next == .flush || !back {
        sure = twin
        doubtful = []
      }
    }
    let check = try bench.run(
      "qemu-img",
      ["check"]
        + (isEncrypted
          ? Workbench.secret + ["--image-opts", Workbench.encrypted] : ["-f", "qcow2", "i"]))
    #expect(check.code == 0 || check.code == 3, "\(note): \(check.output)")
    var image = try openFile(bench.path("i"), key: isEncrypted ? "key" : nil)
    let seen = try image.contents()
    let wrong = firstDifference(seen, sure.bytes, except: doubtful)
    #expect(wrong == nil, "\(note): sector \(wrong ?? 0) of work \(count.count)")
    try image.rebuildRefcounts()
    try image.close()
    if isEncrypted {
      try bench.judgeEncrypted(Twin(bytes: seen), note)
    } else {
      try bench.judge("i", Twin(bytes: seen), note)
    }
    return count.count
  }

  private func clusterSize(_ bench: Workbench) throws -> Int {
    1 << Int(try bench.load("i").bigEndian32(at: 20))
  }

  /// Returns what the writer said before it was killed, a byte for each piece of work.
  private func runAndKill(
    _ bench: Workbench, _ seed: UInt64, back: Bool, _ files: [String], _ micros: Int
  ) throws -> [UInt8] {
    let process = Process()
    process.executableURL = URL(filePath: Self.writer)
    process.arguments =
      [
        "write", bench.path("i"), "\(seed)", back ? "back" : "through", seed % 4 == 1 ? "1" : "0",
      ] + files
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardInput = FileHandle.nullDevice
    try process.run()
    // From the first piece of work on.
    let first = pipe.fileHandleForReading.readData(ofLength: 1)
    usleep(UInt32(micros))
    kill(process.processIdentifier, SIGKILL)
    let rest = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    #expect(!first.isEmpty, "the writer did nothing: \(String(decoding: rest, as: UTF8.self))")
    return [UInt8](first + rest)
  }

  /// Beside the test bundle.
  static var writer: String {
    var folder = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent()
    for _ in 0..<6 {
      let path = folder.appending(path: "image-writer").path
      if FileManager.default.isExecutableFile(atPath: path) { return path }
      folder.deleteLastPathComponent()
    }
    return "image-writer"
  }

  @Test("damaged images and requests to them neither crash, nor hang, nor take much memory")
  func fuzz() throws {
    let bench = try Workbench()
    let seeds = try FuzzSeeds.make(bench)
    let count = environmentNumber("BULKHEAD_FUZZ", 4000)
    let seed = environmentNumber("BULKHEAD_DISK_SEED", 1)
    let process = Process()
    process.executableURL = URL(filePath: "/bin/bash")
    // The bound: 256 MiB over what a Swift program maps at its start.
    process.arguments =
      ["-c", "ulimit -v 400000; exec \"$0\" \"$@\"", Self.writer, "fuzz", "\(count)", "\(seed)"]
      + seeds.map { bench.path($0) }
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()

    #expect(process.terminationStatus == 0, "seed \(seed): \(output)")
    #expect(output.contains("\(count) executions"), "\(output)")
    print("fuzz:", output)
  }
}

/// Small images of every kind, to be damaged.
enum FuzzSeeds {
  static let options = [
    "cluster_size=512", "cluster_size=512,refcount_bits=1", "cluster_size=512,refcount_bits=64",
    "cluster_size=4096,refcount_bits=2", "cluster_size=4096,compat=0.10",
    "cluster_size=16k,extended_l2=on", "cluster_size=64k", "cluster_size=4096,lazy_refcounts=on",
    "cluster_size=4096,data_file=d",
  ]

  static func make(_ bench: Workbench) throws -> [String] {
    var names: [String] = []
    let commands = [
      "write -P 17 0 20k", "write -P 18 70000 3000", "write -z 8k 8k", "write -P 3 200k 4k",
    ]
    for (index, words) in options.enumerated() {
      try bench.store(try bench.create(words, size: "256k", commands: commands), "s\(index)")
      names.append("s\(index)")
    }
    // Of AES-128 the header is the shorter one.
    try bench.createEncrypted("cluster_size=4096,encrypt.cipher-alg=aes-128", size: 256 << 10)
    try bench.succeed(
      "qemu-io",
      Workbench.secret + ["--image-opts", Workbench.encrypted]
        + commands.flatMap { ["-c", $0] })
    try bench.store(try bench.load("i"), "locked")
    try bench.store(try bench.load("s3"), "snap")
    try bench.run("qemu-img", ["snapshot", "-c", "one", "snap"])
    try bench.run("qemu-io", ["-f", "qcow2", "-c", "write -P 9 0 12k", "snap"])
    try bench.run("qemu-img", ["snapshot", "-c", "two", "snap"])
    try bench.store(try bench.load("s4"), "bitmap")
    try bench.run("qemu-img", ["bitmap", "--add", "s7", "b"])
    let text = (0..<262144).map { UInt8(truncatingIfNeeded: $0 / 7 &* ($0 % 13)) }
    try bench.store(text, "raw")
    for kind in ["zlib", "zstd"] {
      try bench.run(
        "qemu-img",
        [
          "convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
          "cluster_size=4096,compression_type=\(kind)", "raw", kind,
        ])
    }
    try bench.run(
      "qemu-img",
      [
        "create", "-q", "-f", "qcow2", "-o", "cluster_size=16k,extended_l2=on", "-b", "raw", "-F",
        "raw", "overlay",
      ])
    try bench.run("qemu-io", ["-f", "qcow2", "-c", "write -P 9 3k 2k", "overlay"])
    return names + ["snap", "bitmap", "zlib", "zstd", "overlay", "locked"]
  }
}
