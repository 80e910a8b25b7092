// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

/// The state of the interrupt chips and the timer in the kernel, as KVM lays it out.
public struct ChipState: Equatable, Sendable {
  /// The first and second 8259 and the I/O APIC, 520 bytes each (struct kvm_irqchip).
  public var interruptChips: [[UInt8]]
  /// The 8254, 112 bytes (struct kvm_pit_state2).
  public var timer: [UInt8]

  public init(interruptChips: [[UInt8]], timer: [UInt8]) {
    self.interruptChips = interruptChips
    self.timer = timer
  }
}

extension VirtualMachine {
  /// Reads the state of the interrupt chips and the timer.
  public func chipState() throws(KVMError) -> ChipState {
    var state = ChipState(interruptChips: [], timer: [UInt8](repeating: 0, count: 112))
    for chip in UInt32(0)..<3 {
      var block = Block(byteCount: 520)
      block.store(chip, at: 0)
      try asking { () throws(SystemError) in
        _ = try descriptor.control("KVM_GET_IRQCHIP", KVMRequest.getIRQChip, bytes: &block.bytes)
      }
      state.interruptChips.append(block.bytes)
    }
    try asking { () throws(SystemError) in
      _ = try descriptor.control("KVM_GET_PIT2", KVMRequest.getPIT, bytes: &state.timer)
    }
    return state
  }

  /// Sets the state of the interrupt chips and the timer.
  ///
  /// - Precondition: the byte counts are those that ``chipState()`` returns.
  public func setChipState(_ state: ChipState) throws(KVMError) {
    precondition(
      state.interruptChips.count == 3 && state.interruptChips.allSatisfy { $0.count == 520 }
        && state.timer.count == 112, "not a chip state")
    for chip in state.interruptChips {
      var bytes = chip
      try asking { () throws(SystemError) in
        _ = try descriptor.control("KVM_SET_IRQCHIP", KVMRequest.setIRQChip, bytes: &bytes)
      }
    }
    var timer = state.timer
    try asking { () throws(SystemError) in
      _ = try descriptor.control("KVM_SET_PIT2", KVMRequest.setPIT, bytes: &timer)
    }
  }
}
