// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// A terminal that passes every key on, from ``enter()`` until it is restored.
public final class RawTerminal: Sendable {
  /// The terminal.
  public let descriptor: Descriptor
  private let saved: termios
  private let wanted: termios

  /// Prepares to make a terminal raw: no echo, no lines, no keys with a meaning but one.
  ///
  /// Output keeps its translation of line ends, so that messages beside the guest's text stay
  /// readable. `nil` when the descriptor is no terminal, or this process is in its background.
  /// `interruptKey` is the byte that sends SIGINT, in place of ctrl-c.
  public init?(_ descriptor: Descriptor, interruptKey: UInt8) {
    guard isatty(descriptor.raw) == 1, tcgetpgrp(descriptor.raw) == getpgrp(),
      var settings = Self.settings(of: descriptor)
    else { return nil }
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
    wanted = settings
  }

  /// The rows and columns of a terminal; `nil` when the descriptor is none.
  public static func size(of descriptor: Descriptor) -> (rows: Int, columns: Int)? {
    // The kernel's structure is four words of 16 bits: rows, columns, and the same in pixels.
    var size: UInt64 = 0
    guard isatty(descriptor.raw) == 1,
      (try? descriptor.control("TIOCGWINSZ", 0x5413, &size)) != nil,
      size & 0xFFFF != 0, size >> 16 & 0xFFFF != 0
    else { return nil }
    return (Int(size & 0xFFFF), Int(size >> 16 & 0xFFFF))
  }

  /// Makes the terminal raw; `false` when it cannot be.
  public func enter() -> Bool { Self.apply(wanted, to: descriptor) }

  /// Gives the terminal its settings back.
  public func restore() { _ = Self.apply(saved, to: descriptor) }

  /// Gives the terminal its settings back if it is as ``enter()`` has made it.
  ///
  /// Settings that somebody else has made since, such as a shell for its prompt, stay.
  public func restoreIfRaw() {
    guard let present = Self.settings(of: descriptor),
      Self.isSame(present, wanted)
    else { return }
    restore()
  }

  private static func settings(of descriptor: Descriptor) -> termios? {
    var settings = termios()
    // SAFETY: the call fills the structure it is given.
    return unsafe tcgetattr(descriptor.raw, &settings) == 0 ? settings : nil
  }

  private static func apply(_ settings: termios, to descriptor: Descriptor) -> Bool {
    var settings = settings
    // SAFETY: the call reads the structure it is given.
    return unsafe tcsetattr(descriptor.raw, TCSANOW, &settings) == 0
  }

  /// Whether the modes and keys are the same; the line's own flags and speed do not matter.
  private static func isSame(_ one: termios, _ other: termios) -> Bool {
    guard one.c_iflag == other.c_iflag, one.c_oflag == other.c_oflag,
      one.c_lflag == other.c_lflag
    else { return false }
    // SAFETY: both views are compared while the values live; they are arrays of bytes.
    return unsafe withUnsafeBytes(of: one.c_cc) { keys in
      unsafe withUnsafeBytes(of: other.c_cc) { unsafe $0.elementsEqual(keys) }
    }
  }

  // MARK: For another process of the same executable

  /// Both settings as bytes, the ones to go back to first.
  public var record: [UInt8] { Self.bytes(of: saved) + Self.bytes(of: wanted) }

  /// A terminal as another process has prepared it; `nil` when `record` is none.
  public init?(_ descriptor: Descriptor, record: [UInt8]) {
    let size = MemoryLayout<termios>.size
    guard record.count == 2 * size else { return nil }
    self.descriptor = descriptor
    saved = Self.settings(from: record[..<size])
    wanted = Self.settings(from: record[size...])
  }

  private static func bytes(of settings: termios) -> [UInt8] {
    // SAFETY: the view is copied while the value lives; the kernel's structure is plain words.
    unsafe withUnsafeBytes(of: settings) { unsafe Array($0) }
  }

  private static func settings(from bytes: ArraySlice<UInt8>) -> termios {
    var settings = termios()
    // SAFETY: every bit pattern is a value of the structure; the caller's slice is as long.
    unsafe withUnsafeMutableBytes(of: &settings) { unsafe $0.copyBytes(from: bytes) }
    return settings
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
