// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem
internal import VGA

/// Video memory that the guest and the display see too.
struct MappedVideoMemory: VideoMemory {
  let mapping: Mapping

  var byteCount: Int { mapping.byteCount }

  func load(_ offset: Int) -> UInt8 {
    contains(offset, 1) ? mapping.load(UInt8.self, at: offset) : 0xFF
  }

  func store(_ value: UInt8, at offset: Int) {
    if contains(offset, 1) { mapping.store(value, at: offset) }
  }

  func loadLong(_ offset: Int) -> UInt32 {
    guard !contains(offset, 4) else { return mapping.load(UInt32.self, at: offset) }
    return (0..<4).reduce(0) { $0 | UInt32(load(offset &+ $1)) << UInt32(8 * $1) }
  }

  func storeLong(_ value: UInt32, at offset: Int) {
    guard !contains(offset, 4) else { return mapping.store(value, at: offset) }
    for lane in 0..<4 {
      store(UInt8(truncatingIfNeeded: value >> UInt32(8 * lane)), at: offset &+ lane)
    }
  }

  func copy(from offset: Int, into row: inout [UInt8]) {
    guard !contains(offset, row.count) else {
      row = mapping.bytes(at: offset, count: row.count)
      return
    }
    for index in row.indices { row[index] = load(offset &+ index) }
  }

  func fill(_ range: Range<Int>, with value: UInt8) {
    let existing = range.clamped(to: 0..<byteCount)
    mapping.fill(value, at: existing.lowerBound, count: existing.count)
  }

  private func contains(_ offset: Int, _ count: Int) -> Bool {
    offset >= 0 && count <= byteCount && offset <= byteCount - count
  }
}
