// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import PCI
internal import Synchronization

/// The ports and the memory beyond RAM, as one vCPU reaches them; whatever executes its code.
///
/// Only the vCPU's own thread uses it.
final class GuestBus {
  let machine: Machine
  var cpu: CPUContext
  var bus: BusSnapshot
  /// Whether writes that KVM collected still wait, because a device has no room for them.
  private var isBehind = false

  init(_ machine: Machine, _ index: Int) {
    self.machine = machine
    cpu = CPUContext(machine: machine, slot: index, links: machine.links.count)
    bus = machine.snapshot()
  }

  /// Takes the buses as they are now.
  @inline(__always)
  func refresh() { machine.snapshot(&bus) }

  /// Hands on what KVM has collected, before anything else is done for the guest.
  @inline(__always)
  func takeCollected() {
    guard let collected = machine.accelerator.collected, !collected.isEmpty else { return }
    isBehind = !collected.handOn(bus)
  }

  /// Waits until the collected writes that came before this access are with the device.
  @inline(__always)
  func catchUp(_ link: DeviceLink) {
    guard isBehind, link.grants.mayCollect else { return }
    waitToCatchUp(link)
  }

  private func waitToCatchUp(_ link: DeviceLink) {
    guard let collected = machine.accelerator.collected else { return }
    // Not again for the writes that this thread hands on itself.
    isBehind = false
    while !collected.handOn(self, before: link) {
      guard !machine.isEnding, !machine.isAbandoning else { return }
      cpu.whileWaiting { collected.wait() }
    }
    isBehind = !collected.isEmpty
  }

  // MARK: - Ports

  /// Reads several items of a port by one request, such as `rep insw`.
  ///
  /// Returns where they lie, little-endian; `nil` when they have to be read one by one.
  func readBlock(_ port: UInt16, _ width: AccessWidth, count: Int) -> (memory: Mapping, at: Int)? {
    let byteCount = count * width.byteCount
    guard byteCount <= LaneLayout.blockBytes, let region = bus.region(port, width) else {
      return nil
    }
    let link = region.target.link
    catchUp(link)
    let request = LaneAccess(
      .readBlock, width: width.rawValue, region: region.target.region,
      offset: UInt64(port - region.base), items: UInt32(count))
    let at = link.lane.blockOffset(cpu.slot)
    guard let reply = link.live(request, &cpu) else { return nil }
    // Items that the device left out read as ones.
    let done = min(Int(reply.items), count) * width.byteCount
    link.lane.blockMemory.fill(0xFF, at: at + done, count: byteCount - done)
    return (link.lane.blockMemory, at)
  }

  /// Writes several items to a port by one request; `fill` puts them where they go.
  ///
  /// Returns `false` when they have to be written one by one.
  func writeBlock(
    _ port: UInt16, _ width: AccessWidth, count: Int, fill: (Mapping, Int) -> Void
  ) -> Bool {
    guard count * width.byteCount <= LaneLayout.blockBytes, let region = bus.region(port, width),
      region.target.descriptors.isEmpty
    else { return false }
    let link = region.target.link
    catchUp(link)
    fill(link.lane.blockMemory, link.lane.blockOffset(cpu.slot))
    let request = LaneAccess(
      .writeBlock, width: width.rawValue, region: region.target.region,
      offset: UInt64(port - region.base), items: UInt32(count))
    return link.live(request, &cpu) != nil
  }

  func read(_ port: UInt16, _ width: AccessWidth) -> UInt64 {
    if (0xCF8...0xCFF).contains(port), let value = readConfiguration(port - 0xCF8, width) {
      return value
    }
    if let region = bus.region(port, width) {
      catchUp(region.target.link)
      return region.target.link.read(
        region.target, UInt64(port - region.base), width, &cpu)
    }
    guard width != .byte else { return 0xFF }
    // Nobody answers for all of it: each byte goes its own way, as on the bus.
    var value: UInt64 = 0
    for lane in 0..<UInt16(width.rawValue) {
      value |= read(port &+ lane, .byte) << UInt64(8 * lane)
    }
    return value
  }

  func write(_ value: UInt64, _ port: UInt16, _ width: AccessWidth) {
    if (0xCF8...0xCFF).contains(port), writeConfiguration(value, port - 0xCF8, width) { return }
    if let region = bus.region(port, width) {
      write(value, region.target, UInt64(port - region.base), width)
      return
    }
    guard width != .byte else { return }
    for lane in 0..<UInt16(width.rawValue) {
      write(value >> UInt64(8 * lane) & 0xFF, port &+ lane, .byte)
    }
  }

  func write(
    _ value: UInt64, _ target: RegionTarget, _ offset: UInt64, _ width: AccessWidth
  ) {
    catchUp(target.link)
    guard !target.descriptors.isEmpty else {
      target.link.write(value, target, offset, width, &cpu)
      return
    }
    let content = target.link.snoop(value, target, offset, width, machine)
    target.link.write(value, target, offset, width, &cpu, content: content)
  }

  // MARK: - Memory

  /// Calls `body` for each aligned piece of an access, with its place in the data.
  private func pieces(_ address: UInt64, _ byteCount: Int) -> [(UInt64, Int, AccessWidth)] {
    if let width = AccessWidth(rawValue: UInt8(byteCount)) { return [(address, 0, width)] }
    return (0..<byteCount).map { (address &+ UInt64($0), $0, .byte) }
  }

  /// Reads memory that no slot has.
  func load(_ address: UInt64, byteCount: Int) -> UInt64 {
    var data: UInt64 = 0
    for (address, lane, width) in pieces(address, byteCount) {
      var value = width.floating
      if let region = bus.memoryRegion(address) {
        catchUp(region.target.link)
        value = region.target.link.read(
          region.target, address - region.base, width, &cpu)
      } else if let bytes = try? machine.memory.bytes(at: address, count: width.byteCount),
        machine.isReachable(address, UInt64(width.rawValue), .fromGuest)
      {
        // Another vCPU was changing the slots at this moment.
        value = bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
      }
      data |= value << UInt64(8 * lane)
    }
    return data
  }

  /// Writes memory that no slot has, or only for reading.
  func store(_ address: UInt64, _ data: UInt64, byteCount: Int) {
    for (address, lane, width) in pieces(address, byteCount) {
      let value = data >> UInt64(8 * lane) & width.mask
      if let region = bus.memoryRegion(address) {
        write(value, region.target, address - region.base, width)
        continue
      }
      let isRAM = machine.isReachable(address, UInt64(width.rawValue), .toGuest)
      guard isRAM else { continue }
      let bytes = (0..<width.byteCount).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
      try? machine.memory.write(bytes, at: address)
      machine.wasWritten(address, count: width.byteCount)
    }
  }
}
