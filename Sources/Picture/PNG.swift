// SPDX-License-Identifier: Apache-2.0

import CZlib

/// Portable network graphics: eight-bit RGB, not interlaced (ISO/IEC 15948).
public enum PNG {
  /// Makes a PNG file of `height` rows of RGB bytes.
  ///
  /// `row` is called once for each line, from the top, with a buffer of 3 × `width` bytes.
  /// Beside the file itself only a row and a block of 64 KiB are held in memory.
  ///
  /// - Throws: ``PictureError`` for a size out of range, or when zlib fails.
  public static func encode(
    width: Int, height: Int, row: (Int, inout [UInt8]) -> Void
  ) throws(PictureError) -> [UInt8] {
    try PictureError.check(width: width, height: height)
    var file: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]
    // Eight bits, colour type 2 (RGB), deflate, adaptive filters, no interlace.
    appendChunk("IHDR", bigEndian(width) + bigEndian(height) + [8, 2, 0, 0, 0], to: &file)
    var deflater = try Deflater()
    var line = [UInt8](repeating: 0, count: 3 * width)
    var filtered = [UInt8](repeating: 0, count: 3 * width + 1)
    var above = line
    for index in 0..<height {
      row(index, &line)
      guard line.count == 3 * width else { throw .row(index, byteCount: line.count) }
      // Filter 2, up: screens have many lines that are like the one above.
      filtered[0] = 2
      for place in line.indices { filtered[place + 1] = line[place] &- above[place] }
      swap(&above, &line)
      if line.count != 3 * width { line = [UInt8](repeating: 0, count: 3 * width) }
      try deflater.add(filtered, isLast: index == height - 1) { block in
        appendChunk("IDAT", block, to: &file)
      }
    }
    appendChunk("IEND", [], to: &file)
    return file
  }

  private static func appendChunk(_ type: String, _ data: [UInt8], to file: inout [UInt8]) {
    let body = Array(type.utf8) + data
    file += bigEndian(data.count)
    file += body
    // SAFETY: the pointer and count are those of `body`, which lives through the call.
    let sum = unsafe body.withUnsafeBufferPointer {
      unsafe crc32(0, $0.baseAddress, UInt32($0.count))
    }
    file += bigEndian(Int(sum))
  }

  private static func bigEndian(_ value: Int) -> [UInt8] {
    [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
  }
}

/// A zlib stream that is compressed piece by piece.
///
/// It is safe to use: the pointer to zlib's stream never leaves it.
@safe
struct Deflater: ~Copyable {
  static let blockByteCount = 65536

  // zlib keeps a pointer to the stream, so it must not move.
  private let stream: UnsafeMutablePointer<z_stream>
  private var block = [UInt8](repeating: 0, count: blockByteCount)

  init() throws(PictureError) {
    // SAFETY: one initialised z_stream, freed in deinit; all-zero asks for the default allocator.
    unsafe stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
    unsafe stream.initialize(to: z_stream())
    // SAFETY: `stream` points at an initialised z_stream; the version and size are zlib's own.
    let code = unsafe deflateInit_(
      stream, Z_DEFAULT_COMPRESSION, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
    guard code == Z_OK else { throw .compression(code: code) }
  }

  deinit {
    // SAFETY: the stream was initialised in `init` and nobody else knows it; deflateEnd
    // accepts a stream whose initialisation failed.
    _ = unsafe deflateEnd(stream)
    unsafe stream.deinitialize(count: 1)
    unsafe stream.deallocate()
  }

  /// Compresses `bytes` and hands full blocks, and the rest after the last, to `output`.
  mutating func add(
    _ bytes: [UInt8], isLast: Bool, output: ([UInt8]) -> Void
  ) throws(PictureError) {
    var consumed = 0
    while true {
      let before = unsafe stream.pointee.total_in
      var input = Array(bytes[consumed...])
      let room = block.count - filled
      // SAFETY: both pointers are used only within this call, with counts of their buffers.
      let code = unsafe input.withUnsafeMutableBufferPointer { source in
        unsafe block.withUnsafeMutableBufferPointer { target in
          unsafe stream.pointee.next_in = source.baseAddress
          unsafe stream.pointee.avail_in = UInt32(source.count)
          unsafe stream.pointee.next_out = target.baseAddress.map { unsafe $0 + filled }
          unsafe stream.pointee.avail_out = UInt32(room)
          return unsafe deflate(stream, isLast ? Z_FINISH : Z_NO_FLUSH)
        }
      }
      guard code == Z_OK || code == Z_STREAM_END || code == Z_BUF_ERROR else {
        throw .compression(code: code)
      }
      consumed += Int(unsafe stream.pointee.total_in - before)
      filled = block.count - Int(unsafe stream.pointee.avail_out)
      let isDone = isLast ? code == Z_STREAM_END : consumed == bytes.count && filled < block.count
      if filled == block.count || isLast && isDone {
        output(Array(block[..<filled]))
        filled = 0
      }
      if isDone { return }
      // Without room zlib cannot go on; with room, no progress means that it is broken.
      guard code != Z_BUF_ERROR || filled == 0 else { throw .compression(code: code) }
    }
  }

  private var filled = 0
}
