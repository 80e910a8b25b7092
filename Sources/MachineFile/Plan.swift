// SPDX-License-Identifier: Apache-2.0

/// What would be started for a machine: shown by `vmlaunch check`.
///
/// It follows from the machine file alone: of the host, nothing is in it.
public struct Plan: Hashable, Sendable {
  /// A file descriptor that a process has for its work, with where it is from if that is not
  /// the launcher.
  public struct Descriptor: Hashable, Sendable {
    /// Its role, such as `drive ide0.0`.
    public var role: String
    /// What it is, such as `disk.qcow2 (qcow2, read-write)`.
    public var what: String

    public init(_ role: String, _ what: String) {
      self.role = role
      self.what = what
    }
  }

  /// One process.
  public struct Process: Hashable, Sendable {
    /// The executable's name.
    public var name: String
    /// The sandbox profile's name.
    public var profile: String
    public var descriptors: [Descriptor]
    /// What it will claim of the machine; the core claims nothing.
    public var claims: [Claim]
    /// What else to say, such as its deadline.
    public var notes: [String]

    public init(
      name: String, profile: String, descriptors: [Descriptor] = [], claims: [Claim] = [],
      notes: [String] = []
    ) {
      self.name = name
      self.profile = profile
      self.descriptors = descriptors
      self.claims = claims
      self.notes = notes
    }
  }

  public var name: String
  /// One line each about the machine as a whole.
  public var summary: [String]
  public var processes: [Process]

  /// Derives the plan from a machine.
  public init(_ machine: Machine) {
    name = machine.name
    summary = Self.summary(of: machine)
    processes = [
      Self.core(machine), Self.piix(machine), Self.ide(machine), Self.serial(machine),
      Self.vga(machine),
    ]
    if machine.monitor.isServed { processes.append(Self.monitor(machine)) }
  }

  private static func summary(of machine: Machine) -> [String] {
    let model =
      switch machine.cpuModel {
      case .host: "host"
      case .base: "base"
      case .named(let name): name
      }
    let cpus = machine.cpus == 1 ? "1 CPU" : "\(machine.cpus) CPUs"
    return [
      "accelerator \(machine.accelerator.rawValue)", "\(cpus), model \(model)",
      "memory \(machine.memory)", "firmware \(firmware(machine))",
      "boot " + machine.boot.order.map(\.rawValue).joined(separator: ", then ")
        + (machine.boot.menu ? ", with a menu" : ""),
      "isolation \(machine.isolation.rawValue)",
      "control socket \(machine.monitor.control ?? "in the runtime folder")",
    ]
  }

  private static func monitor(_ machine: Machine) -> Process {
    var process = Process(name: "vmmonitor", profile: "monitor")
    process.descriptors = [Descriptor("core", "socket to vmcore")]
    process.descriptors += machine.monitor.served.map {
      Descriptor(String($0.key.dropFirst(8)), "listening socket \($0.path)")
    }
    if machine.monitor.usesStream {
      process.descriptors.append(Descriptor("stdio", "input and output of vmlaunch"))
      if machine.monitor.hmp == .stdio, machine.serial.contains(.stdio) {
        process.descriptors.append(Descriptor("serial", "socket to vmdev-serial"))
      }
    }
    if let folder = machine.monitor.media {
      process.notes.append("discs that commands insert: from vmlaunch, in \(folder)")
    }
    if let folder = machine.monitor.snapshots {
      process.notes.append("snapshots: from vmlaunch, in \(folder)")
    }
    if let folder = machine.monitor.output {
      process.notes.append("files that commands write: from vmlaunch, in \(folder)")
    }
    return process
  }

  private static func firmware(_ machine: Machine) -> String {
    switch machine.firmware {
    case .seaBIOS: "seabios"
    case .path(let path): path
    }
  }

  private static func core(_ machine: Machine) -> Process {
    var process = Process(name: "vmcore", profile: "core")
    if machine.accelerator == .auto || machine.accelerator == .kvm {
      process.descriptors.append(Descriptor("accelerator", "/dev/kvm"))
    }
    process.descriptors += [
      Descriptor("guest memory", "memfd of its own, \(machine.memory)"),
      Descriptor("firmware", firmware(machine) + " (read-only)"),
      Descriptor("control", "listening socket"),
    ]
    for name in Machine.DeviceName.allCases.map(\.rawValue) {
      process.descriptors += [
        Descriptor("state page \(name)", "memfd"),
        Descriptor("device \(name)", "socket to vmdev-\(name)"),
      ]
    }
    process.notes.append(machine.cpus == 1 ? "1 vCPU thread" : "\(machine.cpus) vCPU threads")
    return process
  }

  private static func piix(_ machine: Machine) -> Process {
    var process = device(.piix, machine)
    if let console = machine.debug.console {
      process.descriptors.append(Descriptor("debug console", text(console)))
    }
    process.claims = piixClaims(machine)
    return process
  }

  private static func ide(_ machine: Machine) -> Process {
    var process = device(.ide, machine)
    for drive in machine.drives {
      let media = drive.media == .cdrom ? "cdrom, " : ""
      let access = drive.isReadOnly ? "read-only" : "read-write"
      guard !drive.isEmpty else { continue }
      process.descriptors.append(
        Descriptor(
          "drive \(drive.slot.rawValue)",
          "\(drive.image) (\(media)\(drive.format.rawValue), \(access))"))
      if let file = drive.dataFile {
        process.descriptors.append(
          Descriptor("data file of \(drive.slot.rawValue)", "\(file) (\(access))"))
      }
      if let key = drive.key {
        process.descriptors.append(
          Descriptor("key of \(drive.slot.rawValue)", key + " (read-only)"))
      }
    }
    process.claims = ideClaims(machine)
    return process
  }

  private static func serial(_ machine: Machine) -> Process {
    var process = device(.serial, machine)
    for (index, backend) in machine.serial.enumerated() {
      process.descriptors.append(Descriptor("COM\(index + 1)", text(backend)))
    }
    process.claims = serialClaims(machine)
    return process
  }

  private static func vga(_ machine: Machine) -> Process {
    var process = device(.vga, machine)
    process.descriptors += [
      Descriptor("video memory", "memfd from vmcore, 16MiB"),
      Descriptor("VGA BIOS", (machine.vgaBIOS ?? "seabios") + " (read-only)"),
    ]
    process.claims = vgaClaims(machine)
    return process
  }

  private static func device(_ name: Machine.DeviceName, _ machine: Machine) -> Process {
    let settings = machine.devices[name]
    return Process(
      name: "vmdev-\(name.rawValue)", profile: name.rawValue,
      descriptors: [
        Descriptor("core", settings.socket.map { "socket \($0)" } ?? "socket to vmcore"),
        Descriptor("state page", "memfd from vmcore"),
      ],
      notes: ["deadline \(TimeSpan.text(settings.deadline)), on fault \(settings.onFault.rawValue)"]
    )
  }

  private static func text(_ backend: Machine.Backend) -> String {
    switch backend {
    case .stdio: "stdio"
    case .pty: "a new pty"
    case .file(let path): "file \(path)"
    case .unix(let path): "listening socket \(path)"
    case .connect(let path): "connection to the socket \(path)"
    case .null: "nothing"
    }
  }
}

extension Plan: CustomStringConvertible {
  /// The plan as plain text, one fact on each line.
  public var description: String {
    var lines = ["machine \(name)"]
    lines += summary.map { "  " + $0 }
    for process in processes {
      lines.append("process \(process.name) (sandbox profile \(process.profile))")
      lines += process.notes.map { "  \($0)" }
      lines += process.descriptors.map { "  fd     \($0.role): \($0.what)" }
      lines += process.claims.map { "  claim  \($0)" }
    }
    return lines.joined(separator: "\n") + "\n"
  }
}
