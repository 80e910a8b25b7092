// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
public import LinuxSystem
public import MachineFile
internal import Sandbox

/// Starts the processes of one machine, keeps them going and clears them away.
///
/// One thread, which also is the one that the children die with: call ``run()`` on the main
/// thread. What the children say is hostile once the guest runs.
public final class Supervisor {
  var machine: Machine
  var resources: HostResources
  let signals: Descriptor
  let janitor: Janitor?
  var starter: Starter
  var children: [Child] = []
  var budgets: [Machine.DeviceName: RestartBudget] = [:]
  var monitorBudget = RestartBudget()
  /// Devices without a process until the operator wants one.
  var held: Set<Machine.DeviceName> = []
  /// Deaths that the launcher has dealt with, and until when the core may still complain of them.
  var knownDeaths: [Machine.DeviceName: UInt64] = [:]
  /// Devices that ended with code 0 while the machine ran, and when that is no longer orderly.
  var quitDeadlines: [Machine.DeviceName: UInt64] = [:]
  var phase = Phase.running
  var result: Result?
  private var terminal: RawTerminal?
  var log: MachineLog
  /// The state file of a snapshot that is being written, under its first name.
  var newState: (tag: String, path: String, file: Descriptor)?
  /// The image that a drive is to go on in.
  var newOverlay: (slot: UInt8, path: String)?

  enum Phase {
    case running
    /// The core was told to stop; by then it has to have ended.
    case stopping(until: UInt64)
    /// The core has said that the machine ended; by then everybody has to be gone.
    case leaving(until: UInt64)
    /// Nothing is left to wait for.
    case over
  }

  /// What the launcher ends with.
  struct Result {
    var code: Int32
    var reason: String
  }

  static let stopPatience: UInt64 = 10_000_000_000
  static let leavePatience: UInt64 = 5_000_000_000
  static let reportPatience: UInt64 = 30_000_000_000
  static let complaintPatience: UInt64 = 3_000_000_000
  static let quitPatience: UInt64 = 1_000_000_000

  /// The signals that end a machine; call this before anything is opened, so that none is lost.
  public static func catchSignals() throws(LaunchError) -> Descriptor {
    Signals.block(Signals.ending)
    Signals.ignore(13 /* SIGPIPE */)
    Signals.ignore(22 /* SIGTTOU: restoring the terminal from its background */)
    do throws(SystemError) {
      return try Signals.descriptor(Signals.ending)
    } catch {
      throw LaunchError("\(error)")
    }
  }

  /// Prepares to run a machine with resources that are open.
  public init(
    _ machine: Machine, _ resources: HostResources, _ executables: Executables,
    signals: Descriptor, janitor: Janitor? = nil
  ) throws(LaunchError) {
    self.machine = machine
    self.resources = resources
    self.signals = signals
    self.janitor = janitor
    log = MachineLog(
      machine: machine.name, level: ChildSetup.logLevel(machine),
      output: try? Files.standardStream(2),
      journal: ThisProcess.environment("JOURNAL_STREAM"))
    starter = try Starter(executables, for: machine)
  }

  /// Runs the machine to its end, and returns the exit code.
  public func run() -> Int32 {
    announce()
    if let reason = starter.cgroups.missing {
      say("no control group limits memory (\(reason)); the processes' own limits do", .notice)
    }
    do throws(LaunchError) {
      try startMachine()
      while case .running = phase { turn() }
      while !isOver { turn() }
    } catch {
      // Code 1 says that nothing was started.
      let code = error.code == 1 && !children.isEmpty ? 2 : error.code
      result = result ?? Result(code: code, reason: error.message)
    }
    killAll()
    removeUnfinished()
    starter.cgroups.remove()
    resources.removeSockets()
    terminal?.restore()
    let ended = result ?? Result(code: 2, reason: "the machine ended without a reason")
    if ended.code != 0 {
      for line in ended.reason.split(separator: "\n", omittingEmptySubsequences: true) {
        say(VisibleText.escape(String(line)), .error)
      }
    }
    return ended.code
  }

  private var isOver: Bool {
    switch phase {
    case .over: true
    case .leaving: children.isEmpty
    case .running, .stopping: false
    }
  }

  // MARK: Start

  private func announce() {
    for (index, backend) in resources.serial.enumerated() {
      if let path = backend.terminal?.path { say("COM\(index + 1) is \(path)", .notice) }
      if let path = backend.peers?.socket?.path {
        say("COM\(index + 1) listens at \(path)", .notice)
      }
    }
    if let path = resources.debugConsole?.terminal?.path {
      say("the debug console is \(path)", .notice)
    }
    let isShared = machine.monitor.hmp == .stdio
    guard machine.serial.contains(.stdio) || isShared,
      let input = try? Files.standardStream(0)
    else { return }
    // A monitor beside the guest has a key of its own for the end.
    guard let own = RawTerminal(input, interruptKey: isShared ? 0 : 0x1D) else { return }
    janitor?.keep(own)
    guard own.enter() else { return }
    terminal = own
    say(
      isShared
        ? "ctrl-a h shows the keys of this terminal, ctrl-a x ends the machine"
        : "this terminal is the guest's; ctrl-] ends the machine", .notice)
  }

  private func startMachine() throws(LaunchError) {
    do throws(LaunchError) {
      try startChildren()
    } catch {
      guard error.code == 3, machine.isolation == .relaxed else { throw error }
      say("relaxed isolation: \(error.message)", .warning)
      killAll()
      starter.namespaces = []
      try startChildren()
    }
    var coreEnds: [Descriptor] = []
    for name in Machine.DeviceName.allCases {
      let (coreEnd, deviceEnd) = try pair()
      coreEnds.append(coreEnd)
      if let child = child(.device(name)) {
        try setUp(
          child, ChildSetup.device(name, machine, resources, channel: deviceEnd))
      }
    }
    if let core = child(.core) {
      try setUp(core, ChildSetup.core(machine, resources, channels: coreEnds))
    }
    if let monitor = child(.monitor) { try setUp(monitor: monitor) }
  }

  private func startChildren() throws(LaunchError) {
    // They come last first; the core is to be the first in the list.
    try starter.start(Role.all(of: machine)[...]) { children.insert($0, at: 0) }
  }

  func pair() throws(LaunchError) -> (core: Descriptor, device: Descriptor) {
    do throws(SystemError) {
      let (core, device) = try PacketSocket.pair()
      return (core.descriptor, device.descriptor)
    } catch {
      throw LaunchError("\(error)", code: 2)
    }
  }

  func setUp(_ child: Child, _ setup: ChildSetup) throws(LaunchError) {
    do throws(ChannelError) {
      try child.channel.send(
        LaunchRequest.setup.rawValue, sequence: 0, payload: setup.settings, setup.descriptors,
        wait: false)
    } catch {
      // A child that is gone already is found out by its pidfd, with its reason.
      guard case .closed = error else {
        throw LaunchError("\(child.role.executable): no setup: \(error)", code: 2)
      }
    }
  }

  /// Connects the monitor's process with the core, and hands it its sockets.
  func setUp(monitor: Child) throws(LaunchError) {
    let (coreEnd, ownEnd) = try pair()
    try setUp(monitor, ChildSetup.monitor(machine, resources, channel: ownEnd))
    try attach("monitor", coreEnd)
  }

  func child(_ role: Role) -> Child? { children.first { $0.role == role } }

  // MARK: End

  /// Ends everything at once.
  func end(_ code: Int32, _ reason: String) {
    result = result ?? Result(code: code, reason: reason)
    phase = .over
  }

  /// Asks the core to end the machine in order.
  func stop() {
    guard case .running = phase else { return }
    phase = .stopping(until: HostClock.monotonic() &+ Self.stopPatience)
    guard let core = child(.core) else { return }
    // A core that is gone or stuck is found out by its pidfd or by the time.
    try? core.channel.send(
      LaunchRequest.stop.rawValue, sequence: 0, payload: Empty().wireBytes, wait: false)
  }

  private func killAll() {
    for child in children { try? child.process.kill() }
    for child in children {
      if !child.kill() {
        say("\(child.role.executable) (process \(child.process.pid)) does not go", .error)
      }
      drain(child)
    }
    children = []
  }

  // MARK: Log

  /// Writes one line of the launcher's own.
  func say(_ line: String, _ level: LogLevel = .info) {
    log.write(line, from: "vmlaunch", level)
  }

  /// Shows what a child has written.
  func show(_ child: Child) {
    for line in child.readLog() {
      log.write(line.text, from: child.role.executable, line.level)
    }
  }

  /// Shows what a child that is gone has left in its pipe; a bounded amount.
  func drain(_ child: Child) {
    for _ in 0..<4 where child.isLogOpen { show(child) }
  }
}
