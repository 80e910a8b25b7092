// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// Signals of this process.
public enum Signals {
  /// Blocks signals in the calling thread, and in those it starts later.
  public static func block(_ signals: [Int32]) {
    // SAFETY: the array stays alive for the call.
    _ = unsafe bh_block_signals(signals, signals.count)
  }

  /// Makes a descriptor that is readable while one of the (blocked) signals is pending.
  public static func descriptor(_ signals: [Int32]) throws(SystemError) -> Descriptor {
    // SAFETY: the array stays alive for the call.
    let raw = unsafe bh_signalfd(signals, signals.count)
    return Descriptor(owning: try SystemError.check("signalfd", raw))
  }

  /// Takes the next pending signal from such a descriptor; `nil` when there is none.
  public static func next(_ descriptor: Descriptor) -> Int32? {
    let signal = bh_signalfd_read(descriptor.raw)
    return signal > 0 ? Int32(signal) : nil
  }

  /// Makes a signal interrupt system calls and do nothing else.
  public static func interruptOnly(_ signal: Int32) { _ = bh_interrupt_signal(signal) }

  /// Ignores a signal.
  public static func ignore(_ signal: Int32) { _ = bh_ignore_signal(signal) }

  /// What a terminal, its end and people send to a process, SIGTTOU and SIGPIPE included; one
  /// that ignores them ends only by its own will, or by SIGKILL.
  public static let usual: [Int32] = [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTTOU, SIGPIPE]

  /// The signals that people use to end a program: SIGINT, SIGTERM, SIGHUP.
  public static let ending: [Int32] = [SIGINT, SIGTERM, SIGHUP]
}
