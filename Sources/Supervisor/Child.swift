// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import MachineFile
internal import Sandbox

/// What a child process is in its machine.
enum Role: Hashable, Sendable {
  case core
  case device(Machine.DeviceName)
  /// Who speaks QMP, the human monitor's language and gdb's.
  case monitor

  /// The executable's name, which is also the prefix of its log lines.
  var executable: String {
    switch self {
    case .core: "vmcore"
    case .device(let name): "vmdev-\(name.rawValue)"
    case .monitor: "vmmonitor"
    }
  }

  /// What it may have; the limits are the same for both kinds of core.
  var profile: SandboxProfile {
    switch self {
    case .core: .core
    case .device(.piix): .piix
    case .device(.ide): .ide
    case .device(.serial): .serial
    case .device(.vga): .vga
    case .monitor: .monitor
    }
  }

  /// Its number in the machine's range of user ids.
  var number: UInt32 {
    switch self {
    case .core: 0
    case .device(let name):
      UInt32(Machine.DeviceName.allCases.firstIndex(of: name) ?? 0) + 1
    case .monitor: 8
    }
  }

  static let all: [Role] = [.core] + Machine.DeviceName.allCases.map(Role.device) + [.monitor]

  /// Those that a machine has.
  static func all(of machine: Machine) -> [Role] {
    !machine.monitor.isServed ? all.filter { $0 != .monitor } : all
  }
}

/// A child that runs, with the launcher's ends of what connects it.
final class Child {
  let role: Role
  let process: ChildProcess
  let channel: Channel
  let started: UInt64
  /// Whether it has said that it is locked down.
  var hasReported = false
  /// How many files it has had made.
  var outputCount = 0
  /// How many backing files it has asked for, for each drive.
  var backingCounts: [Int: Int] = [:]
  var isChannelOpen = true
  var isLogOpen = true
  /// The last line of its log: often the reason of its end.
  private(set) var lastLine = ""
  let log: Descriptor
  private var lines = LogLines()

  init(_ role: Role, _ process: ChildProcess, _ channel: Channel, log: Descriptor) {
    self.role = role
    self.process = process
    self.channel = channel
    self.log = log
    started = HostClock.monotonic()
  }

  /// Reads what is in the log pipe, at most 64 KiB, and returns whole lines.
  func readLog() -> [(level: LogLevel, text: String)] {
    guard isLogOpen else { return [] }
    var result: [String] = []
    do throws(SystemError) {
      let bytes = try log.read(65536)
      result = lines.add(bytes)
      if bytes.isEmpty {
        isLogOpen = false
        if let last = lines.finish() { result.append(last) }
      }
    } catch {
      if !error.isNotReady && !error.isInterrupted { isLogOpen = false }
    }
    let lines = result.map { line in
      let (level, text) = LogLevel.split(Array(line.utf8))
      return (level: level, text: String(decoding: text, as: UTF8.self))
    }
    if let last = lines.last { lastLine = last.text }
    return lines
  }

  /// Kills the process and waits until it is gone; `false` when it does not go.
  func kill() -> Bool {
    try? process.kill()
    do throws(SystemError) {
      return try process.wait(timeout: 5_000_000_000) != nil
    } catch {
      return true  // Its status was taken before.
    }
  }
}

/// Starts children of one machine.
struct Starter {
  let paths: [Role: String]
  let environment: [String]
  /// The first of 16 user ids that belong to this machine.
  let firstUser: UInt32
  var namespaces = Namespaces.all
  /// Where the children's memory, CPU time and I/O are limited.
  let cgroups = MachineCgroups()
  private let null: Descriptor

  init(_ executables: Executables, for machine: Machine) throws(LaunchError) {
    var paths: [Role: String] = [:]
    for role in Role.all(of: machine) { paths[role] = try executables.path(role.executable) }
    self.paths = paths
    do throws(SystemError) {
      environment = try Sandbox.environment()
      null = try Files.open("/dev/null", .readWrite)
    } catch {
      throw LaunchError("\(error)")
    }
    // Process ids are below 2^22, so no two launchers that run have the same range, and all
    // ranges lie where no distribution gives out ids.
    firstUser = 1_879_048_192 + 16 * UInt32(truncatingIfNeeded: ThisProcess.id)
  }

  /// Starts the children of `roles`, all at once, and hands each to `body` when it runs.
  ///
  /// The way down prepares and releases each, the way back up waits for each.
  func start(_ roles: ArraySlice<Role>, _ body: (Child) -> Void) throws(LaunchError) {
    guard let role = roles.first, let path = paths[role] else { return }
    let own: PacketSocket
    let log: (reading: Descriptor, writing: Descriptor)
    let prepared: PreparedProcess
    do throws(SystemError) {
      let pair = try PacketSocket.pair()
      own = pair.0
      log = try Files.pipe()
      // A child goes on when its log is full: the line is lost.
      try log.writing.setNonBlocking(true)
      var one = try Spawn.prepare(
        executable: path, arguments: [role.executable], environment: environment,
        descriptors: [(null, 0), (log.writing, 1), (log.writing, 2), (pair.1.descriptor, 3)],
        namespaces: namespaces,
        identity: .automatic(base: firstUser, number: role.number))
      // While it waits: its namespace of control groups then begins at its own.
      cgroups.add(one.id, as: role.executable, role.profile.limits)
      try one.release()
      prepared = one
    } catch {
      throw Self.explain(error)
    }
    try start(roles.dropFirst(), body)
    do throws(SystemError) {
      body(Child(role, try prepared.confirm(), Channel(own), log: log.reading))
    } catch {
      throw Self.explain(error)
    }
  }

  private static func explain(_ error: SystemError) -> LaunchError {
    let isIsolation = ["clone3", "make namespaces", "change the user", "write /proc", "open /proc"]
      .contains { error.call.hasPrefix($0) }
    guard isIsolation else { return LaunchError("cannot start: \(error)") }
    return LaunchError(
      "isolation: namespaces of its own could not be had: \(error); allow user namespaces "
        + "(user.max_user_namespaces, and AppArmor's restriction on them), or set "
        + "isolation.level = \"relaxed\"", code: 3)
  }
}
