// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
internal import KVM
public import LinuxSystem
internal import Processor
internal import SoftCPU

/// What runs the vCPUs, and why.
public struct AcceleratorChoice: Sendable {
  enum Kind: Sendable {
    case kvm(Descriptor)
    /// With what CPUID answers on each vCPU.
    case soft([CPUIDTable])
  }

  let kind: Kind
  /// The choice and its reason in words.
  public let text: String

  /// Whether the software CPU runs the machine.
  public var isSoft: Bool {
    if case .soft = kind { true } else { false }
  }

  /// Chooses as the machine file says; `auto` tries whether KVM can run what kernels use.
  public static func make(_ settings: CoreSettings, kvm: Descriptor?) throws(ProtocolError) -> Self
  {
    switch settings.accelerator {
    case .kvm:
      guard let kvm else { throw ProtocolError("there is no /dev/kvm") }
      return Self(kind: .kvm(kvm), text: "kvm: chosen by the machine file")
    case .soft: return try soft(settings, "chosen by the machine file")
    case .auto:
      guard let kvm else { return try soft(settings, "there is no usable /dev/kvm") }
      guard let failure = KVMProbe.run(kvm) else {
        return Self(kind: .kvm(kvm), text: "kvm: it runs what kernels use")
      }
      return try soft(settings, "KVM here cannot run what kernels use: \(failure)")
    }
  }

  private static func soft(_ settings: CoreSettings, _ reason: String) throws(ProtocolError)
    -> Self
  {
    guard let model = CPUModel(name: settings.cpuModel) else {
      throw ProtocolError("the software CPU has no model \(settings.cpuModel)")
    }
    let count = UInt32(settings.cpus)
    var tables: [CPUIDTable] = []
    do throws(CPUModelError) {
      for id in 0..<count {
        tables.append(try .soft(model, id: id, count: count))
      }
    } catch {
      throw ProtocolError("\(error)")
    }
    return Self(kind: .soft(tables), text: "soft: \(reason); CPU model \(settings.cpuModel)")
  }
}

/// What runs the vCPUs: they, the interrupt hardware and the guest's clock.
enum Accelerator: Sendable {
  case kvm(KVMAccelerator, String)
  case soft(SoftAccelerator, String)

  init(_ choice: AcceleratorChoice, cpus: UInt32, translates: Bool) throws {
    switch choice.kind {
    case .kvm(let device): self = .kvm(try KVMAccelerator(device, cpus: cpus), choice.text)
    case .soft(let tables):
      let soft = try SoftAccelerator(tables, translates: translates)
      let translator =
        !translates
        ? "off" : soft.hasCodeMemory ? "on" : "off: the host gives no memory to execute code in"
      self = .soft(soft, "\(choice.text), translator \(translator)")
    }
  }

  /// Which it is and why, for the operator.
  var text: String {
    switch self {
    case .kvm(let kvm, let text):
      kvm.handovers.value == 0
        ? text : "\(text); \(kvm.handovers.value) instructions by the software CPU"
    case .soft(_, let text): text
    }
  }

  var vm: VirtualMachine? {
    if case .kvm(let kvm, _) = self { kvm.vm } else { nil }
  }

  /// The writes that KVM collects, where it can.
  @inline(__always)
  var collected: CollectedWrites? {
    if case .kvm(let kvm, _) = self { kvm.collected } else { nil }
  }

  /// How many vCPUs there are.
  var count: Int {
    switch self {
    case .kvm(let kvm, _): kvm.vcpus.count
    case .soft(let soft, _): soft.vcpus.count
    }
  }

  func startThreads(_ machine: Machine) throws(SystemError) {
    switch self {
    case .kvm(let kvm, _): try kvm.startThreads(machine)
    case .soft(let soft, _): try soft.startThreads(machine)
    }
  }

  /// Gets every vCPU out of the guest, to look at what the machine wants.
  func kick() {
    switch self {
    case .kvm(let kvm, _): for vcpu in kvm.vcpus { vcpu.kick() }
    case .soft(let soft, _): for vcpu in soft.vcpus { vcpu.kick() }
    }
  }

  /// Puts the vCPUs, which are parked, and the interrupt hardware back to their first state.
  func reset(_ memory: PhysicalMemory) throws(KVMError) {
    switch self {
    case .kvm(let kvm, _): try kvm.reset()
    case .soft(let soft, _): soft.reset(memory)
    }
  }

  /// Gives out an interrupt line: an event raises it, or pulses it without `ended`.
  func addLine(_ gsi: UInt32, _ event: Descriptor, ended: Descriptor?) throws {
    switch self {
    case .kvm(let kvm, _): try kvm.addLine(gsi, event, ended: ended)
    case .soft(let soft, _): soft.hub.addLine(gsi, event, ended: ended)
    }
  }

  func startClock() {
    if case .soft(let soft, _) = self { soft.startClock() }
  }

  func stopClock() {
    if case .soft(let soft, _) = self { soft.clock.stop() }
  }

  /// The machine ends: no thread of its waits any more.
  func end() {
    kick()
    if case .soft(let soft, _) = self { soft.hub.end() }
  }

  /// The memory map has changed; returns when no software vCPU uses the old one.
  func mapHasChanged() {
    switch self {
    case .kvm(let kvm, _): kvm.handovers.mapHasChanged()
    case .soft(let soft, _): soft.mapHasChanged()
    }
  }
}
