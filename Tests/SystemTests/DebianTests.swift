// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Testing

extension Requirements {
  /// The disk of deploy/make-debian-disk, as `deploy/test` makes it, or the one that the
  /// environment names.
  static let debianDisk =
    ProcessInfo.processInfo.environment["BULKHEAD_DEBIAN_DISK"]
    ?? "\(repository)/.build/guests/debian.qcow2"

  /// Whether there are that disk, and the QEMU whose hardware is compared.
  static let hasDebian =
    FileManager.default.fileExists(atPath: debianDisk) && Tool.find(QEMUMachine.program) != nil
}

extension SystemTests {
  /// An installed Debian, from its disk to its end.
  @Suite(
    "Debian from its disk",
    .enabled(
      if: Requirements.hasDebian,
      "no \(Requirements.debianDisk) (as root: deploy/make-debian-disk), or no qemu-system-x86"))
  struct DebianTests {
    /// What a guest tells of its hardware.
    private struct Hardware {
      /// The kernel's warnings and errors, without times and numbers.
      var complaints: [String]
      /// Slot, class and numbers of each PCI function.
      var functions: [String]
      /// The names of the interrupt lines, with their numbers and kinds.
      var interrupts: [String]
      /// The kinds of SMBIOS's structures.
      var structures: [String]
      /// What the disk says that it is and can do.
      var disk: [String]

      /// Asks a guest.
      init(_ console: inout DebianConsole) throws {
        complaints = try console.run("dmesg -l emerg,alert,crit,err,warn").map(Self.normalize)
        functions = try console.run("lspci -nn")
        interrupts = try console.run("cat /proc/interrupts").compactMap { line in
          let words = line.split(separator: " ")
          guard words.count >= 4, words[0].hasSuffix(":"), Int(words[0].dropLast()) != nil else {
            return nil
          }
          return ([words[0]] + words.suffix(2)).joined(separator: " ")
        }
        structures = try console.run("dmidecode").compactMap { line in
          let parts = line.split(separator: ", ")
          return parts.first { $0.hasPrefix("DMI type ") }.map(String.init)
        }
        disk = try console.run("hdparm -I /dev/sda").map {
          $0.trimmingCharacters(in: .whitespaces)
        }.filter { !$0.isEmpty }
      }

      /// A line of the kernel's log without its time, and with one sign for each number.
      static func normalize(_ line: String) -> String {
        line.replacing(#/^\[ *[0-9.]+\] /#, with: "").replacing(#/[0-9]+/#, with: "#")
      }
    }

    /// What a kernel says of a host that is slow or busy, not of the machine.
    private static let ofTheHost = [
      "clocksource: Long readout interval", "hrtimer: interrupt took",
      "clocksource: timekeeping watchdog", "perf: interrupt took too long",
      "sched: RT throttling activated", "rcu: INFO:", "workqueue: ",
    ]

    /// Lines of QEMU's interrupts whose devices this machine has not: the floppy and the printer.
    private static let notOurs = ["floppy", "parport0"]

    /// Compares what the guest finds here with what it finds in QEMU's `pc`.
    private func compare(_ ours: Hardware, _ qemus: Hardware) {
      for line in ours.complaints where !Self.ofTheHost.contains(where: line.contains) {
        #expect(qemus.complaints.contains(line))
      }
      #expect(ours.functions == qemus.functions)
      #expect(ours.functions.count == 5)
      #expect(
        ours.interrupts
          == qemus.interrupts.filter { line in !Self.notOurs.contains(where: line.hasSuffix) })
      #expect(ours.interrupts.count >= 7)
      #expect(ours.structures == qemus.structures)
      // The same size and geometry, and every feature and mode but single-word DMA.
      func size(_ lines: [String]) -> [String] {
        lines.filter { line in
          ["cylinders", "heads", "sectors"].contains(where: line.hasPrefix)
            || line.contains("addressable sectors")
        }
      }
      #expect(size(ours.disk) == size(qemus.disk))
      #expect(size(ours.disk).count == 6)
      func abilities(_ lines: [String]) -> Set<String> {
        Set(
          lines.filter { $0.hasPrefix("*") }
            + lines.filter { $0.hasPrefix("DMA:") || $0.hasPrefix("PIO:") }
            .flatMap { $0.split(separator: " ").dropFirst().map(String.init) }
            .filter { !$0.hasPrefix("sdma") })
      }
      #expect(abilities(ours.disk).isSuperset(of: abilities(qemus.disk)))
      #expect(abilities(qemus.disk).count >= 15)
      #expect(ours.disk.contains { $0.contains("BULKHEAD HARDDISK") })
    }

    /// What the guest tells when QEMU runs it, on the same disk.
    private func qemuHardware(cpus: Int, in scratch: Scratch) throws -> Hardware {
      try Tool.run("cp", [Requirements.debianDisk, scratch["qemu.qcow2"]], in: scratch)
      let drive = "file=\(scratch["qemu.qcow2"]),if=ide,format=qcow2"
      let qemu = try QEMUMachine(
        ["-smp", "\(cpus)", "-m", "1024", "-drive", drive], in: scratch)
      defer { qemu.end() }
      var console = DebianConsole(qemu)
      try console.logIn()
      return try Hardware(&console)
    }

    /// A machine with a copy of the disk.
    private func machine(cpus: Int, in scratch: Scratch) throws -> RunningMachine {
      try Tool.run("cp", [Requirements.debianDisk, scratch["disk.qcow2"]], in: scratch)
      var file = MachineFile(accelerator: "soft", cpus: cpus, memory: "1GiB")
      file.serial = "stdio"
      file.hasExitPort = false
      file.drives = [("ide0.0", "disk.qcow2", "qcow2")]
      // As QEMU's pc has one.
      file.extra = "[[drive]]\nslot = \"ide1.0\"\nmedia = \"cdrom\""
      return try RunningMachine(file, in: scratch)
    }

    @Test(
      "starts from IDE to a login, finds the hardware of QEMU's pc, keeps what it writes",
      .timeLimit(.minutes(40)))
    func login() async throws {
      // Their starts are long, and each keeps little more than one core busy.
      async let one: Void = live(cpus: 1)
      async let two: Void = live(cpus: 2)
      _ = try await (one, two)
    }

    /// The life of a machine with this many processors.
    private func live(cpus: Int) throws {
      let scratch = try Scratch()
      let qemus = try qemuHardware(cpus: cpus, in: scratch)
      let machine = try machine(cpus: cpus, in: scratch)
      defer { machine.end() }
      var console = DebianConsole(machine)
      try console.logIn()
      let state = try console.attempt("systemctl is-system-running")
      let failed = state.code == 0 ? [] : try console.run("systemctl --failed --plain")
      #expect(state.lines == ["running"], "\(failed)")
      compare(try Hardware(&console), qemus)
      #expect(try console.run("nproc") == ["\(cpus)"])
      try checkScreen(machine, &console)

      if cpus == 1 {
        _ = try console.run("dd if=/dev/urandom of=/root/file bs=1M count=20")
        let sum = try console.run("sha256sum /root/file")
        #expect(sum.count == 1 && sum[0].hasSuffix("/root/file"))
        _ = try console.run("sync")
        try machine.type("reboot\r")
        try console.logIn()
        #expect(try console.run("sha256sum /root/file") == sum)
        try checkSleep(machine, &console, sum)
        try checkTrim(scratch, &console)
        try machine.type("poweroff\r")
      } else {
        try checkDiscs(machine, &console)
        #expect(try machine.control(["powerdown"]).code == 0)
      }
      #expect(machine.exitCode(300) == 0, "\(machine.errors)")
      try Tool.run("qemu-img", ["check", scratch["disk.qcow2"]], in: scratch)
    }

    /// Linux's drivers bring the disk and the screen up again after a suspend to RAM.
    private func checkSleep(
      _ machine: RunningMachine, _ console: inout DebianConsole, _ sum: [String]
    ) throws {
      let screen = try machine.screen()
      _ = try console.run(
        "dmesg -C; echo +3 > /sys/class/rtc/rtc0/wakealarm; echo mem > /sys/power/state")
      #expect(try console.run("dmesg | grep -c 'PM: suspend exit'") == ["1"])
      #expect(try console.attempt("dmesg -l emerg,alert,crit,err").lines == [])
      _ = try console.run("echo 3 > /proc/sys/vm/drop_caches")
      #expect(try console.run("sha256sum /root/file") == sum)
      #expect(eventually(60) { (try? machine.screen()) == screen })
    }

    /// What the guest trims goes back to the host.
    private func checkTrim(_ scratch: Scratch, _ console: inout DebianConsole) throws {
      func blocks() throws -> Int {
        let text = try Tool.run("stat", ["-c", "%b", scratch["disk.qcow2"]], in: scratch)
        return try #require(Int(text.trimmingCharacters(in: .whitespacesAndNewlines)))
      }
      let before = try blocks()
      _ = try console.run("rm /root/file; sync; fstrim -v /")
      // 20 MiB were written; blocks are of 512 bytes.
      #expect(try blocks() < before - 16 << 11)
    }

    /// Linux's own driver sees a disc come, holds it while it is mounted, and sees it go.
    private func checkDiscs(
      _ machine: RunningMachine, _ console: inout DebianConsole
    ) throws {
      let scratch = machine.scratch
      for name in ["one", "two"] {
        try FileManager.default.createDirectory(
          atPath: scratch[name], withIntermediateDirectories: false)
        try scratch.write("\(name)/file", "this is \(name)\n")
        try Tool.run(
          "xorriso", ["-as", "mkisofs", "-o", scratch["\(name).iso"], scratch[name]], in: scratch)
      }
      _ = try console.run("! mount /dev/sr0 /mnt")
      for name in ["one", "two"] {
        // udev looks at each disc too: meanwhile the tray is locked, and when it is slow it takes
        // the operator's wish that the old disc go for this one.
        let isMounted = try eventually(180) {
          guard try machine.control(["change"], "ide1.0", scratch["\(name).iso"]).code == 0 else {
            return false
          }
          _ = try console.attempt("udevadm settle --timeout=60")
          return try console.attempt("mount -o ro /dev/sr0 /mnt").code == 0
        }
        try #require(isMounted)
        #expect(try console.run("cat /mnt/file") == ["this is \(name)"])
        let refused = try machine.control(["eject"], "ide1.0")
        #expect(refused.code == 1 && refused.output.contains("locked the tray"))
        _ = try console.run("umount /mnt")
        // udev may have given it up by itself, at the operator's wish.
        #expect(try machine.control(["eject"], "ide1.0", "--force").code == 0)
        _ = try console.run("! mount /dev/sr0 /mnt")
      }
    }

    /// Logs in on the screen with the keyboard, and holds the picture against what the kernel says
    /// stands there: equal signs look equal, different ones different.
    private func checkScreen(
      _ machine: RunningMachine, _ console: inout DebianConsole
    ) throws {
      let size = try console.run("stty size < /dev/tty1")
      let numbers = (size.first ?? "").split(separator: " ").compactMap { Int($0) }
      try #require(numbers.count == 2)
      func rows() throws -> [String] {
        try console.run("fold -w \(numbers[1]) /dev/vcs1")
      }
      #expect(try rows().contains { $0.hasPrefix("guest login:") })
      for text in ["root\n", "bulkhead\n"] {
        #expect(try machine.control(["type"], text).code == 0)
        HostClock.sleep(5_000_000_000)
      }
      #expect(
        eventually(120) {
          (try? console.run("who"))?.contains { $0.hasPrefix("root     tty1") } ?? false
        })

      _ = try console.run("echo 0 > /sys/class/graphics/fbcon/cursor_blink")
      // The shell takes its time; then nothing changes any more.
      var text: [String] = []
      let isThere = try eventually(120) {
        text = try rows()
        return text.contains { $0.hasPrefix("root@guest:~#") }
      }
      #expect(isThere, "\(text)")
      try #require(
        try machine.control(["screendump"], machine.scratch["screen.ppm"]).code == 0)
      let picture = try Pixels(machine.scratch.bytes("screen.ppm"))
      #expect(picture.width == 8 * numbers[1] && picture.height == 16 * numbers[0])
      var glyphs: [Character: [UInt8]] = [:]
      for (row, line) in text.enumerated() {
        for (column, sign) in line.enumerated() where sign.isLetter || sign.isNumber {
          let glyph = picture.glyph(column: column, row: row)
          if let known = glyphs[sign] {
            #expect(known == glyph, "\(sign) in row \(row), column \(column)")
          }
          glyphs[sign] = glyph
        }
      }
      #expect(glyphs.count >= 20)
      #expect(Set(glyphs.values).count == glyphs.count)
    }
  }
}

extension Pixels {
  /// The form of a sign of 8 by 16 pixels, whatever its colours: a bit for each pixel that differs
  /// from the one at the top left.
  func glyph(column: Int, row: Int) -> [UInt8] {
    func pixel(_ x: Int, _ y: Int) -> [UInt8] { self[8 * column + x, 16 * row + y] }
    let ground = pixel(0, 0)
    return (0..<16).map { y in
      (0..<8).reduce(UInt8(0)) { bits, x in
        bits << 1 | (pixel(x, y) == ground ? 0 : 1)
      }
    }
  }
}
