// SPDX-License-Identifier: Apache-2.0

import KVM
import LinuxSystem
import Testing

@Suite(
  "Virtual machines on /dev/kvm",
  .enabled(if: hasKVM, "needs a /dev/kvm that can be read and written"),
  .serialized, .timeLimit(.minutes(1)))
struct VirtualMachineTests {
  @Test("the chips' and the timer's state and the clock are set and read back")
  func chips() throws {
    let guest = try GuestMachine("spin", chips: true)
    try guest.machine.createTimer()
    var state = try guest.machine.chipState()
    state.interruptChips[0][8 + 3] = 0xA5  // struct kvm_pic_state: imr
    try guest.machine.setChipState(state)
    #expect(try guest.machine.chipState().interruptChips[0][8 + 3] == 0xA5)
    try guest.machine.setClock(5_000_000_000)
    #expect((5_000_000_000..<15_000_000_000).contains(try guest.machine.clock()))
  }

  @Test("a doorbell signals its event file instead of an exit")
  func doorbell() throws {
    let guest = try GuestMachine("ports")
    let event = try EventFile.make()
    let bell = VirtualMachine.Doorbell(address: 0x80, isPort: true, width: 1, value: 0x42)
    try guest.machine.addDoorbell(bell, event)
    #expect(try guest.run().ports?.port == 0x1F0)
    #expect(EventFile.drain(event))
    try guest.machine.removeDoorbell(bell, event)
  }

  @Test("the hypercall patch is switched off where KVM says that it can be")
  func quirk() throws {
    let guest = try GuestMachine("spin")
    let can = guest.system.value(of: .disableQuirks2) & 1 << 5 != 0
    #expect(try guest.machine.disableHypercallPatching() == can)
  }

  @Test("a descriptor that is not /dev/kvm is refused")
  func notKVM() throws {
    let null = try Descriptor.open("/dev/null", 2)
    #expect(throws: KVMError.self) { try KVMSystem(descriptor: null) }
  }
}
