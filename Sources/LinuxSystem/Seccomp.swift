// SPDX-License-Identifier: Apache-2.0

internal import CSeccomp
internal import Glibc

/// A filter of system calls under construction (libseccomp); what it does not allow kills.
@safe
public final class SystemCallFilter {
  /// What an argument, counted from 0, must be for a rule to apply.
  public enum Condition: Sendable, Hashable {
    /// The low 32 bits, all that the kernel takes of an int, equal the value.
    case equals(argument: UInt32, UInt32)
    /// All the mask's bits have the values given.
    case masked(argument: UInt32, mask: UInt64, UInt64)
    /// The whole argument is at most the value.
    case atMost(argument: UInt32, UInt64)
  }

  private let context: scmp_filter_ctx

  /// Makes a filter for the native calls of the processor; others, as of 32-bit code, kill too.
  public init() throws(SystemError) {
    guard let context = unsafe seccomp_init(Self.kill) else {
      throw SystemError("seccomp_init", ENOMEM)
    }
    unsafe self.context = context
    // SAFETY: the context is valid until deinit.
    try Self.check(
      "bad architecture", unsafe seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, Self.kill))
    // The process has set no-new-privileges itself; later it may not ask for it any more.
    try Self.check(
      "no-new-privileges", unsafe seccomp_attr_set(context, SCMP_FLTATR_CTL_NNP, 0))
    // A binary tree over the numbers: a filter of forty rules costs five comparisons.
    try Self.check(
      "optimisation", unsafe seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2))
  }

  deinit { unsafe seccomp_release(context) }

  /// Allows a call when all conditions hold; several rules for one call are alternatives.
  public func allow(_ call: String, _ conditions: [Condition] = []) throws(SystemError) {
    try add(Self.allowed, call, conditions)
  }

  /// Answers a call with an error number instead of making it.
  public func refuse(_ call: String, with number: UInt16) throws(SystemError) {
    try add(0x0005_0000 | UInt32(number), call, [])
  }

  private func add(_ action: UInt32, _ call: String, _ conditions: [Condition])
    throws(SystemError)
  {
    // SAFETY: the name is a NUL-terminated copy.
    let number = unsafe seccomp_syscall_resolve_name(call)
    guard number >= 0 else { throw SystemError("no system call \(call)", ENOSYS) }
    let comparisons = conditions.map { condition in
      switch condition {
      case .equals(let argument, let value):
        scmp_arg_cmp(
          arg: argument, op: SCMP_CMP_MASKED_EQ, datum_a: 0xFFFF_FFFF, datum_b: UInt64(value))
      case .masked(let argument, let mask, let value):
        scmp_arg_cmp(arg: argument, op: SCMP_CMP_MASKED_EQ, datum_a: mask, datum_b: value)
      case .atMost(let argument, let value):
        scmp_arg_cmp(arg: argument, op: SCMP_CMP_LE, datum_a: value, datum_b: 0)
      }
    }
    // SAFETY: the array stays alive for the call, which copies it.
    let result = unsafe comparisons.withUnsafeBufferPointer {
      unsafe seccomp_rule_add_array(context, action, number, UInt32($0.count), $0.baseAddress)
    }
    try Self.check("seccomp rule for \(call)", result)
  }

  /// Puts the filter in force, for the calling thread or for all of the process at once.
  public func load(allThreads: Bool) throws(SystemError) {
    // SAFETY: the context is valid until deinit.
    if allThreads {
      try Self.check(
        "thread synchronisation", unsafe seccomp_attr_set(context, SCMP_FLTATR_CTL_TSYNC, 1))
    }
    try Self.check("seccomp_load", unsafe seccomp_load(context))
  }

  /// Writes the filter's program into a file.
  func export(to file: Descriptor) throws(SystemError) {
    // SAFETY: the context is valid until deinit.
    try Self.check("seccomp_export_bpf", unsafe seccomp_export_bpf(context, file.raw))
  }

  private static let kill: UInt32 = 0x8000_0000  // SCMP_ACT_KILL_PROCESS
  private static let allowed: UInt32 = 0x7FFF_0000  // SCMP_ACT_ALLOW

  private static func check(_ what: String, _ result: Int32) throws(SystemError) {
    guard result == 0 else { throw SystemError(what, result < 0 ? 0 - result : EIO) }
  }
}
