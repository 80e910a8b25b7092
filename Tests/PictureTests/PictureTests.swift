// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import Picture

/// What ImageMagick says of a file, so that the pictures are read by somebody else's code.
private func imageMagick(_ tool: String, _ arguments: [String]) throws -> (
  code: Int32, text: String
) {
  let paths = ["/usr/bin/", "/usr/local/bin/"].map { $0 + tool }
  let path = try #require(
    paths.first { FileManager.default.isExecutableFile(atPath: $0) },
    "ImageMagick's \(tool) is needed by this test: install the package imagemagick")
  let process = Process()
  process.executableURL = URL(fileURLWithPath: path)
  process.arguments = arguments
  let pipe = Pipe()
  process.standardOutput = pipe
  process.standardError = pipe
  try process.run()
  let data = pipe.fileHandleForReading.readDataToEndOfFile()
  process.waitUntilExit()
  return (process.terminationStatus, String(decoding: data, as: UTF8.self))
}

/// Runs `body` with a folder that is removed afterwards.
private func withFolder(_ body: (URL) throws -> Void) throws {
  let folder = FileManager.default.temporaryDirectory
    .appendingPathComponent("picture-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  try body(folder)
}

/// Fills a row with a pattern that no filter or compressor makes trivial.
private func pattern(_ line: Int, _ row: inout [UInt8]) {
  for index in row.indices {
    let mixed = UInt32(truncatingIfNeeded: index &* 2_654_435_761 &+ line &* 40503)
    row[index] = UInt8(truncatingIfNeeded: mixed >> 13)
  }
}

@Suite("Pictures")
struct PictureTests {
  @Test("a P6 file is its header and its rows")
  func ppm() throws {
    let file = try PPM.encode(width: 2, height: 2) { line, row in
      row = line == 0 ? [1, 2, 3, 4, 5, 6] : [7, 8, 9, 10, 11, 12]
    }
    #expect(file == Array("P6\n2 2\n255\n".utf8) + Array(1...12))
  }

  @Test("a PNG has the signature, IHDR first, IEND last, and sound chunk lengths")
  func chunks() throws {
    let file = try PNG.encode(width: 3, height: 2) { _, row in row = [9, 8, 7, 6, 5, 4, 3, 2, 1] }
    #expect(Array(file[..<8]) == [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A])
    var types: [String] = []
    var place = 8
    while place + 12 <= file.count {
      let length = file[place..<(place + 4)].reduce(0) { $0 << 8 | Int($1) }
      types.append(String(decoding: file[(place + 4)..<(place + 8)], as: UTF8.self))
      if types.count == 1 {
        #expect(
          Array(file[(place + 8)..<(place + 8 + length)]) == [
            0, 0, 0, 3, 0, 0, 0, 2, 8, 2, 0, 0, 0,
          ])
      }
      place += 12 + length
    }
    #expect(place == file.count)
    #expect(types == ["IHDR", "IDAT", "IEND"])
    // The CRC of an empty IEND chunk is the same in every PNG.
    #expect(Array(file.suffix(4)) == [0xAE, 0x42, 0x60, 0x82])
  }

  @Test(
    "ImageMagick reads the PNG as the same picture as the P6 file",
    arguments: [(1, 1), (7, 5), (720, 400), (1025, 300)])
  func readBack(width: Int, height: Int) throws {
    try withFolder { folder in
      let png = folder.appendingPathComponent("a.png")
      let ppm = folder.appendingPathComponent("a.ppm")
      try Data(PNG.encode(width: width, height: height, row: pattern)).write(to: png)
      try Data(PPM.encode(width: width, height: height, row: pattern)).write(to: ppm)
      let size = try imageMagick("identify", ["-format", "%m %w %h %z", png.path])
      #expect(size.text == "PNG \(width) \(height) 8")
      let difference = try imageMagick(
        "compare", ["-metric", "AE", png.path, ppm.path, "null:"])
      #expect(difference.code == 0)
      #expect(difference.text.hasPrefix("0"))
    }
  }

  @Test("a changed pixel is seen by the comparison that the tests rely on")
  func comparisonCanFail() throws {
    try withFolder { folder in
      let png = folder.appendingPathComponent("a.png")
      let ppm = folder.appendingPathComponent("a.ppm")
      try Data(PNG.encode(width: 8, height: 8, row: pattern)).write(to: png)
      let changed = try PPM.encode(width: 8, height: 8) { line, row in
        pattern(line, &row)
        if line == 3 { row[4] ^= 0xFF }
      }
      try Data(changed).write(to: ppm)
      let difference = try imageMagick("compare", ["-metric", "AE", png.path, ppm.path, "null:"])
      #expect(difference.text.hasPrefix("1"))
    }
  }

  @Test(
    "sizes out of range are refused",
    arguments: [(0, 1), (1, 0), (-1, 5), (16385, 1), (1, 16385), (Int.max, Int.max)])
  func badSizes(width: Int, height: Int) {
    #expect(throws: PictureError.size(width: width, height: height)) {
      try PNG.encode(width: width, height: height) { _, _ in }
    }
    #expect(throws: PictureError.size(width: width, height: height)) {
      try PPM.encode(width: width, height: height) { _, _ in }
    }
  }

  @Test("a row of the wrong length is refused")
  func badRow() {
    #expect(throws: PictureError.row(1, byteCount: 2)) {
      try PNG.encode(width: 1, height: 3) { line, row in if line == 1 { row = [1, 2] } }
    }
    #expect(throws: PictureError.row(0, byteCount: 4)) {
      try PPM.encode(width: 1, height: 3) { _, row in row.append(0) }
    }
  }
}
