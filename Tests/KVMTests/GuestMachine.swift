// SPDX-License-Identifier: Apache-2.0

import Foundation
import KVM
import LinuxSystem
import Processor
import Synchronization
import Testing

/// Whether this host has a KVM that the tests can use.
let hasKVM = (try? Descriptor.open("/dev/kvm", O_RDWR)) != nil

/// Why a guest could not be assembled.
struct AssemblyError: Error, CustomStringConvertible {
  var description: String
}

/// Assembles `Guests/<name>.asm` with nasm; the code belongs at 1000h.
func assemble(_ name: String) throws -> [UInt8] {
  let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .appendingPathComponent("Guests/\(name).asm")
  let output = FileManager.default.temporaryDirectory
    .appendingPathComponent("bulkhead-\(getpid())-\(UUID().uuidString).bin")
  defer { try? FileManager.default.removeItem(at: output) }
  let nasm = Process()
  nasm.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  nasm.arguments = ["nasm", "-f", "bin", "-o", output.path, source.path]
  try nasm.run()
  nasm.waitUntilExit()
  guard nasm.terminationStatus == 0 else {
    throw AssemblyError(
      description: "nasm failed on \(name).asm (is the package nasm installed?)")
  }
  return [UInt8](try Data(contentsOf: output))
}

/// A virtual machine with 64 KiB of RAM at 0 and a guest's code at 1000h.
final class GuestMachine: Sendable {
  let system: KVMSystem
  let machine: VirtualMachine
  let ram: Mapping
  let cpus: [VCPU]

  init(
    _ guest: String, cpus count: UInt32 = 1, chips: Bool = false,
    flags: VirtualMachine.SlotFlags = []
  ) throws {
    let code = try assemble(guest)
    VCPU.prepareProcess()
    system = try KVMSystem(descriptor: try Descriptor.open("/dev/kvm", O_RDWR))
    machine = try system.createVM()
    try machine.setIdentityMapAddress(0xFFFB_C000)
    try machine.setTSSAddress(0xFFFB_D000)
    if chips {
      try machine.createInterruptChips()
      try machine.setRoutes(InterruptRoute.pc)
    }
    ram = try Mapping(
      try MemoryFile.make("test-ram", byteCount: 0x10000), byteCount: 0x10000, .readWrite)
    ram.copy(code, to: 0x1000)
    try machine.setMemorySlot(
      0, guestPhysical: 0, memory: ram, offset: 0, byteCount: 0x10000, flags: flags)
    let host = try system.supportedCPUID()
    var cpus: [VCPU] = []
    for id in 0..<count {
      let table = host.guest(id: id, count: count, hiding: [.cmpxchg16b])
      cpus.append(try machine.createVCPU(id, cpuid: table))
    }
    self.cpus = cpus
    try start(real: cpus[0])
  }

  var cpu: VCPU { cpus[0] }

  /// Puts a vCPU at 0000:1000 in real mode.
  private func start(real cpu: VCPU) throws {
    var system = try cpu.systemRegisters()
    system.cs.base = 0
    system.cs.selector = 0
    try cpu.setSystemRegisters(system)
    var registers = try cpu.registers()
    registers.rip = 0x1000
    registers.rsp = 0x9000
    try cpu.setRegisters(registers)
  }

  /// Puts vCPU 0 into protected mode with flat 32-bit segments.
  func enterFlatMode() throws {
    var system = try cpu.systemRegisters()
    system.cr0 |= 1
    system.cs = flat(type: 0xB, selector: 0x08)
    for segment in [\SystemRegisters.ds, \.es, \.fs, \.gs, \.ss] {
      system[keyPath: segment] = flat(type: 0x3, selector: 0x10)
    }
    try cpu.setSystemRegisters(system)
  }

  /// Puts vCPU 0 into 64-bit mode, with the first 2 MiB mapped one to one.
  func enterLongMode() throws {
    try enterFlatMode()
    ram.store(UInt64(0xB003), at: 0xA000)
    ram.store(UInt64(0xC003), at: 0xB000)
    ram.store(UInt64(0x0083), at: 0xC000)
    var system = try cpu.systemRegisters()
    system.cr3 = 0xA000
    system.cr4 |= 1 << 5
    system.efer |= 1 << 8 | 1 << 10
    system.cr0 |= 1 << 31
    system.cs.is32Bit = false
    system.cs.isLong = true
    try cpu.setSystemRegisters(system)
  }

  private func flat(type: UInt8, selector: UInt16) -> Segment {
    var segment = Segment()
    segment.limit = 0xFFFF_FFFF
    segment.selector = selector
    segment.type = type
    segment.isPresent = true
    segment.isCodeOrData = true
    segment.is32Bit = true
    segment.isPageGranular = true
    return segment
  }

  /// Runs a vCPU to its next exit; `interrupted` when ten seconds brought none.
  func run(_ cpu: VCPU) throws -> Exit {
    // Which thread runs a test is the test library's choice, and it blocks signals.
    VCPU.prepareThread()
    let isDone = Flag()
    try Thread.start("watchdog") {
      let end = HostClock.monotonic() + 10_000_000_000
      while !isDone.isSet && HostClock.monotonic() < end { HostClock.sleep(5_000_000) }
      if !isDone.isSet { cpu.kick() }
    }
    defer { isDone.set() }
    return try cpu.run()
  }

  func run() throws -> Exit { try run(cpu) }
}

/// A flag that threads share.
final class Flag: Sendable {
  private let value = Atomic<Bool>(false)
  var isSet: Bool { value.load(ordering: .acquiring) }
  func set() { value.store(true, ordering: .releasing) }

  /// Waits at most ten seconds; returns whether it is set.
  func wait() -> Bool {
    let end = HostClock.monotonic() + 10_000_000_000
    while !isSet && HostClock.monotonic() < end { HostClock.sleep(1_000_000) }
    return isSet
  }
}

extension Exit {
  /// The port access, if it is one.
  var ports: PortAccess? { if case .io(let access) = self { access } else { nil } }
  /// The memory access, if it is one.
  var memory: MemoryAccess? { if case .mmio(let access) = self { access } else { nil } }
}
