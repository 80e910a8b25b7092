// SPDX-License-Identifier: Apache-2.0

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
