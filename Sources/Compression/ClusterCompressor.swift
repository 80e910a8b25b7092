// SPDX-License-Identifier: Apache-2.0

internal import CZlib
internal import CZstd

/// Compressors of clusters of an image; what does not become smaller is given up.
public enum ClusterCompressor {
  /// Deflates `input` into a raw stream (RFC 1951) with a window of 4 KiB, as qcow2 has it.
  ///
  /// - Parameters:
  ///   - input: The bytes.
  ///   - output: Room for less than them.
  /// - Returns: The length of the stream, or `nil` when it does not fit.
  public static func deflate(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>) -> Int? {
    guard let inputCount = UInt32(exactly: input.count),
      let outputCount = UInt32(exactly: output.count)
    else { return nil }
    // SAFETY: zlib keeps pointers to the stream and the two buffers only between deflateInit2_
    // and deflateEnd, which are both inside the scopes of all three; the counts are those of
    // the buffers, the version and size zlib's own; zlib never writes through next_in.
    return unsafe input.withUnsafeBufferPointer { source in
      unsafe output.withUnsafeMutableBufferPointer { target in
        unsafe withUnsafeTemporaryAllocation(of: z_stream.self, capacity: 1) { place -> Int? in
          guard let stream = place.baseAddress else { return nil }
          unsafe stream.initialize(to: z_stream())
          defer { unsafe stream.deinitialize(count: 1) }
          let started = unsafe deflateInit2_(
            stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
            Int32(MemoryLayout<z_stream>.size))
          guard started == Z_OK else { return nil }
          defer { _ = unsafe deflateEnd(stream) }
          unsafe stream.pointee.next_in = UnsafeMutablePointer(mutating: source.baseAddress)
          unsafe stream.pointee.avail_in = inputCount
          unsafe stream.pointee.next_out = target.baseAddress
          unsafe stream.pointee.avail_out = outputCount
          guard unsafe CZlib.deflate(stream, Z_FINISH) == Z_STREAM_END else { return nil }
          return unsafe Int(outputCount - stream.pointee.avail_out)
        }
      }
    }
  }

  /// Compresses `input` into one Zstandard frame (RFC 8878).
  ///
  /// - Parameters:
  ///   - input: The bytes.
  ///   - output: Room for less than them.
  /// - Returns: The length of the frame, or `nil` when it does not fit.
  public static func zstd(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>) -> Int? {
    // SAFETY: zstd reads and writes within the counts, inside the scopes of both pointers.
    unsafe input.withUnsafeBufferPointer { source in
      unsafe output.withUnsafeMutableBufferPointer { target in
        let got = unsafe ZSTD_compress(
          target.baseAddress, target.count, source.baseAddress, source.count, 3)
        return ZSTD_isError(got) == 0 ? got : nil
      }
    }
  }
}
