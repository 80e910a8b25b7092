// SPDX-License-Identifier: Apache-2.0

import BlockImage
import Foundation
import ImageFiles
import Testing

/// An image file in memory, whose writes can be made to fail.
struct MemoryStorage: BlockStorage {
  enum Fault {
    case never
    case onlyAt(Int)
    case from(Int)
    /// Half of the bytes arrive, and the host has no more space.
    case tornFrom(Int)
  }

  var bytes: [UInt8]
  var fault = Fault.never
  var writeCount = 0
  var flushCount = 0
  var discardCount: UInt64 = 0

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  var byteCount: UInt64 { UInt64(bytes.count) }

  mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(StorageError)
  {
    let available = offset < byteCount ? min(buffer.count, bytes.count - Int(offset)) : 0
    for index in 0..<available { buffer[index] = bytes[Int(offset) + index] }
    for index in available..<buffer.count { buffer[index] = 0 }
  }

  mutating func write(_ data: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    defer { writeCount += 1 }
    switch fault {
    case .never: break
    case .onlyAt(let count): if writeCount == count { throw .failed(code: 5) }
    case .from(let count): if writeCount >= count { throw .failed(code: 5) }
    case .tornFrom(let count):
      if writeCount >= count {
        // What a table's entry is has eight bytes and does not tear.
        put(data.extracting(0..<data.count / 16 * 8), at: Int(offset))
        throw .noSpace
      }
    }
    guard offset < 1 << 28 else { throw .pastEnd(offset: offset) }
    put(data, at: Int(offset))
  }

  private mutating func put(_ data: Span<UInt8>, at offset: Int) {
    let end = offset + data.count
    if end > bytes.count { bytes += [UInt8](repeating: 0, count: end - bytes.count) }
    for index in 0..<data.count { bytes[offset + index] = data[index] }
  }

  /// Nothing may need what was given up: it becomes something else.
  mutating func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    discardCount += count
    for index in Int(offset)..<min(bytes.count, Int(offset + count)) { bytes[index] = 0xDD }
  }

  mutating func flush() throws(StorageError) { flushCount += 1 }
}

typealias TestImage = QCOW2Image<MemoryStorage, TestInflater>

/// Opens an image in memory.
func open(
  _ bytes: [UInt8], writable: Bool = true, fault: MemoryStorage.Fault = .never,
  backing: [UInt8]? = nil, options: QCOW2Options = QCOW2Options()
) throws(BlockImageError) -> TestImage {
  var storage = MemoryStorage(bytes)
  storage.fault = fault
  let below = backing.map {
    BackingImage<MemoryStorage, TestInflater>(
      .raw(RawImage(storage: MemoryStorage($0), writable: false)))
  }
  return try TestImage(
    storage: storage, writable: writable, backing: below, decompressor: TestInflater(),
    options: options)
}

extension QCOW2Image where Storage: ~Copyable {
  /// Returns `count` bytes of the disk.
  mutating func bytes(at offset: UInt64, count: Int) throws(BlockImageError) -> [UInt8] {
    var result = [UInt8](repeating: 0xEE, count: count)
    var span = result.mutableSpan
    try read(into: &span, at: offset)
    return result
  }

  /// Returns the whole disk.
  mutating func contents() throws(BlockImageError) -> [UInt8] {
    try bytes(at: 0, count: Int(virtualSize))
  }
}

/// A folder for the files of one test, gone afterwards.
final class Workbench {
  let folder: URL

  init() throws {
    folder = FileManager.default.temporaryDirectory.appending(path: UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  func path(_ name: String) -> String { folder.appending(path: name).path }

  func load(_ name: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: folder.appending(path: name)))
  }

  func store(_ bytes: [UInt8], _ name: String) throws {
    try Data(bytes).write(to: folder.appending(path: name))
  }

  /// Runs a tool of the qemu-utils package; returns its exit code and output.
  @discardableResult
  func run(_ tool: String, _ arguments: [String]) throws -> (code: Int32, output: String) {
    let executable = "/usr/bin/" + tool
    try #require(
      FileManager.default.isExecutableFile(atPath: executable),
      "\(executable) is missing: install the package qemu-utils")
    let process = Process()
    process.executableURL = URL(filePath: executable)
    process.arguments = arguments
    process.currentDirectoryURL = folder
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: output, as: UTF8.self))
  }

  /// Makes a qcow2 image and returns its bytes.
  func create(_ options: String, size: String, commands: [String] = []) throws -> [UInt8] {
    let made = try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options, "i", size])
    try #require(made.code == 0, "\(made.output)")
    for command in commands {
      let done = try run("qemu-io", ["-f", "qcow2", "-c", command, "i"])
      try #require(done.code == 0 && !done.output.contains("failed"), "\(done.output)")
    }
    return try load("i")
  }
}
