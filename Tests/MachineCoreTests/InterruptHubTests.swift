// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import LinuxSystem
import SoftCPU
import Synchronization
import Testing

@testable import MachineCore

/// A hub with its thread, and vCPUs that nobody runs.
private final class HubBench {
  let clock = GuestClock()
  let vcpus: [SoftVCPU]
  let hub: InterruptHub

  init(cpus: Int = 2) throws {
    let vcpus = try (0..<cpus).map { _ in try SoftVCPU() }
    self.vcpus = vcpus
    hub = try InterruptHub(vcpus, clock)
    let hub = hub
    try Thread.start("interrupts") { hub.serve() }
  }

  deinit { hub.end() }

  func start() {
    clock.start()
    hub.clockHasStarted()
  }

  /// Programs the first 8259 for vectors from 20h on, with one line open.
  func openLine(_ line: UInt8) {
    for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1)] as [(UInt16, UInt8)] {
      hub.writePort(port, value)
    }
    hub.writePort(0x21, ~(1 << line))
  }

  /// Waits for something at most two seconds.
  func waits(_ condition: () -> Bool) -> Bool {
    let end = HostClock.monotonic() + 2_000_000_000
    while !condition() {
      guard HostClock.monotonic() < end else { return false }
      HostClock.sleep(100_000)
    }
    return true
  }

  func isInterrupted(_ cpu: Int) -> Bool {
    vcpus[cpu].attention.pending & Attention.interrupt != 0
  }
}

@Suite(.timeLimit(.minutes(1)))
struct InterruptHubTests {
  @Test func `A device's pulse interrupts the first vCPU, once`() throws {
    let bench = try HubBench()
    bench.openLine(5)
    let event = try EventFile.make()
    bench.hub.addLine(5, event, ended: nil)
    #expect(!bench.isInterrupted(0))
    EventFile.signal(event)
    #expect(bench.waits { bench.isInterrupted(0) })
    #expect(bench.hub.acknowledge(cpu: 0) == 0x25)
    #expect(bench.hub.acknowledge(cpu: 0) == nil)
    #expect(!bench.isInterrupted(1))
  }

  @Test func `A level line's device is told when the interrupt has ended, and may ask again`()
    throws
  {
    let bench = try HubBench()
    bench.hub.writePort(0x4D0, 1 << 5)
    bench.openLine(5)
    let event = try EventFile.make()
    let ended = try EventFile.make()
    bench.hub.addLine(5, event, ended: ended)
    for _ in 0..<3 {
      EventFile.signal(event)
      #expect(bench.waits { bench.isInterrupted(0) })
      #expect(bench.hub.acknowledge(cpu: 0) == 0x25)
      bench.vcpus[0].attention.clear(Attention.interrupt)
      #expect(throws: SystemError.self) { try ended.read(8) }
      bench.hub.writePort(0x20, 0x20)
      #expect(try ended.read(8).count == 8)
      #expect(bench.hub.acknowledge(cpu: 0) == nil)
    }
  }

  @Test func `A timer interrupts when it is due, and not while the clock stands still`() throws {
    let bench = try HubBench(cpus: 1)
    // The APIC on, its timer once after 30 ms (1 GHz, divided by one).
    bench.hub.writeLocalAPIC(0xF0, 0x1FF, cpu: 0)
    bench.hub.writeLocalAPIC(0x320, 0x40, cpu: 0)
    bench.hub.writeLocalAPIC(0x3E0, 0xB, cpu: 0)
    bench.hub.writeLocalAPIC(0x380, 30_000_000, cpu: 0)
    HostClock.sleep(60_000_000)
    #expect(!bench.isInterrupted(0))
    bench.start()
    let start = HostClock.monotonic()
    #expect(bench.waits { bench.isInterrupted(0) })
    #expect(HostClock.monotonic() - start >= 29_000_000)
    #expect(bench.hub.acknowledge(cpu: 0) == 0x40)
  }

  @Test func `An earlier deadline wakes the thread that waits for a later one`() throws {
    let bench = try HubBench()
    bench.start()
    for (cpu, time) in [(0, UInt32(1_500_000_000)), (1, 20_000_000)] {
      bench.hub.writeLocalAPIC(0xF0, 0x1FF, cpu: cpu)
      bench.hub.writeLocalAPIC(0x320, 0x40, cpu: cpu)
      bench.hub.writeLocalAPIC(0x3E0, 0xB, cpu: cpu)
      bench.hub.writeLocalAPIC(0x380, time, cpu: cpu)
    }
    let start = HostClock.monotonic()
    #expect(bench.waits { bench.isInterrupted(1) })
    #expect(HostClock.monotonic() - start < 1_000_000_000)
    #expect(!bench.isInterrupted(0))
  }

  @Test func `INIT, start-up and NMI messages reach the vCPU they are for`() throws {
    let bench = try HubBench()
    bench.hub.writeLocalAPIC(0xF0, 0x1FF, cpu: 0)
    func send(_ command: UInt32) {
      bench.hub.writeLocalAPIC(0x310, 1 << 24, cpu: 0)
      bench.hub.writeLocalAPIC(0x300, command, cpu: 0)
    }
    send(0x4500)
    #expect(bench.vcpus[1].takeStart() == (true, nil))
    send(0x4612)
    #expect(bench.vcpus[1].takeStart() == (false, 0x12))
    send(0x4500)
    send(0x4634)
    #expect(bench.vcpus[1].takeStart() == (true, 0x34))
    send(0x4400)
    #expect(bench.vcpus[1].attention.pending & Attention.nmi != 0)
    #expect(bench.vcpus[0].takeStart() == (false, nil))
    #expect(bench.vcpus[0].attention.pending == 0)
  }
}

@Suite(.timeLimit(.minutes(1)))
struct SoftVCPUTests {
  @Test func `What is raised wakes a vCPU that sleeps, and not what it does not wait for`() throws {
    let vcpu = try SoftVCPU()
    let wakes = Atomic<Int>(0)
    let isDone = try Gate()
    try Thread.start("sleeper") {
      vcpu.sleep {
        wakes.add(1, ordering: .relaxed)
        return $0 & Attention.interrupt != 0
      }
      isDone.value = 1
    }
    vcpu.raise(Attention.nmi)
    isDone.wait(while: 0, timeout: 50_000_000)
    #expect(isDone.value == 0)
    vcpu.raise(Attention.interrupt)
    isDone.wait(while: 0, timeout: 2_000_000_000)
    #expect(isDone.value == 1)
    // Once at the start, and once for each that was raised: it does not spin.
    #expect(wakes.load(ordering: .relaxed) <= 4)
  }

  @Test func `A change of the memory map waits only for a vCPU that executes code`() throws {
    let vcpu = try SoftVCPU()
    vcpu.raise(Attention.mapChanged)
    func time() -> UInt64 {
      let start = HostClock.monotonic()
      vcpu.waitForFlush(until: start + 50_000_000)
      return HostClock.monotonic() - start
    }
    #expect(time() < 40_000_000)
    vcpu.enterGuest()
    #expect(time() >= 50_000_000)
    vcpu.attention.clear(Attention.mapChanged)
    #expect(time() < 40_000_000)
  }
}

@Suite struct GuestClockTests {
  @Test func `The counter stands still while the clock does, and goes on from there`() {
    let clock = GuestClock()
    #expect(clock.timeStamp == 0)
    clock.start()
    HostClock.sleep(5_000_000)
    clock.stop()
    let stopped = clock.timeStamp
    #expect(clock.now.nanoseconds >= 5_000_000)
    HostClock.sleep(20_000_000)
    #expect(clock.timeStamp == stopped)
    clock.start()
    #expect(clock.timeStamp >= stopped)
    #expect(clock.now.nanoseconds < clock.time(at: stopped).nanoseconds + 20_000_000)
  }

  @Test func `The counter's time is the host's within a part in ten thousand`() {
    let clock = GuestClock()
    clock.start()
    let start = (HostClock.monotonic(), clock.now.nanoseconds)
    HostClock.sleep(200_000_000)
    let end = (HostClock.monotonic(), clock.now.nanoseconds)
    let error = Int64(end.0 - start.0) - Int64(end.1 - start.1)
    #expect(abs(error) < 100_000)
  }

  @Test(arguments: [1_000_000, 2_445_406, 999_999, 400_000, 5_000_000, 1000] as [UInt64])
  func `The paravirtual clock's scale gives nanoseconds`(frequency: UInt64) {
    let (multiplier, shift) = ParavirtualClock.scale(frequency)
    let second = frequency * 1000
    let shifted = shift < 0 ? second >> UInt64(-shift) : second << UInt64(shift)
    let product = shifted.multipliedFullWidth(by: UInt64(multiplier))
    let nanoseconds = product.high << 32 | product.low >> 32
    #expect(abs(Int64(nanoseconds) - 1_000_000_000) < 2000)
    #expect(multiplier >= 1 << 31)
  }
}
