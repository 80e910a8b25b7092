// SPDX-License-Identifier: Apache-2.0

/// Turns a parsed document into a machine.
struct MachineReader {
  var reader = TableReader()
  var paths: PathReader

  init(fileName: String) { paths = PathReader(fileName: fileName) }

  /// Reads everything; what is wrong is in `reader.diagnostics`.
  mutating func machine(_ document: TOMLNode) -> Machine {
    var machine = Machine(name: "")
    guard let root = reader.table(document, path: "") else { return machine }
    machine.name = name(root)
    // In the order in which two keys that want the same thing should be blamed.
    readDrives(root, &machine)
    readSerial(root, &machine)
    if let table = reader.table("machine", in: root) { readMachine(table, &machine) }
    if let table = reader.table("boot", in: root) { readBoot(table, &machine) }
    if let table = reader.table("display", in: root) { readDisplay(table, &machine) }
    if let table = reader.table("monitor", in: root) { readMonitor(table, &machine) }
    if let table = reader.table("debug", in: root) { readDebug(table, &machine) }
    if let table = reader.table("isolation", in: root) {
      machine.isolation =
        reader.choice("level", in: table, "an isolation level")?.value ?? machine.isolation
    }
    if let table = reader.table("log", in: root) {
      machine.logLevel = reader.choice("level", in: table, "a log level")?.value ?? machine.logLevel
    }
    if let table = reader.table("device", in: root) { readDevices(table, &machine) }
    return machine
  }

  private static let nameRule =
    "1 to 63 of a-z, 0-9, \"_\", \".\" and \"-\", the first a letter or digit"

  private mutating func name(_ root: Table) -> String {
    guard root.members["name"] != nil else {
      reader.missing("name", in: root, accepted: Self.nameRule)
      return ""
    }
    guard let text = reader.string("name", in: root, accepted: Self.nameRule) else { return "" }
    let bytes = Array(text.value.utf8)
    let isPlain = { (byte: UInt8) in
      (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
        || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }
    let isRest = { (byte: UInt8) in
      isPlain(byte) || [UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-")].contains(byte)
    }
    guard let first = bytes.first, isPlain(first), bytes.count <= 63, bytes.allSatisfy(isRest)
    else {
      reader.report(text, "\(quoted(text.value)) is not a name", accepted: Self.nameRule)
      return ""
    }
    return text.value
  }

  private mutating func readMachine(_ table: Table, _ machine: inout Machine) {
    machine.accelerator =
      reader.choice("accelerator", in: table, "an accelerator")?.value ?? machine.accelerator
    machine.cpus =
      reader.integer("cpus", in: table, range: 1...255, accepted: "1 to 255")?.value
      ?? machine.cpus
    machine.memory = memory(table) ?? machine.memory
    let models = "host, base, or the name of a CPU model"
    if let model = reader.string("cpu-model", in: table, accepted: models) {
      switch model.value {
      case "host": machine.cpuModel = .host
      case "base": machine.cpuModel = .base
      default:
        let isName =
          !model.value.isEmpty
          && model.value.allSatisfy {
            $0.isASCII && ($0.isLetter || $0.isNumber || "_.-".contains($0))
          }
        if isName {
          machine.cpuModel = .named(model.value)
        } else {
          reader.report(
            model, "\(quoted(model.value)) is not a CPU model", accepted: models)
        }
      }
    }
    machine.translatesCode =
      reader.boolean("translator", in: table)?.value ?? machine.translatesCode
    if let firmware = reader.string(
      "firmware", in: table, accepted: "seabios, or the path of a firmware image")
    {
      if firmware.value == "seabios" {
        machine.firmware = .seaBIOS
      } else if let path = paths.path(firmware, &reader) {
        machine.firmware = .path(path)
        paths.claimReading(path, for: firmware.key, &reader)
      }
    }
    machine.uuid = uuid(table)
    machine.onPanic = reader.choice("on-panic", in: table, "an answer to a panic")?.value
    machine.vgaBIOS = paths.path("vga-bios", in: table, &reader)
    if let path = machine.vgaBIOS { paths.claimReading(path, for: "machine.vga-bios", &reader) }
  }

  /// Reads 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.
  private mutating func uuid(_ table: Table) -> [UInt8]? {
    let form = "a UUID such as 6f2a1c3e-58b4-4d0f-9a77-0c1d2e3f4a5b"
    guard let text = reader.string("uuid", in: table, accepted: form) else { return nil }
    let groups = text.value.split(separator: "-", omittingEmptySubsequences: false)
    let digits = groups.joined().compactMap { $0.isASCII ? $0.hexDigitValue : nil }
    guard groups.map(\.utf8.count) == [8, 4, 4, 4, 12], digits.count == 32 else {
      reader.report(text, "\(quoted(text.value)) is not a UUID", accepted: form)
      return nil
    }
    return (0..<16).map { UInt8(digits[2 * $0] << 4 | digits[2 * $0 + 1]) }
  }

  private mutating func memory(_ table: Table) -> MemorySize? {
    let form = "a whole number with KiB, MiB, GiB or TiB, such as 512MiB"
    guard let text = reader.string("memory", in: table, accepted: form) else { return nil }
    do {
      return try MemorySize.parse(text.value)
    } catch {
      switch error {
      case .form:
        reader.report(text, "\(quoted(text.value)) is not a memory size", accepted: form)
      case .range:
        reader.report(
          text, "\(quoted(text.value)) is out of range",
          accepted: "\(MemorySize.minimum) to \(MemorySize.maximum)")
      case .multiple:
        reader.report(
          text, "\(quoted(text.value)) is not a whole number of MiB",
          accepted: "a multiple of 1MiB")
      }
      return nil
    }
  }

  private mutating func readBoot(_ table: Table, _ machine: inout Machine) {
    let media = Machine.Boot.Medium.allCases.map(\.rawValue).joined(separator: ", ")
    if let member = table.members["order"] {
      reader.places["boot.order"] = member.node.offset
      var order: [Machine.Boot.Medium] = []
      let words = reader.strings(
        member.node, path: "boot.order", accepted: "a list of \(media)")
      if let words, words.isEmpty {
        reader.report(
          member.node.offset, "boot.order", "the list is empty", "accepted: a list of \(media)")
      }
      for word in words ?? [] {
        guard let medium = Machine.Boot.Medium(rawValue: word.value) else {
          reader.report(word, "\(quoted(word.value)) is not a boot medium", accepted: media)
          break
        }
        guard !order.contains(medium) else {
          reader.report(word, "\(quoted(word.value)) is listed twice", accepted: "each once")
          break
        }
        order.append(medium)
      }
      machine.boot.order = order
    }
    machine.boot.menu = reader.boolean("menu", in: table)?.value ?? machine.boot.menu
    machine.boot.kernel = paths.path("kernel", in: table, &reader)
    machine.boot.initrd = paths.path("initrd", in: table, &reader)
    machine.boot.commandLine =
      reader.string("cmdline", in: table, accepted: "a kernel command line")?.value
    for key in ["initrd", "cmdline"] {
      guard table.members["kernel"] == nil, let member = table.members[key] else { continue }
      reader.report(
        member.keyOffset, "boot." + key, "needs boot.kernel", "accepted: \(key) with kernel")
    }
    if let kernel = table.members["kernel"], let order = table.members["order"] {
      reader.report(
        max(kernel.keyOffset, order.keyOffset),
        kernel.keyOffset > order.keyOffset ? "boot.kernel" : "boot.order",
        "boot.kernel and boot.order exclude each other", "accepted: one of the two")
    }
  }

  private mutating func readDisplay(_ table: Table, _ machine: inout Machine) {
    let vnc = paths.address("vnc", in: table, &reader)
    let web = paths.address("web", in: table, &reader)
    machine.display.vnc = vnc?.value
    machine.display.web = web?.value
    machine.display.passwordFile = paths.path("password-file", in: table, &reader)
    if let vnc, let web, vnc.value == web.value {
      reader.report(
        web, "\(quoted(web.value.description)) is already used by display.vnc",
        accepted: "an address of its own")
    }
    for address in [vnc, web] {
      guard let address else { continue }
      if case .unix(let path) = address.value { paths.claim(path, for: address.key, &reader) }
      if !address.value.isLocal, table.members["password-file"] == nil {
        reader.report(
          address, "\(quoted(address.value.description)) is open to other hosts",
          accepted: "a loopback address or unix:PATH, or display.password-file with it")
      }
    }
    if let member = table.members["password-file"], table.members["vnc"] == nil,
      table.members["web"] == nil
    {
      reader.report(
        member.keyOffset, "display.password-file", "needs display.vnc or display.web",
        "accepted: password-file with one of them")
    }
  }

  private mutating func readMonitor(_ table: Table, _ machine: inout Machine) {
    machine.monitor.qmp = paths.backend("qmp", in: table, kinds: [.stdio, .unix], &reader)
    machine.monitor.hmp = paths.backend("hmp", in: table, kinds: [.stdio, .unix], &reader)
    machine.monitor.gdb = paths.backend("gdb", in: table, kinds: [.unix], &reader)
    machine.monitor.metrics = paths.backend("metrics", in: table, kinds: [.unix], &reader)
    machine.monitor.output = paths.path("output", in: table, &reader)
    machine.monitor.media = paths.path("media", in: table, &reader)
    machine.monitor.snapshots = paths.path("snapshots", in: table, &reader)
    let control = paths.backend("control", in: table, kinds: [.unix], &reader)
    if case .unix(let path) = control { machine.monitor.control = path }
    paths.claim(machine.monitor.qmp, for: "monitor.qmp", &reader)
    // On stdio the human monitor shares the terminal with a serial port, and with nobody else.
    if machine.monitor.hmp != .stdio || machine.monitor.qmp == .stdio
      || !machine.serial.contains(.stdio)
    {
      paths.claim(machine.monitor.hmp, for: "monitor.hmp", &reader)
    }
    paths.claim(machine.monitor.gdb, for: "monitor.gdb", &reader)
    paths.claim(machine.monitor.metrics, for: "monitor.metrics", &reader)
    paths.claim(control, for: "monitor.control", &reader)
  }

  private mutating func readDebug(_ table: Table, _ machine: inout Machine) {
    machine.debug.console = paths.backend(
      "console", in: table, kinds: [.stdio, .pty, .file, .unix, .null], &reader)
    paths.claim(machine.debug.console, for: "debug.console", &reader)
    let accepted = "0 to 0xFFFF, such as 0xF4"
    if let port = reader.integer(
      "exit-port", in: table, range: 0...0xFFFF, accepted: accepted)
    {
      let number = UInt16(truncatingIfNeeded: port.value)
      if let owner = FixedPorts.owner(of: number) {
        reader.report(
          port, "port 0x\(String(number, radix: 16, uppercase: true)) belongs to \(owner)",
          accepted: "a free port, such as 0xF4")
      }
      machine.debug.exitPort = number
    }
  }
}
