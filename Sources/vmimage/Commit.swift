// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockImage

struct Commit: ImageCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write what an image has into its backing file, and empty it.")
  @OptionGroup var common: CommonOptions
  @Flag(name: [.customShort("d"), .long], help: "Leave the image as it is.") var keep = false
  @Flag(name: [.short, .long], help: "Show how far it is.") var progress = false
  @Argument(help: "The image.") var image: String

  var operands: [Operand] { [Operand(path: image, access: .write)] }
  var writesBacking: Bool { true }

  func work(_ worker: Worker) throws(ToolError) -> Int32 {
    let file = worker.file(0)
    guard try worker.format(file, nil) == .qcow2 else {
      throw ToolError("\(file.path): not a qcow2 image")
    }
    let header = try worker.header(file)
    guard let name = header.backingFileName else {
      throw ToolError("\(file.path): it has no backing file")
    }
    let base = try worker.request(.writableBacking, name, of: file)
    let said = try worker.backingFormat(header, file)
    // What the image itself has is read from it alone.
    var overlay = try worker.open(file, try worker.standIn(base), isWritable: !keep)
    if try worker.format(base, said) == .raw {
      var storage = try worker.storage(base, isWritable: true)
      if storage.byteCount < overlay.virtualSize {
        try attempt(base) { () throws(StorageError) in
          try storage.resize(to: overlay.virtualSize)
        }
      }
    }
    var options = QCOW2Options()
    options.tables = .back
    var target = try worker.open(base, said, isWritable: true, options: options)
    do throws(BlockImageError) {
      if target.virtualSize < overlay.virtualSize { try target.grow(to: overlay.virtualSize) }
      try copy(&overlay, to: &target)
      try target.flush()
      if !keep {
        if overlay.header.hasDataFile || overlay.header.isDataFileRaw {
          Worker.complain("\(file.path): it keeps its data: its data file is external")
        } else {
          try overlay.makeEmpty()
          try overlay.close()
        }
      }
    } catch {
      throw ToolError("\(file.path) into \(base.path): \(Worker.words(error))")
    }
    Worker.print("Image committed.\n")
    return 0
  }

  private func copy(_ overlay: inout DiskImage, to target: inout ToolImage)
    throws(BlockImageError)
  {
    var buffer = [UInt8](repeating: 0, count: Transfer.pieceSize)
    let end = overlay.virtualSize
    var position: UInt64 = 0
    while position < end {
      let (isAllocated, run) = try overlay.isAllocated(at: position, limit: end - position)
      guard isAllocated else {
        position += run
        continue
      }
      let extent = try overlay.extent(at: position, limit: run, depth: 0)
      if extent.isZero {
        try target.zero(at: position, count: extent.count)
        position += extent.count
        continue
      }
      let count = Int(min(extent.count, UInt64(buffer.count)))
      var span = buffer.mutableSpan
      var part = span._mutatingExtracting(0..<count)
      try overlay.read(into: &part, at: position)
      try target.write(buffer.span.extracting(0..<count), at: position)
      position += UInt64(count)
    }
  }
}

extension ToolImage {
  /// Makes a qcow2 disk larger.
  mutating func grow(to size: UInt64) throws(BlockImageError) {
    switch consume self {
    case .raw(let image): self = .raw(image)
    case .qcow2(var image):
      do throws(BlockImageError) { try image.resize(to: size) } catch {
        self = .qcow2(image)
        throw error
      }
      self = .qcow2(image)
    }
  }
}
