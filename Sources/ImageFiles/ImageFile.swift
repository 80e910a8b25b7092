// SPDX-License-Identifier: Apache-2.0

public import BlockImage
internal import Compression
public import LinuxSystem

/// An image's bytes in a file or on a block device.
public struct ImageFile: SharedStorage, ~Copyable {
  public let port: FilePort
  private let canGrow: Bool
  /// Whether the host has taken space back so far.
  private var canPunch = true
  public private(set) var byteCount: UInt64

  private var file: Descriptor { port.file }
  private var isWritable: Bool { port.isWritable }

  /// Takes an open file.
  ///
  /// - Parameters:
  ///   - file: A regular file or a block device.
  ///   - isWritable: Whether it was opened for writing, too.
  ///   - isDirect: Whether it was opened to pass the host's page cache (O_DIRECT).
  ///   - alignment: How direct transfers are aligned; found out where it is not said.
  /// - Throws: When its kind or length can't be found out.
  public init(
    _ file: Descriptor, isWritable: Bool, isDirect: Bool = false, alignment: Int? = nil
  ) throws(SystemError) {
    let end = try file.end()
    let kind = try file.kind()
    var direct: DirectTransfer?
    if isDirect {
      let alignment =
        if let alignment { alignment } else { try DirectTransfer.alignment(of: file) }
      direct = DirectTransfer(file, alignment: alignment)
    }
    let isFile = kind == 0o100000  // S_IFREG
    port = FilePort(
      file: file, isWritable: isWritable, direct: direct, narrows: isFile ? Narrows() : nil)
    byteCount = end
    canGrow = isFile
  }

  /// Takes a file of known length that is only read.
  public init(_ file: Descriptor, byteCount: UInt64) {
    port = FilePort(file: file, isWritable: false, direct: nil, narrows: nil)
    canGrow = false
    self.byteCount = byteCount
  }

  /// Takes a regular file that is empty, to be written.
  public init(empty file: Descriptor) {
    port = FilePort(file: file, isWritable: true, direct: nil, narrows: Narrows())
    canGrow = true
    byteCount = 0
  }

  /// The bytes of a block, of which the file's length has to be a multiple where it is to stay
  /// as it is; 1 where the file is used through the host's page cache.
  public var blockByteCount: Int { port.direct?.alignment ?? 1 }

  public mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(StorageError)
  {
    try port.read(into: &buffer, at: offset)
  }

  public mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    try checkWrite(offset, UInt64(bytes.count))
    try port.write(bytes, at: offset)
    noteWritten(upTo: offset + UInt64(bytes.count))
  }

  public mutating func noteWritten(upTo end: UInt64) { byteCount = max(byteCount, end) }

  public mutating func flush() throws(StorageError) { try port.flush() }

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
      throw FilePort.storageError(error)
    }
  }

  public mutating func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    try checkWrite(offset, count)
    guard canPunch, offset < byteCount else { return }
    do throws(SystemError) {
      try port.punchHole(at: offset, count: min(count, byteCount - offset))
    } catch {
      // A file system that has no holes keeps the space.
      guard error.isUnsupported else { throw FilePort.storageError(error) }
      canPunch = false
    }
  }

  /// Makes the file longer, with a hole, or shorter.
  public mutating func resize(to count: UInt64) throws(StorageError) {
    guard isWritable else { throw .readOnly }
    guard canGrow, count < FilePort.mostBytes else { throw .pastEnd(offset: count) }
    guard count % UInt64(blockByteCount) == 0 else { throw .misaligned(block: blockByteCount) }
    do throws(SystemError) { try file.truncate(to: count) } catch {
      throw FilePort.storageError(error)
    }
    byteCount = count
  }

  private mutating func zeroInside(at offset: UInt64, count: UInt64) throws(SystemError) {
    if canGrow, canPunch, count >= 4096 {
      do throws(SystemError) {
        return try port.punchHole(at: offset, count: count)
      } catch {
        guard error.isUnsupported else { throw error }
        canPunch = false
      }
    }
    let zeros = [UInt8](repeating: 0, count: Int(min(count, 65536)))
    var done: UInt64 = 0
    while done < count {
      let piece = Int(min(count - done, 65536))
      try port.put(zeros.span.extracting(0..<piece), at: offset + done)
      done += UInt64(piece)
    }
  }

  private func checkWrite(_ offset: UInt64, _ count: UInt64) throws(StorageError) {
    guard isWritable else { throw .readOnly }
    guard offset < FilePort.mostBytes, count < FilePort.mostBytes,
      canGrow || offset + count <= byteCount
    else { throw .pastEnd(offset: offset) }
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
