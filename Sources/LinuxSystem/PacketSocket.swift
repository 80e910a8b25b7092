// SPDX-License-Identifier: Apache-2.0

internal import CLinux

/// A Unix socket of type SOCK_SEQPACKET: whole messages, in order, with descriptors.
public final class PacketSocket: Sendable {
  /// The socket's descriptor, for waiting on it.
  public let descriptor: Descriptor

  public init(_ descriptor: Descriptor) { self.descriptor = descriptor }

  /// One message as it came, with the descriptors that came along.
  public struct Message: Sendable {
    /// The bytes; empty when the other end has closed the connection.
    public var bytes: [UInt8]
    /// The descriptors, owned by whoever holds the message.
    public var descriptors: [Descriptor]
    /// Whether bytes or descriptors were cut off because the sender sent too many.
    public var isTruncated: Bool
  }

  /// The most descriptors that one message carries.
  public static let mostDescriptors = 32

  /// Makes two sockets connected with each other.
  public static func pair() throws(SystemError) -> (PacketSocket, PacketSocket) {
    var ends: (Int32, Int32) = (0, 0)
    // SAFETY: the tuple has the layout of int[2].
    let result = unsafe withUnsafeMutableBytes(of: &ends) {
      guard let start = $0.baseAddress else { return Int32(0) }
      return unsafe bh_seqpacket_pair(start.assumingMemoryBound(to: Int32.self))
    }
    _ = try SystemError.check("socketpair", result)
    return (
      PacketSocket(Descriptor(owning: ends.0)), PacketSocket(Descriptor(owning: ends.1))
    )
  }

  /// Makes a listening socket at a path, with the given access mode.
  public static func listen(_ path: String, mode: Int32 = 0o600) throws(SystemError)
    -> PacketSocket
  {
    // SAFETY: the path is a NUL-terminated copy that outlives the call.
    let raw = unsafe bh_seqpacket_listen(path, mode)
    return PacketSocket(Descriptor(owning: try SystemError.check("listen \(path)", raw)))
  }

  /// Connects to a listening socket at a path.
  ///
  /// With `wait` false neither this call nor later ones on the socket wait; EAGAIN says that as
  /// many connections as there may be have not been accepted yet.
  public static func connect(_ path: String, wait: Bool = true) throws(SystemError)
    -> PacketSocket
  {
    // SAFETY: the path is a NUL-terminated copy that outlives the call.
    let raw = unsafe bh_seqpacket_connect(path, wait ? 0 : 0x800 /* SOCK_NONBLOCK */)
    return PacketSocket(Descriptor(owning: try SystemError.check("connect \(path)", raw)))
  }

  /// Waits for a peer to connect to a listening socket.
  public func accept() throws(SystemError) -> PacketSocket {
    let raw = bh_accept(descriptor.raw)
    return PacketSocket(Descriptor(owning: try SystemError.check("accept", raw)))
  }

  /// The process at the other end: the one that made the socket listen, or made the pair.
  public func peerProcess() throws(SystemError) -> Int32 {
    try SystemError.check("getsockopt(SO_PEERCRED)", bh_peer_process(descriptor.raw))
  }

  /// Sends one message; with `wait` false a full socket is EAGAIN.
  public func send(_ bytes: [UInt8], _ descriptors: [Descriptor] = [], wait: Bool = true)
    throws(SystemError)
  {
    let raw = descriptors.map(\.raw)
    while true {
      // SAFETY: both arrays stay alive and unchanged for the call.
      let sent = unsafe bytes.withUnsafeBytes { data in
        unsafe raw.withUnsafeBufferPointer { numbers in
          unsafe bh_send(
            descriptor.raw, data.baseAddress, data.count, numbers.baseAddress, numbers.count,
            wait ? 0 : 0x40 /* MSG_DONTWAIT */)
        }
      }
      if sent == -4 /* EINTR */ { continue }
      _ = try SystemError.check("sendmsg", sent)
      return
    }
  }

  /// Receives one message of at most `count` bytes; with `wait` false none there is EAGAIN.
  public func receive(_ count: Int, wait: Bool = true) throws(SystemError) -> Message {
    var numbers = [Int32](repeating: -1, count: Self.mostDescriptors)
    var fdCount = numbers.count
    var truncated: Int32 = 0
    var result: Int64 = 0
    var bytes: [UInt8]
    repeat {
      fdCount = numbers.count
      bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
        // SAFETY: the kernel writes at most `count` bytes; `fdCount` says how many numbers fit.
        if let start = buffer.baseAddress {
          unsafe result = bh_receive(
            descriptor.raw, start, count, &numbers, &fdCount, &truncated,
            wait ? 0 : 0x40 /* MSG_DONTWAIT */)
        }
        filled = Int(max(0, result))
      }
    } while result == -4 /* EINTR */
    _ = try SystemError.check("recvmsg", result)
    return Message(
      bytes: bytes, descriptors: numbers.prefix(fdCount).map { Descriptor(owning: $0) },
      isTruncated: truncated != 0)
  }
}
