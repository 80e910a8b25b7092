// SPDX-License-Identifier: Apache-2.0

/// The port ranges that the function decodes.
public enum IDERegion: UInt8, CaseIterable, Sendable {
  /// 1F0h to 1F7h, the primary channel's command block.
  case primaryCommand = 0
  /// 3F6h, the primary channel's control block.
  case primaryControl = 1
  /// 170h to 177h, the secondary channel's command block.
  case secondaryCommand = 2
  /// 376h, the secondary channel's control block.
  case secondaryControl = 3
  /// The 16 ports behind BAR4 (82371SB, 2.7).
  case busMaster = 4

  /// The fixed first port; `nil` for the one that BAR4 places.
  public var base: UInt16? {
    switch self {
    case .primaryCommand: 0x1F0
    case .primaryControl: 0x3F6
    case .secondaryCommand: 0x170
    case .secondaryControl: 0x376
    case .busMaster: nil
    }
  }

  /// How many ports the region has.
  public var length: UInt16 {
    switch self {
    case .primaryCommand, .secondaryCommand: 8
    case .primaryControl, .secondaryControl: 1
    case .busMaster: 16
    }
  }

  /// How the core may treat an access to the port at `offset`.
  ///
  /// Anything that changes what a mirrored port reads as is live, so that no mirror is
  /// ever older than a write that the guest has made.
  public func kind(at offset: UInt16, isWrite: Bool) -> IDERegisterKind {
    switch self {
    case .primaryCommand, .secondaryCommand:
      isWrite && (1...5).contains(offset) ? .posted : .live
    case .primaryControl, .secondaryControl: isWrite ? .live : .mirrored
    // The status register and the table's address: seen through this device's reads alone.
    case .busMaster: isWrite && (offset & 4 != 0 || offset & 7 == 2) ? .posted : .live
    }
  }

  /// Whether reading the port at `offset` changes anything.
  ///
  /// The data port advances; the status port acknowledges the interrupt.
  public func readHasSideEffects(at offset: UInt16) -> Bool {
    switch self {
    case .primaryCommand, .secondaryCommand: offset == 0 || offset == 7
    case .primaryControl, .secondaryControl, .busMaster: false
    }
  }
}

/// How the core may treat a register access (the device protocol's register kinds).
public enum IDERegisterKind: Sendable {
  /// The vCPU waits for the answer.
  case live
  /// The write goes to a ring and the vCPU goes on.
  case posted
  /// The read is answered from ``IDEController/alternateStatus(channel:)``.
  case mirrored
}

/// Bits of the status register (ATA/ATAPI-6, 7.15).
public struct ATAStatus: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// ERR, or CHK for a packet device.
  public static let error = Self(rawValue: 0x01)
  /// DRQ.
  public static let dataRequest = Self(rawValue: 0x08)
  /// DSC, obsolete, as disks still report it.
  public static let seekComplete = Self(rawValue: 0x10)
  /// DF.
  public static let deviceFault = Self(rawValue: 0x20)
  /// DRDY.
  public static let ready = Self(rawValue: 0x40)
  /// BSY.
  public static let busy = Self(rawValue: 0x80)
}

/// Bits of the error register (ATA/ATAPI-6, 7.9).
enum ATAError {
  static let aborted: UInt8 = 0x04
  static let idNotFound: UInt8 = 0x10
  static let uncorrectable: UInt8 = 0x40
}

/// Command codes (ATA/ATAPI-6, section 8; the older twins from ATA-1 to ATA-3).
enum ATACommand {
  static let nop: UInt8 = 0x00
  static let deviceReset: UInt8 = 0x08
  static let executeDiagnostic: UInt8 = 0x90
  static let packet: UInt8 = 0xA0
}
