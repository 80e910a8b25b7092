// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Foundation
import LinuxSystem
import Monitor
import Synchronization
import TestSupport
import Testing

@testable import MachineCore

@Suite(.serialized, .timeLimit(.minutes(2)))
struct CoreDeviceTests {
  @Test(arguments: Bench.accelerators)
  func `A guest reaches the C device in every way`(
    accelerator: CoreSettings.Accelerator
  ) throws {
    let bench = try Bench("example", accelerator: accelerator)
    try bench.boot()
    try bench.wait { try bench.word(0xFF8) == 0x600D_600D }
    #expect(try bench.result(0) == 0x1122_3344)
    #expect(try bench.result(1) == 0x1122_ABCD)
    #expect(try bench.result(2) == 0x42)
    #expect(try bench.result(3) == 0x5A ^ 0x42)
    #expect(try bench.result(4) == 1000)
    for index in 0..<200 {
      let word = try bench.machine.memory.load(UInt16.self, at: 0x2000 + 2 * UInt64(index))
      #expect(word == UInt16(index))
    }
    #expect(try bench.result(5) == 55)
    #expect(try bench.result(6) == 0xFFFF_FFFF)
    #expect(try bench.result(7) == 1)
    let link = bench.machine.links[0]
    #expect(link.postedCount.load(ordering: .relaxed) > 0)
    #expect(link.mirroredCount.load(ordering: .relaxed) == 1)
    // Each live access that was answered is in one of the histograms, and took some time.
    let histograms = link.meter.histograms()
    // KVM does not hand on a block that is written as one.
    #expect(histograms.prefix(3).allSatisfy { $0.total > 0 && $0.sum > $0.total })
    #expect(
      histograms.reduce(0) { $0 + $1.total } == link.liveCount.load(ordering: .relaxed))
    #expect(bench.faults.isEmpty)
  }

  /// Checks the byte map: each value up to the device's count came to exactly one processor.
  func expectEachOnce(_ bench: Bench, cpus: UInt64) throws {
    try bench.machine.memory.store(UInt32(1), at: 0x900)
    try bench.wait { try bench.word(0xFF8) == UInt32(cpus) }
    let total = try (0..<cpus).reduce(0) { try $0 + Int(bench.word(0x910 + 4 * $1)) }
    #expect(total > 100)
    let map = try bench.machine.memory.bytes(at: 0x20000, count: 60000)
    let last = min(total, 59999)
    #expect(map[0] == 0)
    #expect(map[1...last].allSatisfy { $0 == 1 })
    #expect(map[(last + 1)...].allSatisfy { $0 == 0 })
  }

  @Test(arguments: Bench.accelerators)
  func `Two processors hammer the device, and each access is answered once`(
    accelerator: CoreSettings.Accelerator
  ) throws {
    let bench = try Bench("hammer", cpus: 2, accelerator: accelerator)
    try bench.boot()
    try bench.wait { try bench.word(0x910) > 2000 && bench.word(0x914) > 2000 }
    try expectEachOnce(bench, cpus: 2)
    #expect(bench.faults.isEmpty)
  }

  @Test(arguments: [UInt16(1), 2], Bench.accelerators)
  func `Killed while it is hammered, the device's successors answer each access once`(
    cpus: UInt16, accelerator: CoreSettings.Accelerator
  ) throws {
    let bench = try Bench("hammer", cpus: cpus, accelerator: accelerator)
    var process = try bench.boot()
    for round in 1...10 {
      let before = try bench.word(0x910)
      try bench.wait { try bench.word(0x910) > before + UInt32(round * 13) }
      kill(process.processIdentifier, SIGKILL)
      try bench.wait { bench.faults.count == round }
      process = try bench.startExample()
      try bench.wait { bench.ready.count == round + 1 }
    }
    let before = try bench.word(0x910)
    try bench.wait { try bench.word(0x910) > before + 100 }
    try expectEachOnce(bench, cpus: UInt64(cpus))
    #expect(bench.faults.allSatisfy { $0.kind == .gone })
  }

  @Test(arguments: Bench.accelerators)
  func `A silent device misses its deadline while the other processor goes on`(
    accelerator: CoreSettings.Accelerator
  ) throws {
    let bench = try Bench("second", cpus: 2, deadline: 300_000_000, accelerator: accelerator)
    let process = try bench.startExample()
    try bench.wait { bench.ready.count == 1 }
    kill(process.processIdentifier, SIGSTOP)
    bench.machine.run()
    try bench.wait { try bench.word(0x918) == 1 }
    let start = HostClock.monotonic()
    let count = try bench.word(0x914)
    try bench.wait { !bench.faults.isEmpty }
    #expect(HostClock.monotonic() - start < 1_000_000_000)
    #expect(bench.faults.map(\.kind) == [.deadline])
    #expect(try bench.word(0x914) > count)
    kill(process.processIdentifier, SIGKILL)
    try bench.startExample()
    try bench.wait { try bench.word(0x918) == 2 }
    #expect(try bench.word(0x91C) == 1)
    #expect(bench.faults.count == 1)
  }

  @Test(arguments: Bench.accelerators)
  func `A device that dies on one request again and again is poison`(
    accelerator: CoreSettings.Accelerator
  ) throws {
    let bench = try Bench("hammer", accelerator: accelerator)
    for round in 1...3 {
      let device = try FakeDevice(bench, "example")
      try device.comeUp(FakeDevice.exampleClaims)
      try bench.wait { bench.ready.count == round }
      if round == 1 { bench.machine.run() }
      try bench.wait { device.lane?.isRequested(0) ?? false }
      device.close()
      try bench.wait { bench.faults.count == round }
    }
    #expect(bench.faults.map(\.kind) == [.gone, .gone, .poison])
  }

  @Test(arguments: Bench.accelerators)
  func `The machine quits while a processor waits for a device`(
    accelerator: CoreSettings.Accelerator
  ) throws {
    let bench = try Bench("hammer", accelerator: accelerator)
    let device = try FakeDevice(bench, "example")
    try device.comeUp(FakeDevice.exampleClaims)
    try bench.wait { bench.ready.count == 1 }
    bench.machine.run()
    try bench.wait { device.lane?.isRequested(0) ?? false }
    device.close()
    try bench.wait { bench.faults.count == 1 }
    let start = HostClock.monotonic()
    bench.machine.quit()
    #expect(HostClock.monotonic() - start < 1_000_000_000)
    let link = bench.machine.links[0]
    try bench.wait { link.lane.isGarbled(0) }
  }

  @Test(arguments: Bench.accelerators)
  func `A pause does not wait for a device, and its time is no deadline`(
    accelerator: CoreSettings.Accelerator
  ) throws {
    let bench = try Bench("hammer", deadline: 300_000_000, accelerator: accelerator)
    let process = try bench.boot()
    try bench.wait { try bench.word(0x910) > 100 }
    kill(process.processIdentifier, SIGSTOP)
    HostClock.sleep(50_000_000)
    let start = HostClock.monotonic()
    bench.machine.pause("the test")
    #expect(HostClock.monotonic() - start < 4_000_000_000)
    kill(process.processIdentifier, SIGCONT)
    HostClock.sleep(400_000_000)
    bench.takeEvents()
    #expect(bench.faults.isEmpty)
    let count = try bench.word(0x910)
    HostClock.sleep(50_000_000)
    #expect(try bench.word(0x910) == count)
    bench.machine.resume()
    try bench.wait { try bench.word(0x910) > count }
    #expect(bench.faults.isEmpty)
  }

  @Test(arguments: Bench.accelerators)
  func `A reset reaches a device that was not there at the time`(
    accelerator: CoreSettings.Accelerator
  ) throws {
    let bench = try Bench("hammer", accelerator: accelerator)
    let process = try bench.boot()
    try bench.wait { try bench.word(0x910) > 500 }
    kill(process.processIdentifier, SIGKILL)
    try bench.wait { bench.faults.count == 1 }
    let start = HostClock.monotonic()
    try bench.machine.reset()
    #expect(HostClock.monotonic() - start < 1_000_000_000)
    try bench.machine.memory.fill(0, at: 0x900, count: 0x100)
    try bench.machine.memory.fill(0, at: 0x20000, count: 60000)
    try bench.startExample()
    try bench.wait { try bench.word(0x910) > 100 }
    try expectEachOnce(bench, cpus: 1)
    #expect(bench.machine.links[0].status == .up)
  }

  @Test(arguments: Bench.accelerators)
  func `Resets while two processors hammer the device leave nothing behind`(
    accelerator: CoreSettings.Accelerator
  ) throws {
    let bench = try Bench("hammer", cpus: 2, accelerator: accelerator)
    try bench.boot()
    for _ in 0..<20 {
      try bench.wait { try bench.word(0x910) > 50 && bench.word(0x914) > 50 }
      bench.machine.pause("the test clears memory")
      bench.machine.resume()
      try bench.machine.reset()
      bench.machine.pause("the test clears memory")
      try bench.machine.memory.fill(0, at: 0x900, count: 0x100)
      try bench.machine.memory.fill(0, at: 0x20000, count: 60000)
      try bench.machine.reset()
      bench.machine.resume()
    }
    try bench.wait { try bench.word(0x910) > 100 && bench.word(0x914) > 100 }
    try expectEachOnce(bench, cpus: 2)
    #expect(bench.faults.isEmpty)
  }
}
