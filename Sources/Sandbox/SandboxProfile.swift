// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

/// A system call that a process may make, and why.
public struct SyscallRule: Sendable, Hashable {
  /// What becomes of the call.
  public enum Answer: Sendable, Hashable {
    case allow
    /// It fails with this error number, so that the caller takes another way.
    case refuse(UInt16)
  }

  /// The call's name, as in section 2 of the manual.
  public var call: String
  /// Conditions on the arguments, all of which must hold.
  public var conditions: [SystemCallFilter.Condition]
  /// Why the process needs it.
  public var reason: String
  public var answer: Answer
  /// Whether a machine may run for long without it: an error path, or another host's way.
  public var isSeldom = false

  public init(
    _ call: String, _ conditions: [SystemCallFilter.Condition] = [], _ reason: String,
    answer: Answer = .allow
  ) {
    self.call = call
    self.conditions = conditions
    self.reason = reason
    self.answer = answer
  }
}

/// What one kind of process may have and do once it runs.
public struct SandboxProfile: Sendable {
  /// When the process starts threads.
  public enum Threads: Sendable {
    /// All of them between ``Sandbox/enclose(_:_:)`` and ``Sandbox/seal()``.
    case beforeSeal
    /// Also later.
    case later
  }

  /// Limits of the process; `nil` leaves one as it is.
  public struct Limits: Sendable {
    /// Descriptor numbers beyond the highest one open when the sandbox is entered.
    public var spareDescriptors: UInt64 = 16
    /// The largest size of a file in bytes that a write may reach.
    public var fileSize: UInt64? = 0
    /// The address space in bytes.
    public var addressSpace: UInt64?
    /// By a control group, where one can be had: memory in bytes, with the files' pages.
    public var memory: UInt64?
    /// By a control group: processes and threads.
    public var tasks: UInt64?
    /// By a control group: the share of CPU and I/O, 100 being usual.
    public var weight: UInt64? = 100

    public init() {}
  }

  /// The name in messages and in the report.
  public var name: String
  /// What the process does for as long as it lives.
  public var rules: [SyscallRule]
  /// What it does besides until it serves; `nil` for a process that has one stage alone.
  ///
  /// With it the process loads a second, narrower filter (``Sandbox/narrow(_:_:)``) before the
  /// guest can reach it.
  public var setup: [SyscallRule]?
  public var namespaces: Namespaces = .all
  public var limits = Limits()
  public var threads = Threads.beforeSeal
  /// Whether it runs code that it has made itself, out of memory that it maps for that.
  public var translates = false
  /// The descriptors that the process holds when it serves.
  public var holdings: [Holding] = []

  public init(_ name: String, _ rules: [SyscallRule], setup: [SyscallRule]? = nil) {
    self.name = name
    self.rules = rules
    self.setup = setup
  }

  /// Returns every rule that goes into the first filter.
  public var allRules: [SyscallRule] {
    Self.runtime + Self.start + (threads == .later ? Self.threadStart : []) + rules
      + (setup.map { Self.narrowing + $0 } ?? [])
  }

  /// Returns the rules that hold once the process serves.
  public var steadyRules: [SyscallRule] { setup == nil ? allRules : Self.runtime + rules }

  /// The names of the calls that are made once the process serves.
  public var steadyCalls: Set<String> {
    Set(steadyRules.filter { $0.answer == .allow }.map(\.call))
  }

  /// The filters that are in force in the end, the oldest first.
  public func makeFilters() throws(SystemError) -> [SystemCallFilter] {
    let first = try Self.makeFilter(allRules)
    return setup == nil ? [first] : [first, try Self.makeFilter(steadyRules)]
  }

  /// Builds the first filter without putting it in force.
  func makeFilter() throws(SystemError) -> SystemCallFilter { try Self.makeFilter(allRules) }

  /// Builds the filter of the steady state without putting it in force.
  func makeSteadyFilter() throws(SystemError) -> SystemCallFilter {
    try Self.makeFilter(steadyRules)
  }

  private static func makeFilter(_ rules: [SyscallRule]) throws(SystemError) -> SystemCallFilter {
    let filter = try SystemCallFilter()
    for rule in rules {
      switch rule.answer {
      case .allow: try filter.allow(rule.call, rule.conditions)
      case .refuse(let number): try filter.refuse(rule.call, with: number)
      }
    }
    return filter
  }
}

extension SandboxProfile {
  private static let noExecution = SystemCallFilter.Condition.masked(
    argument: 2, mask: 4 /* PROT_EXEC */, 0)

  /// What Swift's runtime and the C library do in steady state.
  ///
  /// No rule makes memory executable, and none opens, executes or signals anything.
  public static let runtime: [SyscallRule] = [
    .seldom("brk", "malloc, when it needs more than it has"),
    .seldom("mmap", [noExecution], "malloc of large blocks, granted memory; never executable"),
    .seldom("munmap", "free of large blocks"),
    .seldom("mremap", "realloc of large blocks; keeps the protection"),
    SyscallRule("futex", "locks, and waiting for other threads and processes"),
    .seldom("gettid", "the owner of a Mutex, at a thread's first lock that another one holds"),
    .seldom("restart_syscall", "a wait goes on after SIGSTOP and SIGCONT, or a tracer's stop"),
    .seldom("clock_gettime", "clocks, on hosts where the vDSO has none"),
    SyscallRule("read", "events, and the isolation report after the filter is in force"),
    .seldom("close", "giving up descriptors that came with a message"),
    SyscallRule(
      "write", [.equals(argument: 0, 2)], "messages to the log, the runtime's last words"),
    SyscallRule("exit_group", "the end of the process"),
  ]

  /// What they do besides, in a process that is starting.
  static let start: [SyscallRule] = [
    .seldom("getrandom", "the seed of Swift's hashing, if nothing was hashed before")
  ]

  /// What loading the second filter takes.
  static let narrowing: [SyscallRule] = [
    SyscallRule(
      "seccomp", [.equals(argument: 0, 1 /* SECCOMP_SET_MODE_FILTER */)],
      "one more filter, which can only take away")
  ]

  /// What starting a thread takes beyond ``runtime``.
  static let threadStart: [SyscallRule] = [
    SyscallRule(
      "clone3", "its flags lie in memory, where a filter can't read them: clone instead",
      answer: .refuse(38 /* ENOSYS */)),
    SyscallRule(
      "rt_sigaction", [.equals(argument: 0, 33 /* SIGSETXID */)],
      "the first thread makes the C library install its handler"),
    SyscallRule(
      "clone", [.masked(argument: 0, mask: .max, 0x3D_0F00)],
      "threads of this process, with the C library's flags and no namespace"),
    SyscallRule("mprotect", [noExecution], "the guard below a thread's stack"),
    SyscallRule("set_robust_list", "a thread's start"),
    SyscallRule("rseq", "a thread's start"),
    SyscallRule("sched_yield", "waiting until a new thread runs"),
    SyscallRule("prctl", [.equals(argument: 0, 15 /* PR_SET_NAME */)], "a thread names itself"),
  ]
}

extension SyscallRule {
  /// A call that most machines never make; the reason says when one does.
  static func seldom(
    _ call: String, _ conditions: [SystemCallFilter.Condition], _ reason: String
  ) -> SyscallRule {
    var rule = SyscallRule(call, conditions, reason)
    rule.isSeldom = true
    return rule
  }

  static func seldom(_ call: String, _ reason: String) -> SyscallRule { seldom(call, [], reason) }

  init(_ call: String, _ reason: String, answer: Answer = .allow) {
    self.init(call, [], reason, answer: answer)
  }
}
