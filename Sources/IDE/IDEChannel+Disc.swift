// SPDX-License-Identifier: Apache-2.0

/// Packet commands that describe the disc and the drive (MMC-3, section 6).
extension IDEChannel {
  /// READ TOC/PMA/ATIP (6.26) for a disc of one data track.
  mutating func readTableOfContents(_ packet: [UInt8]) {
    let usesTime = packet[1] & 0x02 != 0
    let format = packet[2] & 0x0F == 0 ? packet[9] >> 6 : packet[2] & 0x0F
    let limit = Self.word(packet, 7)
    let end = UInt32(truncatingIfNeeded: drives[active].capacity)
    switch format {
    case 0:
      let start = packet[6]
      guard start <= 1 || start == 0xAA else {
        failPacket(5, 0x24)
        return
      }
      var data: [UInt8] = [0, 0, 1, 1]
      if start <= 1 { data += [0, 0x14, 1, 0] + Self.place(0, usesTime) }
      data += [0, 0x14, 0xAA, 0] + Self.place(end, usesTime)
      data[1] = UInt8(data.count - 2)
      reply(data, limit: limit)
    case 1:
      reply([0, 0x0A, 1, 1, 0, 0x14, 1, 0] + Self.place(0, usesTime), limit: limit)
    case 2: reply(Self.rawTableOfContents(end), limit: limit)
    default: failPacket(5, 0x24)
    }
  }

  private static func rawTableOfContents(_ end: UInt32) -> [UInt8] {
    var data: [UInt8] = [0, 0x2E, 1, 1]
    data += [1, 0x14, 0, 0xA0, 0, 0, 0, 0, 1, 0, 0]
    data += [1, 0x14, 0, 0xA1, 0, 0, 0, 0, 1, 0, 0]
    data += [1, 0x14, 0, 0xA2, 0, 0, 0] + place(end, true)
    data += [1, 0x14, 0, 1, 0, 0, 0] + place(0, true)
    return data
  }

  /// A disc address as a number, or as minute, second and frame with the 2 s lead-in.
  private static func place(_ sector: UInt32, _ usesTime: Bool) -> [UInt8] {
    guard usesTime else { return bytes(sector) }
    let frames = UInt64(sector) + 150
    return [
      0, UInt8(truncatingIfNeeded: frames / 4500), UInt8(frames / 75 % 60), UInt8(frames % 75),
    ]
  }

  /// GET CONFIGURATION (6.6): a CD-ROM drive with the core profile.
  func configuration() -> [UInt8] {
    let hasMedium = drives[active].hasMedium
    var data: [UInt8] = [0, 0, 0, 0, 0, 0, 0, hasMedium ? 0x08 : 0]
    data += [0, 0, 0x03, 4, 0, 0x08, hasMedium ? 1 : 0, 0]  // profile list
    data += [0, 1, 0x0B, 8, 0, 0, 0, 2, 1, 0, 0, 0]  // core, over ATAPI
    data += [0, 3, 0x03, 4, 0x29, 0, 0, 0]  // removable medium, tray
    data.replaceSubrange(0..<4, with: Self.bytes(UInt32(data.count - 4)))
    return data
  }

  /// GET EVENT STATUS NOTIFICATION (6.7), polled; only media events.
  mutating func getEvent(_ packet: [UInt8]) {
    guard packet[1] & 1 != 0 else {
      failPacket(5, 0x24)  // asynchronous notification
      return
    }
    let limit = Self.word(packet, 7)
    guard packet[4] & 0x10 != 0 else {
      reply([0, 2, 0x80, 0x10], limit: limit)
      return
    }
    let drive = drives[active]
    // 1 asks for the disc, 2 tells of a new one, 3 of its removal.
    let event: UInt8 =
      drive.hasMediaEvent ? (drive.hasMedium ? 2 : 3) : drive.wantsEject ? 1 : 0
    drives[active].hasMediaEvent = false
    if event == 1 { drives[active].wantsEject = false }
    let state: UInt8 = (drive.hasMedium ? 2 : 0) | (drive.isTrayOpen ? 1 : 0)
    reply([0, 6, 0x04, 0x10, event, state, 0, 0], limit: limit)
  }

  /// READ DISC INFORMATION (6.22): one finished session.
  func discInformation() -> [UInt8] {
    [0, 32, 0x0E, 1, 1, 1, 1, 0x20] + [UInt8](repeating: 0, count: 26)
  }

  /// MODE SENSE (10) with the error recovery and the capabilities page.
  mutating func modeSense(_ packet: [UInt8]) {
    let page = packet[2] & 0x3F
    guard packet[2] >> 6 != 3 else {
      failPacket(5, 0x39)  // there are no saved values
      return
    }
    var data: [UInt8] = [0, 0, drives[active].hasMedium ? 0x01 : 0x70, 0, 0, 0, 0, 0]
    if page == 0x01 || page == 0x3F { data += [0x01, 6, 0, 5, 0, 0, 0, 0] }
    if page == 0x2A || page == 0x3F {
      let lock: UInt8 = 0x29 | (drives[active].isLocked ? 0x02 : 0)  // tray, eject, lock
      data += [0x2A, 18, 0x3B, 0, 0x70, 0x60, lock, 0]
      data += [0x02, 0xC2, 0, 2, 2, 0, 0x02, 0xC2, 0, 0, 0, 0]
    }
    guard data.count > 8 else {
      failPacket(5, 0x24)
      return
    }
    data[1] = UInt8(data.count - 2)
    reply(data, limit: Self.word(packet, 7))
  }
}
