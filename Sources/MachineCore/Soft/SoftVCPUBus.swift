// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import Processor
internal import SoftCPU
internal import Synchronization

/// What a software vCPU reaches: the interrupt hardware here, and the buses.
final class SoftVCPUBus: SoftBus {
  private let machine: Machine
  private let accelerator: SoftAccelerator
  private let hub: InterruptHub
  private let clock: GuestClock
  private let vcpu: SoftVCPU
  private let index: Int
  private let guest: GuestBus
  private var pvClock = ParavirtualClock()
  /// IA32_APIC_BASE, and the page of the APIC's registers.
  private var apicBase: UInt64 = 0
  private var localAPIC: UInt64 = .max

  init(_ machine: Machine, _ accelerator: SoftAccelerator, _ index: Int) {
    self.machine = machine
    self.accelerator = accelerator
    hub = accelerator.hub
    clock = accelerator.clock
    vcpu = accelerator.vcpus[index]
    self.index = index
    guest = GuestBus(machine, index)
    refreshBase()
  }

  /// The machine is reset.
  func reset() {
    refreshBase()
    pvClock = ParavirtualClock()
  }

  /// Runs `body`, which may wait for others, outside of the guest.
  @inline(__always)
  private func outside<T>(_ body: () -> T) -> T {
    vcpu.leaveGuest()
    defer { vcpu.enterGuest() }
    guest.refresh()
    return body()
  }

  // MARK: - Ports

  func readPort(_ port: UInt16, byteCount: Int) -> UInt32 {
    if InterruptHub.hasPort(port) {
      guard byteCount > 1 else { return UInt32(hub.readPort(port)) }
      // Each byte goes its own way, as on the bus.
      return (0..<UInt16(byteCount)).reduce(0) {
        $0 | readPort(port &+ $1, byteCount: 1) << UInt32(8 * $1)
      }
    }
    guard let width = AccessWidth(rawValue: UInt8(byteCount)) else { return .max }
    return outside { UInt32(truncatingIfNeeded: guest.read(port, width)) }
  }

  func writePort(_ port: UInt16, _ value: UInt32, byteCount: Int) {
    if InterruptHub.hasPort(port) {
      hub.writePort(port, UInt8(truncatingIfNeeded: value))
      for lane in 1..<UInt16(max(2, byteCount)) where lane < byteCount {
        writePort(port &+ lane, value >> UInt32(8 * lane) & 0xFF, byteCount: 1)
      }
      return
    }
    guard let width = AccessWidth(rawValue: UInt8(byteCount)) else { return }
    outside {
      guest.write(UInt64(value), port, width)
      for lane in 0..<UInt16(byteCount) where A20Gate.watches(port &+ lane) {
        let byte = UInt8(truncatingIfNeeded: value >> UInt32(8 * lane))
        accelerator.noteGate(port &+ lane, byte, machine.physical)
      }
    }
  }

  func readPort(_ port: UInt16, byteCount: Int, count: Int, into items: inout [UInt8]) -> Int {
    guard !InterruptHub.hasPort(port), let width = AccessWidth(rawValue: UInt8(byteCount)) else {
      return readItem(port, byteCount: byteCount, into: &items)
    }
    // As many as one request can hold; the instruction asks again for the rest.
    let most = min(count, LaneLayout.blockBytes / byteCount)
    let block = outside { guest.readBlock(port, width, count: most) }
    guard let block else { return readItem(port, byteCount: byteCount, into: &items) }
    items = block.memory.bytes(at: block.at, count: most * byteCount)
    return most
  }

  private func readItem(_ port: UInt16, byteCount: Int, into items: inout [UInt8]) -> Int {
    let value = readPort(port, byteCount: byteCount)
    items = (0..<byteCount).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
    return 1
  }

  func writePort(_ port: UInt16, byteCount: Int, items: [UInt8]) {
    guard let width = AccessWidth(rawValue: UInt8(byteCount)) else { return }
    let most = LaneLayout.blockBytes / byteCount * byteCount
    var rest = items[...]
    while !rest.isEmpty {
      let part = Array(rest.prefix(most))
      rest = rest.dropFirst(part.count)
      let isDone =
        part.count > byteCount && !InterruptHub.hasPort(port) && !A20Gate.watches(port)
        && outside {
          guest.writeBlock(port, width, count: part.count / byteCount) { $0.copy(part, to: $1) }
        }
      guard !isDone else { continue }
      for start in stride(from: 0, to: part.count, by: byteCount) {
        let value = (0..<byteCount).reduce(UInt32(0)) {
          $0 | UInt32(part[start + $1]) << UInt32(8 * $1)
        }
        writePort(port, value, byteCount: byteCount)
      }
    }
  }

  // MARK: - Memory

  private static let ioAPIC: UInt64 = 0xFEC0_0000

  func readMemory(_ address: UInt64, byteCount: Int) -> UInt64 {
    let page = address & ~0xFFF
    guard page == localAPIC || page == Self.ioAPIC else {
      return outside { guest.load(address, byteCount: byteCount) }
    }
    // The registers are words; a narrower access gets its part.
    let word =
      page == localAPIC
      ? hub.readLocalAPIC(UInt32(address & 0xFFC), cpu: index)
      : hub.readIOAPIC(address & 0xFFC)
    return UInt64(address & 15 < 4 || page != localAPIC ? word : 0) >> (8 * (address & 3))
  }

  func writeMemory(_ address: UInt64, _ value: UInt64, byteCount: Int) {
    let page = address & ~0xFFF
    guard page == localAPIC || page == Self.ioAPIC else {
      outside { guest.store(address, value, byteCount: byteCount) }
      return
    }
    // Only whole, aligned words reach a register (SDM volume 3, 10.4.1).
    guard byteCount >= 4, address & 15 == 0 else { return }
    let word = UInt32(truncatingIfNeeded: value)
    if page == localAPIC {
      hub.writeLocalAPIC(UInt32(address & 0xFFF), word, cpu: index)
    } else {
      hub.writeIOAPIC(address & 0xFFF, word)
    }
  }

  // MARK: - Interrupts

  func acknowledgeInterrupt() -> UInt8? { hub.acknowledge(cpu: index) }

  func readInterruptMSR(_ register: UInt32) -> UInt64? {
    register == Self.apicBase ? apicBase : hub.readMSR(register, cpu: index)
  }

  func writeInterruptMSR(_ register: UInt32, _ value: UInt64) -> Bool {
    guard hub.writeMSR(register, value, cpu: index) else { return false }
    if register == Self.apicBase { refreshBase() }
    return true
  }

  private static let apicBase: UInt32 = 0x1B

  /// Takes the APIC base register as it is; also after a reset.
  func refreshBase() {
    apicBase = hub.readMSR(Self.apicBase, cpu: index) ?? 0
    // Bit 11 enables the APIC, bit 10 takes its page away (x2APIC).
    localAPIC = apicBase >> 10 & 3 == 2 ? apicBase & 0xFF_FFFF_F000 : .max
  }

  var taskPriority: UInt8 {
    get { hub.taskPriority(cpu: index) }
    set { hub.setTaskPriority(newValue, cpu: index) }
  }

  // MARK: - Time

  func timeStamp() -> UInt64 { clock.timeStamp }
  var timeStampOffset: UInt64? { clock.timeStampOffset }

  /// The clock's MSRs as part of a vCPU's state.
  var clockRegisters: [ModelSpecificRegister] {
    ParavirtualClock.registers.compactMap { index in
      pvClock.read(index).map { ModelSpecificRegister(index: index, value: $0) }
    }
  }

  /// Takes what belongs to a vCPU's state and is not in its CPU: the registers of a saved clock,
  /// whose words in memory stay as they are, and the place of the local APIC.
  func take(_ registers: [ModelSpecificRegister]) {
    pvClock.restore(registers.map { ($0.index, $0.value) })
    refreshBase()
  }

  func readClockMSR(_ register: UInt32) -> UInt64? { pvClock.read(register) }

  func writeClockMSR(_ register: UInt32, _ value: UInt64) -> Bool {
    switch pvClock.write(register, value, clock, unixNow: HostClock.unixNanoseconds()) {
    case .unknown: return false
    case .nothing: return true
    case .store(let address, let bytes):
      // Where there is no RAM there is nobody to read it.
      try? machine.memory.write(bytes, at: address)
      machine.wasWritten(address, count: bytes.count)
      return true
    }
  }
}
