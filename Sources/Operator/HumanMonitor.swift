// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import Monitor

/// The human monitor: one command on a line, its answer as text.
public struct HumanMonitor {
  let machine: any MachineAccess

  public init(_ machine: any MachineAccess) { self.machine = machine }

  /// The commands, with what follows them and what they do.
  private static let commands: [(name: String, parameters: String, meaning: String)] = [
    ("block_resize", "device size", "resize a block image"),
    ("c|cont", "", "let the machine go on"),
    (
      "change", "device [-f] filename [format [read-only-mode]]",
      "change a removable medium, use -f to force the operation"
    ),
    ("delvm", "tag", "delete a VM snapshot from its tag"),
    (
      "dump-guest-memory", "[-p] filename [begin length]",
      "dump guest memory into an ELF file; -p: as the page tables map it"
    ),
    ("eject", "[-f] device", "eject a removable medium (use -f to force it)"),
    (
      "gdbserver", "[device]",
      "start gdbserver on given device (unix:PATH, by default the usual one), stop with 'none'"
    ),
    ("help|?", "[cmd]", "show the help"),
    ("i", "/fmt addr", "I/O port read"),
    ("info", "[subcommand]", "show various information about the system state"),
    ("loadvm", "tag", "restore a VM snapshot from its tag"),
    ("mouse_button", "state", "change the mouse's buttons (1=L, 2=M, 4=R)"),
    ("mouse_move", "dx dy [dz]", "send mouse move events"),
    ("nmi", "", "inject an NMI"),
    ("o", "/fmt addr value", "I/O port write"),
    ("print|p", "/fmt expr", "print expression value (use $reg for CPU register access)"),
    ("q|quit", "", "end the machine"),
    ("s|stop", "", "hold the machine"),
    ("savevm", "[tag]", "save a VM snapshot; one of that tag is replaced"),
    ("screendump", "filename [-f format]", "save the screen as a PPM or PNG picture"),
    ("memsave", "addr size file", "save to disk virtual memory dump"),
    ("pmemsave", "addr size file", "save to disk physical memory dump"),
    ("sendkey", "keys", "send keys to the machine (e.g. 'sendkey ctrl-alt-f1')"),
    (
      "snapshot_blkdev", "device new-image-file [format]",
      "let a disk go on in a new qcow2 image on top of its own"
    ),
    ("sum", "addr size", "compute the checksum of a memory region"),
    ("system_powerdown", "", "press the power button"),
    ("system_reset", "", "reset the machine"),
    ("system_wakeup", "", "wake the machine up from suspend"),
    ("x", "/fmt addr", "virtual memory dump starting at 'addr'"),
    ("xp", "/fmt addr", "physical memory dump starting at 'addr'"),
  ]

  private static let subjects: [(name: String, meaning: String)] = [
    ("block", "show the drives"), ("blockstats", "show what the drives have done"),
    ("chardev", "show the character devices"),
    ("cpus", "show the vCPUs"), ("irq", "show how often each interrupt line was raised"),
    ("kvm", "show whether KVM runs the machine"),
    ("mem", "show the active virtual memory mappings"),
    ("mice", "show the mouse"), ("mtree", "show the memory map and the ports"),
    ("name", "show the machine's name"),
    ("pci", "show the PCI functions"), ("pic", "show the interrupt controllers"),
    ("qom-tree", "show the tree of objects"), ("qtree", "show the devices"),
    ("registers", "show the registers of a vCPU; -a: of all"), ("roms", "show the ROMs"),
    ("snapshots", "show the saved VM snapshots"),
    ("status", "show whether the machine runs"), ("tlb", "show the virtual-to-physical mappings"),
    ("uuid", "show the machine's UUID"), ("version", "show the version"),
    ("vnc", "show the VNC server's status"),
  ]

  /// Does one line; an error of the command is part of the text, as people know it.
  public func run(_ line: String, cpu: Int = 0) throws(CommandError) -> String {
    let line = Substring(line).drop { $0 == " " || $0 == "\t" }
    let name = line.prefix { $0 != " " && $0 != "\t" && $0 != "/" }
    var rest = line.dropFirst(name.count).drop { $0 == " " || $0 == "\t" }
    while let last = rest.last, last.isWhitespace { rest.removeLast() }
    do throws(CommandError) {
      return try run(String(name), rest, cpu)
    } catch {
      return "Error: \(error)\r\n".replacing("\r\n", with: "\n")
    }
  }

  private func run(_ name: String, _ rest: Substring, _ cpu: Int) throws(CommandError) -> String {
    switch name {
    case "": return ""
    case "c", "cont": try machine.order(.resume)
    case "s", "stop": try machine.order(.pause)
    case "system_reset": try machine.order(.reset)
    case "system_powerdown": try machine.order(.powerButton)
    case "system_wakeup": try QMPCommands.wakeUp(machine)
    case "nmi": try machine.order(.nmi)
    case "q", "quit": try machine.order(.stop)
    case "help", "?": return help(rest)
    case "info": return try info(rest, cpu)
    case "print", "p": return try printValue(rest, cpu)
    case "x": return try dump(rest, cpu, isPhysical: false)
    case "xp": return try dump(rest, cpu, isPhysical: true)
    case "sum": return try sum(rest, cpu)
    case "sendkey": try sendKey(rest)
    case "screendump": try screendump(rest)
    case "memsave", "pmemsave": try save(rest, cpu, isPhysical: name == "pmemsave")
    case "i": return try readPort(rest, cpu)
    case "o": try writePort(rest, cpu)
    case "eject": return try eject(rest)
    case "change": return try change(rest)
    case "block_resize": return try resizeDisk(rest)
    case "gdbserver": return serveDebugger(rest)
    case "savevm", "loadvm", "delvm": try Snapshots(machine: machine).run(name, rest.trimmed)
    case "snapshot_blkdev": try Snapshots(machine: machine).overlay(line: rest)
    case "mouse_move": try moveMouse(rest)
    case "mouse_button": try setMouseButtons(rest)
    case "dump-guest-memory": try dumpMemory(rest, cpu)
    default: return "unknown command: '\(name)'\n"
    }
    return ""
  }

  private func help(_ rest: Substring) -> String {
    if rest == "info" {
      return Self.subjects.map { "info \($0.name) -- \($0.meaning)\n" }.joined()
    }
    return Self.commands.filter { command in
      rest.isEmpty || command.name.split(separator: "|").contains(rest)
    }.map { command in
      let parameters = command.parameters.isEmpty ? "" : command.parameters + " "
      return "\(command.name) \(parameters)-- \(command.meaning)\n"
    }.joined()
  }

  /// The rest of the command or subject that a line begins with, as far as it is certain.
  func completion(of line: String) -> String? {
    let words = line.split(separator: " ", omittingEmptySubsequences: false)
    let names: [String]
    switch words.count {
    case 1:
      names = Self.commands.flatMap { $0.name.split(separator: "|").map(String.init) }
        .filter { $0.count > 1 }
    case 2 where words[0] == "info": names = Self.subjects.map(\.name)
    default: return nil
    }
    let start = words.last.map(String.init) ?? ""
    let found = names.filter { $0.hasPrefix(start) }
    guard var common = found.first else { return nil }
    for name in found { common = String(zip(common, name).prefix { $0 == $1 }.map(\.0)) }
    return String(common.dropFirst(start.count)) + (found.count == 1 ? " " : "")
  }

  // MARK: - Values and memory

  func value(
    _ text: Substring, _ cpu: Int
  ) throws(CommandError) -> (value: UInt64, rest: Substring) {
    var registers: VCPUReply?
    let machine = machine
    return try Expression.read(text) { name in
      if registers == nil { registers = try? machine.vcpu(cpu) }
      return registers.flatMap { RegisterText.value(name, $0) }
    }
  }

  func onlyValue(_ text: Substring, _ cpu: Int) throws(CommandError) -> UInt64 {
    let (value, rest) = try value(text, cpu)
    guard rest.allSatisfy(\.isWhitespace) else {
      throw CommandError("extraneous characters at the end of line")
    }
    return value
  }

  private func printValue(_ rest: Substring, _ cpu: Int) throws(CommandError) -> String {
    var rest = rest
    let format = try DumpFormat(&rest, size: 8)
    let value = try onlyValue(rest, cpu)
    switch format.format {
    case "x": return "0x" + String(value, radix: 16) + "\n"
    case "o": return (value == 0 ? "0" : "0" + String(value, radix: 8)) + "\n"
    case "u": return "\(value)\n"
    case "c": return format.text(value) + "\n"
    default: return "\(Int64(bitPattern: value))\n"
    }
  }

  private func dump(
    _ rest: Substring, _ cpu: Int, isPhysical: Bool
  ) throws(CommandError) -> String {
    var rest = rest
    let format = try DumpFormat(&rest)
    guard format.format != "i" else { throw CommandError("there is no disassembler here; use gdb") }
    let address = try onlyValue(rest, cpu)
    if isPhysical { return format.dump(address) { machine.physical($0, $1) } }
    let registers = try machine.vcpu(cpu)
    return format.dump(address) { machine.linear($0, $1, registers) }
  }

  /// The sum of BSD's `sum`.
  private func sum(_ rest: Substring, _ cpu: Int) throws(CommandError) -> String {
    let (start, more) = try value(rest, cpu)
    let size = try onlyValue(more, cpu)
    guard size <= 1 << 30 else { throw CommandError("at most 1 GiB is accepted") }
    var sum: UInt16 = 0
    var done: UInt64 = 0
    while done < size {
      let piece = min(size - done, 4096)
      // What cannot be read counts as zeroes.
      let bytes =
        machine.physical(start &+ done, Int(piece)) ?? [UInt8](repeating: 0, count: Int(piece))
      for byte in bytes {
        sum = sum >> 1 | sum << 15
        sum &+= UInt16(byte)
      }
      done += piece
    }
    let text = String(sum)
    return String(repeating: "0", count: max(0, 5 - text.count)) + text + "\n"
  }

  private func save(_ rest: Substring, _ cpu: Int, isPhysical: Bool) throws(CommandError) {
    let (start, more) = try value(rest, cpu)
    let (size, file) = try value(more, cpu)
    guard size <= 1 << 40 else { throw CommandError("a size of \(size) bytes") }
    let path = file.trimmed
    guard !path.isEmpty else { throw CommandError("memsave: string expected") }
    try MemoryFileWriter.write(
      machine, start, Int(size), isPhysical ? nil : try machine.vcpu(cpu), to: path)
  }

  private func screendump(_ rest: Substring) throws(CommandError) {
    var words = rest.split(separator: " ").map(String.init)
    var arguments: [String: JSONValue] = [:]
    if let place = words.firstIndex(of: "-f"), place + 1 < words.count {
      arguments["format"] = .string(words[place + 1])
      words.removeSubrange(place...place + 1)
    }
    guard words.count == 1 else { throw CommandError("screendump: a file name expected") }
    arguments["filename"] = .string(words[0])
    try Screen.dump(machine, arguments)
  }

  private func sendKey(_ rest: Substring) throws(CommandError) {
    let word = rest.split(separator: " ").first.map(String.init) ?? ""
    let named = word.replacing("<", with: "less").split(
      separator: "-", omittingEmptySubsequences: false
    ).map { part in
      // A key may be named by its number, too.
      part.hasPrefix("0x")
        ? Int(part.dropFirst(2), radix: 16).flatMap { KeyStrokes.name(number: $0) } ?? ""
        : String(part)
    }.joined(separator: "-")
    guard let keys = KeyStrokes.chord(named), keys.count <= 32 else {
      throw CommandError("invalid parameter: \(word)")
    }
    _ = try machine.ask(.input, InputRequest(keys: keys), as: Empty.self)
  }
}

extension Substring {
  var trimmed: String {
    var rest = drop(while: \.isWhitespace)
    while let last = rest.last, last.isWhitespace { rest.removeLast() }
    return String(rest)
  }
}
