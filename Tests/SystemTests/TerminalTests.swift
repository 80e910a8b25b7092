// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Foundation
import LinuxSystem
import Monitor
import Testing

/// A terminal of tmux, in which a command runs.
final class TmuxTerminal {
  private let scratch: Scratch
  private let socket: String

  init(_ command: String, in scratch: Scratch) throws {
    self.scratch = scratch
    socket = scratch["tmux.sock"]
    // What the terminal is like is seen by the shell that started the command. Its server outlives
    // the client, and may not keep what Foundation's Process watches it by: Python closes that. Nor
    // may it inherit blocked signals: it would never end.
    try Tool.run(
      "python3",
      [
        "-c",
        "import signal, subprocess, sys; signal.pthread_sigmask(signal.SIG_SETMASK, []); "
          + "sys.exit(subprocess.run(sys.argv[1:]).returncode)", "tmux",
        "-S", socket, "-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "50",
        "stty -a > \(scratch["before"]); \(command); echo code=$?; stty -a > \(scratch["after"]); "
          + "sleep 300",
      ], in: scratch)
  }

  deinit { _ = try? Tool.run("tmux", ["-S", socket, "kill-server"], in: scratch) }

  /// Presses keys, by tmux's names.
  func press(_ keys: String...) throws {
    try Tool.run("tmux", ["-S", socket, "send-keys"] + keys, in: scratch)
  }

  /// Types a line.
  func type(_ line: String) throws {
    try Tool.run("tmux", ["-S", socket, "send-keys", "-l", line], in: scratch)
    try press("Enter")
  }

  /// What is on the screen and above it.
  var text: String {
    (try? Tool.run(
      "tmux", ["-S", socket, "capture-pane", "-p", "-J", "-S", "-2000"], in: scratch)) ?? ""
  }

  /// Whether a pattern is on the screen within some seconds.
  func shows(_ pattern: String, seconds: Double = 10) -> Bool {
    eventually(seconds) { text.range(of: pattern, options: .regularExpression) != nil }
  }
}

extension SystemTests {
  @Suite("A terminal", .enabled(if: Tool.find("tmux") != nil, "missing: tmux (package tmux)"))
  struct TerminalTests {
    @Test(
      "console and monitor share a terminal, and the keys are those that people know",
      .timeLimit(.minutes(5)))
    func shared() throws {
      let scratch = try Scratch()
      try scratch.disc("one.iso", holding: "first.txt", "one\n")
      var file = MachineFile(accelerator: "soft", cpus: 2, monitor: ["hmp = \"stdio\""])
      file.drives = [("ide1.0", "one.iso", "raw")]
      file.driveLines = ["media = \"cdrom\""]
      file.serial = "stdio"
      file.extra = "[boot]\norder = [\"cdrom\"]"
      let path = try scratch.write("machine.toml", file.text(name: "system-terminal"))
      let terminal = try TmuxTerminal("\(Built.folder)/vmlaunch \(path)", in: scratch)
      try #require(terminal.shows("grub> ", seconds: 100), "\(terminal.text)")
      #expect(terminal.text.contains("ctrl-a x ends the machine"))

      // The console: what is typed reaches GRUB, also ctrl-a itself.
      try terminal.type("echo hello-$root")
      #expect(terminal.shows("\nhello-hd96"), "\(terminal.text)")
      try terminal.type("cho twice-$root")
      try terminal.press("Up", "C-a", "C-a")
      try terminal.press("e", "Enter")
      #expect(terminal.shows("\ntwice-hd96"), "\(terminal.text)")

      try terminal.press("C-a", "h")
      #expect(terminal.shows("C-a c +switch between console and monitor"), "\(terminal.text)")
      #expect(terminal.text.contains("C-a b    send break (magic sysrq)"), "\(terminal.text)")
      try terminal.press("C-a", "c")
      #expect(terminal.shows("Bulkhead 0.1.0 monitor.*\n\\(bulkhead\\) "), "\(terminal.text)")
      for (line, answer) in [
        ("info status", "VM status: running"),
        (
          "info cpus", "\\* CPU #0: pc=0x[0-9a-f]{16}.* thread_id=\\d+\n  CPU #1: pc=.*\\(halted\\)"
        ),
        ("info registers", "CR0=[0-9a-f]+ CR2="), ("x/4xw 0", "0000000000000000: 0x"),
        ("stop", "stop\n\\(bulkhead\\)"), ("info status", "VM status: paused"),
        ("cont", "cont\n\\(bulkhead\\)"), ("nonsense", "unknown command: 'nonsense'"),
        ("i /b 0x511", "portb\\[0x0511\\] = 0x"), ("info block", "ide1-cd0: .*one.iso"),
      ] {
        try terminal.type(line)
        #expect(terminal.shows(answer), "\(line): \(terminal.text)")
      }
      // The line's own editor: erasing, history, completion.
      try terminal.press("p", "x", "x", "BSpace", "BSpace", "r", "i", "n", "t", " ", "6", "*", "7")
      try terminal.press("Enter")
      #expect(terminal.shows("print 6\\*7\n0x2a\n"), "\(terminal.text)")
      try terminal.press("Up", "BSpace", "8", "Enter")
      #expect(terminal.shows("print 6\\*8\n0x30\n"), "\(terminal.text)")
      try terminal.press("i", "n", "f", "Tab", "m", "t", "Tab", "Enter")
      #expect(terminal.shows("info mtree ?\naddress-space: memory"), "\(terminal.text)")

      // Back to the guest, and with the time of each line.
      try terminal.press("C-a", "c")
      try terminal.type("echo again-$root")
      #expect(terminal.shows("\nagain-hd96"), "\(terminal.text)")
      try terminal.press("C-a", "t")
      try terminal.type("echo timed-$root")
      // GRUB sends its carriage returns behind line feeds, and writes over a part of it.
      #expect(terminal.shows(":\\d\\d\\.\\d{3}\\] "), "\(terminal.text)")

      try terminal.press("C-a", "x")
      #expect(terminal.shows("code=0"), "\(terminal.text)")
      #expect(terminal.text.contains("Bulkhead: Terminated"))
      #expect(eventually(10) { scratch.text("after").contains("speed") })
      #expect(scratch.text("before") == scratch.text("after"))
    }

    @Test(
      "a break on the console is Linux's system request key", .timeLimit(.minutes(5)),
      .enabled(if: LinuxGuests.missing.isEmpty))
    func breakForLinux() throws {
      let scratch = try Scratch()
      _ = try LinuxGuests.build("Tests/SystemTests/Guests/waiter.c", in: scratch)
      var file = LinuxGuests.machine(
        kernel: LinuxGuests.cloudKernel, cpus: 1, arguments: "sysrq_always_enabled")
      file.monitor = ["hmp = \"stdio\""]
      file.serial = "stdio"
      let path = try scratch.write("machine.toml", file.text(name: "system-break"))
      let terminal = try TmuxTerminal("\(Built.folder)/vmlaunch \(path)", in: scratch)
      try #require(terminal.shows("INIT-READY", seconds: 200), "\(terminal.text)")
      // Without a break it is only a letter.
      try terminal.press("h")
      HostClock.sleep(1_000_000_000)
      #expect(!terminal.text.contains("sysrq: HELP"), "\(terminal.text)")
      try terminal.press("C-a", "b")
      try terminal.press("h")
      #expect(terminal.shows("sysrq: HELP : loglevel"), "\(terminal.text)")
      try terminal.press("C-a", "x")
      #expect(terminal.shows("code=0"), "\(terminal.text)")
    }

    @Test(
      "a break reaches the receiver between the characters", .timeLimit(.minutes(2)),
      arguments: Requirements.accelerators)
    func breakForUART(accelerator: String) throws {
      let scratch = try Scratch()
      _ = try scratch.assemble("echo")
      let machine = try RunningMachine(
        MachineFile(accelerator: accelerator, firmware: "echo.bin", serial: "stdio"), in: scratch)
      defer { machine.end() }
      try machine.type("a")
      try #require(machine.hasSent("<a>", seconds: 60), "\(machine.errors)")
      let client = try machine.client()
      let _: Empty = try client.ask(.sendBreak, BreakRequest(port: 0))
      #expect(machine.hasSent("[break]", seconds: 30), "\(machine.serial)")
      try machine.type("b")
      #expect(machine.hasSent("<b>", seconds: 30), "\(machine.serial)")
      #expect(throws: (any Error).self) {
        let _: Empty = try client.ask(.sendBreak, BreakRequest(port: 1))
      }
      try machine.type("q")
      #expect(machine.exitCode(30) == exitCode(of: 0x16), "\(machine.errors)")
      #expect(machine.serial == "<a>[break]<b>", "\(machine.serial)")
    }

    @Test("QMP is spoken on standard input and output", .timeLimit(.minutes(1)))
    func qmp() throws {
      let scratch = try Scratch()
      let file = MachineFile(monitor: ["qmp = \"stdio\""])
      let path = try scratch.write("machine.toml", file.text(name: "system-stdio-qmp"))
      let commands = """
        {"execute": "qmp_capabilities"}
        {"execute": "query-name", "id": 1}
        {"execute": "quit", "id": 2}
        """
      try scratch.write("commands", commands)
      let result = try Tool.result(
        "sh",
        [
          "-c",
          "(cat \(scratch["commands"]); sleep 8) | \(Built.folder)/vmlaunch \(path) 2>/dev/null",
        ], in: scratch, seconds: 60)
      let lines = result.output.split(whereSeparator: \.isNewline).map(String.init)
      #expect(lines.first?.hasPrefix("{\"QMP\": {") == true, "\(result.output)")
      #expect(
        lines.contains {
          $0.hasPrefix("{\"id\": 1, \"return\": {\"name\": \"system-stdio-qmp\"}}")
        },
        "\(result.output)")
      #expect(lines.contains { $0.contains("\"SHUTDOWN\"") }, "\(result.output)")
    }
  }
}
