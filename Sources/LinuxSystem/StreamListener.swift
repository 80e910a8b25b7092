// SPDX-License-Identifier: Apache-2.0

internal import CLinux

/// A listening Unix socket of type SOCK_STREAM.
public struct StreamListener: Sendable {
  /// The socket's descriptor, for waiting on it and for handing it on.
  public let descriptor: Descriptor

  public init(_ descriptor: Descriptor) { self.descriptor = descriptor }

  /// Makes a listening socket at a path, with the given access mode.
  public static func listen(_ path: String, mode: Int32 = 0o600) throws(SystemError) -> Self {
    // SAFETY: the path is a NUL-terminated copy that outlives the call.
    let raw = unsafe bh_stream_listen(path, mode)
    return Self(Descriptor(owning: try SystemError.check("listen \(path)", raw)))
  }

  /// Makes two sockets connected with each other, neither of which waits.
  public static func pair() throws(SystemError) -> (Descriptor, Descriptor) {
    var ends: (Int32, Int32) = (0, 0)
    // SAFETY: the tuple has the layout of int[2].
    let result = unsafe withUnsafeMutableBytes(of: &ends) {
      guard let start = $0.baseAddress else { return Int32(0) }
      return unsafe bh_stream_pair(start.assumingMemoryBound(to: Int32.self))
    }
    _ = try SystemError.check("socketpair", result)
    return (Descriptor(owning: ends.0), Descriptor(owning: ends.1))
  }

  /// Connects to a listening socket at a path, at once or not at all; what it gives never waits.
  public static func connect(_ path: String) throws(SystemError) -> Descriptor {
    // SAFETY: the path is a NUL-terminated copy that outlives the call.
    let raw = unsafe bh_stream_connect(path)
    return Descriptor(owning: try SystemError.check("connect \(path)", raw))
  }

  /// Takes a peer that has connected; what it gives never waits.
  public func accept() throws(SystemError) -> Descriptor {
    Descriptor(owning: try SystemError.check("accept", bh_accept_nonblocking(descriptor.raw)))
  }
}
