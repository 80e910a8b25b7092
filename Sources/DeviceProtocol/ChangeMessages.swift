// SPDX-License-Identifier: Apache-2.0

/// ``Request/resize``: a disk of another size.
public struct ResizeRequest: Equatable, WireCodable {
  /// 0 to 3: ide0.0, ide0.1, ide1.0, ide1.1.
  public var slot: UInt8
  /// The new size in bytes.
  public var byteCount: UInt64

  public init(slot: UInt8, byteCount: UInt64) {
    self.slot = slot
    self.byteCount = byteCount
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(slot)
    writer.put(byteCount)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    slot = try reader.get("slot")
    byteCount = try reader.get("size")
    guard slot < 4 else { throw ProtocolError("there is no drive slot \(slot)") }
    guard byteCount <= 1 << 62 else { throw ProtocolError("a disk of \(byteCount) bytes") }
  }
}

/// ``Request/sendBreak``: a serial port's peer holds the line low for longer than a character.
public struct BreakRequest: Equatable, WireCodable {
  /// The serial port: 0 for COM1.
  public var port: UInt8

  public init(port: UInt8) { self.port = port }

  public func encode(to writer: inout WireWriter) { writer.put(port) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    port = try reader.get("port")
    guard port < 4 else { throw ProtocolError("there is no serial port \(port)") }
  }
}

/// ``LaunchRequest/debuggerSocket``: whether a debugger can connect, and where.
public struct DebuggerSocketRequest: Equatable, WireCodable {
  public var isWanted: Bool
  /// The socket's path as the operator gave it; empty for the usual one.
  public var path: String

  public init(isWanted: Bool, path: String) {
    self.isWanted = isWanted
    self.path = path
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(isWanted)
    writer.put(path)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    isWanted = try reader.getBool("wish")
    path = try reader.getString("path", most: 4000)
  }
}

/// The reply to ``LaunchRequest/debuggerSocket``: where the socket is; empty when there is none.
public struct DebuggerSocketReply: Equatable, WireCodable {
  public var path: String

  public init(path: String) { self.path = path }

  public func encode(to writer: inout WireWriter) { writer.put(path) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    path = try reader.getString("path", most: 4000)
  }
}
