// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceProtocol
import LinuxSystem
import Monitor

struct Top: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what each process of a machine is doing, again and again.",
    discussion: """
      One line for each process: processor time in percent of one CPU, memory in RAM (RSS), the \
      same with what is shared counted by its share (PSS, where the caller may see it), the \
      guest's register accesses a second by kind, how long live ones took (half of them, and 99 \
      of 100, no longer), how often the process was started anew, and the bytes a second that \
      a device brings the guest and takes from it. q or ctrl-c ends it. Without a terminal a \
      table follows the other.
      """)
  @OptionGroup var machine: MachineName
  @Option(help: "Seconds between two tables, 0.1 to 3600.")
  var interval = 1.0
  @Option(help: "End after this many tables.")
  var count: Int?
  @Flag(help: "One table, and the end.")
  var once = false
  @Flag(help: "Each table as one JSON object on a line.")
  var json = false

  func validate() throws {
    guard (0.1...3600).contains(interval) else {
      throw ValidationError("accepted: --interval 0.1 to 3600")
    }
    if let count, count < 1 { throw ValidationError("accepted: --count 1 and more") }
    if once, count != nil { throw ValidationError("accepted: one of --once and --count") }
  }

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in
      let client = try machine.connect()
      let processes = try MachineProcesses(machine)
      let signals: Descriptor
      let input: Descriptor
      let output: Descriptor
      Signals.block(Signals.ending)
      do throws(SystemError) {
        signals = try Signals.descriptor(Signals.ending)
        input = try Files.standardStream(0)
        output = try Files.standardStream(1)
      } catch {
        throw ControlClient.Failure("\(error)")
      }
      let isLive = !json && !once && RawTerminal.size(of: output) != nil
      // ctrl-c is a signal, as without a raw terminal.
      let terminal = isLive ? RawTerminal(input, interruptKey: 3) : nil
      let isRaw = terminal?.enter() == true
      if isLive { Self.write(output, "\u{1B}[?1049h\u{1B}[?25l") }
      defer {
        if isLive { Self.write(output, "\u{1B}[?25h\u{1B}[?1049l") }
        if isRaw { terminal?.restore() }
      }
      try follow(
        client, processes, keys: isRaw ? input : nil, signals, output, isLive: isLive)
    }
  }

  private func follow(
    _ client: ControlClient, _ processes: MachineProcesses, keys: Descriptor?,
    _ signals: Descriptor, _ output: Descriptor, isLive: Bool
  ) throws(ControlClient.Failure) {
    var before = try Sample(client, processes)
    var left = once ? 1 : count ?? .max
    while left > 0 {
      left -= 1
      guard !Self.hasLeft(keys, signals, for: UInt64(interval * 1e9)) else { return }
      let now: Sample
      do throws(ControlClient.Failure) {
        now = try Sample(client, processes)
      } catch {
        // The machine's end is an end like others.
        guard "\(error)".hasSuffix("has ended") else { throw error }
        return
      }
      let table = TopTable(before, now)
      if json {
        Self.write(output, table.json + "\n")
      } else if isLive {
        let size = RawTerminal.size(of: output) ?? (rows: 24, columns: 80)
        let lines = table.lines.prefix(size.rows).map { $0.prefix(size.columns) + "\u{1B}[K" }
        Self.write(output, "\u{1B}[H" + lines.joined(separator: "\r\n") + "\u{1B}[J")
      } else {
        Self.write(output, table.lines.joined(separator: "\n") + (left > 0 ? "\n\n" : "\n"))
      }
      before = now
    }
  }

  /// Waits; whether the user has ended it meanwhile.
  private static func hasLeft(
    _ keys: Descriptor?, _ signals: Descriptor, for nanoseconds: UInt64
  ) -> Bool {
    let end = HostClock.monotonic() &+ nanoseconds
    var poller = Poller()
    poller.add(signals, .readable)
    if let keys { poller.add(keys, .readable) }
    while true {
      let now = HostClock.monotonic()
      guard now < end else { return false }
      guard (try? poller.wait(timeout: end - now)) != nil else { return true }
      if !poller[0].isEmpty { return true }
      guard let keys, !poller[1].isEmpty else { continue }
      let typed = (try? keys.read(64)) ?? []
      if typed.isEmpty || typed.contains(UInt8(ascii: "q")) { return true }
    }
  }

  private static func write(_ output: Descriptor, _ text: String) {
    try? output.writeAll(Array(text.utf8))
  }
}

/// What was counted at one moment.
struct Sample {
  struct Process {
    var name: String
    var pid: Int32
    var usage: ProcessUsage
    var proportionalBytes: UInt64?
  }

  var time: UInt64
  var metrics: MetricsReply
  var status: StatusReply
  var processes: [Process]

  init(
    time: UInt64, metrics: MetricsReply, status: StatusReply, processes: [Process]
  ) {
    self.time = time
    self.metrics = metrics
    self.status = status
    self.processes = processes
  }

  init(_ client: ControlClient, _ processes: MachineProcesses) throws(ControlClient.Failure) {
    metrics = try client.ask(.metrics, Empty())
    status = try client.ask(.status, Empty())
    self.processes = processes.entries().compactMap { entry in
      guard let usage = try? ProcessUsage(pid: entry.pid) else { return nil }
      return Process(
        name: entry.name, pid: entry.pid, usage: usage,
        proportionalBytes: ProcessUsage.proportionalBytes(pid: entry.pid))
    }
    time = HostClock.monotonic()
  }
}

/// What has happened between two samples.
struct TopTable {
  struct Row {
    var name: String
    var pid: Int32
    /// In percent of one CPU.
    var cpu: Double
    var resident: UInt64
    var proportional: UInt64?
    var device: DeviceRow?
  }

  /// A device's numbers: rates are per second, latencies in nanoseconds.
  struct DeviceRow {
    var live: Double
    var posted: Double
    var mirrored: Double
    var median: UInt64?
    var high: UInt64?
    var restarts: UInt32
    /// Bytes a second to the guest, and from it, where the device moves any.
    var toGuest: Double?
    var fromGuest: Double?
  }

  let status: StatusReply
  let lostEvents: UInt64
  let seconds: Double
  let rows: [Row]

  init(_ before: Sample, _ now: Sample) {
    let seconds = max(Double(now.time &- before.time) / 1e9, 1e-3)
    func rate(_ old: UInt64?, _ new: UInt64) -> Double {
      guard let old, new > old else { return 0 }
      return Double(new - old) / seconds
    }
    status = now.status
    lostEvents = now.metrics.lostEvents
    self.seconds = seconds
    rows = now.processes.map { process in
      let old = before.processes.first { $0.pid == process.pid && $0.name == process.name }
      var row = Row(
        name: process.name, pid: process.pid,
        cpu: rate(old?.usage.processorTime, process.usage.processorTime) / 1e7,
        resident: process.usage.residentBytes, proportional: process.proportionalBytes)
      let role = String(process.name.dropFirst("vmdev-".count))
      guard process.name.hasPrefix("vmdev-"),
        let device = now.metrics.devices.first(where: { $0.role == role })
      else { return row }
      let earlier = before.metrics.devices.first { $0.role == role }
      var latencies = LatencyHistogram()
      for (index, histogram) in device.latencies.enumerated() {
        latencies.add(earlier.map { histogram.since($0.latencies[index]) } ?? histogram)
      }
      var result = DeviceRow(
        live: rate(earlier?.live, device.live), posted: rate(earlier?.posted, device.posted),
        mirrored: rate(earlier?.mirrored, device.mirrored), median: latencies.quantile(0.5),
        high: latencies.quantile(0.99), restarts: device.restarts)
      func sum(_ place: KeyPath<MetricsReply, [MetricsReply.Counters]>, _ counter: Int) -> Double {
        zip(before.metrics[keyPath: place], now.metrics[keyPath: place]).reduce(0) {
          let (old, new) = ($1.0.values, $1.1.values)
          guard counter < old.count, counter < new.count else { return $0 }
          return $0 + rate(old[counter], new[counter])
        }
      }
      switch role {
      case "ide":
        result.toGuest = sum(\.drives, DeviceCounter.Drive.readBytes.rawValue)
        result.fromGuest = sum(\.drives, DeviceCounter.Drive.writtenBytes.rawValue)
      case "serial":
        result.toGuest = sum(\.ports, DeviceCounter.Port.receivedBytes.rawValue)
        result.fromGuest = sum(\.ports, DeviceCounter.Port.sentBytes.rawValue)
      default: break
      }
      row.device = result
      return row
    }
  }

  // MARK: - Text

  private static let titles = [
    "PROCESS", "PID", "CPU%", "RSS", "PSS", "LIVE/S", "POST/S", "MIRR/S", "P50us", "P99us",
    "RESTARTS", "READ/S", "WRITE/S",
  ]

  var lines: [String] {
    let clock = status.clock / 100_000_000
    var head =
      "\(VisibleText.escape(status.machine)): \(VisibleText.escape(status.state)), "
      + "\(status.cpus) CPU\(status.cpus == 1 ? "" : "s"), \(status.memoryByteCount >> 20)MiB, "
      + "\(VisibleText.escape(String(status.accelerator.prefix { $0 != ":" }))), "
      + "clock \(clock / 10).\(clock % 10)s"
    if lostEvents > 0 { head += ", \(lostEvents) events lost" }
    var cells = [Self.titles]
    for row in rows {
      var line = [
        row.name, "\(row.pid)", Self.tenths(row.cpu), Self.short(Double(row.resident)),
        row.proportional.map { Self.short(Double($0)) } ?? "-",
      ]
      if let device = row.device {
        line += [device.live, device.posted, device.mirrored].map { Self.short($0) }
        line += [device.median, device.high].map { $0.map(TraceText.microseconds) ?? "-" }
        line.append("\(device.restarts)")
        line += [device.toGuest, device.fromGuest].map { $0.map { Self.short($0) } ?? "-" }
      } else {
        line += [String](repeating: "-", count: Self.titles.count - line.count)
      }
      cells.append(line)
    }
    let widths = Self.titles.indices.map { column in cells.map { $0[column].count }.max() ?? 0 }
    return [head, ""]
      + cells.map { row in
        row.enumerated().map { column, cell in
          column == 0
            ? TraceText.right(cell, widths[column]) : TraceText.left(cell, widths[column])
        }.joined(separator: " ")
      }
  }

  /// A number in at most five characters or so: 950, 12.3K, 4.5M.
  static func short(_ value: Double) -> String {
    var value = value
    for unit in ["", "K", "M", "G"] {
      if value < 999.5 {
        return (unit.isEmpty || value >= 99.95 ? "\(Int(value.rounded()))" : tenths(value)) + unit
      }
      value /= 1000
    }
    return tenths(value) + "T"
  }

  static func tenths(_ value: Double) -> String {
    let tenths = Int((min(max(value, 0), 1e15) * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)"
  }

  var json: String {
    func number(_ value: Double?) -> String { value.map { Self.tenths($0) } ?? "null" }
    func whole(_ value: UInt64?) -> String { value.map { "\($0)" } ?? "null" }
    let processes = rows.map { row in
      var fields = [
        "\"name\":\(StatusText.quoted(row.name))", "\"pid\":\(row.pid)",
        "\"cpu\":\(number(row.cpu))", "\"rss\":\(row.resident)",
        "\"pss\":\(whole(row.proportional))",
      ]
      if let device = row.device {
        fields += [
          "\"live\":\(number(device.live))", "\"posted\":\(number(device.posted))",
          "\"mirrored\":\(number(device.mirrored))", "\"p50\":\(whole(device.median))",
          "\"p99\":\(whole(device.high))", "\"restarts\":\(device.restarts)",
          "\"read\":\(number(device.toGuest))", "\"written\":\(number(device.fromGuest))",
        ]
      }
      return "{\(fields.joined(separator: ","))}"
    }
    return "{\"machine\":\(StatusText.quoted(status.machine)),"
      + "\"state\":\(StatusText.quoted(status.state)),\"clock\":\(status.clock),"
      + "\"seconds\":\(number(seconds)),\"lostEvents\":\(lostEvents),"
      + "\"processes\":[\(processes.joined(separator: ","))]}"
  }
}
