// SPDX-License-Identifier: Apache-2.0

extension IDEChannel {
  /// Takes a write of the command register (ATA/ATAPI-6, 7.4).
  mutating func writeCommand(_ command: UInt8) {
    guard !isInReset else { return }
    if command == ATACommand.executeDiagnostic, !isEmpty, phase == .idle {
      executeDiagnostic()
      return
    }
    guard drives[selected].isPresent else { return }
    if command == ATACommand.deviceReset, drives[selected].isPacketDevice {
      resetDevice()
      return
    }
    drives[selected].isInterrupting = false
    guard phase == .idle, drives[selected].power != IDEDrive.PowerMode.sleep else { return }
    active = selected
    isPacketCommand = false
    isPacketDMA = false
    isForced = false
    readsAhead = true
    position = 0
    dataEnd = 0
    blockEnd = 0
    if drives[active].isPacketDevice {
      executeOnPacketDevice(command)
    } else {
      executeOnDisk(command)
    }
  }

  /// EXECUTE DEVICE DIAGNOSTIC runs on both drives (8.11); drive 0 reports.
  private mutating func executeDiagnostic() {
    for drive in 0..<2 { drives[drive].setSignature() }
    selected = 0
    active = 0
    endCommand()
    drives[0].isInterrupting = drives[0].isPresent
  }

  /// DEVICE RESET (8.10): the packet device drops its command; there is no interrupt.
  private mutating func resetDevice() {
    if active == selected {
      abandonRequest()
      endCommand()
    }
    let device = drives[selected].device
    drives[selected].setSignature()
    drives[selected].device = device & 0x10 | 0xA0
  }

  private mutating func executeOnDisk(_ command: UInt8) {
    switch command {
    case 0x20, 0x21: read(.readPIO, isExtended: false, block: 1)
    case 0x24: read(.readPIO, isExtended: true, block: 1)
    case 0xC4: read(.readPIO, isExtended: false, block: drives[active].multiple)
    case 0x29: read(.readPIO, isExtended: true, block: drives[active].multiple)
    case 0x30, 0x31: write(.writePIO, isExtended: false, block: 1)
    case 0x34: write(.writePIO, isExtended: true, block: 1)
    case 0xC5: write(.writePIO, isExtended: false, block: drives[active].multiple)
    case 0x39: write(.writePIO, isExtended: true, block: drives[active].multiple)
    case 0xC8, 0xC9: read(.readDMA, isExtended: false, block: 1)
    case 0x25: read(.readDMA, isExtended: true, block: 1)
    case 0xCA, 0xCB: write(.writeDMA, isExtended: false, block: 1)
    case 0x35: write(.writeDMA, isExtended: true, block: 1)
    case 0x3D, 0xCE: writeForced(isMultiple: command == 0xCE)
    case 0x40, 0x41: read(.verify, isExtended: false, block: 1)
    case 0x42: read(.verify, isExtended: true, block: 1)
    case 0x10...0x1F: drives[active].succeed()  // RECALIBRATE: there are no heads to move
    case 0x70...0x7F: seek()
    case 0x06: dataSetManagement()
    case 0x91: initializeParameters()
    case 0xB0: smart()
    case 0xC6: setMultiple()
    case 0xEC: identify()
    case 0xE7, 0xEA: flush()
    case 0xE4: readBuffer()
    case 0xE8: writeBuffer()
    case 0xF8: readNativeMax(isExtended: false)
    case 0x27: readNativeMax(isExtended: true)
    default: executeOnBoth(command)
    }
  }

  private mutating func executeOnPacketDevice(_ command: UInt8) {
    switch command {
    case ATACommand.packet: beginPacket()
    case 0xA1: identify()
    case 0xEC, 0x20, 0x24:
      // These abort and leave the signature, so that a host can tell (9.12, 8.15.5.2).
      drives[active].lbaMid.current = 0x14
      drives[active].lbaHigh.current = 0xEB
      drives[active].sectorCount.current = 1
      drives[active].lbaLow.current = 1
      abort()
    default: executeOnBoth(command)
    }
  }

  private mutating func executeOnBoth(_ command: UInt8) {
    switch command {
    case 0xE0, 0x94, 0xE2, 0x96: changePower(IDEDrive.PowerMode.standby)
    case 0xE1, 0x95, 0xE3, 0x97: changePower(IDEDrive.PowerMode.active)
    case 0xE6, 0x99: changePower(IDEDrive.PowerMode.sleep)
    case 0xE5, 0x98:
      drives[active].sectorCount.current =
        drives[active].power == IDEDrive.PowerMode.active ? 0xFF : 0
      drives[active].succeed()
    case 0xEF: setFeatures()
    default: abort()
    }
  }

  private mutating func changePower(_ mode: UInt8) {
    drives[active].power = mode
    drives[active].succeed()
  }

  private mutating func identify() { replyInBlock(drives[active].identification()) }

  /// Hands out data of the model's in one PIO block.
  mutating func replyInBlock(_ data: [UInt8]) {
    operation = .reply
    for (index, byte) in data.enumerated() { buffer[index] = byte }
    markDirty(0..<data.count)
    beginReply(data.count)
  }

  /// Checks the address and notes what is to be transferred; `false` when it aborted.
  private mutating func prepare(_ operation: IDEOperation, isExtended: Bool, block: UInt8) -> Bool {
    guard block > 0 else {
      abort()  // READ or WRITE MULTIPLE while the mode is off (8.30)
      return false
    }
    let drive = drives[active]
    let count = drive.requestedCount(isExtended: isExtended)
    guard let address = drive.address(isExtended: isExtended), address <= drive.capacity,
      UInt64(count) <= drive.capacity - address
    else {
      abort(ATAError.idNotFound)
      return false
    }
    self.operation = operation
    self.isExtended = isExtended
    sector = address
    remaining = count
    blockSize = UInt32(block)
    drives[active].power = IDEDrive.PowerMode.active
    return true
  }

  private mutating func read(_ operation: IDEOperation, isExtended: Bool, block: UInt8) {
    guard prepare(operation, isExtended: isExtended, block: block) else { return }
    drives[active].status = [.ready, .seekComplete]
    switch operation {
    case .readPIO: requestInBlock()
    case .readDMA: beginDMA()
    default: beginRequest(count: min(remaining, 256))
    }
  }

  private mutating func write(_ operation: IDEOperation, isExtended: Bool, block: UInt8) {
    guard prepare(operation, isExtended: isExtended, block: block) else { return }
    if operation == .writePIO {
      beginOutBlock(interrupts: false)  // the first block comes without one (9.6)
    } else {
      beginDMA()
    }
  }

  /// WRITE DMA FUA EXT and WRITE MULTIPLE FUA EXT (8.52, 8.61): past the cache, always.
  private mutating func writeForced(isMultiple: Bool) {
    isForced = true
    if isMultiple {
      write(.writePIO, isExtended: true, block: drives[active].multiple)
    } else {
      write(.writeDMA, isExtended: true, block: 1)
    }
  }

  /// READ BUFFER (8.26): what WRITE BUFFER has put there, when nothing else came between.
  private mutating func readBuffer() {
    operation = .reply
    beginReply(512)
  }

  private mutating func writeBuffer() {
    operation = .writeBuffer
    remaining = 1
    blockSize = 1
    beginOutBlock(interrupts: false)
  }

  private mutating func flush() {
    operation = .flush
    drives[active].status = [.ready, .seekComplete]
    beginRequest(count: 0)
  }

  private mutating func seek() {
    let drive = drives[active]
    guard let address = drive.address(isExtended: false), address < drive.capacity else {
      abort(ATAError.idNotFound)
      return
    }
    drives[active].succeed()
  }

  private mutating func initializeParameters() {
    let sectors = drives[active].sectorCount.current
    guard sectors > 0 else {
      abort()
      return
    }
    drives[active].sectorsPerTrack = sectors
    drives[active].heads = (drives[active].device & 0x0F) + 1
    drives[active].succeed()
  }

  private mutating func setMultiple() {
    let count = drives[active].sectorCount.current
    guard count <= largestMultiple, count & (count &- 1) == 0 else {
      abort()
      return
    }
    drives[active].multiple = count
    drives[active].succeed()
  }

  private mutating func readNativeMax(isExtended: Bool) {
    guard drives[active].device & 0x40 != 0 else {
      abort()
      return
    }
    let last = max(drives[active].capacity, 1) - 1
    drives[active].setAddress(
      isExtended ? last : min(last, 0x0FFF_FFFF), isExtended: isExtended)
    drives[active].succeed()
  }

  /// SET FEATURES (8.46).
  private mutating func setFeatures() {
    switch drives[active].features.current {
    // A drive without a write cache does not know these two.
    case 0x02 where drives[active].hasOwnCache: drives[active].hasWriteCache = true
    case 0x82 where drives[active].hasOwnCache:
      drives[active].hasWriteCache = false
      flush()  // what the cache holds has to reach the medium (8.46.10)
      return
    case 0x03:
      let mode = drives[active].sectorCount.current
      switch mode {
      case 0x00, 0x01, 0x08...0x0C: break
      case 0x20...0x22, 0x40...0x45: drives[active].transferMode = mode
      default:
        abort()
        return
      }
    case 0x55, 0xAA, 0x66, 0xCC: break
    default:
      abort()
      return
    }
    drives[active].succeed()
  }
}
