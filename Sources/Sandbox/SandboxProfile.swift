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

    public init() {}
  }

  /// The name in messages and in the report.
  public var name: String
  public var rules: [SyscallRule]
  public var namespaces: Namespaces = .all
  public var limits = Limits()
  public var threads = Threads.beforeSeal

  public init(_ name: String, _ rules: [SyscallRule]) {
    self.name = name
    self.rules = rules
  }

  /// Returns every rule that goes into the filter.
  public var allRules: [SyscallRule] {
    Self.runtime + (threads == .later ? Self.threadStart : []) + rules
  }

  /// Builds the filter without putting it in force.
  func makeFilter() throws(SystemError) -> SystemCallFilter {
    let filter = try SystemCallFilter()
    for rule in allRules {
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
    SyscallRule("brk", "malloc"),
    SyscallRule("mmap", [noExecution], "malloc, stacks and shared pages; never executable"),
    SyscallRule("munmap", "free"),
    SyscallRule("mremap", "realloc of large blocks; keeps the protection"),
    SyscallRule("mprotect", [noExecution], "growing malloc's arenas; never executable"),
    SyscallRule("madvise", "malloc gives pages back"),
    SyscallRule("futex", "locks, and waiting for other threads and processes"),
    SyscallRule("gettid", "the owner of a Mutex"),
    SyscallRule("getrandom", "the seed of Swift's hashing, malloc's tags"),
    SyscallRule("rt_sigprocmask", "the end of a thread, abort"),
    SyscallRule("rt_sigreturn", "the return from a signal handler"),
    SyscallRule("restart_syscall", "a wait goes on after SIGSTOP and SIGCONT"),
    SyscallRule("clock_gettime", "clocks, where the vDSO has none"),
    SyscallRule("clock_nanosleep", "short sleeps"),
    SyscallRule("nanosleep", "short sleeps"),
    SyscallRule("read", "events, and the isolation report after the filter is in force"),
    SyscallRule("close", "giving up descriptors"),
    SyscallRule(
      "write", [.equals(argument: 0, 2)], "messages to the log, the runtime's last words"),
    SyscallRule("set_robust_list", "a thread started before the filter finishes its start"),
    SyscallRule("rseq", "a thread started before the filter finishes its start"),
    SyscallRule("prctl", [.equals(argument: 0, 15 /* PR_SET_NAME */)], "a thread names itself"),
    SyscallRule("exit", "the end of a thread"),
    SyscallRule("exit_group", "the end of the process"),
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
  ]
}

extension SyscallRule {
  init(_ call: String, _ reason: String, answer: Answer = .allow) {
    self.init(call, [], reason, answer: answer)
  }
}
