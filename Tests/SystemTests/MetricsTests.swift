// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Foundation
import LinuxSystem
import Monitor
import Testing

extension SystemTests {
  @Suite(
    "What is counted",
    .enabled(if: Python.isThere, "missing: .build/python with prometheus_client (deploy/test)"),
    .enabled(if: Tool.find("curl") != nil, "missing: curl"))
  struct MetricsTests {
    /// Gets the page with curl, into a file.
    private func scrape(_ machine: RunningMachine, _ file: String) throws -> String {
      let scratch = machine.scratch
      try Tool.run(
        "curl",
        [
          "-sS", "--fail", "--max-time", "20", "--unix-socket", scratch["metrics.sock"], "-o",
          scratch[file], "http://bulkhead/metrics",
        ], in: scratch)
      return scratch[file]
    }

    @Test(
      "events, clients that had to go and replies that nobody took are counted",
      .timeLimit(.minutes(2)))
    func monitor() throws {
      let scratch = try Scratch()
      _ = try scratch.assemble("reader")
      let machine = try RunningMachine(
        MachineFile(
          firmware: "reader.bin",
          monitor: ["qmp = \"unix:qmp.sock\"", "metrics = \"unix:metrics.sock\""]), in: scratch)
      defer { machine.end() }
      try #require(machine.hasSaid("isolation: ", times: 6), "\(machine.errors)")
      func value(_ name: String) throws -> Double {
        let text = try String(contentsOfFile: try scrape(machine, "page.txt"), encoding: .utf8)
        let line = text.split(separator: "\n").first { $0.hasPrefix("bulkhead_monitor_\(name) ") }
        return try #require(line.flatMap { Double($0.split(separator: " ")[1]) }, "\(name)")
      }
      for name in ["events_total{event=\"STOP\"}", "events_lost_total", "clients_evicted_total"] {
        #expect(try value(name) == 0, "\(name)")
      }
      let client = try machine.client()
      for _ in 0..<3 {
        let _: Empty = try client.ask(.pause, Empty())
        let _: Empty = try client.ask(.resume, Empty())
      }
      let _: Empty = try client.ask(.reset, Empty())
      #expect(
        try eventually(10) { try value("events_total{event=\"RESET\"}") == 1 })
      #expect(try value("events_total{event=\"STOP\"}") == 3)
      #expect(try value("events_total{event=\"RESUME\"}") == 3)
      #expect(try value("events_total{event=\"GUEST_PANICKED\"}") == 0)
      #expect(try value("replies_dropped_total") == 0)
      // Forty that say nothing: the 24 places are not enough. One that asks much and takes nothing.
      let script = """
        import socket, sys, time
        held = []
        for _ in range(40):
            one = socket.socket(socket.AF_UNIX); one.connect(sys.argv[1]); held.append(one)
            time.sleep(0.02)
        for one in held: one.close()
        asker = socket.socket(socket.AF_UNIX); asker.connect(sys.argv[1])
        asker.sendall(b'{"execute": "qmp_capabilities"}' + b'{"execute": "query-qmp-schema"}' * 50)
        time.sleep(1)
        asker.close()
        """
      try Tool.run(Python.path, ["-c", script, scratch["qmp.sock"]], in: scratch)
      #expect(try value("clients_evicted_total") >= 16)
      #expect(try eventually(10) { try value("replies_dropped_total") > 10 })
      #expect(try value("clients_refused_total") == 0)
      #expect(try value("events_lost_total") == 0)
    }

    @Test(
      "curl gets it while a guest runs, Prometheus' parser reads it, and the counters grow",
      .timeLimit(.minutes(5)), arguments: Requirements.accelerators)
    func page(accelerator: String) throws {
      let scratch = try Scratch()
      try scratch.disk("disk.raw", try scratch.assemble("echo", "DISK"))
      var file = MachineFile(
        accelerator: accelerator, cpus: 2, serial: "stdio",
        monitor: ["metrics = \"unix:metrics.sock\""])
      file.drives = [("ide0.0", "disk.raw", "raw")]
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      try #require(machine.hasSaid("isolation: ", times: 6), "\(machine.errors)")
      #expect(try Files.status(scratch["metrics.sock"])?.mode == 0o600)
      try machine.type("ab")
      try #require(machine.hasSent("<a><b>"), "\(machine.serial)\n\(machine.errors)")
      let first = try scrape(machine, "first.txt")
      try machine.type("c")
      try #require(machine.hasSent("<c>"), "\(machine.errors)")
      let old = try machine.pid("vmdev-serial")
      try machine.killDevice("vmdev-serial")
      #expect(
        try eventually(30) {
          try machine.status().devices.first { $0.role == "serial" }?.restarts == 1
        })
      try machine.type("defgh")
      try #require(machine.hasSent("<d><e><f><g><h>"), "\(machine.errors)")
      #expect(try machine.pid("vmdev-serial", not: old) != old)

      func values(_ second: String) throws -> [String: Double] {
        let text = try Tool.run(
          Python.path, [Python.scripts + "/metrics.py", first, second], in: scratch)
        var found: [String: Double] = [:]
        for line in text.split(separator: "\n") {
          let parts = line.split(separator: " ")
          found["\(parts[0])"] = Double(parts[1])
        }
        return found
      }
      // The UART's process has its last bytes on the way when they are seen.
      var found: [String: Double] = [:]
      _ = try eventually(10) {
        found = try values(try scrape(machine, "second.txt"))
        return found["bulkhead_serial_sent_bytes_total{port=\"com1\"}"] == 24
      }
      #expect(found["bulkhead_serial_received_bytes_total{port=\"com1\"}"] == 8)
      #expect(found["bulkhead_serial_sent_bytes_total{port=\"com1\"}"] == 24)
      #expect(found["bulkhead_machine_running{machine=\"\(machine.name)\"}"] == 1)
      #expect(found["bulkhead_device_restarts_total{device=\"serial\"}"] == 1)
      #expect(found["bulkhead_device_up{device=\"ide\"}"] == 1)
      // The boot sector, and the 15 behind it.
      #expect((found["bulkhead_drive_read_bytes_total{drive=\"ide0.0\"}"] ?? 0) >= 16 * 512)
      #expect((found["bulkhead_drive_reads_total{drive=\"ide0.0\"}"] ?? 0) >= 2)
      #expect(found["bulkhead_drive_errors_total{drive=\"ide0.0\"}"] == 0)
      for kind in ["live", "posted", "mirrored"] {
        let name = "bulkhead_device_accesses_total{device=\"serial\",kind=\"\(kind)\"}"
        #expect((found[name] ?? 0) > 0, "\(kind)")
      }
      let status = try machine.status()
      for device in status.devices {
        let counted = MetricsReply.Device.operations.reduce(0.0) {
          $0
            + (found[
              "bulkhead_device_access_duration_seconds_count{device=\"\(device.role)\",operation=\"\($1)\"}"
            ] ?? 0)
        }
        #expect(counted > 0 && counted <= Double(device.live), "\(device.role)")
      }
      for process in RunningMachine.roles + ["vmlaunch", "vmmonitor"] {
        let name = "bulkhead_process_resident_memory_bytes{process=\"\(process)\"}"
        #expect((found[name] ?? 0) > 1e6, "\(process)")
      }
      #expect((found["bulkhead_process_cpu_seconds_total{process=\"vmcore\"}"] ?? 0) > 0)
      #expect(found["bulkhead_log_lines_lost_total{}"] == 0)
      if let promtool = Tool.find("promtool") {
        try Tool.run(
          "sh", ["-c", "'\(promtool)' check metrics < '\(scratch["second.txt"])'"], in: scratch)
      }
      // Nobody else can have a terminal that the launcher was started in.
      let console = try machine.control(["console"])
      #expect(console.code == 1 && console.output.contains("COM1 is stdio"), "\(console.output)")
      let audit = try machine.control(["isolation"])
      #expect(audit.code == 0, "\(audit.output)")
    }
  }
}
