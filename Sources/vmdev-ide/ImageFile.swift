// SPDX-License-Identifier: Apache-2.0

import BlockImage
import Compression
import LinuxSystem

/// An image's bytes in a file or on a block device.
struct ImageFile: BlockStorage, ~Copyable {
  private let file: Descriptor
  private let isWritable: Bool
  private let canGrow: Bool
  private(set) var byteCount: UInt64

  /// The largest offset that the kernel's signed file positions have.
  private static let mostBytes: UInt64 = 1 << 62

  init(_ file: Descriptor, isWritable: Bool) throws(SystemError) {
    let end = try file.end()
    let kind = try file.kind()
    self.file = file
    self.isWritable = isWritable
    byteCount = end
    canGrow = kind == 0o100000  // S_IFREG
  }

  mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(StorageError)
  {
    guard offset < Self.mostBytes else { throw .pastEnd(offset: offset) }
    let got: Int
    do throws(SystemError) { got = try file.read(into: &buffer, at: offset) } catch {
      throw Self.storageError(error)
    }
    for index in got..<buffer.count { buffer[index] = 0 }
  }

  mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    try checkWrite(offset, UInt64(bytes.count))
    do throws(SystemError) { try file.write(bytes, at: offset) } catch {
      throw Self.storageError(error)
    }
    byteCount = max(byteCount, offset + UInt64(bytes.count))
  }

  mutating func flush() throws(StorageError) {
    guard isWritable else { return }
    do throws(SystemError) { try file.synchronize() } catch { throw Self.storageError(error) }
  }

  mutating func zero(at offset: UInt64, count: UInt64) throws(StorageError) {
    try checkWrite(offset, count)
    let end = offset + count
    do throws(SystemError) {
      // A hole at the end is made by growing the file.
      if end > byteCount, canGrow {
        try file.truncate(to: end)
        let old = byteCount
        byteCount = end
        guard offset < old else { return }
        try zeroInside(at: offset, count: old - offset)
      } else {
        try zeroInside(at: offset, count: count)
      }
    } catch {
      throw Self.storageError(error)
    }
  }

  private mutating func zeroInside(at offset: UInt64, count: UInt64) throws(SystemError) {
    let zeros = [UInt8](repeating: 0, count: Int(min(count, 65536)))
    var done: UInt64 = 0
    while done < count {
      let piece = Int(min(count - done, 65536))
      try file.write(zeros.span.extracting(0..<piece), at: offset + done)
      done += UInt64(piece)
    }
  }

  private func checkWrite(_ offset: UInt64, _ count: UInt64) throws(StorageError) {
    guard isWritable else { throw .readOnly }
    guard offset < Self.mostBytes, count < Self.mostBytes, canGrow || offset + count <= byteCount
    else { throw .pastEnd(offset: offset) }
  }

  private static func storageError(_ error: SystemError) -> StorageError {
    error.isOutOfSpace ? .noSpace : .failed(code: error.number)
  }
}

/// What inflates the compressed clusters of a qcow2 image.
struct Inflater: ClusterDecompressor {
  static var isAvailable: Bool { true }

  mutating func inflate(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>) -> Bool {
    // Some programs write clusters with a larger window than the specification's 4 KiB.
    RawInflater.inflate(input, into: &output)
  }
}

typealias DriveImage = BlockImage<ImageFile, Inflater>
