// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem
public import Processor

/// The host's KVM, as opened by the launcher.
///
/// Every process that may use it has been handed the descriptor of /dev/kvm; nothing here
/// opens a path.
public struct KVMSystem: Sendable {
  let descriptor: Descriptor

  /// The size in bytes of the pages that a vCPU shares with this process.
  public let sharedByteCount: Int

  /// Takes /dev/kvm after checking that it speaks interface version 12.
  ///
  /// - Throws: ``KVMError/wrongVersion(_:)``, or the name of the first capability that is
  ///   missing among those that nothing works without.
  public init(descriptor: Descriptor) throws(KVMError) {
    self.descriptor = descriptor
    let version = try asking { () throws(SystemError) in
      try descriptor.control("KVM_GET_API_VERSION", KVMRequest.getAPIVersion)
    }
    guard version == 12 else { throw .wrongVersion(Int(version)) }
    sharedByteCount = Int(
      try asking { () throws(SystemError) in
        try descriptor.control("KVM_GET_VCPU_MMAP_SIZE", KVMRequest.getVCPUMmapSize)
      })
    let needed: [Capability] = [
      .interruptChips, .userMemory, .interruptRouting, .interruptEventFile, .timer2,
      .readOnlyMemory, .immediateExit,
    ]
    for capability in needed where value(of: capability) == 0 { throw .missing(capability) }
  }

  /// What KVM_CHECK_EXTENSION says: zero when the capability is absent, else a value whose
  /// meaning depends on it.
  public func value(of capability: Capability) -> Int {
    let answer = try? descriptor.control(
      "KVM_CHECK_EXTENSION", KVMRequest.checkExtension, UInt(capability.rawValue))
    return Int(answer ?? 0)
  }

  /// Whether a capability is there.
  public func has(_ capability: Capability) -> Bool { value(of: capability) != 0 }

  /// How many vCPUs a machine should have at most for good performance.
  public var recommendedVCPUs: Int { max(1, value(of: .recommendedVCPUs)) }

  /// How many vCPUs a machine can have at most.
  public var maximumVCPUs: Int { max(recommendedVCPUs, value(of: .maximumVCPUs)) }

  /// Makes an empty virtual machine: no memory, no interrupt chips, no vCPUs.
  public func createVM() throws(KVMError) -> VirtualMachine {
    let raw = try asking { () throws(SystemError) in
      try descriptor.control("KVM_CREATE_VM", KVMRequest.createVM)
    }
    return VirtualMachine(system: self, descriptor: Descriptor(owning: raw))
  }

  /// What a guest's CPUID may say here (KVM_GET_SUPPORTED_CPUID).
  public func supportedCPUID() throws(KVMError) -> CPUIDTable {
    var room = 128
    while true {
      var block = Block(byteCount: 8 + CPUIDTable.entryByteCount * room)
      block.store(UInt32(room), at: 0)
      do {
        try descriptor.control(
          "KVM_GET_SUPPORTED_CPUID", KVMRequest.getSupportedCPUID, bytes: &block.bytes)
        return CPUIDTable(block)
      } catch {
        // E2BIG: the table is longer than the room for it.
        guard error.number == 7, room < 4096 else { throw .refused(error) }
        room *= 2
      }
    }
  }

  /// The model-specific registers that KVM saves and restores (KVM_GET_MSR_INDEX_LIST).
  ///
  /// Some of them may still be refused for a certain CPUID table.
  public func stateMSRs() throws(KVMError) -> [UInt32] {
    var block = Block(byteCount: 4 + 4 * 2048)
    block.store(UInt32(2048), at: 0)
    try asking { () throws(SystemError) in
      _ = try descriptor.control(
        "KVM_GET_MSR_INDEX_LIST", KVMRequest.getMSRIndexList, bytes: &block.bytes)
    }
    let count = Int(min(block.load(UInt32.self, at: 0), 2048))
    return (0..<count).map { block.load(UInt32.self, at: 4 + 4 * $0) }
  }
}
