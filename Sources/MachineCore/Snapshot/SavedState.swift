// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import InterruptControllers
internal import KVM
internal import LinuxSystem
internal import PCI

/// The fields of a ``DeviceState`` with their names, widths and values.
struct StateRecord: Equatable, WireCodable {
  var layout: [UInt8]
  var values: [UInt8]

  init(layout: [UInt8], values: [UInt8]) {
    self.layout = layout
    self.values = values
  }

  init<S: DeviceState>(of state: S) {
    var encoder = StateEncoder()
    var copy = state
    copy.visitState(&encoder)
    layout = StateLayout.of(state)
    values = encoder.bytes
  }

  /// Puts the values into a state; what it does not have keeps its default.
  func restore<S: DeviceState>(_ state: inout S) throws(ProtocolError) {
    var decoder = try StateDecoder(layout: layout, values: values)
    state.visitState(&decoder)
  }

  func encode(to writer: inout WireWriter) {
    writer.put(layout)
    writer.put(values)
  }

  init(from reader: inout WireReader) throws(ProtocolError) {
    layout = try reader.getBytes("state layout", most: 1 << 16)
    values = try reader.getBytes("state", most: 1 << 16)
  }

  /// The fields one after the other: a name, and the bytes of its value with their count, if any.
  private func fields() throws(ProtocolError) -> [(name: String, bytes: ArraySlice<UInt8>)] {
    var fields: [(name: String, bytes: ArraySlice<UInt8>)] = []
    var position = 0
    var at = 0
    while position < layout.count {
      guard position + 2 <= layout.count,
        position + 2 + Int(layout[position + 1]) <= layout.count
      else { throw ProtocolError("state layout ends within an entry") }
      let end = position + 2 + Int(layout[position + 1])
      var count = Int(layout[position])
      if layout[position] == StateLayout.array {
        guard at + 4 <= values.count else { throw ProtocolError("state ends too early") }
        count = 4 + (0..<4).reduce(0) { $0 | Int(values[at + $1]) << (8 * $1) }
      }
      guard count <= values.count - at else { throw ProtocolError("state ends too early") }
      fields.append(
        (String(decoding: layout[position + 2..<end], as: UTF8.self), values[at..<at + count]))
      at += count
      position = end
    }
    guard at == values.count else { throw ProtocolError("state is longer than its layout") }
    return fields
  }

  /// Checks that layout and values fit each other.
  func check() throws(ProtocolError) { _ = try fields() }

  /// The same, with the fields that `isKept` names as another record has them.
  func keeping(
    _ isKept: (String) -> Bool, of present: StateRecord
  ) throws(ProtocolError) -> StateRecord {
    let others = try present.fields()
    var result = self
    result.values = []
    for field in try fields() {
      let other = isKept(field.name) ? others.first { $0.name == field.name } : nil
      result.values +=
        other.map { $0.bytes.count == field.bytes.count ? $0.bytes : field.bytes }
        ?? field.bytes
    }
    return result
  }
}

/// Which machine a state is of, and when it was saved: all that has to be the same on loading.
struct MachineDescription: Equatable, WireCodable {
  var tag: String
  var seconds: UInt32
  var nanoseconds: UInt32
  var machine: String
  /// `kvm` or `soft`.
  var accelerator: String
  var cpuModel: String
  var cpus: UInt16
  var memoryByteCount: UInt64
  var exitPort: UInt32
  var firmware: UInt64
  /// Role and length of the state page of each device.
  var devices: [CoreSettings.Device]

  func encode(to writer: inout WireWriter) {
    writer.put(tag)
    writer.put(seconds)
    writer.put(nanoseconds)
    writer.put(machine)
    writer.put(accelerator)
    writer.put(cpuModel)
    writer.put(cpus)
    writer.put(memoryByteCount)
    writer.put(exitPort)
    writer.put(firmware)
    writer.put(devices)
  }

  init(_ machine: Machine, tag: String, seconds: UInt32, nanoseconds: UInt32) {
    let settings = machine.settings
    self.tag = tag
    self.seconds = seconds
    self.nanoseconds = nanoseconds
    self.machine = settings.common.machine
    accelerator = machine.accelerator.vm == nil ? "soft" : "kvm"
    cpuModel = settings.cpuModel
    cpus = settings.cpus
    memoryByteCount = settings.memoryByteCount
    exitPort = settings.exitPort
    firmware = machine.firmwareSum
    // Only what is a device's shape: the policies may be others.
    devices = settings.devices.map {
      CoreSettings.Device(
        role: $0.role, onFault: .restart, deadline: 0, stateByteCount: $0.stateByteCount)
    }
  }

  init(from reader: inout WireReader) throws(ProtocolError) {
    tag = try reader.getString("tag", most: SnapshotTag.longest)
    seconds = try reader.get("seconds")
    nanoseconds = try reader.get("nanoseconds")
    machine = try reader.getString("machine", most: 63)
    accelerator = try reader.getString("accelerator", most: 31)
    cpuModel = try reader.getString("CPU model", most: 63)
    cpus = try reader.get("CPUs")
    memoryByteCount = try reader.get("memory")
    exitPort = try reader.get("exit port")
    firmware = try reader.get("firmware")
    devices = try reader.getArray("devices", most: 16)
  }

  /// Refuses a state that is not of this machine, with what is different.
  func check(_ own: MachineDescription) throws(Refusal) {
    func require<T: Equatable>(_ saved: T, _ present: T, _ name: String) throws(Refusal) {
      guard saved != present else { return }
      throw Refusal("the snapshot is of a machine with \(name) \(saved), this one has \(present)")
    }
    try require(machine, own.machine, "the name")
    guard accelerator == own.accelerator else {
      throw Refusal(
        "the snapshot was saved with the accelerator \(accelerator), and can be loaded with that "
          + "alone; this machine runs with \(own.accelerator)")
    }
    if accelerator == "soft" { try require(cpuModel, own.cpuModel, "the CPU model") }
    try require(cpus, own.cpus, "a CPU count of")
    try require(memoryByteCount, own.memoryByteCount, "a memory in bytes of")
    try require(exitPort, own.exitPort, "the exit port")
    try require(firmware, own.firmware, "a firmware whose checksum is")
    try require(devices.map(\.role), own.devices.map(\.role), "the devices")
    guard devices == own.devices else {
      throw Refusal("the snapshot is of a machine whose devices' states have other sizes")
    }
  }
}

/// The interrupt controllers, the timers and the clock of the vCPUs.
enum SavedChips: WireCodable {
  /// The kernel's chips, and its paravirtual clock.
  case kvm(ChipState, clock: UInt64)
  /// The models; the counter of the vCPUs with its frequency in kHz; the A20 gate.
  case soft(StateRecord, frequency: UInt64, timeStamp: UInt64, gate: StateRecord)

  private static let chipByteCount = 520
  private static let timerByteCount = 112

  func encode(to writer: inout WireWriter) {
    switch self {
    case .kvm(let chips, let clock):
      writer.put(UInt8(0))
      for chip in chips.interruptChips { writer.put(chip) }
      writer.put(chips.timer)
      writer.put(clock)
    case .soft(let models, let frequency, let timeStamp, let gate):
      writer.put(UInt8(1))
      models.encode(to: &writer)
      writer.put(frequency)
      writer.put(timeStamp)
      gate.encode(to: &writer)
    }
  }

  init(from reader: inout WireReader) throws(ProtocolError) {
    guard try reader.getBool("kind of chips") else {
      var chips: [[UInt8]] = []
      for _ in 0..<3 { chips.append(try reader.getBytes("chip", most: Self.chipByteCount)) }
      let timer = try reader.getBytes("timer", most: Self.timerByteCount)
      guard chips.allSatisfy({ $0.count == Self.chipByteCount }),
        timer.count == Self.timerByteCount,
        (0..<3).allSatisfy({ Array(chips[$0].prefix(4)) == [UInt8($0), 0, 0, 0] })
      else { throw ProtocolError("an interrupt chip is not one") }
      self = .kvm(ChipState(interruptChips: chips, timer: timer), clock: try reader.get("clock"))
      return
    }
    let models = try StateRecord(from: &reader)
    let frequency: UInt64 = try reader.get("frequency")
    let timeStamp: UInt64 = try reader.get("time stamp")
    self = .soft(
      models, frequency: frequency, timeStamp: timeStamp, gate: try StateRecord(from: &reader))
  }
}

/// A device's state page, as far as it counts.
struct SavedDevice: WireCodable {
  var role: String
  var record: StateRecord
  var bulk: [UInt8]

  init(role: String, record: StateRecord, bulk: [UInt8]) {
    self.role = role
    self.record = record
    self.bulk = bulk
  }

  func encode(to writer: inout WireWriter) {
    writer.put(role)
    record.encode(to: &writer)
    writer.put(bulk)
  }

  init(from reader: inout WireReader) throws(ProtocolError) {
    role = try reader.getString("role", most: 31)
    record = try StateRecord(from: &reader)
    bulk = try reader.getBytes("bulk data", most: StateFile.mostMemory)
    try record.check()
  }
}
