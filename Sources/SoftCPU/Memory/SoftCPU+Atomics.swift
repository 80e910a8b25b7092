// SPDX-License-Identifier: Apache-2.0

internal import CHostCPU
internal import Synchronization

/// Locked reads and writes of guest memory, atomic against other vCPUs and device DMA.
///
/// SAFETY: as in SoftCPU+Access.swift. The host's own locked instructions do the work, also
/// where an operand is not aligned, as the guest's would.
extension SoftCPU {
  /// Exchanges what is at a linear address for what `body` makes of it, atomically.
  ///
  /// It returns what was there; `body` may be called several times.
  @inline(__always)
  mutating func exchange<T: Operand>(
    _ type: T.Type, _ linear: UInt64, _ body: (T) -> T
  ) throws(Fault) -> T {
    let size = MemoryLayout<T>.size
    guard linear & 0xFFF <= UInt64(4096 - size) else {
      // Across two pages: as two accesses; no compiler's lock lies like that.
      let old = try loadForWrite(type, linear)
      try store(body(old), linear)
      return old
    }
    if unsafe tlb.writeSlot(linear).pointee.writeTag != tlb.tag(linear) {
      try noteDataAccess(linear, size, isWrite: true)
      guard try fill(linear, .write).isMemory else {
        let old = try load(type, linear)
        try store(body(old), linear)
        return old
      }
    }
    let slot = unsafe tlb.writeSlot(linear)
    let host = unsafe UInt(truncatingIfNeeded: linear) &+ slot.pointee.addend
    let raw = unsafe UnsafeMutableRawPointer(bitPattern: host).unsafelyUnwrapped
    var old = unsafe raw.loadUnaligned(as: T.self)
    while true {
      let new = body(old)
      var expected = UInt64(old)
      let isDone = unsafe bh_compare_exchange(raw, &expected, UInt64(new), Int32(size)) != 0
      if isDone { break }
      old = T(truncatingIfNeeded: expected)
    }
    let mark = unsafe CodeMark.Reference(address: slot.pointee.mark)
    if mark.isMarked { wroteCode(mark, linear, size) }
    return old
  }

  /// CMPXCHG16B: writes `new` where `expected` is; returns what was there.
  mutating func exchange16(
    _ linear: UInt64, expected: (UInt64, UInt64), new: (UInt64, UInt64)
  ) throws(Fault) -> (UInt64, UInt64) {
    if unsafe tlb.writeSlot(linear).pointee.writeTag != tlb.tag(linear) {
      try noteDataAccess(linear, 16, isWrite: true)
      guard try fill(linear, .write).isMemory else {
        let old = (try load(UInt64.self, linear), try load(UInt64.self, linear &+ 8))
        if old == expected {
          try store(new.0, linear)
          try store(new.1, linear &+ 8)
        }
        return old
      }
    }
    let slot = unsafe tlb.writeSlot(linear)
    let host = unsafe UInt(truncatingIfNeeded: linear) &+ slot.pointee.addend
    let raw = unsafe UnsafeMutableRawPointer(bitPattern: host).unsafelyUnwrapped
    let old = unsafe bh_cmpxchg16b(
      raw, bh_pair(low: expected.0, high: expected.1), bh_pair(low: new.0, high: new.1))
    let mark = unsafe CodeMark.Reference(address: slot.pointee.mark)
    if mark.isMarked { wroteCode(mark, linear, 16) }
    return (old.low, old.high)
  }
}
