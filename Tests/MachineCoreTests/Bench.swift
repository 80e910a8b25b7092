// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Foundation
import KVM
import LinuxSystem
import Processor
import Synchronization
import Testing

@testable import MachineCore
import TestSupport

/// Whether this host has a KVM that the tests can use.
let hostHasKVM = (try? Descriptor.open("/dev/kvm", O_RDWR)) != nil

/// A whole core with a tiny firmware; the test plays the launcher and the main thread.
final class Bench {
  /// What can run a guest here.
  static let accelerators: [CoreSettings.Accelerator] = hostHasKVM ? [.kvm, .soft] : [.soft]

  let machine: Machine
  var faults: [FaultMessage] = []
  var ready: [String] = []
  var resets = 0
  var ends: [String] = []
  var holds: [String] = []
  private var processes: [Process] = []
  private var fakes: Set<String> = []

  init(
    _ guest: String, cpus: UInt16 = 1, roles: [String] = ["example"],
    deadline: UInt64 = 2_000_000_000, start: Bool = true,
    accelerator: CoreSettings.Accelerator = .kvm
  ) throws {
    let devices = roles.map {
      CoreSettings.Device(
        role: $0, onFault: .restart, deadline: deadline, stateByteCount: 163840)
    }
    let settings = CoreSettings(
      common: CommonSettings(machine: "test", isStrict: false), accelerator: accelerator,
      cpuModel: "host", hasKVM: accelerator == .kvm, translates: true, memoryByteCount: 16 << 20,
      cpus: cpus, exitPort: 0x10000, hasControl: false, devices: devices)
    let output = FileManager.default.temporaryDirectory
      .appending(path: "bulkhead-\(UUID().uuidString).bin")
    defer { try? FileManager.default.removeItem(at: output) }
    let folder = root.appending(path: "Tests/MachineCoreTests/Guests").path() + "/"
    let built = try TestSupport.run(
      ["nasm", "-f", "bin", "-I", folder, "-o", output.path(), folder + guest + ".asm"])
    guard built.code == 0 else { throw Failure(reason: "nasm: \(built.output)") }
    machine = try Machine(
      settings,
      try .make(
        settings,
        kvm: settings.hasKVM ? try Descriptor.open("/dev/kvm", O_RDWR) : nil),
      firmware: try Descriptor.open(output.path(), O_RDONLY),
      statePages: try devices.map {
        try MemoryFile.make("state", byteCount: Int($0.stateByteCount))
      })
    if start { try machine.startThreads() }
  }

  deinit {
    for process in processes where process.isRunning { kill(process.processIdentifier, SIGKILL) }
    // Nobody answers for the devices that a test plays.
    for link in machine.links where fakes.contains(link.role) { link.status = .gone }
    machine.quit()
    for process in processes { process.waitUntilExit() }
  }

  /// Starts an example device and attaches it.
  @discardableResult
  func startExample() throws -> Process {
    let (socket, process) = try ExampleBinary.spawn()
    processes.append(process)
    fakes.remove("example")
    machine.attach("example", Channel(socket))
    return process
  }

  /// Attaches a device that the test plays.
  func fake(_ role: String) throws -> Channel {
    let (ours, theirs) = try PacketSocket.pair()
    machine.attach(role, Channel(theirs))
    fakes.insert(role)
    return Channel(ours)
  }

  func takeEvents() {
    for event in machine.takeEvents() {
      switch event {
      case .ready(let role): ready.append(role)
      case .fault(let message): faults.append(message)
      case .reset: resets += 1
      case .end(_, let reason): ends.append(reason)
      case .hold(let reason): holds.append(reason)
      case .suspend, .wake, .debugStop, .notice: break
      }
    }
  }

  /// Plays the main thread until something is so.
  func wait(_ seconds: Double = 10, until isSo: () throws -> Bool) throws {
    let end = HostClock.monotonic() + UInt64(seconds * 1e9)
    while true {
      takeEvents()
      if try isSo() { return }
      guard HostClock.monotonic() < end, ends.isEmpty else {
        throw Failure(reason: "in vain; faults \(faults), ends \(ends), at \(registers)")
      }
      HostClock.sleep(1_000_000)
    }
  }

  private var registers: String {
    let links = machine.links.map {
      "\($0.role) \($0.status) live \($0.liveCount.load(ordering: .relaxed))"
    }
    machine.park(timeout: 1_000_000_000)
    let cpus =
      switch machine.accelerator {
      case .kvm(let kvm, _): kvm.vcpus.map { (try? $0.state().registerText) ?? "?" }
      case .soft(let soft, _):
        soft.vcpus.map { $0.parkedState.withLock { $0?.registerText ?? "?" } }
      }
    return (links + cpus).joined(separator: "\n")
  }

  /// Starts an example device, and the machine when it is there.
  @discardableResult
  func boot() throws -> Process {
    let process = try startExample()
    try wait { ready.contains("example") }
    machine.run()
    return process
  }

  func word(_ address: UInt64) throws -> UInt32 {
    try machine.memory.load(UInt32.self, at: address)
  }

  func result(_ index: Int) throws -> UInt32 { try word(0x1000 + 4 * UInt64(index)) }
}
