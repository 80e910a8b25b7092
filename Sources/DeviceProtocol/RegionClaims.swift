// SPDX-License-Identifier: Apache-2.0

/// How a register's reads or writes are served (protocols/device.md, section 6).
public enum RegisterKind: UInt8, Sendable {
  /// The vCPU waits for the device's answer.
  case live = 0
  /// Writes go to a ring and the vCPU goes on.
  case posted = 1
  /// Reads are answered from the register table while the device has marked the entry valid.
  case mirrored = 2
  /// Reads are a count of ticks of the virtual clock, computed by the core.
  case clocked = 3
}

/// A range of ports that the device answers for.
public struct PortClaim: Equatable, WireCodable {
  /// The device's own number for the region, used in every access; below ``Claims/mostRegions``.
  public var region: UInt16
  /// The first port.
  public var base: UInt16
  /// How many ports.
  public var count: UInt16
  /// Whether the device may move it with ``Request/moveRegion``; it starts disabled then.
  public var isMovable: Bool

  public init(region: UInt16, base: UInt16, count: UInt16, isMovable: Bool = false) {
    self.region = region
    self.base = base
    self.count = count
    self.isMovable = isMovable
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(region)
    writer.put(base)
    writer.put(count)
    writer.put(isMovable)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    region = try reader.get("port claim's region")
    base = try reader.get("port claim's base")
    count = try reader.get("port claim's count")
    isMovable = try reader.getBool("port claim's movable flag")
    guard count > 0, UInt32(base) + UInt32(count) <= 0x10000 else {
      throw ProtocolError("port claim at \(base) with \(count) ports")
    }
  }
}

/// A fixed range of guest-physical addresses that the device answers for.
public struct MemoryClaim: Equatable, WireCodable {
  public var region: UInt16
  /// The first guest-physical address.
  public var base: UInt64
  /// How many bytes.
  public var byteCount: UInt64

  public init(region: UInt16, base: UInt64, byteCount: UInt64) {
    self.region = region
    self.base = base
    self.byteCount = byteCount
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(region)
    writer.put(base)
    writer.put(byteCount)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    region = try reader.get("memory claim's region")
    base = try reader.get("memory claim's base")
    byteCount = try reader.get("memory claim's size")
    guard byteCount > 0, base <= UInt64.max - byteCount else {
      throw ProtocolError("memory claim at \(base) with \(byteCount) bytes")
    }
  }
}

/// How a register of a region is served; one without a claim is live.
public struct RegisterClaim: Equatable, WireCodable {
  public var region: UInt16
  /// The first byte of the register in its region.
  public var offset: UInt32
  /// How many bytes the claim covers.
  public var byteCount: UInt32
  /// Reads: live, mirrored or clocked.
  public var read: RegisterKind
  /// Writes: live or posted.
  public var write: RegisterKind
  /// The entry of the register table that holds a mirrored value; unused otherwise.
  public var entry: UInt16
  /// Clocked: ticks a second.
  public var frequency: UInt64
  /// Clocked: how many bits of the count the register has, 1 to 32.
  public var bits: UInt8

  public init(
    region: UInt16, offset: UInt32, byteCount: UInt32 = 1, read: RegisterKind = .live,
    write: RegisterKind = .live, entry: UInt16 = 0, frequency: UInt64 = 0, bits: UInt8 = 32
  ) {
    self.region = region
    self.offset = offset
    self.byteCount = byteCount
    self.read = read
    self.write = write
    self.entry = entry
    self.frequency = frequency
    self.bits = bits
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(region)
    writer.put(offset)
    writer.put(byteCount)
    writer.put(read.rawValue)
    writer.put(write.rawValue)
    writer.put(entry)
    writer.put(frequency)
    writer.put(bits)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    region = try reader.get("register's region")
    offset = try reader.get("register's offset")
    byteCount = try reader.get("register's size")
    read = try reader.getCase("register's read kind")
    write = try reader.getCase("register's write kind")
    entry = try reader.get("register's entry")
    frequency = try reader.get("register's frequency")
    bits = try reader.get("register's bits")
    guard read != .posted else { throw ProtocolError("reads cannot be posted") }
    guard write == .live || write == .posted else {
      throw ProtocolError("writes cannot be \(write)")
    }
    guard byteCount > 0, offset <= UInt32.max - byteCount else {
      throw ProtocolError("register at \(offset) with \(byteCount) bytes")
    }
    guard entry < UInt16(LaneLayout.registerEntries) else {
      throw ProtocolError("register entry \(entry) is outside the table")
    }
    guard read != .clocked || (1...1_000_000_000).contains(frequency) && (1...32).contains(bits)
    else { throw ProtocolError("clocked register with \(frequency) Hz, \(bits) bits") }
  }
}

/// An interrupt line of the device; it is granted as one or two event descriptors.
public struct LineClaim: Equatable, WireCodable {
  /// The global interrupt number, 0 to 23; 0 to 15 are the ISA interrupts.
  public var interrupt: UInt8
  /// Level-triggered: a second descriptor says when the guest has ended the interrupt.
  public var isLevel: Bool

  public init(interrupt: UInt8, isLevel: Bool = false) {
    self.interrupt = interrupt
    self.isLevel = isLevel
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(interrupt)
    writer.put(isLevel)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    interrupt = try reader.get("line's interrupt")
    isLevel = try reader.getBool("line's level flag")
    guard interrupt < 24 else { throw ProtocolError("there is no interrupt \(interrupt)") }
  }
}

/// Memory behind a BAR, mapped into the guest.
public struct BackingClaim: Equatable, WireCodable {
  /// What is in it.
  public enum Kind: UInt8, Sendable {
    /// Zeroes at first; the core makes it and gives the device the descriptor. It outlives
    /// the device process.
    case readWrite = 0
    /// Copied by the core from the descriptor that comes with the claim; the guest reads only.
    case rom = 1
  }

  /// The number that a ``BARClaim`` refers to.
  public var memory: UInt16
  public var kind: Kind
  /// Bytes; a multiple of 4096, and for a ROM at least the file's size.
  public var byteCount: UInt32

  public init(memory: UInt16, kind: Kind, byteCount: UInt32) {
    self.memory = memory
    self.kind = kind
    self.byteCount = byteCount
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(memory)
    writer.put(kind.rawValue)
    writer.put(byteCount)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    memory = try reader.get("backing's memory")
    kind = try reader.getCase("backing's kind")
    byteCount = try reader.get("backing's size")
    guard byteCount > 0, byteCount % 4096 == 0, byteCount <= 256 << 20 else {
      throw ProtocolError("backing memory of \(byteCount) bytes")
    }
  }
}

/// Where the guest puts a description of the memory that a transfer may touch.
///
/// The core reads it from guest memory when the guest starts the transfer; the device gets
/// a window, never an address.
public struct DescriptorClaim: Equatable, WireCodable {
  /// The format of what the guest writes.
  public enum Kind: UInt8, Sendable {
    /// A physical region descriptor table of a PCI IDE bus master: pointer in four bytes at
    /// `offset` + 4, started by bit 0 of the byte at `offset`, direction in its bit 3.
    case prd = 0
    /// A fw_cfg DMA block: big-endian address in eight bytes at `offset`, started by a write
    /// that touches the last of them.
    case fwCfg = 1
  }

  /// The window's number, chosen by the device, below ``Claims/mostWindows``.
  public var window: UInt16
  public var kind: Kind
  /// The region and the offset of the registers that start it.
  public var region: UInt16
  public var offset: UInt32
  /// The function whose bus-master bit must be on, or 0xFF for a device that has none.
  public var devfn: UInt8

  public init(window: UInt16, kind: Kind, region: UInt16, offset: UInt32, devfn: UInt8 = 0xFF) {
    self.window = window
    self.kind = kind
    self.region = region
    self.offset = offset
    self.devfn = devfn
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(window)
    writer.put(kind.rawValue)
    writer.put(region)
    writer.put(offset)
    writer.put(devfn)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    window = try reader.get("descriptor's window")
    kind = try reader.getCase("descriptor's kind")
    region = try reader.get("descriptor's region")
    offset = try reader.get("descriptor's offset")
    devfn = try reader.get("descriptor's devfn")
    guard window < UInt16(Claims.mostWindows) else { throw ProtocolError("window \(window)") }
    guard offset <= UInt32.max - 8 else { throw ProtocolError("descriptor at \(offset)") }
  }
}
