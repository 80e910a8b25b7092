// SPDX-License-Identifier: Apache-2.0

extension PIIXBoard {
  /// The board's port ranges, by the identity that the protocol carries.
  public enum Region: UInt8, Sendable, CaseIterable {
    case dma1 = 0
    case systemControlB = 1
    case clock = 2
    case postCode = 3
    case dmaPages = 4
    case systemControlA = 5
    case advancedPowerManagement = 6
    case dma2 = 7
    case debugExit = 8
    case debugConsole = 9
    case edgeLevelControl = 10
    case firmwareConfiguration = 11
    case resetControl = 12
    case powerManagement = 13
    case smbus = 14
    case generalEvents = 15
    case panic = 20

    /// The first port, or `nil` where that is set by the guest or the machine file.
    public var fixedBase: UInt16? {
      switch self {
      case .dma1: 0x00
      case .systemControlB: 0x61
      case .clock: 0x70
      case .postCode: 0x80
      case .dmaPages: 0x81
      case .systemControlA: 0x92
      case .advancedPowerManagement: 0xB2
      case .dma2: 0xC0
      case .debugConsole: 0x402
      case .edgeLevelControl: 0x4D0
      case .panic: PanicPort.base
      case .firmwareConfiguration: 0x510
      case .resetControl: 0xCF9
      case .generalEvents: 0xAFE0
      case .debugExit, .powerManagement, .smbus: nil
      }
    }

    /// How many ports the region has.
    public var portCount: UInt16 {
      switch self {
      case .dma1, .smbus: 16
      case .dmaPages: 15
      case .dma2: 32
      case .powerManagement: 64
      case .firmwareConfiguration: FwCfg.portCount
      case .debugExit, .generalEvents: 4
      case .clock, .advancedPowerManagement, .edgeLevelControl: 2
      case .systemControlA, .systemControlB, .postCode, .debugConsole, .resetControl, .panic: 1
      }
    }
  }

  /// How a register may be answered without waiting for this device.
  public enum RegisterKind: Sendable, Equatable {
    /// Writes go to the ring and nobody waits.
    case postedWrites
    /// Reads are answered from a published value, which is this until it is said otherwise.
    case mirroredReads(initial: UInt8)
    /// Reads are worked out from the virtual clock.
    case clockedReads(frequency: UInt64, bits: UInt8)
  }

  /// Registers that are not simply live.
  public struct DeclaredRegister: Sendable, Equatable {
    public var region: Region
    public var offset: UInt16
    /// The width of access, in bytes, that is meant; others are live.
    public var byteCount: UInt8
    public var kind: RegisterKind
  }

  /// All registers that are not simply live; those not listed are.
  public static let declaredRegisters: [DeclaredRegister] = [
    .init(region: .debugConsole, offset: 0, byteCount: 1, kind: .postedWrites),
    .init(
      region: .debugConsole, offset: 0, byteCount: 1,
      kind: .mirroredReads(initial: DebugConsole.signature)),
    .init(region: .postCode, offset: 0, byteCount: 1, kind: .postedWrites),
    .init(region: .clock, offset: 0, byteCount: 1, kind: .postedWrites),
    .init(region: .firmwareConfiguration, offset: 0, byteCount: 2, kind: .postedWrites),
    .init(region: .firmwareConfiguration, offset: 4, byteCount: 4, kind: .postedWrites),
    .init(
      region: .powerManagement, offset: PIIX4PowerManagement.timerOffset, byteCount: 4,
      kind: .clockedReads(
        frequency: PIIX4PowerManagement.timerFrequency, bits: PIIX4PowerManagement.timerWidth)),
  ]
}
