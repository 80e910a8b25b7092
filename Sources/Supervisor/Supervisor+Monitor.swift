// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import MachineFile

/// What the monitor's process asks of the launcher, which alone can open paths.
extension Supervisor {
  /// Answers a child's request; one that does not read its answers goes without.
  func send<M: WireCodable>(
    _ message: M, to child: Child, _ header: Header, _ file: Descriptor? = nil
  ) {
    try? child.channel.send(
      header.request, flags: .reply, sequence: header.sequence, payload: message.wireBytes,
      file.map { [$0] } ?? [], wait: false)
  }

  func refuse(_ refusal: Refusal, to child: Child, _ header: Header) {
    try? child.channel.refuse(header, refusal.reason, wait: false)
  }

  /// The name of a file that an operator says is in a folder of the machine file's `key`: by itself,
  /// or with the folder in front.
  static func name(_ path: String, directlyIn folder: String, key: String) throws(Refusal) -> String
  {
    let name = path.split(separator: "/", omittingEmptySubsequences: false).last ?? ""
    let isInside = path.hasPrefix("/") ? path == "\(folder)/\(name)" : path == name
    guard isInside, !name.isEmpty, name != ".", name != "..", !path.utf8.contains(0) else {
      throw Refusal("\(VisibleText.escape(path)) is not directly in \(folder) (\(key))")
    }
    return String(name)
  }

  /// Makes a file for the operator: in the folder that the machine file names, and nowhere else.
  func openOutput(
    _ request: OutputRequest, _ header: Header, _ child: Child
  ) throws(ProtocolError) {
    child.outputCount += 1
    do throws(Refusal) {
      let file = try makeOutput(request.path)
      send(Empty(), to: child, header, file)
    } catch {
      refuse(error, to: child, header)
    }
  }

  private func makeOutput(_ path: String) throws(Refusal) -> Descriptor {
    guard let folder = machine.monitor.output else {
      throw Refusal("the machine file names no folder for files (monitor.output)")
    }
    let name = try Self.name(path, directlyIn: folder, key: "monitor.output")
    do throws(SystemError) {
      let place = try Files.open(folder, [.readOnly, .folder])
      let file = try Files.open(
        name, in: place, [.writeOnly, .create, .noLink, .noTerminal, .noWait])
      guard file.isRegularFile else { throw SystemError("it is no regular file", 22) }
      try file.truncate(to: 0)
      return file
    } catch {
      throw Refusal("\(VisibleText.escape(path)): \(error)")
    }
  }

  /// Opens the image of a disc: in the folder that the machine file names, and nowhere else.
  func openMedium(_ request: DiscRequest, _ header: Header, _ child: Child) {
    do throws(Refusal) {
      let (file, byteCount) = try medium(request.path)
      send(DiscReply(byteCount: byteCount), to: child, header, file)
    } catch {
      refuse(error, to: child, header)
    }
  }

  private func medium(_ path: String) throws(Refusal) -> (file: Descriptor, byteCount: UInt64) {
    guard let folder = machine.monitor.media else {
      throw Refusal("the machine file names no folder of discs (monitor.media)")
    }
    let title = VisibleText.escape(path)
    let name = try Self.name(path, directlyIn: folder, key: "monitor.media")
    let file: Descriptor
    let byteCount: UInt64
    do throws(SystemError) {
      let place = try Files.open(folder, [.readOnly, .folder])
      file = try Files.open(name, in: place, [.readOnly, .noLink, .noTerminal, .noWait])
      byteCount = file.isRegularFile ? try file.size() : 0
    } catch {
      throw Refusal("Could not open '\(title)': \(SystemError.text(error.number))")
    }
    guard byteCount >= 2048 else {
      throw Refusal("'\(title)' is no file with at least one sector of 2048 bytes")
    }
    do throws(ImageLock.Failure) {
      try ImageLock.take(file, isReadOnly: true)
    } catch {
      throw Refusal("'\(title)' is open for writing in another process, or cannot be locked")
    }
    return (file, byteCount)
  }

  /// Tells the threads of the core, by their numbers on the host.
  func answerThreads(_ header: Header, _ child: Child) {
    var threads: [ThreadsReply.Entry] = []
    if let core = self.child(.core) {
      let folder = "/proc/\(core.process.pid)/task"
      for name in (try? Descriptor.entries(of: folder)) ?? [] {
        guard let id = UInt32(name),
          let bytes = try? Files.open("\(folder)/\(name)/comm", .readOnly).readToEnd(most: 64)
        else { continue }
        let text = String(decoding: bytes.prefix { $0 != 10 }.prefix(16), as: UTF8.self)
        threads.append(
          ThreadsReply.Entry(id: id, name: String(VisibleText.escape(text).prefix(7 * 4))))
      }
    }
    let reply = ThreadsReply(threads: Array(threads.sorted { $0.id < $1.id }.prefix(300)))
    send(reply, to: child, header)
  }

  /// Tells what the machine's processes use, this one's too.
  func answerProcesses(_ header: Header, _ child: Child) {
    let processes =
      [("vmlaunch", ThisProcess.id)]
      + children.map { ($0.role.executable, $0.process.pid) }
    let entries = processes.compactMap { name, pid -> ProcessesReply.Entry? in
      guard let usage = try? ProcessUsage(pid: pid) else { return nil }
      return ProcessesReply.Entry(
        name: name, processorTime: usage.processorTime, residentBytes: usage.residentBytes)
    }
    let reply = ProcessesReply(lostLines: log.lostLines, processes: entries)
    try? child.channel.send(
      header.request, flags: .reply, sequence: header.sequence, payload: reply.wireBytes,
      wait: false)
  }
}
