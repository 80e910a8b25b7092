// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import MachineFile

/// The peers of a serial port's socket: one at a time, whoever connects or is connected to.
///
/// The launcher keeps the connection, so that a new process of vmdev-serial goes on with it.
public struct SerialPeers: Sendable {
  /// Where the machine listens.
  let socket: ControlSocket?
  /// Where it connects to.
  private let address: String
  private(set) var peer: Descriptor?
  /// When to connect again, in nanoseconds of the monotonic clock.
  private(set) var nextTry: UInt64?

  /// How long after a peer went, or was not there, the machine connects again.
  private static let patience: UInt64 = 1_000_000_000

  /// Serves a socket that the machine listens at.
  init(_ socket: ControlSocket) {
    self.socket = socket
    address = socket.path
  }

  /// Connects to a socket of another program, which has to be there when the machine starts.
  init(connectingTo address: String) throws(SystemError) {
    socket = nil
    self.address = address
    peer = try StreamListener.connect(address)
  }

  /// What to wait for: the next peer, or the end of this one.
  func watch(_ poller: inout Poller) -> Int? {
    if let peer { return poller.add(peer, []) }
    guard let socket else { return nil }
    return poller.add(socket.socket.descriptor, .readable)
  }

  /// Deals with what ``watch(_:)`` waited for; returns a peer that has just come.
  mutating func advance() -> Descriptor? {
    if peer != nil {
      peer = nil
      nextTry = socket == nil ? HostClock.monotonic() &+ Self.patience : nil
      return nil
    }
    guard let socket else { return nil }
    peer = try? StreamListener(socket.socket.descriptor).accept()
    return peer
  }

  /// Connects again when it is time to; returns a peer that has just come.
  mutating func connectAgain(_ now: UInt64) -> Descriptor? {
    guard let time = nextTry, now >= time else { return nil }
    peer = try? StreamListener.connect(address)
    nextTry = peer == nil ? now &+ Self.patience : nil
    return peer
  }
}

extension Supervisor {
  /// Waits for the peers of serial ports; the places belong to the ports.
  func watchPeers(_ poller: inout Poller) -> [Int?] {
    resources.serial.map { $0.peers?.watch(&poller) }
  }

  /// Takes peers that have come, and notices those that have gone.
  func takePeers(_ poller: Poller, _ places: [Int?]) {
    for (port, place) in places.enumerated() {
      guard let place, !poller[place].isEmpty else { continue }
      if let peer = resources.serial[port].peers?.advance() { hand(peer, port) }
    }
  }

  /// Connects again to sockets of others.
  func connectAgain(_ now: UInt64) {
    for port in resources.serial.indices {
      if let peer = resources.serial[port].peers?.connectAgain(now) { hand(peer, port) }
    }
  }

  /// Gives vmdev-serial a peer; a process that is started later gets it with its settings.
  private func hand(_ peer: Descriptor, _ port: Int) {
    try? child(.device(.serial))?.channel.send(
      LaunchRequest.connection.rawValue, sequence: 0,
      payload: ConnectionMessage(port: UInt8(port)).wireBytes, [peer], wait: false)
  }
}
