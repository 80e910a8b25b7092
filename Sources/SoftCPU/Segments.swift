// SPDX-License-Identifier: Apache-2.0

internal import Processor

/// What a segment allows, as bits of ``SoftCPU/segmentRights``.
enum SegmentRights {
  static let readable: UInt64 = 1
  static let writable: UInt64 = 2
  static let expandsDown: UInt64 = 4
  static let isUsable: UInt64 = 8
  static let isBig: UInt64 = 16
}

/// Segment registers, descriptors, and the modes that follow from them (SDM volume 3, chapters
/// 3 and 5).
extension SoftCPU {
  var isProtected: Bool { cr0 & 1 != 0 && !isVirtual8086 }
  var isLongMode: Bool { efer & 0x400 != 0 }

  // MARK: - What follows from the state

  /// Brings everything up to date that is derived from segments, CR0, EFER and RFLAGS.VM.
  mutating func updateMode() {
    let code = segments[1]
    if isProtected, isLongMode, code.isLong {
      mode = .bits64
    } else {
      mode = code.is32Bit ? .bits32 : .bits16
    }
    stackSize = mode == .bits64 ? 8 : segments[2].is32Bit ? 4 : 2
    codeLimit = mode == .bits64 ? .max : UInt64(code.limit)
    var checked: UInt8 = 0
    // By constants: a variable place would have the whole array copied.
    if deriveSegment(0, segments[0]) { checked |= 1 }
    if deriveSegment(1, segments[1]) { checked |= 2 }
    if deriveSegment(2, segments[2]) { checked |= 4 }
    if deriveSegment(3, segments[3]) { checked |= 8 }
    if deriveSegment(4, segments[4]) { checked |= 16 }
    if deriveSegment(5, segments[5]) { checked |= 32 }
    checkedSegments = checked
    updateAccessRights()
  }

  /// Derives one segment's words; returns whether accesses to it need checks.
  private mutating func deriveSegment(_ number: Int, _ segment: Segment) -> Bool {
    var rights: UInt64 = 0
    if !segment.isUsable { rights = 0 } else { rights = SegmentRights.isUsable }
    let isCode = segment.type & 8 != 0
    if isCode ? segment.type & 2 != 0 : true { rights |= SegmentRights.readable }
    if !isCode, segment.type & 2 != 0 { rights |= SegmentRights.writable }
    if !isCode, segment.type & 4 != 0 { rights |= SegmentRights.expandsDown }
    if segment.is32Bit { rights |= SegmentRights.isBig }
    if !isProtected {
      // Real and virtual-8086 mode look at the limit alone.
      rights |= SegmentRights.isUsable | SegmentRights.readable | SegmentRights.writable
    }
    segmentRights[number] = rights
    segmentLimit[number] = UInt64(segment.limit)
    if mode == .bits64 {
      segmentBase[number] = number >= 4 ? segment.base : 0
      return false
    }
    segmentBase[number] = segment.base
    let plain = SegmentRights.isUsable | SegmentRights.readable | SegmentRights.writable
    return rights & plain != plain || rights & SegmentRights.expandsDown != 0
      || segment.limit != UInt32.max
  }

  /// Chooses the TLB's set after a change of CPL, RFLAGS.AC or CR4.
  mutating func updateAccessRights() {
    if cpl == 3 && !isImplicitSupervisor {
      tlb.select(checksAlignment ? 3 : 0)
    } else {
      let suspends = systemFlags & 1 << 18 != 0 && !isImplicitSupervisor
      tlb.select(cr4 & 1 << 21 != 0 && suspends ? 2 : 1)
    }
  }

  /// Whether accesses that are not aligned are faults (CR0.AM, RFLAGS.AC).
  var checksAlignment: Bool {
    systemFlags & 1 << 18 != 0 && cr0 & 1 << 18 != 0 && cpl == 3 && !isImplicitSupervisor
  }

  /// Checks an access against a segment's limit and rights, for segments in ``checkedSegments``.
  mutating func checkSegment(_ segment: Int, _ offset: UInt64, _ size: Int, isWrite: Bool)
    throws(Fault)
  {
    let fault = segment == 2 ? Fault.stack() : .protection()
    let rights = segmentRights[segment]
    guard rights & SegmentRights.isUsable != 0,
      rights & (isWrite ? SegmentRights.writable : SegmentRights.readable) != 0
    else { throw fault }
    let limit = segmentLimit[segment]
    let last = offset &+ UInt64(size - 1)
    if rights & SegmentRights.expandsDown != 0 {
      let top: UInt64 = rights & SegmentRights.isBig != 0 ? 0xFFFF_FFFF : 0xFFFF
      guard offset > limit, last <= top else { throw fault }
    } else {
      guard last <= limit else { throw fault }
    }
  }

  // MARK: - Memory for the processor itself

  /// Does something as the supervisor, whatever the privilege of the code is; in long mode with
  /// addresses of 64 bits, whatever the mode of the code is.
  mutating func asSupervisor<T>(_ body: (inout SoftCPU) throws(Fault) -> T) throws(Fault) -> T {
    let codeMode = mode
    if isLongMode { mode = .bits64 }
    isImplicitSupervisor = true
    updateAccessRights()
    defer {
      mode = codeMode
      isImplicitSupervisor = false
      updateAccessRights()
    }
    return try body(&self)
  }

  mutating func loadSystem(_ linear: UInt64, _ size: UInt8) throws(Fault) -> UInt64 {
    try asSupervisor { cpu throws(Fault) in try cpu.loadSized(linear, size) }
  }

  mutating func storeSystem(_ value: UInt64, _ linear: UInt64, _ size: UInt8) throws(Fault) {
    try asSupervisor { cpu throws(Fault) in try cpu.storeSized(value, linear, size) }
  }

  /// The address of something in a descriptor table or TSS: 64 bits wide in all of long mode.
  func systemWrapped(_ linear: UInt64) -> UInt64 {
    isLongMode ? linear : linear & 0xFFFF_FFFF
  }

  // MARK: - Descriptors

  /// A descriptor with the place it came from.
  struct Descriptor {
    var low: UInt64
    /// The upper half of a 16-byte descriptor.
    var high: UInt64 = 0
    var selector: UInt16
    var linear: UInt64

    var type: UInt8 { UInt8(low >> 40 & 15) }
    var isCodeOrData: Bool { low >> 44 & 1 != 0 }
    var privilege: UInt8 { UInt8(low >> 45 & 3) }
    var isPresent: Bool { low >> 47 & 1 != 0 }
    var isLong: Bool { low >> 53 & 1 != 0 }
    var is32Bit: Bool { low >> 54 & 1 != 0 }
    var isCode: Bool { isCodeOrData && type & 8 != 0 }
    var isConforming: Bool { type & 4 != 0 }

    var base: UInt64 {
      (low >> 16 & 0xFF_FFFF) | (low >> 56 & 0xFF) << 24 | (high & 0xFFFF_FFFF) << 32
    }

    var limit: UInt32 {
      let raw = UInt32(truncatingIfNeeded: low & 0xFFFF | (low >> 32 & 0xF_0000))
      return low >> 55 & 1 != 0 ? raw << 12 | 0xFFF : raw
    }

    var segment: Segment {
      var segment = Segment()
      segment.base = base
      segment.limit = limit
      segment.selector = selector
      segment.type = type
      segment.isPresent = isPresent
      segment.privilege = privilege
      segment.is32Bit = is32Bit
      segment.isCodeOrData = isCodeOrData
      segment.isLong = isLong
      segment.isPageGranular = low >> 55 & 1 != 0
      segment.available = low >> 52 & 1 != 0
      return segment
    }

    // Gates.
    var gateSelector: UInt16 { UInt16(truncatingIfNeeded: low >> 16) }
    var gateOffset: UInt64 {
      low & 0xFFFF | (low >> 32 & 0xFFFF_0000) | (high & 0xFFFF_FFFF) << 32
    }
  }

  /// The error code of a selector.
  func code(_ selector: UInt16) -> UInt32 { UInt32(selector & 0xFFFC) }

  /// Reads a descriptor, or `nil` past the table's end.
  ///
  /// `wide` ones are 16 bytes in long mode.
  mutating func findDescriptor(_ selector: UInt16, wide: Bool = false) throws(Fault)
    -> Descriptor?
  {
    let base: UInt64
    let limit: UInt64
    if selector & 4 != 0 {
      guard ldtr.isUsable else { return nil }
      (base, limit) = (ldtr.base, UInt64(ldtr.limit))
    } else {
      (base, limit) = (gdtr.base, UInt64(gdtr.limit))
    }
    let offset = UInt64(selector & 0xFFF8)
    guard offset + (wide ? 15 : 7) <= limit else { return nil }
    let linear = systemWrapped(base &+ offset)
    let low = try loadSystem(linear, 8)
    let high = wide ? try loadSystem(systemWrapped(linear &+ 8), 8) : 0
    return Descriptor(low: low, high: high, selector: selector, linear: linear)
  }

  /// Reads a descriptor that has to be there: #GP with the selector otherwise.
  mutating func descriptor(_ selector: UInt16, wide: Bool = false) throws(Fault) -> Descriptor {
    guard selector & 0xFFFC != 0, let found = try findDescriptor(selector, wide: wide) else {
      throw .protection(code(selector))
    }
    return found
  }

  /// Sets the accessed bit of a descriptor in memory.
  mutating func markAccessed(_ descriptor: inout Descriptor) throws(Fault) {
    guard descriptor.isCodeOrData, descriptor.type & 1 == 0 else { return }
    descriptor.low |= 1 << 40
    try storeSystem(descriptor.low >> 40 & 0xFF, systemWrapped(descriptor.linear &+ 5), 1)
  }

  // MARK: - Loads

  /// Loads a segment register that is not CS (MOV, POP, LDS and the like).
  mutating func loadSegment(_ number: Int, _ selector: UInt16) throws(Fault) {
    guard isProtected else {
      loadPlainSegment(number, selector)
      return
    }
    segments[number] = try checkedSegment(number, selector, cpl)
    updateMode()
  }

  /// A segment of real or virtual-8086 mode.
  mutating func loadPlainSegment(_ number: Int, _ selector: UInt16) {
    var segment = segments[number]
    segment.selector = selector
    segment.base = UInt64(selector) << 4
    if isVirtual8086 {
      segment = Self.virtualSegment(selector)
    } else if !segment.isUsable {
      // A null selector of protected mode has left nothing to keep.
      segment = Self.virtualSegment(selector)
      segment.privilege = 0
    }
    segments[number] = segment
    updateMode()
  }

  /// A segment as virtual-8086 mode has them.
  static func virtualSegment(_ selector: UInt16) -> Segment {
    var segment = Segment()
    segment.selector = selector
    segment.base = UInt64(selector) << 4
    segment.limit = 0xFFFF
    segment.type = 3
    segment.isPresent = true
    segment.isCodeOrData = true
    segment.privilege = 3
    return segment
  }

  /// A null selector's segment.
  static func nullSegment(_ selector: UInt16) -> Segment {
    var segment = Segment()
    segment.selector = selector
    segment.isUnusable = true
    return segment
  }

  /// The segment that a selector names, checked for a data or stack register at a privilege.
  mutating func checkedSegment(_ number: Int, _ selector: UInt16, _ privilege: UInt8)
    throws(Fault) -> Segment
  {
    if selector & 0xFFFC == 0 {
      guard number == 2 else { return Self.nullSegment(selector) }
      guard mode == .bits64, privilege < 3, selector & 3 == UInt16(privilege) else {
        throw .protection()
      }
      var segment = Self.nullSegment(selector)
      segment.privilege = privilege
      return segment
    }
    var found = try descriptor(selector)
    let requested = UInt8(selector & 3)
    if number == 2 {
      guard requested == privilege, found.isCodeOrData, !found.isCode, found.type & 2 != 0,
        found.privilege == privilege
      else { throw .protection(code(selector)) }
      guard found.isPresent else { throw .stack(code(selector)) }
    } else {
      guard found.isCodeOrData, !found.isCode || found.type & 2 != 0 else {
        throw .protection(code(selector))
      }
      if !found.isCode || !found.isConforming {
        guard requested <= found.privilege, privilege <= found.privilege else {
          throw .protection(code(selector))
        }
      }
      guard found.isPresent else { throw .notPresent(code(selector)) }
    }
    try markAccessed(&found)
    return found.segment
  }

  /// Loads CS from a checked descriptor, with a privilege.
  mutating func loadCode(_ descriptor: Descriptor, _ privilege: UInt8) throws(Fault) {
    var descriptor = descriptor
    try markAccessed(&descriptor)
    var segment = descriptor.segment
    segment.selector = descriptor.selector & 0xFFFC | UInt16(privilege)
    segments[1] = segment
    cpl = privilege
  }

  /// After a return to an outer privilege: segments that it may not have become null.
  mutating func dropInnerSegments() {
    for number in [0, 3, 4, 5] {
      let segment = segments[number]
      guard !segment.isUnusable, segment.selector & 0xFFFC != 0 else {
        continue
      }
      let isConforming = segment.type & 12 == 12
      if segment.isCodeOrData, !isConforming, segment.privilege < cpl {
        segments[number] = Self.nullSegment(0)
      }
    }
  }
}

extension Segment {
  /// Whether a selector was loaded that is not null.
  var isUsable: Bool { !isUnusable && isPresent }
}
