// SPDX-License-Identifier: Apache-2.0

import BlockImage
import ImageFiles
import LinuxSystem

private import func Glibc.exit

typealias FileImage = QCOW2Image<ImageFile, Inflater>

/// Does random work on an image until it is killed, and says what has finished.
///
/// Arguments: `write IMAGE SEED through|back BARRIERS BACKING [KEY]`, or `fuzz COUNT SEED IMAGE...`.
@main
struct Main {
  static func main() {
    let words = CommandLine.arguments
    guard words.count > 4 else { fail("too few arguments") }
    do {
      switch words[1] {
      case "write": try write(words)
      case "fuzz": try Fuzzer.run(words)
      default: fail("no such command")
      }
    } catch {
      fail("\(error)")
    }
  }

  static func fail(_ reason: String) -> Never {
    print("error: \(reason)")
    exit(1)
  }

  private static func write(_ words: [String]) throws {
    var options = QCOW2Options()
    options.tables = words[4] == "back" ? .back : .through
    options.hasBarriers = words[5] == "1"
    var backing: BackingImage<ImageFile, Inflater>?
    if words[6] != "" {
      let file = try ImageFile(Files.open(words[6], [.readOnly]), isWritable: false)
      backing = BackingImage(.raw(RawImage(storage: file, writable: false)))
    }
    var file = try ImageFile(Files.open(words[2], [.readWrite]), isWritable: true)
    var cipher: (any SectorCipher)?
    if words.count > 7 {
      let header = try QCOW2Header.read(from: &file)
      cipher = try ImageKey(Files.open(words[7], [.readOnly])).cipher(of: header, on: &file)
    }
    var image = try FileImage(
      storage: file, writable: true, backing: backing, decompressor: Inflater(), cipher: cipher,
      options: options)
    var work = RandomWork(
      seed: UInt64(words[3]) ?? 0, sectorCount: Int(image.virtualSize / 512))
    let output = Descriptor(owning: 1)
    for number in 0..<Int.max {
      let next = work.next()
      try image.perform(next, number)
      // One byte for each piece of work, two when all before it is durable.
      try output.writeAll([next == .flush ? 0x46 : 0x57])
    }
  }
}

extension QCOW2Image where Storage: ~Copyable {
  /// Does one piece of random work.
  mutating func perform(_ work: DiskWork, _ number: Int) throws(BlockImageError) {
    switch work {
    case .write(let sector, let count):
      let bytes = RandomWork.data(number, count: count)
      try write(bytes.span, at: UInt64(sector) * 512)
    case .zero(let sector, let count):
      try zero(
        at: UInt64(sector) * 512, count: UInt64(count) * 512, keepsSpace: number % 2 == 0)
    case .discard(let sector, let count):
      try discard(at: UInt64(sector) * 512, count: UInt64(count) * 512)
    case .flush: try flush()
    }
  }
}
