// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

/// Where an interrupt line (GSI) of the machine leads.
public struct InterruptRoute: Hashable, Sendable {
  /// The chips of a PC, and messages.
  public enum Target: Hashable, Sendable {
    /// The first 8259: lines 0 to 7.
    case firstPIC(pin: UInt32)
    /// The second 8259: lines 8 to 15.
    case secondPIC(pin: UInt32)
    /// The I/O APIC: 24 pins.
    case ioAPIC(pin: UInt32)
    /// A message to the local APICs (MSI).
    case message(address: UInt64, data: UInt32)
  }

  public var gsi: UInt32
  public var target: Target

  public init(gsi: UInt32, _ target: Target) {
    self.gsi = gsi
    self.target = target
  }

  /// The routes of the `pc` machine: the timer's line 0 reaches pin 2 of the I/O APIC, as the
  /// ACPI tables' interrupt override says.
  public static let pc: [InterruptRoute] = {
    var routes: [InterruptRoute] = []
    for gsi in UInt32(0)..<24 {
      if gsi < 8 {
        routes.append(InterruptRoute(gsi: gsi, .firstPIC(pin: gsi)))
      } else if gsi < 16 {
        routes.append(InterruptRoute(gsi: gsi, .secondPIC(pin: gsi - 8)))
      }
      // Line 2 is the cascade of the second 8259: no device has it.
      if gsi != 2 { routes.append(InterruptRoute(gsi: gsi, .ioAPIC(pin: gsi == 0 ? 2 : gsi))) }
    }
    return routes
  }()
}

extension VirtualMachine {
  /// Puts two 8259s, an I/O APIC and the local APICs into the kernel; before any vCPU.
  public func createInterruptChips() throws(KVMError) {
    try asking { () throws(SystemError) in
      _ = try descriptor.control("KVM_CREATE_IRQCHIP", KVMRequest.createIRQChip)
    }
  }

  /// Puts the 8254 timer into the kernel; port 61h answers with a dummy speaker bit when
  /// `speakerPort`, else the machine's own model gets it.
  public func createTimer(speakerPort: Bool = true) throws(KVMError) {
    var configuration = [8 of UInt64](repeating: 0)
    configuration[0] = speakerPort ? 1 : 0  // KVM_PIT_SPEAKER_DUMMY
    try asking { () throws(SystemError) in
      _ = try descriptor.control("KVM_CREATE_PIT2", KVMRequest.createPIT, &configuration)
    }
  }

  /// Sets where every interrupt line leads, replacing all routes.
  public func setRoutes(_ routes: [InterruptRoute]) throws(KVMError) {
    var block = Block(byteCount: 8 + 48 * routes.count)
    block.store(UInt32(routes.count), at: 0)
    for (index, route) in routes.enumerated() {
      let at = 8 + 48 * index
      block.store(route.gsi, at: at)
      switch route.target {
      case .firstPIC(let pin): block.storeChip(0, pin, at: at)
      case .secondPIC(let pin): block.storeChip(1, pin, at: at)
      case .ioAPIC(let pin): block.storeChip(2, pin, at: at)
      case .message(let address, let data):
        block.store(UInt32(2), at: at + 4)  // KVM_IRQ_ROUTING_MSI
        block.store(address, at: at + 16)
        block.store(data, at: at + 24)
      }
    }
    try asking { () throws(SystemError) in
      _ = try descriptor.control(
        "KVM_SET_GSI_ROUTING", KVMRequest.setGSIRouting, bytes: &block.bytes)
    }
  }

  /// Raises or lowers an interrupt line.
  public func setLine(_ gsi: UInt32, raised: Bool) throws(KVMError) {
    var level = UInt64(gsi) | (raised ? 1 << 32 : 0)
    try asking { () throws(SystemError) in
      _ = try descriptor.control("KVM_IRQ_LINE", KVMRequest.irqLine, &level)
    }
  }

  /// Lets an event file pulse an interrupt line (KVM_IRQFD).
  ///
  /// With `resample`, the line is level-triggered: an event raises it, the guest's end of
  /// interrupt lowers it and signals `resample`, so that who still needs it raises it again.
  public func addInterruptEvent(_ gsi: UInt32, _ event: Descriptor, resample: Descriptor? = nil)
    throws(KVMError)
  {
    try interruptEvent(gsi, event, flags: resample == nil ? 0 : 2, resample)
  }

  /// Undoes ``addInterruptEvent(_:_:resample:)``.
  public func removeInterruptEvent(_ gsi: UInt32, _ event: Descriptor) throws(KVMError) {
    try interruptEvent(gsi, event, flags: 1, nil)
  }

  private func interruptEvent(
    _ gsi: UInt32, _ event: Descriptor, flags: UInt32, _ resample: Descriptor?
  ) throws(KVMError) {
    var request: [4 of UInt64] = [
      UInt64(UInt32(bitPattern: event.raw)) | UInt64(gsi) << 32,
      UInt64(flags) | UInt64(UInt32(bitPattern: resample?.raw ?? 0)) << 32, 0, 0,
    ]
    try asking { () throws(SystemError) in
      _ = try descriptor.control("KVM_IRQFD", KVMRequest.irqfd, &request)
    }
  }

  /// An address whose writes signal an event file instead of leaving the guest.
  public struct Doorbell: Hashable, Sendable {
    /// The port, or the physical address.
    public var address: UInt64
    public var isPort: Bool
    /// The width of the write in bytes: 1, 2, 4 or 8; 0 for any.
    public var width: UInt32
    /// Signal only when this value is written.
    public var value: UInt64?

    public init(address: UInt64, isPort: Bool, width: UInt32, value: UInt64? = nil) {
      self.address = address
      self.isPort = isPort
      self.width = width
      self.value = value
    }
  }

  /// Connects a doorbell to an event file (KVM_IOEVENTFD).
  public func addDoorbell(_ doorbell: Doorbell, _ event: Descriptor) throws(KVMError) {
    try self.doorbell(doorbell, event, flags: 0)
  }

  /// Undoes ``addDoorbell(_:_:)``.
  public func removeDoorbell(_ doorbell: Doorbell, _ event: Descriptor) throws(KVMError) {
    try self.doorbell(doorbell, event, flags: 4)
  }

  private func doorbell(_ bell: Doorbell, _ event: Descriptor, flags: UInt64) throws(KVMError) {
    var request = [8 of UInt64](repeating: 0)
    request[0] = bell.value ?? 0
    request[1] = bell.address
    request[2] = UInt64(bell.width) | UInt64(UInt32(bitPattern: event.raw)) << 32
    request[3] = flags | (bell.value == nil ? 0 : 1) | (bell.isPort ? 2 : 0)
    try asking { () throws(SystemError) in
      _ = try descriptor.control("KVM_IOEVENTFD", KVMRequest.ioeventfd, &request)
    }
  }
}

extension Block {
  fileprivate mutating func storeChip(_ chip: UInt32, _ pin: UInt32, at offset: Int) {
    store(UInt32(1), at: offset + 4)  // KVM_IRQ_ROUTING_IRQCHIP
    store(chip, at: offset + 16)
    store(pin, at: offset + 20)
  }
}
