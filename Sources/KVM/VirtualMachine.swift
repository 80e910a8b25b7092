// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem
public import Processor

/// One virtual machine: its memory slots, interrupt chips and vCPUs.
///
/// Every method may be called from any thread: the kernel orders the requests.
public final class VirtualMachine: Sendable {
  let system: KVMSystem
  let descriptor: Descriptor

  init(system: KVMSystem, descriptor: Descriptor) {
    self.system = system
    self.descriptor = descriptor
  }

  /// How KVM treats the pages of a memory slot.
  public struct SlotFlags: OptionSet, Sendable, Hashable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// Writes are remembered for ``takeDirtyLog(slot:pageCount:)``.
    public static let logDirty = SlotFlags(rawValue: 1 << 0)
    /// Writes leave the guest as MMIO exits.
    public static let readOnly = SlotFlags(rawValue: 1 << 1)
  }

  /// Creates a memory slot, or moves it, or changes its dirty logging.
  ///
  /// The slot shows `byteCount` bytes of `memory` from `offset` on. The caller keeps
  /// `memory` mapped until the slot is deleted or the machine is gone.
  ///
  /// - Precondition: addresses and sizes are multiples of 4096 and inside `memory`.
  public func setMemorySlot(
    _ slot: UInt32, guestPhysical: UInt64, memory: Mapping, offset: UInt64, byteCount: UInt64,
    flags: SlotFlags = []
  ) throws(KVMError) {
    precondition(
      byteCount > 0 && offset <= UInt64(memory.byteCount)
        && byteCount <= UInt64(memory.byteCount) - offset, "slot outside its memory")
    var region: [4 of UInt64] = [
      UInt64(slot) | UInt64(flags.rawValue) << 32, guestPhysical, byteCount,
      memory.address + offset,
    ]
    try asking { () throws(SystemError) in
      _ = try descriptor.control(
        "KVM_SET_USER_MEMORY_REGION", KVMRequest.setUserMemoryRegion, &region)
    }
  }

  /// Deletes a memory slot: accesses there are MMIO exits from now on.
  public func deleteMemorySlot(_ slot: UInt32) throws(KVMError) {
    var region: [4 of UInt64] = [UInt64(slot), 0, 0, 0]
    try asking { () throws(SystemError) in
      _ = try descriptor.control(
        "KVM_SET_USER_MEMORY_REGION", KVMRequest.setUserMemoryRegion, &region)
    }
  }

  /// Takes the dirty pages of a slot since the last call, one bit for each page of 4 KiB.
  ///
  /// Writes by this process or by a device are not in it: only the guest's.
  ///
  /// - Precondition: `pageCount` is the slot's.
  public func takeDirtyLog(slot: UInt32, pageCount: Int) throws(KVMError) -> [UInt64] {
    var bitmap = [UInt64](repeating: 0, count: (pageCount + 63) / 64)
    try asking { () throws(SystemError) in
      try descriptor.takeDirtyLog(slot: slot, into: &bitmap)
    }
    return bitmap
  }

  /// Sets where KVM keeps three pages that Intel processors need (below 4 GiB, not RAM).
  public func setTSSAddress(_ address: UInt32) throws(KVMError) {
    try asking { () throws(SystemError) in
      _ = try descriptor.control("KVM_SET_TSS_ADDR", KVMRequest.setTSSAddress, UInt(address))
    }
  }

  /// Sets where KVM keeps the page table for real mode on old Intel processors.
  public func setIdentityMapAddress(_ address: UInt64) throws(KVMError) {
    var address = address
    try asking { () throws(SystemError) in
      _ = try descriptor.control(
        "KVM_SET_IDENTITY_MAP_ADDR", KVMRequest.setIdentityMapAddress, &address)
    }
  }

  /// Stops KVM from patching the other vendor's hypercall instruction into the guest's code.
  ///
  /// A software KVM patches and retries for ever; with the quirk off the guest gets #UD.
  /// Returns whether KVM could do it.
  @discardableResult
  public func disableHypercallPatching() throws(KVMError) -> Bool {
    let fixHypercall = 1 << 5
    guard system.value(of: .disableQuirks2) & fixHypercall != 0 else { return false }
    try enable(.disableQuirks2, UInt64(fixHypercall))
    return true
  }

  func enable(_ capability: Capability, _ argument: UInt64) throws(KVMError) {
    var request = [13 of UInt64](repeating: 0)
    request[0] = UInt64(capability.rawValue)
    request[1] = argument
    try asking { () throws(SystemError) in
      _ = try descriptor.control("KVM_ENABLE_CAP", KVMRequest.enableCapability, &request)
    }
  }

  /// The guest's paravirtual clock in nanoseconds (KVM_GET_CLOCK).
  public func clock() throws(KVMError) -> UInt64 {
    var data = [6 of UInt64](repeating: 0)
    try asking { () throws(SystemError) in
      _ = try descriptor.control("KVM_GET_CLOCK", KVMRequest.getClock, &data)
    }
    return data[0]
  }

  /// Sets the guest's paravirtual clock in nanoseconds (KVM_SET_CLOCK).
  public func setClock(_ nanoseconds: UInt64) throws(KVMError) {
    var data = [6 of UInt64](repeating: 0)
    data[0] = nanoseconds
    try asking { () throws(SystemError) in
      _ = try descriptor.control("KVM_SET_CLOCK", KVMRequest.setClock, &data)
    }
  }

  /// Makes a vCPU that answers CPUID from `cpuid`.
  ///
  /// With the interrupt chips in the kernel, vCPU 0 starts at the reset vector and the others
  /// wait for an INIT and a start-up message.
  public func createVCPU(_ id: UInt32, cpuid: CPUIDTable) throws(KVMError) -> VCPU {
    let raw = try asking { () throws(SystemError) in
      try descriptor.control("KVM_CREATE_VCPU", KVMRequest.createVCPU, UInt(id))
    }
    return try VCPU(id: id, system: system, descriptor: Descriptor(owning: raw), cpuid: cpuid)
  }
}
