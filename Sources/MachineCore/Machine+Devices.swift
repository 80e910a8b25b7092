// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import KVM
internal import LinuxSystem
internal import PCI
internal import Synchronization

/// What devices ask of the machine.
extension Machine {
  /// Takes a device's claims in: lines, buffers, regions.
  func install(_ link: DeviceLink, _ claims: Claims, _ roms: [Descriptor]) throws(ProtocolError) {
    do {
      var lines: [(event: Descriptor, ended: Descriptor?)] = []
      for claim in claims.lines {
        let event = try EventFile.make()
        let ended = claim.isLevel ? try EventFile.make() : nil
        try accelerator.addLine(UInt32(claim.interrupt), event, ended: ended)
        lines.append((event, ended))
      }
      var bounce: (file: Descriptor, mapping: Mapping)?
      if claims.bounceByteCount > 0 {
        let file = try MemoryFile.make(
          "\(link.role)-bounce", byteCount: Int(claims.bounceByteCount))
        bounce = (
          file, try Mapping(file, byteCount: Int(claims.bounceByteCount), .readWrite)
        )
      }
      var rest = roms[...]
      var backings: [(claim: BackingClaim, file: Descriptor, mapping: Mapping)] = []
      for claim in claims.backings {
        let file = try MemoryFile.make("\(link.role)-memory", byteCount: Int(claim.byteCount))
        let mapping = try Mapping(file, byteCount: Int(claim.byteCount), .readWrite)
        if claim.kind == .rom {
          guard let source = rest.popFirst() else {
            throw ProtocolError("a ROM was claimed without its file")
          }
          guard try source.kind() == Self.regularFile else {
            throw ProtocolError("a ROM is not a regular file")
          }
          // A file that is cut short meanwhile gives zeroes, not a fault.
          mapping.copy(try source.read(Int(claim.byteCount), at: 0), to: 0)
        }
        backings.append((claim, file, mapping))
      }
      guard rest.isEmpty else { throw ProtocolError("more descriptors than ROMs") }
      let new = (lines, bounce, backings)
      try change { board throws(ProtocolError) in
        try board.install(link, claims)
        for backing in new.2 {
          board.slots.addDeviceMemory(
            Board.memoryID(link, backing.claim.memory), backing.mapping)
        }
      }
      link.state.withLock {
        $0.lines = new.0
        $0.bounce = new.1
        $0.backings = new.2
        $0.claims = claims
      }
    } catch let error as ProtocolError {
      throw error
    } catch {
      throw ProtocolError("\(error)")
    }
  }

  /// S_IFREG: reading anything else may wait for ever.
  private static let regularFile: UInt32 = 0o100000

  func move(_ link: DeviceLink, _ message: MoveRegion) throws(ProtocolError) {
    try change { board throws(ProtocolError) in try board.move(link, message) }
  }

  func routePIRQ(_ interrupts: [UInt8]) { pirq.withLock { $0 = interrupts } }

  func power(_ request: PowerRequest) {
    switch request.action {
    case .reset: post(.reset("the guest asked for it"))
    case .powerOff: post(.end(code: 0, reason: "the guest powered off"))
    case .suspend: post(.suspend)
    case .wake: post(.wake)
    case .exit: post(.end(code: request.code, reason: "the guest wrote to the debug exit port"))
    }
  }

  /// Whether a device may reach guest memory for DMA: RAM only, as the PAM registers say.
  func isReachable(_ address: UInt64, _ byteCount: UInt64, _ direction: DMARequest.Direction)
    -> Bool
  {
    guard byteCount > 0, memory.layout.offset(of: address, count: byteCount) != nil else {
      return false
    }
    let end = address + byteCount
    guard address < 0x10_0000, end > 0xC_0000 else { return true }
    let segments = current.withLock { $0.map.segments }
    return (0..<MemoryMap.segmentCount).allSatisfy {
      let range = MemoryMap.segmentRange($0)
      guard address < range.upperBound, end > range.lowerBound else { return true }
      return direction == .toGuest ? segments[$0].writesRAM : segments[$0].readsRAM
    }
  }

  func isBusMaster(_ devfn: UInt8) -> Bool {
    board.withLock { board in
      board.functions.first { $0.devfn == devfn }?.space.isBusMaster ?? false
    }
  }
}
