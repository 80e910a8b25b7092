// SPDX-License-Identifier: Apache-2.0

/// ``Request/mapWindow``: a part of a claimed memory region is a part of a backing memory from now
/// on, and the guest uses it without an exit.
///
/// It takes the place of what the device had mapped before. Because the guest's accesses there are
/// in no order with posted writes, the device asks for it only while a vCPU waits for its answer,
/// and names the registers by which the guest can end it: writes to them are live meanwhile.
public struct WindowMapping: Equatable, WireCodable, Sendable {
  /// Registers whose writes are live while the mapping is in force, posted or not.
  public struct Guard: Equatable, WireCodable, Sendable {
    public var region: UInt16
    /// The first byte in the region.
    public var offset: UInt32
    public var byteCount: UInt32

    public init(region: UInt16, offset: UInt32, byteCount: UInt32 = 1) {
      self.region = region
      self.offset = offset
      self.byteCount = byteCount
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(region)
      writer.put(offset)
      writer.put(byteCount)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      region = try reader.get("guard's region")
      offset = try reader.get("guard's offset")
      byteCount = try reader.get("guard's size")
      guard byteCount > 0, offset <= UInt32.max - byteCount else {
        throw ProtocolError("a guard at \(offset) with \(byteCount) bytes")
      }
    }
  }

  /// The memory region, by the device's number.
  public var region: UInt16
  /// Whether anything is mapped; the rest but the region counts for nothing otherwise.
  public var isMapped: Bool
  /// The backing memory that shows, by the device's number.
  public var memory: UInt16
  /// The first byte in the region, and how many there are: whole pages.
  public var offset: UInt32
  public var byteCount: UInt32
  /// Where that is in the memory: at a page.
  public var memoryOffset: UInt32
  public var guards: [Guard]

  /// The most registers that can be guarded.
  public static let mostGuards = 8
  /// The unit of all places and sizes, in bytes.
  public static let pageByteCount: UInt32 = 4096

  public init(
    region: UInt16, isMapped: Bool = true, memory: UInt16 = 0, offset: UInt32 = 0,
    byteCount: UInt32 = 0, memoryOffset: UInt32 = 0, guards: [Guard] = []
  ) {
    self.region = region
    self.isMapped = isMapped
    self.memory = memory
    self.offset = offset
    self.byteCount = byteCount
    self.memoryOffset = memoryOffset
    self.guards = guards
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(region)
    writer.put(isMapped)
    writer.put(memory)
    writer.put(offset)
    writer.put(byteCount)
    writer.put(memoryOffset)
    writer.put(guards)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    region = try reader.get("region")
    isMapped = try reader.getBool("mapped flag")
    memory = try reader.get("memory")
    offset = try reader.get("offset")
    byteCount = try reader.get("size")
    memoryOffset = try reader.get("memory's offset")
    guards = try reader.getArray("guards", most: Self.mostGuards)
    guard !isMapped || byteCount > 0, (offset | byteCount | memoryOffset) % Self.pageByteCount == 0,
      offset <= UInt32.max - byteCount, memoryOffset <= UInt32.max - byteCount
    else { throw ProtocolError("a window of \(byteCount) bytes at \(offset)") }
  }
}
