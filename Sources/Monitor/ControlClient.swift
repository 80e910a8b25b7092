// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
public import LinuxSystem

/// An operator's connection to one machine.
public struct ControlClient: Sendable {
  /// What went wrong, in words for the operator.
  public struct Failure: Error, Equatable, Sendable, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
  }

  /// How long a reply may take, in nanoseconds.
  public static let patience: UInt64 = 10_000_000_000

  private let channel: Channel
  private let title: String

  /// Connects to a machine, given its name or its socket's path.
  public init(machine: String) throws(Failure) {
    let path = Self.path(machine)
    title = VisibleText.escape(machine)
    do throws(SystemError) {
      channel = Channel(try PacketSocket.connect(path))
    } catch {
      throw Failure(
        error.isMissing || error.isRefusedConnection
          ? "no machine \"\(title)\" is running (\(path)); vmctl list shows those that are"
          : "\(error)")
    }
  }

  /// The path of a machine's socket: a name is one in the runtime folder.
  public static func path(_ machine: String) -> String {
    machine.contains("/") ? machine : "\(RuntimeFolder.path)/\(machine).sock"
  }

  /// Asks for something and waits for the reply, at most `patience` nanoseconds.
  public func ask<Q: WireCodable, A: WireCodable>(
    _ request: ControlRequest, _ question: Q, _ descriptors: [Descriptor] = [],
    patience: UInt64 = Self.patience, as type: A.Type = A.self
  ) throws(Failure) -> A {
    do throws(ChannelError) {
      try channel.send(
        request.rawValue, sequence: 1, payload: question.wireBytes, descriptors, wait: false)
      let packet = try channel.receive(timeout: patience)
      return try Self.read(packet, request)
    } catch {
      switch error {
      case .closed: throw Failure("machine \"\(title)\" has ended")
      case .timedOut:
        throw Failure(
          "machine \"\(title)\" did not answer within \(patience / 1_000_000_000) seconds")
      case .refused(let refusal): throw Failure(VisibleText.escape("\(refusal)"))
      case .broken(let reason):
        throw Failure("a malformed reply: \(VisibleText.escape("\(reason)"))")
      case .system(let error): throw Failure("\(error)")
      }
    }
  }

  private static func read<A: WireCodable>(
    _ packet: Packet, _ request: ControlRequest
  ) throws(ChannelError) -> A {
    do throws(ProtocolError) {
      guard packet.header.request == request.rawValue, packet.header.flags.contains(.reply) else {
        throw ProtocolError("it is not to the request")
      }
      guard packet.header.flags.contains(.refusal) else { return try packet.decode() }
    } catch {
      throw .broken(error)
    }
    let refusal: Refusal
    do throws(ProtocolError) {
      refusal = try packet.decode()
    } catch {
      throw .broken(error)
    }
    throw .refused(refusal)
  }

  /// Asks for something that has no answer but yes or no.
  public func order(_ request: ControlRequest) throws(ControlClient.Failure) {
    let _: Empty = try ask(request, Empty())
  }
}
