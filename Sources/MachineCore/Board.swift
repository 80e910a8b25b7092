// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import KVM
internal import LinuxSystem
internal import PCI

/// Who answers where, at one moment; vCPU threads read it without a lock.
final class BusSnapshot: Sendable {
  let generation: UInt32
  /// For each port the number of its region, 0 for none.
  let ports: [UInt8]
  let portRegions: [PortRegion]
  let memoryRegions: [MemoryRegion]
  let map: MemoryMap

  struct PortRegion: Sendable {
    var base: UInt16
    var count: UInt16
    var target: RegionTarget
  }

  struct MemoryRegion: Sendable {
    var base: UInt64
    var byteCount: UInt64
    var target: RegionTarget
  }

  init(
    generation: UInt32, portRegions: [PortRegion], memoryRegions: [MemoryRegion], map: MemoryMap
  ) {
    self.generation = generation
    self.portRegions = portRegions
    self.memoryRegions = memoryRegions
    self.map = map
    var ports = [UInt8](repeating: 0, count: 65536)
    for (index, region) in portRegions.enumerated() {
      for offset in 0..<Int(region.count) where Int(region.base) + offset < 65536 {
        // The first to claim a port keeps it.
        let port = Int(region.base) + offset
        if ports[port] == 0 { ports[port] = UInt8(index + 1) }
      }
    }
    self.ports = ports
  }

  /// The region that answers for all bytes of a port access, or `nil`.
  func region(_ port: UInt16, _ width: AccessWidth) -> PortRegion? {
    let number = ports[Int(port)]
    guard number != 0 else { return nil }
    let region = portRegions[Int(number) - 1]
    guard Int(port - region.base) + width.byteCount <= Int(region.count) else { return nil }
    // Where regions overlap, a part of this one may belong to another.
    for lane in 1..<max(2, width.byteCount) where lane < width.byteCount {
      guard ports[Int(port) + lane] == number else { return nil }
    }
    return region
  }

  /// The region that answers at an address, or `nil`.
  func memoryRegion(_ address: UInt64) -> MemoryRegion? {
    memoryRegions.first { address >= $0.base && address - $0.base < $0.byteCount }
  }
}

/// The buses and the PCI host: what the guest can move about at run time.
///
/// It is used under the machine's lock, and never while a device is asked something.
struct Board {
  /// A PCI function that a device process stands behind; the header is ours.
  struct Function {
    var devfn: UInt8
    var space: ConfigSpace
    var target: RegionTarget
    var claim: FunctionClaim
    var link: DeviceLink
  }

  var mechanism = ConfigurationMechanism1()
  var bridge = I440FXHostBridge()
  var functions: [Function] = []
  /// The fixed and the movable port regions, with the base that each has now.
  var ports: [(claim: PortClaim, base: UInt16?, target: RegionTarget)] = []
  var memories: [(claim: MemoryClaim, target: RegionTarget)] = []
  /// What a device shows in its memory region, by the device's index.
  private(set) var windows: [Int: WindowMapping] = [:]
  var map: MemoryMap
  let slots: SlotTable
  private var generation: UInt32 = 0
  /// What to do after a change of the memory map: returns when nobody uses the old one.
  var mapHasChanged: @Sendable () -> Void = {}

  init(map: MemoryMap, slots: SlotTable) {
    self.map = map
    self.slots = slots
  }

  // MARK: - Claims

  /// Takes a device's claims in; the grants were checked.
  mutating func install(_ link: DeviceLink, _ claims: Claims) throws(ProtocolError) {
    func target(_ region: UInt16) -> RegionTarget {
      let descriptors = claims.descriptors.filter { $0.region == region }
      return RegionTarget(
        link: link, region: region, registers: claims.registers.filter { $0.region == region },
        descriptors: descriptors)
    }
    for claim in claims.ports where !claim.isMovable {
      let range = Int(claim.base)..<Int(claim.base) + Int(claim.count)
      for other in ports {
        guard let base = other.base else { continue }
        guard !range.overlaps(Int(base)..<Int(base) + Int(other.claim.count)) else {
          throw ProtocolError(
            "ports at \(hex(UInt64(claim.base))) belong to \(other.target.link.role)")
        }
      }
      ports.append((claim, claim.base, target(claim.region)))
    }
    for claim in claims.ports where claim.isMovable {
      ports.append((claim, nil, target(claim.region)))
    }
    for claim in claims.memories {
      guard
        !memories.contains(where: {
          claim.base < $0.claim.base + $0.claim.byteCount
            && $0.claim.base < claim.base + claim.byteCount
        })
      else { throw ProtocolError("memory at \(hex(claim.base)) is claimed already") }
      memories.append((claim, target(claim.region)))
    }
    for claim in claims.functions {
      guard !functions.contains(where: { $0.devfn == claim.devfn }) else {
        throw ProtocolError("PCI function \(claim.devfn >> 3).\(claim.devfn & 7) is taken")
      }
      functions.append(
        Function(
          devfn: claim.devfn, space: try Self.header(claim), target: target(claim.region),
          claim: claim, link: link))
    }
    for claim in claims.functions {
      for bar in claim.bars { barTargets[BarKey(claim.devfn, bar.index)] = target(bar.region) }
    }
  }

  private struct BarKey: Hashable {
    var devfn: UInt8
    var index: UInt8
    init(_ devfn: UInt8, _ index: UInt8) {
      self.devfn = devfn
      self.index = index
    }
  }

  private var barTargets: [BarKey: RegionTarget] = [:]

  private static func header(_ claim: FunctionClaim) throws(ProtocolError) -> ConfigSpace {
    var space = ConfigSpace(
      FunctionIdentity(
        vendor: claim.vendor, device: claim.device, revision: claim.revision,
        classCode: claim.classCode, subsystemVendor: claim.subsystemVendor,
        subsystem: claim.subsystem, isMultifunction: claim.isMultiFunction,
        interruptPin: claim.interruptPin))
    for bar in claim.bars {
      switch bar.kind {
      case .ports:
        guard bar.byteCount <= 256 else { throw ProtocolError("BAR of \(bar.byteCount) ports") }
        space.addPortRegion(Int(bar.index), size: bar.byteCount)
      case .memory: space.addMemoryRegion(Int(bar.index), size: bar.byteCount)
      case .prefetchableMemory:
        space.addMemoryRegion(Int(bar.index), size: bar.byteCount, isPrefetchable: true)
      case .rom:
        guard (0x800...0x100_0000).contains(bar.byteCount) else {
          throw ProtocolError("ROM BAR of \(bar.byteCount) bytes")
        }
        space.addROM(size: bar.byteCount)
      }
    }
    return space
  }

  /// Moves a movable port region.
  mutating func move(_ link: DeviceLink, _ message: MoveRegion) throws(ProtocolError) {
    guard
      let place = ports.firstIndex(where: {
        $0.target.link === link && $0.claim.region == message.region && $0.claim.isMovable
      }), let allowed = link.grants.movablePorts
    else { throw ProtocolError("region \(message.region) cannot be moved") }
    guard message.isEnabled else {
      ports[place].base = nil
      return
    }
    let count = UInt32(ports[place].claim.count)
    let last = UInt32(message.base) + count - 1
    guard allowed.contains(message.base), last <= UInt32(allowed.upperBound) else {
      throw ProtocolError("ports from \(hex(UInt64(message.base))) are not granted")
    }
    ports[place].base = message.base
  }

  /// Maps device memory into a memory region of the device, or ends that.
  ///
  /// `memoryByteCount` is the size of the memory that the message names; 0 for none.
  mutating func mapWindow(
    _ link: DeviceLink, _ message: WindowMapping, memoryByteCount: UInt64
  ) throws(ProtocolError) {
    let claim = memories.first {
      $0.target.link === link && $0.claim.region == message.region
    }?.claim
    guard let claim else { throw ProtocolError("memory region \(message.region) is not claimed") }
    guard message.isMapped else {
      windows[link.index] = nil
      return
    }
    let end = UInt64(message.memoryOffset) + UInt64(message.byteCount)
    guard UInt64(message.offset) + UInt64(message.byteCount) <= claim.byteCount,
      claim.base % UInt64(WindowMapping.pageByteCount) == 0, end <= memoryByteCount
    else { throw ProtocolError("the window is not within region and memory") }
    windows[link.index] = message
  }

  /// A region's target, with the writes that a mapping guards as live ones.
  private func guarded(_ target: RegionTarget) -> RegionTarget {
    guard let window = windows[target.link.index] else { return target }
    var target = target
    for place in window.guards where place.region == target.region {
      target.registers = target.registers.flatMap { $0.without(place) }
    }
    return target
  }

  // MARK: - Snapshots

  /// The port regions of some claims, where they decode now.
  private func regions(_ belongs: (PortClaim) -> Bool) -> [BusSnapshot.PortRegion] {
    ports.filter { belongs($0.claim) }.compactMap { port in
      port.base.map {
        BusSnapshot.PortRegion(base: $0, count: port.claim.count, target: guarded(port.target))
      }
    }
  }

  /// Applies the registers to the memory slots and gives out a new snapshot.
  mutating func rebuild() throws(KVMError) -> BusSnapshot {
    var portRegions: [BusSnapshot.PortRegion] = []
    var memoryRegions = memories.map {
      BusSnapshot.MemoryRegion(
        base: $0.claim.base, byteCount: $0.claim.byteCount, target: $0.target)
    }
    // Fixed regions come first, then BARs: what a device moves onto them does not hide them.
    portRegions += regions { !$0.isMovable }
    map.segments = (0..<MemoryMap.segmentCount).map {
      let segment = bridge.segment($0)
      return MemoryMap.Segment(readsRAM: segment.readsDRAM, writesRAM: segment.writesDRAM)
    }
    map.windows = memories.compactMap { memory in
      let link = memory.target.link
      guard let window = windows[link.index], window.region == memory.claim.region else {
        return nil
      }
      return MemoryMap.DeviceRegion(
        device: Self.memoryID(link, window.memory),
        start: memory.claim.base + UInt64(window.offset), byteCount: UInt64(window.byteCount),
        offset: UInt64(window.memoryOffset))
    }
    map.devices = []
    for function in functions {
      for bar in function.claim.bars {
        let decoded =
          bar.kind == .rom ? function.space.rom : function.space.region(Int(bar.index))
        guard let decoded, let target = barTargets[BarKey(function.devfn, bar.index)] else {
          continue
        }
        if bar.kind == .ports {
          portRegions.append(
            BusSnapshot.PortRegion(
              base: UInt16(truncatingIfNeeded: decoded.base),
              count: UInt16(truncatingIfNeeded: decoded.size), target: target))
        } else if bar.memory != BARClaim.noMemory {
          map.devices.append(
            MemoryMap.DeviceRegion(
              device: Self.memoryID(function.link, bar.memory), start: UInt64(decoded.base),
              byteCount: UInt64(decoded.size), isReadOnly: bar.kind == .rom))
        } else {
          memoryRegions.append(
            BusSnapshot.MemoryRegion(
              base: UInt64(decoded.base), byteCount: UInt64(decoded.size), target: target))
        }
      }
    }
    portRegions += regions { $0.isMovable }
    if try slots.apply(map) { mapHasChanged() }
    generation &+= 1
    return BusSnapshot(
      generation: generation, portRegions: Array(portRegions.prefix(254)),
      memoryRegions: memoryRegions, map: map)
  }

  /// The number under which the slot table knows a device's backing memory.
  static func memoryID(_ link: DeviceLink, _ memory: UInt16) -> UInt32 {
    UInt32(link.index) << 16 | UInt32(memory)
  }

  /// Puts everything that the guest can program back to its state after reset; firmware's shadow
  /// stays if the machine wakes.
  mutating func reset(isWaking: Bool = false) {
    mechanism.reset()
    windows = [:]
    if isWaking { bridge.resetKeepingShadow() } else { bridge.reset() }
    for index in functions.indices { functions[index].space.reset() }
    for index in ports.indices where ports[index].claim.isMovable { ports[index].base = nil }
  }
}

extension RegisterClaim {
  /// What is left of the claim when some bytes are live: up to two pieces if it is posted.
  fileprivate func without(_ place: WindowMapping.Guard) -> [RegisterClaim] {
    let (start, end) = (UInt64(offset), UInt64(offset) + UInt64(byteCount))
    let (first, last) = (UInt64(place.offset), UInt64(place.offset) + UInt64(place.byteCount))
    guard write == .posted, first < end, start < last else { return [self] }
    var pieces: [RegisterClaim] = []
    for (start, end) in [(start, first), (last, end)] where start < end {
      var piece = self
      piece.offset = UInt32(truncatingIfNeeded: start)
      piece.byteCount = UInt32(truncatingIfNeeded: end - start)
      pieces.append(piece)
    }
    return pieces
  }
}
