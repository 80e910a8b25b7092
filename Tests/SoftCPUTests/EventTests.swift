// SPDX-License-Identifier: Apache-2.0

import Processor
import Testing

@testable import SoftCPU

/// Exceptions and interrupts in all modes (SDM volume 3, chapters 6 and 17).
@Suite("Events")
struct EventTests {
  private typealias Bench = SystemBench
  private static let code = SystemBench.code

  private let bench: SystemBench

  init() throws { bench = try SystemBench() }

  private static func handler(_ vector: UInt64) -> UInt64 { SystemBench.handlers + 16 * vector }

  private static let undefined: [UInt8] = [0x0F, 0x0B]

  /// Takes the present bit out of a gate.
  private func removeGate(_ vector: UInt64, isLong: Bool = false) {
    let place = Bench.idt + vector * (isLong ? 16 : 8)
    bench.put(bench.get(place) & ~(1 << 47), at: place)
  }

  // MARK: - Protected mode

  @Test("a fault pushes where it was, with RF, and clears IF and TF")
  func protectedFault() {
    var cpu = bench.makeProtected()
    cpu.rflags = 0x202
    bench.run(&cpu, Self.undefined)
    #expect(cpu.rip == Self.handler(6))
    #expect(bench.stack(cpu, 3, size: 4) == [Self.code, 8, 0x1_0202])
    #expect(cpu.rflags == 2)
  }

  @Test("a fault of the user gets the stack of the TSS and an error code")
  func protectedInner() {
    var cpu = bench.makeProtected()
    bench.enterUser(&cpu, Bench.Selector.userCode32)
    bench.run(&cpu, [0xF4])  // hlt
    #expect(cpu.cpl == 0)
    #expect(cpu.rip == Self.handler(13))
    #expect(
      bench.stack(cpu, 6, size: 4) == [0, Self.code, 0x23, 0x1_0002, Bench.userStack, 0x2B])
    #expect(cpu.gpr[4] == Bench.innerStack - 24)
    #expect(cpu.segments[2].selector == Bench.Selector.data)
  }

  @Test("INT3 goes through a trap gate and leaves IF; its RF is not set")
  func trapGate() {
    var cpu = bench.makeProtected()
    cpu.rflags = 0x202
    bench.run(&cpu, [0xCC])
    #expect(cpu.rip == Self.handler(3))
    #expect(bench.stack(cpu, 3, size: 4) == [Self.code + 1, 8, 0x202])
    #expect(cpu.rflags == 0x202)
  }

  @Test("the user may call only gates of its privilege")
  func gatePrivilege() {
    var cpu = bench.makeProtected()
    bench.enterUser(&cpu, Bench.Selector.userCode32)
    bench.run(&cpu, [0xCD, 0x80])
    let first = cpu.rip
    let second = bench.stack(cpu, 1, size: 4)
    bench.enterUser(&cpu, Bench.Selector.userCode32)
    bench.run(&cpu, [0xCD, 0x20])
    #expect(first == Self.handler(0x80))
    #expect(second == [Self.code + 2])
    #expect(cpu.rip == Self.handler(13))
    #expect(bench.stack(cpu, 2, size: 4) == [0x20 * 8 + 2, Self.code])
  }

  @Test("an absent gate is #NP with the vector; EXT when nothing of the program asked for it")
  func absentGate() {
    var cpu = bench.makeProtected()
    removeGate(0x20)
    bench.run(&cpu, [0xCD, 0x20])
    let software = bench.stack(cpu, 2, size: 4)
    cpu.rip = Self.code
    cpu.rflags = 0x202
    bench.interrupts = [0x20]
    bench.attention.raise(Attention.interrupt)
    let exit = cpu.serve()
    #expect(exit == nil)
    #expect(software == [0x20 * 8 + 2, Self.code])
    #expect(cpu.rip == Self.handler(11))
    #expect(bench.stack(cpu, 2, size: 4) == [0x20 * 8 + 3, Self.code])
  }

  @Test("a vector past the table's end is #GP")
  func shortTable() {
    var cpu = bench.makeProtected()
    cpu.idtr.limit = 0x7F
    bench.run(&cpu, [0xCD, 0x20])
    #expect(cpu.rip == Self.handler(13))
    #expect(bench.stack(cpu, 1, size: 4) == [0x20 * 8 + 2])
  }

  @Test("a contributory fault on the way of another is a double fault, its failure a triple one")
  func doubleFault() {
    var cpu = bench.makeProtected()
    removeGate(13)
    bench.enterUser(&cpu, Bench.Selector.userCode32)
    bench.run(&cpu, [0xF4])
    let rip = cpu.rip
    let frame = bench.stack(cpu, 2, size: 4)
    removeGate(8)
    bench.enterUser(&cpu, Bench.Selector.userCode32)
    bench.run(&cpu, [0xF4])
    #expect(rip == Self.handler(8))
    #expect(frame == [0, Self.code])
    #expect(cpu.isShutdown == true)
    let exit = cpu.run()
    #expect(exit == .shutdown)
  }

  @Test("a benign fault whose gate is absent ends in #NP, not a double fault")
  func benign() {
    var cpu = bench.makeProtected()
    removeGate(6)
    bench.run(&cpu, Self.undefined)
    #expect(cpu.rip == Self.handler(11))
    #expect(bench.stack(cpu, 2, size: 4) == [6 * 8 + 3, Self.code])
  }

  @Test("a page fault on the way of a page fault is a double fault")
  func doublePageFault() {
    var cpu = bench.makeLong()
    // The user's stack for the kernel is not there; the double fault has one by IST.
    bench.put(0x7FF000, at: Bench.tss + 4)
    bench.put(
      bench.get(Bench.idt + 8 * 16) | 1 << 32, at: Bench.idt + 8 * 16)
    bench.enterUser(&cpu, Bench.Selector.userCode64)
    bench.run(&cpu, [0x8B, 0x04, 0x25, 0x00, 0x00, 0x50, 0x00])  // mov eax, [500000h]
    #expect(cpu.rip == Self.handler(8))
    #expect(bench.stack(cpu, 2, size: 8) == [0, Self.code])
    #expect(cpu.cr2 == 0x7FF000 - 8)
  }

  @Test("a stack of the TSS that is too small for any frame ends in a shutdown")
  func smallStack() {
    var cpu = bench.makeProtected()
    bench.put(
      Bench.descriptor(base: 0, limit: 0xFFF, access: 0x93, flags: 4), at: Bench.gdt + 0x10)
    bench.put32(0x1800, at: Bench.tss + 4)
    bench.enterUser(&cpu, Bench.Selector.userCode32)
    bench.run(&cpu, Self.undefined)
    #expect(cpu.isShutdown == true)
  }

  // MARK: - Real and virtual-8086 mode

  @Test("INT in real mode goes by the vector table")
  func realMode() {
    var cpu = bench.makeCPU()
    cpu.loadPlainSegment(1, 0x800)
    cpu.loadPlainSegment(2, 0xA00)
    cpu.rip = 0x10
    cpu.gpr[4] = 0x100
    cpu.rflags = 0x302
    bench.put32(0x1234_5678, at: 0x21 * 4)
    bench.run(&cpu, [0xCD, 0x21])
    #expect(cpu.segments[1].selector == 0x1234)
    #expect(cpu.segments[1].base == 0x12340)
    #expect(cpu.rip == 0x5678)
    #expect(cpu.rflags == 2)
    #expect(bench.stack(cpu, 3, size: 2) == [0x12, 0x800, 0x302])
  }

  @Test("an access past 64 KiB in real mode is exception 13 without an error code")
  func realLimit() {
    var cpu = bench.makeCPU()
    cpu.loadPlainSegment(1, 0x800)
    cpu.loadPlainSegment(2, 0xA00)
    cpu.rip = 0
    cpu.gpr[4] = 0x100
    cpu.gpr[3] = 0xFFFF
    bench.put32(0x0000_5678, at: 13 * 4)
    bench.run(&cpu, [0x8B, 0x07])  // mov ax, [bx]
    #expect(cpu.rip == 0x5678)
    #expect(bench.stack(cpu, 2, size: 2) == [0, 0x800])
  }

  private func enterVirtual(_ cpu: inout SoftCPU, ioPrivilege: UInt64) {
    cpu.rflags = 0x2_0202 | ioPrivilege << 12
    cpu.cpl = 3
    for number in 0..<6 { cpu.segments[number] = SoftCPU.virtualSegment(UInt16(0x100 + number)) }
    cpu.segments[1] = SoftCPU.virtualSegment(0x800)
    cpu.updateMode()
    cpu.rip = 0
    cpu.gpr[4] = 0x400
  }

  @Test("an interrupt out of virtual-8086 mode saves and clears the data segments")
  func virtualInterrupt() {
    var cpu = bench.makeProtected()
    enterVirtual(&cpu, ioPrivilege: 3)
    bench.run(&cpu, [0xCD, 0x80])
    #expect(cpu.rip == Self.handler(0x80))
    #expect(
      bench.stack(cpu, 9, size: 4)
        == [2, 0x800, 0x2_3202, 0x400, 0x102, 0x100, 0x103, 0x104, 0x105])
    #expect(cpu.isVirtual8086 == false)
    #expect(cpu.cpl == 0)
    #expect([0, 3, 4, 5].allSatisfy { cpu.segments[$0].isUnusable } == true)
  }

  @Test("INT n in virtual-8086 mode asks for IOPL 3, INT3 does not")
  func virtualPrivilege() {
    var cpu = bench.makeProtected()
    enterVirtual(&cpu, ioPrivilege: 0)
    bench.run(&cpu, [0xCD, 0x80])
    let first = (cpu.rip, bench.stack(cpu, 2, size: 4))
    enterVirtual(&cpu, ioPrivilege: 0)
    bench.run(&cpu, [0xCC])
    #expect(first.0 == Self.handler(13))
    #expect(first.1 == [0, 0])
    #expect(cpu.rip == Self.handler(3))
  }

  @Test("IRET goes to virtual-8086 mode and comes with all its segments")
  func returnToVirtual() {
    var cpu = bench.makeProtected()
    let frame: [UInt32] = [0x10, 0x800, 0x2_3202, 0x400, 0x102, 0x100, 0x103, 0x104, 0x105]
    cpu.gpr[4] = Bench.kernelStack - 36
    for (place, word) in frame.enumerated() {
      bench.put32(word, at: cpu.gpr[4] + 4 * UInt64(place))
    }
    bench.run(&cpu, [0xCF])
    let selectors = (0..<6).map { cpu.segments[$0].selector }
    #expect(cpu.isVirtual8086 == true)
    #expect(cpu.cpl == 3)
    #expect(cpu.mode == .bits16)
    #expect(cpu.rip == 0x10)
    #expect(cpu.gpr[4] == 0x400)
    #expect(selectors == [0x100, 0x800, 0x102, 0x103, 0x104, 0x105])
    #expect(cpu.segmentBase[3] == 0x1030)
  }

  // MARK: - Long mode

  @Test("a fault in 64-bit mode pushes SS:RSP too, on an aligned stack")
  func longFault() {
    var cpu = bench.makeLong()
    cpu.gpr[4] = Bench.kernelStack - 4
    bench.run(&cpu, Self.undefined)
    #expect(cpu.rip == Self.handler(6))
    #expect(cpu.gpr[4] == Bench.kernelStack - 16 - 40)
    #expect(
      bench.stack(cpu, 5, size: 8)
        == [Self.code, 0x18, 0x1_0002, Bench.kernelStack - 4, 0x10])
    #expect(cpu.segments[2].selector == 0x10)
  }

  @Test("a fault of 32-bit code in long mode enters 64-bit mode with a null SS")
  func compatibilityFault() {
    var cpu = bench.makeLong()
    bench.enterUser(&cpu, Bench.Selector.userCode32)
    bench.run(&cpu, [0xF4])
    #expect(cpu.mode == .bits64)
    #expect(cpu.cpl == 0)
    #expect(
      bench.stack(cpu, 6, size: 8) == [0, Self.code, 0x23, 0x1_0002, Bench.userStack, 0x2B])
    #expect(cpu.gpr[4] == Bench.innerStack - 48)
    #expect(cpu.segments[2].selector == 0)
    #expect(cpu.segments[2].isUnusable == true)
  }

  @Test("a stack pointer that is not canonical is a stack fault")
  func canonicalStack() {
    var cpu = bench.makeLong()
    bench.put(bench.get(Bench.idt + 12 * 16) | 1 << 32, at: Bench.idt + 12 * 16)
    cpu.gpr[4] = 0x8000_0000_0000_0000
    bench.run(&cpu, Self.undefined)
    #expect(cpu.rip == Self.handler(12))
  }

  @Test("IRETQ returns to the user, whose IF and IOPL are as pushed")
  func longReturn() {
    var cpu = bench.makeLong()
    let frame: [UInt64] = [
      0x1234, UInt64(Bench.Selector.userCode64), 0x3246, Bench.userStack,
      UInt64(Bench.Selector.userData),
    ]
    cpu.gpr[4] = Bench.kernelStack - 40
    for (place, word) in frame.enumerated() { bench.put(word, at: cpu.gpr[4] + 8 * UInt64(place)) }
    bench.run(&cpu, [0x48, 0xCF])
    #expect(cpu.cpl == 3)
    #expect(cpu.rip == 0x1234)
    #expect(cpu.gpr[4] == Bench.userStack)
    #expect(cpu.rflags == 0x3246)
    #expect(cpu.segments[3].isUnusable == true)
  }

  @Test("IRETQ within the kernel takes a null SS")
  func nullStack() {
    var cpu = bench.makeLong()
    let frame: [UInt64] = [0x1234, 0x18, 2, 0x5008, 0]
    cpu.gpr[4] = Bench.kernelStack - 40
    for (place, word) in frame.enumerated() { bench.put(word, at: cpu.gpr[4] + 8 * UInt64(place)) }
    bench.run(&cpu, [0x48, 0xCF])
    #expect(cpu.rip == 0x1234)
    #expect(cpu.gpr[4] == 0x5008)
    #expect(cpu.segments[2].isUnusable == true)
  }

  @Test("IRET of the user leaves IF and IOPL")
  func userReturn() {
    var cpu = bench.makeProtected()
    bench.enterUser(&cpu, Bench.Selector.userCode32)
    cpu.rflags = 0x202
    cpu.gpr[4] -= 12
    for (place, word) in ([0x9100, 0x23, 0x3CD7] as [UInt32]).enumerated() {
      bench.put32(word, at: cpu.gpr[4] + 4 * UInt64(place))
    }
    bench.run(&cpu, [0xCF])
    #expect(cpu.rip == 0x9100)
    #expect(cpu.rflags == 0x0ED7)
  }

  @Test("IRETQ with NT is a general protection fault")
  func nestedLong() {
    var cpu = bench.makeLong()
    cpu.rflags |= 0x4000
    bench.run(&cpu, [0x48, 0xCF])
    #expect(cpu.rip == Self.handler(13))
  }

  // MARK: - From outside

  @Test("an NMI is taken on its own stack, and the next after IRET")
  func nmi() {
    var cpu = bench.makeLong()
    bench.attention.raise(Attention.nmi)
    let first = cpu.serve()
    let place = cpu.rip
    let stack = cpu.gpr[4]
    bench.attention.raise(Attention.nmi)
    _ = cpu.serve()
    let masked = cpu.rip
    bench.run(&cpu, [0x48, 0xCF])
    let after = cpu.rip
    _ = cpu.serve()
    #expect(first == nil)
    #expect(place == Self.handler(2))
    #expect(stack == Bench.interruptStack - 40)
    #expect(masked == place)
    #expect(after == Self.code)
    #expect(cpu.rip == place)
    #expect(bench.attention.pending == 0)
  }

  @Test("what cannot be taken yet does not keep the program from going on")
  func waits() {
    var cpu = bench.makeLong()
    cpu.nmiIsMasked = true
    bench.interrupts = [0x40]
    bench.attention.raise(Attention.nmi | Attention.interrupt)
    bench.put([0x90, 0x90, 0xF4], at: Self.code)
    let exit = cpu.run()
    #expect(exit == .halted)
    #expect(cpu.rip == Self.code + 3)
    #expect(bench.interrupts == [0x40])
  }

  @Test("STI lets one more instruction go before the interrupt")
  func shadow() {
    var cpu = bench.makeLong()
    bench.interrupts = [0x40]
    bench.attention.raise(Attention.interrupt)
    bench.put([0xFB, 0xFF, 0xC0, 0xFF, 0xC0], at: Self.code)  // sti, inc eax, inc eax
    bench.put([0xF4], at: Self.handler(0x40))
    let exit = cpu.run()
    #expect(exit == .halted)
    #expect(cpu.gpr[0] == 1)
    #expect(bench.stack(cpu, 1, size: 8) == [Self.code + 3])
    #expect(cpu.rflags & 0x200 == 0)
  }

  @Test("a halted processor stays so until an interrupt can be taken")
  func halt() {
    var cpu = bench.makeLong()
    bench.put([0xF4], at: Self.code)
    bench.put([0xF4], at: Self.handler(0x40))
    let first = cpu.run()
    let again = cpu.run()
    let place = cpu.rip
    cpu.rflags |= 0x200
    bench.interrupts = [0x40]
    bench.attention.raise(Attention.interrupt)
    let woken = cpu.run()
    #expect(first == .halted)
    #expect(again == .halted)
    #expect(place == Self.code + 1)
    #expect(woken == .halted)
    #expect(cpu.rip == Self.handler(0x40) + 1)
  }

  @Test("an injected exception of a state that was set is delivered first")
  func injected() {
    var cpu = bench.makeLong()
    cpu.events.exceptionIsInjected = true
    cpu.events.exceptionVector = 14
    cpu.events.exceptionHasErrorCode = true
    cpu.events.exceptionErrorCode = 6
    let exit = cpu.serve()
    #expect(exit == nil)
    #expect(cpu.rip == Self.handler(14))
    #expect(bench.stack(cpu, 2, size: 8) == [6, Self.code])
  }

  @Test(
    "an access of the user that is not aligned is #AC with CR0.AM and RFLAGS.AC",
    arguments: [
      ([0x8B, 0x04, 0x25, 0x02, 0x30, 0, 0], 3, true),
      ([0x8B, 0x04, 0x25, 0x04, 0x30, 0, 0], 3, false),
      ([0x8A, 0x04, 0x25, 0x03, 0x30, 0, 0], 3, false),
      ([0x89, 0x04, 0x25, 0x01, 0x30, 0, 0], 3, true),
      ([0xF0, 0x01, 0x04, 0x25, 0x02, 0x30, 0, 0], 3, true),
      ([0x8B, 0x04, 0x25, 0x02, 0x30, 0, 0], 0, false),
    ] as [([UInt8], UInt8, Bool)])
  func alignment(bytes: [UInt8], cpl: UInt8, isFault: Bool) throws {
    var cpu = bench.makeLong()
    if cpl == 3 { bench.enterUser(&cpu, Bench.Selector.userCode64) }
    bench.run(&cpu, bytes)
    let without = cpu.rip
    cpu.cr0 |= 1 << 18
    cpu.systemFlags |= 1 << 18
    cpu.updateMode()
    cpu.rip = Self.code
    bench.run(&cpu, bytes)
    #expect(without == Self.code + UInt64(bytes.count))
    #expect((cpu.rip == Self.handler(17)) == isFault)
    if isFault { #expect(bench.stack(cpu, 2, size: 8) == [0, Self.code]) }
  }

  // MARK: - Debugging

  @Test("TF traps after the instruction")
  func singleStep() {
    var cpu = bench.makeLong()
    cpu.rflags |= 0x100
    bench.put([0x90, 0x90], at: Self.code)
    let exit = cpu.serve()
    #expect(exit == nil)
    #expect(cpu.rip == Self.handler(1))
    #expect(bench.stack(cpu, 3, size: 8) == [Self.code + 1, 0x18, 0x102])
    #expect(cpu.debug.dr6 == 0xFFFF_4FF0)
  }

  @Test("neither INT n nor a load of SS is followed by a single-step trap")
  func noStep() {
    var cpu = bench.makeLong()
    cpu.rflags |= 0x100
    bench.put([0xCD, 0x80], at: Self.code)
    _ = cpu.serve()
    let interrupt = cpu.rip
    cpu.rip = Self.code
    cpu.rflags = 0x102
    cpu.gpr[0] = 0x10
    bench.put([0x8E, 0xD0, 0x90], at: Self.code)  // mov ss, eax
    _ = cpu.serve()
    let load = cpu.rip
    _ = cpu.serve()
    #expect(interrupt == Self.handler(0x80))
    #expect(load == Self.code + 2)
    #expect(cpu.rip == Self.handler(1))
    #expect(bench.stack(cpu, 1, size: 8) == [Self.code + 3])
  }

  @Test("a repeated string instruction is stepped element by element")
  func stringStep() {
    var cpu = bench.makeLong()
    (cpu.gpr[0], cpu.gpr[1], cpu.gpr[7]) = (0xAB, 2, 0x3000)
    bench.put([0xF3, 0xAA], at: Self.code)  // rep stosb
    bench.put([0xFF, 0xC3, 0x48, 0xCF], at: Self.handler(1))  // inc ebx, iretq
    cpu.rflags |= 0x100
    _ = cpu.serve()
    let first = (cpu.gpr[1], bench.stack(cpu, 1, size: 8)[0], bench.get16(0x3000))
    cpu.rip = Self.code
    cpu.rflags |= 0x100
    _ = cpu.serve()
    let second = (cpu.gpr[1], bench.stack(cpu, 1, size: 8)[0], bench.get16(0x3000))
    #expect(first == (1, Self.code, 0xAB))
    #expect(second == (0, Self.code + 2, 0xABAB))
  }

  @Test("a breakpoint in the middle of a repeated store stops it there")
  func stringBreakpoint() {
    var cpu = bench.makeLong()
    cpu.debug.dr0 = 0x3004
    cpu.debug.dr7 = 0x400 | 1 | 1 << 16
    (cpu.gpr[0], cpu.gpr[1], cpu.gpr[7]) = (0xAB, 16, 0x3000)
    bench.put([0xF3, 0xAA, 0xF4], at: Self.code)
    bench.put([0xF4], at: Self.handler(1))
    let exit = cpu.run()
    #expect(exit == .halted)
    #expect(cpu.gpr[1] == 11)
    #expect(bench.stack(cpu, 1, size: 8) == [Self.code])
    #expect(cpu.debug.dr6 & 0xF == 1)
  }

  @Test("a breakpoint on an instruction is hit before it, and passed with RF")
  func codeBreakpoint() {
    var cpu = bench.makeLong()
    cpu.debug.dr1 = Self.code + 1
    cpu.debug.dr7 = 0x400 | 1 << 2
    bench.put([0x90, 0x90, 0xF4], at: Self.code)
    bench.put([0x48, 0x81, 0x4C, 0x24, 0x10, 0, 0, 1, 0], at: Self.handler(1))  // or [rsp+16], RF
    bench.put([0x48, 0xCF], at: Self.handler(1) + 9)
    let exit = cpu.run()
    #expect(exit == .halted)
    #expect(cpu.rip == Self.code + 3)
    #expect(cpu.debug.dr6 & 0xF == 2)
    #expect(bench.get(Bench.kernelStack - 40) == Self.code + 1)
  }

  @Test(
    "a breakpoint on data traps after the access",
    arguments: [
      (1, [0x89, 0x04, 0x25, 0x02, 0x30, 0, 0], true),
      (1, [0x8B, 0x04, 0x25, 0x02, 0x30, 0, 0], false),
      (3, [0x8B, 0x04, 0x25, 0x02, 0x30, 0, 0], true),
      (3, [0x8B, 0x04, 0x25, 0x04, 0x30, 0, 0], false),
      (1, [0xF0, 0x01, 0x04, 0x25, 0x00, 0x30, 0, 0], true),
      (3, [0x8B, 0x04, 0x25, 0xFE, 0x2F, 0, 0], true),
    ] as [(UInt64, [UInt8], Bool)])
  func dataBreakpoint(kind: UInt64, bytes: [UInt8], isHit: Bool) throws {
    var cpu = bench.makeLong()
    _ = try cpu.load(UInt32.self, 0x3000)
    try cpu.store(UInt32(0), 0x3000)
    bench.put(bytes + [0xF4], at: Self.code)
    bench.put([0xF4], at: Self.handler(1))
    cpu.gpr[0] = 0x3000
    cpu.gpr[1] = 0x400 | 2 | kind << 16 | 3 << 18
    // mov dr0, rax; mov dr7, rcx
    bench.put([0x0F, 0x23, 0xC0, 0x0F, 0x23, 0xF9], at: Self.code - 6)
    cpu.rip = Self.code - 6
    let exit = cpu.run()
    #expect(exit == .halted)
    #expect(cpu.debug.dr6 & 0xF == (isHit ? 1 : 0))
    #expect(cpu.rip == (isHit ? Self.handler(1) : Self.code + UInt64(bytes.count)) + 1)
  }

  @Test("a breakpoint on a port asks for CR4.DE", arguments: [false, true])
  func portBreakpoint(isEnabled: Bool) {
    var cpu = bench.makeLong()
    cpu.cr4 |= isEnabled ? 8 : 0
    cpu.debug.dr2 = 0x80
    cpu.debug.dr7 = 0x400 | 1 << 4 | 2 << 24
    bench.put([0xE6, 0x80, 0xF4], at: Self.code)
    bench.put([0xF4], at: Self.handler(1))
    let exit = cpu.run()
    #expect(exit == .halted)
    #expect(bench.portWrites == ["80=0"])
    #expect(cpu.debug.dr6 & 0xF == (isEnabled ? 4 : 0))
  }

  @Test("general detect faults on an access to the debug registers, once")
  func generalDetect() {
    var cpu = bench.makeLong()
    cpu.debug.dr7 = 0x2400
    bench.run(&cpu, [0x0F, 0x21, 0xC0])  // mov rax, dr0
    #expect(cpu.rip == Self.handler(1))
    #expect(bench.stack(cpu, 1, size: 8) == [Self.code])
    #expect(cpu.debug.dr6 & 1 << 13 != 0)
    #expect(cpu.debug.dr7 == 0x400)
  }
}
