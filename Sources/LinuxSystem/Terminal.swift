// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// A terminal that passes every key on, until it is restored.
public final class RawTerminal: Sendable {
  private let descriptor: Descriptor
  private let saved: termios

  /// Makes a terminal raw: no echo, no lines, no keys with a meaning but one.
  ///
  /// Output keeps its translation of line ends, so that messages beside the guest's text stay
  /// readable. `nil` when the descriptor is no terminal, or this process is in its background.
  /// `interruptKey` is the byte that sends SIGINT, in place of ctrl-c.
  public init?(_ descriptor: Descriptor, interruptKey: UInt8) {
    guard isatty(descriptor.raw) == 1, tcgetpgrp(descriptor.raw) == getpgrp() else { return nil }
    var settings = termios()
    // SAFETY: the call fills the structure it is given.
    guard unsafe tcgetattr(descriptor.raw, &settings) == 0 else { return nil }
    self.descriptor = descriptor
    saved = settings
    let signals = tcflag_t(ISIG)
    let output = settings.c_oflag
    // SAFETY: the call changes the structure it is given.
    unsafe cfmakeraw(&settings)
    settings.c_oflag = output
    settings.c_lflag |= signals
    // The places VINTR (0), VQUIT (1) and VSUSP (10) of termios(3); 0 disables a key.
    settings.c_cc.0 = interruptKey
    settings.c_cc.1 = 0
    settings.c_cc.10 = 0
    // SAFETY: the call reads the structure it is given.
    guard unsafe tcsetattr(descriptor.raw, TCSANOW, &settings) == 0 else { return nil }
  }

  /// Gives the terminal its settings back.
  public func restore() {
    var settings = saved
    // SAFETY: the call reads the structure it is given.
    _ = unsafe tcsetattr(descriptor.raw, TCSANOW, &settings)
  }
}

/// A new pseudo-terminal.
public struct PseudoTerminal: Sendable {
  /// The end that a device reads and writes.
  public let controller: Descriptor
  /// The end for people's programs, kept open so that the controller sees no hang-up.
  public let terminal: Descriptor
  /// The path of ``terminal``.
  public let path: String

  /// Makes one whose terminal is raw.
  public init() throws(SystemError) {
    controller = try Descriptor.open("/dev/ptmx", O_RDWR | O_NOCTTY)
    var value: Int32 = 0
    try controller.control("TIOCSPTLCK", 0x4004_5431, &value)
    try controller.control("TIOCGPTN", 0x8004_5430, &value)
    path = "/dev/pts/\(value)"
    terminal = try Descriptor.open(path, O_RDWR | O_NOCTTY)
    var settings = termios()
    // SAFETY: the calls fill, change and read the structure.
    if unsafe tcgetattr(terminal.raw, &settings) == 0 {
      unsafe cfmakeraw(&settings)
      _ = unsafe tcsetattr(terminal.raw, TCSANOW, &settings)
    }
  }
}
