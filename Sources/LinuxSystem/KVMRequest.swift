// SPDX-License-Identifier: Apache-2.0

internal import CLinux

/// The request numbers of /dev/kvm, by the names of the kernel's documentation.
///
/// Each is the number of the KVM_ request of that name (`getRegisters` is KVM_GET_REGS).
public enum KVMRequest {
  public static var getAPIVersion: UInt { UInt(BH_KVM_GET_API_VERSION) }
  public static var createVM: UInt { UInt(BH_KVM_CREATE_VM) }
  public static var checkExtension: UInt { UInt(BH_KVM_CHECK_EXTENSION) }
  public static var getVCPUMmapSize: UInt { UInt(BH_KVM_GET_VCPU_MMAP_SIZE) }
  public static var getSupportedCPUID: UInt { UInt(BH_KVM_GET_SUPPORTED_CPUID) }
  public static var getMSRIndexList: UInt { UInt(BH_KVM_GET_MSR_INDEX_LIST) }
  public static var createVCPU: UInt { UInt(BH_KVM_CREATE_VCPU) }
  public static var setUserMemoryRegion: UInt { UInt(BH_KVM_SET_USER_MEMORY_REGION) }
  public static var getDirtyLog: UInt { UInt(BH_KVM_GET_DIRTY_LOG) }
  public static var setTSSAddress: UInt { UInt(BH_KVM_SET_TSS_ADDR) }
  public static var setIdentityMapAddress: UInt { UInt(BH_KVM_SET_IDENTITY_MAP_ADDR) }
  public static var createIRQChip: UInt { UInt(BH_KVM_CREATE_IRQCHIP) }
  public static var getIRQChip: UInt { UInt(BH_KVM_GET_IRQCHIP) }
  public static var setIRQChip: UInt { UInt(BH_KVM_SET_IRQCHIP) }
  public static var createPIT: UInt { UInt(BH_KVM_CREATE_PIT2) }
  public static var getPIT: UInt { UInt(BH_KVM_GET_PIT2) }
  public static var setPIT: UInt { UInt(BH_KVM_SET_PIT2) }
  public static var irqLine: UInt { UInt(BH_KVM_IRQ_LINE) }
  public static var irqfd: UInt { UInt(BH_KVM_IRQFD) }
  public static var setGSIRouting: UInt { UInt(BH_KVM_SET_GSI_ROUTING) }
  public static var ioeventfd: UInt { UInt(BH_KVM_IOEVENTFD) }
  public static var registerCoalescedMMIO: UInt { UInt(BH_KVM_REGISTER_COALESCED_MMIO) }
  public static var unregisterCoalescedMMIO: UInt { UInt(BH_KVM_UNREGISTER_COALESCED_MMIO) }
  public static var getClock: UInt { UInt(BH_KVM_GET_CLOCK) }
  public static var setClock: UInt { UInt(BH_KVM_SET_CLOCK) }
  public static var enableCapability: UInt { UInt(BH_KVM_ENABLE_CAP) }
  public static var run: UInt { UInt(BH_KVM_RUN) }
  public static var getRegisters: UInt { UInt(BH_KVM_GET_REGS) }
  public static var setRegisters: UInt { UInt(BH_KVM_SET_REGS) }
  public static var getSystemRegisters: UInt { UInt(BH_KVM_GET_SREGS) }
  public static var setSystemRegisters: UInt { UInt(BH_KVM_SET_SREGS) }
  public static var getMSRs: UInt { UInt(BH_KVM_GET_MSRS) }
  public static var setMSRs: UInt { UInt(BH_KVM_SET_MSRS) }
  public static var setCPUID: UInt { UInt(BH_KVM_SET_CPUID2) }
  public static var getLAPIC: UInt { UInt(BH_KVM_GET_LAPIC) }
  public static var setLAPIC: UInt { UInt(BH_KVM_SET_LAPIC) }
  public static var getMPState: UInt { UInt(BH_KVM_GET_MP_STATE) }
  public static var setMPState: UInt { UInt(BH_KVM_SET_MP_STATE) }
  public static var getVCPUEvents: UInt { UInt(BH_KVM_GET_VCPU_EVENTS) }
  public static var setVCPUEvents: UInt { UInt(BH_KVM_SET_VCPU_EVENTS) }
  public static var getDebugRegisters: UInt { UInt(BH_KVM_GET_DEBUGREGS) }
  public static var setDebugRegisters: UInt { UInt(BH_KVM_SET_DEBUGREGS) }
  public static var getXSave: UInt { UInt(BH_KVM_GET_XSAVE) }
  public static var setXSave: UInt { UInt(BH_KVM_SET_XSAVE) }
  public static var getXCRs: UInt { UInt(BH_KVM_GET_XCRS) }
  public static var setXCRs: UInt { UInt(BH_KVM_SET_XCRS) }
  public static var getTSCKHz: UInt { UInt(BH_KVM_GET_TSC_KHZ) }
  public static var nmi: UInt { UInt(BH_KVM_NMI) }
  public static var setGuestDebug: UInt { UInt(BH_KVM_SET_GUEST_DEBUG) }
}
