// SPDX-License-Identifier: Apache-2.0

internal import CZlib

/// An inflater of raw deflate streams (RFC 1951) into buffers of a fixed size.
///
/// Output is bounded by the buffer and input by the span, so a hostile stream costs no
/// more than the time to fill the buffer once.
public enum RawInflater {
  /// The window of a stream, as a power of two.
  public enum Window: Int32, Sendable {
    /// 4 KiB, as qcow2 writes its compressed clusters.
    case kib4 = 12
    /// 32 KiB, the largest there is.
    case kib32 = 15
  }

  /// Inflates a stream and fills `output`; bytes of `input` after that are left alone.
  ///
  /// - Returns: Whether the stream was good and filled `output`.
  public static func inflate(
    _ input: Span<UInt8>, into output: inout MutableSpan<UInt8>, window: Window = .kib32
  ) -> Bool {
    guard !input.isEmpty, !output.isEmpty, let inputCount = UInt32(exactly: input.count),
      let outputCount = UInt32(exactly: output.count)
    else { return false }
    // SAFETY: zlib keeps pointers to the stream and the two buffers only between inflateInit2_
    // and inflateEnd, which are both inside the scopes of all three; the counts are those of
    // the buffers, the version and size zlib's own; zlib never writes through next_in.
    return unsafe input.withUnsafeBufferPointer { source in
      unsafe output.withUnsafeMutableBufferPointer { target in
        unsafe withUnsafeTemporaryAllocation(of: z_stream.self, capacity: 1) { place in
          guard let stream = place.baseAddress else { return false }
          unsafe stream.initialize(to: z_stream())
          defer { unsafe stream.deinitialize(count: 1) }
          let started = unsafe inflateInit2_(
            stream, -window.rawValue, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
          guard started == Z_OK else { return false }
          defer { _ = unsafe inflateEnd(stream) }
          unsafe stream.pointee.next_in = UnsafeMutablePointer(mutating: source.baseAddress)
          unsafe stream.pointee.avail_in = inputCount
          unsafe stream.pointee.next_out = target.baseAddress
          unsafe stream.pointee.avail_out = outputCount
          let code = unsafe CZlib.inflate(stream, Z_FINISH)
          // With the output full zlib may not have looked at the end mark yet.
          let isFull = unsafe stream.pointee.avail_out == 0
          return (code == Z_STREAM_END || code == Z_BUF_ERROR) && isFull
        }
      }
    }
  }
}
