// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import Monitor

/// The machine as a tree of objects, each at the path that QEMU's `pc` machine has it at.
struct QOMTree {
  /// The numbers that QEMU gives to the devices below `/machine/unattached`.
  ///
  /// It counts them as it makes them. What this machine does not have (kvmvapic, the HPET, the
  /// floppy controller, vmport, vmmouse, the memory modules' EEPROMs) leaves a gap.
  struct Layout {
    let cpus: Int
    let ports: Int
    let drives: [UInt8]
    let isKVM: Bool

    init(_ machine: any MachineAccess, _ status: StatusReply) {
      cpus = Int(status.cpus)
      ports = machine.settings.ports.count
      drives = machine.settings.drives.map(\.slot).sorted()
      isKVM = status.accelerator.hasPrefix("kvm")
    }

    /// The local APIC of the first vCPU brings kvmvapic along.
    static func cpu(_ index: Int) -> Int { index == 0 ? 0 : index + 1 }

    /// The host bridge, which the others follow; KVM has its clock in front.
    var bridge: Int { cpus + 1 + (isKVM ? 1 : 0) }
    var serial: Int { bridge + 11 }
    /// The keyboard controller, behind the serial ports and the floppy controller.
    var keyboard: Int { serial + ports + 1 }
    var ide: Int { keyboard + 4 }
    var power: Int { ide + 1 + drives.count }

    func drive(_ slot: UInt8) -> Int { ide + 1 + (drives.firstIndex(of: slot) ?? 0) }
  }

  private static let unattached = "/machine/unattached"

  static func path(_ number: Int) -> String { "\(unattached)/device[\(number)]" }

  /// The path of a drive, by which commands and events name it, too.
  static func path(ofDrive slot: UInt8, _ machine: any MachineAccess) -> String {
    guard let status = try? machine.status() else { return "" }
    return path(Layout(machine, status).drive(slot))
  }

  static func path(ofCPU index: Int) -> String { path(Layout.cpu(index)) }

  private let machine: any MachineAccess
  private let status: StatusReply
  private let layout: Layout

  init(_ machine: any MachineAccess) throws(CommandError) {
    self.machine = machine
    status = try machine.status()
    layout = Layout(machine, status)
  }

  /// The whole tree.
  var root: QOMObject {
    var root = QOMObject("container")
    root.add("machine", child: board)
    var chardevs = QOMObject("container")
    for (index, port) in machine.settings.ports.enumerated() {
      chardevs.add("serial\(index)", child: QOMObject(Self.chardevType(port.backend)))
    }
    root.add("chardevs", child: chardevs)
    return root
  }

  private static func chardevType(_ backend: String) -> String {
    switch backend.prefix(while: { $0 != ":" }) {
    case "unix", "connect": "chardev-socket"
    case "pty": "chardev-pty"
    case "file": "chardev-file"
    case "stdio": "chardev-stdio"
    default: "chardev-null"
    }
  }

  private var board: QOMObject {
    var board = QOMObject("pc-i440fx-7.2-machine")
    let cpus = Int64(layout.cpus)
    board.add(
      "smp", "SMPConfiguration",
      [
        "cpus": .integer(cpus), "maxcpus": .integer(cpus), "sockets": 1, "dies": 1,
        "clusters": 1, "cores": .integer(cpus), "threads": 1,
      ])
    board.add(
      "memory", "MemorySizeConfiguration", ["size": JSONValue(bits: status.memoryByteCount)])
    board.add("graphics", "bool", true)
    board.add("hpet", "bool", false)
    var firmware = device("fw_cfg_io", bus: "/machine/unattached/sysbus")
    firmware.add("dma_enabled", "bool", true)
    board.add("fw_cfg", child: firmware)
    var host = device("i440FX-pcihost", bus: "/machine/unattached/sysbus")
    host.add("ioapic", child: device(layout.isKVM ? "kvm-ioapic" : "ioapic", bus: ""))
    host.add("pci.0", child: QOMObject("PCI"))
    board.add("i440fx", child: host)
    board.add("peripheral", child: QOMObject("container"))
    board.add("peripheral-anon", child: QOMObject("container"))
    board.add("unattached", child: unattached)
    var processes = QOMObject("container")
    for process in status.devices {
      var object = QOMObject("vmdev-\(process.role)")
      object.add("state", "string", .string(process.state))
      object.add("restarts", "uint32", .integer(Int64(process.restarts)))
      processes.add(process.role, child: object)
    }
    board.add("__org.bulkhead_processes", child: processes)
    return board
  }

  /// What every device has.
  private func device(_ type: String, bus: String) -> QOMObject {
    var object = QOMObject(type)
    object.add("parent_bus", "link<bus>", .string(bus))
    object.add("realized", "bool", true)
    object.add("hotplugged", "bool", false)
    object.add("hotpluggable", "bool", false)
    return object
  }

  // MARK: - The devices

  private var unattached: QOMObject {
    var all = QOMObject("container")
    for index in 0..<layout.cpus {
      all.add("device[\(Layout.cpu(index))]", child: cpu(index))
    }
    func add(_ number: Int, _ object: QOMObject) { all.add("device[\(number)]", child: object) }
    let first = layout.bridge
    add(first, function("i440FX", devfn: 0))
    var bridge = function("PIIX3", devfn: 8, hasOthers: true)
    bridge.add("isa.0", child: QOMObject("ISA"))
    add(first + 1, bridge)
    for (index, base) in [Int64(0x00), 0xC0].enumerated() {
      add(first + 2 + index, isa("i8257", [("base", "int32", .integer(base))]))
    }
    for (index, base) in [Int64(0x20), 0xA0].enumerated() {
      add(
        first + 4 + index,
        isa(
          layout.isKVM ? "kvm-i8259" : "isa-i8259",
          [("iobase", "uint32", .integer(base)), ("master", "bool", .bool(index == 0))]))
    }
    var vga = function("VGA", devfn: 16)
    vga.add("vgamem_mb", "uint32", 16)
    add(first + 6, vga)
    add(
      first + 8,
      isa(
        "mc146818rtc",
        [("iobase", "uint16", 0x70), ("irq", "uint8", 8), ("base_year", "int32", 0)]))
    add(first + 9, isa(layout.isKVM ? "kvm-pit" : "isa-pit", [("iobase", "uint32", 0x40)]))
    add(first + 10, isa("isa-pcspk", [("iobase", "uint32", 0x61)]))
    for index in 0..<layout.ports { add(layout.serial + index, serial(index)) }
    add(layout.keyboard, isa("i8042", [("kbd-irq", "uint8", 1), ("mouse-irq", "uint8", 12)]))
    add(layout.keyboard + 3, isa("port92", []))
    var ide = function("piix3-ide", devfn: 9)
    for channel in 0..<2 { ide.add("ide.\(channel)", child: QOMObject("IDE")) }
    add(layout.ide, ide)
    for drive in machine.settings.drives { add(layout.drive(drive.slot), self.drive(drive)) }
    var power = function("PIIX4_PM", devfn: 11)
    power.add("i2c", child: QOMObject("i2c-bus"))
    add(layout.power, power)
    return all
  }

  private func cpu(_ index: Int) -> QOMObject {
    let machine = machine
    var object = device("bulkhead-x86_64-cpu", bus: "")
    object.add("start-powered-off", "bool", false)
    object.add("apic-id", "uint32", .integer(Int64(index)))
    for (name, value) in [("socket-id", 0), ("die-id", 0), ("core-id", index), ("thread-id", 0)] {
      object.add(name, "int32", .integer(Int64(value)))
    }
    object.add("__org.bulkhead_halted", "bool") { () throws(CommandError) in
      .bool(try machine.vcpu(index).isHalted)
    }
    object.add("__org.bulkhead_pc", "uint64") { () throws(CommandError) in
      JSONValue(bits: try machine.vcpu(index).programCounter)
    }
    var local = device(layout.isKVM ? "kvm-apic" : "apic", bus: "")
    local.add("id", "uint32", .integer(Int64(index)))
    local.add("version", "uint8", 0x14)
    object.add("lapic", child: local)
    return object
  }

  /// A PCI function; with `hasOthers` the device has further ones.
  private func function(_ type: String, devfn: Int64, hasOthers: Bool = false) -> QOMObject {
    var object = device(type, bus: "/machine/i440fx/pci.0")
    object.add("addr", "int32", .integer(devfn))
    object.add("multifunction", "bool", .bool(hasOthers))
    object.add("legacy-addr", "str", .string("\(hex(UInt64(devfn >> 3), 2)).\(devfn & 7)"))
    return object
  }

  private func isa(
    _ type: String, _ properties: [(String, String, JSONValue)]
  ) -> QOMObject {
    var object = device(type, bus: Self.path(layout.bridge + 1) + "/isa.0")
    for property in properties { object.add(property.0, property.1, property.2) }
    return object
  }

  private func serial(_ index: Int) -> QOMObject {
    let bases: [Int64] = [0x3F8, 0x2F8, 0x3E8, 0x2E8]
    return isa(
      "isa-serial",
      [
        ("index", "uint32", .integer(Int64(index))),
        ("iobase", "uint32", .integer(bases[index & 3])),
        ("irq", "uint32", index & 1 == 0 ? 4 : 3), ("baudbase", "uint32", 115200),
        ("chardev", "str", .string("serial\(index)")),
      ])
  }

  private func drive(_ drive: MonitorSettings.Drive) -> QOMObject {
    var object = device(
      drive.isCDROM ? "ide-cd" : "ide-hd", bus: Self.path(layout.ide) + "/ide.\(drive.slot / 2)")
    object.add("drive", "str", .string(QMPCommands.name(drive)))
    object.add("unit", "uint32", .integer(Int64(drive.slot & 1)))
    object.add("logical_block_size", "size", 512)
    object.add("physical_block_size", "size", 512)
    object.add(
      "write-cache", "OnOffAuto", drive.cache == "writethrough" ? "off" : "on")
    return object
  }
}
