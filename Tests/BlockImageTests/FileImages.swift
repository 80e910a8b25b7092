// SPDX-License-Identifier: Apache-2.0

import Foundation
import ImageFiles
import LinuxSystem
import Testing

@testable import BlockImage
@testable import image_writer

typealias FileImage = QCOW2Image<ImageFile, Inflater>

/// Opens an image file with the files that it names, from its own folder.
func openFile(
  _ path: String, writable: Bool = true, options: QCOW2Options = QCOW2Options(),
  key: String? = nil
) throws -> FileImage {
  var storage = try ImageFile(
    Files.open(path, writable ? [.readWrite] : [.readOnly]), isWritable: writable)
  let header = try QCOW2Header.read(from: &storage)
  let folder = URL(filePath: path).deletingLastPathComponent()
  var cipher: (any SectorCipher)?
  if let key {
    let file = try Files.open(folder.appending(path: key).path, [.readOnly])
    cipher = try ImageKey(file).cipher(of: header, on: &storage)
  }
  var backing: BackingImage<ImageFile, Inflater>?
  if let name = header.backingFileName {
    let below = folder.appending(path: name).path
    try #require(FileManager.default.fileExists(atPath: below))
    backing = BackingImage(
      header.backingFormat == "qcow2"
        ? .qcow2(try openFile(below, writable: false))
        : .raw(
          RawImage(
            storage: try ImageFile(Files.open(below, [.readOnly]), isWritable: false),
            writable: false)))
  }
  guard header.hasDataFile, let name = header.dataFileName else {
    return try FileImage(
      storage: storage, writable: writable, backing: backing, decompressor: Inflater(),
      cipher: cipher, options: options)
  }
  let data = try ImageFile(
    Files.open(folder.appending(path: name).path, writable ? [.readWrite] : [.readOnly]),
    isWritable: writable)
  return try FileImage(
    storage: storage, writable: writable, backing: backing, dataFile: data,
    decompressor: Inflater(), cipher: cipher, options: options)
}

/// The raw twin of a disk.
struct Twin {
  var bytes: [UInt8]

  /// What may be different from the disk after `work`, whose data has this number.
  ///
  /// - Parameters:
  ///   - work: What is done.
  ///   - number: Its number.
  ///   - clusterSize: What a discard is rounded to.
  ///   - keepsFrom: Where a discard begins to be able to zero: behind a version 2 backing image.
  mutating func perform(_ work: DiskWork, _ number: Int, clusterSize: Int, keepsFrom: Int = 0) {
    switch work {
    case .write(let sector, let count):
      bytes.replaceSubrange(
        sector * 512..<(sector + count) * 512, with: RandomWork.data(number, count: count))
    case .zero(let sector, let count): clear(sector * 512..<(sector + count) * 512)
    case .discard(let sector, let count):
      let end = (sector + count) * 512
      var first = (sector * 512 + clusterSize - 1) / clusterSize * clusterSize
      while first < keepsFrom { first += clusterSize }
      let last = end == bytes.count ? end : end / clusterSize * clusterSize
      if first < last { clear(first..<last) }
    case .flush: break
    }
  }

  private mutating func clear(_ range: Range<Int>) {
    bytes.replaceSubrange(range, with: repeatElement(0, count: range.count))
  }
}

extension Workbench {
  /// Checks an image with QEMU's tools, and compares it with the raw twin.
  func judge(_ name: String, _ twin: Twin, _ note: String, leaksAllowed: Bool = false) throws {
    try store(twin.bytes, "twin")
    let check = try run("qemu-img", ["check", "-f", "qcow2", name])
    #expect(
      check.code == 0 || leaksAllowed && check.code == 3, "\(note): \(check.output)")
    let compare = try run(
      "qemu-img", ["compare", "-f", "raw", "-F", "qcow2", "twin", name])
    #expect(compare.code == 0, "\(note): \(compare.output)")
  }
}

/// A number from the environment, for runs that are longer than the usual one.
func environmentNumber(_ name: String, _ usual: Int) -> Int {
  ProcessInfo.processInfo.environment[name].flatMap { Int($0) } ?? usual
}

/// The first sector in which two disks differ, of those that have to be equal.
func firstDifference(_ left: [UInt8], _ right: [UInt8], except: Set<Int>) -> Int? {
  guard left.count == right.count else { return min(left.count, right.count) / 512 }
  if except.isEmpty, left == right { return nil }
  for sector in 0..<left.count / 512 where !except.contains(sector) {
    let range = sector * 512..<(sector + 1) * 512
    if left[range] != right[range] { return sector }
  }
  return nil
}
