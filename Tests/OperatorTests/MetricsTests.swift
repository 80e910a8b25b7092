// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import Monitor
import Testing

@testable import Operator

/// A machine that answers one question.
private final class CountedMachine: MachineAccess {
  let settings = MonitorSettings(
    common: CommonSettings(machine: "m", isStrict: true), hasQMP: false, hasHMP: false,
    hasGDB: false, hasMetrics: true,
    drives: [
      MonitorSettings.Drive(slot: 2, isCDROM: true, isReadOnly: true, format: "raw", image: "")
    ], ports: [MonitorSettings.Port(backend: "null")])
  var isGone = false
  var media: [UInt8: String] = [:]
  var counts: MonitorCounts {
    var counts = MonitorCounts()
    counts.events = ["STOP": 3, "__org.bulkhead_DEVICE_FAULT": 1]
    counts.lostEvents = 5
    counts.lostReplies = 6
    counts.evictedClients = 7
    counts.refusedClients = 8
    return counts
  }
  let isHeldForHost = false
  var questions = 0

  static var metrics: MetricsReply {
    var histogram = LatencyHistogram()
    histogram.add(300)
    histogram.add(1_500_000_000)
    return MetricsReply(
      machine: "a\\b\"c\nd", isRunning: true, clock: 1_500_000_000, lostEvents: 2,
      devices: [
        MetricsReply.Device(
          role: "ide", isUp: false, restarts: 4, live: 2, posted: .max, mirrored: 0,
          latencies: [histogram, LatencyHistogram(), LatencyHistogram(), LatencyHistogram()])
      ],
      drives: (0..<4).map { .init(values: [1, 512, 0, 0, 0, 0, UInt64($0)]) },
      ports: (0..<4).map { .init(values: [UInt64($0), 11]) })
  }

  func askLong<Q: WireCodable, A: WireCodable>(
    _ request: Control, _ question: Q, as type: A.Type
  ) throws(CommandError) -> A { try ask(request, question, [], as: type) }
  func post(_ event: EventMessage) {}

  func ask<Q: WireCodable, A: WireCodable>(
    _ request: Control, _ question: Q, _ descriptors: [Descriptor], as type: A.Type
  ) throws(CommandError) -> A {
    questions += 1
    guard !isGone, request == .metrics, let reply = Self.metrics as? A else {
      throw CommandError("the machine has ended")
    }
    return reply
  }

  func threads() throws(CommandError) -> [ThreadsReply.Entry] { [] }
  func openMedium(_ path: String) throws(CommandError) -> (image: Descriptor, byteCount: UInt64) {
    throw CommandError("none")
  }

  func makeFile(_ path: String) throws(CommandError) -> Descriptor { throw CommandError("no") }
  func processes() throws(CommandError) -> ProcessesReply {
    ProcessesReply(
      lostLines: 9,
      processes: [.init(name: "vmcore", processorTime: 20_000_000, residentBytes: 4096)])
  }
}

@Suite struct MetricsTests {
  @Test func `The text has every number in base units, with labels escaped`() throws {
    let machine = CountedMachine()
    let text = MetricsText.text(
      CountedMachine.metrics, try machine.processes(), machine.counts, drives: [2], ports: 1)
    for line in [
      "bulkhead_machine_running{machine=\"a\\\\b\\\"c\\nd\"} 1",
      "bulkhead_virtual_clock_seconds 1.5", "bulkhead_events_lost_total 2",
      "bulkhead_log_lines_lost_total 9", "bulkhead_monitor_events_total{event=\"STOP\"} 3",
      "bulkhead_monitor_events_total{event=\"__org.bulkhead_DEVICE_FAULT\"} 1",
      "bulkhead_monitor_events_total{event=\"RESET\"} 0", "bulkhead_monitor_events_lost_total 5",
      "bulkhead_monitor_replies_dropped_total 6", "bulkhead_monitor_clients_evicted_total 7",
      "bulkhead_monitor_clients_refused_total 8",
      "bulkhead_process_cpu_seconds_total{process=\"vmcore\"} 0.02",
      "bulkhead_process_resident_memory_bytes{process=\"vmcore\"} 4096",
      "bulkhead_device_up{device=\"ide\"} 0", "bulkhead_device_restarts_total{device=\"ide\"} 4",
      "bulkhead_device_accesses_total{device=\"ide\",kind=\"posted\"} 18446744073709551615",
      "bulkhead_drive_read_bytes_total{drive=\"ide1.0\"} 512",
      "bulkhead_drive_errors_total{drive=\"ide1.0\"} 2",
      "bulkhead_serial_received_bytes_total{port=\"com1\"} 0",
      "bulkhead_serial_sent_bytes_total{port=\"com1\"} 11",
    ] {
      #expect(text.contains("\n\(line)\n"), "\(line)")
    }
    #expect(!text.contains("ide0.0") && !text.contains("com2"))
    let name = "bulkhead_device_access_duration_seconds"
    let labels = "device=\"ide\",operation=\"read\""
    #expect(text.contains("\(name)_bucket{\(labels),le=\"0.000000256\"} 0\n"))
    #expect(text.contains("\(name)_bucket{\(labels),le=\"0.000000512\"} 1\n"))
    #expect(text.contains("\(name)_bucket{\(labels),le=\"1.073741824\"} 1\n"))
    #expect(text.contains("\(name)_bucket{\(labels),le=\"2.147483648\"} 2\n"))
    #expect(text.contains("\(name)_bucket{\(labels),le=\"+Inf\"} 2\n"))
    #expect(text.contains("\(name)_sum{\(labels)} 1.5000003\n"))
    #expect(text.contains("\(name)_count{\(labels)} 2\n"))
    #expect(text.hasSuffix("\n") && !text.contains("\n\n"))
  }

  private func answer(_ pieces: String..., machine: CountedMachine = CountedMachine()) -> String {
    var session = MetricsSession(machine)
    var text = ""
    for piece in pieces { text += session.take(Array(piece.utf8)) }
    #expect(session.isOver == !text.isEmpty)
    #expect(session.take(Array("GET / HTTP/1.1\r\n\r\n".utf8)) == "" || text.isEmpty)
    return text
  }

  @Test func `A request is answered once, whole, and in whatever pieces it comes`() throws {
    let whole = answer("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    #expect(whole.hasPrefix("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4;"))
    let parts = try #require(whole.firstRange(of: "\r\n\r\n"))
    let body = whole[parts.upperBound...]
    #expect(whole.contains("\r\nContent-Length: \(body.utf8.count)\r\n"))
    #expect(body.hasPrefix("# HELP "))
    #expect(answer("\r\nGET /me", "trics?a=b HTTP/1.0\n", "\n").hasSuffix(body))
    let head = answer("HEAD / HTTP/1.1\r\n\r\n")
    #expect(head.contains("200 OK") && head.hasSuffix("\r\n\r\n"))
    #expect(answer("GET /metrics HTTP/1.1\r\n").isEmpty)
  }

  @Test(arguments: [
    ("POST /metrics HTTP/1.1\r\n\r\n", "405"), ("GET /other HTTP/1.1\r\n\r\n", "404"),
    ("GET /metrics\r\n\r\n", "400"), ("GET  /metrics HTTP/1.1\r\n\r\n", "400"),
    ("\u{0}\u{1}\u{2}\n\n", "400"), (String(repeating: "x", count: 9000), "431"),
    ("GET / HTTP/1.1\r\nA: " + String(repeating: "x", count: 9000) + "\r\n\r\n", "431"),
  ])
  func `What is no good request gets its error, and nobody is asked`(
    request: String, status: String
  ) {
    let machine = CountedMachine()
    #expect(answer(request, machine: machine).hasPrefix("HTTP/1.1 \(status) "))
    #expect(machine.questions == 0)
  }

  @Test func `Without a machine there is an error, not an empty page`() {
    let machine = CountedMachine()
    machine.isGone = true
    #expect(
      answer("GET /metrics HTTP/1.1\r\n\r\n", machine: machine).hasPrefix("HTTP/1.1 503 "))
  }
}
