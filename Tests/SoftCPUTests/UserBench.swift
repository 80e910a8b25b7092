// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Processor

@testable import SoftCPU

/// A software CPU under a kernel that is only tables: it executes instructions of user mode in
/// the surroundings that ``HostCPU`` has for them, Linux's.
struct UserBench: ~Copyable {
  /// Where physical memory is for the kernel alone.
  private static let kernel: UInt64 = 0xFFFF_8000_0000_0000
  private static let gdt: UInt64 = 0x1000
  private static let idt: UInt64 = 0x2000
  private static let tss: UInt64 = 0x4000
  private static let handlers: UInt64 = 0x6000
  private static let stack: UInt64 = 0xB000
  private static let codeFrame: UInt64 = 0x10_0000
  private static let dataFrame: UInt64 = 0x11_0000

  private let bench: SystemBench
  private var cpu: SoftCPU
  private var code64 = Segment()
  private var code32 = Segment()
  private var data = Segment()

  init() throws {
    bench = try SystemBench()
    cpu = bench.makeCPU(.softComplete)
    makeTables()
    bench.ram.fill(HostCPU.filling, at: Int(Self.dataFrame), count: 0x3000)
    cpu.cr0 = 0x8005_0033
    cpu.cr3 = 0x2_0000
    // PAE, PGE, OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE, PKE.
    cpu.cr4 = 0x45_06A0
    cpu.efer = 0xD01
    cpu.gdtr.base = Self.kernel + Self.gdt
    cpu.gdtr.limit = 0x7F
    cpu.idtr.base = Self.kernel + Self.idt
    cpu.idtr.limit = 0xFFF
    var task = Segment()
    (task.selector, task.base, task.limit, task.type) = (0x40, Self.kernel + Self.tss, 0x67, 11)
    task.isPresent = true
    cpu.tr = task
    cpu.ldtr.isUnusable = true
    cpu.ldtr.selector = 0
    cpu.updateMode()
    cpu.tlb.flush()
    do throws(Fault) {
      code64 = try cpu.descriptor(0x33).segment
      code32 = try cpu.descriptor(0x23).segment
      data = try cpu.descriptor(0x2B).segment
    } catch {
      preconditionFailure("the tables are wrong: \(error)")
    }
  }

  private func makeTables() {
    let entries: [UInt64] = [
      0, 0x00CF_9B00_0000_FFFF, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF,
      0x00CF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF, 0x00AF_FB00_0000_FFFF, 0,
      0x8000_8B00_4000_0067, 0xFFFF_8000, 0, 0, 0, 0, 0,
      // Linux keeps the processor's number in a limit.
      0x0040_F500_0000_0000,
    ]
    for (place, entry) in entries.enumerated() {
      bench.put(entry, at: Self.gdt + 8 * UInt64(place))
    }
    for vector in UInt64(0)..<256 {
      let gate = SystemBench.gate(
        0x10, (Self.kernel + Self.handlers + 16 * vector) & 0xFFFF_FFFF, type: 14,
        dpl: vector == 3 || vector == 4 ? 3 : 0)
      bench.put(gate, at: Self.idt + 16 * vector)
      bench.put(Self.kernel >> 32, at: Self.idt + 16 * vector + 8)
    }
    bench.put(Self.kernel + Self.stack, at: Self.tss + 4)
    bench.put(0x68 << 48, at: Self.tss + 0x60)
    let noExecute: UInt64 = 1 << 63
    // User: code, data and the read-only page.
    bench.put(0x2_1067, at: 0x2_0000)
    bench.put(0x2_2067, at: 0x2_1000)
    bench.put(0x2_3067, at: 0x2_2000 + 8 * (HostCPU.code >> 21))
    bench.put(Self.codeFrame | 0x67, at: 0x2_3000)
    bench.put(0x2_4067, at: 0x2_2000 + 8 * (HostCPU.data >> 21))
    bench.put(Self.dataFrame | 0x67 | noExecute, at: 0x2_4000)
    bench.put(Self.dataFrame + 0x1000 | 0x67 | noExecute, at: 0x2_4008)
    bench.put(Self.dataFrame + 0x2000 | 0x65 | noExecute, at: 0x2_4010)
    // The kernel: two pages of 2 MiB.
    bench.put(0x2_5063, at: 0x2_0800)
    bench.put(0x2_6063, at: 0x2_5000)
    bench.put(0x00_00E3, at: 0x2_6000)
    bench.put(0x20_00E3, at: 0x2_6008)
  }

  /// Puts the data into the state that a case begins in.
  mutating func setMemory(_ bytes: [UInt8]) { bench.ram.copy(bytes, to: Int(Self.dataFrame)) }

  func memory() -> [UInt8] {
    bench.ram.bytes(at: Int(Self.dataFrame), count: HostCPU.dataByteCount)
  }

  /// Executes a case until an exception ends it; what that leaves in the registers.
  mutating func execute(_ one: UserCase) -> UserRegisters {
    bench.ram.fill(0xCC, at: Int(Self.codeFrame), count: 0x1000)
    let offset = one.registers.rip - HostCPU.code
    bench.put(Array(one.code.prefix(Int(0x1000 - offset))), at: Self.codeFrame + offset)
    bench.put(one.data, at: Self.dataFrame + one.dataAddress - HostCPU.data)
    load(one.registers)
    for _ in 0..<64 {
      if cpu.step() != nil { break }
      if cpu.cpl == 0 { return ended() }
    }
    var result = store()
    result.vector = HostCPU.noEnd
    return result
  }

  private mutating func load(_ r: UserRegisters) {
    for number in 0..<16 { cpu.gpr[number] = r.gpr[number] }
    cpu.rip = r.rip
    cpu.rflags = r.rflags
    cpu.segments[1] = r.cs == 0x23 ? code32 : code64
    cpu.segments[1].selector = UInt16(r.cs)
    for number in [0, 2, 3] {
      cpu.segments[number] = data
      cpu.segments[number].selector = 0x2B
    }
    for number in [4, 5] {
      cpu.segments[number] = Segment()
      cpu.segments[number].isUnusable = true
    }
    cpu.segments[4].base = HostCPU.data + 0x100
    cpu.segments[5].base = HostCPU.data + 0x800
    cpu.cpl = 3
    cpu.cr2 = 0
    cpu.debug.dr6 = 0xFFFF_0FF0
    cpu.interruptShadow = 0
    cpu.pendingTrap = 0
    cpu.isHalted = false
    cpu.isShutdown = false
    cpu.pkru = 0x5555_5554
    func word(_ offset: Int) -> UInt64 {
      (0..<8).reduce(0) { $0 | UInt64(r.fxsave[offset + $1]) << UInt64(8 * $1) }
    }
    cpu.x87.setFXSAVEHeader(word(0), word(8), word(16))
    cpu.mxcsr = UInt32(truncatingIfNeeded: word(24))
    for number in 0..<8 {
      cpu.x87.setFXSAVERegister(
        number, low: word(32 + 16 * number),
        high: UInt16(truncatingIfNeeded: word(40 + 16 * number)))
    }
    for number in 0..<32 {
      cpu.vectors[4 * (number / 2) + number % 2] = word(160 + 8 * number)
    }
    cpu.updateMode()
  }

  /// The registers as they are.
  private mutating func store() -> UserRegisters {
    var r = UserRegisters()
    for number in 0..<16 { r.gpr[number] = cpu.gpr[number] }
    r.rip = cpu.rip
    r.rflags = cpu.rflags
    (r.cs, r.ss) = (UInt64(cpu.segments[1].selector), UInt64(cpu.segments[2].selector))
    (r.ds, r.es) = (UInt64(cpu.segments[3].selector), UInt64(cpu.segments[0].selector))
    (r.fs, r.gs) = (UInt64(cpu.segments[4].selector), UInt64(cpu.segments[5].selector))
    (r.fsBase, r.gsBase) = (cpu.segments[4].base, cpu.segments[5].base)
    func put(_ value: UInt64, _ offset: Int) {
      for lane in 0..<8 {
        r.fxsave[offset + lane] = UInt8(truncatingIfNeeded: value >> UInt64(8 * lane))
      }
    }
    let header = cpu.x87.fxsaveHeader()
    put(header.0, 0)
    put(UInt64(cpu.mxcsr), 24)
    for number in 0..<8 {
      let register = cpu.x87.fxsaveRegister(number)
      put(register.low, 32 + 16 * number)
      put(UInt64(register.high), 40 + 16 * number)
    }
    for number in 0..<32 {
      put(cpu.vectors[4 * (number / 2) + number % 2], 160 + 8 * number)
    }
    return r
  }

  /// The registers of the program that an exception has interrupted.
  private mutating func ended() -> UserRegisters {
    var r = store()
    r.vector = (cpu.rip &- Self.kernel &- Self.handlers) / 16
    var frame = cpu.gpr[4] & 0xFFFF
    if [8, 10, 11, 12, 13, 14, 17, 21].contains(r.vector) {
      r.errorCode = bench.get(frame)
      frame += 8
    }
    r.rip = bench.get(frame)
    r.cs = bench.get(frame + 8)
    r.rflags = bench.get(frame + 16)
    r.gpr[4] = bench.get(frame + 24)
    r.ss = bench.get(frame + 32)
    r.cr2 = r.vector == 14 ? cpu.cr2 : 0
    return r
  }
}
