// SPDX-License-Identifier: Apache-2.0

import Processor
import Testing

@testable import SoftCPU

/// What the models of the software CPU say of themselves, and whether it is true.
@Suite("CPU models")
struct CPUModelTests {
  private static func table(_ model: CPUModel, id: UInt32 = 0, count: UInt32 = 1) throws
    -> CPUIDTable
  {
    try CPUIDTable.soft(model, id: id, count: count)
  }

  /// A register of a leaf.
  struct Bit: Sendable, CustomTestStringConvertible {
    var leaf: UInt32
    var register: Character
    var bit: UInt32
    var name: String
    var bytes: [UInt8]

    init(_ leaf: UInt32, _ register: Character, _ bit: UInt32, _ name: String, _ bytes: [UInt8]) {
      (self.leaf, self.register, self.bit, self.name, self.bytes) =
        (leaf, register, bit, name, bytes)
    }

    var testDescription: String { name }

    func isOffered(_ table: CPUIDTable) -> Bool {
      guard let entry = table.entry(leaf) else { return false }
      let word =
        switch register {
        case "a": entry.eax
        case "b": entry.ebx
        case "c": entry.ecx
        default: entry.edx
        }
      return word >> bit & 1 != 0
    }
  }

  /// An instruction of each feature, with operands in registers or at RAX.
  private static let bits = [
    Bit(1, "d", 0, "x87", [0xD9, 0xE8]),
    Bit(1, "d", 4, "TSC", [0x0F, 0x31]),
    Bit(1, "d", 8, "CMPXCHG8B", [0x0F, 0xC7, 0x08]),
    Bit(1, "d", 15, "CMOV", [0x0F, 0x44, 0xC8]),
    Bit(1, "d", 19, "CLFLUSH", [0x0F, 0xAE, 0x38]),
    Bit(1, "d", 23, "MMX", [0x0F, 0xFC, 0xC1]),
    Bit(1, "d", 24, "FXSAVE", [0x0F, 0xAE, 0x00]),
    Bit(1, "d", 25, "SSE", [0x0F, 0x58, 0xC1]),
    Bit(1, "d", 26, "SSE2", [0x66, 0x0F, 0x58, 0xC1]),
    Bit(1, "c", 0, "SSE3", [0xF2, 0x0F, 0xD0, 0xC1]),
    Bit(1, "c", 1, "PCLMULQDQ", [0x66, 0x0F, 0x3A, 0x44, 0xC1, 0]),
    Bit(1, "c", 3, "MONITOR", [0x0F, 0x01, 0xC8]),
    Bit(1, "c", 9, "SSSE3", [0x66, 0x0F, 0x38, 0x00, 0xC1]),
    Bit(1, "c", 12, "FMA", [0xC4, 0xE2, 0xF1, 0x98, 0xC2]),
    Bit(1, "c", 13, "CMPXCHG16B", [0x48, 0x0F, 0xC7, 0x08]),
    Bit(1, "c", 19, "SSE4.1", [0x66, 0x0F, 0x38, 0x40, 0xC1]),
    Bit(1, "c", 20, "SSE4.2", [0x66, 0x0F, 0x38, 0x37, 0xC1]),
    Bit(1, "c", 22, "MOVBE", [0x0F, 0x38, 0xF0, 0x08]),
    Bit(1, "c", 23, "POPCNT", [0xF3, 0x0F, 0xB8, 0xC8]),
    Bit(1, "c", 25, "AES", [0x66, 0x0F, 0x38, 0xDC, 0xC1]),
    Bit(1, "c", 26, "XSAVE", [0x0F, 0xAE, 0x20]),
    Bit(1, "c", 28, "AVX", [0xC5, 0xF0, 0x58, 0xC2]),
    Bit(1, "c", 29, "F16C", [0xC4, 0xE2, 0x79, 0x13, 0xC1]),
    Bit(1, "c", 30, "RDRAND", [0x0F, 0xC7, 0xF1]),
    Bit(7, "b", 0, "FSGSBASE", [0xF3, 0x0F, 0xAE, 0xC1]),
    Bit(7, "b", 3, "BMI1", [0xC4, 0xE2, 0x70, 0xF2, 0xC8]),
    Bit(7, "b", 5, "AVX2", [0xC5, 0xF5, 0xFE, 0xC2]),
    Bit(7, "b", 8, "BMI2", [0xC4, 0xE2, 0x73, 0xF5, 0xC8]),
    Bit(7, "b", 10, "INVPCID", [0x66, 0x0F, 0x38, 0x82, 0x08]),
    Bit(7, "b", 18, "RDSEED", [0x0F, 0xC7, 0xF9]),
    Bit(7, "b", 19, "ADX", [0x66, 0x0F, 0x38, 0xF6, 0xC8]),
    Bit(7, "b", 20, "SMAP", [0x0F, 0x01, 0xCA]),
    Bit(7, "b", 29, "SHA", [0x0F, 0x38, 0xC8, 0xC1]),
    Bit(7, "c", 3, "PKU", [0x0F, 0x01, 0xEE]),
    Bit(7, "c", 22, "RDPID", [0xF3, 0x0F, 0xC7, 0xF9]),
    Bit(0x8000_0001, "c", 0, "LAHF", [0x9F]),
    Bit(0x8000_0001, "c", 8, "PREFETCHW", [0x0F, 0x0D, 0x08]),
    Bit(0x8000_0001, "d", 11, "SYSCALL", [0x0F, 0x05]),
    Bit(0x8000_0001, "d", 27, "RDTSCP", [0x0F, 0x01, 0xF9]),
  ]

  /// Executes an instruction as the kernel with everything enabled; whether it exists.
  private static func exists(_ bytes: [UInt8], _ table: CPUIDTable) throws -> Bool {
    let bench = try SystemBench()
    var cpu = bench.makeCPU(table)
    bench.restart(&cpu, isLong: true)
    cpu.cr4 = 0x620
    for (leaf, register, bit, mask) in [
      (7, \CPUIDTable.Entry.ebx, 0, 1 << 16), (1, \.ecx, 26, 1 << 18), (7, \.ecx, 3, 1 << 22),
    ] as [(UInt32, KeyPath<CPUIDTable.Entry, UInt32>, UInt32, UInt64)] {
      if (table.entry(leaf)?[keyPath: register] ?? 0) >> bit & 1 != 0 { cpu.cr4 |= mask }
    }
    cpu.xcr0 = cpu.supportedXCR0
    cpu.msrs.star = 0x0020_0018 << 32
    cpu.msrs.lstar = SystemBench.code
    (cpu.gpr[0], cpu.gpr[1]) = (0x3000, 0)
    bench.run(&cpu, bytes)
    return cpu.rip != SystemBench.handlers + 16 * 6
  }

  @Test("the instructions of a feature exist where it is offered, else not", arguments: bits)
  func features(bit: Bit) throws {
    for model in [CPUModel.host, .v2] {
      let table = try Self.table(model)
      let exists = try Self.exists(bit.bytes, table)
      // What every x86-64 processor has cannot be taken away.
      #expect(exists == bit.isOffered(table), "\(model)")
    }
  }

  @Test("the base model has all of x86-64-v2")
  func levelTwo() throws {
    let table = try Self.table(.v2)
    let names: Set = [
      "x87", "CMPXCHG8B", "CMOV", "MMX", "FXSAVE", "SSE", "SSE2", "SSE3", "SSSE3", "CMPXCHG16B",
      "SSE4.1", "SSE4.2", "POPCNT", "LAHF", "SYSCALL",
    ]
    let missing = Self.bits.filter { names.contains($0.name) && !$0.isOffered(table) }
    #expect(missing.map(\.name) == [])
    #expect(CPUModel(name: "base") == .v2)
  }

  @Test("x86-64-v3 is offered only with AVX2")
  func levelThree() throws {
    guard let table = try? Self.table(.v3) else {
      #expect(throws: CPUModelError(model: .v3, missing: "AVX2")) { try Self.table(.v3) }
      return
    }
    let missing = Self.bits.filter {
      ["AVX", "AVX2", "FMA", "F16C", "BMI1", "BMI2", "MOVBE"].contains($0.name)
        && !$0.isOffered(table)
    }
    #expect(missing.map(\.name) == [])
  }

  @Test("the topology is one socket of single-threaded cores", arguments: [1, 2, 4] as [UInt32])
  func topology(count: UInt32) throws {
    for id in 0..<count {
      let table = try Self.table(.host, id: id, count: count)
      let one = table.entry(1)
      let levels = table.entry(0xB, 1)
      #expect(one.map { $0.ebx >> 24 } == id)
      #expect(one.map { $0.edx >> 28 & 1 } == (count > 1 ? 1 : 0))
      #expect(levels?.ebx == count)
      #expect(levels?.edx == id)
      #expect(table.entry(0x8000_0008).map { $0.ecx & 0xFF } == count - 1)
    }
  }

  @Test("the hypervisor is KVM with its stable clock, without what needs hypercalls")
  func hypervisor() throws {
    let table = try Self.table(.host)
    let signature = table.entry(0x4000_0000)
    let features = table.entry(0x4000_0001)
    #expect(table.entry(1).map { $0.ecx >> 31 } == 1)
    #expect(signature?.ebx == 0x4B4D_564B)
    #expect(features?.eax == 1 << 0 | 1 << 1 | 1 << 3 | 1 << 24)
    #expect(table.entry(0x8000_0007).map { $0.edx >> 8 & 1 } == 1)
  }

  @Test("PKU is offered only where XSAVE keeps PKRU")
  func keys() throws {
    let table = try Self.table(.host)
    let hasKeys = (table.entry(7)?.ecx ?? 0) >> 3 & 1 != 0
    let keepsKeys = (table.entry(0xD, 0)?.eax ?? 0) >> 9 & 1 != 0
    #expect(hasKeys == keepsKeys)
  }

  @Test(
    "XSAVE and XSAVEC keep PKRU where CPUID says",
    arguments: [[0x0F, 0xAE, 0x20], [0x0F, 0xC7, 0x20]])
  func savedKeys(bytes: [UInt8]) throws {
    let bench = try SystemBench()
    let table = try Self.table(.host)
    var cpu = bench.makeCPU(table)
    bench.restart(&cpu, isLong: true)
    cpu.cr4 |= 1 << 18 | 1 << 22
    cpu.xcr0 = cpu.supportedXCR0
    cpu.pkru = 0x5555_5554
    cpu.gpr[2] = 0
    let isCompact = bytes[1] == 0xC7
    // EDX:EAX asks for PKRU alone; the area is at RDI.
    let store = [bytes[0], bytes[1], bytes[2] | 7]
    (cpu.gpr[7], cpu.gpr[0]) = (0x3000, 1 << 9)
    bench.run(&cpu, store)
    cpu.pkru = 0
    bench.run(&cpu, [0x0F, 0xAE, 0x2F])  // xrstor [rdi]
    #expect(bench.get32(0x3000 + (isCompact ? 576 : 832)) == 0x5555_5554)
    #expect(bench.get(0x3000 + 512) == 1 << 9)
    #expect(cpu.pkru == 0x5555_5554)
    #expect(cpu.rip == SystemBench.code + 6)
  }
}
