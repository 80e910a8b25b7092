// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import KVM
import LinuxSystem
import Processor
import Synchronization
import Testing

@testable import MachineCore

/// Programs that end the same way under KVM and on the software CPU.
@Suite(.serialized, .timeLimit(.minutes(2)))
struct SameStateTests {
  /// A machine whose program has come to its end.
  private func finished(
    _ guest: String, _ accelerator: CoreSettings.Accelerator
  ) throws -> Bench {
    let bench = try Bench(guest, accelerator: accelerator)
    try bench.boot()
    try bench.wait(30) { try bench.word(0xFF8) == 0x600D_600D }
    HostClock.sleep(20_000_000)
    return bench
  }

  /// The first vCPU's state where it waits.
  private func state(_ bench: Bench) throws -> VCPUState {
    let isParked = bench.machine.park(timeout: 2_000_000_000, strictly: true)
    #expect(isParked)
    switch bench.machine.accelerator {
    case .kvm(let kvm, _): return try kvm.vcpus[0].state()
    case .soft(let soft, _):
      return try #require(soft.vcpus[0].parkedState.withLock { $0 })
    }
  }

  /// What a program can know of a segment: a null one has no hidden part.
  private func visible(_ segment: Segment) -> Segment {
    guard segment.isUnusable else { return segment }
    var null = Segment()
    null.selector = segment.selector
    null.isUnusable = true
    return null
  }

  @Test(
    .enabled(if: hostHasKVM, "needs a /dev/kvm that can be read and written"),
    arguments: ["real-state", "flat-state", "long-state"])
  func `A program ends in the same registers and memory on every accelerator`(
    guest: String
  ) throws {
    let benches = (try finished(guest, .kvm), try finished(guest, .soft))
    let states = (try state(benches.0), try state(benches.1))
    var (first, second) = (states.0.registers, states.1.registers)
    #expect(first == second)
    first.rflags = 0
    second.rflags = 0
    let systems = (states.0.system, states.1.system)
    for segment in [
      \SystemRegisters.cs, \.ds, \.es, \.fs, \.gs, \.ss,
    ] {
      #expect(
        visible(systems.0[keyPath: segment]) == visible(systems.1[keyPath: segment]), "\(segment)")
    }
    #expect(systems.0.gdt == systems.1.gdt)
    #expect(systems.0.idt == systems.1.idt)
    #expect(systems.0.cr0 == systems.1.cr0)
    #expect(systems.0.cr2 == systems.1.cr2)
    #expect(systems.0.cr3 == systems.1.cr3)
    #expect(systems.0.cr4 == systems.1.cr4)
    #expect(systems.0.cr8 == systems.1.cr8)
    #expect(systems.0.efer == systems.1.efer)
    #expect(systems.0.apicBase == systems.1.apicBase)
    #expect(states.0.debug == states.1.debug)
    #expect(states.0.mode == .halted)
    #expect(states.1.mode == .halted)
    let count = 0xA0000
    let memories = (
      try benches.0.machine.memory.bytes(at: 0, count: count),
      try benches.1.machine.memory.bytes(at: 0, count: count)
    )
    let different = (0..<count).filter { memories.0[$0] != memories.1[$0] }
    #expect(different.isEmpty, "\(different.prefix(8).map { String($0, radix: 16) })")
  }

  @Test(.enabled(if: hostHasKVM, "needs a /dev/kvm that can be read and written"))
  func `The interrupt hardware's registers read the same under KVM and here`() throws {
    func results(_ accelerator: CoreSettings.Accelerator) throws -> [UInt32] {
      let bench = try finished("chips", accelerator)
      return try (0..<300).map { try bench.word(0x2000 + 4 * UInt64($0)) }
    }
    let (first, second) = (try results(.kvm), try results(.soft))
    for index in first.indices {
      #expect(
        first[index] == second[index],
        "\(index): \(String(first[index], radix: 16)) \(String(second[index], radix: 16))")
    }
    // It came to its end: the last results are there.
    #expect(first.count { $0 != 0 } > 60)
  }

  @Test func `The A20 gate folds the second mebibyte onto the first as the chips say`() throws {
    let bench = try finished("a20", .soft)
    let results = try (0...8).map { try bench.result($0) }
    #expect(
      results == [
        0x1111, 0x2222, 0x1111, 0x2222, 0x1111, 0x2222, 0x1111, 0x1111, 1,
      ], "\(results)")
  }
}

@Suite struct A20GateTests {
  @Test func `Port 92h and the keyboard controller's output port hold the gate open`() {
    var gate = A20Gate()
    #expect(gate.isOpen)
    gate.note(0x64, 0xD1)
    gate.note(0x60, 0xDD)
    #expect(!gate.isOpen)
    gate.note(0x92, 0x03)
    #expect(gate.isOpen)
    gate.note(0x92, 0x01)
    #expect(!gate.isOpen)
    gate.note(0x64, 0xAA)
    #expect(gate.isOpen)
    // Data for the keyboard is nothing to it.
    gate.note(0x60, 0x00)
    #expect(gate.isOpen)
    gate.note(0x64, 0xD1)
    gate.note(0x64, 0xAE)
    gate.note(0x60, 0x00)
    #expect(gate.isOpen)
  }
}
