// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockImage
import LinuxSystem

struct Convert: ImageCommand {
  static let configuration = CommandConfiguration(
    abstract: "Copy a disk into a new image, of the same or another format.")
  @OptionGroup var common: CommonOptions
  @Option(name: [.short, .long], help: "The source's format; otherwise its first bytes tell.")
  var format: Format?
  @Option(name: [.customShort("O"), .long], help: "The new image's format.")
  var outputFormat: Format = .raw
  @Option(name: .short, help: "Options of the new image: NAME=VALUE,...")
  var options: [ImageOptions] = []
  @Flag(name: [.short, .long], help: "Compress the clusters.") var compress = false
  @Flag(name: [.short, .long], help: "Show how far it is.") var progress = false
  @Option(name: [.customShort("l"), .long], help: "Copy this internal snapshot of the source.")
  var snapshot: String?
  @Flag(
    name: [.customShort("n"), .long],
    help: "Write into a target that is there, such as an encrypted one, instead of a new one.")
  var noCreate = false
  @Option(
    name: [.customShort("B"), .long],
    help: "The backing file of the new image, which gets only what differs from it.")
  var backing: String?
  @Option(name: [.customShort("F"), .long], help: "The backing file's format.")
  var backingFormat: Format?
  @Argument(help: "The source.") var source: String
  @Argument(help: "The new image.") var target: String

  private var all: ImageOptions {
    var all = ImageOptions()
    all.merge(options)
    if let backing { all.set("backing_file", backing) }
    if let backingFormat { all.set("backing_fmt", backingFormat.rawValue) }
    return all
  }

  func validate() throws {
    let hasBacking = all.backingFile != nil
    if hasBacking, all.backingFormatName == nil {
      throw ValidationError("the backing file's format must be given: raw or qcow2 (-F)")
    }
    if hasBacking, outputFormat == .raw {
      throw ValidationError("a raw image has no backing file")
    }
    if noCreate, compress || !all.values.isEmpty {
      throw ValidationError("-n takes the target as it is: no -o, -c or -B")
    }
  }

  var operands: [Operand] {
    var operands = [
      Operand(path: source, access: .read),
      Operand(path: target, access: noCreate ? .write : .create),
    ]
    if let data = all.dataFile {
      operands.append(Operand(path: Front.path(of: data, beside: target), access: .create))
    }
    if let backing = all.backingFile {
      operands.append(Operand(path: Front.path(of: backing, beside: target), access: .read))
    }
    return operands
  }

  func work(_ worker: Worker) throws(ToolError) -> Int32 {
    var opening = QCOW2Options()
    if let snapshot { opening.snapshot = .name(snapshot) }
    var image = try worker.open(worker.file(0), format, options: opening)
    let size = image.virtualSize
    let file = worker.file(1)
    var sink = try sink(worker, file, size)
    var transfer = Transfer(hasProgress: progress)
    do throws(BlockImageError) {
      try transfer.copy(&image, to: &sink, size: size)
      try sink.finish(size: size)
    } catch {
      throw ToolError("\(source) to \(target): \(Worker.words(error))")
    }
    return 0
  }

  private func sink(_ worker: Worker, _ file: HeldFile, _ size: UInt64) throws(ToolError) -> Sink {
    if noCreate {
      let image = try worker.open(file, outputFormat, isWritable: true)
      guard image.virtualSize >= size else {
        throw ToolError("\(file.path): smaller than the disk of \(size) bytes")
      }
      return Sink(existing: image)
    }
    guard outputFormat == .qcow2 else {
      guard !compress, all.isEmpty(but: "") else {
        throw ToolError("a raw image has no options and is not compressed")
      }
      let storage = try worker.storage(file, isWritable: true)
      let isNew = storage.byteCount == 0
      if !isNew, storage.byteCount < size {
        throw ToolError("\(file.path): smaller than the disk of \(size) bytes")
      }
      return Sink(raw: storage, isNew: isNew)
    }
    guard all.preallocation == .off else {
      throw ToolError("convert has no preallocation; see create")
    }
    var base: ToolImage?
    if all.backingFile != nil {
      guard let said = all.backingFormatName.flatMap(Format.init(rawValue:)) else {
        throw ToolError("the backing file's format must be raw or qcow2")
      }
      base = try worker.open(worker.file(operands.count - 1), said)
    }
    let creation = try all.creation(size: size)
    guard !compress || creation.dataFileName == nil else {
      throw ToolError("an image with an external data file can't be compressed")
    }
    return Sink(
      try Create.writer(worker, creation, first: 1), isCompressed: compress, base: base)
  }
}
