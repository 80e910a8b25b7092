// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol

/// An access to a port (``ControlRequest/port``), as a vCPU would do it.
public struct PortRequest: Equatable, WireCodable, Sendable {
  public var port: UInt16
  /// Bytes: 1, 2 or 4.
  public var width: UInt8
  public var isWrite: Bool
  /// What is written; 0 for a read.
  public var value: UInt32

  public init(port: UInt16, width: UInt8, isWrite: Bool = false, value: UInt32 = 0) {
    self.port = port
    self.width = width
    self.isWrite = isWrite
    self.value = value
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(port)
    writer.put(width)
    writer.put(isWrite)
    writer.put(value)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    port = try reader.get("port")
    width = try reader.get("width")
    isWrite = try reader.getBool("direction")
    value = try reader.get("value")
    guard [1, 2, 4].contains(width) else { throw ProtocolError("an access of \(width) bytes") }
  }
}

/// The reply to ``ControlRequest/port``.
public struct PortReply: Equatable, WireCodable, Sendable {
  /// What was read; 0 for a write.
  public var value: UInt32

  public init(value: UInt32) { self.value = value }

  public func encode(to writer: inout WireWriter) { writer.put(value) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    value = try reader.get("value")
  }
}

/// The reply to ``ControlRequest/interruptChips``.
public struct InterruptChipsReply: Equatable, WireCodable, Sendable {
  /// One 8259A.
  public struct Controller: Equatable, WireCodable, Sendable {
    public var requests: UInt8 = 0
    public var mask: UInt8 = 0
    public var inService: UInt8 = 0
    /// The input with the highest priority.
    public var first: UInt8 = 0
    public var vectorBase: UInt8 = 0
    /// Whether a read gives the in-service register.
    public var readsInService = false
    /// The inputs that are level-triggered (ELCR).
    public var levels: UInt8 = 0
    public var isFullyNested = false

    public init() {}

    public func encode(to writer: inout WireWriter) {
      for value in [requests, mask, inService, first, vectorBase] { writer.put(value) }
      writer.put(readsInService)
      writer.put(levels)
      writer.put(isFullyNested)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      requests = try reader.get("requests")
      mask = try reader.get("mask")
      inService = try reader.get("in service")
      first = try reader.get("priority")
      vectorBase = try reader.get("vector base")
      readsInService = try reader.getBool("read selection")
      levels = try reader.get("levels")
      isFullyNested = try reader.getBool("nesting")
    }
  }

  /// The first and the second.
  public var controllers: [Controller]
  /// The I/O APIC's id, selected register, raised inputs, and redirection table.
  public var ioAPICID: UInt8
  public var selected: UInt8
  public var lines: UInt32
  public var redirections: [UInt64]
  /// How often each input of the I/O APIC was raised; empty where nobody counts.
  public var counts: [UInt64]

  public init(
    controllers: [Controller], ioAPICID: UInt8, selected: UInt8, lines: UInt32,
    redirections: [UInt64], counts: [UInt64] = []
  ) {
    self.controllers = controllers
    self.ioAPICID = ioAPICID
    self.selected = selected
    self.lines = lines
    self.redirections = redirections
    self.counts = counts
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(controllers)
    writer.put(ioAPICID)
    writer.put(selected)
    writer.put(lines)
    for table in [redirections, counts] {
      writer.put(UInt32(table.count))
      for value in table { writer.put(value) }
    }
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    controllers = try reader.getArray("controllers", most: 2)
    ioAPICID = try reader.get("id")
    selected = try reader.get("selected register")
    lines = try reader.get("lines")
    var tables: [[UInt64]] = []
    for _ in 0..<2 {
      let count = try reader.get(UInt32.self, "count")
      guard count <= 24 else { throw ProtocolError("\(count) inputs") }
      var table: [UInt64] = []
      for _ in 0..<count { table.append(try reader.get("input")) }
      tables.append(table)
    }
    redirections = tables[0]
    counts = tables[1]
    guard controllers.count == 2 else { throw ProtocolError("\(controllers.count) controllers") }
  }
}
