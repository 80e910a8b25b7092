// SPDX-License-Identifier: Apache-2.0

public import Processor

extension VCPU {
  /// Sets what is different between two states, after somebody else has executed code for this
  /// vCPU.
  ///
  /// Time goes on in the kernel meanwhile: the local APIC is left alone, and so is every
  /// register of the model that both states agree on or that `state` does not have.
  /// Returns the registers that KVM refused.
  @discardableResult
  public func change(from old: VCPUState, to state: VCPUState) throws(KVMError) -> [UInt32] {
    if state.mode != old.mode { try setRunState(state.mode) }
    if state.system != old.system { try setSystemRegisters(state.system) }
    if state.registers != old.registers { try setRegisters(state.registers) }
    if state.xcrs != old.xcrs, !state.xcrs.isEmpty, !old.xcrs.isEmpty {
      try setExtendedControlRegisters(state.xcrs)
    }
    if state.xsave != old.xsave { try setXSaveArea(state.xsave) }
    if state.debug != old.debug { try setDebugRegisters(state.debug) }
    var refused: [UInt32] = []
    for msr in state.msrs {
      guard let before = old.msrs.first(where: { $0.index == msr.index }), before != msr,
        try !setMSR(msr.index, msr.value)
      else { continue }
      refused.append(msr.index)
    }
    // The requests above clear what is on its way.
    try setEvents(state.events)
    return refused
  }
}
