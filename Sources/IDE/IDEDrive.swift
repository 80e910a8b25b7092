// SPDX-License-Identifier: Apache-2.0

import DeviceModel

/// One drive: its registers and settings, without the transfer under way.
struct IDEDrive: DeviceState, Sendable {
  // Fixed by the machine, or changed with the disc.
  var kind: IDEDriveKind = .absent
  var serial = ""
  var model = ""
  /// Whether every write is durable before it has ended: the drive has no write cache then.
  var isWriteThrough = false

  // The task file; each register remembers its previous value (ATA/ATAPI-6, 6.20).
  var error: UInt8 = 0
  var features = HistoryByte()
  var sectorCount = HistoryByte()
  var lbaLow = HistoryByte()
  var lbaMid = HistoryByte()
  var lbaHigh = HistoryByte()
  var device: UInt8 = 0xA0
  var status: ATAStatus = []
  var isInterrupting = false

  // Settings.
  var heads: UInt8 = 16
  var sectorsPerTrack: UInt8 = 63
  var multiple: UInt8 = 0
  var transferMode: UInt8 = 0x22
  var hasWriteCache = true
  var power: UInt8 = PowerMode.active
  var hasSMART = true
  var hasAttributeAutosave = true
  /// How many commands the image has failed.
  var failures: UInt32 = 0

  // Packet devices.
  var senseKey: UInt8 = 0
  var senseCode: UInt8 = 0
  var senseQualifier: UInt8 = 0
  /// The sector that a medium error is about.
  var senseSector: UInt32 = 0
  var hasNewMedium = false
  var hasMediaEvent = false
  /// The guest has asked that the tray stay shut (PREVENT ALLOW MEDIUM REMOVAL).
  var isLocked = false
  var isTrayOpen = false
  /// The operator wants the disc out of a locked tray.
  var wantsEject = false

  enum PowerMode {
    static let active: UInt8 = 0
    static let standby: UInt8 = 1
    static let sleep: UInt8 = 2
  }

  /// Whether it has a write cache that can be turned on and off.
  var hasOwnCache: Bool { !isPacketDevice && !isWriteThrough }

  /// Whether a write may end before it is durable.
  var cachesWrites: Bool { hasWriteCache && !isWriteThrough }

  var isPresent: Bool { kind != .absent }

  var isPacketDevice: Bool {
    if case .cdrom = kind { true } else { false }
  }

  /// The size of the medium in its own sectors; 0 when there is none.
  var capacity: UInt64 {
    switch kind {
    case .absent: 0
    case .disk(let count): count
    case .cdrom(let count): count ?? 0
    }
  }

  var hasMedium: Bool {
    switch kind {
    case .absent: false
    case .disk: true
    case .cdrom(let count): count != nil && !isTrayOpen
    }
  }

  var sectorSize: UInt32 { isPacketDevice ? 2048 : 512 }

  var cylinders: UInt64 { min(capacity / 1008, 16383) }

  /// Puts the reset signature into the task file (ATA/ATAPI-6, 9.12).
  mutating func setSignature() {
    error = 1
    sectorCount = HistoryByte(1)
    lbaLow = HistoryByte(1)
    lbaMid = HistoryByte(isPacketDevice ? 0x14 : 0)
    lbaHigh = HistoryByte(isPacketDevice ? 0xEB : 0)
    device = 0xA0
    isInterrupting = false
    status = isPacketDevice || !isPresent ? [] : [.ready, .seekComplete]
    power = PowerMode.active
  }

  /// Goes back to what the drive is like after power-on.
  mutating func powerOn() {
    var fresh = IDEDrive()
    fresh.kind = kind
    fresh.serial = serial
    fresh.model = model
    fresh.isWriteThrough = isWriteThrough
    fresh.multiple = largestMultiple
    fresh.failures = failures
    fresh.isTrayOpen = isTrayOpen
    fresh.setSignature()
    self = fresh
  }

  /// Ends a command in an error (ATA/ATAPI-6, 9.4 and the like).
  mutating func fail(_ code: UInt8) {
    error = code
    status = [.ready, .seekComplete, .error]
    isInterrupting = true
  }

  /// Ends a command well.
  mutating func succeed() {
    error = 0
    status = [.ready, .seekComplete]
    isInterrupting = true
  }

  mutating func setSense(_ key: UInt8, _ code: UInt8, _ qualifier: UInt8 = 0) {
    senseKey = key
    senseCode = code
    senseQualifier = qualifier
    senseSector = 0
  }

  @specialized(where V == StateEncoder)
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("error", &error)
    visitor.part("features", &features)
    visitor.part("sector-count", &sectorCount)
    visitor.part("lba-low", &lbaLow)
    visitor.part("lba-mid", &lbaMid)
    visitor.part("lba-high", &lbaHigh)
    visitor.field("device", &device)
    visitor.field("status", &status)
    visitor.field("interrupting", &isInterrupting)
    visitor.field("heads", &heads)
    visitor.field("sectors-per-track", &sectorsPerTrack)
    visitor.field("multiple", &multiple)
    visitor.field("transfer-mode", &transferMode)
    visitor.field("write-cache", &hasWriteCache)
    visitor.field("power", &power)
    visitor.field("smart", &hasSMART)
    visitor.field("attribute-autosave", &hasAttributeAutosave)
    visitor.field("failures", &failures)
    visitor.field("sense-key", &senseKey)
    visitor.field("sense-code", &senseCode)
    visitor.field("sense-qualifier", &senseQualifier)
    visitor.field("sense-sector", &senseSector)
    visitor.field("new-medium", &hasNewMedium)
    visitor.field("media-event", &hasMediaEvent)
    visitor.field("locked", &isLocked)
    visitor.field("tray-open", &isTrayOpen)
    visitor.field("wants-eject", &wantsEject)
  }
}

/// A register that remembers the value before the last write.
struct HistoryByte: DeviceState, Sendable, Equatable {
  var current: UInt8
  var previous: UInt8 = 0

  init(_ value: UInt8 = 0) { current = value }

  /// Returns what a read gives, by the HOB bit of the device control register.
  func value(previous wantsPrevious: Bool) -> UInt8 { wantsPrevious ? previous : current }

  mutating func write(_ value: UInt8) {
    previous = current
    current = value
  }

  @specialized(where V == StateEncoder)
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("current", &current)
    visitor.field("previous", &previous)
  }
}

extension IDEDrive {
  /// The address in the task file, or `nil` when it is not on the medium's geometry.
  func address(isExtended: Bool) -> UInt64? {
    let low = UInt64(lbaLow.current)
    let mid = UInt64(lbaMid.current)
    let high = UInt64(lbaHigh.current)
    if isExtended {
      guard device & 0x40 != 0 else { return nil }
      let upper =
        UInt64(lbaHigh.previous) << 16 | UInt64(lbaMid.previous) << 8 | UInt64(lbaLow.previous)
      return upper << 24 | high << 16 | mid << 8 | low
    }
    let head = UInt64(device & 0x0F)
    if device & 0x40 != 0 { return head << 24 | high << 16 | mid << 8 | low }
    guard low != 0, low <= UInt64(sectorsPerTrack), head < UInt64(heads) else { return nil }
    return ((high << 8 | mid) * UInt64(heads) + head) * UInt64(sectorsPerTrack) + low - 1
  }

  /// How many sectors the task file asks for; 0 means the most.
  func requestedCount(isExtended: Bool) -> UInt32 {
    if isExtended {
      let count = UInt32(sectorCount.previous) << 8 | UInt32(sectorCount.current)
      return count == 0 ? 65536 : count
    }
    return sectorCount.current == 0 ? 256 : UInt32(sectorCount.current)
  }

  /// Puts an address into the task file, in the form that the command used.
  mutating func setAddress(_ sector: UInt64, isExtended: Bool) {
    func byte(_ value: UInt64, _ shift: UInt64) -> UInt8 {
      UInt8(truncatingIfNeeded: value >> shift)
    }
    if isExtended || device & 0x40 != 0 {
      lbaLow.current = byte(sector, 0)
      lbaMid.current = byte(sector, 8)
      lbaHigh.current = byte(sector, 16)
      if isExtended {
        lbaLow.previous = byte(sector, 24)
        lbaMid.previous = byte(sector, 32)
        lbaHigh.previous = byte(sector, 40)
      } else {
        device = device & 0xF0 | byte(sector, 24) & 0x0F
      }
      return
    }
    let perTrack = UInt64(max(sectorsPerTrack, 1))
    let perCylinder = perTrack * UInt64(max(heads, 1))
    let cylinder = sector / perCylinder
    lbaLow.current = byte(sector % perTrack + 1, 0)
    lbaMid.current = byte(cylinder, 0)
    lbaHigh.current = byte(cylinder, 8)
    device = device & 0xF0 | byte(sector % perCylinder / perTrack, 0) & 0x0F
  }
}
