// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
public import LinuxSystem
public import MachineFile

/// The opened host's end of a character device.
public struct OpenedBackend: Sendable {
  public var port: SerialSettings.Port
  /// What vmdev-serial is handed for it: input and output as far as there are any, and for a
  /// stream the pipe that its output passes through.
  public var descriptors: [Descriptor]
  /// The output alone, for a device that only writes.
  public var output: Descriptor
  /// A new pseudo-terminal, kept open as long as the machine runs.
  public var terminal: PseudoTerminal?
  /// The peers of a socket.
  public var peers: SerialPeers?

  /// Opens a back end; a file is emptied, as QEMU does it.
  public init(_ backend: Machine.Backend) throws(SystemError) {
    switch backend {
    case .unix, .connect:
      port = SerialSettings.Port(backend: .socket)
      descriptors = []
      output = try Files.open("/dev/null", .writeOnly)
    case .null:
      port = SerialSettings.Port(backend: .null)
      descriptors = []
      output = try Files.open("/dev/null", .writeOnly)
    case .stdio:
      port = SerialSettings.Port(backend: .streams)
      output = try Files.standardStream(1)
      descriptors = [try Files.standardStream(0), output]
    case .pty:
      let pair = try PseudoTerminal()
      port = SerialSettings.Port(backend: .duplex)
      output = pair.controller
      descriptors = [pair.controller]
      terminal = pair
    case .file(let path):
      output = try Files.open(
        path, [.writeOnly, .create, .truncate, .noTerminal], permissions: 0o644)
      if output.isRegularFile {
        port = SerialSettings.Port(backend: .file, start: 0)
        descriptors = [output]
      } else {
        // A device or a pipe has no offsets to write at.
        port = SerialSettings.Port(backend: .streams)
        descriptors = [try Files.open("/dev/null", .readOnly), output]
      }
    }
    switch port.backend {
    case .streams, .duplex, .socket:
      let pipe = try Descriptor.pipe()
      descriptors += [pipe.reading, pipe.writing]
    case .null, .file: break
    }
  }

  /// What vmdev-serial is told of the port, with the descriptors for it: also of a socket's peer.
  var forDevice: (port: SerialSettings.Port, descriptors: [Descriptor]) {
    guard let peer = peers?.peer else { return (port, descriptors) }
    var port = port
    port.isConnected = true
    return (port, descriptors + [peer])
  }
}
