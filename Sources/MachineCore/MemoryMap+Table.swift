// SPDX-License-Identifier: Apache-2.0

public import KVM
public import LinuxSystem

/// The memory slots of a virtual machine, kept as a ``MemoryMap`` says.
///
/// One thread uses it, while no vCPU runs: between a deletion and the creation after it, an
/// access there would leave the guest.
public final class SlotTable {
  private let machine: VirtualMachine
  private let memory: GuestMemory
  private let firmware: Mapping?
  private var devices: [UInt32: Mapping] = [:]
  private var plan = SlotPlan()

  public init(machine: VirtualMachine, memory: GuestMemory, firmware: Mapping?) {
    self.machine = machine
    self.memory = memory
    self.firmware = firmware
  }

  /// Names the memory behind `Backing.device(id)`; it stays mapped as long as the table lives.
  ///
  /// A region of the map without memory, or past its end, gets no slot: its accesses leave
  /// the guest.
  public func addDeviceMemory(_ id: UInt32, _ mapping: Mapping) { devices[id] = mapping }

  /// Changes what is different between the last map and this one.
  public func apply(_ map: MemoryMap) throws(KVMError) {
    var map = map
    map.devices.removeAll { region in
      guard let size = devices[region.device].map({ UInt64($0.byteCount) }) else { return true }
      return region.offset > size || region.byteCount > size - region.offset
    }
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

  private func mapping(_ backing: MemoryMap.Backing) -> Mapping? {
    switch backing {
    case .ram: memory.mapping
    case .firmware: firmware
    case .device(let id): devices[id]
    }
  }
}
