// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import MachineFile

/// What the monitor's process asks of the launcher, which alone can open paths.
extension Supervisor {
  /// Makes a file for the operator: in the folder that the machine file names, and nowhere else.
  func openOutput(
    _ request: OutputRequest, _ header: Header, _ child: Child
  ) throws(ProtocolError) {
    child.outputCount += 1
    do throws(Refusal) {
      let file = try makeOutput(request.path)
      try? child.channel.send(
        header.request, flags: .reply, sequence: header.sequence, payload: Empty().wireBytes,
        [file], wait: false)
    } catch {
      try? child.channel.send(
        header.request, flags: [.reply, .refusal], sequence: header.sequence,
        payload: error.wireBytes, wait: false)
    }
  }

  private func makeOutput(_ path: String) throws(Refusal) -> Descriptor {
    guard let folder = machine.monitor.output else {
      throw Refusal("the machine file names no folder for files (monitor.output)")
    }
    let name = path.split(separator: "/", omittingEmptySubsequences: false).last ?? ""
    let isInside = path.hasPrefix("/") ? path == "\(folder)/\(name)" : path == name
    guard isInside, !name.isEmpty, name != ".", name != "..", !path.utf8.contains(0) else {
      throw Refusal("\(VisibleText.escape(path)) is not directly in \(folder) (monitor.output)")
    }
    do throws(SystemError) {
      let place = try Files.open(folder, [.readOnly, .folder])
      let file = try Files.open(
        String(name), in: place, [.writeOnly, .create, .noLink, .noTerminal, .noWait])
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
      try? child.channel.send(
        header.request, flags: .reply, sequence: header.sequence,
        payload: DiscReply(byteCount: byteCount).wireBytes, [file], wait: false)
    } catch {
      try? child.channel.send(
        header.request, flags: [.reply, .refusal], sequence: header.sequence,
        payload: error.wireBytes, wait: false)
    }
  }

  private func medium(_ path: String) throws(Refusal) -> (file: Descriptor, byteCount: UInt64) {
    guard let folder = machine.monitor.media else {
      throw Refusal("the machine file names no folder of discs (monitor.media)")
    }
    let title = VisibleText.escape(path)
    let name = path.split(separator: "/", omittingEmptySubsequences: false).last ?? ""
    let isInside = path.hasPrefix("/") ? path == "\(folder)/\(name)" : path == name
    guard isInside, !name.isEmpty, name != ".", name != "..", !path.utf8.contains(0) else {
      throw Refusal("\(title) is not directly in \(folder) (monitor.media)")
    }
    let file: Descriptor
    let byteCount: UInt64
    do throws(SystemError) {
      let place = try Files.open(folder, [.readOnly, .folder])
      file = try Files.open(String(name), in: place, [.readOnly, .noLink, .noTerminal, .noWait])
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
    try? child.channel.send(
      header.request, flags: .reply, sequence: header.sequence, payload: reply.wireBytes,
      wait: false)
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
