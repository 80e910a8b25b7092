// SPDX-License-Identifier: Apache-2.0

extension ParsedMachine {
  /// Checks the machine against the host; nothing is opened or changed.
  ///
  /// The checks go from the machine to its files; the first that fails is thrown.
  public func validate(
    against host: HostFacts, files: some FileInspector
  ) throws(MachineFileError) {
    try checkResources(host)
    try checkFirmware(host, files)
    var users: [FileIdentity: ImageUse] = [:]
    for (index, drive) in machine.drives.enumerated() {
      try checkDrive(drive, "drive[\(index)]", files, &users)
    }
    for (index, backend) in machine.serial.enumerated() {
      try checkBackend(backend, "serial[\(index)].backend", files, users)
    }
    try checkBackend(machine.debug.console, "debug.console", files, users)
    try checkBackend(machine.monitor.qmp, "monitor.qmp", files, users)
    try checkBackend(machine.monitor.hmp, "monitor.hmp", files, users)
    try checkBackend(machine.monitor.gdb, "monitor.gdb", files, users)
    try checkBackend(machine.monitor.metrics, "monitor.metrics", files, users)
    if let path = machine.monitor.control {
      try checkBackend(.unix(path), "monitor.control", files, users)
    }
    for (path, key) in [
      (machine.boot.kernel, "boot.kernel"), (machine.boot.initrd, "boot.initrd"),
      (machine.display.passwordFile, "display.password-file"),
    ] {
      guard let path else { continue }
      try checkReadable(path, key, "a file", files)
    }
  }

  private func checkResources(_ host: HostFacts) throws(MachineFileError) {
    if machine.cpuModel != .host, machine.accelerator != .soft {
      throw error(
        "machine.cpu-model", "this is a model of the software CPU",
        remedy: "accepted: host, or accelerator = \"soft\" with it")
    }
    let isKVMWanted = machine.accelerator == .kvm
    if isKVMWanted {
      let others = "or take another accelerator: auto, soft"
      switch host.kvm {
      case .usable: break
      case .missing:
        throw error(
          "machine.accelerator", "there is no /dev/kvm",
          remedy: "load the kernel's kvm module or allow nested virtualisation; " + others)
      case .unusable(let reason):
        throw error(
          "machine.accelerator", "/dev/kvm cannot be used: \(reason)",
          remedy: "join the group kvm, or see the kernel's log; " + others)
      }
    }
    if isKVMWanted, machine.cpus > host.maximumCPUs {
      throw error(
        "machine.cpus",
        "\(machine.cpus) virtual CPUs, but KVM here gives a machine at most "
          + "\(host.maximumCPUs)", remedy: "accepted: 1 to \(host.maximumCPUs)")
    }
    if machine.memory.byteCount > host.memoryByteCount {
      let most = MemorySize(mebibytes: host.memoryByteCount >> 20)
      throw error(
        "machine.memory", "\(machine.memory), but this host has \(most)",
        remedy: "accepted: \(MemorySize.minimum) to \(most)")
    }
  }

  private func checkFirmware(
    _ host: HostFacts, _ files: some FileInspector
  ) throws(MachineFileError) {
    switch machine.firmware {
    case .path(let path): try checkReadable(path, "machine.firmware", "seabios or a file", files)
    case .seaBIOS:
      guard host.seaBIOS == nil else { break }
      throw error(
        "machine.firmware", "SeaBIOS is not installed",
        remedy: "apt-get install seabios, or name the path of an image")
    }
    if let path = machine.vgaBIOS {
      try checkReadable(path, "machine.vga-bios", "a file", files)
    } else if host.vgaBIOS == nil {
      throw error(
        "machine.vga-bios", "SeaBIOS's VGA BIOS is not installed",
        remedy: "apt-get install seabios, or name the path of an image")
    }
  }

  private struct FileIdentity: Hashable {
    var device: UInt64
    var inode: UInt64

    init(_ status: FileStatus) {
      device = status.device
      inode = status.inode
    }
  }

  private struct ImageUse {
    var key: String
    var isReadOnly: Bool
  }

  private func checkDrive(
    _ drive: Machine.Drive, _ table: String, _ files: some FileInspector,
    _ users: inout [FileIdentity: ImageUse]
  ) throws(MachineFileError) {
    guard !drive.isEmpty else { return }
    let key = table + ".image"
    let wanted = "the path of a \(drive.format.rawValue) image"
    let status = try checkDisk(drive.image, key, wanted, drive, files, &users)
    if status.kind == .regular, status.byteCount == 0 {
      throw error(key, "\(quoted(drive.image)) is empty", remedy: "accepted: \(wanted)")
    }
    if let path = drive.dataFile {
      _ = try checkDisk(
        path, table + ".data-file", "the path of a file or block device", drive, files, &users)
    }
    if let path = drive.key {
      let status = try checkReadable(path, table + ".key", "a file with the key", files)
      guard !(status.kind == .regular && status.byteCount == 0) else {
        throw error(
          table + ".key", "\(quoted(path)) is empty", remedy: "accepted: a file with the key")
      }
    }
    if case .paths(let paths) = drive.backing {
      for (index, path) in paths.enumerated() {
        _ = try checkReadable(
          path, "\(table).backing[\(index)]", "the path of an image", files,
          kinds: [.regular, .blockDevice])
      }
    }
  }

  /// Checks a file of a drive that nobody else may write.
  private func checkDisk(
    _ path: String, _ key: String, _ wanted: String, _ drive: Machine.Drive,
    _ files: some FileInspector, _ users: inout [FileIdentity: ImageUse]
  ) throws(MachineFileError) -> FileStatus {
    let status = try checkReadable(path, key, wanted, files, kinds: [.regular, .blockDevice])
    if !drive.isReadOnly, !status.isWritable {
      throw error(
        key, "\(quoted(path)) may not be written",
        remedy: "accepted: a writable image, or readonly = true")
    }
    let identity = FileIdentity(status)
    if let user = users[identity], !(user.isReadOnly && drive.isReadOnly) {
      throw error(
        key, "\(quoted(path)) is the same file as \(user.key)",
        remedy: "accepted: an image of its own, or readonly = true in both")
    }
    users[identity] = ImageUse(key: key, isReadOnly: drive.isReadOnly)
    if files.isImageInUse(path, forWriting: !drive.isReadOnly) {
      throw error(
        key, "\(quoted(path)) is in use by another process",
        remedy: "accepted: an image that nobody else has open for writing")
    }
    return status
  }

  private func checkBackend(
    _ backend: Machine.Backend?, _ key: String, _ files: some FileInspector,
    _ users: [FileIdentity: ImageUse]
  ) throws(MachineFileError) {
    switch backend {
    case .file(let path):
      let status = files.status(of: path)
      switch status.kind {
      case .missing: try checkFolder(of: path, key, files)
      case .regular, .characterDevice, .pipe:
        guard status.isWritable else {
          throw error(
            key, "\(quoted(path)) may not be written", remedy: "accepted: a writable file")
        }
        if let user = users[FileIdentity(status)] {
          throw error(
            key, "\(quoted(path)) is the same file as \(user.key)",
            remedy: "accepted: a file of its own")
        }
      default:
        throw error(
          key, "\(quoted(path)) is \(status.kind.rawValue)", remedy: "accepted: a file")
      }
    case .unix(let path):
      let status = files.status(of: path)
      guard status.kind == .missing || status.kind == .socket else {
        throw error(
          key, "\(quoted(path)) is \(status.kind.rawValue)",
          remedy: "accepted: a path where a socket can be made")
      }
      try checkFolder(of: path, key, files)
    case .connect(let path):
      let status = files.status(of: path)
      guard status.kind == .socket else {
        let problem = status.kind == .missing ? "does not exist" : "is \(status.kind.rawValue)"
        throw error(
          key, "\(quoted(path)) \(problem)",
          remedy: "accepted: a Unix socket that a program listens at already")
      }
    case .stdio, .pty, .null, nil: break
    }
  }

  private func checkFolder(
    of path: String, _ key: String, _ files: some FileInspector
  ) throws(MachineFileError) {
    let folder: String =
      switch path.lastIndex(of: "/") {
      case path.startIndex?: "/"
      case let slash?: String(path[..<slash])
      case nil: "."
      }
    let status = files.status(of: folder)
    guard status.kind == .folder, status.isWritable else {
      let problem =
        switch status.kind {
        case .folder: "may not be written"
        case .missing: "does not exist"
        default: "is \(status.kind.rawValue)"
        }
      throw error(
        key, "the folder \(quoted(folder)) \(problem)", remedy: "accepted: a writable folder")
    }
  }

  @discardableResult
  private func checkReadable(
    _ path: String, _ key: String, _ wanted: String, _ files: some FileInspector,
    kinds: Set<FileStatus.Kind> = [.regular]
  ) throws(MachineFileError) -> FileStatus {
    let status = files.status(of: path)
    let problem: String
    switch status.kind {
    case .missing: problem = "does not exist"
    case let kind where !kinds.contains(kind): problem = "is \(kind.rawValue)"
    default:
      if status.isReadable { return status }
      problem = "may not be read"
    }
    throw error(key, "\(quoted(path)) \(problem)", remedy: "accepted: \(wanted)")
  }
}
