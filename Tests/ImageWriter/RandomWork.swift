// SPDX-License-Identifier: Apache-2.0

/// A small generator, so that a failing run can be repeated.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    var mixed = state ^ state >> 33
    mixed = mixed &* 0xFF51_AFD7_ED55_8CCD
    return mixed ^ mixed >> 33
  }
}

/// One thing done to a disk; sectors have 512 bytes.
enum DiskWork: Equatable {
  case write(sector: Int, count: Int)
  case zero(sector: Int, count: Int)
  case discard(sector: Int, count: Int)
  case flush

  /// The sectors that it may change.
  var sectors: Range<Int> {
    switch self {
    case .write(let sector, let count), .zero(let sector, let count),
      .discard(let sector, let count):
      sector..<sector + count
    case .flush: 0..<0
    }
  }
}

/// An endless sequence of work that follows from its seed alone.
struct RandomWork {
  var random: SeededGenerator
  let sectorCount: Int
  /// Where the last write ended; some go on from there.
  private var cursor = 0

  init(seed: UInt64, sectorCount: Int) {
    random = SeededGenerator(state: seed)
    self.sectorCount = sectorCount
  }

  mutating func next() -> DiskWork {
    let kind = Int.random(in: 0..<100, using: &random)
    if kind < 8 { return .flush }
    let most = min(sectorCount, [1, 8, 40, 300][Int.random(in: 0..<4, using: &random)])
    let count = Int.random(in: 1...most, using: &random)
    var sector = Int.random(in: 0...sectorCount - count, using: &random)
    if kind < 30, cursor + count <= sectorCount { sector = cursor }
    cursor = sector + count
    if kind >= 92 { return .discard(sector: sector, count: count) }
    return kind >= 84
      ? .zero(sector: sector, count: count) : .write(sector: sector, count: count)
  }

  /// The bytes that the write with this number puts into `count` sectors.
  static func data(_ number: Int, count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: number % 251 + 1), count: count * 512)
    for sector in 0..<count {
      for byte in 0..<8 {
        bytes[sector * 512 + byte] = UInt8(
          truncatingIfNeeded: (number << 16 | sector) >> (byte * 8))
      }
    }
    return bytes
  }
}
