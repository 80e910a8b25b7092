// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import Processor
internal import SoftCPU
internal import Synchronization

/// The machine on the software CPU: the vCPUs, the interrupt hardware and the clock are here.
final class SoftAccelerator: Sendable {
  let vcpus: [SoftVCPU]
  let hub: InterruptHub
  let clock = GuestClock()
  private let tables: [CPUIDTable]
  /// For each vCPU where code is translated; made here, before the process is sealed.
  private let codeMemories: [CodeMemory?]
  private let gate = Mutex(A20Gate())

  /// Makes a vCPU for each table of what CPUID answers.
  init(_ tables: [CPUIDTable], translates: Bool) throws(SystemError) {
    var vcpus: [SoftVCPU] = []
    for _ in tables { vcpus.append(try SoftVCPU()) }
    self.vcpus = vcpus
    self.tables = tables
    codeMemories = tables.map { _ in translates ? CodeMemory() : nil }
    hub = try InterruptHub(vcpus, clock)
    try Thread.prepareFences()
  }

  func cpuid(_ index: Int) -> CPUIDTable { tables[index] }

  /// Whether each vCPU has memory for translated code.
  var hasCodeMemory: Bool { codeMemories.allSatisfy { $0 != nil } }

  /// The memory for a vCPU's translated code, if there is to be some.
  func codeMemory(_ index: Int) -> CodeMemory? { codeMemories[index] }

  func startThreads(_ machine: Machine) throws(SystemError) {
    try Thread.start("interrupts") { [hub] in hub.serve() }
    for index in vcpus.indices {
      try Thread.start("CPU \(index)/SOFT") {
        var loop = SoftLoop(machine, self, index)
        loop.run()
      }
    }
  }

  func startClock() {
    clock.start()
    hub.clockHasStarted()
  }

  /// Puts everything back to its first state; the vCPUs are parked.
  func reset(_ memory: PhysicalMemory) {
    gate.withLock { $0 = A20Gate() }
    memory.setA20(true)
    hub.reset()
    for vcpu in vcpus { vcpu.reset() }
    mapHasChanged()
  }

  /// The A20 gate, to be saved.
  var a20Gate: A20Gate { gate.withLock { $0 } }

  /// Puts a saved A20 gate in the place of this one; the vCPUs are parked.
  func restore(_ saved: A20Gate, _ memory: PhysicalMemory) {
    gate.withLock { $0 = saved }
    memory.setA20(saved.isOpen)
    mapHasChanged()
  }

  /// The guest has written a byte to a port that the A20 gate may depend on.
  ///
  /// Called by a vCPU that is not in the guest; returns when all see line 20 as it is now.
  func noteGate(_ port: UInt16, _ byte: UInt8, _ memory: PhysicalMemory) {
    let hasChanged = gate.withLock { gate in
      gate.note(port, byte)
      guard gate.isOpen != memory.isA20Open else { return false }
      memory.setA20(gate.isOpen)
      return true
    }
    if hasChanged { mapHasChanged() }
  }

  /// The memory map has changed: returns when no vCPU uses the old one.
  func mapHasChanged() {
    for vcpu in vcpus { vcpu.raise(Attention.mapChanged) }
    // A vCPU looks after every block; one that is not scheduled is not waited for for ever.
    let end = HostClock.monotonic() + 100_000_000
    for vcpu in vcpus { vcpu.waitForFlush(until: end) }
  }
}
