// SPDX-License-Identifier: Apache-2.0

/// An image whose bytes are the disk's bytes.
public struct RawImage<Storage: BlockStorage & ~Copyable>: ~Copyable {
  var storage: Storage
  let isWritable: Bool
  /// The size of the disk in bytes: the file's when it was opened, or when it was resized.
  public private(set) var virtualSize: UInt64

  /// Takes `storage` as it is; its length is the size of the disk.
  public init(storage: consuming Storage, writable: Bool) {
    virtualSize = storage.byteCount
    isWritable = writable
    self.storage = storage
  }

  /// Fills `buffer` with the disk's bytes from `offset`.
  public mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(BlockImageError)
  {
    try checkRange(offset, buffer.count, of: virtualSize)
    do throws(StorageError) { try storage.read(into: &buffer, at: offset) } catch {
      throw .storage(error)
    }
  }

  /// Writes `bytes` to the disk at `offset`.
  public mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(BlockImageError) {
    guard isWritable else { throw .notWritable(reason: "it was opened read-only") }
    try checkRange(offset, bytes.count, of: virtualSize)
    do throws(StorageError) { try storage.write(bytes, at: offset) } catch {
      throw .storage(error)
    }
  }

  /// Makes a part of the disk read as zero.
  public mutating func zero(at offset: UInt64, count: UInt64) throws(BlockImageError) {
    try checkWrite(offset, count)
    do throws(StorageError) { try storage.zero(at: offset, count: count) } catch {
      throw .storage(error)
    }
  }

  /// Gives space back; what lay there is lost, and what it reads as is not said.
  public mutating func discard(at offset: UInt64, count: UInt64) throws(BlockImageError) {
    try checkWrite(offset, count)
    do throws(StorageError) { try storage.discard(at: offset, count: count) } catch {
      throw .storage(error)
    }
  }

  /// Makes the disk larger or smaller.
  ///
  /// - Parameter size: The new size in bytes.
  /// - Throws: When the image can't be written or the storage fails.
  public mutating func resize(to size: UInt64) throws(BlockImageError) {
    guard isWritable else { throw .notWritable(reason: "it was opened read-only") }
    do throws(StorageError) {
      try storage.resize(to: size)
      virtualSize = size
      try storage.flush()
    } catch {
      throw .storage(error)
    }
  }

  private func checkWrite(_ offset: UInt64, _ count: UInt64) throws(BlockImageError) {
    guard isWritable else { throw .notWritable(reason: "it was opened read-only") }
    guard offset <= virtualSize, count <= virtualSize - offset else {
      throw .outOfRange(offset: offset, count: count, virtualSize: virtualSize)
    }
  }

  /// Makes every finished write durable.
  public mutating func flush() throws(BlockImageError) {
    do throws(StorageError) { try storage.flush() } catch { throw .storage(error) }
  }
}

/// Throws unless `count` bytes at `offset` lie inside a disk of `size` bytes.
func checkRange(_ offset: UInt64, _ count: Int, of size: UInt64) throws(BlockImageError) {
  guard offset <= size, UInt64(count) <= size - offset else {
    throw .outOfRange(offset: offset, count: UInt64(count), virtualSize: size)
  }
}
