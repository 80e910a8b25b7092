// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Foundation
import KVM
import LinuxSystem
import Processor
import Synchronization
import TestSupport
import Testing

@testable import MachineCore

@Suite(.serialized, .timeLimit(.minutes(2)))
struct AcceleratorTests {
  @Test(.enabled(if: hostHasKVM, "needs a /dev/kvm that can be read and written"))
  func `The probe ends in time, and its verdict is that of the instruction itself`() throws {
    let device = try Descriptor.open("/dev/kvm", O_RDWR)
    let start = HostClock.monotonic()
    let verdict = KVMProbe.run(device)
    #expect(HostClock.monotonic() - start < 4_000_000_000)
    // A guest that begins with a breakpoint shows which kind of KVM this is.
    let bench = try Bench("rescue")
    try bench.boot()
    try bench.wait { try bench.word(0xFF8) == 0x600D_600D }
    guard case .kvm(let kvm, _) = bench.machine.accelerator else {
      Issue.record("not on KVM")
      return
    }
    if kvm.handovers.value > 0 {
      #expect(verdict != nil)
    } else {
      #expect(verdict == nil)
    }
  }

  @Test func `What is chosen says why`() throws {
    func choose(_ accelerator: CoreSettings.Accelerator) throws -> AcceleratorChoice {
      let settings = CoreSettings(
        common: CommonSettings(machine: "test", isStrict: false), accelerator: accelerator,
        cpuModel: "host", hasKVM: false, translates: false, memoryByteCount: 1 << 20, cpus: 1,
        exitPort: 0x10000,
        hasControl: false, devices: [])
      return try AcceleratorChoice.make(settings, kvm: nil)
    }
    #expect(try choose(.soft).text.hasPrefix("soft: chosen by the machine file"))
    #expect(try choose(.auto).text.hasPrefix("soft: there is no usable /dev/kvm"))
    #expect(try choose(.auto).isSoft)
    #expect(throws: ProtocolError.self) { try choose(.kvm) }
  }

  @Test(arguments: Bench.accelerators)
  func `Instructions that some KVMs fail on end in the same state everywhere`(
    accelerator: CoreSettings.Accelerator
  ) throws {
    let bench = try Bench("rescue", accelerator: accelerator)
    try bench.boot()
    try bench.wait { try bench.word(0xFF8) == 0x600D_600D }
    let results = try (0...10).map { try bench.result($0) }
    #expect(
      results == [3, 0x11, 0x22, 14, 1, 0x44, 0x33, 0x44, 12, 0x11, 2], "\(results)")
    if case .kvm(let kvm, _) = bench.machine.accelerator, kvm.handovers.value > 0 {
      #expect(bench.machine.accelerator.text.contains("instructions by the software CPU"))
    }
  }

  @Test func `A halted software vCPU parks at once`() throws {
    let bench = try Bench("idle", accelerator: .soft)
    try bench.boot()
    HostClock.sleep(50_000_000)
    let start = HostClock.monotonic()
    let isParked = bench.machine.park(timeout: 2_000_000_000, strictly: true)
    #expect(isParked)
    #expect(HostClock.monotonic() - start < 1_000_000_000)
    guard case .soft(let soft, _) = bench.machine.accelerator else { return }
    #expect(soft.vcpus[0].parkedState.withLock { $0?.mode } == .halted)
  }
}
