// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem
public import MachineFile

/// A listening socket of a machine: that of its control, which vmctl connects to, or a stream
/// that vmmonitor or a serial port serves.
public struct ControlSocket: Sendable {
  /// The socket's path.
  public let path: String
  /// The socket.
  public let socket: PacketSocket
  /// The file at the path, kept so that no other one gets its number.
  let file: Descriptor

  /// Listens at a path; the socket of a machine that is gone is replaced.
  ///
  /// With `isOwnFolder` the folder is Bulkhead's own, to be made and checked. The janitor, if
  /// there is one, is told before the socket is there.
  ///
  /// - Throws: an error with code 1 that names the machine when it is running already.
  public init(
    _ path: String, machine: String, isOwnFolder: Bool, isStream: Bool = false,
    janitor: Janitor? = nil
  ) throws(LaunchError) {
    self.path = path
    let folder = BackingFiles.folder(of: path)
    do throws(SystemError) {
      if isOwnFolder { try Self.prepare(folder) }
      // Two launchers that start at once must not both find the old socket dead.
      let lock = try Self.lock(folder)
      defer { withExtendedLifetime(lock) {} }
      switch try Self.state(path) {
      case .free: break
      case .dead: try Files.remove(path)
      case .live: throw SystemError("", Self.liveNumber)
      case .foreign: throw SystemError("", Self.foreignNumber)
      }
      try janitor?.expect(socketAt: path)
      // A stream is listened at by another process, and is only a descriptor here.
      socket =
        isStream
        ? PacketSocket(try StreamListener.listen(path).descriptor) : try PacketSocket.listen(path)
      do throws(SystemError) {
        file = try Files.open(path, [.placeOnly, .noLink])
        try janitor?.keep(socketAt: path, file)
      } catch {
        try? Files.remove(path)
        throw error
      }
    } catch {
      switch error.number {
      case Self.liveNumber:
        throw isStream
          ? LaunchError("the socket's path \(path) is in use by another process")
          : Self.running(machine, path)
      case Self.foreignNumber:
        throw LaunchError("the socket's path \(path) is something else; remove it")
      default: throw LaunchError("no socket: \(error)")
      }
    }
  }

  /// Locks a folder of sockets; others hold it only for an instant.
  private static func lock(_ folder: String) throws(SystemError) -> Descriptor {
    let guarded = try Files.open(folder, [.readOnly, .folder])
    var tries = 0
    while true {
      do {
        try FileLock.exclude(guarded)
        return guarded
      } catch {
        tries += 1
        guard error.isNotReady, tries < 100 else { throw error }
        HostClock.sleep(10_000_000)
      }
    }
  }

  // MARK: Removing

  /// Removes the socket, unless something else is at its path by now.
  public func remove() { Self.remove(path, ifStill: file) }

  /// Removes the socket at a path if it still is this file.
  static func remove(_ path: String, ifStill file: Descriptor) {
    // A launcher that replaces the socket holds the lock. Without one the look still helps.
    let lock = try? Self.lock(BackingFiles.folder(of: path))
    defer { withExtendedLifetime(lock) {} }
    guard let present = try? Files.status(path)?.identity, let own = try? file.identity(),
      present == own
    else { return }
    try? Files.remove(path)
  }

  /// Removes the socket at a path if nobody listens there; one of which nothing else is known.
  static func removeDead(_ path: String) {
    // Its owner may be about to go; a machine that lives is left alone after a second.
    for _ in 0..<20 {
      do throws(SystemError) {
        let lock = try Self.lock(BackingFiles.folder(of: path))
        defer { withExtendedLifetime(lock) {} }
        switch try state(path) {
        case .free, .foreign: return
        case .dead: return try Files.remove(path)
        case .live: break
        }
      } catch {
        return
      }
      HostClock.sleep(50_000_000)
    }
  }

  /// What is at a socket's path.
  public enum State: Equatable, Sendable {
    case free
    /// A socket that nobody listens at.
    case dead
    /// A socket with a machine behind it.
    case live
    /// Something that is no socket.
    case foreign
  }

  /// Looks at a path without changing anything; a live machine sees a short connection.
  public static func state(_ path: String) throws(SystemError) -> State {
    guard let status = try Files.status(path) else { return .free }
    guard status.isSocket else { return .foreign }
    do {
      // A machine that is stuck must not hold this one up.
      _ = try PacketSocket.connect(path, wait: false)
      return .live
    } catch {
      return error.isRefusedConnection ? .dead : .live
    }
  }

  /// Checks that no machine is behind the socket that this one would have.
  public static func checkFree(_ machine: Machine) throws(LaunchError) {
    let path = machine.controlPath(inRuntimeFolder: RuntimeFolder.path)
    do throws(SystemError) {
      guard try state(path) == .live else { return }
    } catch {
      throw LaunchError("no control socket: \(error)")
    }
    throw running(machine.name, path)
  }

  static func running(_ machine: String, _ path: String) -> LaunchError {
    LaunchError(
      "machine \"\(machine)\" is running already (control socket \(path)); "
        + "end it with: vmctl stop \(machine)")
  }

  private static let liveNumber: Int32 = -1
  private static let foreignNumber: Int32 = -2

  /// Makes the folder, and refuses one that another user could have laid out.
  private static func prepare(_ folder: String) throws(SystemError) {
    try Files.makeFolder(folder)
    guard let status = try Files.status(folder), status.isFolder,
      status.user == ThisProcess.user, status.mode & 0o077 == 0
    else { throw SystemError("\(folder) is not this user's own folder with mode 0700", 1) }
  }
}
