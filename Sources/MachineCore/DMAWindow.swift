// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem

/// The guest memory that one transfer may touch, derived from what the guest programmed.
struct DMAWindow: Sendable {
  /// A piece of guest memory, copied to or from in this direction only.
  struct Piece: Sendable, Equatable {
    var address: UInt64
    var byteCount: UInt64
    var direction: DMARequest.Direction
  }

  var pieces: [Piece] = []

  /// The most bytes that one window spans: 8192 PRD entries of 64 KiB.
  static let mostBytes: UInt64 = 8192 << 16

  var byteCount: UInt64 { pieces.reduce(0) { $0 + $1.byteCount } }

  /// The pieces of guest memory behind a part of the window, cut at the window's end.
  ///
  /// Nothing is returned when a piece of it goes in the other direction.
  func ranges(offset: UInt64, byteCount: UInt64, _ direction: DMARequest.Direction) -> [Piece] {
    var result: [Piece] = []
    var skip = offset
    var left = byteCount
    for piece in pieces {
      guard left > 0 else { break }
      guard skip < piece.byteCount else {
        skip -= piece.byteCount
        continue
      }
      guard piece.direction == direction else { return [] }
      let count = min(piece.byteCount - skip, left)
      result.append(
        Piece(address: piece.address + skip, byteCount: count, direction: direction))
      left -= count
      skip = 0
    }
    return result
  }

  // MARK: - Reading what the guest wrote

  /// Reads a physical region descriptor table (82371AB, 5.2; Bus Master IDE 1.0).
  ///
  /// The table is at most 64 KiB and does not cross a 64 KiB boundary; each entry names a
  /// region of 2 to 65536 bytes. `nil` when the table or a region is not all RAM.
  static func prd(
    table: UInt32, direction: DMARequest.Direction, memory: GuestMemory,
    isReachable: (UInt64, UInt64, DMARequest.Direction) -> Bool
  ) -> DMAWindow? {
    var window = DMAWindow()
    let start = UInt64(table & ~3)
    let end = (start | 0xFFFF) + 1
    var at = start
    while at + 8 <= end {
      guard isReachable(at, 8, .fromGuest), let entry = try? memory.load(UInt64.self, at: at) else {
        return nil
      }
      let address = entry & 0xFFFF_FFFE
      let count = entry >> 32 & 0xFFFE
      let byteCount: UInt64 = count == 0 ? 65536 : count
      guard isReachable(address, byteCount, direction) else { return nil }
      window.pieces.append(
        Piece(address: address, byteCount: byteCount, direction: direction))
      if entry >> 63 != 0 { return window }
      at += 8
    }
    // No end-of-table mark within the 64 KiB: the bus master would run off the table.
    return nil
  }

  /// Reads a fw_cfg DMA block: control, length and address, each big-endian.
  ///
  /// Offset 0 of the window is the control field, where the result goes; the data begin at
  /// offset 4. Returns the block's raw bytes with the window.
  static func fwCfg(
    block: UInt64, memory: GuestMemory,
    isReachable: (UInt64, UInt64, DMARequest.Direction) -> Bool
  ) -> (window: DMAWindow, content: [UInt8])? {
    guard isReachable(block, 16, .toGuest), isReachable(block, 16, .fromGuest),
      let content = try? memory.bytes(at: block, count: 16)
    else { return nil }
    let control = bigEndian(content[0..<4])
    let byteCount = bigEndian(content[4..<8])
    let address = bigEndian(content[8..<16])
    var window = DMAWindow()
    window.pieces.append(Piece(address: block, byteCount: 4, direction: .toGuest))
    // Bit 1 reads an item, bit 4 writes one; a skip (bit 2) and a bare select move nothing.
    let direction: DMARequest.Direction? =
      control & 2 != 0 ? .toGuest : control & 16 != 0 ? .fromGuest : nil
    if let direction, byteCount > 0, isReachable(address, byteCount, direction) {
      window.pieces.append(
        Piece(address: address, byteCount: byteCount, direction: direction))
    }
    return (window, content)
  }

  private static func bigEndian(_ bytes: ArraySlice<UInt8>) -> UInt64 {
    bytes.reduce(0) { $0 << 8 | UInt64($1) }
  }
}
