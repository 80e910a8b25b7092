// SPDX-License-Identifier: Apache-2.0

internal import Processor

/// IN, OUT, INS and OUTS.
extension SoftCPU {
  mutating func executePort(_ i: Instruction) throws(Fault) {
    switch i.op {
    case .inPort:
      let port = i.vvvv == 0 ? UInt16(i.immediate) : reg16(2)
      try checkPort(port, i.size)
      let value = bus.readPort(port, byteCount: Int(i.size))
      setReg(0, size: i.size, UInt64(value))
      notePortAccess(port, i.size)
    case .outPort:
      let port = i.vvvv == 0 ? UInt16(i.immediate) : reg16(2)
      try checkPort(port, i.size)
      bus.writePort(port, UInt32(truncatingIfNeeded: reg(0, size: i.size)), byteCount: Int(i.size))
      notePortAccess(port, i.size)
    case .ins: try inputString(i)
    default: try outputString(i)
    }
    leavesBlock = true
  }

  /// How many items are moved at most before others get their turn.
  private static let batch: UInt64 = 2048

  /// Throws #GP where the privilege does not allow a port: IOPL and the TSS's bit map (SDM
  /// volume 1, 19.5).
  private mutating func checkPort(_ port: UInt16, _ size: UInt8) throws(Fault) {
    guard cr0 & 1 != 0, isVirtual8086 || cpl > UInt8(truncatingIfNeeded: systemFlags >> 12 & 3)
    else { return }
    guard tr.type & 8 != 0, tr.limit >= 0x67 else { throw .protection() }
    let map = try loadSystem(systemWrapped(tr.base &+ 0x66), 2)
    let place = map &+ UInt64(port >> 3)
    guard place + 1 <= UInt64(tr.limit) else { throw .protection() }
    let bits = try loadSystem(systemWrapped(tr.base &+ place), 2) >> UInt64(port & 7)
    guard bits & ((1 << UInt64(size)) &- 1) == 0 else { throw .protection() }
  }

  private mutating func inputString(_ i: Instruction) throws(Fault) {
    let port = reg16(2)
    try checkPort(port, i.size)
    let isRepeated = i.isRepeated
    let total = isRepeated ? truncated(reg64(1), i.addressSize) : 1
    guard total > 0 else { return }
    let size = Int(i.size)
    let step = isBackward ? 0 &- UInt64(size) : UInt64(size)
    let first = truncated(reg64(7), i.addressSize)
    // What is read from the device is gone: the memory is looked at first, a page at a time.
    let start = try linear(0, first, size, isWrite: true)
    try checkWrite(start, size)
    let inPage =
      isBackward ? (start & 0xFFF) / UInt64(size) + 1 : (4096 - start & 0xFFF) / UInt64(size)
    let wanted = max(1, min(total, Self.batch, inPage))
    var items: [UInt8] = []
    let got: UInt64
    if wanted == 1 {
      let value = bus.readPort(port, byteCount: size)
      items = (0..<size).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
      got = 1
    } else {
      got = UInt64(
        min(
          Int(wanted), max(1, bus.readPort(port, byteCount: size, count: Int(wanted), into: &items))
        ))
    }
    for number in 0..<got {
      let offset = truncated(first &+ number &* step, i.addressSize)
      var value: UInt64 = 0
      for lane in 0..<size where Int(number) * size + lane < items.count {
        value |= UInt64(items[Int(number) * size + lane]) << UInt64(8 * lane)
      }
      try storeSized(value, try linear(0, offset, size, isWrite: true), i.size)
    }
    setReg(7, size: i.addressSize, truncated(first &+ got &* step, i.addressSize))
    notePortAccess(port, i.size)
    finish(i, isRepeated, total, got)
  }

  private mutating func outputString(_ i: Instruction) throws(Fault) {
    let port = reg16(2)
    try checkPort(port, i.size)
    let isRepeated = i.isRepeated
    let total = isRepeated ? truncated(reg64(1), i.addressSize) : 1
    guard total > 0 else { return }
    let size = Int(i.size)
    let step = isBackward ? 0 &- UInt64(size) : UInt64(size)
    let first = truncated(reg64(6), i.addressSize)
    let wanted = min(total, Self.batch)
    var items: [UInt8] = []
    var done: UInt64 = 0
    while done < wanted {
      do throws(Fault) {
        let offset = truncated(first &+ done &* step, i.addressSize)
        let place = try linear(Int(i.segment), offset, size, isWrite: false)
        let value = try loadSized(place, i.size)
        for lane in 0..<size { items.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * lane))) }
        done += 1
      } catch {
        // What came before it goes out; the fault comes again at the next item.
        if done == 0 { throw error }
        break
      }
    }
    if done == 1 {
      let value = items.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
      bus.writePort(port, value, byteCount: size)
    } else {
      bus.writePort(port, byteCount: size, items: items)
    }
    setReg(6, size: i.addressSize, truncated(first &+ done &* step, i.addressSize))
    notePortAccess(port, i.size)
    finish(i, isRepeated, total, done)
  }

  /// Counts a repeated instruction down, and has it go on when it is not done.
  private mutating func finish(
    _ i: Instruction, _ isRepeated: Bool, _ total: UInt64, _ done: UInt64
  ) {
    guard isRepeated else { return }
    setReg(1, size: i.addressSize, total &- done)
    if done < total { rip &-= UInt64(i.length) }
  }
}
