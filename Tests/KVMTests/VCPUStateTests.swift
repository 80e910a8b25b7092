// SPDX-License-Identifier: Apache-2.0

import KVM
import LinuxSystem
import Processor
import Testing

@Suite(
  "vCPU state on /dev/kvm",
  .enabled(if: hasKVM, "needs a /dev/kvm that can be read and written"),
  .serialized, .timeLimit(.minutes(2)))
struct VCPUStateTests {
  @Test("the state after creation is the processor's reset state")
  func resetState() throws {
    let guest = try GuestMachine("spin", cpus: 2, chips: true)
    let state = guest.cpus[1].resetState
    #expect(state.system.cs.base == 0xFFFF_0000 && state.system.cs.selector == 0xF000)
    #expect(state.registers.rip == 0xFFF0 && state.registers.rflags == 2)
    #expect(state.mode == .uninitialized)
    #expect(guest.cpu.resetState.mode == .runnable)
    #expect(state.lapic.count == 1024 && state.xsave.count == 4096)
    #expect(!state.msrs.isEmpty)
  }

  @Test("a whole state taken in the middle of a guest goes on where it was")
  func restore() throws {
    let guest = try GuestMachine("ports")
    #expect(try guest.run().ports?.port == 0x80)
    #expect(try guest.cpu.completeAccess() == nil)
    let middle = try guest.cpu.state()
    #expect(try guest.run().ports?.port == 0x1F0)
    #expect(try guest.cpu.completeAccess() == nil)

    try guest.cpu.setState(middle)

    #expect(try guest.cpu.state().registers == middle.registers)
    #expect(try guest.cpu.state().system == middle.system)
    #expect(try guest.run().ports?.port == 0x1F0)
  }

  @Test("a reset puts a vCPU back to the reset vector, and the others to waiting")
  func reset() throws {
    let guest = try GuestMachine("spin", cpus: 2, chips: true)
    #expect(try guest.run().ports?.port == 0x80)
    try guest.cpus[1].setRunState(.runnable)

    for cpu in guest.cpus { try cpu.reset() }

    #expect(try guest.cpu.registers().rip == 0xFFF0)
    #expect(try guest.cpu.systemRegisters().cs.base == 0xFFFF_0000)
    #expect(try guest.cpus[1].runState() == .uninitialized)
  }

  @Test("the text names the registers with their values")
  func text() {
    var state = VCPUState()
    state.registers.rip = 0xFFF0
    state.system.cs.selector = 0xF000
    state.system.cr0 = 0x6000_0010
    #expect(state.registerText.contains("RIP=000000000000fff0 RFL=00000002 [---------] CPL=0"))
    #expect(state.registerText.contains("CS =f000 0000000000000000 00000000 type 0"))
    #expect(state.registerText.contains("CR0=60000010"))
  }
}
