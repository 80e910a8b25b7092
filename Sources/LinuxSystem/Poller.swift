// SPDX-License-Identifier: Apache-2.0

internal import CLinux

/// A set of descriptors to wait for together (ppoll).
public struct Poller: Sendable {
  /// What to wait for, and what was found.
  public struct Events: OptionSet, Sendable {
    public let rawValue: Int16
    public init(rawValue: Int16) { self.rawValue = rawValue }
    public static let readable = Events(rawValue: Int16(POLLIN))
    public static let writable = Events(rawValue: Int16(POLLOUT))
    /// An error is pending; always watched.
    public static let failure = Events(rawValue: Int16(POLLERR | POLLNVAL))
  }

  private var set: [pollfd] = []

  public init() {}

  /// Adds a descriptor and returns its place; an empty `events` still watches for hang-up.
  @discardableResult
  public mutating func add(_ descriptor: Descriptor, _ events: Events) -> Int {
    set.append(pollfd(fd: descriptor.raw, events: events.rawValue, revents: 0))
    return set.count - 1
  }

  /// Changes what to wait for at a place; `nil` leaves it out altogether.
  public mutating func change(_ place: Int, _ descriptor: Descriptor, _ events: Events?) {
    set[place].fd = events == nil ? -1 : descriptor.raw
    set[place].events = events?.rawValue ?? 0
  }

  /// Waits until something is ready; returns how many places are, 0 when the time is over or
  /// a signal came.
  public mutating func wait(timeout: UInt64? = nil) throws(SystemError) -> Int {
    let limit = timeout.map { Int64(clamping: $0) } ?? -1
    // SAFETY: the kernel reads and writes `count` entries of the array.
    let result = unsafe set.withUnsafeMutableBufferPointer {
      unsafe bh_poll($0.baseAddress, $0.count, limit)
    }
    if result == -4 /* EINTR */ { return 0 }
    return Int(try SystemError.check("ppoll", result))
  }

  /// What the last wait found at a place.
  public subscript(place: Int) -> Events { Events(rawValue: set[place].revents) }
}
