// SPDX-License-Identifier: Apache-2.0

/// An internal snapshot ("Snapshots" in the specification).
public struct QCOW2Snapshot: Equatable, Sendable {
  /// The number by which it is known, as text.
  public var id: String
  public var name: String
  /// When it was taken, in seconds since 1970.
  public var seconds: UInt32
  /// The nanoseconds of that second.
  public var nanoseconds: UInt32
  /// How long the guest had run, in nanoseconds.
  public var guestNanoseconds: UInt64
  /// The length of the saved machine state in bytes, 0 when there is none.
  public var stateSize: UInt64
  /// The size of the disk when it was taken.
  public var virtualSize: UInt64
  /// Where its L1 table is.
  public var l1TableOffset: UInt64
  /// How many entries its L1 table has.
  public var l1Size: UInt32
  /// The extra data as it is in the file, with what this program doesn't know.
  public var extra: [UInt8] = []

  public init(
    id: String, name: String, seconds: UInt32 = 0, nanoseconds: UInt32 = 0,
    guestNanoseconds: UInt64 = 0, stateSize: UInt64 = 0, virtualSize: UInt64,
    l1TableOffset: UInt64, l1Size: UInt32
  ) {
    self.id = id
    self.name = name
    self.seconds = seconds
    self.nanoseconds = nanoseconds
    self.guestNanoseconds = guestNanoseconds
    self.stateSize = stateSize
    self.virtualSize = virtualSize
    self.l1TableOffset = l1TableOffset
    self.l1Size = l1Size
  }
}

/// What picks an internal snapshot.
public enum QCOW2SnapshotName: Equatable, Sendable {
  case id(String)
  case name(String)

  /// Whether this names `snapshot`.
  public func matches(_ snapshot: QCOW2Snapshot) -> Bool {
    switch self {
    case .id(let id): snapshot.id == id
    case .name(let name): snapshot.name == name
    }
  }

  var text: String {
    switch self {
    case .id(let text), .name(let text): text
    }
  }
}

extension QCOW2Header {
  /// Reads the snapshot table one entry at a time.
  ///
  /// Names and extra data are bounded, the table as a whole too, so that no more than
  /// ``QCOW2/largestSnapshotTable`` bytes are read.
  ///
  /// - Parameters:
  ///   - storage: The image file.
  ///   - each: Gets each snapshot, checked; returns whether to go on.
  /// - Returns: The length of the part of the table that was read, in bytes.
  /// - Throws: An error that names the field at fault.
  @discardableResult
  func forEachSnapshot<Storage: BlockStorage & ~Copyable>(
    on storage: inout Storage, _ each: (QCOW2Snapshot) throws(BlockImageError) -> Bool
  ) throws(BlockImageError) -> UInt64 {
    var position = snapshotTableOffset
    let fileSize = storage.byteCount
    for index in 0..<Int(snapshotCount) {
      let (snapshot, length) = try snapshot(index, at: position, fileSize, on: &storage)
      position += length
      try require(
        position - snapshotTableOffset <= QCOW2.largestSnapshotTable, "snapshot table",
        position - snapshotTableOffset, "must be at most \(QCOW2.largestSnapshotTable) bytes")
      guard try each(snapshot) else { break }
    }
    return position - snapshotTableOffset
  }

  private func snapshot<Storage: BlockStorage & ~Copyable>(
    _ index: Int, at position: UInt64, _ fileSize: UInt64, on storage: inout Storage
  ) throws(BlockImageError) -> (QCOW2Snapshot, UInt64) {
    try require(
      position <= fileSize && 40 <= fileSize - position, "snapshot \(index)", position,
      "the entry must lie inside the file of \(fileSize) bytes")
    var fixed = [UInt8](repeating: 0, count: 40)
    try storage.fill(&fixed, at: position)
    let extraSize = fixed.bigEndian32(at: 36)
    let idSize = Int(fixed[12]) << 8 | Int(fixed[13])
    let nameSize = Int(fixed[14]) << 8 | Int(fixed[15])
    try require(
      extraSize <= 1024, "snapshot \(index) extra_data_size", extraSize, "must be at most 1024")
    let rest = Int(extraSize) + idSize + nameSize
    try require(
      UInt64(rest) <= fileSize - position - 40, "snapshot \(index) id_str_size", rest,
      "the entry must lie inside the file of \(fileSize) bytes")
    var tail = [UInt8](repeating: 0, count: rest)
    try storage.fill(&tail, at: position + 40)
    let idStart = Int(extraSize)
    var snapshot = QCOW2Snapshot(
      id: String(decoding: tail[idStart..<idStart + idSize], as: UTF8.self),
      name: String(decoding: tail[(idStart + idSize)...], as: UTF8.self),
      seconds: fixed.bigEndian32(at: 16), nanoseconds: fixed.bigEndian32(at: 20),
      guestNanoseconds: fixed.bigEndian64(at: 24),
      stateSize: extraSize >= 8 ? tail.bigEndian64(at: 0) : UInt64(fixed.bigEndian32(at: 32)),
      virtualSize: extraSize >= 16 ? tail.bigEndian64(at: 8) : virtualSize,
      l1TableOffset: fixed.bigEndian64(at: 0), l1Size: fixed.bigEndian32(at: 8))
    snapshot.extra = Array(tail[..<idStart])
    try checkL1(of: snapshot, index, fileSize)
    return (snapshot, UInt64(40 + rest + 7) & ~7)
  }

  private func checkL1(of snapshot: QCOW2Snapshot, _ index: Int, _ fileSize: UInt64)
    throws(BlockImageError)
  {
    let bytes = UInt64(snapshot.l1Size) * 8
    let offset = snapshot.l1TableOffset
    try require(
      bytes <= QCOW2.largestL1Table, "snapshot \(index) l1_size", snapshot.l1Size,
      "must be at most \(QCOW2.largestL1Table / 8) entries")
    try require(
      offset & (clusterSize - 1) == 0, "snapshot \(index) l1_table_offset", offset,
      "must be a multiple of the cluster size")
    try require(
      offset <= fileSize && bytes <= fileSize - offset && (offset != 0 || bytes == 0),
      "snapshot \(index) l1_table_offset", offset,
      "the L1 table must lie inside the file of \(fileSize) bytes")
    try require(
      snapshot.virtualSize <= 1 << 62
        && UInt64(snapshot.l1Size) >= l1Entries(for: snapshot.virtualSize),
      "snapshot \(index) l1_size", snapshot.l1Size,
      "its disk of \(snapshot.virtualSize) bytes needs more entries")
  }

  /// Returns how many L1 entries a disk of `size` bytes needs.
  func l1Entries(for size: UInt64) -> UInt64 {
    let bits = UInt64(clusterBits) + l2Bits
    return size >> bits + (size & ((1 << bits) - 1) == 0 ? 0 : 1)
  }
}

extension QCOW2Image where Storage: ~Copyable {
  /// Reads the table of internal snapshots.
  public mutating func snapshots() throws(BlockImageError) -> [QCOW2Snapshot] {
    var all: [QCOW2Snapshot] = []
    try header.forEachSnapshot(on: &storage) { (snapshot) throws(BlockImageError) in
      all.append(snapshot)
      return true
    }
    return all
  }
}
