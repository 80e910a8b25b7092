// SPDX-License-Identifier: Apache-2.0

/// A disk image of one of the formats; the format is always told, never guessed.
public enum BlockImage<
  Storage: BlockStorage & ~Copyable, Decompressor: ClusterDecompressor
>: ~Copyable {
  case raw(RawImage<Storage>)
  case qcow2(QCOW2Image<Storage, Decompressor>)

  /// The size of the disk in bytes.
  public var virtualSize: UInt64 {
    switch self {
    case .raw(let image): image.virtualSize
    case .qcow2(let image): image.virtualSize
    }
  }

  /// What the monitor shows about the image.
  public var info: ImageInfo {
    switch self {
    case .raw(let image):
      ImageInfo(
        format: "raw", virtualSize: image.virtualSize, fileSize: image.storage.byteCount,
        isWritable: image.isWritable)
    case .qcow2(let image): image.info
    }
  }

  /// How many images lie below this one.
  var depth: Int {
    switch self {
    case .raw: 0
    case .qcow2(let image): image.depth
    }
  }

  /// Fills `buffer` with the disk's bytes from `offset`.
  public mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(BlockImageError)
  {
    switch consume self {
    case .raw(var image):
      do throws(BlockImageError) { try image.read(into: &buffer, at: offset) } catch {
        self = .raw(image)
        throw error
      }
      self = .raw(image)
    case .qcow2(var image):
      do throws(BlockImageError) { try image.read(into: &buffer, at: offset) } catch {
        self = .qcow2(image)
        throw error
      }
      self = .qcow2(image)
    }
  }

  /// Writes `bytes` to the disk at `offset`.
  public mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(BlockImageError) {
    switch consume self {
    case .raw(var image):
      do throws(BlockImageError) { try image.write(bytes, at: offset) } catch {
        self = .raw(image)
        throw error
      }
      self = .raw(image)
    case .qcow2(var image):
      do throws(BlockImageError) { try image.write(bytes, at: offset) } catch {
        self = .qcow2(image)
        throw error
      }
      self = .qcow2(image)
    }
  }

  /// Makes a part of the disk read as zero.
  public mutating func zero(at offset: UInt64, count: UInt64) throws(BlockImageError) {
    switch consume self {
    case .raw(var image):
      do throws(BlockImageError) { try image.zero(at: offset, count: count) } catch {
        self = .raw(image)
        throw error
      }
      self = .raw(image)
    case .qcow2(var image):
      do throws(BlockImageError) { try image.zero(at: offset, count: count) } catch {
        self = .qcow2(image)
        throw error
      }
      self = .qcow2(image)
    }
  }

  /// Gives the space of a part of the disk back, as far as the format can.
  public mutating func discard(at offset: UInt64, count: UInt64) throws(BlockImageError) {
    switch consume self {
    case .raw(var image):
      do throws(BlockImageError) { try image.discard(at: offset, count: count) } catch {
        self = .raw(image)
        throw error
      }
      self = .raw(image)
    case .qcow2(var image):
      do throws(BlockImageError) { try image.discard(at: offset, count: count) } catch {
        self = .qcow2(image)
        throw error
      }
      self = .qcow2(image)
    }
  }

  /// Makes the disk larger or smaller.
  ///
  /// - Parameter size: The new size in bytes.
  /// - Throws: When the format does not allow it or the storage fails.
  public mutating func resize(to size: UInt64) throws(BlockImageError) {
    switch consume self {
    case .raw(var image):
      do throws(BlockImageError) { try image.resize(to: size) } catch {
        self = .raw(image)
        throw error
      }
      self = .raw(image)
    case .qcow2(var image):
      do throws(BlockImageError) { try image.resize(to: size) } catch {
        self = .qcow2(image)
        throw error
      }
      self = .qcow2(image)
    }
  }

  /// Makes every finished write durable.
  public mutating func flush() throws(BlockImageError) {
    switch consume self {
    case .raw(var image):
      do throws(BlockImageError) { try image.flush() } catch {
        self = .raw(image)
        throw error
      }
      self = .raw(image)
    case .qcow2(var image):
      do throws(BlockImageError) { try image.flush() } catch {
        self = .qcow2(image)
        throw error
      }
      self = .qcow2(image)
    }
  }
}

/// An image that another one is layered on; it is only ever read.
///
/// A class, because a chain of images is a recursive type; its one reference is the
/// image above it.
public final class BackingImage<
  Storage: BlockStorage & ~Copyable, Decompressor: ClusterDecompressor
> {
  var image: BlockImage<Storage, Decompressor>

  /// Takes an image that was opened read-only.
  public init(_ image: consuming BlockImage<Storage, Decompressor>) { self.image = image }
}

/// What the monitor and the launcher's check show about an image.
public struct ImageInfo: Equatable, Sendable {
  /// The name of the format, as the machine file spells it.
  public var format: String
  /// The size of the disk in bytes.
  public var virtualSize: UInt64
  /// The length of the image file in bytes.
  public var fileSize: UInt64
  /// Whether it was opened for writing.
  public var isWritable: Bool
  /// The version of the format, where there are several.
  public var version: UInt32 = 0
  /// Bytes in a cluster, 0 for raw.
  public var clusterSize: UInt64 = 0
  /// Bits in a reference count, 0 for raw.
  public var refcountBits: Int = 0
  /// How many internal snapshots the image holds.
  public var snapshotCount: Int = 0
  /// The name of the backing file as the image gives it.
  public var backingFileName: String?
  /// The format of the backing file as the image gives it.
  public var backingFormat: String?

  public init(format: String, virtualSize: UInt64, fileSize: UInt64, isWritable: Bool) {
    self.format = format
    self.virtualSize = virtualSize
    self.fileSize = fileSize
    self.isWritable = isWritable
  }
}
