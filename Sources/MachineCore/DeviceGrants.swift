// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol

/// What a device of some role may claim; the machine file says which roles there are.
struct DeviceGrants: Sendable {
  var ports: [ClosedRange<UInt16>] = []
  /// Where a movable region may be moved to.
  var movablePorts: ClosedRange<UInt16>?
  var memories: [ClosedRange<UInt64>] = []
  var functions: [UInt8] = []
  var interrupts: [UInt8] = []
  /// Whether it may reset and power off the machine, and route the PCI interrupts.
  var isChipset = false
  /// Whether it may hold the machine when the host fails it.
  var mayHold = false
  /// Whether KVM may collect its posted writes: none has an effect that a guest waits for
  /// without another access, such as an interrupt.
  var mayCollect = true
  /// The port of the fw_cfg DMA address, where the guest may start a copy.
  var fwCfgPort: UInt16?
  /// The most bytes of a bounce buffer, and of memory behind BARs.
  var mostBounceBytes: UInt32 = 0
  var mostBackingBytes: UInt64 = 0

  /// Whether it may tell of its drives, and whether of the guest's panic.
  var mayTellOfDrives = false
  var mayTellOfPanic = false

  /// Whether a field of its state tells how far the host has come with something, such as a file
  /// that grows: that stays as it is when a snapshot is loaded.
  func isOfHost(_ field: String) -> Bool {
    field == "console.offset" || field.hasPrefix("backend") && field.hasSuffix(".written")
  }

  /// The grants of a role, with the debug exit and panic ports where the machine has them.
  static func role(
    _ role: String, exitPort: UInt32, hasPanicPort: Bool = false
  ) -> DeviceGrants? {
    switch role {
    case "piix":
      var grants = DeviceGrants(
        ports: [
          0x00...0x0F, 0x60...0x64, 0x70...0x71, 0x80...0x8F, 0x92...0x92, 0xB2...0xB3,
          0xC0...0xDF, 0x402...0x402, 0x4D0...0x4D1, 0x510...0x51B, 0xCF9...0xCF9, 0xAFE0...0xAFE3,
        ],
        movablePorts: 0x400...0xFFFF, functions: [0x08, 0x0B], interrupts: [1, 8, 9, 12],
        isChipset: true, fwCfgPort: 0x514, mostBounceBytes: 1 << 20)
      if let port = UInt16(exactly: exitPort) {
        grants.ports.append(port...(port &+ 3 < port ? port : port + 3))
      }
      if hasPanicPort {
        grants.ports.append(0x505...0x505)
        grants.mayTellOfPanic = true
      }
      return grants
    case "ide":
      return DeviceGrants(
        ports: [0x1F0...0x1F7, 0x3F6...0x3F6, 0x170...0x177, 0x376...0x376], functions: [0x09],
        interrupts: [14, 15], mayHold: true, mostBounceBytes: 16 << 20, mayTellOfDrives: true)
    case "serial":
      return DeviceGrants(
        ports: [0x3F8...0x3FF, 0x2F8...0x2FF, 0x3E8...0x3EF, 0x2E8...0x2EF], interrupts: [3, 4],
        // A byte sent is followed by the transmitter's interrupt.
        mayCollect: false)
    case "vga":
      return DeviceGrants(
        ports: [0x3B0...0x3DF, 0x1CE...0x1D1], memories: [0xA0000...0xBFFFF], functions: [0x10],
        mostBackingBytes: 272 << 20)
    case "example":
      return DeviceGrants(ports: [0x560...0x567], interrupts: [5])
    default:
      return nil
    }
  }

  /// Checks claims against the grants.
  ///
  /// - Throws: the first claim that goes beyond them.
  func check(_ claims: Claims) throws(ProtocolError) {
    for claim in claims.ports {
      guard claim.count > 0, UInt32(claim.base) + UInt32(claim.count) <= 0x10000 else {
        throw ProtocolError("port region \(claim.region) is empty or wraps around")
      }
      let last = UInt32(claim.base) + UInt32(claim.count) - 1
      if claim.isMovable {
        guard movablePorts != nil, claim.count <= 64 else {
          throw ProtocolError("port region \(claim.region) may not be movable")
        }
        continue
      }
      guard ports.contains(where: { $0.contains(claim.base) && $0.contains(UInt16(last)) }) else {
        throw ProtocolError(
          "ports \(hex(UInt64(claim.base))) to \(hex(UInt64(last))) are not granted")
      }
    }
    for claim in claims.memories {
      let (last, overflow) = claim.base.addingReportingOverflow(claim.byteCount &- 1)
      guard claim.byteCount > 0, !overflow,
        memories.contains(where: { $0.contains(claim.base) && $0.contains(last) })
      else { throw ProtocolError("memory at \(hex(claim.base)) is not granted") }
    }
    for claim in claims.functions where !functions.contains(claim.devfn) {
      throw ProtocolError("PCI function \(claim.devfn >> 3).\(claim.devfn & 7) is not granted")
    }
    for claim in claims.lines where !interrupts.contains(claim.interrupt) {
      throw ProtocolError("interrupt \(claim.interrupt) is not granted")
    }
    for claim in claims.descriptors { try check(claim, claims) }
    guard claims.bounceByteCount <= mostBounceBytes else {
      throw ProtocolError("a bounce buffer of \(claims.bounceByteCount) bytes is not granted")
    }
    let backing = claims.backings.reduce(UInt64(0)) { $0 + UInt64($1.byteCount) }
    guard backing <= mostBackingBytes else {
      throw ProtocolError("\(backing) bytes of memory are not granted")
    }
  }

  /// Checks that a descriptor is where the guest knows that it starts a transfer.
  ///
  /// Anywhere else a device could make the core take any guest data for an address.
  private func check(_ claim: DescriptorClaim, _ claims: Claims) throws(ProtocolError) {
    let isGranted =
      switch claim.kind {
      case .prd:
        functions.contains(claim.devfn)
          && claims.functions.contains { function in
            function.devfn == claim.devfn
              && function.bars.contains {
                $0.region == claim.region && $0.kind == .ports && claim.offset & 7 == 0
                  && UInt64(claim.offset) + 8 <= UInt64($0.byteCount)
              }
          }
      case .fwCfg:
        claim.devfn == 0xFF
          && claims.ports.contains {
            $0.region == claim.region && !$0.isMovable
              && fwCfgPort.map { UInt64($0) } == UInt64($0.base) + UInt64(claim.offset)
              && UInt64(claim.offset) + 8 <= UInt64($0.count)
          }
      }
    guard isGranted else { throw ProtocolError("a DMA descriptor of this kind is not granted") }
  }
}

/// Returns a number in hexadecimal with its prefix.
func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
