// SPDX-License-Identifier: Apache-2.0

internal import DeviceHost
internal import DeviceProtocol
internal import LinuxSystem
internal import Operator
internal import Sandbox

/// The monitor as a process of its own: it alone parses what operators' clients send.
@main
struct Main {
  static func main() {
    let setup = DeviceProcess.setUp()
    do {
      let settings = try MonitorSettings(wireBytes: setup.settings)
      var sockets = setup.descriptors[...]
      func next(_ isThere: Bool) throws(ProtocolError) -> StreamListener? {
        guard isThere else { return nil }
        guard let socket = sockets.popFirst() else { throw ProtocolError("a socket is missing") }
        return StreamListener(socket)
      }
      let qmp = try next(settings.hasQMP)
      let human = try next(settings.hasHMP)
      let gdb = try next(settings.hasGDB)
      let metrics = try next(settings.hasMetrics)
      let stream = Array(sockets)
      let isStreamWhole =
        stream.count
        == (settings.stream == .none ? 0 : settings.stream == .humanAndSerial ? 3 : 2)
      guard isStreamWhole else { throw ProtocolError("\(stream.count) descriptors of a stream") }
      // A file is always ready.
      for descriptor in stream where !descriptor.isRegularFile {
        try descriptor.setNonBlocking(true)
      }
      guard let schema = QMPSchema.own else { throw ProtocolError("the schema cannot be read") }
      Lockdown.enter(.monitor, settings.common, launcher: setup.launcher) {}
      let link = MachineLink(settings, core: setup.core, launcher: setup.launcher)
      Server(link, schema, qmp: qmp, human: human, gdb: gdb, metrics: metrics, stream: stream)
        .run()
    } catch {
      DeviceProcess.end("\(error)")
    }
  }
}
