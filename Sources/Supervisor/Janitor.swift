// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

/// A process that clears away what a launcher that is killed cannot.
///
/// It is told of each thing before or as the launcher changes the host, holds the other end of a
/// socket that only the launcher has, and acts when that closes. A launcher that ends in order
/// clears up itself and then dismisses it.
public final class Janitor {
  /// The only argument of the launcher's executable when it is to be the janitor.
  public static let argument = "--janitor"

  /// What the launcher tells it: the kind in the first byte, the rest as said, one descriptor.
  enum Message: UInt8 {
    /// A socket is about to be made at the path that follows.
    case expectSocket = 1
    /// The socket at the path that follows is the file of the descriptor.
    case socket = 2
    /// The descriptor's terminal is about to be raw; its record follows.
    case terminal = 3
  }

  private var socket: PacketSocket?
  private var process: ChildProcess?

  public init() {}

  /// Starts the process, and does not wait until it runs.
  func start() throws(LaunchError) {
    do throws(SystemError) {
      let (own, other) = try PacketSocket.pair()
      let null = try Files.open("/dev/null", .readWrite)
      let prepared = try Spawn.prepare(
        executable: "/proc/self/exe", arguments: ["vmlaunch", Self.argument],
        // The crash handler of Swift would start a helper process.
        environment: ["SWIFT_BACKTRACE=enable=no"],
        descriptors: [(null, 0), (null, 1), (null, 2), (other.descriptor, 3)],
        namespaces: [], identity: .own, outlivesParent: true)
      process = try prepared.detach()
      socket = own
    } catch {
      throw LaunchError("cannot start the janitor: \(error)")
    }
  }

  /// Readable once the process has ended.
  var descriptor: Descriptor? { process?.descriptor }

  /// Takes the status of the process if it has ended by itself.
  func takeStatus() -> ChildProcess.Status? {
    guard let status = try? process?.status() else { return nil }
    process = nil
    socket = nil
    return status
  }

  /// Ends the process; nothing is left for it to do.
  public func dismiss() {
    try? process?.kill()
    _ = try? process?.wait(timeout: 1_000_000_000)
    process = nil
    socket = nil
  }

  // MARK: What it is told

  /// Says that a socket is about to be made at a path where nothing is.
  func expect(socketAt path: String) throws(SystemError) {
    try send(.expectSocket, Array(path.utf8))
  }

  /// Says that the socket has been made, and which file it is.
  func keep(socketAt path: String, _ file: Descriptor) throws(SystemError) {
    try send(.socket, Array(path.utf8), file)
  }

  /// Says that a terminal is about to be made raw.
  func keep(_ terminal: RawTerminal) {
    // If it is gone, that is said when the launcher waits for events.
    try? send(.terminal, terminal.record, terminal.descriptor)
  }

  private func send(
    _ message: Message, _ bytes: [UInt8], _ descriptor: Descriptor? = nil
  ) throws(SystemError) {
    try socket?.send([message.rawValue] + bytes, descriptor.map { [$0] } ?? [], wait: false)
  }
}
