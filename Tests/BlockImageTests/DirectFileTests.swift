// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Testing

@testable import BlockImage
@testable import ImageFiles
@testable import image_writer

@Suite("Images that pass the host's page cache")
struct DirectFileTests {
  @Test(
    "a transfer is made of whole blocks",
    arguments: [
      (0, 512, 0, 4096, 0, 3584), (512, 4096, 0, 8192, 512, 3584), (4096, 8192, 4096, 12288, 0, 0),
      (4095, 2, 0, 8192, 4095, 4095), (8191, 1, 4096, 8192, 4095, 0),
    ])
  func blocks(offset: Int, count: Int, start: Int, end: Int, head: Int, tail: Int) {
    let blocks = DirectTransfer.Blocks(at: UInt64(offset), count: count, alignment: 4096)
    #expect(blocks.range == UInt64(start)..<UInt64(end))
    #expect(blocks.head == head)
    #expect(blocks.tail == tail)
  }

  private func open(_ path: String, alignment: Int?) throws -> ImageFile {
    try ImageFile(
      Files.open(path, [.readWrite, .direct]), isWritable: true, isDirect: true,
      alignment: alignment)
  }

  /// Does random work on a qcow2 image of a geometry.
  private func work(_ geometry: String, _ bench: Workbench, _ path: String, alignment: Int?) throws
    -> Twin
  {
    let sectors = 4096
    var (twin, _) = try QCOW2RandomWorkTests.make(geometry, bench, sectors: sectors)
    if path != bench.path("i") {
      let copied = try bench.run(
        "qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", bench.path("i"), path])
      try #require(copied.code == 0, "\(copied.output)")
    }
    var image = try FileImage(
      storage: open(path, alignment: alignment), writable: true, decompressor: Inflater())
    var work = RandomWork(seed: 0xD1, sectorCount: sectors)
    for number in 0..<120 {
      let next = work.next()
      try image.perform(next, number)
      twin.perform(next, number, clusterSize: Int(image.header.clusterSize))
    }
    #expect(try image.contents() == twin.bytes)
    try image.close()
    return twin
  }

  @Test(
    "a disk with blocks of 512 or 4096 bytes holds what was written, and qemu-img finds no error",
    arguments: ["cluster_size=512", "cluster_size=4096", "cluster_size=16k,extended_l2=on"],
    [nil, 4096])
  func twins(geometry: String, alignment: Int?) throws {
    let bench = try Workbench()
    let twin = try work(geometry, bench, bench.path("i"), alignment: alignment)
    try bench.judge("i", twin, "\(geometry) \(alignment ?? 0)")
  }

  @Test(
    "a loop device with blocks of 4 KiB takes no other transfers, and holds what was written",
    .enabled(if: getuid() == 0 && FileManager.default.fileExists(atPath: "/dev/loop-control")))
  func loopDevice() throws {
    let bench = try Workbench()
    try bench.store([UInt8](repeating: 0, count: 8 << 20), "disk")
    guard
      let device = LoopDevice(file: bench.path("disk"), blockSize: 4096)
    else { return }
    let file = try Files.open(device.path, [.readWrite, .direct])
    #expect(try DirectTransfer.alignment(of: file) == 4096)
    let twin = try work("cluster_size=512", bench, device.path, alignment: nil)
    let copied = try bench.run(
      "qemu-img", ["convert", "-f", "raw", "-O", "raw", device.path, "copy"])
    #expect(copied.code == 0, "\(copied.output)")
    try bench.judge("copy", twin, "loop device")
  }

  @Test("threads that write parts of the same block lose nothing")
  func sharedBlocks() throws {
    let bench = try Workbench()
    try bench.store([UInt8](repeating: 0, count: 64 << 10), "raw")
    let storage = try open(bench.path("raw"), alignment: 4096)
    let shared = SharedImage<ImageFile, Inflater>(
      .raw(RawImage(storage: storage, writable: true)), decompressor: Inflater())
    let group = DispatchGroup()
    for number in 0..<4 {
      group.enter()
      try LinuxSystem.Thread.start("writer") {
        let bytes = [UInt8](repeating: UInt8(number + 1), count: 512)
        for sector in stride(from: number, to: 128, by: 4) {
          try? shared.write(bytes.span, at: UInt64(sector) * 512)
        }
        group.leave()
      }
    }
    try #require(group.wait(timeout: .now() + 60) == .success)
    let bytes = try bench.load("raw")
    #expect((0..<128).allSatisfy { bytes[$0 * 512 + 511] == UInt8($0 % 4 + 1) })
  }
}

/// A loop device over a file, gone afterwards; there is none where the host does not allow it.
private final class LoopDevice {
  let path: String

  init?(file: String, blockSize: Int) {
    guard
      let output = Self.losetup([
        "--find", "--show", "--sector-size", "\(blockSize)", "--direct-io=off", file,
      ]), output.hasPrefix("/dev/loop")
    else { return nil }
    path = output
  }

  deinit { _ = Self.losetup(["--detach", path]) }

  private static func losetup(_ arguments: [String]) -> String? {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/sbin/losetup")
    process.arguments = arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return nil }
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { return nil }
    return String(decoding: output, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
  }
}
