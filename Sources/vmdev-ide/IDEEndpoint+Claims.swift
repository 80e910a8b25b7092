// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import IDE

extension IDEEndpoint {
  /// The regions are the model's, with the function's configuration space behind them.
  static let configurationRegion = UInt16(IDERegion.allCases.count)
  /// Device 1, function 1: beside the ISA bridge.
  private static let devfn: UInt8 = 1 << 3 | 1

  func claims() -> Claims {
    let region = IDERegion.busMaster
    var claims = Claims(
      functions: [
        FunctionClaim(
          devfn: Self.devfn, region: Self.configurationRegion, vendor: IDEController.vendor,
          device: IDEController.device, classCode: IDEController.classCode,
          revision: IDEController.revision,
          bars: [
            BARClaim(
              index: 4, kind: .ports, byteCount: UInt32(region.length),
              region: UInt16(region.rawValue))
          ])
      ],
      lines: IDEController.interruptLines.map { LineClaim(interrupt: $0) },
      descriptors: (0..<2).map { channel in
        DescriptorClaim(
          window: UInt16(channel), kind: .prd, region: UInt16(region.rawValue),
          offset: UInt32(8 * channel), devfn: Self.devfn)
      },
      bounceByteCount: UInt32(2 * Drive.mostBytes))
    for region in IDERegion.allCases {
      if let base = region.base {
        claims.ports.append(
          PortClaim(region: UInt16(region.rawValue), base: base, count: region.length))
      }
      for offset in 0..<region.length {
        if let register = Self.register(region, offset) { claims.registers.append(register) }
      }
    }
    return claims
  }

  /// The claim of a port that is not live both ways.
  ///
  /// The address of a table is one register of four bytes: it is written as a whole.
  private static func register(_ region: IDERegion, _ offset: UInt16) -> RegisterClaim? {
    if region == .busMaster, offset & 4 != 0 {
      guard offset & 3 == 0 else { return nil }
      return RegisterClaim(
        region: UInt16(region.rawValue), offset: UInt32(offset), byteCount: 4, write: .posted)
    }
    let isMirrored = region.kind(at: offset, isWrite: false) == .mirrored
    let isPosted = region.kind(at: offset, isWrite: true) == .posted
    guard isMirrored || isPosted else { return nil }
    return RegisterClaim(
      region: UInt16(region.rawValue), offset: UInt32(offset),
      read: isMirrored ? .mirrored : .live, write: isPosted ? .posted : .live,
      entry: isMirrored ? UInt16(region.channel) : 0)
  }
}

extension IDERegion {
  init?(_ region: UInt16) {
    guard let value = UInt8(exactly: region) else { return nil }
    self.init(rawValue: value)
  }

  /// Whether it is a command block.
  var isCommand: Bool { self == .primaryCommand || self == .secondaryCommand }

  /// The channel of a command or control block.
  var channel: Int { self == .secondaryCommand || self == .secondaryControl ? 1 : 0 }
}
