// SPDX-License-Identifier: Apache-2.0

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
