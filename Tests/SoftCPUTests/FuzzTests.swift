// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import Processor
import Testing

@testable import SoftCPU

/// Random code in every mode: whatever a guest executes, the outcome is progress or an exception
/// of its own.
@Suite("Random code")
struct FuzzTests {
  /// Values at which things change, and any others.
  private static func value(_ random: inout SplitMix) -> UInt64 {
    let edges: [UInt64] = [
      0, 1, 7, 0x10, 0x7F, 0x80, 0xFF, 0xFFF, 0x1000, 0x7FFF, 0x8000, 0xFFFF, 0x1_0000,
      0x3F_FFFC, 0x40_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x7FFF_FFFF_FFFF,
      0x8000_0000_0000, 0xFFFF_8000_0000_0000, 0x7FFF_FFFF_FFFF_FFFF, 0x8000_0000_0000_0000,
      .max, .max - 7,
    ]
    switch random.next() % 4 {
    case 0: return random.next() % 0x40_0000
    case 1: return random.next()
    default: return edges[Int(random.next() % UInt64(edges.count))]
    }
  }

  private static func code(_ random: inout SplitMix) -> [UInt8] {
    var bytes: [UInt8] = []
    let prefixes: [UInt8] = [0x66, 0x67, 0xF2, 0xF3, 0xF0, 0x64, 0x2E, 0x48, 0x4F, 0x41]
    let opcodes: [UInt8] = [
      0x8E, 0x9A, 0xEA, 0xCB, 0xCA, 0xCF, 0xCD, 0x07, 0x17, 0x1F, 0xC4, 0xC5, 0xFF, 0x9D, 0xA4,
      0xA5, 0xAB, 0x6D, 0x6F, 0xC8, 0x62, 0xD9, 0xDB, 0xDD, 0xD4, 0xF7, 0xF6,
    ]
    while bytes.count < 64 {
      if random.next() % 4 == 0 { bytes.append(prefixes[Int(random.next() % 10)]) }
      switch random.next() % 4 {
      case 0: bytes.append(0x0F)
      case 1: bytes.append(opcodes[Int(random.next() % UInt64(opcodes.count))])
      default: break
      }
      for _ in 0..<random.next() % 6 { bytes.append(UInt8(truncatingIfNeeded: random.next())) }
    }
    return bytes
  }

  /// Puts the vCPU into one of the modes.
  private static func enter(
    _ cpu: inout SoftCPU, _ mode: UInt64, _ bench: SystemBench, _ random: inout SplitMix
  ) {
    switch mode {
    case 0:
      cpu.reset()
      cpu.loadPlainSegment(1, 0x800)
      cpu.loadPlainSegment(2, 0xA00)
      cpu.rip = 0
    case 1:
      bench.restart(&cpu, isLong: false)
      cpu.rflags = 0x2_0202 | random.next() & 0x3000
      cpu.cpl = 3
      for number in 0..<6 { cpu.segments[number] = SoftCPU.virtualSegment(0x800) }
      cpu.updateMode()
      cpu.rip = 0
    case 2, 3:
      bench.restart(&cpu, isLong: false)
      if mode == 3 { bench.enterUser(&cpu, SystemBench.Selector.userCode32) }
    case 4, 5:
      bench.restart(&cpu, isLong: true)
      if mode == 5 { bench.enterUser(&cpu, SystemBench.Selector.userCode64) }
    default:
      bench.restart(&cpu, isLong: true)
      bench.enterUser(&cpu, SystemBench.Selector.userCode32)
    }
  }

  /// The cases of each mode; more where the environment asks for them.
  private static let caseCount =
    ProcessInfo.processInfo.environment["BULKHEAD_FUZZ_CASES"].flatMap { Int($0) } ?? 400

  @Test("random code never stops the processor", arguments: UInt64(0)..<7)
  func random(mode: UInt64) throws {
    let bench = try SystemBench()
    var random = SplitMix(state: mode &* 0x1_0000 &+ 0xB11)
    var cpu = bench.makeCPU()
    var executed = 0
    for _ in 0..<Self.caseCount {
      Self.enter(&cpu, mode, bench, &random)
      for number in 0..<16 { cpu.gpr[number] = Self.value(&random) }
      if random.next() % 2 == 0 { cpu.gpr[4] = 0xA000 }
      if random.next() % 8 == 0 { cpu.systemFlags |= 0x100 }
      if random.next() % 8 == 0 { cpu.debug.dr7 = random.next() & 0xFFFF_27FF | 0x400 }
      cpu.updateMode()
      let place = (cpu.segmentBase[1] &+ cpu.rip) & 0x3F_F000
      bench.put(Self.code(&random), at: place)
      for _ in 0..<24 {
        executed += 1
        guard Self.advance(&cpu, random.next() % 2 == 0) else { break }
      }
    }
    #expect(executed >= Self.caseCount)
    if Self.caseCount > 400 { print("mode \(mode): \(executed) instructions or blocks") }
  }

  /// Executes one instruction or one block; `false` after a triple fault.
  private static func advance(_ cpu: inout SoftCPU, _ isBlock: Bool) -> Bool {
    cpu.isHalted = false
    guard isBlock, !cpu.needsCare else { return cpu.step() != .shutdown }
    cpu.leavesBlock = false
    do throws(Fault) {
      guard let place = try cpu.block() else { return cpu.step() != .shutdown }
      try cpu.executeBlock(place)
    } catch {
      return cpu.deliver(error)
    }
    return true
  }

  @Test("a random state that is set never stops the processor")
  func randomState() throws {
    let bench = try SystemBench()
    var random = SplitMix(state: 0x57A7E)
    var cpu = bench.makeCPU()
    for _ in 0..<Self.caseCount {
      bench.restart(&cpu, isLong: true)
      var state = cpu.state
      state.system.cr0 = random.next() & 0xE005_003F
      state.system.cr4 = random.next() & 0x77_0FFF
      state.system.efer = random.next() & 0xD01
      state.system.cr3 = random.next() & 0x3F_F000
      state.system.cs.isLong = random.next() & 1 != 0
      state.system.cs.is32Bit = random.next() & 1 != 0
      state.system.ss.privilege = UInt8(random.next() & 3)
      state.system.tr.limit = UInt32(truncatingIfNeeded: Self.value(&random))
      state.system.tr.base = Self.value(&random)
      state.system.gdt.base = Self.value(&random)
      state.system.idt.base = Self.value(&random)
      state.system.idt.limit = UInt16(truncatingIfNeeded: Self.value(&random))
      state.system.cs.limit = UInt32(truncatingIfNeeded: Self.value(&random))
      state.registers.rip = Self.value(&random)
      state.registers.rsp = Self.value(&random)
      state.registers.rflags = random.next()
      state.events.exceptionIsInjected = random.next() & 1 != 0
      state.events.exceptionVector = UInt8(random.next() & 31)
      cpu.state = state
      bench.put(Self.code(&random), at: state.registers.rip & 0x3F_F000)
      for _ in 0..<8 {
        guard Self.advance(&cpu, random.next() % 2 == 0) else { break }
      }
    }
    let last = cpu.state
    #expect(last.registers.rflags & 2 == 2)
  }
}
