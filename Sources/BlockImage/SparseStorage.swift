// SPDX-License-Identifier: Apache-2.0

/// A storage that knows which of its parts are holes.
public protocol SparseStorage: BlockStorage, ~Copyable {
  /// Says whether the byte at `offset` is in a hole, and how many of `limit` bytes are alike.
  ///
  /// A hole reads as zero; what is none may read as zero, too.
  ///
  /// - Parameters:
  ///   - offset: Inside the storage.
  ///   - limit: The most bytes to look at, at least 1.
  /// - Returns: Whether it is a hole, and for how many bytes.
  /// - Throws: When the host reports an error.
  mutating func extent(at offset: UInt64, limit: UInt64) throws(StorageError)
    -> (isHole: Bool, count: UInt64)
}

/// A part of a disk whose bytes are kept the same way.
public struct ImageExtent: Equatable, Sendable {
  /// Where it begins on the disk.
  public var offset: UInt64
  /// Its length in bytes.
  public var count: UInt64
  /// How many images lie in front of the one that says what it is.
  public var depth: Int
  /// Whether an image of the chain has it allocated.
  public var isPresent: Bool
  /// Whether it reads as zero, as far as the tables say.
  public var isZero: Bool
  /// Whether its bytes are kept somewhere.
  public var isData: Bool
  /// Whether they are kept compressed.
  public var isCompressed = false
  /// Where they are kept in the file.
  public var host: UInt64?

  /// Whether `next` goes on where this ends, kept the same way.
  public func joins(_ next: ImageExtent) -> Bool {
    guard next.offset == offset + count, next.depth == depth, next.isPresent == isPresent,
      next.isZero == isZero, next.isData == isData, next.isCompressed == isCompressed
    else { return false }
    guard let host, let other = next.host else { return self.host == nil && next.host == nil }
    return host + count == other
  }
}

extension BlockImage where Storage: SparseStorage & ~Copyable {
  /// Says how the bytes at `offset` are kept, and how many of `limit` the same way.
  ///
  /// - Parameters:
  ///   - offset: Inside the disk.
  ///   - limit: The most bytes to look at, at least 1.
  ///   - depth: How many images lie in front of this one.
  /// - Returns: The part, from `offset` on.
  /// - Throws: An error that names the field at fault.
  public mutating func extent(at offset: UInt64, limit: UInt64, depth: Int = 0)
    throws(BlockImageError) -> ImageExtent
  {
    switch consume self {
    case .raw(var image):
      do throws(BlockImageError) {
        let result = try image.extent(at: offset, limit: limit, depth: depth)
        self = .raw(image)
        return result
      } catch {
        self = .raw(image)
        throw error
      }
    case .qcow2(var image):
      do throws(BlockImageError) {
        let result = try image.extent(at: offset, limit: limit, depth: depth)
        self = .qcow2(image)
        return result
      } catch {
        self = .qcow2(image)
        throw error
      }
    }
  }
}

extension RawImage where Storage: SparseStorage & ~Copyable {
  mutating func extent(at offset: UInt64, limit: UInt64, depth: Int) throws(BlockImageError)
    -> ImageExtent
  {
    do throws(StorageError) {
      let (isHole, count) = try storage.extent(
        at: offset, limit: min(limit, virtualSize - offset))
      return ImageExtent(
        offset: offset, count: count, depth: depth, isPresent: true, isZero: isHole,
        isData: !isHole, host: offset)
    } catch {
      throw .storage(error)
    }
  }
}

extension QCOW2Image where Storage: SparseStorage & ~Copyable {
  /// Says how the bytes at `offset` are kept, and how many of `limit` the same way.
  ///
  /// - Parameters:
  ///   - offset: Inside the disk.
  ///   - limit: The most bytes to look at, at least 1.
  ///   - depth: How many images lie in front of this one.
  /// - Returns: The part, from `offset` on.
  /// - Throws: An error that names the field at fault.
  public mutating func extent(at offset: UInt64, limit: UInt64, depth: Int)
    throws(BlockImageError) -> ImageExtent
  {
    let limit = min(limit, virtualSize - offset)
    let (source, count) = try source(at: offset, limit: limit)
    var extent = ImageExtent(
      offset: offset, count: count, depth: depth, isPresent: true, isZero: false, isData: false)
    switch source {
    case .zero(let host):
      extent.isZero = true
      if host != 0 { extent.host = host + offset % header.clusterSize }
    case .compressed:
      extent.isData = true
      extent.isCompressed = true
    case .data(let host):
      extent.isData = true
      let place = host + offset % header.clusterSize
      extent.host = place
      // Clusters that are reserved and were never written are holes of the file.
      if !header.hasDataFile, !header.isEncrypted, place < storage.byteCount {
        do throws(StorageError) {
          let (isHole, part) = try storage.extent(at: place, limit: count)
          extent.count = part
          extent.isZero = isHole
        } catch {
          throw .storage(error)
        }
      }
    case .unallocated:
      guard let backing, offset < backingSize else {
        extent.isPresent = false
        extent.isZero = true
        return extent
      }
      return try backing.image.extent(
        at: offset, limit: min(count, backingSize - offset), depth: depth + 1)
    }
    return extent
  }

  /// Returns how this image itself keeps the bytes at `offset`; long empty parts are one step.
  mutating func source(at offset: UInt64, limit: UInt64) throws(BlockImageError) -> (
    ClusterSource, UInt64
  ) {
    let bits = clusterBits + header.l2Bits
    var end = offset
    while end - offset < limit, l1[Int(end >> bits)] & QCOW2.offsetMask == 0 {
      end = (end >> bits + 1) << bits
      guard Int(end >> bits) < l1.count else { break }
    }
    if end > offset { return (.unallocated, min(limit, end - offset)) }
    let (source, count) = try run(at: offset, limit: Int(min(limit, 1 << 30)))
    return (source, UInt64(count))
  }

  /// Whether this image itself has the bytes at `offset`, and how many of `limit` alike.
  ///
  /// - Parameters:
  ///   - offset: Inside the disk.
  ///   - limit: The most bytes to look at, at least 1.
  /// - Returns: Whether it has them, and for how many bytes.
  /// - Throws: An error that names the field at fault.
  public mutating func isAllocated(at offset: UInt64, limit: UInt64) throws(BlockImageError) -> (
    isAllocated: Bool, count: UInt64
  ) {
    let (source, count) = try source(at: offset, limit: limit)
    if case .unallocated = source { return (false, count) }
    return (true, count)
  }
}
