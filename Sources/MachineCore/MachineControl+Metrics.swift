// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor
internal import Synchronization

/// What was counted, for the operator, and what is logged.
extension MachineControl {
  /// Sets the least that a line has to matter, if there is one in the request; returns it.
  func setLogLevel(_ request: LogLevelRequest) -> LogLevel {
    if let level = request.level {
      logLevel = level
      tell(.logLevel, LogLevelMessage(level: level))
    }
    return logLevel
  }

  func metrics() -> MetricsReply {
    let progress = machine.progress.withLock { $0 }
    func lane(_ role: String) -> CoreLane? { machine.links.first { $0.role == role }?.lane }
    let (ide, serial) = (lane("ide"), lane("serial"))
    return MetricsReply(
      machine: machine.settings.common.machine, isRunning: progress.state == "running",
      clock: machine.clock.now().nanoseconds, lostEvents: lostEvents,
      devices: machine.links.map {
        MetricsReply.Device(
          role: $0.role, isUp: $0.status == .up, restarts: progress.restarts[$0.role] ?? 0,
          live: $0.liveCount.load(ordering: .relaxed),
          posted: $0.postedCount.load(ordering: .relaxed),
          mirrored: $0.mirroredCount.load(ordering: .relaxed),
          latencies: $0.meter.histograms())
      },
      drives: (0..<DeviceCounter.drives).map { slot in
        MetricsReply.Counters(
          values: DeviceCounter.Drive.allCases.map {
            ide?.counter(DeviceCounter.place($0, slot: slot)) ?? 0
          })
      },
      ports: (0..<DeviceCounter.ports).map { port in
        MetricsReply.Counters(
          values: DeviceCounter.Port.allCases.map {
            serial?.counter(DeviceCounter.place($0, port: port)) ?? 0
          })
      })
  }
}
