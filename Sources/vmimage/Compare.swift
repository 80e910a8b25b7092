// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockImage
import LinuxSystem

struct Compare: ImageCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compare the disks of two images.",
    discussion: "Exit codes: 0 they are the same, 1 they differ, 2 the comparison failed.")
  @OptionGroup var common: CommonOptions
  @Option(name: [.short, .long], help: "The first image's format.") var format: Format?
  @Option(name: [.customShort("F"), .long], help: "The second image's format.")
  var secondFormat: Format?
  @Flag(name: [.short, .long], help: "Disks of different sizes differ, even by zeros.")
  var strict = false
  @Argument(help: "The first image.") var first: String
  @Argument(help: "The second image.") var second: String

  var operands: [Operand] {
    [Operand(path: first, access: .read), Operand(path: second, access: .read)]
  }
  var failureCode: Int32 { 2 }

  func work(_ worker: Worker) throws(ToolError) -> Int32 {
    var left = try worker.open(worker.file(0), format)
    var right = try worker.open(worker.file(1), secondFormat)
    if left.virtualSize != right.virtualSize {
      if strict {
        Worker.print("Strict mode: Image size mismatch!\n")
        return 1
      }
      Worker.print("Warning: Image size mismatch!\n")
    }
    do throws(BlockImageError) {
      var comparison = Comparison()
      if let offset = try comparison.firstDifference(&left, &right) {
        Worker.print("Content mismatch at offset \(offset)!\n")
        return 1
      }
    } catch {
      throw ToolError("\(first) and \(second): \(Worker.words(error))")
    }
    Worker.print("Images are identical.\n")
    return 0
  }
}

/// A comparison of two disks in large pieces.
struct Comparison {
  private var left = [UInt8](repeating: 0, count: Transfer.pieceSize)
  private var right = [UInt8](repeating: 0, count: Transfer.pieceSize)

  init() {}

  /// Returns where the disks differ first, at a sector; behind the end of the shorter are zeros.
  mutating func firstDifference(_ first: inout ToolImage, _ second: inout ToolImage)
    throws(BlockImageError) -> UInt64?
  {
    let end = max(first.virtualSize, second.virtualSize)
    var position: UInt64 = 0
    while position < end {
      let a = try Self.zeros(&first, position, end)
      let b = try Self.zeros(&second, position, end)
      let skipped = min(a, b)
      if skipped > 0 {
        position += skipped
        continue
      }
      var count = min(UInt64(Transfer.pieceSize), end - position)
      for size in [first.virtualSize, second.virtualSize] where size > position {
        count = min(count, size - position)
      }
      if let offset = try compare(&first, &second, at: position, count: Int(count)) {
        return offset
      }
      position += count
    }
    return nil
  }

  private static func zeros(_ image: inout ToolImage, _ position: UInt64, _ end: UInt64)
    throws(BlockImageError) -> UInt64
  {
    if position >= image.virtualSize { return end - position }
    let extent = try image.extent(at: position, limit: image.virtualSize - position)
    return extent.isZero ? extent.count : 0
  }

  /// Compares a piece; an image that has ended reads as zero.
  mutating func compare(
    _ first: inout ToolImage, _ second: inout ToolImage, at position: UInt64, count: Int
  ) throws(BlockImageError) -> UInt64? {
    try Self.fill(&left, &first, position, count)
    try Self.fill(&right, &second, position, count)
    let (a, b) = (left.span.extracting(0..<count), right.span.extracting(0..<count))
    if Bytes.areEqual(a, b) { return nil }
    for start in stride(from: 0, to: count, by: 512) {
      let range = start..<min(start + 512, count)
      if !Bytes.areEqual(a.extracting(range), b.extracting(range)) {
        return position + UInt64(start)
      }
    }
    return nil
  }

  /// The bytes of the first image that were compared last.
  func firstBytes(_ body: (Span<UInt8>) throws(BlockImageError) -> Void, _ count: Int)
    throws(BlockImageError)
  {
    try body(left.span.extracting(0..<count))
  }

  private static func fill(
    _ bytes: inout [UInt8], _ image: inout ToolImage, _ position: UInt64, _ count: Int
  ) throws(BlockImageError) {
    var span = bytes.mutableSpan
    let inside =
      position >= image.virtualSize ? 0 : Int(min(UInt64(count), image.virtualSize - position))
    if inside > 0 {
      var part = span._mutatingExtracting(0..<inside)
      try image.read(into: &part, at: position)
    }
    var rest = span._mutatingExtracting(inside..<count)
    rest.update(repeating: 0)
  }
}
