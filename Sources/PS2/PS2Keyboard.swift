// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// A PS/2 keyboard: commands, scan code sets and its buffer, at the keyboard's end of the wire.
///
/// After the IBM PS/2 Hardware Interface Technical Reference (keyboards, 101- and 102-key).
/// The keyboard repeats no keys by itself: whoever presses a key again sends another make
/// code. Set 3 starts with every key typematic, make and break; the per-key commands
/// (FBh to FDh) are taken and change nothing. Num lock does not add the shift codes that
/// real keyboards put around the grey keys.
public struct PS2Keyboard: DeviceState, Sendable {
  /// Replies to commands go before scan codes.
  var replies = ByteFIFO<8>()
  /// Sixteen bytes, and a seventeenth place for the overrun code.
  var scanCodes = ByteFIFO<17>()
  /// The command whose argument is awaited; 0 for none.
  var pendingCommand: UInt8 = 0
  var lastSent: UInt8 = 0
  var modifiers: Modifiers = []
  /// Whether the overrun code is in the buffer.
  var isOverrun = false

  /// Whether keys are scanned (F4h and F5h).
  public private(set) var isScanning = true
  /// Bit 0 scroll lock, 1 num lock, 2 caps lock (EDh).
  public private(set) var leds: UInt8 = 0
  /// The typematic rate and delay byte as set by F3h; 10.9 per second after 500 ms at first.
  public private(set) var typematic: UInt8 = 0x2B
  /// The scan code set in use: 1, 2 or 3 (F0h).
  public private(set) var scanCodeSet: UInt8 = 2

  struct Modifiers: OptionSet, Sendable {
    let rawValue: UInt8
    static let shift = Self(rawValue: 1 << 0)
    static let shiftRight = Self(rawValue: 1 << 1)
    static let ctrl = Self(rawValue: 1 << 2)
    static let ctrlRight = Self(rawValue: 1 << 3)
    static let alt = Self(rawValue: 1 << 4)
    static let altRight = Self(rawValue: 1 << 5)
  }

  public init() {}

  /// Whether a byte waits to be sent.
  public var hasOutput: Bool { !replies.isEmpty || !scanCodes.isEmpty }

  /// Sends the next byte.
  public mutating func next() -> UInt8? {
    guard let byte = replies.pop() ?? scanCodes.pop() else { return nil }
    lastSent = byte
    if scanCodes.isEmpty { isOverrun = false }
    return byte
  }

  /// Takes a byte from the controller: a command or its argument.
  public mutating func receive(_ byte: UInt8) {
    let command = pendingCommand
    pendingCommand = 0
    // An argument never has bit 7 set; a byte that has is a new command (IBM, EDh and F3h).
    if command != 0, byte < 0x80 { return takeArgument(byte, of: command) }
    // FBh to FDh end at a valid command; so does an argument that never came.
    switch byte {
    case 0xED, 0xF0, 0xF3, 0xFB, 0xFC, 0xFD:
      pendingCommand = byte
      replies.push(Reply.acknowledge)
      if byte >= 0xFB { isScanning = false }
    case 0xEE: replies.push(Reply.echo)
    case 0xF2:
      for reply in [Reply.acknowledge, 0xAB, 0x83] { replies.push(reply) }
    case 0xF4:
      clearBuffer()
      isScanning = true
      replies.push(Reply.acknowledge)
    case 0xF5, 0xF6:
      setDefaults()
      isScanning = byte == 0xF6
      replies.push(Reply.acknowledge)
    case 0xF7...0xFA: replies.push(Reply.acknowledge)
    case 0xFE: replies.push(lastSent)
    case 0xFF:
      setDefaults()
      isScanning = true
      leds = 0
      replies.removeAll()
      replies.push(Reply.acknowledge)
      replies.push(Reply.testPassed)
    default: replies.push(Reply.resend)
    }
  }

  private mutating func takeArgument(_ byte: UInt8, of command: UInt8) {
    switch command {
    case 0xED: leds = byte & 0x07
    case 0xF3: typematic = byte
    case 0xF0 where byte == 0:
      replies.push(Reply.acknowledge)
      replies.push(scanCodeSet)
      return
    case 0xF0 where byte <= 3:
      scanCodeSet = byte
      clearBuffer()
    case 0xF0:
      replies.push(Reply.resend)
      return
    default: pendingCommand = command  // FBh to FDh take scan codes until a command comes
    }
    replies.push(Reply.acknowledge)
  }

  private mutating func clearBuffer() {
    scanCodes.removeAll()
    isOverrun = false
  }

  private mutating func setDefaults() {
    clearBuffer()
    typematic = 0x2B
    scanCodeSet = 2
  }

  /// The bytes that a keyboard answers with.
  enum Reply {
    static let acknowledge: UInt8 = 0xFA
    static let testPassed: UInt8 = 0xAA
    static let echo: UInt8 = 0xEE
    static let resend: UInt8 = 0xFE
  }

  /// The power-on state, without the self test's AAh: the controller's reset eats it.
  public mutating func reset() { self = PS2Keyboard() }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("replies", &replies)
    visitor.part("scanCodes", &scanCodes)
    visitor.field("pendingCommand", &pendingCommand)
    visitor.field("lastSent", &lastSent)
    var bits = modifiers.rawValue
    visitor.field("modifiers", &bits)
    modifiers = Modifiers(rawValue: bits)
    visitor.field("isOverrun", &isOverrun)
    visitor.field("isScanning", &isScanning)
    visitor.field("leds", &leds)
    visitor.field("typematic", &typematic)
    visitor.field("scanCodeSet", &scanCodeSet)
    if !(1...3).contains(scanCodeSet) { scanCodeSet = 2 }
  }
}
