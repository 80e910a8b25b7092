// SPDX-License-Identifier: Apache-2.0

/// Portable pixmaps, binary form (netpbm's P6).
public enum PPM {
  /// Makes a P6 file of `height` rows of RGB bytes.
  ///
  /// `row` is called once for each line, from the top, with a buffer of 3 × `width` bytes.
  ///
  /// - Throws: ``PictureError/size(width:height:)`` for a size out of range.
  public static func encode(
    width: Int, height: Int, row: (Int, inout [UInt8]) -> Void
  ) throws(PictureError) -> [UInt8] {
    try PictureError.check(width: width, height: height)
    var file = Array("P6\n\(width) \(height)\n255\n".utf8)
    file.reserveCapacity(file.count + 3 * width * height)
    var line = [UInt8](repeating: 0, count: 3 * width)
    for index in 0..<height {
      row(index, &line)
      guard line.count == 3 * width else { throw .row(index, byteCount: line.count) }
      file += line
    }
    return file
  }
}

/// Why a picture was not encoded.
public enum PictureError: Error, Equatable, CustomStringConvertible {
  /// The size is zero, negative or above ``maximumSide``.
  case size(width: Int, height: Int)
  /// The caller gave a row of the wrong length.
  case row(Int, byteCount: Int)
  /// zlib failed with this code.
  case compression(code: Int32)

  /// The largest width and height that are encoded, in pixels.
  public static let maximumSide = 16384

  public var description: String {
    switch self {
    case .size(let width, let height):
      "a picture of \(width) × \(height) pixels can't be written: "
        + "1 to \(Self.maximumSide) each are possible"
    case .row(let index, let byteCount):
      "row \(index) of the picture has \(byteCount) bytes"
    case .compression(let code): "zlib failed with code \(code)"
    }
  }

  static func check(width: Int, height: Int) throws(PictureError) {
    guard (1...maximumSide).contains(width), (1...maximumSide).contains(height) else {
      throw .size(width: width, height: height)
    }
  }
}
