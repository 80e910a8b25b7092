// SPDX-License-Identifier: Apache-2.0

public import KVM
public import LinuxSystem
public import SoftCPU

/// The memory slots of a virtual machine, and what software vCPUs reach, kept as a
/// ``MemoryMap`` says.
///
/// One thread at a time uses it. With KVM, between a deletion and the creation after it, an
/// access there leaves the guest.
public final class SlotTable {
  private let machine: VirtualMachine?
  private let physical: PhysicalMemory?
  private var backings: [MemoryMap.Backing: PhysicalMemory.Backing] = [:]
  private var ranges: [MemoryMap.Slot] = []
  private let memory: GuestMemory
  private let firmware: Mapping?
  private var devices: [UInt32: Mapping] = [:]
  private var plan = SlotPlan()

  /// Keeps `machine`'s slots where KVM runs the guest, and `physical`'s ranges, with the guest's
  /// RAM in it, for software vCPUs.
  public init(
    machine: VirtualMachine?, memory: GuestMemory, firmware: Mapping?,
    physical: (memory: PhysicalMemory, ram: PhysicalMemory.Backing)? = nil
  ) {
    self.machine = machine
    self.memory = memory
    self.firmware = firmware
    self.physical = physical?.memory
    backings[.ram] = physical?.ram
    if let firmware { backings[.firmware] = physical?.memory.add(firmware) }
  }

  /// Names the memory behind `Backing.device(id)`; it stays mapped as long as the table lives.
  ///
  /// A region of the map without memory, or past its end, gets no slot: its accesses leave
  /// the guest.
  public func addDeviceMemory(_ id: UInt32, _ mapping: Mapping) {
    devices[id] = mapping
    backings[.device(id)] = physical?.add(mapping)
  }

  /// Changes what is different between the last map and this one.
  ///
  /// Returns whether software vCPUs have to forget the old one.
  @discardableResult
  public func apply(_ map: MemoryMap) throws(KVMError) -> Bool {
    var map = map
    map.devices.removeAll { region in
      guard let size = devices[region.device].map({ UInt64($0.byteCount) }) else { return true }
      return region.offset > size || region.byteCount > size - region.offset
    }
    if let machine { try apply(map, to: machine) }
    return setRanges(map.slots)
  }

  private func setRanges(_ slots: [MemoryMap.Slot]) -> Bool {
    guard let physical, slots != ranges else { return false }
    ranges = slots
    physical.setRanges(
      slots.compactMap { slot in
        backings[slot.backing].map {
          PhysicalMemory.Range(
            start: slot.start, byteCount: slot.byteCount, backing: $0, offset: slot.offset,
            isReadOnly: slot.isReadOnly)
        }
      })
    return true
  }

  private func apply(_ map: MemoryMap, to machine: VirtualMachine) throws(KVMError) {
    for step in plan.steps(to: map) {
      switch step {
      case .delete(let number): try machine.deleteMemorySlot(number)
      case .set(let number, let slot):
        guard let mapping = mapping(slot.backing) else { continue }
        var flags: VirtualMachine.SlotFlags = []
        if slot.isReadOnly { flags.insert(.readOnly) }
        if slot.logsDirty { flags.insert(.logDirty) }
        try machine.setMemorySlot(
          number, guestPhysical: slot.start, memory: mapping, offset: slot.offset,
          byteCount: slot.byteCount, flags: flags)
      }
    }
  }

  /// Takes the pages that the guest wrote in a device's memory or in RAM since the last call.
  ///
  /// Each answer is an offset in that memory, in bytes, of a page of 4 KiB.
  public func takeDirtyPages(_ backing: MemoryMap.Backing) throws(KVMError) -> [UInt64] {
    var pages: [UInt64] = []
    guard let machine else { return pages }
    for (number, slot) in plan.slots where slot.backing == backing && slot.logsDirty {
      let words = try machine.takeDirtyLog(
        slot: number, pageCount: Int(slot.byteCount >> 12))
      for (index, word) in words.enumerated() {
        var rest = word
        while rest != 0 {
          let page = UInt64(index * 64 + rest.trailingZeroBitCount)
          pages.append(slot.offset + page << 12)
          rest &= rest - 1
        }
      }
    }
    return pages
  }

  /// Copies bytes of what the guest can address without a device; `nil` unless all of them are.
  func bytes(_ map: MemoryMap, at address: UInt64, count: Int) -> [UInt8]? {
    var result: [UInt8] = []
    var address = address
    let slots = map.slots
    while result.count < count {
      guard let slot = slots.first(where: { $0.start <= address && address < $0.end }),
        let mapping = mapping(slot.backing)
      else { return nil }
      let piece = min(UInt64(count - result.count), slot.end - address)
      let offset = slot.offset + (address - slot.start)
      // A region past the end of its memory has no slot.
      guard offset + piece <= UInt64(mapping.byteCount) else { return nil }
      result += mapping.bytes(at: Int(offset), count: Int(piece))
      address += piece
    }
    return result
  }

  private func mapping(_ backing: MemoryMap.Backing) -> Mapping? {
    switch backing {
    case .ram: memory.mapping
    case .firmware: firmware
    case .device(let id): devices[id]
    }
  }
}
