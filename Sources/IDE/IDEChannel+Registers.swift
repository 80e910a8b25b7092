// SPDX-License-Identifier: Apache-2.0

extension IDEChannel {
  /// Reads a register of the command block, 1 to 7 (ATA/ATAPI-6, 7.1).
  ///
  /// Where no drive answers, every register reads as 0: BSY is clear at once and the
  /// pattern that firmware writes does not come back, so a search ends without a timeout.
  mutating func readRegister(_ offset: UInt16) -> UInt8 {
    guard drives[selected].isPresent else { return 0 }
    if offset == 7 {
      drives[selected].isInterrupting = false
      return status(of: selected).rawValue
    }
    return switch offset {
    case 1: drives[selected].error
    case 2: drives[selected].sectorCount.value(previous: readsHighOrder)
    case 3: drives[selected].lbaLow.value(previous: readsHighOrder)
    case 4: drives[selected].lbaMid.value(previous: readsHighOrder)
    case 5: drives[selected].lbaHigh.value(previous: readsHighOrder)
    case 6: drives[selected].device | 0xA0
    default: 0xFF
    }
  }

  /// Writes a register of the command block, 1 to 7.
  mutating func writeRegister(_ value: UInt8, _ offset: UInt16) {
    readsHighOrder = false  // any command block write clears HOB (7.8)
    if offset == 7 {
      writeCommand(value)
      return
    }
    guard !isInReset else { return }
    if offset == 6 {
      // Both drives see the select bit.
      selected = Int(value >> 4 & 1)
      if phase == .idle || active != 0 { drives[0].device = value | 0xA0 }
      if phase == .idle || active != 1 { drives[1].device = value | 0xA0 }
      return
    }
    // The task file is held while a command runs (7.2 and on).
    guard phase == .idle else { return }
    for drive in 0..<2 {
      switch offset {
      case 1: drives[drive].features.write(value)
      case 2: drives[drive].sectorCount.write(value)
      case 3: drives[drive].lbaLow.write(value)
      case 4: drives[drive].lbaMid.write(value)
      case 5: drives[drive].lbaHigh.write(value)
      default: break
      }
    }
  }

  /// Writes the device control register (7.8).
  mutating func writeControl(_ value: UInt8) {
    isMasked = value & 0x02 != 0
    readsHighOrder = value & 0x80 != 0
    let isReset = value & 0x04 != 0
    if isReset, !isInReset { reset() }
    isInReset = isReset
  }

  /// Does a software reset: a command under way is dropped, both drives show signatures.
  mutating func reset() {
    abandonRequest()
    for drive in 0..<2 {
      drives[drive].setSignature()
      drives[drive].multiple = 0
    }
    selected = 0
    active = 0
    endCommand()
  }

  /// Makes sure that a late completion of the request under way is ignored.
  mutating func abandonRequest() {
    if phase == .waiting { tag &+= 1 }
    phase = .idle
  }

  // MARK: Data port

  /// Takes the next byte of a data-in block; past its end the bus floats.
  mutating func readDataByte() -> UInt8 {
    guard phase == .dataIn, active == selected, position < blockEnd else { return 0xFF }
    let byte = buffer[Int(position)]
    position += 1
    if position == blockEnd { finishInBlock() }
    return byte
  }

  /// Fills `span` from the data port as `rep insw` does; returns how much was data.
  mutating func readData(into span: inout MutableSpan<UInt8>) -> Int {
    var done = 0
    while done < span.count, phase == .dataIn, active == selected, position < blockEnd {
      let count = min(span.count - done, Int(blockEnd - position))
      let start = Int(position)
      for index in 0..<count { span[done + index] = buffer[start + index] }
      position += UInt32(count)
      done += count
      if position == blockEnd { finishInBlock() }
    }
    for index in done..<span.count { span[index] = 0xFF }
    return done
  }

  /// Puts a byte into a data-out block; past its end it is lost.
  mutating func writeDataByte(_ byte: UInt8) {
    guard phase == .dataOut, active == selected, position < blockEnd else { return }
    buffer[Int(position)] = byte
    markDirty(Int(position)..<Int(position) + 1)
    position += 1
    if position == blockEnd { finishOutBlock() }
  }

  /// Writes `span` to the data port as `rep outsw` does; returns how much was taken.
  mutating func writeData(_ span: Span<UInt8>) -> Int {
    var done = 0
    while done < span.count, phase == .dataOut, active == selected, position < blockEnd {
      let count = min(span.count - done, Int(blockEnd - position))
      let start = Int(position)
      for index in 0..<count { buffer[start + index] = span[done + index] }
      markDirty(start..<start + count)
      position += UInt32(count)
      done += count
      if position == blockEnd { finishOutBlock() }
    }
    return done
  }
}
