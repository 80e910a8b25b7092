// SPDX-License-Identifier: Apache-2.0

import Foundation
import ImageFiles
import Testing

@testable import BlockImage
@testable import image_writer

/// The images of `make-qcow2-corpus`, made once and kept in `.build`.
enum Corpus {
  static let folder: URL? = {
    let here = URL(filePath: #filePath).deletingLastPathComponent()
    let root = here.deletingLastPathComponent().deletingLastPathComponent()
    let folder = root.appending(path: ".build/qcow2-corpus")
    let mark = folder.appending(path: "complete")
    if FileManager.default.fileExists(atPath: mark.path) { return folder }
    let process = Process()
    process.executableURL = URL(filePath: "/bin/bash")
    process.arguments = [here.appending(path: "make-qcow2-corpus").path, folder.path]
    process.standardOutput = FileHandle.nullDevice
    process.standardInput = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return nil }
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { return nil }
    try? Data().write(to: mark)
    return folder
  }()

  /// The lines of one of the lists, split into fields.
  static func lines(_ name: String) throws -> [[String]] {
    let folder = try #require(folder, "make-qcow2-corpus failed: is qemu-utils installed?")
    let text = try String(contentsOf: folder.appending(path: name), encoding: .utf8)
    return text.split(separator: "\n").map { $0.components(separatedBy: "\t") }
  }

  static func path(_ name: String) -> String { folder?.appending(path: name).path ?? name }
}

@Suite("The corpus of qcow2 images")
struct QCOW2CorpusTests {
  /// Returns the md5 of the disk's content, by the tool.
  private func md5(_ bytes: [UInt8], _ bench: Workbench) throws -> String {
    try bench.store(bytes, "md5")
    return String(try bench.run("md5sum", ["md5"]).output.prefix(32))
  }

  @Test("every good image reads back its content")
  func good() throws {
    let bench = try Workbench()
    var count = 0
    for line in try Corpus.lines("MANIFEST.tsv") {
      let name = line[0]
      let path = Corpus.path("good/" + name)
      switch name {
      case "luks.qcow2":
        var locked = try openFile(path, writable: false)
        #expect(throws: BlockImageError.keyMissing) { _ = try locked.bytes(at: 0, count: 512) }
        var image = try openFile(path, writable: false, key: "luks.key")
        let sum = try md5(try image.contents(), bench)
        #expect(sum == line[2], "\(name): \(line[3])")
      case "over-missing.qcow2":
        // The launcher does not find it.
        let bytes = [UInt8](try Data(contentsOf: URL(filePath: path)))
        let backing = String(repeating: "x", count: 200) + ".raw"
        #expect(throws: BlockImageError.backingFileMissing(name: backing)) {
          _ = try open(bytes, writable: false)
        }
      case "v3-sparse-64G.qcow2":
        var image = try openFile(path, writable: false)
        for (offset, count, fill) in [(0, 65536, 0xB1), (32 << 30, 65536, 0xB2)] {
          let seen = try image.bytes(at: UInt64(offset), count: count)
          #expect(seen == [UInt8](repeating: UInt8(fill), count: count))
        }
      default:
        var image = try openFile(path, writable: false)
        #expect(image.virtualSize == UInt64(line[1]), "\(name)")
        let seen = try image.contents()
        let sum = try md5(seen, bench)
        #expect(sum == line[2], "\(name): \(line[3])")
      }
      count += 1
    }
    #expect(count >= 66)
  }

  @Test("every snapshot reads back its content")
  func snapshots() throws {
    let bench = try Workbench()
    for line in try Corpus.lines("SNAPSHOTS.tsv") {
      var options = QCOW2Options()
      options.snapshot = .name(line[1])
      var image = try openFile(
        Corpus.path("good/" + line[0]), writable: false, options: options)
      #expect(try image.snapshots().map(\.name) == ["one", "two"])
      let seen = try image.contents()
      let sum = try md5(seen, bench)
      #expect(sum == line[2], "\(line)")
      options.snapshot = .name("three")
      #expect(throws: BlockImageError.snapshotMissing(name: "three")) {
        _ = try openFile(Corpus.path("good/" + line[0]), writable: false, options: options)
      }
    }
  }

  @Test("after writes of ours every good image is clean and equals its raw twin")
  func written() throws {
    let skipped = ["luks.qcow2", "over-missing.qcow2", "v3-sparse-64G.qcow2"]
    for line in try Corpus.lines("MANIFEST.tsv") where !skipped.contains(line[0]) {
      let bench = try Workbench()
      let name = line[0]
      for file in try FileManager.default.contentsOfDirectory(atPath: Corpus.path("good")) {
        let from = Corpus.path("good/" + file)
        if file == name || file.hasSuffix(".data") && name.hasPrefix("ext-") {
          try FileManager.default.copyItem(atPath: from, toPath: bench.path(file))
        } else {
          try FileManager.default.createSymbolicLink(
            atPath: bench.path(file), withDestinationPath: from)
        }
      }
      var image = try openFile(bench.path(name))
      var twin = Twin(bytes: try image.contents())
      if twin.bytes.count >= 512 {
        var work = RandomWork(seed: 5, sectorCount: twin.bytes.count / 512)
        let isVersion2 = image.header.version == 2
        for number in 0..<30 {
          let next = work.next()
          try image.perform(next, number)
          twin.perform(
            next, number, clusterSize: Int(image.header.clusterSize),
            keepsFrom: isVersion2 ? Int(image.backingSize) : 0)
        }
      }
      try image.close()
      try bench.judge(name, twin, name, leaksAllowed: name == "bitmaps.qcow2")
    }
  }

  /// What is not to be seen by who reads and writes only what the disk needs, or is harmless.
  static let unseen: Set<String> = [
    "compat-unknown", "autoclear-unknown", "ext-unknown", "l2-entry-no-copied", "incompat-dirty",
    "refcount-0-header", "refcount-0-data", "refcount-2-data",
    "refcount-max-data", "refcount-leak", "l1-entry-zero", "l2-entry-duplicate", "size-not-sector",
    "zlib-size-max",
  ]

  @Test("every malformed image gives a clear error, at opening or when it is used")
  func bad() throws {
    var silent: Set<String> = []
    for line in try Corpus.lines("BAD.tsv") {
      let name = line[0]
      let bench = try Workbench()
      let file = name + ".qcow2"
      for other in ["chain-0.qcow2", "base.raw"] {
        try FileManager.default.createSymbolicLink(
          atPath: bench.path(other), withDestinationPath: Corpus.path("good/" + other))
      }
      try FileManager.default.copyItem(
        atPath: Corpus.path("bad/" + file), toPath: bench.path(file))
      let start = ContinuousClock.now
      let errors = [use(bench.path(file), writes: false), use(bench.path(file), writes: true)]
        .compactMap { $0 }
      let time = ContinuousClock.now - start
      if ProcessInfo.processInfo.environment["BULKHEAD_SHOW_ERRORS"] != nil {
        print("corpus \(name): \(errors.first ?? "-")")
      }
      #expect(time < .seconds(10), "\(name)")
      if errors.isEmpty { silent.insert(name) }
    }
    #expect(silent == Self.unseen)
  }

  /// Opens and uses an image; returns the first error.
  private func use(_ path: String, writes: Bool) -> String? {
    do {
      var image = try openFile(path, writable: writes)
      _ = try image.snapshots()
      if writes {
        let bytes = [UInt8](repeating: 1, count: 65536)
        try image.write(bytes.span, at: 7 << 20)
        try image.write(bytes.span, at: 0)
        try image.close()
      } else {
        _ = try image.bytes(at: 0, count: 2 << 20)
        _ = try image.bytes(at: 5 << 20, count: 1 << 20)
        _ = try image.bytes(at: 6 << 20, count: 1 << 20)
      }
      return nil
    } catch {
      return "\(error)"
    }
  }
}
