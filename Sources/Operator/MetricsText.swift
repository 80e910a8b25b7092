// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
public import Monitor

/// What was counted, in Prometheus' text format (version 0.0.4).
public struct MetricsText {
  /// The content type of the format.
  public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

  private var lines: [String] = []

  /// The text for a machine; `drives` and `ports` are those that it has.
  public static func text(
    _ metrics: MetricsReply, _ processes: ProcessesReply?, _ counts: MonitorCounts,
    drives: [Int], ports: Int
  ) -> String {
    var text = MetricsText()
    text.machine(metrics, processes)
    text.monitor(counts)
    text.devices(metrics)
    text.drives(metrics, drives)
    text.ports(metrics, ports)
    return text.lines.joined(separator: "\n") + "\n"
  }

  // MARK: - The families

  private mutating func machine(_ metrics: MetricsReply, _ processes: ProcessesReply?) {
    family("machine_running", "gauge", "Whether the vCPUs of this machine run.")
    sample("machine_running", [("machine", metrics.machine)], metrics.isRunning ? "1" : "0")
    family("virtual_clock_seconds", "gauge", "The machine's virtual time.")
    sample("virtual_clock_seconds", [], Self.seconds(metrics.clock))
    family("events_lost_total", "counter", "Events that a subscriber did not take in time.")
    sample("events_lost_total", [], "\(metrics.lostEvents)")
    guard let processes else { return }
    family("log_lines_lost_total", "counter", "Lines that the log did not take in time.")
    sample("log_lines_lost_total", [], "\(processes.lostLines)")
    family("process_cpu_seconds_total", "counter", "Processor time of a process.")
    for process in processes.processes {
      sample(
        "process_cpu_seconds_total", [("process", process.name)],
        Self.seconds(process.processorTime))
    }
    family("process_resident_memory_bytes", "gauge", "Memory of a process that is in RAM.")
    for process in processes.processes {
      sample(
        "process_resident_memory_bytes", [("process", process.name)], "\(process.residentBytes)")
    }
  }

  private mutating func monitor(_ counts: MonitorCounts) {
    family("monitor_events_total", "counter", "Events of the machine, by QMP's names.")
    for name in QMPSession.eventNames {
      sample("monitor_events_total", [("event", name)], "\(counts.events[name] ?? 0)")
    }
    for (name, help, value) in [
      (
        "monitor_events_lost_total", "Events that a monitor's client did not take.",
        counts.lostEvents
      ),
      (
        "monitor_replies_dropped_total", "Replies that a monitor's client did not take.",
        counts.lostReplies
      ),
      (
        "monitor_clients_evicted_total", "Clients of the monitor that had to go for another.",
        counts.evictedClients
      ),
      (
        "monitor_clients_refused_total", "Clients of the monitor that were not let in.",
        counts.refusedClients
      ),
    ] {
      family(name, "counter", help)
      sample(name, [], "\(value)")
    }
  }

  private mutating func devices(_ metrics: MetricsReply) {
    family("device_up", "gauge", "Whether a device's process serves the guest.")
    for device in metrics.devices {
      sample("device_up", [("device", device.role)], device.isUp ? "1" : "0")
    }
    family("device_restarts_total", "counter", "How often a device's process was started anew.")
    for device in metrics.devices {
      sample("device_restarts_total", [("device", device.role)], "\(device.restarts)")
    }
    family("device_accesses_total", "counter", "Register accesses by how they were done.")
    for device in metrics.devices {
      for (kind, count) in [
        ("live", device.live), ("posted", device.posted), ("mirrored", device.mirrored),
      ] {
        sample("device_accesses_total", [("device", device.role), ("kind", kind)], "\(count)")
      }
    }
    let name = "device_access_duration_seconds"
    family(name, "histogram", "How long live register accesses took, as the vCPU sees it.")
    for device in metrics.devices {
      for (operation, histogram) in zip(MetricsReply.Device.operations, device.latencies) {
        self.histogram(name, [("device", device.role), ("operation", operation)], histogram)
      }
    }
  }

  /// One bound to each doubling; half as many as are counted.
  private mutating func histogram(
    _ name: String, _ labels: [(String, String)], _ histogram: LatencyHistogram
  ) {
    var sum: UInt64 = 0
    for (index, count) in histogram.counts.enumerated() {
      sum &+= count
      guard index % 2 == 0, let bound = LatencyBuckets.bound(index) else { continue }
      sample("\(name)_bucket", labels + [("le", Self.seconds(bound))], "\(sum)")
    }
    sample("\(name)_bucket", labels + [("le", "+Inf")], "\(sum)")
    sample("\(name)_sum", labels, Self.seconds(histogram.sum))
    sample("\(name)_count", labels, "\(sum)")
  }

  private static let driveFamilies: [(DeviceCounter.Drive, String, String)] = [
    (.reads, "drive_reads_total", "Requests that read from a drive's image."),
    (.readBytes, "drive_read_bytes_total", "Bytes read from a drive's image."),
    (.writes, "drive_writes_total", "Requests that wrote to a drive's image."),
    (.writtenBytes, "drive_written_bytes_total", "Bytes written to a drive's image."),
    (.flushes, "drive_flushes_total", "Flushes of a drive's write cache."),
    (.trims, "drive_trims_total", "Requests that gave up parts of a drive's image."),
    (.errors, "drive_errors_total", "Requests that the host has failed."),
    (.readTime, "drive_read_seconds_total", "Time that reads took."),
    (.writeTime, "drive_write_seconds_total", "Time that writes took."),
    (.flushTime, "drive_flush_seconds_total", "Time that flushes took."),
  ]

  private mutating func drives(_ metrics: MetricsReply, _ drives: [Int]) {
    for (counter, name, help) in Self.driveFamilies where !drives.isEmpty {
      family(name, "counter", help)
      for slot in drives where slot < metrics.drives.count {
        let value = metrics.drives[slot][counter]
        let isTime = counter.rawValue >= DeviceCounter.Drive.readTime.rawValue
        sample(
          name, [("drive", "ide\(slot / 2).\(slot % 2)")],
          isTime ? Self.seconds(value) : "\(value)")
      }
    }
  }

  private mutating func ports(_ metrics: MetricsReply, _ ports: Int) {
    let families: [(DeviceCounter.Port, String, String)] = [
      (.receivedBytes, "serial_received_bytes_total", "Bytes that a serial port gave the guest."),
      (.sentBytes, "serial_sent_bytes_total", "Bytes that the guest sent to a serial port."),
    ]
    for (counter, name, help) in families where ports > 0 {
      family(name, "counter", help)
      for port in 0..<min(ports, metrics.ports.count) {
        sample(name, [("port", "com\(port + 1)")], "\(metrics.ports[port][counter])")
      }
    }
  }

  // MARK: - The format

  private mutating func family(_ name: String, _ type: String, _ help: String) {
    lines.append("# HELP bulkhead_\(name) \(help)")
    lines.append("# TYPE bulkhead_\(name) \(type)")
  }

  private mutating func sample(_ name: String, _ labels: [(String, String)], _ value: String) {
    let text = labels.map { "\($0.0)=\"\(Self.escaped($0.1))\"" }.joined(separator: ",")
    lines.append("bulkhead_\(name)\(text.isEmpty ? "" : "{\(text)}") \(value)")
  }

  /// A label's value: backslash, quotation mark and line feed are escaped.
  static func escaped(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\\": result += "\\\\"
      case "\"": result += "\\\""
      case "\n": result += "\\n"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  /// Nanoseconds as seconds, exactly.
  static func seconds(_ nanoseconds: UInt64) -> String {
    let whole = nanoseconds / 1_000_000_000
    var fraction = String(String(1_000_000_000 + nanoseconds % 1_000_000_000).dropFirst())
    while fraction.last == "0" { fraction.removeLast() }
    return fraction.isEmpty ? "\(whole)" : "\(whole).\(fraction)"
  }
}
