// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// One 8259A interrupt controller (Intel 8259A data sheet).
public struct I8259: Sendable {
  /// Interrupt request register.
  private(set) var requests: UInt8 = 0
  /// In-service register.
  private(set) var inService: UInt8 = 0
  /// Interrupt mask register, OCW1.
  private(set) var mask: UInt8 = 0
  /// The level of each input.
  private var lines: UInt8 = 0
  /// ELCR: inputs that are level-triggered.
  var levelTriggered: UInt8 = 0
  /// The inputs that ELCR can make level-triggered.
  private let levelMask: UInt8
  private let isMaster: Bool

  var vectorBase: UInt8 = 0
  /// The input with the lowest priority.
  var lowest: UInt8 = 7
  /// 0 when initialised, else the initialisation command word that comes next.
  private var step: UInt8 = 0
  private var wantsFourth = false
  private var isSingle = false
  private var isAutoEnd = false
  private var rotatesOnAutoEnd = false
  private var isSpecialMask = false
  var isFullyNested = false
  private var isPolled = false
  var readsInService = false
  /// Inputs whose service has ended since ``takeEnded()``.
  private var ended: UInt8 = 0
  /// Inputs that the end of their service lowers, before anything looks at them again.
  var resampled: UInt8 = 0

  init(isMaster: Bool) {
    self.isMaster = isMaster
    levelMask = isMaster ? 0xF8 : 0xDE
  }

  // MARK: - Inputs

  /// Sets the level of an input, 0 to 7.
  mutating func setLine(_ number: UInt8, _ raised: Bool) {
    let bit = 1 << (number & 7) as UInt8
    if levelTriggered & bit != 0 {
      if raised { requests |= bit } else { requests &= ~bit }
    } else if raised, lines & bit == 0 {
      // A request stays when the line goes low before it is served, unlike the data sheet's
      // spurious interrupt 7: devices pulse their lines here, as KVM's do.
      requests |= bit
    }
    if raised { lines |= bit } else { lines &= ~bit }
  }

  /// The place of an input in the order of priorities, 0 the highest.
  private func priority(_ bits: UInt8) -> UInt8 {
    guard bits != 0 else { return 8 }
    var place: UInt8 = 0
    while bits & 1 << ((lowest &+ 1 &+ place) & 7) == 0 { place += 1 }
    return place
  }

  /// The input that asks for service now.
  private var next: UInt8? {
    let asked = priority(requests & ~mask)
    guard asked < 8 else { return nil }
    var blocking = inService
    if isSpecialMask { blocking &= ~mask }
    // In the fully nested mode a slave's second request passes.
    if isFullyNested, isMaster { blocking &= ~4 }
    guard asked < priority(blocking) else { return nil }
    return (lowest &+ 1 &+ asked) & 7
  }

  /// The INT output.
  var hasInterrupt: Bool { step == 0 && next != nil }

  /// The interrupt acknowledge cycle; returns the input, or 7 for a spurious one.
  mutating func acknowledge() -> (input: UInt8, isSpurious: Bool) {
    guard let input = next else { return (7, true) }
    take(input)
    return (input, false)
  }

  private mutating func take(_ input: UInt8) {
    let bit = 1 << input as UInt8
    if isAutoEnd {
      if rotatesOnAutoEnd { lowest = input }
      noteEnd(bit)
    } else {
      inService |= bit
    }
    if levelTriggered & bit == 0 { requests &= ~bit }
  }

  /// The vector of an input.
  func vector(_ input: UInt8) -> UInt8 { vectorBase | input }

  // MARK: - Ports

  /// Reads A0 = `address`.
  mutating func read(_ address: UInt16) -> UInt8 {
    if isPolled {
      isPolled = false
      // Bits 2:0 mean nothing then; they are those of the spurious interrupt.
      guard let input = next else { return 7 }
      take(input)
      return 0x80 | input
    }
    if address & 1 != 0 { return mask }
    return readsInService ? inService : requests
  }

  /// Writes A0 = `address`.
  mutating func write(_ address: UInt16, _ value: UInt8) {
    if address & 1 == 0 {
      if value & 0x10 != 0 {
        initialize(value)
      } else if value & 8 != 0 {
        // OCW3.
        if value & 4 != 0 { isPolled = true }
        if value & 2 != 0 { readsInService = value & 1 != 0 }
        if value & 0x40 != 0 { isSpecialMask = value & 0x20 != 0 }
      } else {
        endOfInterrupt(value)
      }
      return
    }
    switch step {
    case 2:
      vectorBase = value & 0xF8
      step = isSingle ? (wantsFourth ? 4 : 0) : 3
    case 3: step = wantsFourth ? 4 : 0
    case 4:
      isFullyNested = value & 0x10 != 0
      isAutoEnd = value & 2 != 0
      step = 0
    default: mask = value
    }
  }

  /// ICW1.
  private mutating func initialize(_ value: UInt8) {
    requests &= levelTriggered & lines
    end(inService)
    mask = 0
    lowest = 7
    isSpecialMask = false
    isFullyNested = false
    isAutoEnd = false
    rotatesOnAutoEnd = false
    readsInService = false
    isPolled = false
    wantsFourth = value & 1 != 0
    isSingle = value & 2 != 0
    step = 2
  }

  /// OCW2.
  private mutating func endOfInterrupt(_ value: UInt8) {
    let named = value & 7
    switch value >> 5 {
    case 0: rotatesOnAutoEnd = false
    case 4: rotatesOnAutoEnd = true
    case 1, 5:
      // In the special mask mode what is masked does not end by itself.
      let place = priority(isSpecialMask ? inService & ~mask : inService)
      guard place < 8 else { return }
      let input = (lowest &+ 1 &+ place) & 7
      end(1 << input)
      if value >> 5 == 5 { lowest = input }
    case 3: end(1 << named)
    case 6: lowest = named
    case 7:
      end(1 << named)
      lowest = named
    default: break
    }
  }

  private mutating func end(_ bits: UInt8) {
    let bits = inService & bits
    inService &= ~bits
    noteEnd(bits)
  }

  private mutating func noteEnd(_ bits: UInt8) {
    ended |= bits
    lines &= ~(bits & resampled)
    requests &= ~(bits & resampled & levelTriggered)
  }

  /// The inputs whose service has ended since the last call, as bits.
  mutating func takeEnded() -> UInt8 {
    defer { ended = 0 }
    return ended
  }

  /// ELCR.
  var edgeLevelControl: UInt8 {
    get { levelTriggered }
    set {
      levelTriggered = newValue & levelMask
      requests |= levelTriggered & lines
    }
  }
}

extension I8259: DeviceState {
  public mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("requests", &requests)
    visitor.field("inService", &inService)
    visitor.field("mask", &mask)
    visitor.field("lines", &lines)
    visitor.field("levelTriggered", &levelTriggered)
    visitor.field("vectorBase", &vectorBase)
    visitor.field("lowest", &lowest)
    visitor.field("step", &step)
    visitor.field("wantsFourth", &wantsFourth)
    visitor.field("isSingle", &isSingle)
    visitor.field("isAutoEnd", &isAutoEnd)
    visitor.field("rotatesOnAutoEnd", &rotatesOnAutoEnd)
    visitor.field("isSpecialMask", &isSpecialMask)
    visitor.field("isFullyNested", &isFullyNested)
    visitor.field("isPolled", &isPolled)
    visitor.field("readsInService", &readsInService)
    visitor.field("ended", &ended)
    levelTriggered &= levelMask
    vectorBase &= 0xF8
    lowest &= 7
    if step == 1 || step > 4 { step = 0 }
  }
}
