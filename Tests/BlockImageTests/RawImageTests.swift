// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import BlockImage

@Suite("Raw images")
struct RawImageTests {
  @Test("what is written reads back, through the enum of formats")
  func roundTrip() throws {
    var image = BlockImage<MemoryStorage, NoDecompressor>.raw(
      RawImage(storage: MemoryStorage([UInt8](repeating: 0, count: 4096)), writable: true))
    var seen = [UInt8](repeating: 0, count: 1024)

    try image.write([UInt8](repeating: 6, count: 512).span, at: 1024)
    try image.flush()
    var span = seen.mutableSpan
    try image.read(into: &span, at: 512)

    #expect(seen[511] == 0 && seen[512] == 6 && seen[1023] == 6)
    #expect(image.virtualSize == 4096)
    #expect(image.info.format == "raw")
  }

  @Test("the disk does not grow and a read-only one is not written")
  func refusals() throws {
    var image = RawImage(
      storage: MemoryStorage([UInt8](repeating: 0, count: 4096)), writable: true)
    var locked = RawImage(
      storage: MemoryStorage([UInt8](repeating: 0, count: 4096)), writable: false)
    let data = [UInt8](repeating: 1, count: 512)

    #expect(throws: BlockImageError.outOfRange(offset: 4096, count: 512, virtualSize: 4096)) {
      try image.write(data.span, at: 4096)
    }
    #expect(throws: BlockImageError.notWritable(reason: "it was opened read-only")) {
      try locked.write(data.span, at: 0)
    }
  }
}
