// SPDX-License-Identifier: Apache-2.0

import KVM
import LinuxSystem
import Processor
import Testing

@Suite(
  "vCPUs on /dev/kvm", .enabled(if: hasKVM, "needs a /dev/kvm that can be read and written"),
  .serialized, .timeLimit(.minutes(2)))
struct VCPURunTests {
  @Test("port accesses carry their data both ways, and HLT ends the guest")
  func ports() throws {
    let guest = try GuestMachine("ports")
    let cpu = guest.cpu

    let out = try #require(try guest.run().ports)
    #expect(out.isWrite && out.port == 0x80 && out.width == 1 && out.count == 1)
    #expect(cpu.portData(out) == 0x42)

    let input = try #require(try guest.run().ports)
    #expect(!input.isWrite && input.port == 0x1F0 && input.width == 2)
    cpu.setPortData(input, 0, 0xCAFE)
    let echo = try #require(try guest.run().ports)
    #expect(echo.isWrite && echo.port == 0x3F8 && cpu.portData(echo) == 0xCAFE)

    let buffer = try Mapping(
      try MemoryFile.make("block", byteCount: 4096), byteCount: 4096, .readWrite)
    let words = (0..<16).map { UInt8($0 * 3 + 1) }
    buffer.copy(words, to: 32)
    var given = 0
    while given < 16 {
      let access = try #require(try guest.run().ports)
      #expect(!access.isWrite && access.port == 0x1F0)
      cpu.setPortData(access, from: buffer, at: 32 + given)
      given += access.byteCount
    }
    var taken = 0
    while taken < 16 {
      let access = try #require(try guest.run().ports)
      #expect(access.isWrite && access.port == 0x1F2)
      cpu.copyPortData(access, to: buffer, at: 64 + taken)
      taken += access.byteCount
    }
    #expect(given == 16 && taken == 16)
    #expect(guest.ram.bytes(at: 0x3000, count: 16) == words)
    #expect(buffer.bytes(at: 64, count: 16) == words)
    #expect(try guest.run() == .halt)
  }

  @Test("memory without a slot and writes to a read-only slot are exits")
  func memory() throws {
    let guest = try GuestMachine("mmio")
    let rom = try Mapping(
      try MemoryFile.make("rom", byteCount: 4096), byteCount: 4096, .readWrite)
    rom.fill(0x77, at: 0, count: 4096)
    try guest.machine.setMemorySlot(
      1, guestPhysical: 0xF0000, memory: rom, offset: 0, byteCount: 4096, flags: .readOnly)

    let write = try #require(try guest.run().memory)
    #expect(write.isWrite && write.address == 0xA0004 && write.byteCount == 2)
    #expect(write.data == 0xBEEF)
    let read = try #require(try guest.run().memory)
    #expect(!read.isWrite && read.address == 0xA0008 && read.byteCount == 4)
    guest.cpu.setMemoryData(0x1234_5678)
    let romWrite = try #require(try guest.run().memory)
    #expect(romWrite.isWrite && romWrite.address == 0xF0010 && romWrite.data == 0x55)
    #expect(try guest.run() == .halt)

    #expect(guest.ram.load(UInt32.self, at: 0x3000) == 0x1234_5678)
    #expect(guest.ram.load(UInt16.self, at: 0x3004) == 0x7777)
    #expect(rom.load(UInt8.self, at: 0x10) == 0x77)
  }

  @Test("a triple fault is a shutdown")
  func tripleFault() throws {
    let guest = try GuestMachine("triple")
    try guest.enterLongMode()
    #expect(try guest.run() == .shutdown)
  }

  @Test("an event file raises an interrupt line")
  func eventInterrupt() throws {
    let guest = try GuestMachine("interrupt", chips: true)
    let event = try EventFile.make()
    try guest.machine.addInterruptEvent(4, event)
    let ready = try #require(try guest.run().ports)
    #expect(guest.cpu.portData(ready) == 1)

    EventFile.signal(event)

    let handled = try #require(try guest.run().ports)
    #expect(handled.port == 0x80 && guest.cpu.portData(handled) == 2)
    try guest.machine.removeInterruptEvent(4, event)
  }

  @Test("a second vCPU waits for INIT and its start-up message")
  func startup() throws {
    let guest = try GuestMachine("startup", cpus: 2, chips: true)
    #expect(try guest.cpus[1].runState() == .uninitialized)
    try guest.enterFlatMode()
    let answered = Flag()
    try Thread.start("CPU 1/KVM") {
      for _ in 0..<100 {
        guard let exit = try? guest.run(guest.cpus[1]) else { return }
        guard let access = exit.ports else { continue }
        if access.port == 0x81 && guest.cpus[1].portData(access) == 7 { answered.set() }
        return
      }
    }

    let sent = try #require(try guest.run().ports)

    #expect(sent.port == 0x80)
    #expect(answered.wait())
  }

  @Test("kicks from another thread end a run, and none is lost", arguments: [0, 1, 50, 2000])
  func kick(delay: UInt64) throws {
    let guest = try GuestMachine("spin")
    let cpu = guest.cpu
    #expect(try guest.run().ports?.port == 0x80)
    let start = HostClock.monotonic()
    var interrupted = 0

    for _ in 0..<20 {
      let sent = Flag()
      try Thread.start("kicker") {
        HostClock.sleep(delay * 1000)
        cpu.kick()
        sent.set()
      }
      if try guest.run() == .interrupted && sent.wait() { interrupted += 1 }
    }

    #expect(interrupted == 20)
    // Each kick was taken by one run: the watchdog's is not needed for a count of 20 in time.
    #expect(HostClock.monotonic() - start < 9_000_000_000)
  }

  @Test("a kick before the run ends the run at once")
  func earlyKick() throws {
    let guest = try GuestMachine("spin")
    guest.cpu.kick()
    let start = HostClock.monotonic()
    #expect(try guest.run() == .interrupted)
    #expect(HostClock.monotonic() - start < 5_000_000_000)
    #expect(try guest.run().ports?.port == 0x80)
  }

  @Test("the dirty log has exactly the pages that the guest wrote, once")
  func dirtyLog() throws {
    let guest = try GuestMachine("dirty", flags: .logDirty)
    #expect(try guest.run() == .halt)
    let first = try guest.machine.takeDirtyLog(slot: 0, pageCount: 16)
    let second = try guest.machine.takeDirtyLog(slot: 0, pageCount: 16)
    #expect(first == [1 << 3 | 1 << 5 | 1 << 6])
    #expect(second == [0])
  }

  @Test("64-bit code runs at CPL 0")
  func longMode() throws {
    let guest = try GuestMachine("long")
    try guest.enterLongMode()
    let access = try #require(try guest.run().ports)
    #expect(access.width == 4 && guest.cpu.portData(access) == 0x1122_3344)
    #expect(try guest.cpu.registers().rax == 0x1122_3344)
    #expect(try guest.cpu.registers().r8 == 0x1122_3344)
    #expect(try guest.run() == .halt)
  }
}
