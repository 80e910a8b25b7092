// SPDX-License-Identifier: Apache-2.0

/// MOVS, CMPS, STOS, LODS, SCAS, one by one and by whole pages.
extension SoftCPU {
  /// Whether string instructions go to lower addresses (RFLAGS.DF).
  var isBackward: Bool { systemFlags & 0x400 != 0 }

  mutating func executeString(_ i: Instruction) throws(Fault) {
    let isRepeated = i.isRepeated
    guard isRepeated else { return try stringStep(i) }
    // A single step is one element.
    let isStepping = systemFlags & 0x100 != 0
    if !isStepping, try stringBulk(i) { return }
    // Bounded, so that interrupts come through: the instruction then starts again.
    var left = isStepping ? 1 : 4096
    while truncated(reg64(1), i.addressSize) != 0 {
      try stringStep(i)
      setReg(1, size: i.addressSize, truncated(reg64(1) &- 1, i.addressSize))
      if i.op == .cmps || i.op == .scas {
        if flags.zf == i.prefixes.contains(.repne) { return }
      }
      left -= 1
      // Code that the instruction writes over is seen when it goes on.
      if left == 0 || leavesBlock { return goOn(i) }
    }
  }

  /// Has a repeated instruction start again where it is, when it is not done.
  private mutating func goOn(_ i: Instruction) {
    guard truncated(reg64(1), i.addressSize) != 0 else { return }
    rip &-= UInt64(i.length)
    leavesBlock = true
  }

  @inline(__always)
  private func step(_ i: Instruction) -> UInt64 {
    isBackward ? 0 &- UInt64(i.size) : UInt64(i.size)
  }

  @inline(__always)
  private mutating func advance(_ number: UInt8, _ i: Instruction) {
    setReg(number, size: i.addressSize, truncated(reg64(number) &+ step(i), i.addressSize))
  }

  /// One element.
  private mutating func stringStep(_ i: Instruction) throws(Fault) {
    let size = Int(i.size)
    switch i.op {
    case .movs:
      let from = try linear(
        Int(i.segment), truncated(reg64(6), i.addressSize), size, isWrite: false)
      let to = try linear(0, truncated(reg64(7), i.addressSize), size, isWrite: true)
      try storeSized(try loadSized(from, i.size), to, i.size)
      advance(6, i)
      advance(7, i)
    case .stos:
      let to = try linear(0, truncated(reg64(7), i.addressSize), size, isWrite: true)
      try storeSized(reg(0, size: i.size), to, i.size)
      advance(7, i)
    case .lods:
      let from = try linear(
        Int(i.segment), truncated(reg64(6), i.addressSize), size, isWrite: false)
      setReg(0, size: i.size, try loadSized(from, i.size))
      advance(6, i)
    case .scas:
      let at = try linear(0, truncated(reg64(7), i.addressSize), size, isWrite: false)
      compare(reg(0, size: i.size), try loadSized(at, i.size), i.size)
      advance(7, i)
    default:
      let left = try linear(
        Int(i.segment), truncated(reg64(6), i.addressSize), size, isWrite: false)
      let right = try linear(0, truncated(reg64(7), i.addressSize), size, isWrite: false)
      // In this order on AMD's processors, which decides between two page faults.
      let b = try loadSized(right, i.size)
      compare(try loadSized(left, i.size), b, i.size)
      advance(6, i)
      advance(7, i)
    }
  }

  private mutating func compare(_ a: UInt64, _ b: UInt64, _ size: UInt8) {
    switch size {
    case 1: _ = subtract(UInt8(truncatingIfNeeded: a), UInt8(truncatingIfNeeded: b))
    case 2: _ = subtract(UInt16(truncatingIfNeeded: a), UInt16(truncatingIfNeeded: b))
    case 4: _ = subtract(UInt32(truncatingIfNeeded: a), UInt32(truncatingIfNeeded: b))
    default: _ = subtract(a, b)
    }
  }

  /// Does a repeated MOVS or STOS in pieces of pages; `false` when it has to be done one by one.
  private mutating func stringBulk(_ i: Instruction) throws(Fault) -> Bool {
    guard i.op == .movs || i.op == .stos, !isBackward, checkedSegments & 1 == 0,
      i.op == .stos || checkedSegments & (1 << i.segment) == 0, i.addressSize > 2
    else { return false }
    let size = UInt64(i.size)
    var pieces = 64
    while true {
      let count = truncated(reg64(1), i.addressSize)
      if count == 0 { return true }
      let to = wrapped(truncated(reg64(7), i.addressSize) &+ segmentBase[0])
      let from = wrapped(
        truncated(reg64(6), i.addressSize) &+ segmentBase[Int(i.segment & 7)])
      // Elements that cross pages are done one by one.
      var room = min(count, (4096 - to & 0xFFF) / size)
      if i.op == .movs { room = min(room, (4096 - from & 0xFFF) / size) }
      if room == 0 {
        try stringStep(i)
        setReg(1, size: i.addressSize, truncated(count &- 1, i.addressSize))
        continue
      }
      let isDone =
        i.op == .movs
        ? try copyInPage(from, to, Int(room * size), element: Int(size))
        : try fillInPage(to, Int(room), reg(0, size: i.size), Int(size))
      guard isDone else { return false }
      let bytes = room &* size
      setReg(7, size: i.addressSize, truncated(reg64(7) &+ bytes, i.addressSize))
      if i.op == .movs {
        setReg(6, size: i.addressSize, truncated(reg64(6) &+ bytes, i.addressSize))
      }
      setReg(1, size: i.addressSize, truncated(count &- room, i.addressSize))
      pieces -= 1
      if pieces == 0 || leavesBlock || attention.pending != 0 {
        goOn(i)
        return true
      }
    }
  }
}
