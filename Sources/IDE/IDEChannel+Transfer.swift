// SPDX-License-Identifier: Apache-2.0

extension IDEChannel {
  // MARK: Data-in

  /// Asks for the next sectors of a PIO read, as many as the buffer holds.
  mutating func requestInBlock() {
    let sectorSize = drives[active].sectorSize
    let room = UInt32(Self.bufferSize) / sectorSize
    let most = readsAhead || isPacketCommand ? room : min(blockSize, room)
    beginRequest(count: min(remaining, most))
  }

  /// Offers `count` bytes of the buffer to the guest in DRQ blocks.
  mutating func beginReply(_ count: Int) {
    position = 0
    blockEnd = 0
    dataEnd = UInt32(min(count, Self.bufferSize))
    beginInBlock()
  }

  /// Raises DRQ and the interrupt for the next block of what the buffer holds.
  mutating func beginInBlock() {
    let left = dataEnd - position
    let block =
      isPacketCommand
      ? min(left, blockSize)
      : operation == .reply ? left : min(left, blockSize &* drives[active].sectorSize)
    blockEnd = position + block
    phase = .dataIn
    drives[active].status = [.ready, .seekComplete]
    drives[active].error = 0
    if isPacketCommand {
      drives[active].sectorCount.current = 2  // data to the host (9.8)
      drives[active].lbaMid.current = UInt8(truncatingIfNeeded: block)
      drives[active].lbaHigh.current = UInt8(truncatingIfNeeded: block >> 8)
    }
    raiseInterrupt()
  }

  /// The guest has read a DRQ block.
  mutating func finishInBlock() {
    if position < dataEnd {
      beginInBlock()
    } else if operation == .readPIO, remaining > 0 {
      requestInBlock()
    } else if isPacketCommand {
      finish()
    } else {
      // PIO data-in ends without an interrupt (9.5).
      if operation == .readPIO { noteLastSector() }
      drives[active].status = [.ready, .seekComplete]
      endCommand()
    }
  }

  /// Leaves the last sector's address in the task file, the count at 0.
  mutating func noteLastSector() {
    guard !isPacketCommand else { return }
    drives[active].setAddress(sector &- 1, isExtended: isExtended)
    drives[active].sectorCount = HistoryByte(0)
  }

  // MARK: Data-out

  /// Raises DRQ for the next block that the guest writes.
  mutating func beginOutBlock(interrupts: Bool) {
    let count = operation == .packet ? 12 : min(remaining, blockSize) &* 512
    position = 0
    dataEnd = min(count, UInt32(Self.bufferSize))
    blockEnd = dataEnd
    phase = .dataOut
    drives[active].status = [.ready, .seekComplete]
    drives[active].error = 0
    if interrupts { raiseInterrupt() }
  }

  /// The guest has written a DRQ block.
  mutating func finishOutBlock() {
    switch operation {
    case .packet: executePacket()
    case .writeBuffer: finish()
    default: beginRequest(count: min(remaining, blockSize))
    }
  }

  // MARK: DMA

  /// Starts a DMA command, or waits for the bus master.
  mutating func beginDMA() {
    drives[active].status = [.ready, .seekComplete]
    drives[active].error = 0
    phase = .dmaReady
    if busMasterCommand & 1 != 0 { continueDMA() }
  }

  /// Requests the next chunk that the window has room for, or ends the command.
  mutating func continueDMA() {
    let isToMemory = operation != .writeDMA && operation != .trim
    guard isWindowValid, (busMasterCommand & 8 != 0) == isToMemory else {
      failBus()
      return
    }
    let left = windowByteCount - min(windowPosition, windowByteCount)
    if operation == .reply {
      beginRequest(count: min(dataEnd, left))
      if requestCount == 0 { exhaustWindow() }
      return
    }
    let sectorSize = drives[active].sectorSize
    let count = min(remaining, left / sectorSize, Self.largestChunk / sectorSize)
    if count == 0 {
      exhaustWindow()
    } else {
      beginRequest(count: count)
    }
  }

  /// The PRD table was shorter than the command: it ends with no interrupt (82371SB, 2.7.2).
  private mutating func exhaustWindow() {
    busMasterStatus &= ~1
    drives[active].status = [.ready, .seekComplete]
    endCommand()
  }

  /// The bus master could not reach memory: error bit, and the drive gives up.
  mutating func failBus() {
    busMasterStatus = busMasterStatus & ~1 | 2
    if isPacketCommand {
      failPacket(4, 0x44)
    } else {
      abort()
    }
  }

  /// All data has moved.
  mutating func finishDMA() {
    if windowPosition >= windowByteCount { busMasterStatus &= ~1 }
    if operation != .trim { noteLastSector() }
    finish()
  }

  // MARK: Completions

  /// The request under way, if there is one.
  var request: IDERequest? {
    guard phase == .waiting else { return nil }
    var drive = drives[active]
    if isForced { drive.hasWriteCache = false }
    let size = drive.sectorSize
    let bytes = requestCount &* size
    let window = IDERequest.Transfer.window(offset: windowPosition, byteCount: bytes)
    let buffer = IDERequest.Transfer.buffer(0..<Int(min(bytes, UInt32(Self.bufferSize))))
    let kind: IDERequest.Kind
    var transfer = IDERequest.Transfer.none
    switch operation {
    case .readPIO:
      kind = .read(sector: sector, count: requestCount)
      transfer = buffer
    case .readDMA:
      kind = .read(sector: sector, count: requestCount)
      transfer = window
    case .writePIO:
      kind = .write(sector: sector, count: requestCount, durable: !drive.cachesWrites)
      transfer = buffer
    case .writeDMA:
      kind = .write(sector: sector, count: requestCount, durable: !drive.cachesWrites)
      transfer = window
    case .trim:
      kind = .trim(blocks: requestCount)
      transfer = window
    case .verify: kind = .verify(sector: sector, count: requestCount)
    case .reply:
      kind = .copyBuffer(0..<Int(min(requestCount, UInt32(Self.bufferSize))))
      transfer = .window(offset: windowPosition, byteCount: requestCount)
    case .flush, .none, .packet, .writeBuffer: kind = .flush
    }
    return IDERequest(
      channel: index, drive: active, tag: tag, sectorSize: size, kind: kind,
      transfer: transfer)
  }

  /// Takes the end of the request under way.
  mutating func complete(_ result: IDEResult) {
    switch result {
    case .ok: completeWell()
    case .refusedByBus: failBus()
    case .failed(let failed): completeBadly(at: failed)
    }
  }

  private mutating func completeWell() {
    let count = requestCount
    let bytes = count &* drives[active].sectorSize
    switch operation {
    case .readPIO:
      sector &+= UInt64(count)
      remaining -= min(remaining, count)
      position = 0
      dataEnd = min(bytes, UInt32(Self.bufferSize))
      beginInBlock()
    case .writePIO:
      sector &+= UInt64(count)
      remaining -= min(remaining, count)
      if remaining > 0 {
        beginOutBlock(interrupts: true)
      } else {
        noteLastSector()
        finish()
      }
    case .readDMA, .writeDMA, .trim:
      sector &+= UInt64(count)
      remaining -= min(remaining, count)
      windowPosition = min(windowPosition &+ bytes, windowByteCount)
      if remaining > 0 { continueDMA() } else { finishDMA() }
    case .reply:
      windowPosition = min(windowPosition &+ count, windowByteCount)
      finishDMA()
    case .verify:
      sector &+= UInt64(count)
      remaining -= min(remaining, count)
      if remaining > 0 {
        beginRequest(count: min(remaining, 256))
      } else {
        noteLastSector()
        finish()
      }
    case .flush, .none, .packet, .writeBuffer: finish()
    }
  }

  private mutating func completeBadly(at failed: UInt64) {
    drives[active].failures &+= 1
    switch operation {
    case .readPIO where readsAhead && requestCount > blockSize && !isPacketCommand:
      // Bring the good blocks in one by one, so that the guest gets them first.
      readsAhead = false
      requestInBlock()
      return
    case .readPIO, .readDMA, .verify:
      if isPacketCommand {
        failPacket(3, 0x11)
        drives[active].senseSector = UInt32(truncatingIfNeeded: failed)
      } else {
        drives[active].setAddress(failed, isExtended: isExtended)
        abort(ATAError.uncorrectable)
      }
    case .writePIO, .writeDMA, .trim:
      drives[active].setAddress(failed, isExtended: isExtended)
      abort()
    case .flush, .reply, .none, .packet, .writeBuffer: abort()
    }
    if busMasterCommand & 1 != 0 { busMasterStatus &= ~1 }
  }
}
