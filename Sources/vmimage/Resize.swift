// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockImage

struct Resize: ImageCommand {
  static let configuration = CommandConfiguration(abstract: "Make a disk larger or smaller.")
  @OptionGroup var common: CommonOptions
  @Option(name: [.short, .long], help: "raw or qcow2; otherwise the first bytes tell.")
  var format: Format?
  @Flag(help: "Let the disk become smaller; what is behind its new end is lost.")
  var shrink = false
  @Argument(help: "The image.") var image: String
  @Argument(help: "The size, or how much more (+SIZE) or less (-SIZE).", transform: Change.init)
  var size: Change

  /// A size, or a difference to the size that there is.
  struct Change {
    var sign: Character?
    var size: UInt64

    init(_ text: String) throws {
      sign = text.first.flatMap { "+-".contains($0) ? $0 : nil }
      guard let size = ByteSize(argument: String(text.dropFirst(sign == nil ? 0 : 1))) else {
        throw ValidationError("\"\(text)\" is not a size")
      }
      self.size = size.bytes
    }

    func applied(to old: UInt64) throws(ToolError) -> UInt64 {
      switch sign {
      case "+":
        let (sum, isOver) = old.addingReportingOverflow(size)
        guard !isOver else { throw ToolError("the new size is too large") }
        return sum
      case "-":
        guard size <= old else { throw ToolError("the disk has only \(old) bytes") }
        return old - size
      default: return size
      }
    }
  }

  var operands: [Operand] { [Operand(path: image, access: .write)] }

  func work(_ worker: Worker) throws(ToolError) -> Int32 {
    let file = worker.file(0)
    let opened = try worker.open(file, format, isWritable: true)
    let old = opened.virtualSize
    let new = try size.applied(to: old)
    guard new >= old || shrink else {
      throw ToolError("\(file.path): the disk would lose data; use --shrink to make it smaller")
    }
    switch consume opened {
    case .raw:
      var storage = try worker.storage(file, isWritable: true)
      try attempt(file) { () throws(StorageError) in
        try storage.resize(to: new)
        try storage.flush()
      }
    case .qcow2(var image):
      do throws(BlockImageError) {
        try image.resize(to: new)
        try image.close()
      } catch {
        throw ToolError("\(file.path): \(Worker.words(error))")
      }
    }
    Worker.print("Image resized.\n")
    return 0
  }
}
