// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// One 8237A DMA controller: its registers, without transfers.
///
/// Intel 8237A data sheet, "Register description" and "Software commands". No device of the
/// machine asks for a transfer, so the current registers never count.
public struct I8237: DeviceState, Sendable {
  private var baseAddress = [4 of UInt16](repeating: 0)
  private var baseCount = [4 of UInt16](repeating: 0)
  private var address = [4 of UInt16](repeating: 0)
  private var count = [4 of UInt16](repeating: 0)
  private var mode = [4 of UInt8](repeating: 0)
  private var command: UInt8 = 0
  private var request: UInt8 = 0
  private var mask: UInt8 = 0x0F
  private var terminalCount: UInt8 = 0
  /// The flip-flop: whether the next byte of a 16-bit register is the upper one.
  private var isUpperByte = false

  public init() {}

  /// Reads register 0 to 15.
  public mutating func read(_ register: UInt8) -> UInt8 {
    switch register {
    case 0...7:
      let channel = Int(register >> 1)
      let word = register & 1 == 0 ? address[channel] : count[channel]
      defer { isUpperByte.toggle() }
      return UInt8(truncatingIfNeeded: isUpperByte ? word >> 8 : word)
    case 8:
      // Status: terminal counts, which reading clears, and pending requests.
      defer { terminalCount = 0 }
      return terminalCount | request << 4
    case 13: return 0  // temporary: no memory-to-memory transfer has run
    case 15: return mask | 0xF0
    default: return 0xFF
    }
  }

  /// Writes register 0 to 15.
  public mutating func write(_ byte: UInt8, to register: UInt8) {
    let channel = Int(byte & 3)
    switch register {
    case 0...7: writeWord(byte, register)
    case 8: command = byte
    case 9: setBit(&request, channel, byte & 4 != 0)
    case 10: setBit(&mask, channel, byte & 4 != 0)
    case 11: mode[channel] = byte & 0xFC
    case 12: isUpperByte = false
    case 13: clear()
    case 14: mask = 0
    case 15: mask = byte & 0x0F
    default: break
    }
  }

  /// Whether the channel's requests are masked.
  public func isMasked(channel: Int) -> Bool {
    (0..<4).contains(channel) ? mask >> UInt8(channel) & 1 != 0 : true
  }

  public mutating func reset() { self = I8237() }

  /// Master clear: as a hardware reset, but addresses, counts and modes stay.
  private mutating func clear() {
    command = 0
    request = 0
    terminalCount = 0
    isUpperByte = false
    mask = 0x0F
  }

  private mutating func writeWord(_ byte: UInt8, _ register: UInt8) {
    let channel = Int(register >> 1)
    let isCount = register & 1 != 0
    var word = isCount ? baseCount[channel] : baseAddress[channel]
    word = isUpperByte ? word & 0x00FF | UInt16(byte) << 8 : word & 0xFF00 | UInt16(byte)
    isUpperByte.toggle()
    if isCount {
      baseCount[channel] = word
      count[channel] = word
    } else {
      baseAddress[channel] = word
      address[channel] = word
    }
  }

  private func setBit(_ bits: inout UInt8, _ index: Int, _ isSet: Bool) {
    let bit = UInt8(1) << UInt8(index)
    bits = isSet ? bits | bit : bits & ~bit
  }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    for channel in 0..<4 {
      var state = ChannelState(
        baseAddress: baseAddress[channel], baseCount: baseCount[channel],
        address: address[channel], count: count[channel], mode: mode[channel])
      visitor.part("channel", &state)
      baseAddress[channel] = state.baseAddress
      baseCount[channel] = state.baseCount
      address[channel] = state.address
      count[channel] = state.count
      mode[channel] = state.mode
    }
    visitor.field("command", &command)
    visitor.field("request", &request)
    visitor.field("mask", &mask)
    visitor.field("terminalCount", &terminalCount)
    visitor.field("isUpperByte", &isUpperByte)
    request &= 0x0F
    mask &= 0x0F
    terminalCount &= 0x0F
  }
}

/// The registers of one channel, a part of their own: each field's name is there once.
private struct ChannelState: DeviceState {
  var baseAddress: UInt16
  var baseCount: UInt16
  var address: UInt16
  var count: UInt16
  var mode: UInt8

  @specialized(where V == StateEncoder)
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("baseAddress", &baseAddress)
    visitor.field("baseCount", &baseCount)
    visitor.field("address", &address)
    visitor.field("count", &count)
    visitor.field("mode", &mode)
  }
}

/// The DMA page registers at 81h to 8Fh.
///
/// 82371SB, 2.5.1.9: 81h, 82h, 83h, 87h, 89h, 8Ah, 8Bh and 8Fh hold address bits 23:16;
/// the others are reserved and plain storage. Port 80h is the POST code's.
public struct DMAPages: DeviceState, Sendable {
  private var pages = [16 of UInt8](repeating: 0)

  public init() {}

  /// Reads the register at port 80h + `index`; indices are taken modulo 16.
  public func read(_ index: UInt8) -> UInt8 { pages[Int(index & 0x0F)] }

  public mutating func write(_ byte: UInt8, to index: UInt8) { pages[Int(index & 0x0F)] = byte }

  public mutating func reset() { self = DMAPages() }

  @specialized(where V == StateEncoder)
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.bytes("pages", &pages)
  }
}
