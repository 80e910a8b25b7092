// SPDX-License-Identifier: Apache-2.0

import Processor
import Testing

@testable import SoftCPU

/// Far transfers, segment loads and task switches (SDM volume 3, chapters 5 and 7).
@Suite("Far transfers")
struct TransferTests {
  private typealias Bench = SystemBench
  private typealias Selector = SystemBench.Selector
  private static let code = SystemBench.code

  private let bench: SystemBench

  init() throws { bench = try SystemBench() }

  private static func handler(_ vector: UInt64) -> UInt64 { SystemBench.handlers + 16 * vector }

  /// JMP (EAh) or CALL (9Ah) to a far pointer in 32-bit code.
  private static func far(_ opcode: UInt8, _ selector: UInt16, _ offset: UInt32) -> [UInt8] {
    [opcode] + (0..<4).map { UInt8(truncatingIfNeeded: offset >> (8 * $0)) }
      + [UInt8(truncatingIfNeeded: selector), UInt8(selector >> 8)]
  }

  /// What a load of a data segment gives.
  private static func load(_ cpu: inout SoftCPU, _ number: Int, _ selector: UInt16) -> String {
    do throws(Fault) {
      try cpu.loadSegment(number, selector)
      return "loaded"
    } catch {
      return "#\(error.vector)(\(error.errorCode))"
    }
  }

  // MARK: - Segments

  @Test(
    "segment loads are checked",
    arguments: [
      (3, 0x10, 0, "loaded"), (3, 0x13, 0, "#13(16)"), (3, 0x10, 3, "#13(16)"),
      (3, 0x2B, 3, "loaded"), (3, 0x28, 0, "loaded"), (3, 0, 3, "loaded"), (3, 0x3, 0, "loaded"),
      (3, 0x08, 0, "loaded"), (3, 0x38, 0, "#13(56)"), (3, 0x68, 0, "#11(104)"),
      (3, 0x50, 3, "loaded"), (3, 0x107, 0, "#13(260)"), (3, 0x100, 0, "#13(256)"),
      (2, 0x10, 0, "loaded"), (2, 0, 0, "#13(0)"), (2, 0x2B, 0, "#13(40)"),
      (2, 0x28, 0, "#13(40)"), (2, 0x90, 0, "#13(144)"), (2, 0x08, 0, "#13(8)"),
      (2, 0x2B, 3, "loaded"), (2, 0x98, 0, "#12(152)"),
    ] as [(Int, UInt16, UInt8, String)])
  func segmentLoads(number: Int, selector: UInt16, cpl: UInt8, expected: String) {
    var cpu = bench.makeProtected()
    bench.put(
      Bench.descriptor(base: 0, limit: 0xFFFFF, access: 0x13, flags: 0xC), at: Bench.gdt + 0x98)
    cpu.cpl = cpl
    let found = Self.load(&cpu, number, selector)
    #expect(found == expected)
  }

  @Test("a load sets the accessed bit of the descriptor")
  func accessedBit() {
    var cpu = bench.makeProtected()
    bench.put(
      Bench.descriptor(base: 0x1234_5000, limit: 0x12345, access: 0x92, flags: 0x4),
      at: Bench.gdt + 0x98)
    let found = Self.load(&cpu, 0, 0x98)
    #expect(found == "loaded")
    #expect(bench.get(Bench.gdt + 0x98) >> 40 & 0xFF == 0x93)
    #expect(cpu.segmentBase[0] == 0x1234_5000)
    #expect(cpu.segmentLimit[0] == 0x12345)
  }

  @Test(
    "accesses are held to the limits, which expand-down segments have below",
    arguments: [
      (0x98, 0xFFC, 4, true), (0x98, 0xFFD, 4, false), (0x98, 0, 1, true),
      (0x70, 0xFFF, 1, false), (0x70, 0x1000, 4, true), (0x70, 0xFFC, 4, false),
    ] as [(UInt16, UInt64, Int, Bool)])
  func limits(selector: UInt16, offset: UInt64, size: Int, isAllowed: Bool) {
    var cpu = bench.makeProtected()
    bench.put(
      Bench.descriptor(base: 0, limit: 0xFFF, access: 0x93, flags: 0x4), at: Bench.gdt + 0x98)
    let loaded = Self.load(&cpu, 3, selector)
    var isDone = true
    do throws(Fault) { _ = try cpu.linear(3, offset, size, isWrite: true) } catch {
      isDone = error != .protection()
    }
    #expect(loaded == "loaded")
    #expect(isDone == isAllowed)
  }

  @Test("read-only data is not written, a null segment not read, the stack's faults are #SS")
  func accessRights() throws {
    var cpu = bench.makeProtected()
    try cpu.loadSegment(3, Selector.readOnly)
    _ = try cpu.linear(3, 0, 4, isWrite: false)
    #expect(throws: Fault.protection()) { try cpu.linear(3, 0, 4, isWrite: true) }
    #expect(throws: Fault.protection()) { try cpu.linear(1, 0, 4, isWrite: true) }
    try cpu.loadSegment(3, 0)
    #expect(throws: Fault.protection()) { try cpu.linear(3, 0, 4, isWrite: false) }
    try cpu.loadSegment(2, Selector.downward)
    #expect(throws: Fault.stack()) { try cpu.linear(2, 0, 4, isWrite: false) }
  }

  @Test("limits of protected mode stay in real mode, until then unreal")
  func unreal() throws {
    var cpu = bench.makeProtected()
    cpu.gpr[0] = 0x10
    bench.run(&cpu, [0x0F, 0x22, 0xC0])  // mov cr0, eax
    cpu.loadPlainSegment(3, 0x200)
    let place = try cpu.linear(3, 0x12_3456, 4, isWrite: true)
    #expect(cpu.cr0 == 0x10)
    #expect(place == 0x12_5456)
  }

  // MARK: - Jumps and calls

  @Test(
    "far jumps are checked",
    arguments: [
      (0x08, 0, 0x9000, "8:9000"), (0x10, 0, 0x9000, "#16"), (0x50, 3, 0x9000, "53:9000"),
      (0x23, 0, 0x9000, "#32"), (0x0B, 3, 0x9000, "#8"), (0x48, 0, 0x1_0000, "#0"),
      (0, 0, 0, "#0"), (0x40, 0, 0, "#64"),
    ] as [(UInt16, UInt8, UInt32, String)])
  func jumps(selector: UInt16, cpl: UInt8, offset: UInt32, expected: String) {
    var cpu = bench.makeProtected()
    if cpl == 3 { bench.enterUser(&cpu, Selector.userCode32) }
    bench.run(&cpu, Self.far(0xEA, selector, offset))
    let found =
      cpu.rip == Self.handler(13)
      ? "#\(bench.stack(cpu, 1, size: 4)[0])"
      : "\(String(cpu.segments[1].selector, radix: 16)):\(String(cpu.rip, radix: 16))"
    #expect(found == expected)
  }

  @Test("a far call and its return within a privilege")
  func callAndReturn() {
    var cpu = bench.makeProtected()
    bench.run(&cpu, Self.far(0x9A, Selector.code32, 0x9000))
    let frame = bench.stack(cpu, 2, size: 4)
    bench.run(&cpu, [0xCA, 0x08, 0x00])  // retf 8
    #expect(frame == [Self.code + 7, 8])
    #expect(cpu.rip == Self.code + 7)
    #expect(cpu.gpr[4] == Bench.kernelStack + 8)
  }

  @Test("a call gate takes the user to the kernel with its arguments, and RET back")
  func callGate() {
    var cpu = bench.makeProtected()
    bench.put(bench.get(Bench.gdt + 0x80) | 2 << 32, at: Bench.gdt + 0x80)
    bench.enterUser(&cpu, Selector.userCode32)
    bench.put32(0x1111, at: Bench.userStack)
    bench.put32(0x2222, at: Bench.userStack + 4)
    bench.run(&cpu, Self.far(0x9A, Selector.callGate | 3, 0))
    let inside = (cpu.cpl, cpu.rip, cpu.segments[2].selector)
    let frame = bench.stack(cpu, 6, size: 4)
    bench.run(&cpu, [0xCA, 0x08, 0x00])  // retf 8
    #expect(inside == (0, 0x9000, 0x10))
    #expect(frame == [Self.code + 7, 0x23, 0x1111, 0x2222, Bench.userStack, 0x2B])
    #expect(cpu.cpl == 3)
    #expect(cpu.rip == Self.code + 7)
    #expect(cpu.gpr[4] == Bench.userStack + 8)
    #expect(cpu.segments[2].selector == 0x2B)
  }

  @Test("a 64-bit call gate goes from 32-bit code of the user to the kernel")
  func longGate() {
    var cpu = bench.makeLong()
    bench.enterUser(&cpu, Selector.userCode32)
    bench.run(&cpu, Self.far(0x9A, Selector.callGate | 3, 0))
    let frame = bench.stack(cpu, 4, size: 8)
    let inside = (cpu.mode, cpu.cpl, cpu.rip)
    bench.run(&cpu, [0x48, 0xCB])  // retfq
    #expect(inside == (.bits64, 0, 0x9000))
    #expect(frame == [Self.code + 7, 0x23, Bench.userStack, 0x2B])
    #expect(cpu.mode == .bits32)
    #expect(cpu.rip == Self.code + 7)
    #expect(cpu.gpr[4] == Bench.userStack)
  }

  @Test("data segments of an inner privilege are lost in a return to an outer one")
  func dropped() {
    var cpu = bench.makeProtected()
    let frame: [UInt32] = [0x9000, 0x23, UInt32(Bench.userStack), 0x2B]
    cpu.gpr[4] -= 16
    for (place, word) in frame.enumerated() {
      bench.put32(word, at: cpu.gpr[4] + 4 * UInt64(place))
    }
    bench.run(&cpu, [0xCB])
    #expect(cpu.cpl == 3)
    #expect([0, 3, 4, 5].allSatisfy { cpu.segments[$0].isUnusable } == true)
  }

  @Test("a far jump in real mode moves CS")
  func realJump() {
    var cpu = bench.makeCPU()
    cpu.loadPlainSegment(1, 0x800)
    cpu.rip = 0
    bench.run(&cpu, [0xEA, 0x34, 0x12, 0x00, 0x03])
    #expect(cpu.segments[1].base == 0x3000)
    #expect(cpu.rip == 0x1234)
  }

  // MARK: - Tasks

  /// Lays out the other task's segment: 32-bit code at 9000h.
  private func makeTask(flags: UInt32 = 2) {
    let tss: UInt64 = 0x5000
    bench.put32(0x9000, at: tss + 0x20)
    bench.put32(flags, at: tss + 0x24)
    for number in UInt64(0)..<8 { bench.put32(UInt32(0x100 + number), at: tss + 0x28 + 4 * number) }
    bench.put32(UInt32(Bench.interruptStack), at: tss + 0x38)
    let selectors: [UInt32] = [0x10, 0x08, 0x10, 0x10, 0x10, 0]
    for (place, selector) in selectors.enumerated() {
      bench.put32(selector, at: tss + 0x48 + 4 * UInt64(place))
    }
    // The task that runs is busy.
    bench.put(bench.get(Bench.gdt + 0x38) | 2 << 40, at: Bench.gdt + 0x38)
  }

  private func isBusy(_ selector: UInt16) -> Bool {
    bench.get(Bench.gdt + UInt64(selector)) >> 41 & 1 != 0
  }

  @Test("a jump to a task saves the old one and frees it")
  func taskJump() {
    var cpu = bench.makeProtected()
    makeTask()
    cpu.gpr[3] = 0x3333
    bench.run(&cpu, Self.far(0xEA, Selector.otherTask, 0))
    #expect(cpu.rip == 0x9000)
    #expect((cpu.gpr[0], cpu.gpr[3], cpu.gpr[4]) == (0x100, 0x103, Bench.interruptStack))
    #expect(cpu.tr.selector == Selector.otherTask)
    #expect(cpu.cr0 & 8 != 0)
    #expect(cpu.rflags == 2)
    #expect(bench.get32(Bench.tss + 0x20) == UInt32(Self.code) + 7)
    #expect(bench.get32(Bench.tss + 0x34) == 0x3333)
    #expect(bench.get32(Bench.tss + 0x4C) == 8)
    #expect(isBusy(Selector.tss) == false)
    #expect(isBusy(Selector.otherTask))
  }

  @Test("a call through a task gate nests, and IRET goes back")
  func taskCall() {
    var cpu = bench.makeProtected()
    makeTask()
    cpu.gpr[3] = 0x3333
    bench.run(&cpu, Self.far(0x9A, Selector.taskGate, 0))
    let inside = (cpu.rip, cpu.rflags, bench.get32(0x5000), isBusy(Selector.tss))
    bench.run(&cpu, [0xCF])
    #expect(inside == (0x9000, 0x4002, UInt32(Selector.tss), true))
    #expect(cpu.rip == Self.code + 7)
    #expect(cpu.gpr[3] == 0x3333)
    #expect(cpu.tr.selector == Selector.tss)
    #expect(cpu.rflags & 0x4000 == 0)
    #expect(isBusy(Selector.otherTask) == false)
    #expect(isBusy(Selector.tss))
  }

  @Test("a fault through a task gate pushes its error code in the new task")
  func taskFault() {
    var cpu = bench.makeProtected()
    makeTask()
    bench.put(Bench.gate(Selector.otherTask, 0, type: 5, dpl: 0), at: Bench.idt + 13 * 8)
    bench.enterUser(&cpu, Selector.userCode32)
    bench.run(&cpu, [0xF4])
    #expect(cpu.rip == 0x9000)
    #expect(cpu.cpl == 0)
    #expect(cpu.gpr[4] == Bench.interruptStack - 4)
    #expect(bench.stack(cpu, 1, size: 4) == [0])
    #expect(bench.get32(Bench.tss + 0x20) == UInt32(Self.code))
  }

  @Test("a busy task is not entered, a short one is an invalid TSS")
  func taskChecks() {
    var cpu = bench.makeProtected()
    makeTask()
    bench.run(&cpu, Self.far(0xEA, Selector.tss, 0))
    let busy = (cpu.rip, bench.stack(cpu, 1, size: 4))
    bench.put(
      Bench.descriptor(base: 0x5000, limit: 0x66, access: 0x89, flags: 0), at: Bench.gdt + 0x58)
    cpu.rip = Self.code
    bench.run(&cpu, Self.far(0xEA, Selector.otherTask, 0))
    #expect(busy.0 == Self.handler(13))
    #expect(busy.1 == [UInt64(Selector.tss)])
    #expect(cpu.rip == Self.handler(10))
    #expect(bench.stack(cpu, 1, size: 4) == [UInt64(Selector.otherTask)])
  }

  @Test("a bad segment of the new task is the new task's fault")
  func taskSegments() {
    var cpu = bench.makeProtected()
    makeTask()
    bench.put32(0x38, at: 0x5000 + 0x54)
    bench.run(&cpu, Self.far(0xEA, Selector.otherTask, 0))
    #expect(cpu.rip == Self.handler(10))
    #expect(bench.stack(cpu, 2, size: 4) == [0x38, 0x9000])
  }

  @Test("a 16-bit task is entered with its words")
  func smallTask() {
    var cpu = bench.makeProtected()
    bench.put(
      Bench.descriptor(base: 0x5000, limit: 0x2B, access: 0x81, flags: 0), at: Bench.gdt + 0x58)
    var words = [UInt16](repeating: 0, count: 22)
    words[7] = 0x9000
    words[8] = 2
    for number in 0..<8 { words[9 + number] = UInt16(0x100 + number) }
    words[13] = UInt16(Bench.interruptStack)
    (words[17], words[18], words[19], words[20]) = (0x10, 0x08, 0x10, 0x10)
    for (place, word) in words.enumerated() {
      bench.put([UInt8(word & 0xFF), UInt8(word >> 8)], at: 0x5000 + 2 * UInt64(place))
    }
    bench.run(&cpu, Self.far(0xEA, Selector.otherTask, 0))
    #expect(cpu.rip == 0x9000)
    #expect(cpu.gpr[1] & 0xFFFF == 0x101)
    #expect(cpu.segments[3].selector == 0x10)
    #expect(bench.get32(Bench.tss + 0x20) == UInt32(Self.code) + 7)
  }
}
