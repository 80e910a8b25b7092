// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import MachineFile

/// The launcher's own terminal or pipes, where the monitor has them.
///
/// A serial port that shares them is connected with the monitor by a pair of sockets, which the
/// launcher keeps: a new process at either end goes on where the one before it ended.
struct MonitorStream: Sendable {
  var kind: MonitorSettings.Stream
  /// Input, output, and the monitor's end of the serial port's pair.
  var descriptors: [Descriptor]
}

extension ParsedMachine {
  /// Opens the stream of a monitor on stdio, and connects the serial port that shares it.
  func openStream(_ serial: inout [OpenedBackend]) throws(MachineFileError) -> MonitorStream? {
    let monitor = machine.monitor
    guard monitor.usesStream else { return nil }
    let key = monitor.qmp == .stdio ? "monitor.qmp" : "monitor.hmp"
    do throws(SystemError) {
      var stream = MonitorStream(
        kind: monitor.qmp == .stdio ? .qmp : .human,
        descriptors: [try Files.standardStream(0), try Files.standardStream(1)])
      guard stream.kind == .human, let port = machine.serial.firstIndex(of: .stdio) else {
        return stream
      }
      let (ours, theirs) = try StreamListener.pair()
      let pipe = try Descriptor.pipe()
      serial[port].port = SerialSettings.Port(backend: .duplex)
      serial[port].output = theirs
      serial[port].descriptors = [theirs, pipe.reading, pipe.writing]
      stream.kind = .humanAndSerial
      stream.descriptors.append(ours)
      return stream
    } catch {
      throw self.error(key, "\(error)", remedy: "accepted: stdio that can be opened")
    }
  }
}
