// SPDX-License-Identifier: Apache-2.0

/// A whole machine, as a machine file describes it.
///
/// Paths are as they will be opened: those that were relative are under the machine
/// file's folder. Parsing has checked everything that needs no look at the host.
public struct Machine: Hashable, Sendable {
  /// The machine's name: `[a-z0-9][a-z0-9_.-]{0,62}`.
  public var name: String
  public var accelerator = Accelerator.auto
  /// The number of virtual CPUs, 1 to 255.
  public var cpus = 1
  public var memory = MemorySize(mebibytes: 256)
  public var cpuModel = CPUModel.host
  /// What the guest is told that this machine is: 16 bytes in the order of the text.
  public var uuid: [UInt8]?
  /// What happens when the guest says that it has panicked; without it the guest cannot say so.
  public var onPanic: PanicPolicy?
  /// Whether the software CPU translates the code that runs often.
  public var translatesCode = true
  public var firmware = Firmware.seaBIOS
  /// The VGA BIOS's path; without one the distribution's is used.
  public var vgaBIOS: String?
  public var boot = Boot()
  /// The drives, in file order.
  public var drives: [Drive] = []
  /// The serial ports' back ends, COM1 first; at most four.
  public var serial: [Backend] = []
  public var display = Display()
  public var monitor = MonitorSockets()
  public var debug = Debug()
  public var isolation = IsolationLevel.strict
  /// The least that a line of the log has to matter.
  public var logLevel = LogLevel.info
  public var devices = Devices()

  /// Creates a machine with the defaults of every optional key.
  public init(name: String) { self.name = name }

  /// Returns the path of vmctl's socket: the one in the file, or `NAME.sock` in the folder.
  public func controlPath(inRuntimeFolder folder: String) -> String {
    monitor.control ?? "\(folder)/\(name).sock"
  }

  /// What runs the virtual CPUs.
  public enum Accelerator: String, CaseIterable, Hashable, Sendable {
    case auto, kvm, soft, none
  }

  /// What happens when the guest has panicked.
  public enum PanicPolicy: String, CaseIterable, Hashable, Sendable {
    /// The operator is told.
    case run
    /// The machine is held.
    case pause
    /// The machine ends, with exit code 2.
    case stop
  }

  /// What the guest is told that its CPU is.
  public enum CPUModel: Hashable, Sendable {
    case host
    case base
    case named(String)
  }

  /// The firmware image.
  public enum Firmware: Hashable, Sendable {
    /// SeaBIOS from the distribution.
    case seaBIOS
    case path(String)
  }

  /// What the machine starts from.
  public struct Boot: Hashable, Sendable {
    /// A kind of drive to start from.
    public enum Medium: String, CaseIterable, Hashable, Sendable { case disk, cdrom }

    public var order: [Medium] = [.disk, .cdrom]
    /// Whether the firmware offers its boot menu.
    public var menu = false
    /// A kernel to start directly; then `order` does not count.
    public var kernel: String?
    public var initrd: String?
    public var commandLine: String?

    public init() {}
  }

  /// A drive and its image.
  public struct Drive: Hashable, Sendable {
    /// A place on one of the two IDE channels.
    public enum Slot: String, CaseIterable, Hashable, Sendable {
      case ide00 = "ide0.0"
      case ide01 = "ide0.1"
      case ide10 = "ide1.0"
      case ide11 = "ide1.1"
    }

    public enum Format: String, CaseIterable, Hashable, Sendable { case raw, qcow2 }

    public enum Media: String, CaseIterable, Hashable, Sendable { case disk, cdrom }

    /// Which backing files the image may name.
    public enum Backing: Hashable, Sendable {
      /// None: an image that names one is refused.
      case none
      /// Any file in the image's own folder.
      case sameFolder
      /// These files and no others.
      case paths([String])
    }

    /// What is done when the host fails a read or a write.
    public enum ErrorPolicy: String, CaseIterable, Hashable, Sendable {
      /// The guest gets an error.
      case report
      /// The guest is told that all went well.
      case ignore
      /// The machine is held when the host has no space left; else the guest gets an error.
      case enospc
      /// The machine is held; when it goes on the request is done again.
      case stop
    }

    /// What lies between the guest's writes and the host's disk.
    public enum Cache: String, CaseIterable, Hashable, Sendable {
      /// The host's page cache; the guest sees a write cache, which it has to flush.
      case writeback
      /// The host's page cache, for reads only: a write has ended when it is durable, and the
      /// guest sees a disk without a write cache.
      case writethrough
      /// Nothing of the host's (O_DIRECT); the guest sees a write cache, that of the host's disk.
      case none
    }

    public var slot: Slot
    /// The path of the image; empty when a CD-ROM drive starts without a disc.
    public var image: String
    public var format: Format
    public var media = Media.disk
    public var isReadOnly = false
    public var cache = Cache.writeback
    public var backing = Backing.none
    /// The path of the file in which the image keeps its data, where it does so.
    public var dataFile: String?
    /// The path of the file with the key of an encrypted image.
    public var key: String?
    public var onReadError = ErrorPolicy.report
    public var onWriteError = ErrorPolicy.enospc

    /// Whether it is a CD-ROM drive that starts without a disc.
    public var isEmpty: Bool { image.isEmpty }

    public init(slot: Slot, image: String, format: Format) {
      self.slot = slot
      self.image = image
      self.format = format
    }
  }

  /// The host's end of a character device.
  public enum Backend: Hashable, Sendable {
    /// The launcher's own terminal or pipes.
    case stdio
    /// A new pseudo-terminal.
    case pty
    case file(String)
    /// A listening Unix socket at this path.
    case unix(String)
    /// A Unix socket at this path that another program listens at.
    case connect(String)
    case null
  }

  /// The network-facing displays.
  public struct Display: Hashable, Sendable {
    public var vnc: ListenAddress?
    public var web: ListenAddress?
    public var passwordFile: String?

    public init() {}
  }

  /// The monitor's sockets.
  public struct MonitorSockets: Hashable, Sendable {
    public var qmp: Backend?
    public var hmp: Backend?
    /// Where gdb connects.
    public var gdb: Backend?
    /// Where Prometheus' text format is served over HTTP.
    public var metrics: Backend?
    /// The folder that the operator's commands may write files to.
    public var output: String?
    /// The folder whose files the operator's commands may put into a CD-ROM drive.
    public var media: String?
    /// The folder of the machine's snapshots: their state files, and the overlays of drives.
    public var snapshots: String?
    /// The path of vmctl's socket; without one, a path in the runtime folder is made
    /// from the machine's name.
    public var control: String?

    public init() {}

    /// Whether vmmonitor has anything to serve.
    public var isServed: Bool { !served.isEmpty || usesStream }

    /// Whether it uses the launcher's own terminal or pipes.
    public var usesStream: Bool { qmp == .stdio || hmp == .stdio }

    /// The sockets that vmmonitor serves; none without it.
    public var served: [(key: String, path: String)] {
      [
        ("monitor.qmp", qmp), ("monitor.hmp", hmp), ("monitor.gdb", gdb),
        ("monitor.metrics", metrics),
      ].compactMap {
        guard case .unix(let path) = $0.1 else { return nil }
        return ($0.0, path)
      }
    }
  }

  /// Debug devices.
  public struct Debug: Hashable, Sendable {
    /// Where what the firmware writes to port 402h goes; without one there is no such port.
    public var console: Backend?
    /// The port that ends the machine with exit code (v << 1) | 1 when v is written.
    public var exitPort: UInt16?

    public init() {}
  }

  /// What a missing layer of the sandbox means.
  public enum IsolationLevel: String, CaseIterable, Hashable, Sendable {
    /// The machine does not start.
    case strict
    /// The machine starts and says so.
    case relaxed
  }

  /// How much a line of the log matters, from the most on.
  public enum LogLevel: String, CaseIterable, Hashable, Sendable {
    case error, warning, notice, info, debug
  }

  /// The device processes.
  public enum DeviceName: String, CaseIterable, Hashable, Sendable {
    case piix, ide, serial, vga
  }

  /// How one device process is run.
  public struct Device: Hashable, Sendable {
    public enum DMA: String, CaseIterable, Hashable, Sendable { case mediated, shared }

    /// What happens when the process dies or misses its deadline.
    public enum OnFault: String, CaseIterable, Hashable, Sendable { case restart, pause, stop }

    public var dma = DMA.mediated
    public var onFault = OnFault.restart
    /// The socket of a device that somebody else started.
    public var socket: String?
    /// How long one live access may take, in nanoseconds.
    public var deadline: UInt64 = 5_000_000_000

    public init() {}
  }

  /// The settings of each device process.
  public struct Devices: Hashable, Sendable {
    public var piix = Device()
    public var ide = Device()
    public var serial = Device()
    public var vga = Device()

    public init() {}

    public subscript(name: DeviceName) -> Device {
      get {
        switch name {
        case .piix: piix
        case .ide: ide
        case .serial: serial
        case .vga: vga
        }
      }
      set {
        switch name {
        case .piix: piix = newValue
        case .ide: ide = newValue
        case .serial: serial = newValue
        case .vga: vga = newValue
        }
      }
    }
  }
}
