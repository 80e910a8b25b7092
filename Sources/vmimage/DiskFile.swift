// SPDX-License-Identifier: Apache-2.0

import BlockImage
import ImageFiles
import LinuxSystem

/// An image's bytes in a file or on a block device, with its holes.
struct DiskFile: SparseStorage, SharedStorage, ~Copyable {
  private var file: ImageFile
  let descriptor: Descriptor
  /// What the kernel said last: a part of the file that is alike.
  private var known: (isHole: Bool, range: Range<UInt64>) = (false, 0..<0)
  private var knowsHoles = true

  init(_ descriptor: Descriptor, isWritable: Bool, isDirect: Bool = false) throws(ToolError) {
    self.descriptor = descriptor
    do throws(SystemError) {
      file = try ImageFile(descriptor, isWritable: isWritable, isDirect: isDirect)
    } catch {
      throw ToolError("\(error)")
    }
  }

  var byteCount: UInt64 { file.byteCount }
  var port: FilePort { file.port }

  mutating func noteWritten(upTo end: UInt64) {
    known.range = 0..<0
    file.noteWritten(upTo: end)
  }

  mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(StorageError)
  {
    try file.read(into: &buffer, at: offset)
  }

  mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    known.range = 0..<0
    try file.write(bytes, at: offset)
  }

  mutating func flush() throws(StorageError) { try file.flush() }

  mutating func zero(at offset: UInt64, count: UInt64) throws(StorageError) {
    known.range = 0..<0
    try file.zero(at: offset, count: count)
  }

  mutating func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    known.range = 0..<0
    try file.discard(at: offset, count: count)
  }

  mutating func resize(to count: UInt64) throws(StorageError) {
    known.range = 0..<0
    try file.resize(to: count)
  }

  /// Has the host reserve space.
  mutating func reserve(at offset: UInt64, count: UInt64) throws(StorageError) {
    guard count > 0 else { return }
    do throws(SystemError) { try descriptor.reserve(at: offset, count: count) } catch {
      throw error.isOutOfSpace ? .noSpace : .failed(code: error.number)
    }
    known.range = 0..<0
    if byteCount < offset + count { try file.resize(to: offset + count) }
  }

  mutating func extent(at offset: UInt64, limit: UInt64) throws(StorageError)
    -> (isHole: Bool, count: UInt64)
  {
    if offset >= byteCount { return (true, limit) }
    if !known.range.contains(offset) {
      guard knowsHoles else { return (false, min(limit, byteCount - offset)) }
      do throws(SystemError) {
        let (isHole, end) = try descriptor.extent(at: offset)
        known = (isHole, offset..<max(offset + 1, min(end, byteCount)))
      } catch {
        knowsHoles = false
        return (false, min(limit, byteCount - offset))
      }
    }
    return (known.isHole, min(limit, known.range.upperBound - offset))
  }
}

typealias ToolImage = BlockImage<DiskFile, Inflater>
typealias DiskImage = QCOW2Image<DiskFile, Inflater>
