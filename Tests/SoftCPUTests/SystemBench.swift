// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Processor

@testable import SoftCPU

/// A machine for one software vCPU: some RAM at zero, and a bus that keeps a record.
final class SystemBench: SoftBus {
  let ram: Mapping
  let memory = PhysicalMemory(hasSeveralCPUs: false)
  let attention = Attention()
  /// What the ports read as.
  var portValue: UInt32 = 0
  var portWrites: [String] = []
  var memoryWrites: [String] = []
  /// Interrupts to be acknowledged, in order.
  var interrupts: [UInt8] = []
  var taskPriority: UInt8 = 0
  var time: UInt64 = 1000
  var apicBase: UInt64 = 0xFEE0_0900

  static let byteCount = 4 << 20

  init() throws {
    let file = try MemoryFile.make("ram", byteCount: Self.byteCount)
    ram = try Mapping(file, byteCount: Self.byteCount, .readWrite)
    let backing = memory.add(ram)
    memory.setRanges([
      PhysicalMemory.Range(
        start: 0, byteCount: UInt64(Self.byteCount), backing: backing, offset: 0,
        isReadOnly: false)
    ])
  }

  /// A vCPU after its reset, with everything that the tests need in CPUID.
  func makeCPU(_ table: CPUIDTable = SystemBench.table, translates: Bool = false) -> SoftCPU {
    SoftCPU(
      cpuid: table, memory: memory, bus: self, attention: attention,
      codeMemory: translates ? CodeMemory() : nil)
  }

  static let table = CPUIDTable(entries: [
    .init(leaf: 0, eax: 0xD, ebx: 0x6874_7541, ecx: 0x444D_4163, edx: 0x6974_6E65),
    .init(leaf: 1, eax: 0x0006_0FB1, ecx: 1 << 26 | 1 << 13 | 1 << 3, edx: 0x078B_FBFD),
    .init(
      leaf: 7, hasSubleaves: true, ebx: 1 << 0 | 1 << 7 | 1 << 10 | 1 << 20,
      ecx: 1 << 2 | 1 << 3 | 1 << 22),
    .init(leaf: 0xD, hasSubleaves: true, eax: 3, ebx: 576, ecx: 576),
    .init(leaf: 0x8000_0000, eax: 0x8000_0008),
    .init(leaf: 0x8000_0001, ecx: 1, edx: 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29),
    .init(leaf: 0x8000_0008, eax: 0x3028),
  ])

  // MARK: - SoftBus

  func readPort(_ port: UInt16, byteCount: Int) -> UInt32 { portValue }

  func writePort(_ port: UInt16, _ value: UInt32, byteCount: Int) {
    portWrites.append("\(String(port, radix: 16))=\(String(value, radix: 16))")
  }

  func readPort(_ port: UInt16, byteCount: Int, count: Int, into items: inout [UInt8]) -> Int {
    items = [UInt8](repeating: UInt8(truncatingIfNeeded: portValue), count: byteCount * count)
    return count
  }

  func writePort(_ port: UInt16, byteCount: Int, items: [UInt8]) {}
  func readMemory(_ address: UInt64, byteCount: Int) -> UInt64 { 0xFFFF_FFFF_FFFF_FFFF }

  func writeMemory(_ address: UInt64, _ value: UInt64, byteCount: Int) {
    memoryWrites.append("\(String(address, radix: 16))=\(String(value, radix: 16))")
  }

  func acknowledgeInterrupt() -> UInt8? { interrupts.isEmpty ? nil : interrupts.removeFirst() }
  func readInterruptMSR(_ index: UInt32) -> UInt64? { index == 0x1B ? apicBase : nil }
  func writeInterruptMSR(_ index: UInt32, _ value: UInt64) -> Bool { index == 0x1B }
  func timeStamp() -> UInt64 { time }
  func writeClockMSR(_ index: UInt32, _ value: UInt64) -> Bool { true }
  func readClockMSR(_ index: UInt32) -> UInt64? { 0 }

  // MARK: - Memory

  func put(_ value: UInt64, at address: UInt64) { ram.store(value, at: Int(address)) }
  func put32(_ value: UInt32, at address: UInt64) { ram.store(value, at: Int(address)) }
  func put(_ bytes: [UInt8], at address: UInt64) { ram.copy(bytes, to: Int(address)) }
  func get(_ address: UInt64) -> UInt64 { ram.load(UInt64.self, at: Int(address)) }
  func get32(_ address: UInt64) -> UInt32 { ram.load(UInt32.self, at: Int(address)) }
  func get16(_ address: UInt64) -> UInt16 { ram.load(UInt16.self, at: Int(address)) }

  // MARK: - Tables

  /// Where the tables lie.
  static let gdt: UInt64 = 0x1000
  static let idt: UInt64 = 0x2000
  static let tss: UInt64 = 0x4000
  /// Where the code of each handler is: the vector times 16 from here.
  static let handlers: UInt64 = 0x6000
  static let code: UInt64 = 0x8000
  static let kernelStack: UInt64 = 0xA000
  static let innerStack: UInt64 = 0xB000
  static let interruptStack: UInt64 = 0xC000
  static let userStack: UInt64 = 0xD000

  enum Selector {
    static let code32: UInt16 = 0x08
    static let data: UInt16 = 0x10
    static let code64: UInt16 = 0x18
    static let userCode32: UInt16 = 0x23
    static let userData: UInt16 = 0x2B
    static let userCode64: UInt16 = 0x33
    static let tss: UInt16 = 0x38
    static let code16: UInt16 = 0x48
    static let conforming: UInt16 = 0x50
    static let otherTask: UInt16 = 0x58
    static let taskGate: UInt16 = 0x60
    static let absent: UInt16 = 0x68
    static let downward: UInt16 = 0x70
    static let callGate: UInt16 = 0x80
    static let readOnly: UInt16 = 0x90
  }

  /// A descriptor of code or data, or of a system segment.
  static func descriptor(base: UInt64, limit: UInt64, access: UInt64, flags: UInt64) -> UInt64 {
    limit & 0xFFFF | (base & 0xFF_FFFF) << 16 | access << 40 | (limit >> 16 & 0xF) << 48
      | flags << 52 | (base >> 24 & 0xFF) << 56
  }

  /// A gate's low eight bytes.
  static func gate(_ selector: UInt16, _ offset: UInt64, type: UInt64, dpl: UInt64, ist: UInt64 = 0)
    -> UInt64
  {
    offset & 0xFFFF | UInt64(selector) << 16 | ist << 32 | type << 40 | dpl << 45 | 1 << 47
      | (offset >> 16 & 0xFFFF) << 48
  }

  /// Writes the GDT; the TSS is 64-bit or 32-bit.
  func makeGDT(isLong: Bool) {
    let flat: UInt64 = 0xFFFFF
    let entries: [UInt64] = [
      0,
      Self.descriptor(base: 0, limit: flat, access: 0x9B, flags: 0xC),
      Self.descriptor(base: 0, limit: flat, access: 0x93, flags: 0xC),
      Self.descriptor(base: 0, limit: flat, access: 0x9B, flags: 0xA),
      Self.descriptor(base: 0, limit: flat, access: 0xFB, flags: 0xC),
      Self.descriptor(base: 0, limit: flat, access: 0xF3, flags: 0xC),
      Self.descriptor(base: 0, limit: flat, access: 0xFB, flags: 0xA),
      Self.descriptor(base: Self.tss, limit: 0x2067, access: 0x89, flags: 0),
      0,
      Self.descriptor(base: 0, limit: 0xFFFF, access: 0x9B, flags: 0),
      Self.descriptor(base: 0, limit: flat, access: 0x9F, flags: isLong ? 0xA : 0xC),
      Self.descriptor(base: 0x5000, limit: 0x67, access: 0x89, flags: 0),
      Self.gate(Selector.otherTask, 0, type: 5, dpl: 3),
      Self.descriptor(base: 0, limit: flat, access: 0x13, flags: 0xC),
      Self.descriptor(base: 0, limit: 0xFFF, access: 0x97, flags: 0x4),
      0,
      Self.gate(isLong ? Selector.code64 : Selector.code32, 0x9000, type: 12, dpl: 3),
      0,
      Self.descriptor(base: 0, limit: flat, access: 0x91, flags: 0xC),
    ]
    for (place, entry) in entries.enumerated() { put(entry, at: Self.gdt + 8 * UInt64(place)) }
  }

  /// Writes an IDT of interrupt gates (trap gate: 3) to ``handlers``; IST 1 for vector 2.
  func makeIDT(isLong: Bool) {
    for vector in UInt64(0)..<256 {
      let selector = isLong ? Selector.code64 : Selector.code32
      let gate = Self.gate(
        selector, Self.handlers + 16 * vector, type: vector == 3 ? 15 : 14,
        dpl: vector == 3 || vector == 0x80 ? 3 : 0, ist: isLong && vector == 2 ? 1 : 0)
      put(gate, at: Self.idt + vector * (isLong ? 16 : 8))
      if isLong { put(0, at: Self.idt + vector * 16 + 8) }
    }
  }

  /// A vCPU in flat 32-bit protected mode at ``code``, without paging.
  func makeProtected() -> SoftCPU {
    var cpu = makeCPU()
    restart(&cpu, isLong: false)
    return cpu
  }

  /// A vCPU in 64-bit mode at ``code``; the first 4 MiB are mapped one to one for everybody.
  func makeLong(translates: Bool = false) -> SoftCPU {
    var cpu = makeCPU(translates: translates)
    restart(&cpu, isLong: true)
    return cpu
  }

  /// Resets a vCPU, and brings it to ``code`` in protected or 64-bit mode with fresh tables.
  func restart(_ cpu: inout SoftCPU, isLong: Bool) {
    makeGDT(isLong: isLong)
    makeIDT(isLong: isLong)
    put(Self.innerStack, at: Self.tss + 4)
    cpu.reset()
    guard isLong else {
      put32(UInt32(Selector.data), at: Self.tss + 8)
      cpu.cr0 = 0x11
      return start(&cpu, Selector.code32, isLong: false)
    }
    put(Self.interruptStack, at: Self.tss + 0x24)
    put(0x11_007, at: 0x10_000)
    put(0x12_007, at: 0x11_000)
    put(0x00_0087, at: 0x12_000)
    put(0x20_0087, at: 0x12_008)
    cpu.cr0 = 0x8001_0011
    cpu.cr3 = 0x10_000
    cpu.cr4 = 0x20
    cpu.efer = 0xD01
    start(&cpu, Selector.code64, isLong: true)
  }

  private func start(_ cpu: inout SoftCPU, _ selector: UInt16, isLong: Bool) {
    cpu.gdtr.base = Self.gdt
    cpu.gdtr.limit = 0xFF
    cpu.idtr.base = Self.idt
    cpu.idtr.limit = isLong ? 0xFFF : 0x7FF
    do throws(Fault) {
      try cpu.loadCode(try cpu.descriptor(selector), 0)
      cpu.updateMode()
      for number in [0, 2, 3, 4, 5] { try cpu.loadSegment(number, Selector.data) }
      var task = try cpu.descriptor(Selector.tss).segment
      task.type |= 2
      cpu.tr = task
    } catch {
      preconditionFailure("the tables are wrong: \(error)")
    }
    cpu.rip = Self.code
    cpu.gpr[4] = Self.kernelStack
    cpu.tlb.flush()
  }

  /// Makes the code that runs that of a user.
  func enterUser(_ cpu: inout SoftCPU, _ code: UInt16, rip: UInt64 = SystemBench.code) {
    do throws(Fault) {
      try cpu.loadCode(try cpu.descriptor(code), 3)
      cpu.segments[2] = try cpu.checkedSegment(2, Selector.userData, 3)
      for number in [0, 3, 4, 5] {
        cpu.segments[number] = try cpu.checkedSegment(number, Selector.userData, 3)
      }
    } catch {
      preconditionFailure("the tables are wrong: \(error)")
    }
    cpu.updateMode()
    cpu.rip = rip
    cpu.gpr[4] = Self.userStack
  }

  /// Puts code where the vCPU is and executes `count` instructions with their events.
  func run(_ cpu: inout SoftCPU, _ bytes: [UInt8], count: Int = 1) {
    put(bytes, at: cpu.segmentBase[1] + cpu.rip)
    for _ in 0..<count { step(&cpu) }
  }

  /// Executes one instruction, and delivers its fault.
  func step(_ cpu: inout SoftCPU) {
    cpu.leavesBlock = false
    do throws(Fault) {
      try cpu.executeOne()
    } catch {
      if !cpu.deliver(error) { cpu.isShutdown = true }
    }
  }

  /// The words on the stack from the top on.
  func stack(_ cpu: borrowing SoftCPU, _ count: Int, size: Int) -> [UInt64] {
    let top = cpu.segments[2].base * (size == 8 ? 0 : 1) + cpu.gpr[4]
    return (0..<count).map { place in
      let address = top + UInt64(place * size)
      return size == 8 ? get(address) : size == 4 ? UInt64(get32(address)) : UInt64(get16(address))
    }
  }
}
