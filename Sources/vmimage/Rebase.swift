// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockImage
import LinuxSystem

struct Rebase: ImageCommand {
  static let configuration = CommandConfiguration(
    abstract: "Give an image another backing file.",
    discussion: """
      The disk stays the same: what differs between the old and the new backing file is copied \
      into the image. With -u only the name is changed, for a backing file that was moved.
      """)
  @OptionGroup var common: CommonOptions
  @Option(name: [.short, .long], help: "The new backing file; without it or empty, none.")
  var backing: String?
  @Option(name: [.customShort("F"), .long], help: "The new backing file's format.")
  var backingFormat: Format?
  @Flag(name: [.customShort("u"), .customLong("unsafe")], help: "Change the name alone.")
  var isNameOnly = false
  @Argument(help: "The image.") var image: String

  private var newName: String? { backing.flatMap { $0.isEmpty ? nil : $0 } }

  var operands: [Operand] {
    var operands = [Operand(path: image, access: .write)]
    if !isNameOnly, let newName {
      operands.append(Operand(path: Front.path(of: newName, beside: image), access: .read))
    }
    return operands
  }

  func work(_ worker: Worker) throws(ToolError) -> Int32 {
    if newName != nil, backingFormat == nil {
      throw ToolError("the new backing file's format must be given: raw or qcow2 (-F)")
    }
    if isNameOnly {
      return try change(worker) { (image) throws(BlockImageError) in
        try image.changeBacking(newName, format: backingFormat?.rawValue)
      }
    }
    let file = worker.file(0)
    guard try worker.format(file, nil) == .qcow2 else {
      throw ToolError("\(file.path): not a qcow2 image")
    }
    var overlay = try worker.open(file, try worker.backing(of: file, depth: 0), isWritable: true)
    var below = try newName.map { (_) throws(ToolError) in
      try BackingHolder(worker.open(worker.file(1), backingFormat))
    }
    do throws(BlockImageError) {
      try copy(&overlay, below)
      try overlay.flush()
      try overlay.changeBacking(newName, format: newName == nil ? nil : backingFormat?.rawValue)
      try overlay.close()
    } catch {
      throw ToolError("\(file.path): \(Worker.words(error))")
    }
    below = nil
    return 0
  }

  /// Copies into the image what it takes from the old backing file and the new one has otherwise.
  private func copy(_ overlay: inout DiskImage, _ below: BackingHolder?) throws(BlockImageError) {
    let end = overlay.virtualSize
    let size = overlay.header.clusterSize
    var old = [UInt8](repeating: 0, count: Transfer.pieceSize(size))
    var new = old
    var position: UInt64 = 0
    while position < end {
      let (isAllocated, run) = try overlay.isAllocated(at: position, limit: end - position)
      guard !isAllocated else {
        position += run
        continue
      }
      let count = Int(min(run, UInt64(old.count) - position % size))
      try overlay.fill(&old, at: position, count: count)
      try below.fill(&new, at: position, count: count)
      // Cluster by cluster, so that what is the same stays in the backing file.
      var start = 0
      while start < count {
        let step = Int(size - (position + UInt64(start)) % size)
        let range = start..<min(start + step, count)
        if !old.isEqual(to: new, range) {
          try overlay.write(old.span.extracting(range), at: position + UInt64(range.lowerBound))
        }
        start = range.upperBound
      }
      position += UInt64(count)
    }
  }
}

/// An image in an object, as a chain that may be missing.
final class BackingHolder {
  private var image: ToolImage
  init(_ image: consuming ToolImage) { self.image = image }

  /// Reads a part of the disk; behind its end are zeros.
  func fill(_ bytes: inout [UInt8], at position: UInt64, count: Int) throws(BlockImageError) {
    let inside =
      position >= image.virtualSize ? 0 : Int(min(UInt64(count), image.virtualSize - position))
    var span = bytes.mutableSpan
    if inside > 0 {
      var part = span._mutatingExtracting(0..<inside)
      try image.read(into: &part, at: position)
    }
    var rest = span._mutatingExtracting(inside..<count)
    rest.update(repeating: 0)
  }
}

extension BackingHolder? {
  /// Reads a part of the disk; without an image it is zero.
  func fill(_ bytes: inout [UInt8], at position: UInt64, count: Int) throws(BlockImageError) {
    if let self { return try self.fill(&bytes, at: position, count: count) }
    for index in 0..<count { bytes[index] = 0 }
  }
}

extension DiskImage {
  mutating func fill(_ bytes: inout [UInt8], at position: UInt64, count: Int)
    throws(BlockImageError)
  {
    var span = bytes.mutableSpan
    var part = span._mutatingExtracting(0..<count)
    try read(into: &part, at: position)
  }
}

extension [UInt8] {
  func isEqual(to other: [UInt8], _ range: Range<Int>) -> Bool {
    Bytes.areEqual(span.extracting(range), other.span.extracting(range))
  }
}
