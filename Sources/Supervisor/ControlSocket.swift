// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem
public import MachineFile

/// The listening socket of a machine's control, which vmctl connects to.
public struct ControlSocket: Sendable {
  /// The socket's path.
  public let path: String
  /// The socket.
  public let socket: PacketSocket

  /// Listens at a path; the socket of a machine that is gone is replaced.
  ///
  /// With `isOwnFolder` the folder is Bulkhead's own, to be made and checked.
  ///
  /// - Throws: an error with code 1 that names the machine when it is running already.
  public init(_ path: String, machine: String, isOwnFolder: Bool) throws(LaunchError) {
    self.path = path
    let folder = BackingFiles.folder(of: path)
    do throws(SystemError) {
      if isOwnFolder { try Self.prepare(folder) }
      let guarded = try Files.open(folder, [.readOnly, .folder])
      // Two launchers that start at once must not both find the old socket dead. Another one
      // holds the folder only for an instant.
      var tries = 0
      while true {
        do {
          try FileLock.exclude(guarded)
          break
        } catch {
          tries += 1
          guard error.isNotReady, tries < 100 else { throw error }
          HostClock.sleep(10_000_000)
        }
      }
      switch try Self.state(path) {
      case .free: break
      case .dead: try Files.remove(path)
      case .live: throw SystemError("", Self.liveNumber)
      case .foreign: throw SystemError("", Self.foreignNumber)
      }
      socket = try PacketSocket.listen(path)
    } catch {
      switch error.number {
      case Self.liveNumber: throw Self.running(machine, path)
      case Self.foreignNumber:
        throw LaunchError("the control socket's path \(path) is something else; remove it")
      default: throw LaunchError("no control socket: \(error)")
      }
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
      _ = try PacketSocket.connect(path)
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
