// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
public import LinuxSystem
public import MachineFile

/// Everything of the host that a machine uses, opened before the first process starts.
public struct HostResources: Sendable {
  public let kvm: Descriptor?
  public let firmware: Descriptor
  public let vgaBIOS: Descriptor
  /// What a kernel is started directly with.
  public let boot: BootFiles?
  /// One image for each drive, in the machine's order, locked; none where a CD-ROM drive is empty.
  public internal(set) var images: [Descriptor?]
  /// The files in which images keep their data, for each drive.
  public let dataFiles: [Descriptor?]
  /// The files with the keys of encrypted images, for each drive; nothing here reads them.
  public let keys: [Descriptor?]
  /// The rules about backing files, for each drive.
  public internal(set) var backings: [BackingFiles]
  /// The serial ports' back ends, COM1 first.
  public internal(set) var serial: [OpenedBackend]
  public let debugConsole: OpenedBackend?
  /// One for each device, in ``Machine/DeviceName``'s order.
  public let statePages: [Descriptor]
  public let control: ControlSocket
  /// The sockets of QMP, the human monitor and the metrics, as far as there are any.
  public let monitor: [ControlSocket]
  /// The socket that gdb connects to, as long as there is one.
  public internal(set) var debugger: ControlSocket?
  /// What the monitor has of the launcher's own terminal or pipes.
  let stream: MonitorStream?
  /// The wall clock when the machine started, in seconds since 1970.
  public let unixSeconds: Int64

  /// The length of a device's state page in bytes.
  public static func stateByteCount(_ device: Machine.DeviceName) -> Int {
    StateLayoutInPage.byteCount(bulk: device == .ide ? 512 << 10 : 64 << 10)
  }

  /// Opens everything; on an error nothing stays behind.
  ///
  /// The janitor, if there is one, is started before the first thing that it would clear away.
  ///
  /// - Throws: an error with code 1 that names the place in the machine file.
  public init(
    _ parsed: ParsedMachine, host: HostProbe, janitor: Janitor? = nil
  ) throws(LaunchError) {
    try parsed.check(host)
    let machine = parsed.machine
    kvm = host.kvm
    do throws(MachineFileError) {
      firmware = try parsed.openFirmware(host)
      vgaBIOS = try parsed.openVGABIOS(host)
      boot = try parsed.openBoot(host)
      var images: [Descriptor?] = []
      var dataFiles: [Descriptor?] = []
      var keys: [Descriptor?] = []
      var backings: [BackingFiles] = []
      for (index, drive) in machine.drives.enumerated() {
        images.append(
          drive.isEmpty
            ? nil : try parsed.openImage(drive.image, of: drive, "drive[\(index)].image"))
        dataFiles.append(
          try drive.dataFile.map { (path) throws(MachineFileError) in
            try parsed.openImage(path, of: drive, "drive[\(index)].data-file")
          })
        keys.append(try parsed.openKey(drive, "drive[\(index)].key"))
        backings.append(try parsed.openBackings(drive, "drive[\(index)].backing"))
      }
      self.images = images
      self.dataFiles = dataFiles
      self.keys = keys
      self.backings = backings
    } catch {
      throw LaunchError("\(error)")
    }
    // Files that are emptied come after everything that can be wrong with the rest, and the
    // socket, which says that the machine is not running, before them.
    try janitor?.start()
    control = try ControlSocket(
      machine.controlPath(inRuntimeFolder: RuntimeFolder.path), machine: machine.name,
      isOwnFolder: machine.monitor.control == nil, janitor: janitor)
    var sockets: [ControlSocket] = []
    var debugger: ControlSocket?
    var listening: [Int: ControlSocket] = [:]
    do throws(LaunchError) {
      for (key, path) in machine.monitor.served {
        let socket = try ControlSocket(
          path, machine: machine.name, isOwnFolder: false, isStream: true, janitor: janitor)
        if key == "monitor.gdb" { debugger = socket } else { sockets.append(socket) }
      }
      for (index, backend) in machine.serial.enumerated() {
        guard case .unix(let path) = backend else { continue }
        listening[index] =
          try ControlSocket(
            path, machine: machine.name, isOwnFolder: false, isStream: true, janitor: janitor)
      }
    } catch {
      for socket in sockets + listening.values + [debugger, control].compactMap(\.self) {
        socket.remove()
      }
      throw error
    }
    monitor = sockets
    self.debugger = debugger
    do throws(MachineFileError) {
      var serial: [OpenedBackend] = []
      for (index, backend) in machine.serial.enumerated() {
        let key = "serial[\(index)].backend"
        var opened = try parsed.openBackend(backend, key)
        opened.peers = try parsed.openPeers(backend, key, listening[index])
        serial.append(opened)
      }
      self.serial = serial
      debugConsole =
        if let console = machine.debug.console {
          try parsed.openBackend(console, "debug.console")
        } else {
          nil
        }
      stream = try parsed.openStream(&self.serial)
      statePages = try parsed.makeStatePages()
    } catch {
      for socket in sockets + listening.values + [debugger, control].compactMap(\.self) {
        socket.remove()
      }
      throw LaunchError("\(error)")
    }
    unixSeconds = HostClock.unixSeconds()
  }

  /// Removes the files of every socket.
  public func removeSockets() {
    let others = [debugger, control].compactMap(\.self)
    for socket in monitor + serial.compactMap({ $0.peers?.socket }) + others {
      socket.remove()
    }
  }
}

extension ParsedMachine {
  /// Opens a file of a drive as the drive uses it, and locks it.
  func openImage(
    _ path: String, of drive: Machine.Drive, _ key: String
  ) throws(MachineFileError) -> Descriptor {
    let file: Descriptor
    do throws(SystemError) {
      let access: OpenMode = drive.isReadOnly ? .readOnly : .readWrite
      file = try Files.open(path, drive.cache == .none ? [access, .direct] : access)
    } catch {
      if drive.cache == .none, error.isInvalid {
        throw self.error(
          String(key.prefix { $0 != "." }) + ".cache",
          "the file system of \"\(path)\" has no direct I/O (O_DIRECT), which \"none\" needs",
          remedy: "accepted: writeback, writethrough")
      }
      throw self.error(
        key, "\"\(path)\" cannot be opened: \(SystemError.text(error.number))",
        remedy: key.hasSuffix(".image")
          ? "accepted: the path of a \(drive.format.rawValue) image"
          : "accepted: the path of a file or block device")
    }
    do throws(ImageLock.Failure) {
      try ImageLock.take(file, isReadOnly: drive.isReadOnly)
    } catch {
      switch error {
      case .inUse:
        throw self.error(
          key, "\"\(path)\" is in use by another process",
          remedy: "accepted: an image that nobody else has open for writing")
      case .system(let reason):
        throw self.error(key, "\"\(path)\" cannot be locked: \(reason)")
      }
    }
    return file
  }

  func openKey(_ drive: Machine.Drive, _ key: String) throws(MachineFileError) -> Descriptor? {
    guard let path = drive.key else { return nil }
    do throws(SystemError) { return try Files.open(path, .readOnly) } catch {
      throw self.error(
        key, "\"\(path)\" cannot be opened: \(SystemError.text(error.number))",
        remedy: "accepted: a readable file with the key")
    }
  }

  func openBackings(_ drive: Machine.Drive, _ key: String) throws(MachineFileError) -> BackingFiles
  {
    do throws(SystemError) {
      return try BackingFiles(drive)
    } catch {
      throw self.error(key, "\(error)", remedy: "accepted: an image in a readable folder")
    }
  }

  func openBackend(
    _ backend: Machine.Backend, _ key: String
  ) throws(MachineFileError) -> OpenedBackend {
    do throws(SystemError) {
      return try OpenedBackend(backend)
    } catch {
      throw self.error(key, "\(error)", remedy: "accepted: a back end that can be opened")
    }
  }

  func openPeers(
    _ backend: Machine.Backend, _ key: String, _ socket: ControlSocket?
  ) throws(MachineFileError) -> SerialPeers? {
    do throws(SystemError) {
      if case .connect(let path) = backend { return try SerialPeers(connectingTo: path) }
      return socket.map { SerialPeers($0) }
    } catch {
      throw self.error(
        key, "\(error)", remedy: "accepted: a Unix socket that a program listens at already")
    }
  }

  func makeStatePages() throws(MachineFileError) -> [Descriptor] {
    var pages: [Descriptor] = []
    do throws(SystemError) {
      for device in Machine.DeviceName.allCases {
        pages.append(
          try MemoryFile.make(
            "state-\(device.rawValue)", byteCount: HostResources.stateByteCount(device)))
      }
    } catch {
      throw self.error("name", "no memory for the devices' state: \(error)")
    }
    return pages
  }
}
