// SPDX-License-Identifier: Apache-2.0

internal import Processor

/// FXSAVE, XSAVE and their kin (SDM volume 1, chapter 13); the parts are x87,
/// SSE and PKRU.
extension SoftCPU {
  mutating func executeSave(_ i: Instruction) throws(Fault) {
    if i.map & 15 == 1, i.opcode == 0xC7 {
      // XSAVEC is offered, XSAVES and XRSTORS are not.
      guard i.group == 4 else { throw .undefined }
      return try saveExtended(i, isCompact: true)
    }
    switch i.group {
    case 0, 1:
      if cr0 & 0xC != 0 { throw .deviceNotAvailable }
      let place = try linear(i, 512, isWrite: i.group == 0)
      guard place & 15 == 0 else { throw .protection() }
      if i.group == 0 { try saveLegacy(place, 3, i) } else { try restoreLegacy(place, i) }
    case 2, 3:
      guard cr0 & 4 == 0, cr4 & 1 << 9 != 0 else { throw .undefined }
      guard cr0 & 8 == 0 else { throw .deviceNotAvailable }
      if i.group == 3 { return try storeOperand(mxcsr, i) }
      let value = try loadOperand(UInt32.self, i)
      guard value >> 16 == 0 else { throw .protection() }
      mxcsr = value
    case 4, 6: try saveExtended(i, isCompact: false)
    case 5: try restoreExtended(i)
    default: throw .undefined
    }
  }

  // MARK: - The legacy area

  private var registerCount: Int { mode == .bits64 ? 16 : 8 }

  /// Writes the parts of the legacy area: bit 0 is x87, bit 1 SSE; MXCSR goes with SSE.
  private mutating func saveLegacy(_ place: UInt64, _ parts: UInt64, _ i: Instruction)
    throws(Fault)
  {
    try checkWrite(place, 512)
    if parts & 1 != 0 {
      let header = x87.fxsaveHeader()
      try store(header.0, place)
      try store(header.1, wrapped(place &+ 8))
      try store(header.2, wrapped(place &+ 16))
      for st in 0..<8 {
        let register = x87.fxsaveRegister(st)
        try store(register.low, wrapped(place &+ 32 &+ 16 * UInt64(st)))
        try store(UInt64(register.high), wrapped(place &+ 40 &+ 16 * UInt64(st)))
      }
    }
    if parts & 2 != 0 {
      try store(mxcsr, wrapped(place &+ 24))
      try store(0xFFFF as UInt32, wrapped(place &+ 28))
      for number in 0..<registerCount {
        let at = wrapped(place &+ 160 &+ 16 * UInt64(number))
        try store(vectors[4 * number], at)
        try store(vectors[4 * number + 1], wrapped(at &+ 8))
      }
    }
  }

  private mutating func restoreLegacy(_ place: UInt64, _ i: Instruction) throws(Fault) {
    let control = try load(UInt32.self, wrapped(place &+ 24))
    guard control >> 16 == 0 else { throw .protection() }
    try checkRead(place, 512)
    try restoreX87(place)
    try restoreSSE(place, control)
  }

  private mutating func restoreX87(_ place: UInt64) throws(Fault) {
    let header = (
      try load(UInt64.self, place), try load(UInt64.self, wrapped(place &+ 8)),
      try load(UInt64.self, wrapped(place &+ 16))
    )
    x87.setFXSAVEHeader(header.0, header.1, header.2)
    for st in 0..<8 {
      let low = try load(UInt64.self, wrapped(place &+ 32 &+ 16 * UInt64(st)))
      let high = try load(UInt16.self, wrapped(place &+ 40 &+ 16 * UInt64(st)))
      x87.setFXSAVERegister(st, low: low, high: high)
    }
  }

  private mutating func restoreSSE(_ place: UInt64, _ control: UInt32) throws(Fault) {
    mxcsr = control
    for number in 0..<registerCount {
      let at = wrapped(place &+ 160 &+ 16 * UInt64(number))
      vectors[4 * number] = try load(UInt64.self, at)
      vectors[4 * number + 1] = try load(UInt64.self, wrapped(at &+ 8))
    }
  }

  // MARK: - XSAVE

  private mutating func extendedPlace(_ i: Instruction, isWrite: Bool) throws(Fault) -> UInt64 {
    guard cr4 & 1 << 18 != 0, supportedXCR0 > 1 else { throw .undefined }
    guard cr0 & 8 == 0 else { throw .deviceNotAvailable }
    let place = try linear(i, 576, isWrite: isWrite)
    guard place & 63 == 0 else { throw .protection() }
    return place
  }

  /// The bit of PKRU among the parts.
  private static let keys: UInt64 = 1 << 9

  /// Where a part lies in an area that has all of `parts`.
  private func offset(ofPart number: UInt32, _ isCompact: Bool, _ parts: UInt64) -> UInt64 {
    if isCompact { return compactByteCount(parts & ((1 << UInt64(number)) &- 1)) }
    return UInt64(cpuid.entry(0xD, number)?.ebx ?? 576)
  }

  /// The size of an area in the compacted format (13.4.3).
  func compactByteCount(_ parts: UInt64) -> UInt64 {
    var size: UInt64 = 576
    for number in UInt32(2)..<63 where parts >> UInt64(number) & 1 != 0 {
      guard let part = cpuid.entry(0xD, number) else { continue }
      if part.ecx & 2 != 0 { size = (size &+ 63) & ~63 }
      size &+= UInt64(part.eax)
    }
    return size
  }

  private var requested: UInt64 {
    (UInt64(reg32(2)) << 32 | UInt64(reg32(0))) & xcr0
  }

  private mutating func saveExtended(_ i: Instruction, isCompact: Bool) throws(Fault) {
    let place = try extendedPlace(i, isWrite: true)
    let parts = requested
    try checkWrite(place, 576)
    let old = try load(UInt64.self, wrapped(place &+ 512))
    let keys = wrapped(place &+ (parts & Self.keys != 0 ? offset(ofPart: 9, isCompact, parts) : 0))
    if parts & Self.keys != 0 { try checkWrite(wrapped(keys &+ 7)) }
    try saveLegacy(place, parts, i)
    if parts & Self.keys != 0 { try store(UInt64(pkru), keys) }
    if isCompact {
      try store(parts, wrapped(place &+ 512))
      try store(parts | 1 << 63, wrapped(place &+ 520))
    } else {
      try store(old & ~parts | parts, wrapped(place &+ 512))
    }
  }

  private mutating func restoreExtended(_ i: Instruction) throws(Fault) {
    let place = try extendedPlace(i, isWrite: false)
    let present = try load(UInt64.self, wrapped(place &+ 512))
    let layout = try load(UInt64.self, wrapped(place &+ 520))
    let isCompact = layout >> 63 != 0
    if isCompact {
      let parts = layout & ~(1 << 63)
      guard parts & ~xcr0 == 0, present & ~parts == 0 else { throw .protection() }
      for word in UInt64(2)..<8 {
        guard try load(UInt64.self, wrapped(place &+ 512 &+ 8 * word)) == 0 else {
          throw .protection()
        }
      }
    } else {
      guard present & ~xcr0 == 0, layout == 0,
        try load(UInt64.self, wrapped(place &+ 528)) == 0
      else { throw .protection() }
    }
    let parts = requested
    var control = mxcsr
    if parts & 2 != 0 {
      control = try load(UInt32.self, wrapped(place &+ 24))
      guard control >> 16 == 0 else { throw .protection() }
    }
    try checkRead(place)
    try checkRead(place, 512)
    if parts & Self.keys != 0 {
      var rights: UInt32 = 0
      if present & Self.keys != 0 {
        rights = try load(
          UInt32.self, wrapped(place &+ offset(ofPart: 9, isCompact, layout)))
      }
      if rights != pkru {
        pkru = rights
        tlb.flushRights()
      }
    }
    if parts & 1 != 0 {
      if present & 1 != 0 {
        try restoreX87(place)
      } else {
        x87.initialize()
        for st in 0..<8 { x87.setFXSAVERegister(st, low: 0, high: 0) }
      }
    }
    if parts & 2 != 0 {
      if present & 2 != 0 {
        try restoreSSE(place, control)
      } else {
        mxcsr = isCompact ? 0x1F80 : control
        for number in 0..<registerCount {
          vectors[4 * number] = 0
          vectors[4 * number + 1] = 0
        }
      }
    }
  }
}
