// SPDX-License-Identifier: Apache-2.0

/// What the counters in a device's lane mean (protocols/device.md, section 7).
public enum DeviceCounter {
  /// Of vmdev-ide: what a drive has done, each drive's counters after the other's.
  public enum Drive: Int, CaseIterable, Sendable {
    /// Requests that read, and what they brought.
    case reads, readBytes
    /// Requests that wrote, and what they took.
    case writes, writtenBytes
    case flushes
    case trims
    /// Requests that the host has failed.
    case errors
    /// How long the requests took that did not fail, in nanoseconds.
    case readTime, writeTime, flushTime
  }

  /// Of vmdev-serial: the bytes of a port.
  public enum Port: Int, CaseIterable, Sendable {
    /// From the back end to the guest.
    case receivedBytes
    /// From the guest; a back end that nobody is at loses them.
    case sentBytes
  }

  /// The drives and the ports that have counters.
  public static let drives = 4
  public static let ports = 4

  /// The place of a drive's counter; slot 0 is ide0.0, slot 3 ide1.1.
  public static func place(_ counter: Drive, slot: Int) -> Int { 16 * slot + counter.rawValue }

  /// The place of a port's counter; port 0 is COM1.
  public static func place(_ counter: Port, port: Int) -> Int { 2 * port + counter.rawValue }
}
