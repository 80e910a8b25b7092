// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// Whole pieces of pages at once.
///
/// SAFETY: as in SoftCPU+Access.swift; the caller gives pieces that stay inside their pages.
extension SoftCPU {
  /// The host address behind a linear one after an access check; `nil` where it is the bus's.
  private mutating func direct(_ linear: UInt64, _ kind: AccessKind) throws(Fault) -> UInt? {
    let slot = unsafe kind == .write ? tlb.writeSlot(linear) : tlb.slot(linear)
    let tag = tlb.tag(linear)
    let isThere =
      kind == .write
      ? unsafe slot.pointee.writeTag == tag : unsafe slot.pointee.readTag == tag
    if !isThere {
      // One by one, so that each access is looked at.
      if checksAlignment || hasDataBreakpoint(onPage: linear) { return nil }
      guard try fill(linear, kind).isMemory else { return nil }
    }
    return unsafe UInt(truncatingIfNeeded: linear) &+ slot.pointee.addend
  }

  /// Copies as a forward REP MOVS does; `false` when it has to be done one by one.
  mutating func copyInPage(_ from: UInt64, _ to: UInt64, _ count: Int, element: Int)
    throws(Fault) -> Bool
  {
    guard let source = try direct(from, .read), let target = try direct(to, .write) else {
      return false
    }
    // The two may share a TLB slot: the first address stays good, as pages do not move.
    let distance = target &- source
    if distance != 0, distance < UInt(count) { return false }
    let pointer = unsafe UnsafeMutableRawPointer(bitPattern: target).unsafelyUnwrapped
    unsafe memmove(pointer, UnsafeRawPointer(bitPattern: source).unsafelyUnwrapped, count)
    noteBulkWrite(to, count)
    return true
  }

  /// Stores `count` elements as a forward REP STOS does; `false` where it is the bus's.
  mutating func fillInPage(_ to: UInt64, _ count: Int, _ value: UInt64, _ size: Int)
    throws(Fault) -> Bool
  {
    guard let target = try direct(to, .write) else { return false }
    let pointer = unsafe UnsafeMutableRawPointer(bitPattern: target).unsafelyUnwrapped
    let byte = value & 0xFF
    let repeated = byte &* 0x0101_0101_0101_0101
    let mask = size == 8 ? UInt64.max : (1 << UInt64(8 * size)) &- 1
    if value & mask == repeated & mask {
      unsafe memset(pointer, Int32(byte), count * size)
    } else {
      for place in 0..<count {
        let offset = place * size
        switch size {
        case 2:
          unsafe pointer.storeBytes(
            of: UInt16(truncatingIfNeeded: value), toByteOffset: offset, as: UInt16.self)
        case 4:
          unsafe pointer.storeBytes(
            of: UInt32(truncatingIfNeeded: value), toByteOffset: offset, as: UInt32.self)
        default: unsafe pointer.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
        }
      }
    }
    noteBulkWrite(to, count * size)
    return true
  }

  /// Sees to code among bytes that were written through the TLB entry of their page.
  private mutating func noteBulkWrite(_ to: UInt64, _ count: Int) {
    let slot = unsafe tlb.writeSlot(to)
    let mark = unsafe CodeMark.Reference(address: slot.pointee.mark)
    if mark.isMarked { wroteCode(mark, to, count) }
  }
}
