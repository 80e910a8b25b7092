// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Testing

extension SystemTests {
  /// Kernels that others wrote, started directly on the software CPU.
  @Suite(
    "Linux on the software CPU",
    .enabled(
      if: LinuxGuests.missing.isEmpty,
      "missing: \(LinuxGuests.missing.joined(separator: ", "))"))
  struct LinuxTests {
    /// One line of the guest's: a kernel's name and its check word.
    private struct Line: Equatable, Comparable {
      var name: String
      var check: String
      static func < (left: Line, right: Line) -> Bool { left.name < right.name }
    }

    /// The lines of a run of guestbench that end in a check word.
    private func lines(_ text: String) -> [Line] {
      text.split(whereSeparator: \.isNewline).compactMap { line in
        let words = line.split(separator: " ").map(String.init)
        guard words.count >= 7, words[0] == "GB", words[6].count == 16 else { return nil }
        return Line(name: words[1], check: words[6])
      }.sorted()
    }

    /// Arithmetic, strings, SSE2 and x87, atomics, system calls, faults, processes, signals,
    /// code that changes itself, threads.
    private static let kernels =
      "alu,sieve,sha256,div,interp,fib,icall,strings,nbody_sse2,nbody_x87,sse_vec,chase16k,"
      + "atomic,syscall,pagefault,mprotect,ctxsw,fork,forkexec,signal,segv,smc_patch,smc_jit,"
      + "smc_data,alu_2thr"

    @Test(
      "Debian's kernels run to user space, compute as the host does, and power off",
      .timeLimit(.minutes(10)), arguments: [1, 2])
    func boot(cpus: Int) async throws {
      // Side by side: each keeps little more than one core busy.
      async let cloud: Void = run(LinuxGuests.cloudKernel, cpus: cpus)
      async let standard: Void = run(LinuxGuests.standardKernel, cpus: cpus)
      _ = try await (cloud, standard)
    }

    /// Runs a kernel to its end, and compares what it computed with what the host does.
    private func run(_ kernel: String, cpus: Int) throws {
      let scratch = try Scratch()
      let program = try LinuxGuests.build("Tests/Benchmarks/Guests/guestbench.c", in: scratch)
      let native = try Tool.run(
        "env",
        ["GB_MS=1", "GB_REPS=1", program] + Self.kernels.split(separator: ",").map(String.init),
        in: scratch)
      let file = LinuxGuests.machine(
        kernel: kernel, cpus: cpus,
        arguments: "GB_RUN=\(Self.kernels) GB_MS=1 GB_REPS=1 GB_END=poweroff")
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      let code = machine.exitCode(500)
      #expect(code == 0, "\(machine.errors)\n\(machine.serial.suffix(2000))")
      #expect(machine.serial.contains("GUESTBENCH-END"))
      let expected = lines(native)
      #expect(expected.count >= 20)
      #expect(lines(machine.serial) == expected, "\(machine.serial.suffix(3000))")
    }

    /// The lines of the stress with a sum.
    private func sums(_ text: String) -> [String] {
      text.split(whereSeparator: \.isNewline).map { $0.trimmingCharacters(in: .whitespaces) }
        .filter { $0.hasPrefix("STRESS ") }
    }

    @Test(
      "processes, signals, memory maps and threads get the host's results on 4 vCPUs",
      .timeLimit(.minutes(10)), arguments: [LinuxGuests.cloudKernel, LinuxGuests.standardKernel])
    func stress(kernel: String) throws {
      let scratch = try Scratch()
      let program = try LinuxGuests.build("Tests/SystemTests/Guests/stress.c", in: scratch)
      let native = try Tool.run(program, [], in: scratch)
      // The clock is compared in one of them.
      let isTimed = kernel == LinuxGuests.cloudKernel
      let file = LinuxGuests.machine(
        kernel: kernel, cpus: 4, arguments: isTimed ? "CLOCK_SECONDS=30" : "")
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      let stamps = isTimed ? clockStamps(machine, 300) : []
      let code = machine.exitCode(500)
      #expect(code == 0, "\(machine.errors)\n\(machine.serial.suffix(2000))")
      #expect(sums(machine.serial) == sums(native), "\(machine.serial.suffix(3000))")
      #expect(sums(native).count == 6)
      #expect(machine.serial.contains("STRESS-END"))
      guard isTimed else { return }

      // What a stamp needed on its way is not less than the shortest way's time: that of the first
      // twenty, and that of the last.
      try #require(stamps.count == 40)
      func delay(_ some: ArraySlice<(guest: Double, host: Double)>) -> Double {
        some.map { $0.host - $0.guest }.min() ?? 0
      }
      let elapsed = stamps[39].guest - stamps[0].guest
      let drift = delay(stamps[20...]) - delay(stamps[..<20])
      #expect(elapsed >= 30)
      #expect(abs(drift) / elapsed < 0.001, "\(drift) s in \(elapsed) s")
    }

    /// The times that the guest tells, in seconds, with those of their arrival.
    private func clockStamps(_ machine: RunningMachine, _ seconds: Double) -> [(
      guest: Double, host: Double
    )] {
      var result: [(guest: Double, host: Double)] = []
      let end = HostClock.monotonic() + UInt64(seconds * 1e9)
      while result.count < 40, HostClock.monotonic() < end, machine.process.isRunning {
        let lines = machine.serial.split(separator: "\r\n", omittingEmptySubsequences: false)
        let now = Double(HostClock.monotonic()) / 1e9
        // The last one may be cut off.
        let stamps = lines.dropLast().filter { $0.hasPrefix("CLOCK ") }
        for stamp in stamps.dropFirst(result.count) {
          result.append(((Double(stamp.dropFirst(6)) ?? 0) / 1e9, now))
        }
        HostClock.sleep(1_000_000)
      }
      return result
    }

    @Test("the ELF kernel starts by its PVH note", .timeLimit(.minutes(5)))
    func pvh() throws {
      let scratch = try Scratch()
      _ = try LinuxGuests.build("Tests/SystemTests/Guests/stress.c", in: scratch)
      let extract = "\(Requirements.repository)/deploy/extract-vmlinux"
      try Tool.run(extract, [LinuxGuests.cloudKernel, scratch["vmlinux"]], in: scratch)
      // No other way to start is in that file. The accelerator is what the core's probe finds.
      var file = LinuxGuests.machine(kernel: "vmlinux", cpus: 2, arguments: "a=b")
      file.accelerator = "auto"
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      #expect(machine.exitCode(280) == 0, "\(machine.errors)\n\(machine.serial.suffix(2000))")
      #expect(machine.serial.contains("STRESS-BEGIN"))
      #expect(machine.serial.contains("STRESS-END"), "\(machine.serial.suffix(2000))")
    }

    @Test("a Multiboot kernel starts: Xen, which tells what it was told", .timeLimit(.minutes(3)))
    func multiboot() throws {
      let scratch = try Scratch()
      // Xen looks at what could be a kernel of a guest.
      try scratch.write("module", [UInt8](repeating: 0, count: 300_000))
      try Tool.run("gzip", ["-S", ".gz", scratch["module"]], in: scratch)
      var file = MachineFile(accelerator: "soft", memory: "512MiB")
      file.extra = """
        [boot]
        kernel = "\(LinuxGuests.xen)"
        initrd = "module.gz"
        cmdline = "console=com1 com1=115200,8n1 sync_console noreboot a=b"
        """
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      #expect(machine.hasSent("System RAM: 511MB", seconds: 120), "\(machine.serial)")
      let text = machine.serial
      #expect(text.contains("Xen version 4."))
      #expect(text.contains("Bootloader: Bulkhead"))
      #expect(text.contains("Command line: console=com1 com1=115200,8n1 sync_console noreboot a=b"))
      // The memory map of the firmware, its last page of tables taken off.
      #expect(text.contains("[0000000000000000, 000000000009fbff] (usable)"))
      #expect(text.contains("[0000000000100000, 000000001fffdfff] (usable)"))
    }

    @Test(
      "a kernel that is none is refused before anything starts", .timeLimit(.minutes(1)),
      arguments: ["machine.toml", "/dev/null", "nothing"])
    func noKernel(path: String) throws {
      let scratch = try Scratch()
      var file = MachineFile(accelerator: "soft")
      file.extra = "[boot]\nkernel = \"\(path)\""
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      #expect(machine.exitCode(20) == 1)
      #expect(machine.errors.contains("boot.kernel"), "\(machine.errors)")
    }

    @Test("a kernel with a header that is wrong is refused with its field", .timeLimit(.minutes(1)))
    func wrongHeader() throws {
      let scratch = try Scratch()
      var bytes = try [UInt8](Data(contentsOf: URL(filePath: LinuxGuests.xen)))
      // e_phnum.
      bytes.replaceSubrange(44..<46, with: [0xFF, 0xFF])
      try scratch.write("kernel", bytes)
      var file = MachineFile(accelerator: "soft")
      file.extra = "[boot]\nkernel = \"kernel\""
      let machine = try RunningMachine(file, in: scratch)
      defer { machine.end() }
      #expect(machine.exitCode(30) == 2)
      #expect(machine.errors.contains("e_phnum is 65535"), "\(machine.errors)")
    }
  }
}
