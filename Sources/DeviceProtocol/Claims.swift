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

/// A base address register of a claimed function.
public struct BARClaim: Equatable, WireCodable {
  /// What the register decodes.
  public enum Kind: UInt8, Sendable {
    case ports = 0
    case memory = 1
    case prefetchableMemory = 2
    case rom = 3
  }

  /// 0 to 5; the expansion ROM's register is 6.
  public var index: UInt8
  public var kind: Kind
  /// A power of two.
  public var byteCount: UInt32
  /// The region that accesses go to.
  public var region: UInt16
  /// The memory that is mapped there (``BackingClaim/memory``), or 0xFFFF for none.
  public var memory: UInt16

  /// No memory: every access goes to the device.
  public static let noMemory: UInt16 = 0xFFFF

  public init(
    index: UInt8, kind: Kind, byteCount: UInt32, region: UInt16, memory: UInt16 = noMemory
  ) {
    self.index = index
    self.kind = kind
    self.byteCount = byteCount
    self.region = region
    self.memory = memory
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(index)
    writer.put(kind.rawValue)
    writer.put(byteCount)
    writer.put(region)
    writer.put(memory)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    index = try reader.get("BAR's index")
    kind = try reader.getCase("BAR's kind")
    byteCount = try reader.get("BAR's size")
    region = try reader.get("BAR's region")
    memory = try reader.get("BAR's memory")
    guard index <= 6, (index == 6) == (kind == .rom) else {
      throw ProtocolError("BAR \(index) cannot be of kind \(kind)")
    }
    guard byteCount.nonzeroBitCount == 1, byteCount >= (kind == .ports ? 4 : 16) else {
      throw ProtocolError("BAR's size \(byteCount) is not a power of two, or too small")
    }
  }
}

/// A PCI function that the device stands behind.
///
/// The core keeps the standard header (offsets 00h to 3Fh) itself; accesses to 40h to FFh
/// come to the device as accesses to `region`.
public struct FunctionClaim: Equatable, WireCodable {
  /// Device number times 8 plus function number, on bus 0.
  public var devfn: UInt8
  /// The region of its configuration space from 40h; the offset counts from 00h.
  public var region: UInt16
  public var vendor: UInt16
  public var device: UInt16
  /// Base class, sub-class and programming interface in bits 23 to 0.
  public var classCode: UInt32
  public var revision: UInt8
  public var subsystemVendor: UInt16
  public var subsystem: UInt16
  /// 0 for none, 1 to 4 for INTA to INTD.
  public var interruptPin: UInt8
  /// Whether the header says that the device has several functions.
  public var isMultiFunction: Bool
  public var bars: [BARClaim]

  public init(
    devfn: UInt8, region: UInt16, vendor: UInt16, device: UInt16, classCode: UInt32,
    revision: UInt8, subsystemVendor: UInt16 = 0, subsystem: UInt16 = 0, interruptPin: UInt8 = 0,
    isMultiFunction: Bool = false, bars: [BARClaim] = []
  ) {
    self.devfn = devfn
    self.region = region
    self.vendor = vendor
    self.device = device
    self.classCode = classCode
    self.revision = revision
    self.subsystemVendor = subsystemVendor
    self.subsystem = subsystem
    self.interruptPin = interruptPin
    self.isMultiFunction = isMultiFunction
    self.bars = bars
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(devfn)
    writer.put(region)
    writer.put(vendor)
    writer.put(device)
    writer.put(classCode)
    writer.put(revision)
    writer.put(subsystemVendor)
    writer.put(subsystem)
    writer.put(interruptPin)
    writer.put(isMultiFunction)
    writer.put(bars)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    devfn = try reader.get("function's devfn")
    region = try reader.get("function's region")
    vendor = try reader.get("function's vendor")
    device = try reader.get("function's device")
    classCode = try reader.get("function's class code")
    revision = try reader.get("function's revision")
    subsystemVendor = try reader.get("function's subsystem vendor")
    subsystem = try reader.get("function's subsystem")
    interruptPin = try reader.get("function's interrupt pin")
    isMultiFunction = try reader.getBool("function's multi-function flag")
    bars = try reader.getArray("function's BARs", most: 7)
    guard interruptPin <= 4 else { throw ProtocolError("interrupt pin \(interruptPin)") }
    guard classCode <= 0xFF_FFFF else { throw ProtocolError("class code \(classCode)") }
    guard Set(bars.map(\.index)).count == bars.count else {
      throw ProtocolError("a BAR is claimed twice")
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

/// Everything that a device asks for, in one message.
public struct Claims: Equatable, WireCodable {
  public static let mostRegions = 64
  public static let mostRegisters = 256
  public static let mostWindows = 8

  public var ports: [PortClaim]
  public var memories: [MemoryClaim]
  public var functions: [FunctionClaim]
  public var registers: [RegisterClaim]
  public var lines: [LineClaim]
  public var backings: [BackingClaim]
  public var descriptors: [DescriptorClaim]
  /// The size of the bounce buffer for mediated DMA, in bytes; 0 for none.
  public var bounceByteCount: UInt32

  public init(
    ports: [PortClaim] = [], memories: [MemoryClaim] = [], functions: [FunctionClaim] = [],
    registers: [RegisterClaim] = [], lines: [LineClaim] = [], backings: [BackingClaim] = [],
    descriptors: [DescriptorClaim] = [], bounceByteCount: UInt32 = 0
  ) {
    self.ports = ports
    self.memories = memories
    self.functions = functions
    self.registers = registers
    self.lines = lines
    self.backings = backings
    self.descriptors = descriptors
    self.bounceByteCount = bounceByteCount
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(ports)
    writer.put(memories)
    writer.put(functions)
    writer.put(registers)
    writer.put(lines)
    writer.put(backings)
    writer.put(descriptors)
    writer.put(bounceByteCount)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    ports = try reader.getArray("port claims", most: Self.mostRegions)
    memories = try reader.getArray("memory claims", most: Self.mostRegions)
    functions = try reader.getArray("function claims", most: 8)
    registers = try reader.getArray("register claims", most: Self.mostRegisters)
    lines = try reader.getArray("line claims", most: 24)
    backings = try reader.getArray("backing claims", most: 4)
    descriptors = try reader.getArray("descriptor claims", most: Self.mostWindows)
    bounceByteCount = try reader.get("bounce buffer's size")
    guard bounceByteCount % 4096 == 0, bounceByteCount <= 16 << 20 else {
      throw ProtocolError("bounce buffer of \(bounceByteCount) bytes")
    }
    try checkRegions()
  }

  /// Checks that each region is claimed once and each reference is to a claimed one.
  private func checkRegions() throws(ProtocolError) {
    let bars = functions.flatMap(\.bars)
    let regions =
      ports.map(\.region) + memories.map(\.region) + functions.map(\.region) + bars.map(\.region)
    guard regions.allSatisfy({ $0 < UInt16(Self.mostRegions) }) else {
      throw ProtocolError("a region's number is above \(Self.mostRegions - 1)")
    }
    let known = Set(regions)
    guard known.count == regions.count else { throw ProtocolError("a region is claimed twice") }
    guard registers.allSatisfy({ known.contains($0.region) }),
      descriptors.allSatisfy({ known.contains($0.region) })
    else { throw ProtocolError("a register or descriptor names a region that is not claimed") }
    let memories = Set(backings.map(\.memory))
    guard memories.count == backings.count else {
      throw ProtocolError("a backing memory is claimed twice")
    }
    guard bars.allSatisfy({ $0.memory == BARClaim.noMemory || memories.contains($0.memory) }) else {
      throw ProtocolError("a BAR names a memory that is not claimed")
    }
    guard Set(descriptors.map(\.window)).count == descriptors.count else {
      throw ProtocolError("a window is claimed twice")
    }
    let devfns = Set(functions.map(\.devfn))
    guard devfns.count == functions.count else {
      throw ProtocolError("a function is claimed twice")
    }
    guard descriptors.allSatisfy({ $0.kind == .fwCfg || devfns.contains($0.devfn) }) else {
      throw ProtocolError("a PRD table's function is not claimed")
    }
    guard Set(lines.map(\.interrupt)).count == lines.count else {
      throw ProtocolError("a line is claimed twice")
    }
  }
}
