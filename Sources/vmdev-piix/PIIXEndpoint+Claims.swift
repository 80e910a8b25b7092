// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import PIIX

extension PIIXEndpoint {
  /// The numbers of the regions that the board itself does not have.
  enum OwnRegion {
    static let bridge: UInt16 = 16
    static let powerManagement: UInt16 = 17
    static let keyboardData: UInt16 = 18
    static let keyboardCommand: UInt16 = 19
  }

  /// The lines, in the order of their claims.
  enum Line {
    static let keyboard = 0
    static let clock = 1
    static let mouse = 2
    static let systemControl = 3
  }

  static let firmwareWindow: UInt16 = 0
  static let bounceByteCount: UInt32 = 256 << 10
  /// The lowest port that a region may be moved to; below are the ISA bus's own.
  static let lowestMovable: UInt16 = 0x400
  private static let debugConsoleEntry: UInt16 = 0

  func claims() -> Claims {
    var claims = Claims(bounceByteCount: Self.bounceByteCount)
    for region in PIIXBoard.Region.allCases {
      let number = UInt16(region.rawValue)
      switch region {
      case .powerManagement, .smbus:
        let base = region == .smbus ? PCTables.smbusBase : PCTables.powerManagementBase
        claims.ports.append(
          PortClaim(region: number, base: base, count: region.portCount, isMovable: true))
      case .debugExit:
        guard let exitPort else { continue }
        // At the very end of the port space it is a single port.
        let count = exitPort <= 0xFFFC ? region.portCount : 1
        claims.ports.append(PortClaim(region: number, base: exitPort, count: count))
      case .debugConsole where !hasConsole: continue
      case .panic where !hasPanicPort: continue
      default:
        guard let base = region.fixedBase else { continue }
        claims.ports.append(PortClaim(region: number, base: base, count: region.portCount))
      }
    }
    claims.ports.append(PortClaim(region: OwnRegion.keyboardData, base: 0x60, count: 1))
    claims.ports.append(PortClaim(region: OwnRegion.keyboardCommand, base: 0x64, count: 1))
    claims.functions = [
      Self.function(.isaBridge, OwnRegion.bridge),
      Self.function(.powerManagement, OwnRegion.powerManagement),
    ]
    claims.registers = registers(of: Set(claims.ports.map(\.region)))
    claims.lines = [
      LineClaim(interrupt: 1), LineClaim(interrupt: 8), LineClaim(interrupt: 12),
      LineClaim(interrupt: 9, isLevel: true),
    ]
    claims.descriptors = [
      DescriptorClaim(
        window: Self.firmwareWindow, kind: .fwCfg,
        region: UInt16(PIIXBoard.Region.firmwareConfiguration.rawValue), offset: 4)
    ]
    return claims
  }

  /// The registers that are not live, with the kinds of one register in one claim.
  private func registers(of regions: Set<UInt16>) -> [RegisterClaim] {
    var claims: [RegisterClaim] = []
    for register in PIIXBoard.declaredRegisters {
      let region = UInt16(register.region.rawValue)
      guard regions.contains(region) else { continue }
      let offset = UInt32(register.offset)
      let known = claims.firstIndex { $0.region == region && $0.offset == offset }
      var claim =
        known.map { claims[$0] }
        ?? RegisterClaim(region: region, offset: offset, byteCount: UInt32(register.byteCount))
      switch register.kind {
      case .postedWrites: claim.write = .posted
      case .mirroredReads:
        claim.read = .mirrored
        claim.entry = Self.debugConsoleEntry
      case .clockedReads(let frequency, let bits):
        claim.read = .clocked
        claim.frequency = frequency
        claim.bits = bits
      }
      if let known { claims[known] = claim } else { claims.append(claim) }
    }
    return claims
  }

  /// The constant values of mirrored registers: that of the debug console, in its entry.
  static let mirrored = (entry: Int(debugConsoleEntry), value: UInt32(DebugConsole.signature))

  private static func function(_ header: FunctionHeader, _ region: UInt16) -> FunctionClaim {
    FunctionClaim(
      devfn: header.device << 3 | header.function, region: region, vendor: header.vendorID,
      device: header.deviceID, classCode: header.classCode, revision: header.revision,
      interruptPin: header.interruptPin, isMultiFunction: header.isMultifunction)
  }
}
