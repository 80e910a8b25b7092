// SPDX-License-Identifier: Apache-2.0

/// What a message of the device protocol asks or tells (protocols/device.md, section 4).
public enum Request: UInt32, Sendable, CaseIterable {
  /// Device to core: who is there, and which protocol it speaks.
  case hello = 1
  /// Device to core: what the device wants to answer for; the grant comes with descriptors.
  case claim = 2
  /// Device to core: the device has restored its state and answers from now on.
  case ready = 3
  /// Core to device: the machine is reset.
  case reset = 4
  /// Core to device: the clock stands still; finish host I/O and commit.
  case pause = 5
  /// Core to device: the clock runs again.
  case resume = 6
  /// Core to device: flush what is not yet on the host, reply, and end.
  case quit = 7
  /// Device to core: copy between the bounce buffer and a DMA window.
  case dma = 8
  /// Device to core: a movable port region is now here, or nowhere.
  case moveRegion = 9
  /// Device to core: the PIIX routes PIRQ A to D to these interrupts.
  case routePIRQ = 10
  /// Device to core: reset, power off or leave the machine.
  case power = 11
  /// Core to device: draw the screen into the memory that comes along.
  case screendump = 12
  /// Core to device: input from the operator.
  case input = 13
  /// Core to device: take the disc out of a drive, or put one in.
  case medium = 14
  /// Device to core: the host cannot do what the guest wants; hold the machine until the
  /// operator has seen to it.
  case hold = 15
  /// Core to device: the operator pressed the power button.
  case powerButton = 16
  /// Core to device: the mouse moves or its buttons change.
  case pointer = 30
  /// Core to device: what the drives hold, and what they have done.
  case drives = 31
  /// Device to core: something that the operator may want to know.
  case notice = 32
  /// Device to core: a part of a memory region shows memory of the device, or no longer.
  case mapWindow = 40
  /// Core to device: the machine is reset to wake; as ``reset``, but what only firmware programs,
  /// and systems do not save, stays.
  case wake = 41
  /// Core to device: make a drive's disk larger or smaller.
  case resize = 60
  /// Core to device: a serial port's peer sends a break.
  case sendBreak = 61
  /// Core to device: take, apply, delete or list snapshots of the drives, or make an overlay.
  case snapshot = 50
}

/// The fixed header of every message.
public struct Header: Equatable, WireCodable {
  /// The header's length in bytes.
  public static let byteCount = 16

  /// The longest message, header included, in bytes.
  public static let longestMessage = 16384

  /// What kind of message it is.
  public struct Flags: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// The message answers the request with the same number and sequence.
    public static let reply = Flags(rawValue: 1 << 0)
    /// The request was refused; the payload is a ``Refusal``.
    public static let refusal = Flags(rawValue: 1 << 1)
  }

  /// The number of the request (``Request`` or ``LaunchRequest``).
  public var request: UInt32
  public var flags: Flags
  /// Chosen by the requester and repeated in the reply.
  public var sequence: UInt32
  /// The payload's length in bytes, without the header.
  public var size: UInt32

  public init(request: UInt32, flags: Flags = [], sequence: UInt32, size: UInt32) {
    self.request = request
    self.flags = flags
    self.sequence = sequence
    self.size = size
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(request)
    writer.put(flags.rawValue)
    writer.put(sequence)
    writer.put(size)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    request = try reader.get("request")
    flags = Flags(rawValue: try reader.get("flags"))
    sequence = try reader.get("sequence")
    size = try reader.get("size")
    guard flags.rawValue & ~3 == 0 else {
      throw ProtocolError("unknown flags \(String(flags.rawValue, radix: 16))")
    }
    guard !flags.contains(.refusal) || flags.contains(.reply) else {
      throw ProtocolError("a refusal that is no reply")
    }
  }
}

/// Why a request was refused.
public struct Refusal: Error, Equatable, WireCodable, CustomStringConvertible {
  /// The reason in words, at most ``longest`` bytes.
  public var reason: String

  /// The longest reason in bytes.
  public static let longest = 400

  public init(_ reason: String) { self.reason = reason.cut(toBytes: Self.longest) }

  public var description: String { reason }

  public func encode(to writer: inout WireWriter) { writer.put(reason) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    reason = try reader.getString("reason", most: Self.longest)
  }
}
