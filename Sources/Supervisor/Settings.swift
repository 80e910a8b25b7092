// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import MachineFile

/// The first message to each child: settings and the descriptors that they name.
struct ChildSetup {
  var settings: [UInt8]
  var descriptors: [Descriptor]

  private static let noExitPort: UInt32 = 0x10000
  private static let videoByteCount: UInt32 = 16 << 20

  /// The core's, with the core's ends of the channels to the devices.
  static func core(
    _ machine: Machine, _ resources: HostResources, channels: [Descriptor]
  ) -> ChildSetup {
    let names = Machine.DeviceName.allCases
    let devices = names.map { name in
      CoreSettings.Device(
        role: name.rawValue, onFault: onFault(machine.devices[name].onFault),
        deadline: machine.devices[name].deadline,
        stateByteCount: UInt32(HostResources.stateByteCount(name)))
    }
    let kvm = machine.accelerator == .soft ? nil : resources.kvm
    let settings = CoreSettings(
      common: common(machine), accelerator: accelerator(machine),
      cpuModel: cpuModel(machine), hasKVM: kvm != nil,
      translates: machine.translatesCode,
      memoryByteCount: machine.memory.byteCount, cpus: UInt16(machine.cpus),
      exitPort: exitPort(machine), hasControl: true,
      onPanic: onPanic(machine), devices: devices, ports: ports(machine, resources),
      logLevel: logLevel(machine))
    var descriptors = kvm.map { [$0] } ?? []
    descriptors += [resources.firmware, resources.control.socket.descriptor]
    for (page, channel) in zip(resources.statePages, channels) { descriptors += [page, channel] }
    return ChildSetup(settings: settings.wireBytes, descriptors: descriptors)
  }

  private static func accelerator(_ machine: Machine) -> CoreSettings.Accelerator {
    switch machine.accelerator {
    case .kvm: .kvm
    case .soft: .soft
    default: .auto
    }
  }

  private static func onPanic(_ machine: Machine) -> CoreSettings.OnPanic {
    switch machine.onPanic {
    case nil: .none
    case .run: .run
    case .pause: .pause
    case .stop: .stop
    }
  }

  private static func cpuModel(_ machine: Machine) -> String {
    switch machine.cpuModel {
    case .host: "host"
    case .base: "base"
    case .named(let name): name
    }
  }

  /// A device's, with its end of the channel to the core.
  static func device(
    _ name: Machine.DeviceName, _ machine: Machine, _ resources: HostResources,
    channel: Descriptor
  ) -> ChildSetup {
    var setup =
      switch name {
      case .piix: piix(machine, resources)
      case .ide: ide(machine, resources)
      case .serial: serial(machine, resources)
      case .vga: vga(machine, resources)
      }
    setup.descriptors.insert(channel, at: 0)
    return setup
  }

  /// The monitor's, with its end of the channel to the core.
  static func monitor(
    _ machine: Machine, _ resources: HostResources, channel: Descriptor
  ) -> ChildSetup {
    let sockets = machine.monitor
    let stream = resources.stream
    let settings = MonitorSettings(
      common: common(machine), hasQMP: isSocket(sockets.qmp), hasHMP: isSocket(sockets.hmp),
      hasGDB: resources.debugger != nil, hasMetrics: isSocket(sockets.metrics),
      stream: stream?.kind ?? .none, uuid: text(machine.uuid),
      drives: machine.drives.map {
        MonitorSettings.Drive(
          slot: place($0.slot), isCDROM: $0.media == .cdrom, isReadOnly: $0.isReadOnly,
          format: $0.format.rawValue, image: $0.image, cache: $0.cache.rawValue)
      },
      ports: ports(machine, resources))
    var listening = resources.monitor
    if let debugger = resources.debugger {
      listening.insert(debugger, at: [settings.hasQMP, settings.hasHMP].count { $0 })
    }
    return ChildSetup(
      settings: settings.wireBytes,
      descriptors: [channel] + listening.map { $0.socket.descriptor }
        + (stream?.descriptors ?? []))
  }

  private static func isSocket(_ backend: Machine.Backend?) -> Bool {
    if case .unix = backend { true } else { false }
  }

  /// A UUID as text, in groups of 8, 4, 4, 4 and 12 digits.
  private static func text(_ uuid: [UInt8]?) -> String {
    guard let uuid else { return MonitorSettings.noUUID }
    var text = ""
    for (index, byte) in uuid.enumerated() {
      if [4, 6, 8, 10].contains(index) { text += "-" }
      text += (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }
    return text
  }

  private static func ports(
    _ machine: Machine, _ resources: HostResources
  ) -> [MonitorSettings.Port] {
    machine.serial.enumerated().map { index, backend in
      MonitorSettings.Port(backend: text(backend, resources.serial[index]))
    }
  }

  private static func text(_ backend: Machine.Backend, _ opened: OpenedBackend) -> String {
    switch backend {
    case .stdio: "stdio"
    case .pty: "pty:" + (opened.terminal?.path ?? "")
    case .file(let path): "file:" + path
    case .unix(let path): "unix:" + path
    case .connect(let path): "connect:" + path
    case .null: "null"
    }
  }

  static func logLevel(_ machine: Machine) -> LogLevel {
    switch machine.logLevel {
    case .error: .error
    case .warning: .warning
    case .notice: .notice
    case .info: .info
    case .debug: .debug
    }
  }

  private static func common(_ machine: Machine) -> CommonSettings {
    CommonSettings(machine: machine.name, isStrict: machine.isolation == .strict)
  }

  private static func exitPort(_ machine: Machine) -> UInt32 {
    machine.debug.exitPort.map(UInt32.init) ?? noExitPort
  }

  private static func onFault(_ policy: Machine.Device.OnFault) -> CoreSettings.OnFault {
    switch policy {
    case .restart: .restart
    case .pause: .pause
    case .stop: .stop
    }
  }

  static func place(_ slot: Machine.Drive.Slot) -> UInt8 {
    switch slot {
    case .ide00: 0
    case .ide01: 1
    case .ide10: 2
    case .ide11: 3
    }
  }

  private static func piix(_ machine: Machine, _ resources: HostResources) -> ChildSetup {
    var drives: [UInt8] = [0, 0, 0, 0]
    for drive in machine.drives {
      drives[Int(place(drive.slot))] = drive.media == .cdrom ? 2 : 1
    }
    let settings = PIIXSettings(
      common: common(machine), memoryByteCount: machine.memory.byteCount,
      cpus: UInt16(machine.cpus),
      bootOrder: machine.boot.order.map { $0 == .disk ? "c" : "d" }.joined(),
      hasBootMenu: machine.boot.menu, drives: drives,
      serialPorts: UInt8(machine.serial.count), exitPort: exitPort(machine),
      hasDebugConsole: resources.debugConsole != nil, unixSeconds: resources.unixSeconds,
      hasKernel: resources.boot != nil, hasInitrd: resources.boot?.initrd != nil,
      commandLine: machine.boot.commandLine ?? "",
      uuid: machine.uuid ?? [UInt8](repeating: 0, count: 16),
      hasPanicPort: machine.onPanic != nil)
    var descriptors = resources.debugConsole.map { [$0.output] } ?? []
    if let boot = resources.boot {
      descriptors += [boot.loader, boot.kernel]
      if let initrd = boot.initrd { descriptors.append(initrd) }
    }
    return ChildSetup(settings: settings.wireBytes, descriptors: descriptors)
  }

  private static func ide(_ machine: Machine, _ resources: HostResources) -> ChildSetup {
    var descriptors: [Descriptor] = []
    var drives: [IDESettings.Drive] = []
    for (index, drive) in machine.drives.enumerated() {
      let image = resources.images[index]
      let dataFile = image == nil ? nil : resources.dataFiles[index]
      let key = image == nil ? nil : resources.keys[index]
      descriptors += [image, dataFile, key].compactMap { $0 }
      drives.append(
        IDESettings.Drive(
          slot: place(drive.slot), format: drive.format == .raw ? .raw : .qcow2,
          isCDROM: drive.media == .cdrom, isReadOnly: drive.isReadOnly, hasMedium: image != nil,
          hasDataFile: dataFile != nil, hasKey: key != nil, onReadError: onError(drive.onReadError),
          onWriteError: onError(drive.onWriteError), cache: cache(drive.cache),
          serial: "BH0000\(place(drive.slot) + 1)"))
    }
    return ChildSetup(
      settings: IDESettings(common: common(machine), drives: drives).wireBytes,
      descriptors: descriptors)
  }

  private static func cache(_ cache: Machine.Drive.Cache) -> IDESettings.Drive.Cache {
    switch cache {
    case .writeback: .writeback
    case .writethrough: .writethrough
    case .none: .none
    }
  }

  private static func onError(
    _ policy: Machine.Drive.ErrorPolicy
  ) -> IDESettings.Drive.ErrorPolicy {
    switch policy {
    case .report: .report
    case .ignore: .ignore
    case .enospc: .holdWhenFull
    case .stop: .hold
    }
  }

  private static func serial(_ machine: Machine, _ resources: HostResources) -> ChildSetup {
    let ports = resources.serial.map(\.forDevice)
    let settings = SerialSettings(common: common(machine), ports: ports.map(\.port))
    return ChildSetup(
      settings: settings.wireBytes, descriptors: ports.flatMap(\.descriptors))
  }

  private static func vga(_ machine: Machine, _ resources: HostResources) -> ChildSetup {
    let settings = VGASettings(common: common(machine), videoByteCount: videoByteCount)
    return ChildSetup(settings: settings.wireBytes, descriptors: [resources.vgaBIOS])
  }
}
