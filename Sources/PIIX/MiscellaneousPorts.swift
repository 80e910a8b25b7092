// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// Port 92h: the fast A20 gate and the fast CPU reset (82371SB, 2.5.5.2).
public struct Port92: DeviceState, Sendable {
  private var value: UInt8 = 0x24

  public init() {}

  /// Whether this port opens A20; the other gate is the keyboard controller's.
  public var isA20Enabled: Bool { value & 0x02 != 0 }

  public func read() -> UInt8 { value }

  /// Writes the port; returns whether bit 0 rose, which resets the CPU.
  public mutating func write(_ byte: UInt8) -> Bool {
    let isReset = value & 1 == 0 && byte & 1 != 0
    value = byte & 0xCB | 0x24
    return isReset
  }

  public mutating func reset() { value = 0x24 }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("value", &value)
    value = value & 0xCB | 0x24
  }
}

/// Port 61h: speaker, timer 2 gate and NMI sources (82371SB, 2.5.5.1, NMISC).
///
/// Where KVM has the timer, KVM answers this port.
public struct Port61: DeviceState, Sendable {
  private var value: UInt8 = 0

  /// The output of timer 2, as whoever has the timer last said.
  public var timerOutput = false

  public init() {}

  /// Whether timer 2 may count (bit 0).
  public var isTimerGateOpen: Bool { value & 0x01 != 0 }
  /// Whether the speaker follows timer 2 (bit 1).
  public var isSpeakerEnabled: Bool { value & 0x02 != 0 }

  /// Returns the port; bit 4 toggles with the refresh requests, every 15.085 us.
  public func read(now: VMTime) -> UInt8 {
    let refresh: UInt8 = (now.nanoseconds / 15_085) & 1 != 0 ? 0x10 : 0
    return value | refresh | (timerOutput ? 0x20 : 0)
  }

  /// Writes bits 3:0; no source of an NMI exists, so bits 7 and 6 stay zero.
  public mutating func write(_ byte: UInt8) { value = byte & 0x0F }

  public mutating func reset() {
    value = 0
    timerOutput = false
  }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("value", &value)
    visitor.field("timerOutput", &timerOutput)
    value &= 0x0F
  }
}

/// The kinds of reset that the board asks for.
public enum ResetKind: UInt8, Sendable {
  /// INIT to the CPU only.
  case cpu
  /// RST# to the whole machine.
  case hard
}

/// Port CF9h: reset control (82371SB, 2.5.5.4, RC).
public struct ResetControl: DeviceState, Sendable {
  private var value: UInt8 = 0

  public init() {}

  public func read() -> UInt8 { value }

  /// Writes the register; a rising bit 2 resets what bit 1 says: set for the machine.
  public mutating func write(_ byte: UInt8) -> ResetKind? {
    let isRising = value & 0x04 == 0 && byte & 0x04 != 0
    value = byte & 0x06
    guard isRising else { return nil }
    return value & 0x02 != 0 ? .hard : .cpu
  }

  public mutating func reset() { value = 0 }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("value", &value)
    value &= 0x06
  }
}

/// Port 402h, SeaBIOS's log: a write is a character, a read says that somebody listens.
public enum DebugConsole {
  /// What the port reads as.
  public static let signature: UInt8 = 0xE9
}

/// The debug exit port: a write of `v` ends the machine with the code `(v << 1) | 1`.
public enum DebugExit {
  /// Returns the exit code, wrapping at 32 bits; a process keeps its low eight.
  public static func code(for value: UInt32) -> UInt32 { value << 1 | 1 }
}

/// Port 80h: where firmware writes its progress; it reads back what was written.
public struct POSTPort: DeviceState, Sendable {
  /// The last code.
  public private(set) var code: UInt8 = 0

  public init() {}

  public mutating func write(_ byte: UInt8) { code = byte }

  public mutating func reset() { code = 0 }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("code", &code)
  }
}
