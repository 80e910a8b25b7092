// SPDX-License-Identifier: Apache-2.0

public import BlockImage
internal import LinuxSystem

/// The bytes of an image file, for several threads at once.
public struct FilePort: StoragePort {
  let file: Descriptor
  let isWritable: Bool
  /// How transfers pass the page cache, where they do.
  let direct: DirectTransfer?

  /// What large writes through the page cache pass.
  let narrows: Narrows?

  /// Below this a write is done sooner than somebody has been woken for it.
  private static let largeByteCount = 32 << 10

  /// The largest offset that the kernel's signed file positions have.
  static let mostBytes: UInt64 = 1 << 62

  public func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(StorageError)
  {
    guard offset < Self.mostBytes else { throw .pastEnd(offset: offset) }
    let got: Int
    do throws(SystemError) {
      if let direct {
        got = try direct.read(into: &buffer, at: offset)
      } else {
        got = try file.read(into: &buffer, at: offset)
      }
    } catch {
      throw Self.storageError(error)
    }
    for index in got..<buffer.count { buffer[index] = 0 }
  }

  public func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    guard isWritable else { throw .readOnly }
    guard offset < Self.mostBytes else { throw .pastEnd(offset: offset) }
    do throws(SystemError) { try put(bytes, at: offset) } catch { throw Self.storageError(error) }
  }

  func put(_ bytes: Span<UInt8>, at offset: UInt64) throws(SystemError) {
    if let direct { return try direct.write(bytes, at: offset) }
    guard let narrows, bytes.count >= Self.largeByteCount else {
      return try file.write(bytes, at: offset)
    }
    try narrows.pass { () throws(SystemError) in try file.write(bytes, at: offset) }
  }

  /// Gives up the space of a range, which reads as zero then.
  func punchHole(at offset: UInt64, count: UInt64) throws(SystemError) {
    guard let direct else { return try file.punchHole(at: offset, count: count) }
    try direct.alone(at: offset, count: count) { () throws(SystemError) in
      try file.punchHole(at: offset, count: count)
    }
  }

  public func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    guard isWritable else { throw .readOnly }
    guard offset < Self.mostBytes, count < Self.mostBytes else { throw .pastEnd(offset: offset) }
    do throws(SystemError) { try punchHole(at: offset, count: count) } catch {
      // A file system that has no holes keeps the space.
      guard error.isUnsupported else { throw Self.storageError(error) }
    }
  }

  public func flush() throws(StorageError) {
    guard isWritable else { return }
    do throws(SystemError) { try file.synchronize() } catch { throw Self.storageError(error) }
  }

  static func storageError(_ error: SystemError) -> StorageError {
    error.isOutOfSpace ? .noSpace : .failed(code: error.number)
  }
}
