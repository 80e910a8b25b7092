// SPDX-License-Identifier: Apache-2.0

extension IDEChannel {
  /// PACKET (ATA/ATAPI-6, 8.23): asks for the 12 bytes of the command.
  mutating func beginPacket() {
    let features = drives[active].features.current
    guard features & 0x02 == 0 else {
      abort()  // overlapped operation
      return
    }
    isPacketCommand = true
    isPacketDMA = features & 0x01 != 0
    operation = .packet
    let limit = UInt32(drives[active].lbaHigh.current) << 8 | UInt32(drives[active].lbaMid.current)
    // An odd limit is rounded down, FFFFh and 0 mean the most (8.23.4).
    blockSize = limit == 0 || limit == 0xFFFF ? 0xFFFE : max(limit & ~1, 2)
    drives[active].sectorCount.current = 1  // command to the device
    beginOutBlock(interrupts: false)
  }

  /// The 12 bytes are in the buffer.
  mutating func executePacket() {
    let packet = Array(buffer[0..<12])
    let code = packet[0]
    // A changed disc is reported once, except by the commands that don't care (MMC-3, 4.1).
    if drives[active].hasNewMedium, ![0x03, 0x12, 0x4A, 0x46].contains(code) {
      drives[active].hasNewMedium = false
      failPacket(6, 0x28)
      return
    }
    if Self.needsMedium(code), !drives[active].hasMedium {
      // Not present; the qualifier tells whether the tray is shut (MMC-3, table F.1).
      failPacket(2, 0x3A, drives[active].isTrayOpen ? 0x02 : 0x01)
      return
    }
    switch code {
    case 0x00, 0x2B: finishPacket()  // TEST UNIT READY, SEEK
    case 0x03: reply(requestSense(), limit: Int(packet[4]))
    case 0x12: inquire(packet)
    case 0x1B: startStop(packet)
    case 0x1E:
      drives[active].isLocked = packet[4] & 1 != 0
      finishPacket()
    case 0x25: reply(capacityData(), limit: 8)
    case 0x28:
      readSectors(Self.long(packet, 2), UInt32(packet[7]) << 8 | UInt32(packet[8]))
    case 0xA8: readSectors(Self.long(packet, 2), Self.long(packet, 6))
    case 0xBE: readCD(packet)
    case 0x43: readTableOfContents(packet)
    case 0x46: reply(configuration(), limit: Self.word(packet, 7))
    case 0x4A: getEvent(packet)
    case 0x51: reply(discInformation(), limit: Self.word(packet, 7))
    case 0x5A: modeSense(packet)
    case 0xBD:
      reply([0, 0, 0, 0, 0, 1, 0, 0], limit: Self.word(packet, 8))
    default: failPacket(5, 0x20)
    }
  }

  private static func needsMedium(_ code: UInt8) -> Bool {
    switch code {
    case 0x00, 0x25, 0x28, 0x2B, 0x43, 0x51, 0xA8, 0xBE: true
    default: false
    }
  }

  static func word(_ packet: [UInt8], _ at: Int) -> Int {
    Int(packet[at]) << 8 | Int(packet[at + 1])
  }

  static func long(_ packet: [UInt8], _ at: Int) -> UInt32 {
    UInt32(word(packet, at)) << 16 | UInt32(word(packet, at + 2))
  }

  /// Ends a packet command in CHECK CONDITION with this sense data.
  mutating func failPacket(_ key: UInt8, _ code: UInt8, _ qualifier: UInt8 = 0) {
    drives[active].setSense(key, code, qualifier)
    drives[active].sectorCount.current = 3
    drives[active].fail(key << 4 | (key == 5 ? ATAError.aborted : 0))
    endCommand()
  }

  private mutating func finishPacket() {
    drives[active].setSense(0, 0)
    finish()
  }

  /// Gives the host at most `limit` bytes of `data`, by PIO or DMA.
  mutating func reply(_ data: [UInt8], limit: Int) {
    let count = min(data.count, limit)
    guard count > 0 else {
      finish()
      return
    }
    for index in 0..<count { buffer[index] = data[index] }
    markDirty(0..<count)
    operation = .reply
    if isPacketDMA {
      dataEnd = UInt32(count)
      beginDMA()
    } else {
      beginReply(count)
    }
  }

  private mutating func readSectors(_ first: UInt32, _ count: UInt32) {
    let capacity = drives[active].capacity
    guard UInt64(first) + UInt64(count) <= capacity, count <= 1 << 24 else {
      failPacket(5, 0x21)
      return
    }
    drives[active].setSense(0, 0)
    guard count > 0 else {
      finish()
      return
    }
    sector = UInt64(first)
    remaining = count
    operation = isPacketDMA ? .readDMA : .readPIO
    if isPacketDMA { beginDMA() } else { requestInBlock() }
  }

  /// READ CD, for the one form that is plain 2,048-byte data (MMC-3, 6.19).
  private mutating func readCD(_ packet: [UInt8]) {
    let count = UInt32(packet[6]) << 16 | UInt32(Self.word(packet, 7))
    let fields = packet[9] & 0xF8
    if fields == 0 {
      finishPacket()
    } else if fields == 0x10 {
      readSectors(Self.long(packet, 2), count)
    } else {
      failPacket(5, 0x24)
    }
  }

  private mutating func inquire(_ packet: [UInt8]) {
    guard packet[1] & 1 == 0 else {
      failPacket(5, 0x24)  // no vital product data
      return
    }
    var data: [UInt8] = [0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0]
    data += Self.padded("BULKHEAD", 8) + Self.padded("CD-ROM", 16) + Self.padded("1.0", 4)
    reply(data, limit: Int(packet[4]))
  }

  private static func padded(_ text: String, _ count: Int) -> [UInt8] {
    let bytes = Array(text.utf8.prefix(count))
    return bytes + [UInt8](repeating: 0x20, count: count - bytes.count)
  }

  private mutating func requestSense() -> [UInt8] {
    if drives[active].hasNewMedium {
      drives[active].hasNewMedium = false
      drives[active].setSense(6, 0x28)
    }
    let drive = drives[active]
    drives[active].setSense(0, 0)
    // A medium error says where: the valid bit and the information field (SPC-2, 7.20.2).
    let code: UInt8 = drive.senseKey == 3 ? 0xF0 : 0x70
    return [code, 0, drive.senseKey] + Self.bytes(drive.senseSector) + [10, 0, 0, 0, 0]
      + [drive.senseCode, drive.senseQualifier, 0, 0, 0, 0]
  }

  private func capacityData() -> [UInt8] {
    let last = UInt32(truncatingIfNeeded: max(drives[active].capacity, 1) - 1)
    return Self.bytes(last) + [0, 0, 0x08, 0]
  }

  static func bytes(_ value: UInt32) -> [UInt8] {
    [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
  }

  /// START STOP UNIT (MMC-3, 6.48): the tray goes out, unless it is locked, or in.
  ///
  /// The disc stays in the tray until the operator takes it out.
  private mutating func startStop(_ packet: [UInt8]) {
    switch packet[4] & 0x03 {
    case 0x02:
      if drives[active].isLocked {
        failPacket(5, 0x53, 0x02)
        return
      }
      if !drives[active].isTrayOpen {
        drives[active].isTrayOpen = true
        drives[active].hasMediaEvent = true
        drives[active].wantsEject = false
        drives[active].hasNewMedium = false
      }
    case 0x03:
      if drives[active].isTrayOpen {
        drives[active].isTrayOpen = false
        drives[active].hasNewMedium = drives[active].hasMedium
        drives[active].hasMediaEvent = true
      }
    default: break
    }
    finishPacket()
  }
}
