// SPDX-License-Identifier: Apache-2.0

/// The PIO buffers, which a state page keeps apart from the small registers.
extension IDEController {
  /// Calls `body` with a channel's PIO buffer, for writing it to the image or saving it.
  public func withBuffer<R, E: Error>(channel: Int, _ body: (Span<UInt8>) throws(E) -> R)
    throws(E) -> R
  {
    let buffer = channels[channel & 1].buffer
    return try body(buffer.span)
  }

  /// Calls `body` with a channel's PIO buffer, for filling it from the image or restoring it.
  ///
  /// What is changed here counts as dirty only through ``complete(channel:tag:_:)``.
  public mutating func withMutableBuffer<R, E: Error>(
    channel: Int, _ body: (inout MutableSpan<UInt8>) throws(E) -> R
  ) throws(E) -> R {
    var span = channels[channel & 1].buffer.mutableSpan
    return try body(&span)
  }

  /// Returns the part of a channel's buffer that changed since the last call.
  public mutating func takeDirtyRange(channel: Int) -> Range<Int> {
    let channel = channel & 1
    let range = Int(channels[channel].dirtyStart)..<Int(channels[channel].dirtyEnd)
    channels[channel].dirtyStart = 0
    channels[channel].dirtyEnd = 0
    return range
  }
}
