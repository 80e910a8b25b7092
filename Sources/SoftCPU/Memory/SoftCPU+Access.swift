// SPDX-License-Identifier: Apache-2.0

/// Loads and stores at linear addresses with the privilege of the code that runs.
///
/// SAFETY of all of it: an address in this process comes out of a TLB entry whose tag matches
/// the page, and the whole access is inside that page. Entries are filled from
/// ``PhysicalMemory`` only, whose mappings outlive the vCPU; a change of its ranges makes the
/// vCPU flush before it executes anything else, and the mappings stay.
extension SoftCPU {
  /// What an access is for.
  enum AccessKind: UInt8, Sendable {
    case read
    case write
    case execute
  }

  /// Reads memory at a linear address.
  @inline(__always)
  mutating func load<T: FixedWidthInteger & BitwiseCopyable & UnsignedInteger>(
    _ type: T.Type, _ linear: UInt64
  ) throws(Fault) -> T {
    let slot = unsafe tlb.slot(linear)
    let size = UInt64(MemoryLayout<T>.size)
    if unsafe slot.pointee.readTag == tlb.tag(linear), linear & 0xFFF <= 4096 - size {
      let host = unsafe UInt(truncatingIfNeeded: linear) &+ slot.pointee.addend
      return unsafe UnsafeRawPointer(bitPattern: host).unsafelyUnwrapped
        .loadUnaligned(as: T.self)
    }
    return T(truncatingIfNeeded: try loadSlowly(linear, Int(size)))
  }

  /// Writes memory at a linear address.
  @inline(__always)
  mutating func store<T: FixedWidthInteger & BitwiseCopyable & UnsignedInteger>(
    _ value: T, _ linear: UInt64
  ) throws(Fault) {
    let slot = unsafe tlb.writeSlot(linear)
    let size = UInt64(MemoryLayout<T>.size)
    if unsafe slot.pointee.writeTag == tlb.tag(linear), linear & 0xFFF <= 4096 - size {
      let host = unsafe UInt(truncatingIfNeeded: linear) &+ slot.pointee.addend
      unsafe UnsafeMutableRawPointer(bitPattern: host).unsafelyUnwrapped
        .storeBytes(of: value, as: T.self)
      let mark = unsafe CodeMark.Reference(address: slot.pointee.mark)
      if mark.isMarked { wroteCode(mark, linear, Int(size)) }
      return
    }
    try storeSlowly(UInt64(value), linear, Int(size))
  }

  /// Marked bytes of a page were written by this vCPU.
  @inline(never)
  mutating func wroteCode(_ mark: CodeMark.Reference, _ linear: UInt64, _ size: Int) {
    if mark.wasWritten(Int(linear & 0xFFF), count: size) { leavesBlock = true }
  }

  // MARK: - Across pages, and off RAM

  @inline(never)
  private mutating func loadSlowly(_ linear: UInt64, _ size: Int) throws(Fault) -> UInt64 {
    try noteDataAccess(linear, size, isWrite: false)
    guard linear & 0xFFF > 4096 - UInt64(size) else { return try loadInPage(linear, size) }
    try checkEnd(linear, size)
    let first = 4096 - Int(linear & 0xFFF)
    var value: UInt64 = 0
    for place in 0..<first {
      value |= try loadInPage(linear &+ UInt64(place), 1) << UInt64(8 * place)
    }
    for place in first..<size {
      value |= try loadInPage(wrapped(linear &+ UInt64(place)), 1) << UInt64(8 * place)
    }
    return value
  }

  /// #AC for what is not aligned to its size, where that is checked; what is no address at all
  /// goes before.
  @inline(__always)
  func checkAlignment(_ linear: UInt64, _ size: Int) throws(Fault) {
    guard checksAlignment, linear & UInt64(size - 1) != 0 else { return }
    if mode == .bits64, !Self.isCanonical(linear), isPaging { throw .address }
    try checkEnd(linear, size)
    throw .alignment
  }

  /// What crosses the last canonical address, or the end of a flat segment, is no page's fault.
  private func checkEnd(_ linear: UInt64, _ size: Int) throws(Fault) {
    let last = linear &+ UInt64(size - 1)
    if mode == .bits64 {
      guard Self.isCanonical(last) || !isPaging else { throw .address }
    } else if last >> 32 != 0, segmentBase[2] == 0, segmentBase[3] == 0, codeLimit == 0xFFFF_FFFF {
      throw .address
    }
  }

  /// Linear addresses are 32 bits wide outside 64-bit mode.
  @inline(__always)
  func wrapped(_ linear: UInt64) -> UInt64 {
    mode == .bits64 ? linear : linear & 0xFFFF_FFFF
  }

  private mutating func loadInPage(_ linear: UInt64, _ size: Int) throws(Fault) -> UInt64 {
    let slot = unsafe tlb.slot(linear)
    if unsafe slot.pointee.readTag != tlb.tag(linear) {
      let page = try fill(linear, .read)
      if !page.isMemory {
        return readPhysicalBus(page.physical | linear & 0xFFF, size)
      }
    }
    let host = unsafe UInt(truncatingIfNeeded: linear) &+ slot.pointee.addend
    let pointer = unsafe UnsafeRawPointer(bitPattern: host).unsafelyUnwrapped
    return switch size {
    case 1: unsafe UInt64(pointer.loadUnaligned(as: UInt8.self))
    case 2: unsafe UInt64(pointer.loadUnaligned(as: UInt16.self))
    case 4: unsafe UInt64(pointer.loadUnaligned(as: UInt32.self))
    default: unsafe pointer.loadUnaligned(as: UInt64.self)
    }
  }

  @inline(never)
  private mutating func storeSlowly(_ value: UInt64, _ linear: UInt64, _ size: Int)
    throws(Fault)
  {
    try noteDataAccess(linear, size, isWrite: true)
    guard linear & 0xFFF > 4096 - UInt64(size) else {
      try storeInPage(value, linear, size)
      return
    }
    try checkEnd(linear, size)
    // Both pages are tried before anything is written.
    let first = 4096 - Int(linear & 0xFFF)
    try checkWrite(linear)
    try checkWrite(wrapped(linear &+ UInt64(first)))
    for place in 0..<size {
      try storeInPage(
        value >> UInt64(8 * place) & 0xFF, wrapped(linear &+ UInt64(place)), 1)
    }
  }

  private mutating func storeInPage(_ value: UInt64, _ linear: UInt64, _ size: Int)
    throws(Fault)
  {
    let slot = unsafe tlb.writeSlot(linear)
    if unsafe slot.pointee.writeTag != tlb.tag(linear) {
      let page = try fill(linear, .write)
      if !page.isMemory {
        writePhysicalBus(page.physical | linear & 0xFFF, value, size)
        return
      }
    }
    let host = unsafe UInt(truncatingIfNeeded: linear) &+ slot.pointee.addend
    let pointer = unsafe UnsafeMutableRawPointer(bitPattern: host).unsafelyUnwrapped
    switch size {
    case 1: unsafe pointer.storeBytes(of: UInt8(truncatingIfNeeded: value), as: UInt8.self)
    case 2: unsafe pointer.storeBytes(of: UInt16(truncatingIfNeeded: value), as: UInt16.self)
    case 4: unsafe pointer.storeBytes(of: UInt32(truncatingIfNeeded: value), as: UInt32.self)
    default: unsafe pointer.storeBytes(of: value, as: UInt64.self)
    }
    let mark = unsafe CodeMark.Reference(address: slot.pointee.mark)
    if mark.isMarked { wroteCode(mark, linear, size) }
  }

  /// Throws the fault that a write to the page of `linear` would cause.
  @inline(__always)
  mutating func checkWrite(_ linear: UInt64) throws(Fault) {
    if unsafe tlb.writeSlot(linear).pointee.writeTag == tlb.tag(linear) { return }
    _ = try fill(linear, .write)
  }

  /// Throws the fault that a write of `size` bytes, at most a page, would cause.
  @inline(__always)
  mutating func checkWrite(_ linear: UInt64, _ size: Int) throws(Fault) {
    // Ten bytes are a word of eight and one of two.
    if size <= 16 { try checkAlignment(linear, size == 10 ? 8 : size) }
    guard linear & 0xFFF > 4096 - UInt64(size) else { return try checkWrite(linear) }
    try checkEnd(linear, size)
    try checkWrite(linear)
    // CR2 is the first byte of the page that is not there.
    try checkWrite(wrapped((linear &+ UInt64(size - 1)) & ~0xFFF))
  }

  /// Throws the fault that a read of `size` bytes, at most a page, would cause.
  mutating func checkRead(_ linear: UInt64, _ size: Int) throws(Fault) {
    guard linear & 0xFFF > 4096 - UInt64(size) else { return try checkRead(linear) }
    try checkEnd(linear, size)
    try checkRead(linear)
    try checkRead(wrapped((linear &+ UInt64(size - 1)) & ~0xFFF))
  }

  /// Throws the fault that a read of the page of `linear` would cause.
  mutating func checkRead(_ linear: UInt64) throws(Fault) {
    if unsafe tlb.slot(linear).pointee.readTag == tlb.tag(linear) { return }
    _ = try fill(linear, .read)
  }

  // MARK: - Filling

  /// Where a page lies, after a walk.
  struct FilledPage {
    /// The physical address of the page.
    var physical: UInt64
    /// Whether the access can go through the TLB; else it is the bus's.
    var isMemory: Bool
  }

  /// Walks the page tables for an access and remembers the translation.
  @inline(never)
  mutating func fill(_ linear: UInt64, _ kind: AccessKind) throws(Fault) -> FilledPage {
    let translation = try translate(linear, kind)
    let physical = translation.physical & ~0xFFF
    guard let page = physicalPage(physical), !(kind == .write && page.isReadOnly) else {
      return FilledPage(physical: physical, isMemory: false)
    }
    let tag = tlb.tag(linear)
    let slot = unsafe kind == .write ? tlb.writeSlot(linear) : tlb.slot(linear)
    let addend = page.host &- UInt(truncatingIfNeeded: linear & ~0xFFF)
    var entry = unsafe slot.pointee
    // An entry of another page, or of the same page elsewhere, is replaced as a whole.
    if entry.addend != addend || entry.physical != physical {
      entry = TLB.Entry(addend: addend, physical: physical, mark: page.mark)
    } else {
      if entry.readTag != tag { entry.readTag = 0 }
      if entry.writeTag != tag { entry.writeTag = 0 }
      if entry.executeTag != tag { entry.executeTag = 0 }
    }
    if kind == .write {
      if !page.isReadOnly { entry.writeTag = tag }
    } else if translation.mayRead {
      entry.readTag = tag
    }
    // Every access that has to be looked at comes here.
    if checksAlignment || hasDataBreakpoint(onPage: linear) {
      (entry.readTag, entry.writeTag) = (0, 0)
    }
    if translation.mayExecute { entry.executeTag = tag }
    unsafe slot.pointee = entry
    return FilledPage(physical: physical, isMemory: true)
  }

  // MARK: - Physical memory

  /// Reads RAM, ROM or the bus at a physical address, inside one page.
  mutating func loadPhysical(_ physical: UInt64, _ size: Int) -> UInt64 {
    guard let page = physicalPage(physical) else { return readPhysicalBus(physical, size) }
    let host = page.host &+ UInt(physical & 0xFFF)
    let pointer = unsafe UnsafeRawPointer(bitPattern: host).unsafelyUnwrapped
    return switch size {
    case 1: unsafe UInt64(pointer.loadUnaligned(as: UInt8.self))
    case 2: unsafe UInt64(pointer.loadUnaligned(as: UInt16.self))
    case 4: unsafe UInt64(pointer.loadUnaligned(as: UInt32.self))
    default: unsafe pointer.loadUnaligned(as: UInt64.self)
    }
  }

  private mutating func readPhysicalBus(_ physical: UInt64, _ size: Int) -> UInt64 {
    bus.readMemory(physical, byteCount: size)
  }

  private mutating func writePhysicalBus(_ physical: UInt64, _ value: UInt64, _ size: Int) {
    // Read-only memory takes no writes.
    if physicalPage(physical) != nil { return }
    bus.writeMemory(physical, value, byteCount: size)
  }
}
