// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// A PS/2 mouse with a wheel: commands, modes and packets, at the mouse's end of the wire.
///
/// After the IBM PS/2 Hardware Interface Technical Reference (mouse) and, for the wheel and
/// the five buttons, Microsoft's IntelliMouse extensions: the sample rates 200, 100, 80 in a
/// row make it a wheel mouse (id 3), then 200, 200, 80 one with five buttons (id 4).
public struct PS2Mouse: DeviceState, Sendable {
  var replies = ByteFIFO<8>()
  /// The packet being sent; motion gathers while it is not empty.
  var packet = ByteFIFO<4>()
  var pendingCommand: UInt8 = 0
  var lastSent: UInt8 = 0
  /// The last three sample rates, the newest in the low byte.
  var rateHistory: UInt32 = 0
  var dx: Int32 = 0
  var dy: Int32 = 0
  var dz: Int32 = 0
  var isChanged = false

  /// What is held down.
  public struct Buttons: OptionSet, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    public static let left = Self(rawValue: 1 << 0)
    public static let right = Self(rawValue: 1 << 1)
    public static let middle = Self(rawValue: 1 << 2)
    public static let side = Self(rawValue: 1 << 3)
    public static let extra = Self(rawValue: 1 << 4)
  }

  public private(set) var buttons: Buttons = []
  /// 0 for a standard mouse, 3 with a wheel, 4 with five buttons too.
  public private(set) var id: UInt8 = 0
  /// Reports per second (F3h); stored, as packets go as soon as there is room.
  public private(set) var sampleRate: UInt8 = 100
  /// 0 to 3 for 1, 2, 4 or 8 counts per millimetre (E8h); stored, motion is in counts.
  public private(set) var resolution: UInt8 = 2
  /// Whether stream mode scales motion 2:1 (E7h).
  public private(set) var isScaled = false
  /// Whether packets are sent in stream mode (F4h, F5h).
  public private(set) var isReporting = false
  /// Whether the mouse waits to be asked (F0h) instead of streaming (EAh).
  public private(set) var isRemote = false
  /// Whether bytes are echoed (EEh).
  public private(set) var isWrapping = false

  public init() {}

  // MARK: Input from the host

  /// Moves the mouse by counts: right and, as on a screen, down are positive.
  public mutating func move(dx: Int32, dy: Int32, wheel: Int32 = 0) {
    self.dx = Self.add(self.dx, dx)
    self.dy = Self.add(self.dy, dy)
    dz = Self.add(dz, wheel)
    if dx != 0 || dy != 0 || wheel != 0 { isChanged = true }
  }

  /// Sets which buttons are down.
  public mutating func setButtons(_ buttons: Buttons) {
    if buttons != self.buttons { isChanged = true }
    self.buttons = buttons
  }

  /// Motion that nobody fetches is capped, so that it ends soon after it is fetched again.
  private static func add(_ sum: Int32, _ delta: Int32) -> Int32 {
    max(-2048, min(2048, sum &+ max(-4096, min(4096, delta))))
  }

  // MARK: The wire

  /// Whether a byte waits to be sent.
  public var hasOutput: Bool {
    !replies.isEmpty || !packet.isEmpty || isStreaming && isChanged
  }

  private var isStreaming: Bool { isReporting && !isRemote && !isWrapping }

  /// Sends the next byte.
  public mutating func next() -> UInt8? {
    if replies.isEmpty, packet.isEmpty, isStreaming, isChanged { makePacket(isStream: true) }
    guard let byte = replies.pop() ?? packet.pop() else { return nil }
    lastSent = byte
    return byte
  }

  /// Takes a byte from the controller: a command or its argument.
  public mutating func receive(_ byte: UInt8) {
    if isWrapping, byte != 0xEC, byte != 0xFF {
      replies.push(byte)
      return
    }
    let command = pendingCommand
    pendingCommand = 0
    // A new byte from the host ends what was being sent (IBM, "data transmission").
    packet.removeAll()
    if command != 0 { return takeArgument(byte, of: command) }
    switch byte {
    case 0xE6, 0xE7:
      isScaled = byte == 0xE7
      acknowledge()
    case 0xE8, 0xF3:
      pendingCommand = byte
      acknowledge()
    case 0xE9:
      acknowledge()
      replies.push(status)
      replies.push(resolution)
      replies.push(sampleRate)
    case 0xEA:
      isRemote = false
      acknowledge()
    case 0xEB:
      acknowledge()
      makePacket(isStream: false)
    case 0xEC:
      isWrapping = false
      acknowledge()
    case 0xEE:
      isWrapping = true
      acknowledge()
    case 0xF0:
      isRemote = true
      acknowledge()
    case 0xF2:
      acknowledge()
      replies.push(id)
    case 0xF4, 0xF5:
      isReporting = byte == 0xF4
      clearMotion()
      acknowledge()
    case 0xF6:
      setDefaults()
      acknowledge()
    case 0xFE: replies.push(lastSent)
    case 0xFF:
      self = PS2Mouse()
      acknowledge()
      replies.push(0xAA)
      replies.push(0x00)
    default: replies.push(0xFE)
    }
  }

  private mutating func takeArgument(_ byte: UInt8, of command: UInt8) {
    if command == 0xE8 {
      guard byte <= 3 else {
        replies.push(0xFE)
        pendingCommand = command
        return
      }
      resolution = byte
    } else {
      sampleRate = byte
      rateHistory = (rateHistory << 8 | UInt32(byte)) & 0xFF_FFFF
      if rateHistory == 0xC8_64_50, id == 0 { id = 3 }
      if rateHistory == 0xC8_C8_50, id == 3 { id = 4 }
    }
    acknowledge()
  }

  private mutating func acknowledge() { replies.push(0xFA) }

  /// The first status byte (E9h).
  private var status: UInt8 {
    (isRemote ? 0x40 : 0) | (isReporting ? 0x20 : 0) | (isScaled ? 0x10 : 0)
      | (buttons.contains(.left) ? 0x04 : 0) | (buttons.contains(.middle) ? 0x02 : 0)
      | (buttons.contains(.right) ? 0x01 : 0)
  }

  private mutating func clearMotion() {
    dx = 0
    dy = 0
    dz = 0
    isChanged = false
  }

  private mutating func setDefaults() {
    sampleRate = 100
    resolution = 2
    isScaled = false
    isReporting = false
    isRemote = false
    clearMotion()
  }

  /// Turns gathered motion into one packet of three or four bytes.
  ///
  /// Nine bits of motion fit in a packet; what is left over goes into the next.
  private mutating func makePacket(isStream: Bool) {
    let x = max(-255, min(255, dx))
    let y = max(-255, min(255, dy))
    dx -= x
    dy -= y
    let sentX = isStream && isScaled ? Self.scale(x) : x
    let sentY = 0 - (isStream && isScaled ? Self.scale(y) : y)  // up is positive on the wire
    packet.push(
      0x08 | buttons.rawValue & 0x07 | (sentX < 0 ? 0x10 : 0) | (sentY < 0 ? 0x20 : 0))
    packet.push(UInt8(truncatingIfNeeded: sentX))
    packet.push(UInt8(truncatingIfNeeded: sentY))
    if id == 0 {
      dz = 0
    } else {
      let z = max(-8, min(7, dz))
      dz -= z
      let nibble = UInt8(truncatingIfNeeded: z)
      packet.push(id == 4 ? nibble & 0x0F | (buttons.rawValue & 0x18) << 1 : nibble)
    }
    isChanged = dx != 0 || dy != 0 || dz != 0
  }

  /// 2:1 scaling of one report (IBM, "set scaling 2:1"); capped at what a packet holds.
  private static func scale(_ counts: Int32) -> Int32 {
    let size = abs(counts)
    let scaled: Int32 =
      switch size {
      case 0, 1: size
      case 2: 1
      case 3: 3
      case 4: 6
      case 5: 9
      default: min(2 * size, 255)
      }
    return counts < 0 ? 0 - scaled : scaled
  }

  public mutating func reset() { self = PS2Mouse() }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("replies", &replies)
    visitor.part("packet", &packet)
    visitor.field("pendingCommand", &pendingCommand)
    visitor.field("lastSent", &lastSent)
    visitor.field("rateHistory", &rateHistory)
    visitor.field("dx", &dx)
    visitor.field("dy", &dy)
    visitor.field("dz", &dz)
    visitor.field("isChanged", &isChanged)
    var held = buttons.rawValue
    visitor.field("buttons", &held)
    buttons = Buttons(rawValue: held)
    visitor.field("id", &id)
    visitor.field("sampleRate", &sampleRate)
    visitor.field("resolution", &resolution)
    visitor.field("isScaled", &isScaled)
    visitor.field("isReporting", &isReporting)
    visitor.field("isRemote", &isRemote)
    visitor.field("isWrapping", &isWrapping)
    (dx, dy, dz) = (Self.add(0, dx), Self.add(0, dy), Self.add(0, dz))
  }
}
