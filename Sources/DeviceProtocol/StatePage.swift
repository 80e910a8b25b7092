// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

/// Where things are in a state page (protocols/device.md, section 9).
public enum StateLayoutInPage {
  /// "BHST", little-endian, at offset 0.
  public static let magic: UInt32 = 0x5453_4842
  public static let version: UInt32 = 1
  public static let magicOffset = 0
  public static let versionOffset = 4
  /// Which record is the last whole one: 0 for none, 1 or 2.
  public static let activeOffset = 8
  /// The layout that the next commits refer to: its length in bits 15 to 0, its area (0 or 1)
  /// in bit 16.
  public static let layoutWordOffset = 12
  /// The two areas for layouts of states (``StateLayout``), 12288 bytes each.
  public static let layoutOffset = 4096
  public static let mostLayoutBytes = 12288
  /// The two records; what follows them is the device's bulk area.
  public static let recordsOffset = 28672
  public static let recordBytes = 65536
  public static let bulkOffset = 28672 + 2 * 65536

  /// In a record: how many commits there were, 64 bits.
  public static let recordNumber = 0
  /// The number of posted writes done, 32 bits.
  public static let recordTail = 8
  /// The length of the values in bytes, 32 bits.
  public static let recordCount = 12
  /// The sequence of the last request done, for each of 255 slots, 32 bits.
  public static let recordSequences = 16
  /// The layout of the record's values, as at ``layoutWordOffset``.
  public static let recordLayoutWord = 16 + 4 * 255
  /// The values.
  public static let recordValues = 16 + 4 * 256
  public static let mostValueBytes = 65536 - recordValues

  /// The length of a page with some room for bulk data.
  public static func byteCount(bulk: Int) -> Int { (bulkOffset + bulk + 4095) & ~4095 }
}

/// A device's committed state: the last whole record survives the death of the process at
/// any instruction, because the two records are written in turn and one word says which
/// of them counts.
public final class StatePage: Sendable {
  private let memory: Mapping
  private typealias At = StateLayoutInPage

  /// The room for bulk data in bytes.
  public let bulkByteCount: Int

  /// Maps a state page.
  public init(_ file: Descriptor, byteCount: Int) throws(ChannelError) {
    guard MemoryFile.isSealed(file) else {
      throw .broken(ProtocolError("the state page is not sealed"))
    }
    do throws(SystemError) {
      guard byteCount >= At.bulkOffset, try file.size() >= UInt64(byteCount) else {
        throw SystemError("state page too short", 0)
      }
      memory = try Mapping(file, byteCount: byteCount, .readWrite)
    } catch {
      throw .system(error)
    }
    bulkByteCount = byteCount - At.bulkOffset
  }

  /// Where a predecessor stopped.
  public struct Committed: Sendable {
    public var number: UInt64
    /// The number of posted writes done.
    public var tail: UInt32
    /// For each slot, the sequence of the last request done.
    public var sequences: [UInt32]
    public var values: [UInt8]
    public var layout: [UInt8]
  }

  /// Reads the last whole record, or `nil` when there is none.
  public func committed(slots: Int) throws(ProtocolError) -> Committed? {
    let active = memory.acquire32(at: At.activeOffset)
    guard active != 0 else { return nil }
    guard memory.load(UInt32.self, at: At.magicOffset) == At.magic,
      memory.load(UInt32.self, at: At.versionOffset) == At.version, active <= 2
    else { throw ProtocolError("the state page's header is wrong") }
    let record = At.recordsOffset + Int(active - 1) * At.recordBytes
    let count = Int(memory.load(UInt32.self, at: record + At.recordCount))
    let word = memory.load(UInt32.self, at: record + At.recordLayoutWord)
    let layoutCount = Int(word & 0xFFFF)
    guard word >> 17 == 0, layoutCount <= At.mostLayoutBytes, count <= At.mostValueBytes else {
      throw ProtocolError("the state page's lengths are wrong")
    }
    return Committed(
      number: memory.load(UInt64.self, at: record + At.recordNumber),
      tail: memory.load(UInt32.self, at: record + At.recordTail),
      sequences: (0..<slots).map {
        memory.load(UInt32.self, at: record + At.recordSequences + 4 * $0)
      },
      values: memory.bytes(at: record + At.recordValues, count: count),
      layout: memory.bytes(at: Self.layoutArea(word), count: layoutCount))
  }

  private static func layoutArea(_ word: UInt32) -> Int {
    At.layoutOffset + Int(word >> 16 & 1) * At.mostLayoutBytes
  }

  /// Begins a history: writes the layout that the next commits refer to.
  ///
  /// A record that is there stays the last whole one until the first commit, with its own
  /// layout, so a death in between loses nothing.
  public func begin(layout: [UInt8]) throws(ProtocolError) {
    guard layout.count <= At.mostLayoutBytes else {
      throw ProtocolError("state layout of \(layout.count) bytes")
    }
    memory.store(At.magic, at: At.magicOffset)
    memory.store(At.version, at: At.versionOffset)
    let active = memory.acquire32(at: At.activeOffset)
    var area: UInt32 = 0
    if active == 1 || active == 2 {
      let record = At.recordsOffset + Int(active - 1) * At.recordBytes
      area = (memory.load(UInt32.self, at: record + At.recordLayoutWord) >> 16 & 1) ^ 1
    }
    let word = UInt32(layout.count) | area << 16
    memory.copy(layout, to: Self.layoutArea(word))
    memory.release32(word, at: At.layoutWordOffset)
  }

  /// Commits a state: when this returns, it is the one that a successor goes on from.
  ///
  /// - Precondition: ``begin(layout:)`` was called with the layout of `values`, which are at
  ///   most ``StateLayoutInPage/mostValueBytes``.
  public func commit(
    number: UInt64, tail: UInt32, sequences: [UInt32], values: [UInt8]
  ) {
    precondition(values.count <= At.mostValueBytes, "device state too long")
    precondition(sequences.count <= LaneLayout.mostSlots, "too many sequences")
    // Never the record that counts, whatever the number is.
    let next: UInt32 = memory.acquire32(at: At.activeOffset) == 1 ? 1 : 0
    let record = At.recordsOffset + Int(next) * At.recordBytes
    memory.store(number, at: record + At.recordNumber)
    memory.store(tail, at: record + At.recordTail)
    memory.store(UInt32(values.count), at: record + At.recordCount)
    for index in sequences.indices {
      memory.store(sequences[index], at: record + At.recordSequences + 4 * index)
    }
    memory.store(
      memory.load(UInt32.self, at: At.layoutWordOffset), at: record + At.recordLayoutWord)
    memory.copy(values, to: record + At.recordValues)
    memory.release32(next + 1, at: At.activeOffset)
  }

  /// Writes bulk data; a commit that refers to it comes after.
  public func setBulk(_ bytes: [UInt8], at offset: Int) {
    memory.copy(bytes, to: At.bulkOffset + offset)
  }

  /// Reads bulk data.
  public func bulk(at offset: Int, count: Int) -> [UInt8] {
    memory.bytes(at: At.bulkOffset + offset, count: count)
  }
}
