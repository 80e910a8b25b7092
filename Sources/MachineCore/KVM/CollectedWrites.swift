// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import KVM
internal import LinuxSystem
internal import Synchronization

/// The posted writes that KVM collects in its ring instead of leaving the guest for each.
///
/// They are handed on, in their order, before anything else that leaves the guest is done, by
/// the main thread now and then, and before the machine stands still. So every device sees the
/// guest's accesses in the order in which they were made.
final class CollectedWrites: Sendable {
  typealias Zone = VirtualMachine.CoalescedZone

  private struct State {
    var ring: CoalescedRing
    /// A vCPU waits for a device that has to take the oldest write; nobody else takes one.
    var isHeldUp = false
  }

  private enum Step {
    case done
    case heldUp
    case wait(CoalescedWrite)
  }

  private let vm: VirtualMachine
  private let collectsPorts: Bool
  private let state: Mutex<State>
  /// Another view of the ring, for looking whether something is in it.
  private let view: CoalescedRing
  /// Changes when nobody is held up any more.
  private let gate: Gate
  private let zones = Mutex<Set<Zone>>([])
  /// How many writes were handed on.
  let count = Atomic<UInt64>(0)

  /// Makes nothing where KVM has no ring.
  init?(_ vm: VirtualMachine, _ ring: CoalescedRing?) throws(SystemError) {
    // Asked now: once it is sealed, the core may not.
    let can = vm.canCoalesce
    guard let ring, can.memory else { return nil }
    self.vm = vm
    collectsPorts = can.ports
    view = ring
    state = Mutex(State(ring: ring))
    gate = try Gate()
  }

  @inline(__always)
  var isEmpty: Bool { view.isEmpty }

  /// Whether there are registers whose writes are collected.
  var isUsed: Bool { zones.withLock { !$0.isEmpty } }

  /// The zones that KVM has.
  var current: Set<Zone> { zones.withLock { $0 } }

  // MARK: - Handing on

  /// Hands on what takes no waiting for a device; from any thread.
  ///
  /// Returns whether that was all.
  @discardableResult
  func handOn(_ bus: BusSnapshot) -> Bool {
    guard !view.isEmpty else { return true }
    if case .done = step(bus, mayWait: false) { return true }
    return false
  }

  /// Hands on everything before an access to a device, in a vCPU's thread, which may have to
  /// wait for another.
  ///
  /// Returns `false` when another vCPU does so, and is held up: ``wait()`` and try again. Where
  /// nothing in the ring is for the device, nobody waits.
  func handOn(_ bus: GuestBus, before link: DeviceLink) -> Bool {
    while !view.isEmpty {
      guard isAwaited(by: link, bus.bus) else { return true }
      switch step(bus.bus, mayWait: true) {
      case .done: return true
      case .heldUp: return false
      case .wait(let write):
        // No room in the device's ring, or what is no posted write: as an access that has left
        // the guest.
        bus.store(write)
        state.withLock {
          $0.ring.drop()
          $0.isHeldUp = false
        }
        count.add(1, ordering: .relaxed)
        gate.add(1)
      }
    }
    return true
  }

  /// Whether something in the ring is for a device.
  private func isAwaited(by link: DeviceLink, _ bus: BusSnapshot) -> Bool {
    state.withLock { $0.ring.contains { bus.isFor(link, $0) } }
  }

  /// Posts what can be posted; with `wait` the caller has to do the oldest write and end it.
  private func step(_ bus: BusSnapshot, mayWait: Bool) -> Step {
    state.withLock { state in
      guard !state.isHeldUp else { return .heldUp }
      var done: UInt64 = 0
      defer { count.add(done, ordering: .relaxed) }
      while let write = state.ring.peek() {
        guard bus.post(write) else {
          state.isHeldUp = mayWait
          return .wait(write)
        }
        state.ring.drop()
        done += 1
      }
      return .done
    }
  }

  /// Sleeps until a vCPU that is held up may be so no more, 10 ms at most.
  func wait() {
    let value = gate.value
    guard state.withLock({ $0.isHeldUp }) else { return }
    gate.wait(while: value, timeout: 10_000_000)
  }

  /// Forgets what is in the ring; every vCPU is parked.
  func discard() {
    state.withLock { state in
      guard !state.isHeldUp else { return }
      while state.ring.peek() != nil { state.ring.drop() }
    }
  }

  // MARK: - Zones

  /// Lets KVM collect what a new state of the buses has posted, around `publish`, which gives
  /// it to the vCPUs; one thread at a time.
  ///
  /// What is in the ring for a zone that is no more is handed on to where it belonged.
  func change(from old: BusSnapshot, to new: BusSnapshot, publish: () -> Void) {
    let wanted = new.zones(ports: collectsPorts)
    let before = current
    // Where that fails writes go on being collected, and go where they belong then.
    for zone in before.subtracting(wanted) { try? vm.removeCoalescedZone(zone) }
    handOn(old)
    publish()
    var after = before.intersection(wanted)
    for zone in wanted.subtracting(before) {
      do throws(KVMError) {
        try vm.addCoalescedZone(zone)
        after.insert(zone)
      } catch {
        // Its writes leave the guest, one by one.
      }
    }
    zones.withLock { $0 = after }
  }
}

extension GuestBus {
  /// Does a collected write as one that has left the guest.
  fileprivate func store(_ write: CoalescedWrite) {
    guard write.isPort else {
      guard (1...8).contains(write.byteCount) else { return }
      store(write.address, write.data, byteCount: Int(write.byteCount))
      return
    }
    guard let port = UInt16(exactly: write.address),
      let width = AccessWidth(rawValue: write.byteCount), width != .quad
    else { return }
    self.write(write.data, port, width)
  }
}

extension BusSnapshot {
  /// The most zones; the kernel has room for a thousand things on each of its buses.
  private static let mostZones = 256

  /// The accesses that a collected write counts as: one, unless it has no access's width.
  private func accesses(_ write: CoalescedWrite) -> [(
    address: UInt64, value: UInt64, width: AccessWidth
  )] {
    if let width = AccessWidth(rawValue: write.byteCount), !(write.isPort && width == .quad) {
      return [(write.address, write.data, width)]
    }
    return (0..<UInt64(write.byteCount)).map {
      (write.address &+ $0, write.data >> (8 * $0) & 0xFF, .byte)
    }
  }

  /// Who answers for an access; `nil` for nobody.
  private func target(_ address: UInt64, _ width: AccessWidth, isPort: Bool) -> (
    region: RegionTarget, offset: UInt64
  )? {
    guard isPort else {
      return memoryRegion(address).map { ($0.target, address - $0.base) }
    }
    guard let port = UInt16(exactly: address), let region = region(port, width) else { return nil }
    return (region.target, UInt64(port - region.base))
  }

  fileprivate func isFor(_ link: DeviceLink, _ write: CoalescedWrite) -> Bool {
    accesses(write).contains {
      target($0.address, $0.width, isPort: write.isPort)?.region.link === link
    }
  }

  /// Posts a collected write; `false` when a device has to be waited for.
  ///
  /// One of several accesses may have been posted then; all of them are done again.
  fileprivate func post(_ write: CoalescedWrite) -> Bool {
    if let width = AccessWidth(rawValue: write.byteCount), !(write.isPort && width == .quad) {
      return post(write.data, at: write.address, width, isPort: write.isPort)
    }
    return accesses(write).allSatisfy {
      post($0.value, at: $0.address, $0.width, isPort: write.isPort)
    }
  }

  private func post(_ value: UInt64, at address: UInt64, _ width: AccessWidth, isPort: Bool)
    -> Bool
  {
    // When it is nobody's, another vCPU has moved the region away meanwhile.
    guard let (region, offset) = target(address, width, isPort: isPort) else { return true }
    guard region.isPosted(offset, width), region.isCollectable(offset, UInt64(width.rawValue))
    else { return false }
    region.link.note(value, region, offset, width)
    return region.link.post(
      LaneAccess(
        .write, width: width.rawValue, region: region.region, offset: offset,
        value: value & width.mask))
  }

  /// The ranges whose writes are posted, and may be late: what KVM may collect.
  func zones(ports collectsPorts: Bool) -> Set<VirtualMachine.CoalescedZone> {
    var zones: [VirtualMachine.CoalescedZone] = []
    func add(_ address: UInt64, _ claim: RegisterClaim, _ target: RegionTarget, isPort: Bool) {
      let zone = VirtualMachine.CoalescedZone(
        address: address, byteCount: UInt32(claim.byteCount), isPort: isPort)
      guard claim.write == .posted, claim.byteCount > 0,
        target.isCollectable(UInt64(claim.offset), UInt64(claim.byteCount)),
        zones.count < Self.mostZones, !zones.contains(where: { $0.overlaps(zone) })
      else { return }
      zones.append(zone)
    }
    if collectsPorts {
      for (index, region) in portRegions.enumerated() {
        for claim in region.target.registers {
          let first = Int(region.base) + Int(claim.offset)
          let end = first + Int(claim.byteCount)
          guard end <= Int(region.base) + Int(region.count), end <= 0x10000,
            // What is another's, too, goes its way byte by byte.
            (first..<end).allSatisfy({
              self.ports[$0] == UInt8(index + 1) && !(0xCF8...0xCFF).contains($0)
            })
          else { continue }
          add(UInt64(first), claim, region.target, isPort: true)
        }
      }
    }
    for (index, region) in memoryRegions.enumerated() {
      for claim in region.target.registers {
        let (address, overflow) = region.base.addingReportingOverflow(UInt64(claim.offset))
        let end = UInt64(claim.offset) + UInt64(claim.byteCount)
        guard !overflow, end <= region.byteCount,
          !memoryRegions[..<index].contains(where: {
            $0.base < region.base + end && address < $0.base + $0.byteCount
          })
        else { continue }
        add(address, claim, region.target, isPort: false)
      }
    }
    return Set(zones)
  }
}
