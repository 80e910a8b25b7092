// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import Testing

@testable import IDE

/// A controller with disks in memory, and what an endpoint would do for it.
struct Bench {
  var ide = IDEController()
  var media: [[UInt8]] = Array(repeating: [], count: 4)
  /// Guest memory behind the window of each channel.
  var memory: [[UInt8]] = [[], []]
  var failing: Set<UInt64> = []
  var requests: [IDERequest] = []
  /// The lists of ranges that DATA SET MANAGEMENT has brought.
  var trimmed: [[UInt8]] = []

  private static let diskPattern = (0..<4096 * 512).map {
    UInt8(truncatingIfNeeded: $0 / 512 &+ $0)
  }
  private static let discPattern = (0..<100 * 2048).map {
    UInt8(truncatingIfNeeded: $0 / 2048 &* 3 &+ $0)
  }

  /// A disk as primary master and a CD-ROM as secondary master.
  init(sectors: UInt64 = 4096, discSectors: UInt64? = 100) {
    ide.attach(
      .disk(sectorCount: sectors), channel: 0, drive: 0, serial: "BH0001", model: "BULKHEAD DISK")
    ide.attach(
      .cdrom(sectorCount: discSectors), channel: 1, drive: 0, serial: "BH0002",
      model: "BULKHEAD CD")
    media[0] = Self.diskPattern
    media[2] = Self.discPattern
  }

  func base(_ channel: Int) -> IDERegion { channel == 0 ? .primaryCommand : .secondaryCommand }
  func control(_ channel: Int) -> IDERegion { channel == 0 ? .primaryControl : .secondaryControl }

  mutating func read(_ register: UInt16, _ channel: Int = 0) -> UInt8 {
    UInt8(truncatingIfNeeded: ide.read(base(channel), at: register, width: .byte))
  }

  mutating func write(_ value: UInt8, _ register: UInt16, _ channel: Int = 0) {
    ide.write(UInt64(value), base(channel), at: register, width: .byte)
  }

  mutating func status(_ channel: Int = 0) -> ATAStatus { ATAStatus(rawValue: read(7, channel)) }

  func alternate(_ channel: Int = 0) -> ATAStatus {
    ATAStatus(rawValue: ide.alternateStatus(channel: channel))
  }

  /// Writes an LBA28 task file and the command.
  mutating func command(
    _ code: UInt8, lba: UInt32 = 0, count: UInt8 = 0, features: UInt8 = 0, drive: UInt8 = 0,
    channel: Int = 0
  ) {
    write(0xE0 | drive << 4 | UInt8(lba >> 24 & 0x0F), 6, channel)
    write(features, 1, channel)
    write(count, 2, channel)
    for shift in 0..<3 {
      write(UInt8(truncatingIfNeeded: lba >> (8 * UInt32(shift))), 3 + UInt16(shift), channel)
    }
    write(code, 7, channel)
  }

  /// Writes an LBA48 task file and the command.
  mutating func commandExtended(_ code: UInt8, lba: UInt64, count: UInt16, channel: Int = 0) {
    write(0x40, 6, channel)
    write(UInt8(count >> 8), 2, channel)
    for shift in 3..<6 {
      write(UInt8(truncatingIfNeeded: lba >> (8 * UInt64(shift))), UInt16(shift), channel)
    }
    write(UInt8(truncatingIfNeeded: count), 2, channel)
    for shift in 0..<3 {
      write(UInt8(truncatingIfNeeded: lba >> (8 * UInt64(shift))), 3 + UInt16(shift), channel)
    }
    write(code, 7, channel)
  }

  /// Does the request that a channel waits for; returns whether there was one.
  @discardableResult
  mutating func serve(_ channel: Int = 0) -> Bool {
    guard let request = ide.request(channel: channel) else { return false }
    requests.append(request)
    let size = Int(request.sectorSize)
    let disk = request.channel * 2 + request.drive
    var result = IDEResult.ok
    switch request.kind {
    case .read(let sector, let count):
      if let bad = (sector..<sector + UInt64(count)).first(where: failing.contains) {
        result = .failed(sector: bad)
        break
      }
      let data = Array(media[disk][Int(sector) * size..<(Int(sector) + Int(count)) * size])
      move(data, request)
    case .write(let sector, let count, _):
      if let bad = (sector..<sector + UInt64(count)).first(where: failing.contains) {
        result = .failed(sector: bad)
        break
      }
      let data = take(request, Int(count) * size)
      media[disk].replaceSubrange(
        Int(sector) * size..<Int(sector) * size + data.count, with: data)
    case .verify(let sector, let count):
      if let bad = (sector..<sector + UInt64(count)).first(where: failing.contains) {
        result = .failed(sector: bad)
      }
    case .trim(let blocks): trimmed.append(take(request, Int(blocks) * 512))
    case .flush: break
    case .copyBuffer(let range):
      let data = ide.withBuffer(channel: channel) { span in range.map { span[$0] } }
      move(data, request)
    }
    ide.complete(channel: channel, tag: request.tag, result)
    return true
  }

  private mutating func move(_ data: [UInt8], _ request: IDERequest) {
    switch request.transfer {
    case .none: break
    case .buffer(let range):
      ide.withMutableBuffer(channel: request.channel) { span in
        for index in range { span[index] = data[index - range.lowerBound] }
      }
    case .window(let offset, let count):
      memory[request.channel].replaceSubrange(
        Int(offset)..<Int(offset) + Int(count), with: data)
    }
  }

  private func take(_ request: IDERequest, _ count: Int) -> [UInt8] {
    switch request.transfer {
    case .none: []
    case .buffer(let range): ide.withBuffer(channel: request.channel) { s in range.map { s[$0] } }
    case .window(let offset, _): Array(memory[request.channel][Int(offset)..<Int(offset) + count])
    }
  }

  /// Reads `count` bytes from the data port, by words.
  mutating func dataIn(_ count: Int, _ channel: Int = 0) -> [UInt8] {
    var result: [UInt8] = []
    for _ in 0..<count / 2 {
      let word = ide.read(base(channel), at: 0, width: .word)
      result += [UInt8(truncatingIfNeeded: word), UInt8(truncatingIfNeeded: word >> 8)]
    }
    return result
  }

  /// Writes bytes to the data port, by words.
  mutating func dataOut(_ bytes: [UInt8], _ channel: Int = 0) {
    for index in stride(from: 0, to: bytes.count, by: 2) {
      let word = UInt64(bytes[index]) | UInt64(bytes[index + 1]) << 8
      ide.write(word, base(channel), at: 0, width: .word)
    }
  }

  /// Opens a window and starts the bus master.
  mutating func startDMA(_ channel: Int, byteCount: Int, toMemory: Bool, isValid: Bool = true) {
    if memory[channel].count < byteCount {
      memory[channel] = [UInt8](repeating: 0, count: byteCount)
    }
    ide.setWindow(
      channel: channel, IDEWindow(byteCount: UInt32(byteCount), isValid: isValid))
    ide.write(toMemory ? 9 : 1, .busMaster, at: UInt16(channel * 8), width: .byte)
  }

  mutating func busMasterStatus(_ channel: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: ide.read(.busMaster, at: UInt16(channel * 8 + 2), width: .byte))
  }

  mutating func stopDMA(_ channel: Int) {
    ide.write(0, .busMaster, at: UInt16(channel * 8), width: .byte)
  }

  /// Sends a command packet to the CD-ROM.
  mutating func packet(_ bytes: [UInt8], limit: UInt16 = 0xFFFE, dma: Bool = false) {
    write(0xA0, 6, 1)
    write(dma ? 1 : 0, 1, 1)
    write(UInt8(truncatingIfNeeded: limit), 4, 1)
    write(UInt8(truncatingIfNeeded: limit >> 8), 5, 1)
    write(0xA0, 7, 1)
    dataOut(bytes + [UInt8](repeating: 0, count: 12 - bytes.count), 1)
  }
}
