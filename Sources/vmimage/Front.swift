// SPDX-License-Identifier: Apache-2.0

import LinuxSystem
import Sandbox

/// A file that a command names.
struct Operand {
  enum Access {
    case read
    case write
    /// Made anew; it gets its name when all went well.
    case create
  }
  var path: String
  var access: Access
}

/// What went wrong, in words.
struct ToolError: Error, CustomStringConvertible {
  var description: String
  /// The exit code.
  var code: Int32 = 1
  init(_ description: String, code: Int32 = 1) {
    self.description = description
    self.code = code
  }
}

/// The part of the tool that opens files, and reads nothing of what is in them.
///
/// It starts the same program again as a worker in a sandbox, hands it the files that the command
/// line names, and opens others by the names that the worker finds in images.
struct Front {
  private struct Opened {
    var file: Descriptor
    var path: String
    var isWritable: Bool
  }

  private let options: CommonOptions
  /// Whether the worker may write to the backing file of the first file.
  private let writesBacking: Bool
  /// Whether files are used past the host's page cache.
  private let isDirect: Bool
  private var files: [Opened] = []
  /// The key of encrypted images, which the worker alone reads.
  private var key: Descriptor?
  /// Files that were made: the name they have, and the one that they are to get.
  private var made: [(temporary: String, final: String)] = []

  /// The tool's own streams, which stay open for as long as it lives.
  private static let output = Descriptor(owning: 1)
  private static let errors = Descriptor(owning: 2)
  /// The most files that one command opens.
  private static let mostFiles = 140

  init(_ options: CommonOptions, writesBacking: Bool, isDirect: Bool = false) {
    self.isDirect = isDirect
    self.options = options
    self.writesBacking = writesBacking
  }

  /// Runs a command to its end; returns the exit code.
  ///
  /// Where 1 has a meaning of its own, what can't be opened has another code.
  mutating func run(_ operands: [Operand], failureCode: Int32) -> Int32 {
    Signals.block(Signals.ending)
    do throws(ToolError) {
      let signals = try system { () throws(SystemError) in
        try Signals.descriptor(Signals.ending)
      }
      for operand in operands { try open(operand) }
      try openKey()
      let code = try serve(signals)
      if code == 0 { try nameFiles() } else { removeFiles() }
      return code
    } catch {
      removeFiles()
      try? Self.errors.writeAll(Array("vmimage: \(error)\n".utf8))
      return error.code == 1 ? failureCode : error.code
    }
  }

  private func system<T>(_ body: () throws(SystemError) -> T) throws(ToolError) -> T {
    do throws(SystemError) { return try body() } catch { throw ToolError("\(error)") }
  }

  private mutating func open(_ operand: Operand) throws(ToolError) {
    guard operand.access == .create else {
      return try add(operand.path, isWritable: operand.access == .write)
    }
    let old = try? Descriptor.open(operand.path, OpenMode([.readOnly, .noWait]).rawValue)
    if let old {
      if old.isBlockDevice { return try add(operand.path, isWritable: true) }
      guard old.isRegularFile else {
        throw ToolError("\(operand.path): neither a regular file nor a block device")
      }
      // Whoever uses the file that is replaced would go on with one that has no name.
      do throws(ImageLock.Failure) {
        try ImageLock.test(old, isReadOnly: false)
      } catch {
        throw ToolError("\(operand.path): it is in use by another process")
      }
    }
    let temporary = "\(operand.path).\(ThisProcess.id).part"
    let file = try system { () throws(SystemError) in
      try Files.open(temporary, [.readWrite, .create, .exclusive], permissions: 0o644)
    }
    made.append((temporary, operand.path))
    try lock(file, operand.path, isWritable: true)
    files.append(Opened(file: file, path: operand.path, isWritable: true))
  }

  private mutating func openKey() throws(ToolError) {
    if let number = options.keyFD {
      let given = Descriptor(owning: number)
      guard (try? given.kind()) != nil else {
        throw ToolError("--key-fd: there is no open file \(number)")
      }
      key = given
    }
    guard let path = options.keyFile else { return }
    do throws(SystemError) { key = try Files.open(path, [.readOnly, .noTerminal]) } catch {
      throw ToolError("could not open the key \"\(path)\": \(SystemError.text(error.number))")
    }
  }

  /// Opens a file of the host that is there, and takes its locks.
  private mutating func add(_ path: String, isWritable: Bool) throws(ToolError) {
    guard files.count < Self.mostFiles else {
      throw ToolError("more than \(Self.mostFiles) files are involved")
    }
    let access: OpenMode = isWritable ? .readWrite : .readOnly
    let file: Descriptor
    do throws(SystemError) {
      file = try Files.open(path, [access, .noWait, .noTerminal, isDirect ? .direct : []])
    } catch {
      if isDirect, error.isInvalid {
        throw ToolError("\(path): its file system has no direct I/O (O_DIRECT)")
      }
      throw ToolError("could not open \"\(path)\": \(SystemError.text(error.number))")
    }
    guard file.isRegularFile || file.isBlockDevice else {
      throw ToolError("\(path): neither a regular file nor a block device")
    }
    try lock(file, path, isWritable: isWritable)
    files.append(Opened(file: file, path: path, isWritable: isWritable))
  }

  private func lock(_ file: Descriptor, _ path: String, isWritable: Bool) throws(ToolError) {
    guard isWritable || !options.forceShare else { return }
    do throws(ImageLock.Failure) {
      try ImageLock.take(file, isReadOnly: !isWritable)
    } catch {
      switch error {
      case .inUse: throw ToolError("\(path): it is in use by another process (see --force-share)")
      case .system(let error): throw ToolError("\(path): \(error)")
      }
    }
  }

  /// Starts the worker and does what it asks for until it ends or a signal comes.
  private mutating func serve(_ signals: Descriptor) throws(ToolError) -> Int32 {
    let (own, other) = try system { () throws(SystemError) in try PacketSocket.pair() }
    var handed: [(Descriptor, as: Int32)] = [(other.descriptor, as: 3)]
    handed += [(Self.output, as: 1), (Self.errors, as: 2)]
    for (index, opened) in files.enumerated() {
      handed.append((opened.file, as: Worker.firstFile + Int32(index)))
    }
    if let key { handed.append((key, as: Worker.firstFile + Int32(files.count))) }
    let child: ChildProcess
    do throws(SystemError) {
      child = try Sandbox.start(
        executable: "/proc/self/exe",
        arguments: [Worker.mark] + CommandLine.arguments.dropFirst(), descriptors: handed,
        profile: .imageTool, level: options.isolation, identity: .own)
    } catch {
      throw ToolError("could not start the worker: \(error)")
    }
    handed = []
    key = nil
    var poller = Poller()
    let request = poller.add(own.descriptor, .readable)
    let signal = poller.add(signals, .readable)
    let end = poller.add(child.descriptor, .readable)
    while true {
      _ = try system { () throws(SystemError) in try poller.wait() }
      if poller[signal].contains(.readable), let number = Signals.next(signals) {
        try? child.kill()
        _ = try? child.wait()
        throw ToolError("ended by signal \(number)", code: 128 + number)
      }
      if poller[request].contains(.readable) {
        if let message = try? own.receive(2048), !message.bytes.isEmpty {
          answer(message.bytes, on: own)
          continue
        }
        poller.change(request, own.descriptor, nil)
      }
      if poller[end].contains(.readable) {
        switch try system({ () throws(SystemError) in try child.wait() }) {
        case .exited(let code): return code
        case let other: throw ToolError("the worker ended: \(other)")
        }
      }
    }
  }

  /// Opens a file that an image names, and answers with its number or with what went wrong.
  private mutating func answer(_ bytes: [UInt8], on socket: PacketSocket) {
    do throws(ToolError) {
      let path = try openNamed(bytes)
      guard let opened = files.last else { return }
      let reply = [1, UInt8(files.count - 1)] + Array(path.utf8)
      try? socket.send(reply, [opened.file], wait: false)
    } catch {
      try? socket.send([0] + Array("\(error)".utf8.prefix(1500)), wait: false)
    }
  }

  private mutating func openNamed(_ bytes: [UInt8]) throws(ToolError) -> String {
    guard bytes.count > 2, let kind = FileRequest(rawValue: bytes[0]), Int(bytes[1]) < files.count,
      var name = String(validating: bytes[2...], as: UTF8.self), !name.utf8.contains(0)
    else { throw ToolError("the worker sent a bad request") }
    let parent = files[Int(bytes[1])]
    let isWritable: Bool
    switch kind {
    case .backing: isWritable = false
    case .writableBacking: isWritable = writesBacking && bytes[1] == 0
    case .data: isWritable = parent.isWritable
    }
    if name.hasPrefix("file:") { name.removeFirst(5) }
    let path = Self.path(of: name, beside: parent.path)
    try add(path, isWritable: isWritable)
    return path
  }

  /// Where a name in an image leads: relative to the folder of the image.
  static func path(of name: String, beside image: String) -> String {
    guard !name.hasPrefix("/"), let slash = image.lastIndex(of: "/") else { return name }
    return image[...slash] + name
  }

  private mutating func nameFiles() throws(ToolError) {
    while let (temporary, final) = made.first {
      try system { () throws(SystemError) in try Files.rename(temporary, to: final) }
      made.removeFirst()
    }
  }

  private mutating func removeFiles() {
    for (temporary, _) in made { try? Files.remove(temporary) }
    made = []
  }
}

/// What a worker asks for.
enum FileRequest: UInt8 {
  case backing = 1
  case writableBacking = 2
  case data = 3
}
