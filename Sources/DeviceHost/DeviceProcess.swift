// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
public import LinuxSystem

/// The life of a device process, from its first message to its end.
public enum DeviceProcess {
  /// What the launcher said first.
  public struct Setup: Sendable {
    /// The settings, to be decoded by the device.
    public var settings: [UInt8]
    /// The descriptors that the settings name, without the core's channel.
    public var descriptors: [Descriptor]
    /// The channel to the core.
    public var core: Channel
    /// The channel to the launcher, for requests of its own kind.
    public var launcher: Channel
  }

  /// The descriptor that every child inherits: its channel to the launcher.
  public static let launcherDescriptor: Int32 = 3

  /// Receives the settings.
  public static func setUp() -> Setup {
    // A back end whose reader is gone is an error to handle, not the end.
    Signals.ignore(13 /* SIGPIPE */)
    // The C library looks this up in /sys, which is out of reach later.
    _ = Processors.online
    let launcher = Channel(PacketSocket(Descriptor(owning: launcherDescriptor)))
    do throws(ChannelError) {
      let packet = try launcher.receive(timeout: 10_000_000_000)
      guard packet.header.request == LaunchRequest.setup.rawValue, !packet.descriptors.isEmpty
      else { throw ChannelError.broken(ProtocolError("the first message is no setup")) }
      return Setup(
        settings: packet.payload, descriptors: Array(packet.descriptors.dropFirst()),
        core: Channel(PacketSocket(packet.descriptors[0])), launcher: launcher)
    } catch {
      end("no setup from the launcher (vmlaunch starts this program, nobody else): \(error)")
    }
  }

  /// Ends the process with a reason.
  public static func end(_ reason: String, code: Int32 = 1) -> Never {
    Log.line(reason, .error)
    ProcessExit.now(code)
  }
}
