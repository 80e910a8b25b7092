// SPDX-License-Identifier: Apache-2.0

/// The largest DRQ block of READ MULTIPLE and WRITE MULTIPLE, in sectors.
let largestMultiple: UInt8 = 16
/// The most blocks of 512 bytes that DATA SET MANAGEMENT takes.
let mostTrimBlocks: UInt32 = 1

extension IDEDrive {
  /// The 512 bytes of IDENTIFY DEVICE (ATA/ATAPI-6, 8.15) or IDENTIFY PACKET DEVICE (8.16).
  func identification() -> [UInt8] {
    var data = IdentifyData()
    data.setText(10, words: 10, serial)
    data.setText(23, words: 4, "1.0")
    data.setText(27, words: 20, model)
    data[49] = 0x0B00  // IORDY, LBA, DMA
    data[51] = 0x0200
    data[53] = 0x0007  // words 54-58, 64-70 and 88 are valid
    data[63] = 0x0007 | selected(0x20)
    data[64] = 0x0003  // PIO modes 3 and 4
    for word in 65...68 { data[word] = 120 }
    data[80] = 0x00F0  // ATA/ATAPI-4 to -7
    data[88] = 0x003F | selected(0x40)
    data[93] = 0x6001
    if isPacketDevice {
      data[0] = 0x85C0  // CD-ROM, removable, DRQ within 50 us, 12-byte packets
      data[82] = 0x4210  // NOP, DEVICE RESET, PACKET
      data[85] = 0x4210
      data[83] = 0x4000
      data[87] = 0x4000
    } else {
      fillDisk(&data)
      fillOptions(&data)
    }
    return data.withChecksum()
  }

  /// Commands that a disk may do without; words 82 to 84 and, in force, 85 to 87.
  private func fillOptions(_ data: inout IdentifyData) {
    for word in [82, 85] { data[word] |= 0x3000 }  // READ BUFFER, WRITE BUFFER
    for word in [84, 87] { data[word] |= 0x0040 }  // the FUA forms of WRITE
  }

  private func fillDisk(_ data: inout IdentifyData) {
    let tracks = UInt64(heads) * UInt64(sectorsPerTrack)
    let current = tracks == 0 ? 0 : min(capacity / tracks, 65535)
    data[0] = 0x0040  // not removable
    data[1] = UInt16(truncatingIfNeeded: cylinders)
    data[3] = 16
    data[6] = 63
    data[47] = 0x8000 | UInt16(largestMultiple)
    data[54] = UInt16(truncatingIfNeeded: current)
    data[55] = UInt16(heads)
    data[56] = UInt16(sectorsPerTrack)
    data.set(57, words: 2, min(current * tracks, UInt64(UInt32.max)))
    data[59] = multiple == 0 ? 0 : 0x0100 | UInt16(multiple)
    data.set(60, words: 2, min(capacity, 0x0FFF_FFFF))
    data[82] = 0x4009 | (isWriteThrough ? 0 : 0x20)  // NOP, write cache, power management, SMART
    data[83] = 0x7400  // FLUSH CACHE, FLUSH CACHE EXT, LBA48
    data[84] = 0x4000
    data[85] = 0x4008 | (cachesWrites ? 0x20 : 0) | (hasSMART ? 1 : 0)
    data[86] = 0x3400
    data[87] = 0x4000
    data.set(100, words: 4, capacity)
    // ACS-2, A.11.4: what was trimmed need not read as zero.
    data[105] = UInt16(mostTrimBlocks)
    data[169] = 0x0001
  }

  /// The selected-mode bits of words 63 and 88.
  private func selected(_ group: UInt8) -> UInt16 {
    transferMode & 0xF8 == group ? 0x0100 << UInt16(transferMode & 7) : 0
  }
}

/// The words of an IDENTIFY answer.
private struct IdentifyData {
  var bytes = [UInt8](repeating: 0, count: 512)

  subscript(word: Int) -> UInt16 {
    get { UInt16(bytes[word * 2]) | UInt16(bytes[word * 2 + 1]) << 8 }
    set {
      bytes[word * 2] = UInt8(truncatingIfNeeded: newValue)
      bytes[word * 2 + 1] = UInt8(truncatingIfNeeded: newValue >> 8)
    }
  }

  mutating func set(_ word: Int, words: Int, _ value: UInt64) {
    for index in 0..<words {
      self[word + index] = UInt16(truncatingIfNeeded: value >> UInt64(16 * index))
    }
  }

  /// Stores ASCII padded with spaces, the bytes of each word swapped (7.1.8).
  mutating func setText(_ word: Int, words: Int, _ text: String) {
    var padded = text.utf8.prefix(words * 2).map { $0 >= 0x20 && $0 < 0x7F ? $0 : 0x20 }
    padded += [UInt8](repeating: 0x20, count: words * 2 - padded.count)
    for index in 0..<words * 2 { bytes[word * 2 + (index ^ 1)] = padded[index] }
  }

  /// The integrity word: signature A5h and a sum that makes all bytes add up to 0 (8.15.61).
  func withChecksum() -> [UInt8] {
    var result = bytes
    result[510] = 0xA5
    result[511] = 0
    result[511] = 0 &- result.reduce(0, &+)
    return result
  }
}
