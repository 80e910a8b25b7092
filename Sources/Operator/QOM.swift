// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import Monitor

/// The machine as a tree of objects with properties (qom-list, qom-get).
extension QMPCommands {
  private typealias Property = (name: String, type: String, value: JSONValue?)

  private func properties(_ path: String) throws(CommandError) -> [Property] {
    let status = try machine.status()
    let count = Int(status.cpus)
    let parts = path.split(separator: "/").map(String.init)
    switch parts {
    case []: return [("machine", "child<pc-machine>", nil), ("type", "string", "container")]
    case ["machine"]:
      return [
        ("type", "string", "pc-machine"), ("unattached", "child<container>", nil),
        ("devices", "child<container>", nil),
        ("accelerator", "string", .string(status.accelerator)),
      ]
    case ["machine", "unattached"]:
      return [("type", "string", "container")]
        + (0..<count).map { ("cpu[\($0)]", "child<x86_64-cpu>", nil) }
    case ["machine", "devices"]:
      return [("type", "string", "container")]
        + status.devices.map { ($0.role, "child<device>", nil) }
    default: break
    }
    if parts.count == 3, parts[1] == "unattached",
      let index = (0..<count).first(where: { "cpu[\($0)]" == parts[2] })
    {
      let cpu = try machine.vcpu(index)
      return [
        ("type", "string", "x86_64-cpu"), ("realized", "bool", true), ("hotplugged", "bool", false),
        ("apic-id", "uint32", .integer(Int64(index))),
        ("halted", "bool", .bool(cpu.isHalted)),
        ("pc", "uint64", JSONValue(bits: cpu.programCounter)),
        ("core-id", "int", .integer(Int64(index))), ("thread-id", "int", 0),
        ("socket-id", "int", 0),
      ]
    }
    if parts.count == 3, parts[1] == "devices",
      let device = status.devices.first(where: { $0.role == parts[2] })
    {
      return [
        ("type", "string", .string("vmdev-\(device.role)")), ("realized", "bool", true),
        ("state", "string", .string(device.state)),
        ("restarts", "uint32", .integer(Int64(device.restarts))),
      ]
    }
    throw CommandError("Device '\(path)' not found", .deviceNotFound)
  }

  func list(_ path: String) throws(CommandError) -> JSONValue {
    .array(
      try properties(path).map { ["name": .string($0.name), "type": .string($0.type)] })
  }

  func get(_ path: String, _ name: String) throws(CommandError) -> JSONValue {
    guard let property = try properties(path).first(where: { $0.name == name }) else {
      throw CommandError("Property '\(path).\(name)' not found")
    }
    return property.value ?? .string(path + "/" + name)
  }
}

/// A PCI function's configuration header, taken apart (PCI 2.2, 6.1).
struct PCIHeader {
  struct Region {
    var bar: Int
    var isPort: Bool
    var isPrefetchable: Bool
    /// Where it is decoded; `nil` while the guest has not switched that on.
    var address: UInt32?
    var size: UInt32
  }

  var vendor: UInt16
  var device: UInt16
  var classCode: UInt16
  var subsystemVendor: UInt16
  var subsystem: UInt16
  var pin: UInt8
  var line: UInt8
  var regions: [Region] = []

  init(_ function: FunctionsReply.Function) {
    let bytes = function.header
    func word(_ at: Int) -> UInt16 { UInt16(bytes[at]) | UInt16(bytes[at + 1]) << 8 }
    func long(_ at: Int) -> UInt32 { UInt32(word(at)) | UInt32(word(at + 2)) << 16 }
    vendor = word(0)
    device = word(2)
    classCode = word(0x0A)
    subsystemVendor = word(0x2C)
    subsystem = word(0x2E)
    line = bytes[0x3C]
    pin = bytes[0x3D]
    let command = word(4)
    for (bar, size) in function.sizes.enumerated() where size > 0 {
      let value = long(bar == 6 ? 0x30 : 0x10 + 4 * bar)
      let isPort = bar < 6 && value & 1 != 0
      let isOn =
        isPort ? command & 1 != 0 : command & 2 != 0 && (bar != 6 || value & 1 != 0)
      let base = bar == 6 ? value & ~0x7FF : isPort ? value & ~3 : value & ~0xF
      regions.append(
        Region(
          bar: bar, isPort: isPort, isPrefetchable: !isPort && bar < 6 && value & 8 != 0,
          address: isOn ? base : nil, size: size))
    }
  }

  /// QEMU's words for the classes that this machine has.
  var className: String {
    switch classCode {
    case 0x0101: "IDE controller"
    case 0x0200: "Ethernet controller"
    case 0x0300: "VGA controller"
    case 0x0600: "Host bridge"
    case 0x0601: "ISA bridge"
    case 0x0680: "Bridge"
    default: "Class \(hex(UInt64(classCode), 4))"
    }
  }
}
