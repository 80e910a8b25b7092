// SPDX-License-Identifier: Apache-2.0

public import BlockImage
internal import Compression
public import LinuxSystem

/// An image's bytes in a file or on a block device.
public struct ImageFile: BlockStorage, ~Copyable {
  private let file: Descriptor
  private let isWritable: Bool
  private let canGrow: Bool
  /// Whether the host has taken space back so far.
  private var canPunch = true
  public private(set) var byteCount: UInt64

  /// The largest offset that the kernel's signed file positions have.
  private static let mostBytes: UInt64 = 1 << 62

  /// Takes an open file.
  ///
  /// - Parameters:
  ///   - file: A regular file or a block device.
  ///   - isWritable: Whether it was opened for writing, too.
  /// - Throws: When its kind or length can't be found out.
  public init(_ file: Descriptor, isWritable: Bool) throws(SystemError) {
    let end = try file.end()
    let kind = try file.kind()
    self.file = file
    self.isWritable = isWritable
    byteCount = end
    canGrow = kind == 0o100000  // S_IFREG
  }

  /// Takes a file of known length that is only read.
  public init(_ file: Descriptor, byteCount: UInt64) {
    self.file = file
    isWritable = false
    canGrow = false
    self.byteCount = byteCount
  }

  public mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(StorageError)
  {
    guard offset < Self.mostBytes else { throw .pastEnd(offset: offset) }
    let got: Int
    do throws(SystemError) { got = try file.read(into: &buffer, at: offset) } catch {
      throw Self.storageError(error)
    }
    for index in got..<buffer.count { buffer[index] = 0 }
  }

  public mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    try checkWrite(offset, UInt64(bytes.count))
    do throws(SystemError) { try file.write(bytes, at: offset) } catch {
      throw Self.storageError(error)
    }
    byteCount = max(byteCount, offset + UInt64(bytes.count))
  }

  public mutating func flush() throws(StorageError) {
    guard isWritable else { return }
    do throws(SystemError) { try file.synchronize() } catch { throw Self.storageError(error) }
  }

  public mutating func zero(at offset: UInt64, count: UInt64) throws(StorageError) {
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

  public mutating func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    try checkWrite(offset, count)
    guard canPunch, offset < byteCount else { return }
    do throws(SystemError) {
      try file.punchHole(at: offset, count: min(count, byteCount - offset))
    } catch {
      // A file system that has no holes keeps the space.
      guard error.isUnsupported else { throw Self.storageError(error) }
      canPunch = false
    }
  }

  /// Makes the file longer, with a hole, or shorter.
  public mutating func resize(to count: UInt64) throws(StorageError) {
    guard isWritable else { throw .readOnly }
    guard canGrow, count < Self.mostBytes else { throw .pastEnd(offset: count) }
    do throws(SystemError) { try file.truncate(to: count) } catch {
      throw Self.storageError(error)
    }
    byteCount = count
  }

  private mutating func zeroInside(at offset: UInt64, count: UInt64) throws(SystemError) {
    if canGrow, canPunch, count >= 4096 {
      do throws(SystemError) {
        return try file.punchHole(at: offset, count: count)
      } catch {
        guard error.isUnsupported else { throw error }
        canPunch = false
      }
    }
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
public struct Inflater: ClusterDecompressor, Sendable {
  public static var isAvailable: Bool { true }

  public init() {}

  public mutating func inflate(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>)
    -> Bool
  {
    // Some programs write clusters with a larger window than the specification's 4 KiB.
    RawInflater.inflate(input, into: &output)
  }

  public mutating func decompressZstd(
    _ input: Span<UInt8>, into output: inout MutableSpan<UInt8>
  ) -> Bool {
    ZstdFrames.decompress(input, into: &output)
  }
}
