// SPDX-License-Identifier: Apache-2.0

extension PS2Keyboard {
  /// Presses a key, or repeats one that is down; ignored while scanning is off.
  public mutating func press(_ key: Key) {
    track(key, isDown: true)
    send(key, isBreak: false)
  }

  /// Releases a key.
  public mutating func release(_ key: Key) {
    track(key, isDown: false)
    send(key, isBreak: true)
  }

  private mutating func track(_ key: Key, isDown: Bool) {
    let bit: Modifiers
    switch key {
    case .shift: bit = .shift
    case .shiftRight: bit = .shiftRight
    case .ctrl: bit = .ctrl
    case .ctrlRight: bit = .ctrlRight
    case .alt: bit = .alt
    case .altRight: bit = .altRight
    default: return
    }
    if isDown { modifiers.insert(bit) } else { modifiers.remove(bit) }
  }

  private mutating func send(_ key: Key, isBreak: Bool) {
    guard isScanning else { return }
    var sequence = ByteSequence()
    if scanCodeSet == 3 {
      guard key.set3 != 0 else { return }
      if isBreak { sequence.append(0xF0) }
      sequence.append(key.set3)
      return put(sequence)
    }
    switch key {
    case .pause where !modifiers.isDisjoint(with: [.ctrl, .ctrlRight]):
      // Break: make and break at once, when pressed (IBM, key 126).
      guard !isBreak else { return }
      append(0xE07E, isBreak: false, to: &sequence)
      append(0xE07E, isBreak: true, to: &sequence)
    case .pause:
      guard !isBreak else { return }
      appendPause(to: &sequence)
    case .print where !modifiers.isDisjoint(with: [.alt, .altRight]):
      append(0x84, isBreak: isBreak, to: &sequence)  // system request
    case .print where modifiers.isEmpty && isBreak:
      append(0xE07C, isBreak: true, to: &sequence)
      append(0xE012, isBreak: true, to: &sequence)
    case .print where modifiers.isEmpty:
      append(0xE012, isBreak: false, to: &sequence)
      append(0xE07C, isBreak: false, to: &sequence)
    default:
      append(key.set2, isBreak: isBreak, to: &sequence)
    }
    put(sequence)
  }

  /// Appends one code in set 1 or 2, with its prefix.
  private func append(_ code: UInt16, isBreak: Bool, to sequence: inout ByteSequence) {
    let low = UInt8(truncatingIfNeeded: code)
    if code > 0xFF { sequence.append(UInt8(code >> 8)) }
    if scanCodeSet == 1 {
      sequence.append(Key.translate(low) | (isBreak ? 0x80 : 0))
    } else {
      if isBreak { sequence.append(0xF0) }
      sequence.append(low)
    }
  }

  /// Pause sends make and break of E1h codes when pressed, and nothing when released.
  private func appendPause(to sequence: inout ByteSequence) {
    for isBreak in [false, true] {
      sequence.append(0xE1)
      append(0x14, isBreak: isBreak, to: &sequence)
      append(0x77, isBreak: isBreak, to: &sequence)
    }
  }

  /// Queues a whole sequence, or the overrun code where it does not fit.
  ///
  /// After an overrun further keys are lost until the buffer has been sent.
  private mutating func put(_ sequence: ByteSequence) {
    guard !isOverrun else { return }
    guard scanCodes.free > sequence.count else {
      scanCodes.push(overrun)
      isOverrun = true
      return
    }
    for index in 0..<sequence.count { scanCodes.push(sequence[index]) }
  }

  /// FFh in set 1, 00h in the others.
  private var overrun: UInt8 { scanCodeSet == 1 ? 0xFF : 0x00 }
}

/// A scan code sequence of at most eight bytes.
struct ByteSequence {
  private var bytes = [8 of UInt8](repeating: 0)
  private(set) var count = 0

  mutating func append(_ byte: UInt8) {
    guard count < 8 else { return }
    bytes[count] = byte
    count += 1
  }

  subscript(index: Int) -> UInt8 { bytes[index] }
}
