// SPDX-License-Identifier: Apache-2.0

import DeviceModel

/// What a channel is doing; one command at a time runs on its two drives.
enum IDEPhase: UInt8, Sendable {
  /// No command.
  case idle
  /// BSY: a request is with the endpoint.
  case waiting
  /// DRQ: the guest reads the data port.
  case dataIn
  /// DRQ: the guest writes the data port.
  case dataOut
  /// DRQ: the drive asks for DMA and the bus master has not been started.
  case dmaReady
}

/// What the command under way does next when its data or its request is through.
enum IDEOperation: UInt8, Sendable {
  case none
  case readPIO
  case writePIO
  case readDMA
  case writeDMA
  case verify
  case flush
  /// DATA SET MANAGEMENT: the guest's memory has a list of ranges to be trimmed.
  case trim
  /// Data made by the model goes to the guest.
  case reply
  /// The guest writes the 12 bytes of a command packet.
  case packet
  /// The guest writes the 512 bytes of WRITE BUFFER.
  case writeBuffer
}

/// One channel: two drives, the buffer, and its half of the bus master.
struct IDEChannel: DeviceState, Sendable {
  /// Bytes in the PIO buffer: 128 disk sectors or 32 CD sectors.
  static let bufferSize = 65536
  /// The most that one DMA request moves.
  static let largestChunk: UInt32 = 131_072

  let index: Int
  var drives = [IDEDrive(), IDEDrive()]
  /// 0 or 1, from the device register.
  var selected = 0
  /// Bit 1 of the device control register: nIEN.
  var isMasked = false
  /// Bit 2: SRST is held.
  var isInReset = false
  /// Bit 7: reads give the previous values.
  var readsHighOrder = false

  var phase = IDEPhase.idle
  var operation = IDEOperation.none
  /// The drive whose command is under way.
  var active = 0
  var isExtended = false
  /// The command writes through the cache, whatever the drive's setting.
  var isForced = false
  /// The next sector and how many are left of the command.
  var sector: UInt64 = 0
  var remaining: UInt32 = 0
  /// Sectors (or, for packets, bytes) in a DRQ block.
  var blockSize: UInt32 = 1
  /// Whether one request may bring in more than one DRQ block.
  var readsAhead = true
  var isPacketCommand = false
  var isPacketDMA = false

  /// The buffer's next byte, the end of the DRQ block, the end of the data.
  var position: UInt32 = 0
  var blockEnd: UInt32 = 0
  var dataEnd: UInt32 = 0

  var tag: UInt32 = 0
  /// The count of sectors or bytes of the request under way.
  var requestCount: UInt32 = 0

  // Bus master (82371SB, 2.7).
  var busMasterCommand: UInt8 = 0
  var busMasterStatus: UInt8 = 0
  var descriptorPointer: UInt32 = 0
  var windowByteCount: UInt32 = 0
  var isWindowValid = false
  var windowPosition: UInt32 = 0
  /// The level of the interrupt line after the last access.
  var wasInterrupting = false

  var buffer = [UInt8](repeating: 0, count: IDEChannel.bufferSize)
  /// The part of the buffer that changed since it was last asked for.
  var dirtyStart: UInt32 = 0
  var dirtyEnd: UInt32 = 0

  init(index: Int) { self.index = index }

  /// The level of the channel's interrupt line.
  var interrupt: Bool { drives[selected].isInterrupting && !isMasked }

  var isEmpty: Bool { !drives[0].isPresent && !drives[1].isPresent }

  @specialized(where V == StateEncoder)
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.parts("drive", &drives)
    visitor.field("selected", &selected, below: 2)
    visitor.field("masked", &isMasked)
    visitor.field("in-reset", &isInReset)
    visitor.field("high-order", &readsHighOrder)
    visitor.field("phase", &phase)
    visitor.field("operation", &operation)
    visitor.field("active", &active, below: 2)
    visitor.field("extended", &isExtended)
    visitor.field("forced", &isForced)
    visitor.field("sector", &sector)
    visitor.field("remaining", &remaining)
    visitor.field("block-size", &blockSize)
    visitor.field("reads-ahead", &readsAhead)
    visitor.field("packet-command", &isPacketCommand)
    visitor.field("packet-dma", &isPacketDMA)
    visitor.field("position", &position)
    visitor.field("block-end", &blockEnd)
    visitor.field("data-end", &dataEnd)
    visitor.field("tag", &tag)
    visitor.field("request-count", &requestCount)
    visitor.field("bm-command", &busMasterCommand)
    visitor.field("bm-status", &busMasterStatus)
    visitor.field("bm-pointer", &descriptorPointer)
    visitor.field("window-bytes", &windowByteCount)
    visitor.field("window-valid", &isWindowValid)
    visitor.field("window-position", &windowPosition)
    visitor.field("was-interrupting", &wasInterrupting)
    visitor.field("dirty-start", &dirtyStart)
    visitor.field("dirty-end", &dirtyEnd)
    clampRestored()
  }

  /// Keeps a damaged or hostile state inside the buffer and the medium.
  private mutating func clampRestored() {
    let size = UInt32(Self.bufferSize)
    dataEnd = min(dataEnd, size)
    blockEnd = min(blockEnd, dataEnd)
    position = min(position, blockEnd)
    dirtyEnd = min(dirtyEnd, size)
    dirtyStart = min(dirtyStart, dirtyEnd)
    blockSize = max(blockSize, 1)
    remaining = min(remaining, 1 << 24)
    requestCount = min(requestCount, 1 << 24)
    windowPosition = min(windowPosition, windowByteCount)
  }

  mutating func markDirty(_ range: Range<Int>) {
    guard !range.isEmpty else { return }
    let start = UInt32(range.lowerBound)
    let end = UInt32(range.upperBound)
    if dirtyStart == dirtyEnd {
      dirtyStart = start
      dirtyEnd = end
    } else {
      dirtyStart = min(dirtyStart, start)
      dirtyEnd = max(dirtyEnd, end)
    }
  }

  /// The status register of a drive, with the bits that follow from the phase.
  func status(of drive: Int) -> ATAStatus {
    guard drives[drive].isPresent else { return [] }
    if isInReset { return .busy }
    guard drive == active else { return drives[drive].status }
    return switch phase {
    case .idle: drives[drive].status
    case .waiting: drives[drive].status.union(.busy).subtracting(.dataRequest)
    case .dataIn, .dataOut, .dmaReady: drives[drive].status.union(.dataRequest)
    }
  }

  /// Raises the active drive's interrupt.
  mutating func raiseInterrupt() { drives[active].isInterrupting = true }

  /// Sets the bus master's interrupt bit on a rising edge of the line (82371SB, 2.7.2).
  mutating func noteInterrupt() {
    let level = interrupt
    if level, !wasInterrupting { busMasterStatus |= 4 }
    wasInterrupting = level
  }

  /// Goes to `idle`; the drive's registers already tell how the command ended.
  mutating func endCommand() {
    phase = .idle
    operation = .none
    isPacketCommand = false
    position = 0
    blockEnd = 0
    dataEnd = 0
  }

  /// Starts a request: BSY until its completion.
  mutating func beginRequest(count: UInt32) {
    phase = .waiting
    requestCount = count
    tag &+= 1
  }

  /// Ends the command under way without an error.
  mutating func finish() {
    if isPacketCommand {
      drives[active].sectorCount.current = 3  // command complete: I/O and C/D (9.8)
    }
    drives[active].succeed()
    endCommand()
  }

  /// Ends the command under way with an error register of `code`.
  mutating func abort(_ code: UInt8 = ATAError.aborted) {
    drives[active].fail(code)
    endCommand()
  }
}

extension StateVisitor {
  /// Visits a small number, kept below `limit` when restored.
  mutating func field(_ name: StaticString, _ value: inout Int, below limit: Int) {
    var byte = UInt8(truncatingIfNeeded: value)
    field(name, &byte)
    value = min(Int(byte), limit - 1)
  }
}
