// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol

/// Begins or ends the trace of register accesses (``ControlRequest/trace``).
///
/// One client at a time has a trace; it ends with the client.
public struct TraceRequest: Equatable, WireCodable, Sendable {
  /// A range of addresses, both ends in it.
  public struct Range: Equatable, Sendable {
    public var space: TraceReply.Space
    public var first: UInt64
    public var last: UInt64

    public init(space: TraceReply.Space, first: UInt64, last: UInt64) {
      self.space = space
      self.first = first
      self.last = last
    }
  }

  public var isOn: Bool
  /// Only this device's, such as `ide`; empty for all.
  public var role: String
  /// Only these kinds.
  public var kinds: [TraceReply.Kind]
  /// Only registers in this range of ports or memory; `nil` for all.
  public var range: Range?

  public init(
    isOn: Bool, role: String = "", kinds: [TraceReply.Kind] = TraceReply.Kind.allCases,
    range: Range? = nil
  ) {
    self.isOn = isOn
    self.role = role
    self.kinds = kinds
    self.range = range
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(isOn)
    writer.put(role)
    writer.put(kinds.reduce(UInt8(0)) { $0 | 1 << $1.rawValue })
    writer.put(range != nil)
    writer.put(range?.space.rawValue ?? 0)
    writer.put(range?.first ?? 0)
    writer.put(range?.last ?? 0)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    isOn = try reader.getBool("state")
    role = try reader.getString("role", most: 31)
    let mask: UInt8 = try reader.get("kinds")
    guard mask < 8 else { throw ProtocolError("kinds \(mask)") }
    kinds = TraceReply.Kind.allCases.filter { mask >> $0.rawValue & 1 != 0 }
    let isRange = try reader.getBool("range flag")
    let space: TraceReply.Space = try reader.getCase("space")
    let first: UInt64 = try reader.get("first address")
    let last: UInt64 = try reader.get("last address")
    guard first <= last, !isRange || space != .function else {
      throw ProtocolError("a range that is none")
    }
    range = isRange ? Range(space: space, first: first, last: last) : nil
  }
}

/// The reply to ``ControlRequest/traceRecords``: the oldest accesses that were not fetched yet.
public struct TraceReply: Equatable, WireCodable, Sendable {
  /// How an access was done.
  public enum Kind: UInt8, CaseIterable, Sendable {
    case live = 0
    case posted = 1
    case mirrored = 2
  }

  /// What an address counts.
  public enum Space: UInt8, Sendable {
    case memory = 0
    case ports = 1
    /// A PCI function's configuration space.
    case function = 2
  }

  /// One access.
  public struct Record: Equatable, WireCodable, Sendable {
    /// The virtual time in nanoseconds, when it was done.
    public var time: UInt64
    /// The vCPU, or ``noCPU`` where it is not known.
    public var cpu: UInt16
    /// The device's place in the reply's roles.
    public var device: UInt8
    public var kind: Kind
    public var operation: SlotOperation
    public var space: Space
    public var address: UInt64
    /// Bytes of one item.
    public var width: UInt8
    public var items: UInt32
    /// What was read or written; zero for blocks.
    public var value: UInt64
    /// How long the vCPU waited, in nanoseconds; zero for what is not live.
    public var latency: UInt64

    public init(
      time: UInt64, cpu: UInt16, device: UInt8, kind: Kind, operation: SlotOperation,
      space: Space, address: UInt64, width: UInt8, items: UInt32, value: UInt64, latency: UInt64
    ) {
      self.time = time
      self.cpu = cpu
      self.device = device
      self.kind = kind
      self.operation = operation
      self.space = space
      self.address = address
      self.width = width
      self.items = items
      self.value = value
      self.latency = latency
    }

    /// Whether the guest reads.
    public var isRead: Bool { operation == .read || operation == .readBlock }

    public func encode(to writer: inout WireWriter) {
      writer.put(time)
      writer.put(cpu)
      writer.put(device)
      writer.put(kind.rawValue)
      writer.put(operation.rawValue)
      writer.put(space.rawValue)
      writer.put(address)
      writer.put(width)
      writer.put(items)
      writer.put(value)
      writer.put(latency)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      time = try reader.get("time")
      cpu = try reader.get("vCPU")
      device = try reader.get("device")
      kind = try reader.getCase("kind")
      operation = try reader.getCase("operation")
      space = try reader.getCase("space")
      address = try reader.get("address")
      width = try reader.get("width")
      items = try reader.get("items")
      value = try reader.get("value")
      latency = try reader.get("latency")
    }
  }

  /// The most records of one reply.
  public static let most = 300
  public static let noCPU: UInt16 = .max

  /// How many records were lost since the trace began, because nobody fetched them in time.
  public var lost: UInt64
  /// The devices' roles.
  public var roles: [String]
  public var records: [Record]

  public init(lost: UInt64, roles: [String], records: [Record]) {
    self.lost = lost
    self.roles = roles
    self.records = records
  }

  /// The role of a record's device.
  public func role(_ record: Record) -> String {
    Int(record.device) < roles.count ? roles[Int(record.device)] : "?"
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(lost)
    writer.put(roles.map { DeviceRequest(role: $0) })
    writer.put(records)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    lost = try reader.get("lost records")
    let roles: [DeviceRequest] = try reader.getArray("roles", most: 16)
    self.roles = roles.map(\.role)
    records = try reader.getArray("records", most: Self.most)
  }
}

/// The reply to ``ControlRequest/ports``: the back ends of the serial ports, COM1 first.
public struct PortsReply: Equatable, WireCodable, Sendable {
  /// As in the machine file, such as `unix:PATH`; a pseudo-terminal with its path, `pty:PATH`.
  public var ports: [String]

  public init(ports: [String]) { self.ports = ports }

  public func encode(to writer: inout WireWriter) {
    writer.put(ports.map { MonitorSettings.Port(backend: $0) })
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    let ports: [MonitorSettings.Port] = try reader.getArray("ports", most: 4)
    self.ports = ports.map(\.backend)
  }
}
