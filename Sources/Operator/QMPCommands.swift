// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor

/// QMP's commands, done by asking the machine.
public struct QMPCommands {
  let machine: any MachineAccess
  let schema: QMPSchema
  let human: HumanMonitor
  /// What was begun, and not yet dismissed.
  public let jobs = JobList()

  public init(_ machine: any MachineAccess, _ schema: QMPSchema) {
    self.machine = machine
    self.schema = schema
    human = HumanMonitor(machine)
  }

  /// QEMU's version that the commands are those of, and ours.
  static let version: JSONValue = [
    "qemu": ["major": 7, "minor": 2, "micro": 0], "package": "bulkhead 0.1.0",
  ]

  /// Does one command; the arguments are as the schema says.
  func run(_ name: String, _ arguments: [String: JSONValue]) throws(CommandError) -> JSONValue {
    try schema.check(arguments, of: name)
    switch name {
    case "stop": try machine.order(.pause)
    case "cont": try machine.order(.resume)
    case "system_reset": try machine.order(.reset)
    case "system_powerdown": try machine.order(.powerButton)
    case "system_wakeup": try Self.wakeUp(machine)
    case "quit": try machine.order(.stop)
    case "inject-nmi": try machine.order(.nmi)
    case "send-key": try InputEvents(machine: machine).sendKeys(arguments)
    case "input-send-event": try InputEvents(machine: machine).send(arguments)
    case "eject":
      try Drives(machine: machine).eject(
        device: arguments["device"]?.string, id: arguments["id"]?.string,
        force: arguments["force"]?.bool ?? false)
    case "blockdev-change-medium":
      try Drives(machine: machine).change(
        device: arguments["device"]?.string, id: arguments["id"]?.string,
        file: arguments["filename"]?.string ?? "", format: arguments["format"]?.string,
        mode: arguments["read-only-mode"]?.string, force: arguments["force"]?.bool ?? false)
    case "block_resize":
      try Drives(machine: machine).resize(
        device: arguments["device"]?.string, node: arguments["node-name"]?.string,
        to: arguments["size"]?.integer ?? 0)
    case "snapshot-save", "snapshot-load", "snapshot-delete":
      try Snapshots(machine: machine).begin(name, arguments, jobs)
    case "job-dismiss": try jobs.dismiss(arguments["id"]?.string ?? "", machine)
    case "blockdev-snapshot-sync": try Snapshots(machine: machine).overlay(arguments)
    case "dump-guest-memory": try MemoryDump(machine: machine).run(arguments)
    case "screendump": try Screen.dump(machine, arguments)
    case "memsave", "pmemsave": try saveMemory(arguments, isPhysical: name == "pmemsave")
    case "__org.bulkhead_device-restart":
      _ = try machine.ask(
        .restartDevice, DeviceRequest(role: arguments["role"]?.string ?? ""), as: Empty.self)
    case "human-monitor-command":
      let index = try cpuIndex(arguments)
      let text = try human.run(arguments["command-line"]?.string ?? "", cpu: index)
      return .string(text.replacing("\n", with: "\r\n"))
    default: return try query(name, arguments)
    }
    return [:]
  }

  private func query(
    _ name: String, _ arguments: [String: JSONValue]
  ) throws(CommandError) -> JSONValue {
    switch name {
    case "query-status": return try status()
    case "query-version": return Self.version
    case "query-commands": return .array(schema.commands.map { ["name": .string($0)] })
    case "query-qmp-schema": return schema.entries
    case "query-cpus-fast": return try cpus()
    case "query-kvm":
      let isKVM = try machine.status().accelerator.hasPrefix("kvm")
      return ["enabled": .bool(isKVM), "present": .bool(isKVM)]
    case "query-machines":
      return [
        [
          "name": "pc-i440fx-7.2", "alias": "pc", "is-default": true, "cpu-max": 16,
          "hotpluggable-cpus": false, "numa-mem-supported": false, "deprecated": false,
          "default-ram-id": "pc.ram",
        ]
      ]
    case "query-memory-size-summary":
      return [
        "base-memory": JSONValue(bits: try machine.status().memoryByteCount), "plugged-memory": 0,
      ]
    case "query-block": return .array(Drives(machine: machine).entries().map { Drives.qmp($0) })
    case "query-blockstats":
      return .array(Drives(machine: machine).entries().map { Drives.statistics($0) })
    case "query-dump-guest-memory-capability": return ["formats": ["elf"]]
    case "query-jobs": return jobs.entries
    case "query-chardev": return .array(chardevs())
    case "query-vnc": return ["enabled": false]
    case "query-pci": return try pci()
    case "query-name": return ["name": .string(machine.settings.common.machine)]
    case "query-uuid": return ["UUID": .string(machine.settings.uuid)]
    case "qom-list": return try list(arguments["path"]?.string ?? "")
    case "qom-get":
      return try get(arguments["path"]?.string ?? "", arguments["property"]?.string ?? "")
    case "__org.bulkhead_query-devices":
      return .array(
        try machine.status().devices.map {
          [
            "role": .string($0.role), "state": .string($0.state),
            "restarts": .integer(Int64($0.restarts)), "live": JSONValue(bits: $0.live),
            "posted": JSONValue(bits: $0.posted), "mirrored": JSONValue(bits: $0.mirrored),
          ]
        })
    case "query-current-machine": return ["wakeup-suspend-support": true]
    default: throw CommandError("this machine cannot do \(name) yet")
    }
  }

  /// Wakes a suspended machine by its power button.
  static func wakeUp(_ machine: any MachineAccess) throws(CommandError) {
    guard try runState(machine) == "suspended" else {
      throw CommandError("Unable to wake up: guest is not in suspended state")
    }
    try machine.order(.powerButton)
  }

  /// The run state, by QEMU's names.
  static func runState(_ machine: any MachineAccess) throws(CommandError) -> String {
    let status = try machine.status()
    switch status.state {
    case "running": return "running"
    case "suspended": return "suspended"
    case "starting": return "prelaunch"
    case "ending": return "shutdown"
    default: break
    }
    if status.reason == "the operator asked for it" { return "paused" }
    if status.reason.hasPrefix("a snapshot is") { return "save-vm" }
    if status.reason.hasPrefix("the debugger") { return "debug" }
    if status.reason == "the guest has panicked" { return "guest-panicked" }
    return machine.isHeldForHost ? "io-error" : "internal-error"
  }

  private func status() throws(CommandError) -> JSONValue {
    let state = try Self.runState(machine)
    return [
      "running": .bool(state == "running"), "singlestep": false, "status": .string(state),
    ]
  }

  private func cpus() throws(CommandError) -> JSONValue {
    let threads = try machine.threads()
    let count = Int(try machine.status().cpus)
    return .array(
      (0..<count).map { index in
        [
          "cpu-index": .integer(Int64(index)), "qom-path": .string(QOMTree.path(ofCPU: index)),
          "thread-id": .integer(Int64(machine.threadID(index, in: threads))),
          "target": "x86_64",
          "props": ["socket-id": 0, "core-id": .integer(Int64(index)), "thread-id": 0],
        ]
      })
  }

  static func name(_ drive: MonitorSettings.Drive) -> String {
    "ide\(drive.slot / 2)-\(drive.isCDROM ? "cd" : "hd")\(drive.slot % 2)"
  }

  private func chardevs() -> [JSONValue] {
    machine.settings.ports.enumerated().map { index, port in
      [
        "label": .string("serial\(index)"), "filename": .string(port.backend),
        "frontend-open": true,
      ]
    }
  }

  private func pci() throws(CommandError) -> JSONValue {
    let reply: FunctionsReply = try machine.ask(.functions, Empty())
    let devices = reply.functions.map { function -> JSONValue in
      let header = PCIHeader(function)
      var value: [String: JSONValue] = [
        "bus": 0, "slot": .integer(Int64(function.devfn >> 3)),
        "function": .integer(Int64(function.devfn & 7)),
        "class_info": [
          "class": .integer(Int64(header.classCode)), "desc": .string(header.className),
        ],
        "id": [
          "vendor": .integer(Int64(header.vendor)), "device": .integer(Int64(header.device)),
          "subsystem-vendor": .integer(Int64(header.subsystemVendor)),
          "subsystem": .integer(Int64(header.subsystem)),
        ],
        "irq_pin": .integer(Int64(header.pin)), "qdev_id": "",
      ]
      if header.pin != 0 { value["irq"] = .integer(Int64(header.line)) }
      value["regions"] = .array(
        header.regions.map { region in
          var entry: [String: JSONValue] = [
            "bar": .integer(Int64(region.bar)), "type": region.isPort ? "io" : "memory",
            "address": region.address.map { .integer(Int64($0)) } ?? -1,
            "size": .integer(Int64(region.size)),
          ]
          if !region.isPort {
            entry["prefetch"] = .bool(region.isPrefetchable)
            entry["mem_type_64"] = false
          }
          return .object(entry)
        })
      return .object(value)
    }
    return [["bus": 0, "devices": .array(devices)]]
  }

  /// The vCPU that a command is about.
  private func cpuIndex(_ arguments: [String: JSONValue]) throws(CommandError) -> Int {
    guard let index = arguments["cpu-index"]?.integer else { return 0 }
    guard index >= 0, index < Int64(try machine.status().cpus) else {
      throw CommandError("Parameter 'cpu-index' expects a CPU number")
    }
    return Int(index)
  }

  // MARK: - Memory

  private func saveMemory(
    _ arguments: [String: JSONValue], isPhysical: Bool
  ) throws(CommandError) {
    let start = UInt64(bitPattern: arguments["val"]?.integer ?? 0)
    let size = arguments["size"]?.integer ?? 0
    guard size >= 0, size <= 1 << 40 else { throw CommandError("a size of \(size) bytes") }
    let cpu = isPhysical ? nil : try machine.vcpu(try cpuIndex(arguments))
    try MemoryFileWriter.write(
      machine, start, Int(size), cpu, to: arguments["filename"]?.string ?? "")
  }
}

/// Writes guest memory to a file.
enum MemoryFileWriter {
  static func write(
    _ machine: any MachineAccess, _ start: UInt64, _ count: Int, _ cpu: VCPUReply?, to path: String
  ) throws(CommandError) {
    // Nothing is made of an address that is wrong from the beginning.
    let read: (UInt64, Int) -> [UInt8]? = { address, count in
      if let cpu { return machine.linear(address, count, cpu) }
      return machine.physical(address, count)
    }
    guard count == 0 || read(start, 1) != nil else {
      throw CommandError("Invalid addr 0x\(hex(start, 16))/size \(count) specified")
    }
    let file = try machine.makeFile(path)
    var done = 0
    while done < count {
      let piece = min(count - done, 4096)
      guard let bytes = read(start &+ UInt64(done), piece) else {
        throw CommandError("Invalid addr 0x\(hex(start, 16))/size \(count) specified")
      }
      guard (try? file.writeAll(bytes)) != nil else {
        throw CommandError("the file cannot be written")
      }
      done += piece
    }
  }
}

/// A number in hexadecimal digits, with zeroes in front.
func hex(_ value: UInt64, _ digits: Int) -> String {
  let text = String(value, radix: 16)
  return String(repeating: "0", count: max(0, digits - text.count)) + text
}
