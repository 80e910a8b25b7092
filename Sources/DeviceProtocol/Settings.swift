// SPDX-License-Identifier: Apache-2.0

/// What every child is told about itself.
public struct CommonSettings: Equatable, WireCodable {
  /// The machine's name.
  public var machine: String
  /// Whether a missing layer of isolation ends the process with exit code 3.
  public var isStrict: Bool

  public init(machine: String, isStrict: Bool) {
    self.machine = machine
    self.isStrict = isStrict
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(machine)
    writer.put(isStrict)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    machine = try reader.getString("machine name", most: 63)
    isStrict = try reader.getBool("strict flag")
  }
}

/// The core's settings.
///
/// Descriptors: /dev/kvm if `hasKVM`; the firmware; the control socket if
/// `hasControl`; for each device, in order, its state page and its channel.
public struct CoreSettings: Equatable, WireCodable {
  /// What runs the vCPUs.
  public enum Accelerator: UInt8, Sendable {
    /// KVM where it can run what kernels use, else the software CPU.
    case auto = 0
    case kvm = 1
    case soft = 2
  }

  /// What happens after a device's fault.
  public enum OnFault: UInt8, Sendable {
    case restart = 0
    case pause = 1
    case stop = 2
  }

  /// What happens when the guest says that it has panicked.
  public enum OnPanic: UInt8, Sendable {
    /// It cannot say so.
    case none = 0
    case run = 1
    case pause = 2
    case stop = 3
  }

  /// One device of the machine.
  public struct Device: Equatable, WireCodable {
    /// `piix`, `ide`, `serial` or `vga`: it decides what the device may claim.
    public var role: String
    public var onFault: OnFault
    /// How long a live access may take, in nanoseconds.
    public var deadline: UInt64
    public var stateByteCount: UInt32

    public init(role: String, onFault: OnFault, deadline: UInt64, stateByteCount: UInt32) {
      self.role = role
      self.onFault = onFault
      self.deadline = deadline
      self.stateByteCount = stateByteCount
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(role)
      writer.put(onFault.rawValue)
      writer.put(deadline)
      writer.put(stateByteCount)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      role = try reader.getString("role", most: 31)
      onFault = try reader.getCase("fault policy")
      deadline = try reader.get("deadline")
      stateByteCount = try reader.get("state page's size")
    }
  }

  public var common: CommonSettings
  public var accelerator: Accelerator
  /// The CPU model of the machine file, such as `host`.
  public var cpuModel: String
  /// Whether /dev/kvm came along.
  public var hasKVM: Bool
  /// Whether the software CPU translates the code that runs often.
  public var translates: Bool
  /// Guest memory in bytes; a multiple of 1 MiB.
  public var memoryByteCount: UInt64
  public var cpus: UInt16
  /// The debug exit port, or 0x10000 for none.
  public var exitPort: UInt32
  public var hasControl: Bool
  public var onPanic: OnPanic
  public var devices: [Device]
  /// The serial ports, COM1 first; the core tells them to the operator, and that is all.
  public var ports: [MonitorSettings.Port]
  /// Which lines the launcher writes, for the operator who asks.
  public var logLevel: LogLevel

  public init(
    common: CommonSettings, accelerator: Accelerator, cpuModel: String, hasKVM: Bool,
    translates: Bool, memoryByteCount: UInt64, cpus: UInt16, exitPort: UInt32, hasControl: Bool,
    onPanic: OnPanic = .none, devices: [Device], ports: [MonitorSettings.Port] = [],
    logLevel: LogLevel = .info
  ) {
    self.common = common
    self.accelerator = accelerator
    self.cpuModel = cpuModel
    self.hasKVM = hasKVM
    self.translates = translates
    self.memoryByteCount = memoryByteCount
    self.cpus = cpus
    self.exitPort = exitPort
    self.hasControl = hasControl
    self.onPanic = onPanic
    self.devices = devices
    self.ports = ports
    self.logLevel = logLevel
  }

  public func encode(to writer: inout WireWriter) {
    common.encode(to: &writer)
    writer.put(accelerator.rawValue)
    writer.put(cpuModel)
    writer.put(hasKVM)
    writer.put(translates)
    writer.put(memoryByteCount)
    writer.put(cpus)
    writer.put(exitPort)
    writer.put(hasControl)
    writer.put(onPanic.rawValue)
    writer.put(devices)
    writer.put(ports)
    writer.put(logLevel.rawValue)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    common = try CommonSettings(from: &reader)
    accelerator = try reader.getCase("accelerator")
    cpuModel = try reader.getString("CPU model", most: 63)
    hasKVM = try reader.getBool("KVM flag")
    translates = try reader.getBool("translator flag")
    memoryByteCount = try reader.get("memory")
    cpus = try reader.get("cpus")
    exitPort = try reader.get("exit port")
    hasControl = try reader.getBool("control flag")
    onPanic = try reader.getCase("panic policy")
    devices = try reader.getArray("devices", most: 16)
    ports = try reader.getArray("ports", most: 4)
    logLevel = try reader.getCase("log level")
  }
}

/// vmdev-piix's settings.
///
/// Descriptors: the debug console's output if `hasDebugConsole`; for direct boot the option ROM
/// that loads the kernel and the kernel, and the initial RAM disk if `hasInitrd`.
public struct PIIXSettings: Equatable, WireCodable {
  public var common: CommonSettings
  public var memoryByteCount: UInt64
  public var cpus: UInt16
  /// The boot order: `c` for a disk, `d` for a CD, in order.
  public var bootOrder: String
  /// Whether SeaBIOS offers its menu.
  public var hasBootMenu: Bool
  /// The slots (0 to 3: ide0.0, ide0.1, ide1.0, ide1.1) that hold a drive: 0 none, 1 disk, 2 CD.
  public var drives: [UInt8]
  /// How many serial ports there are.
  public var serialPorts: UInt8
  /// The debug exit port, or 0x10000 for none.
  public var exitPort: UInt32
  public var hasDebugConsole: Bool
  /// The wall clock at the virtual clock's zero, in seconds since 1970.
  public var unixSeconds: Int64
  /// Whether a kernel is started directly.
  public var hasKernel: Bool
  public var hasInitrd: Bool
  /// The kernel's command line, without a zero at its end.
  public var commandLine: String
  /// The machine's UUID, 16 bytes in the order of its text.
  public var uuid: [UInt8]
  /// Whether the guest can say that it has panicked.
  public var hasPanicPort: Bool

  /// The longest command line in bytes.
  public static let longestCommandLine = 4095

  public init(
    common: CommonSettings, memoryByteCount: UInt64, cpus: UInt16, bootOrder: String,
    hasBootMenu: Bool, drives: [UInt8], serialPorts: UInt8, exitPort: UInt32,
    hasDebugConsole: Bool, unixSeconds: Int64, hasKernel: Bool = false, hasInitrd: Bool = false,
    commandLine: String = "", uuid: [UInt8] = [UInt8](repeating: 0, count: 16),
    hasPanicPort: Bool = false
  ) {
    self.common = common
    self.memoryByteCount = memoryByteCount
    self.cpus = cpus
    self.bootOrder = bootOrder
    self.hasBootMenu = hasBootMenu
    self.drives = drives
    self.serialPorts = serialPorts
    self.exitPort = exitPort
    self.hasDebugConsole = hasDebugConsole
    self.unixSeconds = unixSeconds
    self.hasKernel = hasKernel
    self.hasInitrd = hasInitrd
    self.commandLine = commandLine
    self.uuid = uuid
    self.hasPanicPort = hasPanicPort
  }

  public func encode(to writer: inout WireWriter) {
    common.encode(to: &writer)
    writer.put(memoryByteCount)
    writer.put(cpus)
    writer.put(bootOrder)
    writer.put(hasBootMenu)
    writer.put(drives)
    writer.put(serialPorts)
    writer.put(exitPort)
    writer.put(hasDebugConsole)
    writer.put(unixSeconds)
    writer.put(hasKernel)
    writer.put(hasInitrd)
    writer.put(commandLine)
    writer.put(uuid)
    writer.put(hasPanicPort)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    common = try CommonSettings(from: &reader)
    memoryByteCount = try reader.get("memory")
    cpus = try reader.get("cpus")
    bootOrder = try reader.getString("boot order", most: 8)
    hasBootMenu = try reader.getBool("boot menu flag")
    drives = try reader.getBytes("drives", most: 4)
    serialPorts = try reader.get("serial ports")
    exitPort = try reader.get("exit port")
    hasDebugConsole = try reader.getBool("debug console flag")
    unixSeconds = try reader.get("wall clock")
    hasKernel = try reader.getBool("kernel flag")
    hasInitrd = try reader.getBool("initrd flag")
    commandLine = try reader.getString("command line", most: Self.longestCommandLine)
    uuid = try reader.getBytes("UUID", most: 16)
    hasPanicPort = try reader.getBool("panic port flag")
    guard uuid.count == 16 else { throw ProtocolError("a UUID of \(uuid.count) bytes") }
  }
}

/// vmdev-ide's settings.
///
/// Descriptors: one image for each drive, in order.
public struct IDESettings: Equatable, WireCodable {
  /// One drive.
  public struct Drive: Equatable, WireCodable {
    public enum Format: UInt8, Sendable {
      case raw = 0
      case qcow2 = 1
    }

    /// What is done when the host fails a request.
    public enum ErrorPolicy: UInt8, Sendable {
      /// The guest gets an error.
      case report = 0
      /// The guest is told that all went well.
      case ignore = 1
      /// The machine is held when the host has no space left; else the guest gets an error.
      case holdWhenFull = 2
      /// The machine is held, and the request is done again when it goes on.
      case hold = 3
    }

    /// What lies between the guest's writes and the host's disk.
    public enum Cache: UInt8, Sendable {
      /// A cache that the guest sees and flushes.
      case writeback = 0
      /// None for writes: each is durable before it has ended.
      case writethrough = 1
      /// As writeback; the files were opened to pass the host's page cache.
      case none = 2
    }

    /// 0 to 3: ide0.0, ide0.1, ide1.0, ide1.1.
    public var slot: UInt8
    public var format: Format
    public var isCDROM: Bool
    public var isReadOnly: Bool
    /// Whether there is an image, which a CD-ROM drive may be without.
    public var hasMedium: Bool
    /// Whether the file with the image's data comes behind the image.
    public var hasDataFile: Bool
    /// Whether the key of an encrypted image comes behind those.
    public var hasKey: Bool
    public var onReadError: ErrorPolicy
    public var onWriteError: ErrorPolicy
    public var cache: Cache
    /// The serial number that the guest reads, at most 20 characters of ASCII.
    public var serial: String

    public init(
      slot: UInt8, format: Format, isCDROM: Bool, isReadOnly: Bool, hasMedium: Bool = true,
      hasDataFile: Bool = false, hasKey: Bool = false, onReadError: ErrorPolicy = .report,
      onWriteError: ErrorPolicy = .holdWhenFull, cache: Cache = .writeback, serial: String
    ) {
      self.slot = slot
      self.format = format
      self.isCDROM = isCDROM
      self.isReadOnly = isReadOnly
      self.hasMedium = hasMedium
      self.hasDataFile = hasDataFile
      self.hasKey = hasKey
      self.onReadError = onReadError
      self.onWriteError = onWriteError
      self.cache = cache
      self.serial = serial
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(slot)
      writer.put(format.rawValue)
      writer.put(isCDROM)
      writer.put(isReadOnly)
      writer.put(hasMedium)
      writer.put(hasDataFile)
      writer.put(hasKey)
      writer.put(onReadError.rawValue)
      writer.put(onWriteError.rawValue)
      writer.put(cache.rawValue)
      writer.put(serial)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      slot = try reader.get("slot")
      format = try reader.getCase("format")
      isCDROM = try reader.getBool("CD flag")
      isReadOnly = try reader.getBool("read-only flag")
      hasMedium = try reader.getBool("medium flag")
      hasDataFile = try reader.getBool("data file flag")
      hasKey = try reader.getBool("key flag")
      onReadError = try reader.getCase("policy on read errors")
      onWriteError = try reader.getCase("policy on write errors")
      cache = try reader.getCase("cache mode")
      serial = try reader.getString("serial number", most: 20)
      guard slot < 4 else { throw ProtocolError("there is no drive slot \(slot)") }
      guard hasMedium || isCDROM else { throw ProtocolError("a disk without an image") }
      guard !hasDataFile || format == .qcow2 && hasMedium else {
        throw ProtocolError("a data file for what keeps its data in itself")
      }
      guard !hasKey || format == .qcow2 && hasMedium else {
        throw ProtocolError("a key for what is never encrypted")
      }
    }
  }

  public var common: CommonSettings
  public var drives: [Drive]

  public init(common: CommonSettings, drives: [Drive]) {
    self.common = common
    self.drives = drives
  }

  public func encode(to writer: inout WireWriter) {
    common.encode(to: &writer)
    writer.put(drives)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    common = try CommonSettings(from: &reader)
    drives = try reader.getArray("drives", most: 4)
  }
}

/// vmdev-serial's settings.
///
/// Descriptors: for each port in order its input, then its output,
/// as far as the back end has them.
public struct SerialSettings: Equatable, WireCodable {
  /// What a port is connected to.
  public enum Backend: UInt8, Sendable {
    /// Nothing: output is dropped, no input comes. No descriptor.
    case null = 0
    /// Two streams: an input and an output descriptor, and the pipe.
    case streams = 1
    /// One descriptor for both directions, such as a pseudo-terminal, and the pipe.
    case duplex = 2
    /// A regular file for output only, written at offsets from `start` on. One descriptor.
    case file = 3
    /// A Unix stream socket whose peers come and go: the pipe, and the peer if there is one.
    case socket = 4
  }

  /// One port.
  public struct Port: Equatable, WireCodable {
    public var backend: Backend
    /// ``Backend/file``: the file's length when the machine started.
    public var start: UInt64
    /// ``Backend/socket``: whether there is a peer, whose descriptor comes after the pipe.
    public var isConnected: Bool

    public init(backend: Backend, start: UInt64 = 0, isConnected: Bool = false) {
      self.backend = backend
      self.start = start
      self.isConnected = isConnected
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(backend.rawValue)
      writer.put(start)
      writer.put(isConnected)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      backend = try reader.getCase("back end")
      start = try reader.get("start")
      isConnected = try reader.getBool("connected flag")
    }
  }

  public var common: CommonSettings
  public var ports: [Port]

  public init(common: CommonSettings, ports: [Port]) {
    self.common = common
    self.ports = ports
  }

  public func encode(to writer: inout WireWriter) {
    common.encode(to: &writer)
    writer.put(ports)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    common = try CommonSettings(from: &reader)
    ports = try reader.getArray("ports", most: 4)
  }
}

/// vmdev-vga's settings.
///
/// Descriptors: the VGA BIOS.
public struct VGASettings: Equatable, WireCodable {
  public var common: CommonSettings
  /// The size of the video memory in bytes, a power of two.
  public var videoByteCount: UInt32

  public init(common: CommonSettings, videoByteCount: UInt32) {
    self.common = common
    self.videoByteCount = videoByteCount
  }

  public func encode(to writer: inout WireWriter) {
    common.encode(to: &writer)
    writer.put(videoByteCount)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    common = try CommonSettings(from: &reader)
    videoByteCount = try reader.get("video memory")
  }
}

/// vmmonitor's settings: what of the machine file its answers tell.
///
/// Descriptors: the channel to the core; then those of the QMP socket, of the human monitor's and
/// of gdb's, as far as there are any; then input and output of ``stream``, and the serial port's.
public struct MonitorSettings: Equatable, WireCodable {
  /// What goes over standard input and output of the launcher.
  public enum Stream: UInt8, Sendable {
    case none = 0
    case qmp = 1
    /// The human monitor alone.
    case human = 2
    /// The human monitor, and a serial port beside it; the port's socket comes last.
    case humanAndSerial = 3
  }

  /// The UUID of a machine that was given none.
  public static let noUUID = "00000000-0000-0000-0000-000000000000"

  /// One drive, as an operator knows it.
  public struct Drive: Equatable, WireCodable {
    /// Its place: channel times two, plus one for the second drive.
    public var slot: UInt8
    public var isCDROM: Bool
    public var isReadOnly: Bool
    /// `raw` or `qcow2`.
    public var format: String
    /// The image's path.
    public var image: String
    /// `writeback`, `writethrough` or `none`.
    public var cache: String

    public init(
      slot: UInt8, isCDROM: Bool, isReadOnly: Bool, format: String, image: String,
      cache: String = "writeback"
    ) {
      self.slot = slot
      self.isCDROM = isCDROM
      self.isReadOnly = isReadOnly
      self.format = format
      self.image = image.cut(toBytes: 1023)
      self.cache = cache
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(slot)
      writer.put(isCDROM)
      writer.put(isReadOnly)
      writer.put(format)
      writer.put(image)
      writer.put(cache)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      slot = try reader.get("slot")
      isCDROM = try reader.getBool("medium flag")
      isReadOnly = try reader.getBool("read-only flag")
      format = try reader.getString("format", most: 31)
      image = try reader.getString("image", most: 1023)
      cache = try reader.getString("cache mode", most: 31)
    }
  }

  /// The back end of a character device.
  public struct Port: Equatable, WireCodable {
    /// The back end as the machine file has it, such as `file:PATH`.
    public var backend: String

    public init(backend: String) { self.backend = backend.cut(toBytes: 1023) }

    public func encode(to writer: inout WireWriter) { writer.put(backend) }
    public init(from reader: inout WireReader) throws(ProtocolError) {
      backend = try reader.getString("back end", most: 1023)
    }
  }

  public var common: CommonSettings
  public var hasQMP: Bool
  public var hasHMP: Bool
  public var hasGDB: Bool
  public var hasMetrics: Bool
  /// What the launcher's own terminal or pipes carry.
  public var stream: Stream
  /// The machine's UUID as text.
  public var uuid: String
  public var drives: [Drive]
  /// The serial ports, COM1 first.
  public var ports: [Port]

  public init(
    common: CommonSettings, hasQMP: Bool, hasHMP: Bool, hasGDB: Bool, hasMetrics: Bool,
    stream: Stream = .none, uuid: String = Self.noUUID, drives: [Drive], ports: [Port]
  ) {
    self.common = common
    self.hasQMP = hasQMP
    self.hasHMP = hasHMP
    self.hasGDB = hasGDB
    self.hasMetrics = hasMetrics
    self.stream = stream
    self.uuid = uuid
    self.drives = drives
    self.ports = ports
  }

  public func encode(to writer: inout WireWriter) {
    common.encode(to: &writer)
    writer.put(hasQMP)
    writer.put(hasHMP)
    writer.put(hasGDB)
    writer.put(hasMetrics)
    writer.put(stream.rawValue)
    writer.put(uuid)
    writer.put(drives)
    writer.put(ports)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    common = try CommonSettings(from: &reader)
    hasQMP = try reader.getBool("QMP flag")
    hasHMP = try reader.getBool("human monitor flag")
    hasGDB = try reader.getBool("gdb flag")
    hasMetrics = try reader.getBool("metrics flag")
    stream = try reader.getCase("stream")
    uuid = try reader.getString("UUID", most: 36)
    drives = try reader.getArray("drives", most: 4)
    ports = try reader.getArray("ports", most: 4)
  }
}
