// SPDX-License-Identifier: Apache-2.0

/// Inflates a compressed cluster; the process supplies one, this module is pure.
public protocol ClusterDecompressor {
  /// Whether there is anything behind this value.
  static var isAvailable: Bool { get }

  /// Inflates a raw deflate stream (RFC 1951, window of 4 KiB) and fills `output`.
  ///
  /// `input` may have bytes after the end of the stream.
  ///
  /// - Returns: Whether the stream was good and filled `output` exactly.
  mutating func inflate(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>) -> Bool

  /// Decompresses a Zstandard frame (RFC 8878) and fills `output`.
  ///
  /// `input` may have bytes after the end of the frame.
  ///
  /// - Returns: Whether the frame was good and filled `output` exactly.
  mutating func decompressZstd(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>)
    -> Bool
}

/// The absence of a decompressor: compressed clusters are a clear error.
public struct NoDecompressor: ClusterDecompressor, Sendable {
  public static var isAvailable: Bool { false }

  public init() {}

  public mutating func inflate(_ input: Span<UInt8>, into output: inout MutableSpan<UInt8>)
    -> Bool
  {
    false
  }

  public mutating func decompressZstd(
    _ input: Span<UInt8>, into output: inout MutableSpan<UInt8>
  ) -> Bool {
    false
  }
}
