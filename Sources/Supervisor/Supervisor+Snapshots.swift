// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import MachineFile

/// What the core asks for snapshots: files in the folder that the machine file names, and the end of
/// the devices' processes.
extension Supervisor {
  private static let suffix = ".vmstate"

  private func snapshotFolder() throws(Refusal) -> String {
    guard let folder = machine.monitor.snapshots else {
      throw Refusal("the machine file names no folder for snapshots (monitor.snapshots)")
    }
    return folder
  }

  // MARK: - State files

  func answerStateFile(_ request: StateFileRequest, _ header: Header, _ child: Child) {
    do throws(Refusal) {
      let (reply, file) = try stateFile(request)
      send(reply, to: child, header, file)
    } catch {
      refuse(error, to: child, header)
    }
  }

  private func stateFile(
    _ request: StateFileRequest
  ) throws(Refusal) -> (StateFileReply, Descriptor?) {
    guard request.action != .list else { return (try listStates(), nil) }
    let folder = try snapshotFolder()
    let tag = request.tag
    guard SnapshotTag.isGood(tag) else { throw Refusal("that cannot name a snapshot") }
    let path = "\(folder)/\(tag)\(Self.suffix)"
    do throws(SystemError) {
      switch request.action {
      case .create:
        if !request.isReplaced, try Files.status(path) != nil {
          throw SystemError("", Self.isThere)
        }
        let first = "\(folder)/.\(tag)\(Self.suffix).new"
        try Files.remove(first)
        let file = try Files.open(
          first, [.writeOnly, .create, .exclusive, .noLink], permissions: 0o600)
        newState = (tag, first, file)
        return (StateFileReply(), file)
      case .commit:
        guard let new = newState, new.tag == tag else { break }
        try new.file.synchronize()
        try Files.rename(new.path, to: path)
        newState = nil
        try Files.open(folder, [.readOnly, .folder]).synchronize()
      case .discard:
        guard let new = newState, new.tag == tag else { break }
        newState = nil
        try Files.remove(new.path)
      case .open:
        let file = try Files.open(path, [.readOnly, .noLink, .noWait])
        guard file.isRegularFile else { throw SystemError("", Self.isMissing) }
        return (StateFileReply(), file)
      case .delete:
        guard try Files.status(path) != nil else { break }
        try Files.remove(path)
        return (StateFileReply(files: [StateFileReply.Entry(tag: tag, byteCount: 0)]), nil)
      case .list: break
      }
    } catch {
      if error.number == Self.isThere {
        throw Refusal("there is a snapshot '\(VisibleText.escape(tag))' already; delete it first")
      }
      if request.action == .open, error.isMissing || error.number == Self.isMissing {
        throw Refusal(
          "there is no snapshot '\(VisibleText.escape(tag))' in \(folder) (monitor.snapshots)")
      }
      throw Refusal("\(VisibleText.escape(path)): \(SystemError.text(error.number))")
    }
    return (StateFileReply(), nil)
  }

  private static let isThere: Int32 = 17  // EEXIST
  private static let isMissing: Int32 = 2  // ENOENT

  private func listStates() throws(Refusal) -> StateFileReply {
    guard let folder = machine.monitor.snapshots,
      let names = try? Descriptor.entries(of: folder)
    else { return StateFileReply() }
    var files: [StateFileReply.Entry] = []
    for name in names.sorted() where name.hasSuffix(Self.suffix) {
      let tag = String(name.dropLast(Self.suffix.count))
      guard SnapshotTag.isGood(tag),
        let file = try? Files.open("\(folder)/\(name)", [.readOnly, .noLink, .noWait]),
        file.isRegularFile, let size = try? file.size()
      else { continue }
      files.append(StateFileReply.Entry(tag: tag, byteCount: size))
    }
    return StateFileReply(files: files)
  }

  /// Removes what a snapshot or an overlay has begun and not ended.
  func removeUnfinished() {
    for path in [newState?.path, newOverlay?.path] {
      if let path { try? Files.remove(path) }
    }
    (newState, newOverlay) = (nil, nil)
  }

  // MARK: - Devices

  /// Ends every device's process, to be started anew on another state.
  func endDevices(_ header: Header, _ child: Child) {
    for name in Machine.DeviceName.allCases {
      quitDeadlines[name] = nil
      guard removeProcess(name) else { return end(2, "vmdev-\(name.rawValue) cannot be killed") }
    }
    // What a port's pipe still holds was sent by a guest that is no more.
    for backend in resources.serial {
      switch backend.port.backend {
      case .null, .file: continue
      case .streams, .duplex, .socket: break
      }
      guard let pipe = backend.descriptors.dropLast().last, let count = try? pipe.readableCount(),
        count > 0
      else { continue }
      _ = try? pipe.read(count)
    }
    send(Empty(), to: child, header)
  }

  // MARK: - Overlays

  func answerOverlay(_ request: OverlayRequest, _ header: Header, _ child: Child) {
    do throws(Refusal) {
      guard
        let index = machine.drives.firstIndex(where: { ChildSetup.place($0.slot) == request.slot })
      else { throw Refusal("there is no drive in that slot") }
      switch request.action {
      case .create:
        let (reply, file) = try makeOverlay(request, index)
        send(reply, to: child, header, file)
      case .use:
        try useOverlay(request.slot, index)
        send(OverlayReply(), to: child, header)
        restart(.ide, isFailure: false)
      case .discard:
        if let new = newOverlay, new.slot == request.slot { try? Files.remove(new.path) }
        newOverlay = nil
        send(OverlayReply(), to: child, header)
      }
    } catch {
      refuse(error, to: child, header)
    }
  }

  private func makeOverlay(
    _ request: OverlayRequest, _ index: Int
  ) throws(Refusal) -> (OverlayReply, Descriptor) {
    let drive = machine.drives[index]
    let title = drive.slot.rawValue
    guard drive.media == .disk, !drive.isReadOnly else {
      throw Refusal("\(title) is not written: it needs no overlay")
    }
    guard drive.dataFile == nil, drive.key == nil else {
      throw Refusal("\(title) has an image with a data file or a key, which an overlay cannot have")
    }
    let folder = try snapshotFolder()
    let path =
      "\(folder)/\(try Self.name(request.path, directlyIn: folder, key: "monitor.snapshots"))"
    do throws(SystemError) {
      let below = try absolute(drive.image)
      guard below.utf8.count <= 1023 else { throw SystemError("", 36 /* ENAMETOOLONG */) }
      let file = try Files.open(
        path, [.readWrite, .create, .exclusive, .noLink], permissions: 0o600)
      newOverlay = (request.slot, path)
      return (OverlayReply(backing: below, format: drive.format.rawValue), file)
    } catch {
      throw Refusal("\(VisibleText.escape(path)): \(SystemError.text(error.number))")
    }
  }

  private func absolute(_ path: String) throws(SystemError) -> String {
    guard !path.hasPrefix("/") else { return path }
    return try Files.open("/proc/self", [.readOnly, .folder]).link("cwd") + "/" + path
  }

  /// Makes the new image the drive's; its process is started anew then.
  private func useOverlay(_ slot: UInt8, _ index: Int) throws(Refusal) {
    guard let new = newOverlay, new.slot == slot else { throw Refusal("there is no overlay") }
    let drive = machine.drives[index]
    do {
      let below = try absolute(drive.image)
      let file = try Files.open(
        new.path, drive.cache == .none ? [.readWrite, .noLink, .direct] : [.readWrite, .noLink])
      do throws(ImageLock.Failure) { try ImageLock.take(file, isReadOnly: false) } catch {
        throw Refusal("\(VisibleText.escape(new.path)) is in use by another process")
      }
      newOverlay = nil
      resources.backings[index].allow(below)
      // It lies below from now on, and is only read.
      if let old = resources.images[index] { try ImageLock.giveUpWriting(old) }
      resources.images[index] = file
      machine.drives[index].image = new.path
      machine.drives[index].format = .qcow2
      say("\(drive.slot.rawValue): goes on in \(VisibleText.escape(new.path))", .notice)
    } catch let error as Refusal {
      throw error
    } catch {
      throw Refusal("\(VisibleText.escape(new.path)): \(error)")
    }
  }
}
