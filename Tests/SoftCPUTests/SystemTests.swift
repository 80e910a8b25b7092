// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Processor
import Testing

@testable import SoftCPU

/// System instructions, control registers, MSRs, and the state as others see it.
@Suite("System instructions")
struct SystemTests {
  private typealias Bench = SystemBench
  private typealias Selector = SystemBench.Selector
  private static let code = SystemBench.code

  private let bench: SystemBench

  init() throws { bench = try SystemBench() }

  private static func handler(_ vector: UInt64) -> UInt64 { SystemBench.handlers + 16 * vector }

  /// Executes WRMSR, and tells whether it was taken.
  private func write(_ cpu: inout SoftCPU, _ index: UInt32, _ value: UInt64) -> Bool {
    (cpu.gpr[0], cpu.gpr[1], cpu.gpr[2]) = (value & 0xFFFF_FFFF, UInt64(index), value >> 32)
    cpu.rip = Self.code
    bench.run(&cpu, [0x0F, 0x30])
    return cpu.rip == Self.code + 2
  }

  /// Executes RDMSR; `nil` for #GP.
  private func read(_ cpu: inout SoftCPU, _ index: UInt32) -> UInt64? {
    cpu.gpr[1] = UInt64(index)
    cpu.rip = Self.code
    bench.run(&cpu, [0x0F, 0x32])
    return cpu.rip == Self.code + 2 ? cpu.gpr[2] << 32 | cpu.gpr[0] : nil
  }

  // MARK: - Fast calls

  @Test("SYSCALL and SYSRET take the user to the kernel and back")
  func systemCall() {
    var cpu = bench.makeLong()
    cpu.msrs.star = 0x0020_0018 << 32
    cpu.msrs.lstar = 0x9000
    cpu.msrs.syscallMask = 0x4_0700
    bench.enterUser(&cpu, Selector.userCode64)
    cpu.rflags = 0x4_0202
    bench.run(&cpu, [0x0F, 0x05])
    let inside = (cpu.rip, cpu.cpl, cpu.rflags, cpu.gpr[1], cpu.gpr[11])
    let selectors = (cpu.segments[1].selector, cpu.segments[2].selector)
    bench.run(&cpu, [0x48, 0x0F, 0x07])
    #expect(inside == (0x9000, 0, 0x202 & ~0x200 | 2, Self.code + 2, 0x4_0202))
    #expect(selectors == (0x18, 0x20))
    #expect(cpu.rip == Self.code + 2)
    #expect(cpu.cpl == 3)
    #expect(cpu.rflags == 0x4_0202)
    #expect(cpu.segments[1].selector == 0x33)
    #expect(cpu.segments[2].selector == 0x2B)
    #expect(cpu.mode == .bits64)
  }

  @Test("SYSCALL of 32-bit code goes to CSTAR, and SYSRET without REX.W back to it")
  func compatibilityCall() {
    var cpu = bench.makeLong()
    cpu.msrs.star = 0x0020_0018 << 32
    cpu.msrs.cstar = 0x9000
    bench.enterUser(&cpu, Selector.userCode32)
    bench.run(&cpu, [0x0F, 0x05])
    let inside = (cpu.rip, cpu.mode)
    bench.run(&cpu, [0x0F, 0x07])
    #expect(inside == (0x9000, .bits64))
    #expect(cpu.rip == Self.code + 2)
    #expect(cpu.mode == .bits32)
    #expect(cpu.segments[1].selector == 0x23)
  }

  @Test("SYSCALL without EFER.SCE is undefined, SYSRET of the user a fault")
  func systemCallChecks() {
    var cpu = bench.makeLong()
    cpu.efer &= ~1
    bench.run(&cpu, [0x0F, 0x05])
    let first = cpu.rip
    cpu.efer |= 1
    bench.enterUser(&cpu, Selector.userCode64)
    bench.run(&cpu, [0x48, 0x0F, 0x07])
    #expect(first == Self.handler(6))
    #expect(cpu.rip == Self.handler(13))
  }

  @Test("SYSENTER and SYSEXIT work in protected mode")
  func systemEnter() {
    var cpu = bench.makeProtected()
    (cpu.msrs.sysenterCS, cpu.msrs.sysenterESP, cpu.msrs.sysenterEIP) = (0x08, 0xA800, 0x9000)
    bench.enterUser(&cpu, Selector.userCode32)
    bench.run(&cpu, [0x0F, 0x34])
    let inside = (cpu.rip, cpu.gpr[4], cpu.cpl, cpu.segments[2].selector)
    (cpu.gpr[1], cpu.gpr[2]) = (0xD800, 0x8100)
    bench.run(&cpu, [0x0F, 0x35])
    #expect(inside == (0x9000, 0xA800, 0, 0x10))
    #expect((cpu.rip, cpu.gpr[4], cpu.cpl) == (0x8100, 0xD800, 3))
    #expect(cpu.segments[1].selector == 0x1B)
  }

  // MARK: - Control registers

  @Test(
    "bad values of CR0 and CR4 are refused",
    arguments: [
      (0, 0x8000_0000), (0, 0x2000_0011), (0, 0x1_0000_0011), (0, 0x11), (4, 0x0000),
      (4, 0x80_0020), (4, 0x1_0000_0020), (4, 0x0002_0020 | 1 << 13),
    ] as [(UInt8, UInt64)])
  func badControl(number: UInt8, value: UInt64) {
    var cpu = bench.makeLong()
    let before = (cpu.cr0, cpu.cr4)
    cpu.gpr[0] = value
    bench.run(&cpu, [0x0F, 0x22, 0xC0 | number << 3])
    #expect(cpu.rip == Self.handler(13))
    #expect((cpu.cr0, cpu.cr4) == before)
  }

  @Test("long mode starts with paging, and ends from 32-bit code")
  func longMode() {
    var cpu = bench.makeLong()
    cpu.cr0 = 0x11
    cpu.efer = 0x100
    cpu.cr4 = 0x20
    bench.makeGDT(isLong: true)
    do throws(Fault) { try cpu.loadCode(try cpu.descriptor(Selector.code32), 0) } catch {}
    cpu.updateMode()
    let before = cpu.mode
    cpu.gpr[0] = 0x8000_0011
    bench.run(&cpu, [0x0F, 0x22, 0xC0])
    let inside = (cpu.efer, cpu.mode)
    let refused = write(&cpu, 0xC000_0080, 0) == false
    cpu.gpr[0] = 0x11
    cpu.rip = Self.code
    do throws(Fault) { try cpu.loadCode(try cpu.descriptor(Selector.code32), 0) } catch {}
    cpu.updateMode()
    bench.run(&cpu, [0x0F, 0x22, 0xC0])
    #expect(before == .bits32)
    #expect(inside == (0x500, .bits32))
    #expect(refused)
    #expect(cpu.efer == 0x100)
    #expect(cpu.cr0 == 0x11)
  }

  @Test("LMSW sets PE and does not clear it; CLTS clears TS; SMSW reads")
  func machineStatus() {
    var cpu = bench.makeProtected()
    cpu.gpr[0] = 0x0E
    bench.run(&cpu, [0x0F, 0x01, 0xF0])  // lmsw ax
    let set = cpu.cr0
    bench.run(&cpu, [0x0F, 0x06])
    let cleared = cpu.cr0
    bench.run(&cpu, [0x0F, 0x01, 0xE3])  // smsw ebx
    #expect(set == 0x1F)
    #expect(cleared == 0x17)
    #expect(cpu.gpr[3] == 0x17)
  }

  @Test("CR8 is the task priority")
  func taskPriority() {
    var cpu = bench.makeLong()
    cpu.gpr[0] = 9
    bench.run(&cpu, [0x44, 0x0F, 0x22, 0xC0])
    bench.run(&cpu, [0x44, 0x0F, 0x20, 0xC3])  // mov rbx, cr8
    #expect(bench.taskPriority == 9)
    #expect(cpu.gpr[3] == 9)
    cpu.gpr[0] = 16
    bench.run(&cpu, [0x44, 0x0F, 0x22, 0xC0])
    #expect(cpu.rip == Self.handler(13))
  }

  @Test(
    "instructions of the kernel fault for the user",
    arguments: [
      [0xF4], [0xFA], [0xFB], [0x0F, 0x06], [0x0F, 0x08], [0x0F, 0x09], [0x0F, 0x20, 0xC0],
      [0x0F, 0x22, 0xC0], [0x0F, 0x21, 0xC0], [0x0F, 0x30], [0x0F, 0x32], [0x0F, 0x01, 0xF8],
      [0x0F, 0x01, 0x38], [0x0F, 0x01, 0x10], [0x0F, 0x00, 0xD8], [0x0F, 0x00, 0xD0],
      [0x0F, 0x33],
    ] as [[UInt8]])
  func privileged(bytes: [UInt8]) {
    var cpu = bench.makeLong()
    bench.enterUser(&cpu, Selector.userCode64)
    cpu.gpr[0] = 0x3000
    bench.run(&cpu, bytes)
    #expect(cpu.rip == Self.handler(13))
    #expect(bench.stack(cpu, 2, size: 8) == [0, Self.code])
  }

  @Test(
    "UMIP keeps the tables from the user, and SMSW, SLDT and STR",
    arguments: [
      [0x0F, 0x01, 0x00], [0x0F, 0x01, 0x08], [0x0F, 0x01, 0xE0], [0x0F, 0x00, 0xC0],
      [0x0F, 0x00, 0xC8],
    ] as [[UInt8]])
  func umip(bytes: [UInt8]) {
    var cpu = bench.makeLong()
    bench.enterUser(&cpu, Selector.userCode64)
    cpu.gpr[0] = 0x3000
    bench.run(&cpu, bytes)
    let without = cpu.rip
    cpu.cr4 |= 1 << 11
    cpu.rip = Self.code
    bench.run(&cpu, bytes)
    #expect(without == Self.code + 3)
    #expect(cpu.rip == Self.handler(13))
  }

  // MARK: - Tables

  @Test("LGDT and SGDT, LIDT and SIDT move ten bytes in 64-bit mode")
  func tables() {
    var cpu = bench.makeLong()
    bench.put([0x34, 0x12, 0xEF, 0xBE, 0xAD, 0xDE, 0x00, 0x00, 0x00, 0x00], at: 0x3000)
    cpu.gpr[0] = 0x3000
    cpu.gpr[1] = 0x3010
    bench.run(&cpu, [0x0F, 0x01, 0x18])  // lidt [rax]
    bench.run(&cpu, [0x0F, 0x01, 0x09])  // sidt [rcx]
    #expect(cpu.idtr.base == 0xDEAD_BEEF)
    #expect(cpu.idtr.limit == 0x1234)
    let stored = bench.ram.bytes(at: 0x3010, count: 10)
    #expect(stored == [0x34, 0x12, 0xEF, 0xBE, 0xAD, 0xDE, 0, 0, 0, 0])
  }

  @Test("LTR makes the descriptor busy, and not twice")
  func taskRegister() {
    var cpu = bench.makeLong()
    cpu.gpr[0] = UInt64(Selector.tss)
    bench.run(&cpu, [0x0F, 0x00, 0xD8])
    let type = bench.get(Bench.gdt + UInt64(Selector.tss)) >> 40 & 15
    bench.run(&cpu, [0x0F, 0x00, 0xD8])
    #expect(type == 11)
    #expect(cpu.tr.base == Bench.tss)
    #expect(cpu.rip == Self.handler(13))
    #expect(bench.stack(cpu, 1, size: 8) == [UInt64(Selector.tss)])
  }

  @Test(
    "LAR, LSL, VERR and VERW tell what may be accessed",
    arguments: [
      (0x10, 0, 0xCF9300, 0xFFFF_FFFF, true, true), (0x10, 3, nil, nil, false, false),
      (0x2B, 3, 0xCFF300, 0xFFFF_FFFF, true, true),
      (0x90, 0, 0xCF9100, 0xFFFF_FFFF, true, false),
      (0x50, 3, 0xCF9F00, 0xFFFF_FFFF, true, false), (0x38, 0, 0x8900, 0x2067, false, false),
      (0x60, 0, 0xE500, nil, false, false), (0, 0, nil, nil, false, false),
      (0x100, 0, nil, nil, false, false),
    ] as [(UInt16, UInt8, UInt64?, UInt64?, Bool, Bool)])
  func inspect(
    selector: UInt16, cpl: UInt8, rights: UInt64?, limit: UInt64?, isReadable: Bool,
    isWritable: Bool
  ) {
    var cpu = bench.makeProtected()
    if cpl == 3 { bench.enterUser(&cpu, Selector.userCode32) }
    cpu.gpr[0] = UInt64(selector)
    bench.run(&cpu, [0x0F, 0x02, 0xD8])  // lar ebx, eax
    let foundRights = cpu.flags.zf ? cpu.gpr[3] : nil
    bench.run(&cpu, [0x0F, 0x03, 0xD8])  // lsl ebx, eax
    let foundLimit = cpu.flags.zf ? cpu.gpr[3] : nil
    bench.run(&cpu, [0x0F, 0x00, 0xE0])  // verr ax
    let reads = cpu.flags.zf
    bench.run(&cpu, [0x0F, 0x00, 0xE8])  // verw ax
    #expect(foundRights == rights)
    #expect(foundLimit == limit)
    #expect(reads == isReadable)
    #expect(cpu.flags.zf == isWritable)
  }

  @Test("ARPL raises the requested privilege")
  func arpl() {
    var cpu = bench.makeProtected()
    (cpu.gpr[0], cpu.gpr[1]) = (0x10, 0x0B)
    bench.run(&cpu, [0x63, 0xC8])  // arpl ax, cx
    let first = (cpu.gpr[0], cpu.flags.zf)
    bench.run(&cpu, [0x63, 0xC8])
    #expect(first == (0x13, true))
    #expect(cpu.flags.zf == false)
  }

  // MARK: - MSRs and bases

  @Test(
    "MSRs keep what is written",
    arguments: [
      (0xC000_0081, 0x0023_0010_0000_0000), (0xC000_0082, 0xFFFF_FFFF_8100_0000),
      (0xC000_0084, 0x4_7700), (0xC000_0100, 0x7FFF_1234_5678), (0xC000_0101, 0x1234),
      (0xC000_0102, 0xFFFF_8880_0000_0000), (0xC000_0103, 7), (0x174, 0x10),
      (0x176, 0xFFFF_FFFF_8200_0000), (0x277, 0x0407_0506_0007_0106), (0x200, 0xC000_0000),
      (0x2FF, 0xC06), (0x250, 0x0606_0606_0606_0606),
    ] as [(UInt32, UInt64)])
  func registers(index: UInt32, value: UInt64) {
    var cpu = bench.makeLong()
    let isTaken = write(&cpu, index, value)
    let found = read(&cpu, index)
    #expect(isTaken)
    #expect(found == value)
  }

  @Test(
    "bad values and unknown MSRs are refused",
    arguments: [
      (0xC000_0082, 0x8000_0000_0000_0000), (0xC000_0101, 0x8000_0000_0000),
      (0xC000_0080, 0x1_0D01), (0x277, 2), (0x1234_5678, 0), (0xC001_1234, 0),
    ] as [(UInt32, UInt64)])
  func refused(index: UInt32, value: UInt64) {
    var cpu = bench.makeLong()
    let isTaken = write(&cpu, index, value)
    #expect(isTaken == false)
    #expect(cpu.rip == Self.handler(13))
  }

  @Test("SWAPGS exchanges the bases, and accesses go by the new one")
  func swapgs() throws {
    var cpu = bench.makeLong()
    _ = write(&cpu, 0xC000_0101, 0x1000)
    _ = write(&cpu, 0xC000_0102, 0x3000)
    bench.put(0xABCD, at: 0x3008)
    cpu.rip = Self.code
    bench.run(&cpu, [0x0F, 0x01, 0xF8])
    bench.run(&cpu, [0x65, 0x48, 0x8B, 0x04, 0x25, 8, 0, 0, 0])  // mov rax, gs:[8]
    let kernel = read(&cpu, 0xC000_0102)
    #expect(kernel == 0x1000)
    #expect(cpu.segmentBase[5] == 0x3000)
    #expect(bench.get(0x3008) == 0xABCD)
  }

  @Test("WRFSBASE and RDFSBASE ask for CR4.FSGSBASE")
  func bases() {
    var cpu = bench.makeLong()
    cpu.gpr[0] = 0x1234_5678_9ABC
    bench.run(&cpu, [0xF3, 0x48, 0x0F, 0xAE, 0xD0])  // wrfsbase rax
    let without = cpu.rip
    cpu.cr4 |= 1 << 16
    cpu.rip = Self.code
    bench.run(&cpu, [0xF3, 0x48, 0x0F, 0xAE, 0xD0])
    bench.run(&cpu, [0xF3, 0x0F, 0xAE, 0xC3])  // rdfsbase ebx
    #expect(without == Self.handler(6))
    #expect(cpu.segmentBase[4] == 0x1234_5678_9ABC)
    #expect(cpu.gpr[3] == 0x5678_9ABC)
  }

  @Test("the time-stamp counter goes on from what is written")
  func timeStamp() {
    var cpu = bench.makeLong()
    _ = write(&cpu, 0x10, 5_000_000_000)
    bench.time += 10
    cpu.rip = Self.code
    bench.run(&cpu, [0x0F, 0x31])
    let adjust = read(&cpu, 0x3B)
    #expect(adjust == 5_000_000_000 - 1000)
    let now = read(&cpu, 0x10)
    #expect(now == 5_000_000_010)
  }

  @Test("CR4.TSD keeps the counter from the user")
  func timeStampDisabled() {
    var cpu = bench.makeLong()
    cpu.cr4 |= 4
    bench.enterUser(&cpu, Selector.userCode64)
    bench.run(&cpu, [0x0F, 0x31])
    #expect(cpu.rip == Self.handler(13))
  }

  // MARK: - XCR0, keys, CPUID

  @Test("XSETBV takes what CPUID offers")
  func extendedControl() {
    var cpu = bench.makeLong()
    cpu.cr4 |= 1 << 18
    (cpu.gpr[0], cpu.gpr[1], cpu.gpr[2]) = (3, 0, 0)
    bench.run(&cpu, [0x0F, 0x01, 0xD1])
    let first = (cpu.rip, cpu.xcr0)
    cpu.gpr[0] = 7
    bench.run(&cpu, [0x0F, 0x01, 0xD1])
    #expect(first == (Self.code + 3, 3))
    #expect(cpu.rip == Self.handler(13))
    #expect(cpu.xcr0 == 3)
  }

  @Test("CPUID follows CR4 and the APIC's switch")
  func identification() {
    var cpu = bench.makeLong()
    func ask(_ leaf: UInt64, _ subleaf: UInt64 = 0) -> [UInt64] {
      (cpu.gpr[0], cpu.gpr[1]) = (leaf, subleaf)
      cpu.identify()
      return [cpu.gpr[0], cpu.gpr[3], cpu.gpr[1], cpu.gpr[2]]
    }
    let before = ask(1)
    cpu.cr4 |= 1 << 18 | 1 << 22
    bench.apicBase = 0xFEE0_0000
    let after = ask(1)
    let keys = ask(7)
    let unknown = ask(0x1234)
    #expect(before[2] >> 27 & 1 == 0)
    #expect(before[3] >> 9 & 1 == 1)
    #expect(after[2] >> 27 & 1 == 1)
    #expect(after[3] >> 9 & 1 == 0)
    #expect(keys[2] >> 4 & 1 == 1)
    #expect(unknown == [0, 0, 0, 0])
  }

  @Test("WRPKRU takes effect at once")
  func keyRights() throws {
    var cpu = bench.makeLong()
    cpu.cr4 |= 1 << 22
    _ = try cpu.load(UInt64.self, 0x3000)
    (cpu.gpr[0], cpu.gpr[1], cpu.gpr[2]) = (1, 0, 0)
    bench.run(&cpu, [0x0F, 0x01, 0xEF])
    #expect(cpu.pkru == 1)
    #expect(throws: Fault.page(33)) { try cpu.load(UInt64.self, 0x3000) }
  }

  // MARK: - State

  @Test("a reset leaves what table 9-1 of the manual lists")
  func reset() {
    var cpu = bench.makeLong()
    cpu.reset()
    let state = cpu.state
    #expect(state.registers.rip == 0xFFF0)
    #expect(state.registers.rdx == 0x0006_0FB1)
    #expect(state.system.cs.base == 0xFFFF_0000)
    #expect(state.system.cs.selector == 0xF000)
    #expect(state.system.cr0 == 0x6000_0010)
    #expect(state.debug == DebugRegisters())
    #expect(cpu.mode == .bits16)
  }

  @Test("INIT keeps the vector registers, and a start-up message gives the place")
  func initialize() {
    var cpu = bench.makeLong()
    cpu.vectors[5] = 0x1234
    cpu.cr0 |= 1 << 30
    cpu.initialize()
    cpu.startUp(vector: 0x9A)
    let state = cpu.state
    #expect(cpu.vectors[5] == 0x1234)
    #expect(state.system.cr0 == 0x4000_0010)
    #expect(state.system.cs.base == 0x9A000)
    #expect(state.system.cs.selector == 0x9A00)
    #expect(state.registers.rip == 0)
  }

  @Test("the state that is read is the state that was set")
  func roundTrip() {
    var cpu = bench.makeLong()
    bench.enterUser(&cpu, Selector.userCode64)
    for number in 0..<16 { cpu.gpr[number] = 0x1111_1111_1111 * UInt64(number + 1) }
    for place in 0..<64 where place & 2 == 0 { cpu.vectors[place] = UInt64(place) * 0x0101_0101 }
    cpu.xcr0 = 3
    cpu.mxcsr = 0x1FA0
    cpu.pkru = 0x5555_5554
    cpu.rflags = 0x202 | LazyFlags.carry
    cpu.cr2 = 0x1234_5678
    cpu.debug.dr3 = 0x7777
    cpu.msrs.kernelGSBase = 0xFFFF_8880_1234_0000
    cpu.msrs.mtrrRanges[3] = 0x800
    cpu.interruptShadow = 1
    cpu.nmiIsMasked = true
    cpu.events.interruptIsInjected = true
    cpu.events.interruptVector = 0x51
    bench.taskPriority = 4
    let first = cpu.state
    let other = try? SystemBench()
    var copy = (other ?? bench).makeCPU()
    copy.state = first
    let second = copy.state
    #expect((first == second) == true)
    #expect(copy.mode == .bits64)
    #expect(copy.cpl == 3)
    #expect(copy.pkru == 0x5555_5554)
    #expect(other?.taskPriority == 4)
  }

  @Test("an NMI that waits is part of the state")
  func waitingNMI() throws {
    let other = try SystemBench()
    var cpu = bench.makeLong()
    bench.attention.raise(Attention.nmi)
    var copy = other.makeCPU()
    copy.state = cpu.state
    #expect(other.attention.pending == Attention.nmi)
  }

  @Test("an interrupt that only the bitmap of KVM's registers knows is delivered")
  func bitmap() {
    var cpu = bench.makeLong()
    var state = cpu.state
    state.system.interruptBitmap[1] = 1 << 5
    cpu.state = state
    _ = cpu.serve()
    #expect(cpu.rip == Self.handler(0x45))
  }
}
