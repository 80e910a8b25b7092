// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import KVM
internal import LinuxSystem
internal import Processor

/// The machine on KVM: the kernel has the vCPUs, the interrupt controllers and the timer.
final class KVMAccelerator: Sendable {
  let vm: VirtualMachine
  let vcpus: [VCPU]
  private let initialStates: [VCPUState]
  private let initialChips: ChipState
  let handovers = Handovers()
  let collected: CollectedWrites?

  init(_ device: Descriptor, cpus count: UInt32) throws {
    VCPU.prepareProcess()
    let system = try KVMSystem(descriptor: device)
    vm = try system.createVM()
    try vm.disableHypercallPatching()
    try vm.setTSSAddress(0xFEFF_D000)
    try vm.setIdentityMapAddress(0xFEFF_C000)
    try vm.createInterruptChips()
    try vm.createTimer()
    try vm.setRoutes(InterruptRoute.pc)
    let cpuid = try system.supportedCPUID()
    var vcpus: [VCPU] = []
    for id in 0..<count {
      vcpus.append(try vm.createVCPU(id, cpuid: cpuid.guest(id: id, count: count)))
    }
    self.vcpus = vcpus
    collected = try CollectedWrites(vm, vcpus.first?.coalescedRing)
    initialStates = try vcpus.map { try $0.state() }
    initialChips = try vm.chipState()
  }

  func startThreads(_ machine: Machine) throws(SystemError) {
    // The first KVM_RUN of a machine makes the kernel add a thread of its own to the process,
    // which the sandbox's limit would forbid later; this one does not enter the guest.
    _ = try? vcpus.first?.completeAccess()
    for (index, vcpu) in vcpus.enumerated() {
      try Thread.start("CPU \(index)/KVM") { VCPULoop(machine, self, vcpu, index).run() }
    }
  }

  /// Puts the chips and the vCPUs, which are parked, back to their first state.
  func reset() throws(KVMError) {
    try vm.setChipState(initialChips)
    for (vcpu, state) in zip(vcpus, initialStates) { _ = try vcpu.setState(state) }
  }

  /// Gives out an interrupt line: an event raises it, or pulses it without `ended`.
  func addLine(_ gsi: UInt32, _ event: Descriptor, ended: Descriptor?) throws(KVMError) {
    try vm.addInterruptEvent(gsi, event, resample: ended)
  }
}
