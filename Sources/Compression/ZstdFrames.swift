// SPDX-License-Identifier: Apache-2.0

internal import CZstd

/// A decompressor of Zstandard frames (RFC 8878) into buffers of a fixed size.
///
/// Whole frames are decompressed straight into the buffer, so that a frame that asks for a
/// large window takes no memory for it.
public enum ZstdFrames {
  /// Decompresses frames until `output` is full; bytes of `input` after that are left alone.
  ///
  /// - Returns: Whether the frames were good and filled `output` exactly.
  public static func decompress(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>)
    -> Bool
  {
    guard !input.isEmpty, !output.isEmpty else { return false }
    // SAFETY: both pointers are used only inside the scopes that hand them out, at offsets that
    // are checked against the counts; zstd writes at most the capacity that it is given.
    return unsafe input.withUnsafeBufferPointer { source in
      unsafe output.withUnsafeMutableBufferPointer { target in
        guard let from = source.baseAddress, let to = target.baseAddress else { return false }
        var used = 0
        var filled = 0
        while filled < target.count {
          guard used < source.count else { return false }
          let frame = unsafe ZSTD_findFrameCompressedSize(from + used, source.count - used)
          guard ZSTD_isError(frame) == 0, frame > 0, frame <= source.count - used else {
            return false
          }
          let got = unsafe ZSTD_decompress(
            to + filled, target.count - filled, from + used, frame)
          guard ZSTD_isError(got) == 0, got <= target.count - filled else { return false }
          used += frame
          filled += got
        }
        return true
      }
    }
  }
}
