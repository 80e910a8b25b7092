// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import Testing

@Suite("The IDE process", .timeLimit(.minutes(3)))
struct IDEProcessTests {
  private static let disk = IDESettings.Drive(
    slot: 0, format: .qcow2, isCDROM: false, isReadOnly: false, serial: "BH1")
  private static let byteCount = 8 << 20

  /// A folder with `top.qcow2` over `base.raw`, whose bytes are a pattern.
  private final class Images {
    let folder: String
    var content: [UInt8]

    init() throws {
      let made = try Images.run("/usr/bin/mktemp", ["-d"])
      folder = String(decoding: made.output.dropLast(), as: UTF8.self)
      content = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) }
      // O_RDWR | O_CREAT
      try Descriptor.open(folder + "/base.raw", 0o102).writeAll(content)
      let result = try Images.run(
        "/usr/bin/qemu-img",
        ["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", folder + "/top.qcow2"])
      try #require(result.status == .exited(code: 0))
    }

    deinit { _ = try? Images.run("/usr/bin/rm", ["-r", folder]) }

    func open(_ name: String, _ flags: Int32) throws -> Descriptor {
      try Descriptor.open("\(folder)/\(name)", flags)
    }

    static func run(_ program: String, _ arguments: [String]) throws -> (
      status: ChildProcess.Status?, output: [UInt8]
    ) {
      let (here, there) = try PacketSocket.pair()
      let null = try Descriptor.open("/dev/null", 2)
      let child = try Spawn.start(
        executable: program, arguments: [program] + arguments, environment: ["PATH=/usr/bin"],
        descriptors: [(null, as: 0), (there.descriptor, as: 1), (null, as: 2)],
        namespaces: [], identity: .own)
      let status = try child.wait(timeout: 60_000_000_000)
      return (status, (try? here.receive(65536, wait: false))?.bytes ?? [])
    }

    /// Makes an image with the content of another.
    func make(_ name: String, _ options: [String], from source: String) throws {
      let made = try Images.run(
        "/usr/bin/qemu-img",
        ["convert", "-O", "qcow2"] + options + ["\(folder)/\(source)", "\(folder)/\(name)"])
      try #require(made.status == .exited(code: 0))
    }

    /// Starts a process on the images.
    func start(_ machine: IDEMachine, isRestart: Bool = false) throws {
      try machine.start(
        drives: [IDEProcessTests.disk], images: [try open("top.qcow2", 2)],
        files: ["base.raw": try open("base.raw", 0)], isRestart: isRestart)
    }

    /// Checks the image's tables and compares what the disk holds with ``content``.
    func check(_ name: String = "top.qcow2") throws {
      let top = folder + "/" + name
      let check = try Images.run("/usr/bin/qemu-img", ["check", "-q", top])
      // 3: clusters are leaked, which a killed process may do.
      #expect(check.status == .exited(code: 0) || check.status == .exited(code: 3))
      let flat = folder + "/flat.raw"
      let convert = try Images.run("/usr/bin/qemu-img", ["convert", "-O", "raw", top, flat])
      #expect(convert.status == .exited(code: 0))
      #expect(try open("flat.raw", 0).read(byteCount, at: 0) == content)
    }

    /// Makes an encrypted image of 4 MiB, its key, and another one.
    func makeEncrypted() throws {
      try open("key", 0o101).write(Array("bulkhead".utf8), at: 0)
      try open("wrong", 0o101).write(Array("bulkhaed".utf8), at: 0)
      // On a busy host qemu-img may fail to time itself.
      for attempt in 1...10 {
        let made = try Images.run(
          "/usr/bin/qemu-img",
          [
            "create", "-q", "--object", "secret,id=s,file=\(folder)/key", "-f", "qcow2", "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
            folder + "/secret.qcow2", "4M",
          ])
        if made.status == .exited(code: 0) { break }
        #expect(attempt < 10)
      }
    }

    /// Reads a sector of the encrypted image with QEMU's tools.
    func readEncrypted(sector: Int) throws -> [UInt8] {
      let converted = try Images.run(
        "/usr/bin/qemu-img",
        [
          "convert", "--object", "secret,id=s,file=\(folder)/key", "--image-opts", "-O", "raw",
          "driver=qcow2,encrypt.key-secret=s,file.filename=\(folder)/secret.qcow2",
          folder + "/clear.raw",
        ])
      #expect(converted.status == .exited(code: 0))
      return try open("clear.raw", 0).read(512, at: UInt64(sector) * 512)
    }

    func set(_ bytes: [UInt8], sector: Int) {
      content.replaceSubrange(sector * 512..<sector * 512 + bytes.count, with: bytes)
    }
  }

  @Test("reads and writes sectors by PIO and DMA, and leaves a sound image")
  func transfers() throws {
    let images = try Images()
    let ide = try IDEMachine()
    try images.start(ide)

    try ide.command(0xEC, sector: 0, count: 0)
    #expect(try ide.waitWhileBusy() & 0x09 == 0x08)
    let identity = try ide.readWords(0, 256)
    let sectors = (0..<4).reduce(0) { $0 | Int(identity[120 + $1]) << (8 * $1) }
    #expect(sectors == Self.byteCount / 512)

    let text = (0..<512).map { UInt8(truncatingIfNeeded: $0 ^ 0x5A) }
    try ide.command(0x30, sector: 77, count: 1)
    #expect(try ide.waitWhileBusy() & 0x09 == 0x08)
    try ide.writeWords(0, text)
    #expect(try ide.waitWhileBusy() & 0x29 == 0)
    images.set(text, sector: 77)
    try ide.command(0x20, sector: 76, count: 3)
    for sector in 76..<79 {
      #expect(try ide.waitWhileBusy() & 0x09 == 0x08)
      #expect(try ide.readWords(0, 256) == Array(images.content[sector * 512..<(sector + 1) * 512]))
    }

    ide.memory = (0..<256 * 512).map { UInt8(truncatingIfNeeded: $0 >> 7 ^ $0) }
    let data = ide.memory
    try ide.command(0xCA, sector: 3000, count: 256)
    try ide.startBusMaster(toMemory: false)
    _ = try ide.answer()
    #expect(try ide.finishDMA() & 0x29 == 0)
    images.set(data, sector: 3000)
    ide.memory = [UInt8](repeating: 0, count: 128 * 512)
    try ide.command(0xC8, sector: 2990, count: 128)
    try ide.startBusMaster(toMemory: true)
    _ = try ide.answer()
    #expect(try ide.finishDMA() & 0x29 == 0)
    #expect(ide.memory == Array(images.content[2990 * 512..<3118 * 512]))
    #expect(EventFile.drain(ide.events[0]))

    #expect(try ide.quit() == .exited(code: 0))
    try images.check()
  }

  @Test("gives a window back whose bus master the guest leaves running")
  func window() throws {
    let images = try Images()
    let ide = try IDEMachine()
    try images.start(ide)
    ide.memory = [UInt8](repeating: 0, count: 512)
    try ide.command(0xC8, sector: 5, count: 1)
    try ide.startBusMaster(toMemory: true)
    _ = try ide.answer()
    #expect(try ide.waitWhileBusy() & 0x29 == 0)
    try ide.serve { !ide.isWindowOpen }
    #expect(ide.memory == Array(images.content[5 * 512..<6 * 512]))
    #expect(try ide.quit() == .exited(code: 0))
  }

  @Test("goes on after it was killed in the middle of writes")
  func kills() throws {
    let images = try Images()
    let ide = try IDEMachine()
    try images.start(ide)
    for round in 0..<12 {
      // A DMA write, killed some time after the guest has started it.
      let sector = 100 + round * 300
      ide.memory = (0..<200 * 512).map { UInt8(truncatingIfNeeded: $0 &* (round + 3) >> 3) }
      try ide.command(0xCA, sector: sector, count: 200)
      try ide.startBusMaster(toMemory: false)
      if round % 3 == 1 { _ = try ide.answer() }
      if round % 3 == 2 { HostClock.sleep(UInt64(round) * 100_000) }
      try ide.serveRequests()
      try ide.kill()
      try images.start(ide, isRestart: true)
      if round % 3 != 1 { _ = try ide.answer() }
      #expect(try ide.finishDMA() & 0x29 == 0)
      images.set(ide.memory, sector: sector)

      // A PIO write, killed between two words of a sector and again before it is on the disk.
      let text = (0..<512).map { UInt8(truncatingIfNeeded: $0 &+ round) }
      try ide.command(0x30, sector: 5 + round, count: 1)
      try ide.writeWords(0, Array(text[..<100]))
      try ide.kill()
      try images.start(ide, isRestart: true)
      try ide.writeWords(0, Array(text[100...]))
      try ide.kill()
      try images.start(ide, isRestart: true)
      #expect(try ide.waitWhileBusy() & 0x29 == 0)
      images.set(text, sector: 5 + round)
    }
    #expect(try ide.quit() == .exited(code: 0))
    try images.check()
  }

  @Test("what the host has at hand is in guest memory before the access that starts it is answered")
  func atOnce() throws {
    let images = try Images()
    var probe = [UInt8](repeating: 0, count: 512)
    var span = probe.mutableSpan
    guard try images.open("base.raw", 0).readCached(into: &span, at: 0) else {
      print("skipped: the file system of \(images.folder) cannot say what is cached (RWF_NOWAIT)")
      return
    }
    let ide = try IDEMachine()
    try images.start(ide)
    for round in 0..<4 {
      let sector = 700 * round + 3
      ide.memory = [UInt8](repeating: 0xEE, count: 256 * 512)
      try ide.command(0xC8, sector: sector, count: 256)
      try ide.startBusMaster(toMemory: true)
      _ = try ide.answer()
      let hasArrived = ide.memory == Array(images.content[sector * 512..<(sector + 256) * 512])
      #expect(hasArrived)
      #expect(try ide.read(0, 7) & 0x89 == 0)
      #expect(try ide.finishDMA() & 0x29 == 0)

      // What is written is taken from guest memory at once, and goes to the file by a worker.
      ide.memory = (0..<8192).map { UInt8(truncatingIfNeeded: $0 &* 5 &+ round) }
      try ide.command(0xCA, sector: sector, count: 16)
      try ide.startBusMaster(toMemory: false)
      _ = try ide.answer()
      images.set(ide.memory, sector: sector)
      ide.memory = []
      #expect(try ide.finishDMA() & 0x29 == 0)
    }
    #expect(ide.copyCount == 8)
    #expect(try ide.quit() == .exited(code: 0))
    try images.check()
  }

  @Test("a pause ends what is under way; guest memory stands still afterwards")
  func pause() throws {
    let images = try Images()
    let ide = try IDEMachine()
    try images.start(ide)
    for round in 0..<8 {
      let sector = 50 + 256 * round
      ide.memory = [UInt8](repeating: 0xEE, count: 256 * 512)
      try ide.command(0xC8, sector: sector, count: 256)
      try ide.startBusMaster(toMemory: true)
      _ = try ide.answer()

      try ide.ask(.pause, Empty())

      // As a truth value: what differs in so many bytes would take minutes to list.
      let hasArrived = ide.memory == Array(images.content[sector * 512..<(sector + 256) * 512])
      #expect(hasArrived)
      try ide.ask(.resume, Empty())
      #expect(try ide.finishDMA() & 0x29 == 0)
    }
  }

  @Test("opens an encrypted image with the key of its drive, also after it was killed")
  func encrypted() throws {
    let images = try Images()
    try images.makeEncrypted()
    var drive = Self.disk
    drive.hasKey = true
    let ide = try IDEMachine()
    let text = (0..<512).map { UInt8(truncatingIfNeeded: $0 ^ 0xC3) }
    let handed = [try images.open("secret.qcow2", 2), try images.open("key", 0)]
    try ide.start(drives: [drive], images: handed)
    try ide.command(0x30, sector: 77, count: 1)
    #expect(try ide.waitWhileBusy() & 0x09 == 0x08)
    try ide.writeWords(0, text)
    #expect(try ide.waitWhileBusy() & 0x29 == 0)

    try ide.kill()
    try ide.start(drives: [drive], images: handed, isRestart: true)

    try ide.command(0x20, sector: 77, count: 1)
    #expect(try ide.waitWhileBusy() & 0x09 == 0x08)
    #expect(try ide.readWords(0, 256) == text)
    #expect(try ide.quit() == .exited(code: 0))
    #expect(try images.readEncrypted(sector: 77) == text)
  }

  /// How an image is made of the pattern.
  private static let kinds: [(name: String, commands: [[String]])] = [
    ("extended L2", [["convert", "-O", "qcow2", "-o", "extended_l2=on"]]),
    ("zstd", [["convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd"]]),
    ("zlib", [["convert", "-c", "-O", "qcow2"]]),
    ("internal snapshots", [["convert", "-O", "qcow2"], ["snapshot", "-c", "one"]]),
  ]

  @Test(
    "reads and writes every kind of qcow2 image, also past the host's page cache",
    arguments: 0..<kinds.count, [IDESettings.Drive.Cache.writeback, .none])
  func everyKind(number: Int, cache: IDESettings.Drive.Cache) throws {
    let images = try Images()
    let image = images.folder + "/kind.qcow2"
    for command in Self.kinds[number].commands {
      let files = command[0] == "convert" ? [images.folder + "/base.raw", image] : [image]
      let made = try Images.run("/usr/bin/qemu-img", command + files)
      try #require(made.status == .exited(code: 0))
    }
    var drive = Self.disk
    drive.cache = cache
    let ide = try IDEMachine()
    // O_RDWR, O_DIRECT
    try ide.start(
      drives: [drive], images: [try images.open("kind.qcow2", cache == .none ? 0o40002 : 2)])
    for round in 0..<6 {
      let sector = 100 + round * 1999
      ide.memory = [UInt8](repeating: 0, count: 200 * 512)
      try ide.command(0xC8, sector: sector, count: 200)
      try ide.startBusMaster(toMemory: true)
      _ = try ide.answer()
      #expect(try ide.finishDMA() & 0x29 == 0)
      let isRead = ide.memory == Array(images.content[sector * 512..<(sector + 200) * 512])
      #expect(isRead)
      ide.memory = (0..<99 * 512).map { UInt8(truncatingIfNeeded: $0 &* (round + 3) >> 3) }
      try ide.command(0xCA, sector: sector + 37, count: 99)
      try ide.startBusMaster(toMemory: false)
      _ = try ide.answer()
      #expect(try ide.finishDMA() & 0x29 == 0)
      images.set(ide.memory, sector: sector + 37)
    }
    #expect(try ide.quit() == .exited(code: 0))
    try images.check("kind.qcow2")
    guard Self.kinds[number].name == "internal snapshots" else { return }
    let old = try Images.run(
      "/usr/bin/qemu-img",
      ["convert", "-l", "one", "-O", "raw", image, images.folder + "/old.raw"])
    #expect(old.status == .exited(code: 0))
    let isKept =
      try images.open("old.raw", 0).read(Self.byteCount, at: 0)
      == images.open("base.raw", 0).read(Self.byteCount, at: 0)
    #expect(isKept)
  }

  @Test("a write-through drive says so, and refuses to turn a write cache on")
  func writeThrough() throws {
    let images = try Images()
    var drive = Self.disk
    drive.cache = .writethrough
    let ide = try IDEMachine()
    try ide.start(
      drives: [drive], images: [try images.open("top.qcow2", 2)],
      files: ["base.raw": try images.open("base.raw", 0)])
    try ide.command(0xEC, sector: 0, count: 0)
    #expect(try ide.waitWhileBusy() & 0x09 == 0x08)
    let identity = try ide.readWords(0, 256)
    #expect(identity[164] & 0x20 == 0)
    #expect(identity[170] & 0x20 == 0)
    try ide.write(0x02, 0, 1)
    try ide.write(0xEF, 0, 7)
    #expect(try ide.waitWhileBusy() & 0x01 == 0x01)
    #expect(try ide.quit() == .exited(code: 0))
  }

  @Test("data files: what the machine file gives, and of a backing image what that names")
  func dataFiles() throws {
    let images = try Images()
    try images.make(
      "lower.qcow2", ["-o", "data_file=\(images.folder)/lower.data"], from: "base.raw")
    try images.make(
      "outer.qcow2", ["-o", "data_file=\(images.folder)/data", "-B", "lower.qcow2", "-F", "qcow2"],
      from: "base.raw")
    var drive = Self.disk
    drive.hasDataFile = true
    let ide = try IDEMachine()
    let text = (0..<512).map { UInt8(truncatingIfNeeded: $0 ^ 0x3C) }
    let handed = [try images.open("outer.qcow2", 2), try images.open("data", 2)]
    let files = [
      "lower.qcow2": try images.open("lower.qcow2", 0),
      images.folder + "/lower.data": try images.open("lower.data", 0),
    ]
    try ide.start(drives: [drive], images: handed, files: files)
    try ide.command(0x30, sector: 77, count: 1)
    #expect(try ide.waitWhileBusy() & 0x09 == 0x08)
    try ide.writeWords(0, text)
    #expect(try ide.waitWhileBusy() & 0x29 == 0)
    images.set(text, sector: 77)
    try ide.kill()
    try ide.start(drives: [drive], images: handed, files: files, isRestart: true)
    try ide.command(0x20, sector: 77, count: 1)
    #expect(try ide.waitWhileBusy() & 0x09 == 0x08)
    #expect(try ide.readWords(0, 256) == text)
    #expect(try ide.quit() == .exited(code: 0))
    try images.check("outer.qcow2")
    #expect(try images.open("data", 0).read(512, at: 77 * 512) == text)
  }

  @Test(
    "ends with what the machine file has to say when a data file is missing or not wanted",
    arguments: [true, false])
  func wrongDataFile(isGiven: Bool) throws {
    let images = try Images()
    let kind = isGiven ? [] : ["-o", "data_file=\(images.folder)/data"]
    try images.make("outer.qcow2", kind, from: "base.raw")
    let log = try images.open("log", 0o102)
    var drive = Self.disk
    drive.hasDataFile = isGiven
    let handed =
      [try images.open("outer.qcow2", 2)] + (isGiven ? [try images.open("base.raw", 2)] : [])
    #expect(throws: TestFailure(reason: "\(ChildProcess.Status.exited(code: 1))")) {
      try IDEMachine().start(drives: [drive], images: handed, log: log)
    }
    let text = String(decoding: try log.read(4096, at: 0), as: UTF8.self)
    #expect(
      text.contains(isGiven ? "must not give a data-file" : "data-file = \"PATH\""), "\(text)")
  }

  @Test("the key is gone from the process when it serves, and the process is locked down")
  func keyIsGone() throws {
    let images = try Images()
    try images.makeEncrypted()
    var drive = Self.disk
    drive.hasKey = true
    let ide = try IDEMachine()
    try ide.start(
      drives: [drive], images: [try images.open("secret.qcow2", 2), try images.open("key", 0)])

    let process = "/proc/\(try #require(ide.process?.pid))"
    let open = try Images.run("/usr/bin/ls", ["-l", process + "/fd"])
    let links = String(decoding: open.output, as: UTF8.self)
    #expect(links.contains("/secret.qcow2"))
    #expect(!links.contains(images.folder + "/key"))
    let status = try Images.run(
      "/usr/bin/grep", ["-E", "^(CapEff|NoNewPrivs|Seccomp):", process + "/status"])
    let lines = String(decoding: status.output, as: UTF8.self).split(separator: "\n")
    #expect(
      lines.map { $0.split(separator: "\t").last } == ["0000000000000000", "1", "2"])
    #expect(try ide.quit() == .exited(code: 0))
  }

  @Test("ends with the drive and the reason when the key is wrong or missing")
  func wrongKey() throws {
    let images = try Images()
    try images.makeEncrypted()
    for (hasKey, words) in [(true, "opens none of the key slots"), (false, "key = \"file:PATH\"")] {
      let log = try images.open("log", 0o1102)
      var drive = Self.disk
      drive.hasKey = hasKey
      let handed =
        [try images.open("secret.qcow2", 2)]
        + (hasKey ? [try images.open("wrong", 0)] : [])
      #expect(throws: TestFailure(reason: "\(ChildProcess.Status.exited(code: 1))")) {
        try IDEMachine().start(drives: [drive], images: handed, log: log)
      }
      let text = String(decoding: try log.read(4096, at: 0), as: UTF8.self)
      #expect(text.contains("ide0.0"))
      #expect(text.contains(words), "\(text)")
    }
  }

  @Test("ends with the drive and the field when an image is malformed")
  func malformed() throws {
    let images = try Images()
    let file = try images.open("top.qcow2", 2)
    try file.write([0, 0, 0, 40], at: 20)  // cluster_bits
    let log = try images.open("log", 0o102)

    #expect(throws: TestFailure(reason: "\(ChildProcess.Status.exited(code: 1))")) {
      try IDEMachine().start(drives: [Self.disk], images: [file], log: log)
    }
    let text = String(decoding: try log.read(4096, at: 0), as: UTF8.self)
    #expect(text.contains("ide0.0"))
    #expect(text.contains("cluster_bits"))
  }
}
