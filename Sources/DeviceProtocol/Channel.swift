// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

/// One received message, taken apart as far as its header.
public struct Packet: Sendable {
  public var header: Header
  /// The payload, exactly `header.size` bytes.
  public var payload: [UInt8]
  /// The descriptors that came along.
  public var descriptors: [Descriptor]

  /// Reads the payload as one value.
  ///
  /// - Throws: what is wrong with it, naming the field.
  public func decode<M: WireCodable>(_ type: M.Type = M.self) throws(ProtocolError) -> M {
    try M(wireBytes: payload)
  }
}

/// Why a channel is of no use any more.
public enum ChannelError: Error, Sendable, CustomStringConvertible {
  /// The other end closed the connection.
  case closed
  /// The other end broke the protocol.
  case broken(ProtocolError)
  /// The other end refused a request.
  case refused(Refusal)
  /// The kernel refused a call.
  case system(SystemError)
  /// No answer came in time.
  case timedOut

  public var description: String {
    switch self {
    case .closed: "the other end closed the channel"
    case .broken(let error): "the other end broke the protocol: \(error)"
    case .refused(let refusal): "refused: \(refusal)"
    case .system(let error): "\(error)"
    case .timedOut: "no answer in time"
    }
  }
}

/// A control channel: messages with a header over a packet socket.
public struct Channel: Sendable {
  public let socket: PacketSocket

  public init(_ socket: PacketSocket) { self.socket = socket }

  /// Sends one message.
  public func send(
    _ request: UInt32, flags: Header.Flags = [], sequence: UInt32, payload: [UInt8],
    _ descriptors: [Descriptor] = [], wait: Bool = true
  ) throws(ChannelError) {
    let header = Header(
      request: request, flags: flags, sequence: sequence, size: UInt32(payload.count))
    precondition(payload.count <= Header.longestMessage - Header.byteCount, "message too long")
    do {
      try socket.send(header.wireBytes + payload, descriptors, wait: wait)
    } catch {
      throw error.isDisconnected ? .closed : .system(error)
    }
  }

  /// Sends a request that wants no reply, or whose reply comes through ``receive(wait:)``.
  public func request<M: WireCodable>(
    _ request: Request, sequence: UInt32 = 0, _ message: M, _ descriptors: [Descriptor] = []
  ) throws(ChannelError) {
    try send(
      request.rawValue, sequence: sequence, payload: message.wireBytes, descriptors)
  }

  /// Answers a request.
  public func reply<M: WireCodable>(
    to header: Header, _ message: M, _ descriptors: [Descriptor] = []
  ) throws(ChannelError) {
    try send(
      header.request, flags: .reply, sequence: header.sequence, payload: message.wireBytes,
      descriptors)
  }

  /// Refuses a request.
  public func refuse(_ header: Header, _ reason: String, wait: Bool = true)
    throws(ChannelError)
  {
    try send(
      header.request, flags: [.reply, .refusal], sequence: header.sequence,
      payload: Refusal(reason).wireBytes, wait: wait)
  }

  /// Receives one message; with `wait` false, `nil` when there is none.
  public func receive(wait: Bool = true) throws(ChannelError) -> Packet? {
    let message: PacketSocket.Message
    do {
      message = try socket.receive(Header.longestMessage, wait: wait)
    } catch {
      if error.isNotReady { return nil }
      throw error.isDisconnected ? .closed : .system(error)
    }
    guard !message.bytes.isEmpty else { throw .closed }
    do {
      return try Self.parse(message)
    } catch {
      throw .broken(error)
    }
  }

  /// Takes a received message apart.
  static func parse(_ message: PacketSocket.Message) throws(ProtocolError) -> Packet {
    guard !message.isTruncated else { throw ProtocolError("message or descriptors too many") }
    guard message.bytes.count >= Header.byteCount else {
      throw ProtocolError("message of \(message.bytes.count) bytes is shorter than its header")
    }
    let header = try Header(wireBytes: Array(message.bytes.prefix(Header.byteCount)))
    let payload = Array(message.bytes.dropFirst(Header.byteCount))
    guard Int(header.size) == payload.count else {
      throw ProtocolError("header says \(header.size) bytes, message has \(payload.count)")
    }
    return Packet(header: header, payload: payload, descriptors: message.descriptors)
  }

  /// Receives one message, waiting at most `timeout` nanoseconds.
  public func receive(timeout: UInt64) throws(ChannelError) -> Packet {
    var poller = Poller()
    poller.add(socket.descriptor, .readable)
    let end = HostClock.monotonic() + timeout
    while true {
      let now = HostClock.monotonic()
      guard now < end else { throw .timedOut }
      do {
        guard try poller.wait(timeout: end - now) > 0 else { continue }
      } catch {
        throw .system(error)
      }
      if let packet = try receive(wait: false) { return packet }
    }
  }
}

extension Packet {
  /// Checks that this is the reply to `request`, and reads it.
  public func reply<M: WireCodable>(to request: Request, _ type: M.Type = M.self)
    throws(ChannelError) -> M
  {
    guard header.request == request.rawValue, header.flags.contains(.reply) else {
      throw .broken(ProtocolError("expected a reply to \(request), got request \(header.request)"))
    }
    do {
      if header.flags.contains(.refusal) { throw ChannelError.refused(try decode()) }
      return try decode()
    } catch let error as ProtocolError {
      throw .broken(error)
    } catch let error as ChannelError {
      throw error
    } catch {
      throw .closed
    }
  }
}
