// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// The PS/2 keyboard and mouse controller at ports 60h and 64h, with both devices.
///
/// The 8042 as programmed for the IBM PS/2 (Hardware Interface Technical Reference,
/// "Keyboard/Auxiliary Device Controller"). The output buffer holds one byte. Reading port
/// 60h empties it; the next byte enters only with ``deliver()``, so that the endpoint can
/// show the interrupt line low in between and no edge is lost. After every access and every
/// input: report the lines, call ``deliver()``, and report the lines again if it says so.
public struct I8042: DeviceState, Sendable {
  public var keyboard = PS2Keyboard()
  public var mouse = PS2Mouse()

  /// The command byte, at address 20h of the controller's memory.
  var command: CommandByte = .afterReset
  var memory = [32 of UInt8](repeating: 0)
  /// The command whose argument port 60h brings next; 0 for none.
  var pendingCommand: UInt8 = 0
  /// Replies of the controller itself.
  var replies = ByteFIFO<8>()
  var outputBuffer: UInt8 = 0
  var isFull = false
  var isFromMouse = false
  var lastWriteWasCommand = true
  /// Whether the byte before was the break prefix, in translation.
  var hasBreakPrefix = false

  /// The state of the A20 gate as the output port has it (bit 1).
  public private(set) var isA20Enabled = true

  /// What the controller asks of the machine.
  public enum Request: UInt8, Sendable {
    /// Output port bit 0 went low: the CPU is reset.
    case reset
  }

  public init() {}

  struct CommandByte: OptionSet, Sendable {
    let rawValue: UInt8
    static let keyboardInterrupt = Self(rawValue: 1 << 0)
    static let mouseInterrupt = Self(rawValue: 1 << 1)
    static let system = Self(rawValue: 1 << 2)
    static let keyboardDisabled = Self(rawValue: 1 << 4)
    static let mouseDisabled = Self(rawValue: 1 << 5)
    static let translation = Self(rawValue: 1 << 6)
    static let afterReset: Self = [.keyboardInterrupt, .mouseInterrupt]
  }

  // MARK: Lines

  /// The level of IRQ 1.
  public var keyboardInterrupt: Bool {
    isFull && !isFromMouse && command.contains(.keyboardInterrupt)
      && !command.contains(.keyboardDisabled)
  }

  /// The level of IRQ 12.
  public var mouseInterrupt: Bool {
    isFull && isFromMouse && command.contains(.mouseInterrupt)
  }

  // MARK: Access

  /// Reads a byte: offset 0 is port 60h, offset 4 is port 64h; others read as ones.
  public mutating func read(at offset: UInt16, width: AccessWidth) -> UInt32 {
    var value = UInt32(truncatingIfNeeded: width.floating)
    let byte: UInt8
    switch offset {
    case 0: byte = readData()
    case 4: byte = status
    default: return value
    }
    value = value & ~0xFF | UInt32(byte)
    return value
  }

  /// Writes a byte; upper bytes of a wider access reach no register of the controller.
  public mutating func write(_ value: UInt32, at offset: UInt16, width: AccessWidth) -> Request? {
    let byte = UInt8(truncatingIfNeeded: value)
    switch offset {
    case 0: return writeData(byte)
    case 4: return writeCommand(byte)
    default: return nil
    }
  }

  /// Moves the next byte into the output buffer if that is empty; returns whether it did.
  public mutating func deliver() -> Bool {
    guard !isFull else { return false }
    if let byte = replies.pop() {
      fill(byte, fromMouse: false)
      return true
    }
    if !command.contains(.keyboardDisabled) {
      while let byte = keyboard.next() {
        guard let code = translated(byte) else { continue }
        fill(code, fromMouse: false)
        return true
      }
    }
    if !command.contains(.mouseDisabled), let byte = mouse.next() {
      fill(byte, fromMouse: true)
      return true
    }
    return false
  }

  /// Puts controller, keyboard and mouse into the state after power-on.
  public mutating func reset() { self = I8042() }

  /// The status register: bit 0 output full, 2 system flag, 3 command written last,
  /// 4 not locked, 5 output from the mouse.
  private var status: UInt8 {
    (isFull ? 0x01 : 0) | (command.contains(.system) ? 0x04 : 0)
      | (lastWriteWasCommand ? 0x08 : 0) | 0x10 | (isFull && isFromMouse ? 0x20 : 0)
  }

  private mutating func readData() -> UInt8 {
    isFull = false
    return outputBuffer  // an empty buffer still holds the last byte
  }

  private mutating func fill(_ byte: UInt8, fromMouse: Bool) {
    outputBuffer = byte
    isFull = true
    isFromMouse = fromMouse
  }

  /// Translates set 2 to set 1 if the command byte says so; a break prefix gives `nil`.
  private mutating func translated(_ byte: UInt8) -> UInt8? {
    guard command.contains(.translation) else {
      hasBreakPrefix = false
      return byte
    }
    if byte == 0xF0 {
      hasBreakPrefix = true
      return nil
    }
    let code = Key.translate(byte) | (hasBreakPrefix ? 0x80 : 0)
    hasBreakPrefix = false
    return code
  }

  private mutating func writeCommand(_ byte: UInt8) -> Request? {
    lastWriteWasCommand = true
    pendingCommand = 0
    switch byte {
    case 0x20: reply(command.rawValue)
    case 0x21...0x3F: reply(memory[Int(byte & 0x1F)])
    case 0x60...0x7F, 0xD1...0xD4: pendingCommand = byte
    case 0xA4: reply(0xF1)  // no password is installed
    case 0xA7: command.insert(.mouseDisabled)
    case 0xA8: command.remove(.mouseDisabled)
    case 0xA9, 0xAB: reply(0x00)  // the line is good
    case 0xAA:
      // The self test starts the program afresh and leaves both interfaces off.
      replies.removeAll()
      isFull = false
      command = [.keyboardDisabled, .mouseDisabled, .system]
      isA20Enabled = true
      reply(0x55)
    case 0xAD: command.insert(.keyboardDisabled)
    case 0xAE: command.remove(.keyboardDisabled)
    case 0xC0: reply(0xA0)  // input port: not locked, colour display, no jumpers
    case 0xD0: reply(outputPort)
    case 0xDD, 0xDF: isA20Enabled = byte == 0xDF
    case 0xE0: reply(0x00)  // test inputs: both clocks are held low
    case 0xF0...0xFF: return byte & 0x01 == 0 ? .reset : nil  // pulses the zero bits
    default: break
    }
    return nil
  }

  private mutating func writeData(_ byte: UInt8) -> Request? {
    lastWriteWasCommand = false
    let target = pendingCommand
    pendingCommand = 0
    switch target {
    case 0x60: command = CommandByte(rawValue: byte)
    case 0x61...0x7F: memory[Int(target & 0x1F)] = byte
    case 0xD1:
      isA20Enabled = byte & 0x02 != 0
      return byte & 0x01 == 0 ? .reset : nil
    case 0xD2: fill(byte, fromMouse: false)
    case 0xD3: fill(byte, fromMouse: true)
    case 0xD4:
      command.remove(.mouseDisabled)
      mouse.receive(byte)
    default:
      // A byte for the keyboard turns its interface on (IBM, command ADh).
      command.remove(.keyboardDisabled)
      keyboard.receive(byte)
    }
    return nil
  }

  private mutating func reply(_ byte: UInt8) { replies.push(byte) }

  /// Bit 0 not in reset, 1 A20, 2 and 3 the mouse's data and clock, 4 and 5 the interrupts, 6 and 7
  /// the keyboard's clock and data.
  private var outputPort: UInt8 {
    0xCD | (isA20Enabled ? 0x02 : 0) | (keyboardInterrupt ? 0x10 : 0)
      | (mouseInterrupt ? 0x20 : 0)
  }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.part("keyboard", &keyboard)
    visitor.part("mouse", &mouse)
    var bits = command.rawValue
    visitor.field("command", &bits)
    command = CommandByte(rawValue: bits)
    var bytes: [UInt8] = []
    for index in 0..<32 { bytes.append(memory[index]) }
    visitor.field("memory", &bytes, capacity: 32)
    for index in 0..<min(32, bytes.count) { memory[index] = bytes[index] }
    visitor.field("pendingCommand", &pendingCommand)
    visitor.part("replies", &replies)
    visitor.field("outputBuffer", &outputBuffer)
    visitor.field("isFull", &isFull)
    visitor.field("isFromMouse", &isFromMouse)
    visitor.field("lastWriteWasCommand", &lastWriteWasCommand)
    visitor.field("hasBreakPrefix", &hasBreakPrefix)
    visitor.field("isA20Enabled", &isA20Enabled)
  }
}
