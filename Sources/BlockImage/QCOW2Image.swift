// SPDX-License-Identifier: Apache-2.0

/// A qcow2 image, versions 2 and 3, for reading and writing.
///
/// Reads and writes go straight between the caller's buffer and the storage in runs of
/// clusters that lie side by side. Metadata is written through, in an order that leaves
/// at worst leaked clusters when the process is killed between two writes: first
/// refcounts, then data, then the L2 entry, then releases.
public struct QCOW2Image<
  Storage: BlockStorage & ~Copyable, Decompressor: ClusterDecompressor
>: ~Copyable {
  /// The header, as checked when the image was opened and kept up to date since.
  public internal(set) var header: QCOW2Header
  var storage: Storage
  var decompressor: Decompressor
  let backing: BackingImage<Storage, Decompressor>?
  let backingSize: UInt64
  let depth: Int
  let isWritable: Bool

  var l1: [UInt64]
  var l2Cache: TableCache
  /// Empty on a read-only image.
  var refcountTable: [UInt64]
  var refcountCache: TableCache
  /// Every cluster that holds metadata of the active layer, for the overlap checks.
  var metadata: Set<UInt64>
  /// No cluster below this one is free.
  var firstFree: UInt64 = 1

  /// A cluster being put together, and the last one decompressed.
  var scratch: [UInt8] = []
  var inflated: [UInt8] = []
  var inflatedEntry: UInt64?

  /// Opens the image on `storage`.
  ///
  /// - Parameters:
  ///   - storage: The image file.
  ///   - writable: Whether the disk may be written. The autoclear bits are then cleared.
  ///   - backing: The image named by ``QCOW2Header/backingFileName``, opened read-only.
  ///   - decompressor: What inflates compressed clusters.
  /// - Throws: An error that names the field at fault.
  public init(
    storage: consuming Storage, writable: Bool,
    backing: BackingImage<Storage, Decompressor>? = nil, decompressor: Decompressor
  ) throws(BlockImageError) {
    var storage = storage
    let header = try QCOW2Header.read(from: &storage)
    if let name = header.backingFileName, backing == nil {
      throw .backingFileMissing(name: name)
    }
    let depth = (backing?.image.depth ?? -1) + 1
    guard depth <= QCOW2.largestDepth else {
      throw .unsupported(feature: "a chain of more than \(QCOW2.largestDepth) backing files")
    }
    let tables = try QCOW2Tables(header, writable: writable, on: &storage)
    l1 = tables.l1
    refcountTable = tables.refcountTable
    metadata = tables.metadata
    l2Cache = TableCache(clusterSize: header.clusterSize, byteCount: 1 << 20)
    refcountCache = TableCache(
      clusterSize: header.clusterSize, byteCount: writable ? 256 << 10 : 4096)
    self.header = tables.header
    self.storage = storage
    self.decompressor = decompressor
    self.backing = header.backingFileName == nil ? nil : backing
    backingSize = self.backing?.image.virtualSize ?? 0
    self.depth = depth
    isWritable = writable
  }

  /// The size of the disk in bytes.
  public var virtualSize: UInt64 { header.virtualSize }

  /// What the monitor shows about the image.
  public var info: ImageInfo {
    var info = ImageInfo(
      format: "qcow2", virtualSize: virtualSize, fileSize: storage.byteCount,
      isWritable: isWritable)
    info.version = header.version
    info.clusterSize = header.clusterSize
    info.refcountBits = 1 << Int(header.refcountOrder)
    info.snapshotCount = Int(header.snapshotCount)
    info.backingFileName = header.backingFileName
    info.backingFormat = header.backingFormat
    return info
  }

  /// Makes every finished write durable.
  public mutating func flush() throws(BlockImageError) {
    do throws(StorageError) { try storage.flush() } catch { throw .storage(error) }
  }
}
