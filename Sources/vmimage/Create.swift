// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockImage
import LinuxSystem

struct Create: ImageCommand {
  static let configuration = CommandConfiguration(abstract: "Make a new image.")
  @OptionGroup var common: CommonOptions
  @Option(name: [.short, .long], help: "raw or qcow2.") var format: Format = .raw
  @Option(name: .short, help: "Options of the image: NAME=VALUE,...") var options: [ImageOptions] =
    []
  @Option(name: [.short, .long], help: "The backing file.") var backing: String?
  @Option(name: [.customShort("F"), .long], help: "The backing file's format.")
  var backingFormat: Format?
  @Flag(
    help: "Encrypt the image (LUKS, AES-256) with the key of --key-file or --key-fd; qcow2 only.")
  var encrypt = false
  @Argument(help: "The image.") var image: String
  @Argument(help: "The size of the disk; with a backing file its size, unless given.")
  var size: ByteSize?

  private var all: ImageOptions {
    var all = ImageOptions()
    all.merge(options)
    if let backing { all.set("backing_file", backing) }
    if let backingFormat { all.set("backing_fmt", backingFormat.rawValue) }
    return all
  }

  var encrypts: Bool { encrypt }

  func validate() throws {
    guard encrypt else { return }
    guard format == .qcow2 else { throw ValidationError("only a qcow2 image can be encrypted") }
    guard common.hasKey else { throw ValidationError("--encrypt needs --key-file or --key-fd") }
  }

  var operands: [Operand] {
    var operands = [Operand(path: image, access: .create)]
    if let data = all.dataFile {
      operands.append(Operand(path: Front.path(of: data, beside: image), access: .create))
    }
    if size == nil, let backing = all.backingFile {
      operands.append(Operand(path: Front.path(of: backing, beside: image), access: .read))
    }
    return operands
  }

  func work(_ worker: Worker) throws(ToolError) -> Int32 {
    let all = all
    var bytes = size?.bytes
    if all.backingFile != nil, format == .qcow2 {
      guard let text = all.backingFormatName, let said = Format(rawValue: text) else {
        throw ToolError("the backing file's format must be given: raw or qcow2 (-F)")
      }
      if bytes == nil {
        let file = worker.file(operands.count - 1)
        bytes = try worker.open(file, said).virtualSize
      }
    }
    guard let bytes else { throw ToolError("the size of the disk is missing") }
    let file = worker.file(0)
    guard format == .qcow2 else {
      guard all.isEmpty(but: "preallocation") else {
        throw ToolError("a raw image has no options but preallocation")
      }
      var storage = try worker.storage(file, isWritable: true)
      try attempt(file) { () throws(StorageError) in
        if storage.byteCount != bytes { try storage.resize(to: bytes) }
        if let how = all.preallocation { try Self.fill(&storage, 0..<bytes, how) }
        try storage.flush()
      }
      return 0
    }
    var creation = try all.creation(size: bytes)
    creation.encryptionHeader = worker.newEncryption
    guard !encrypt || all.preallocation == .off else {
      throw ToolError("an encrypted image can't be preallocated: what is there reads as noise")
    }
    let how = all.preallocation ?? .off
    guard how == .off || creation.backingFileName == nil else {
      throw ToolError("an image over a backing file can't be preallocated")
    }
    let writer = try Self.writer(worker, creation)
    try Self.finish(writer, how, file, worker)
    return 0
  }

  /// Starts an image on the first two files of the command.
  static func writer(_ worker: Worker, _ creation: QCOW2Creation, first: Int = 0)
    throws(ToolError) -> QCOW2Writer<DiskFile>
  {
    let file = worker.file(first)
    let storage = try worker.storage(file, isWritable: true)
    var data: DiskFile?
    if creation.dataFileName != nil {
      let dataFile = worker.file(first + 1)
      var opened = try worker.storage(dataFile, isWritable: true)
      do throws(StorageError) { try opened.resize(to: creation.virtualSize) } catch {
        throw ToolError("\(dataFile.path): \(error)")
      }
      data = consume opened
    }
    do throws(BlockImageError) {
      return try QCOW2Writer(creation, storage: storage, dataFile: data)
    } catch {
      throw ToolError("\(file.path): \(Worker.words(error))")
    }
  }

  private static func finish(
    _ writer: consuming QCOW2Writer<DiskFile>, _ how: Preallocation, _ file: HeldFile,
    _ worker: Worker
  ) throws(ToolError) {
    var writer = writer
    let size = writer.creation.virtualSize
    do throws(BlockImageError) {
      if how != .off {
        try writer.reserve(at: 0, count: size) { (storage, range) throws(BlockImageError) in
          do throws(StorageError) { try fill(&storage, range, how) } catch {
            throw .storage(error)
          }
        }
      }
      _ = try writer.finish()
    } catch {
      throw ToolError("\(file.path): \(Worker.words(error))")
    }
  }

  private static func fill(
    _ storage: inout DiskFile, _ range: Range<UInt64>, _ how: Preallocation
  ) throws(StorageError) {
    switch how {
    case .off: break
    case .metadata:
      if storage.byteCount < range.upperBound { try storage.resize(to: range.upperBound) }
    case .falloc: try storage.reserve(at: range.lowerBound, count: UInt64(range.count))
    case .full:
      let zeros = [UInt8](repeating: 0, count: 1 << 20)
      var position = range.lowerBound
      while position < range.upperBound {
        let count = Int(min(UInt64(zeros.count), range.upperBound - position))
        try storage.write(zeros.span.extracting(0..<count), at: position)
        position += UInt64(count)
      }
    }
  }
}

/// Turns a storage's error into one that names the file.
func attempt(_ file: HeldFile, _ body: () throws(StorageError) -> Void) throws(ToolError) {
  do throws(StorageError) { try body() } catch {
    throw ToolError("\(file.path): \(Worker.words(.storage(error)))")
  }
}

extension ImageOptions {
  var backingFile: String? { values["backing_file"] }
  var backingFormatName: String? { values["backing_fmt"] }
  func isEmpty(but name: String) -> Bool { values.keys.allSatisfy { $0 == name } }
}
