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

  /// Opens a back end; a file is emptied, as QEMU does it.
  public init(_ backend: Machine.Backend) throws(SystemError) {
    switch backend {
    case .null, .unix:  // A socket is refused when the machine file is read.
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
    if port.backend == .streams || port.backend == .duplex {
      let pipe = try Descriptor.pipe()
      descriptors += [pipe.reading, pipe.writing]
    }
  }
}
