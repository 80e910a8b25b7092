// SPDX-License-Identifier: Apache-2.0

/// ``Request/pointer``: the mouse moves, turns its wheel, or a button changes.
public struct PointerRequest: Equatable, WireCodable {
  /// Counts to the right, downwards, and of the wheel towards the user.
  public var dx: Int32
  public var dy: Int32
  public var wheel: Int32
  /// Buttons that go down: bit 0 left, 1 right, 2 middle, 3 and 4 at the side.
  public var pressed: UInt8
  /// Buttons that go up.
  public var released: UInt8

  public init(
    dx: Int32 = 0, dy: Int32 = 0, wheel: Int32 = 0, pressed: UInt8 = 0, released: UInt8 = 0
  ) {
    self.dx = dx
    self.dy = dy
    self.wheel = wheel
    self.pressed = pressed
    self.released = released
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(dx)
    writer.put(dy)
    writer.put(wheel)
    writer.put(pressed)
    writer.put(released)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    dx = try reader.get("motion to the right")
    dy = try reader.get("motion downwards")
    wheel = try reader.get("motion of the wheel")
    pressed = try reader.get("pressed buttons")
    released = try reader.get("released buttons")
    guard (pressed | released) & ~0x1F == 0 else {
      throw ProtocolError("a button beyond the fifth")
    }
  }
}

/// The reply to ``Request/drives``.
public struct DrivesReply: Equatable, WireCodable {
  /// One drive: its disc, and what it has done since its process began.
  public struct Drive: Equatable, WireCodable {
    /// 0 to 3: ide0.0, ide0.1, ide1.0, ide1.1.
    public var slot: UInt8
    public var hasMedium: Bool
    public var isTrayOpen: Bool
    /// Whether the guest keeps the tray shut.
    public var isLocked: Bool
    /// The size of the disk or disc; 0 without one.
    public var byteCount: UInt64
    public var readBytes: UInt64 = 0
    public var writtenBytes: UInt64 = 0
    public var reads: UInt64 = 0
    public var writes: UInt64 = 0
    public var flushes: UInt64 = 0
    /// How long they took together, in nanoseconds.
    public var readTime: UInt64 = 0
    public var writeTime: UInt64 = 0
    public var flushTime: UInt64 = 0

    public init(
      slot: UInt8, hasMedium: Bool, isTrayOpen: Bool = false, isLocked: Bool = false,
      byteCount: UInt64
    ) {
      self.slot = slot
      self.hasMedium = hasMedium
      self.isTrayOpen = isTrayOpen
      self.isLocked = isLocked
      self.byteCount = byteCount
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(slot)
      writer.put(hasMedium)
      writer.put(isTrayOpen)
      writer.put(isLocked)
      for value in [
        byteCount, readBytes, writtenBytes, reads, writes, flushes, readTime, writeTime, flushTime,
      ] {
        writer.put(value)
      }
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      slot = try reader.get("slot")
      hasMedium = try reader.getBool("medium flag")
      isTrayOpen = try reader.getBool("tray flag")
      isLocked = try reader.getBool("lock flag")
      byteCount = try reader.get("size")
      readBytes = try reader.get("bytes read")
      writtenBytes = try reader.get("bytes written")
      reads = try reader.get("reads")
      writes = try reader.get("writes")
      flushes = try reader.get("flushes")
      readTime = try reader.get("time of reads")
      writeTime = try reader.get("time of writes")
      flushTime = try reader.get("time of flushes")
      guard slot < 4 else { throw ProtocolError("there is no drive slot \(slot)") }
    }
  }

  public var drives: [Drive]

  public init(drives: [Drive]) { self.drives = drives }

  public func encode(to writer: inout WireWriter) { writer.put(drives) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    drives = try reader.getArray("drives", most: 4)
  }
}

/// ``Request/notice``: something that the operator may want to know.
public struct NoticeMessage: Equatable, WireCodable, Sendable {
  public enum Kind: UInt8, Sendable {
    /// The host has failed a drive's request.
    case hostError = 0
    /// A drive's tray has opened or shut.
    case trayMoved = 1
    /// The guest says that it has panicked.
    case panicked = 2
    /// The guest says that it has panicked and starts its crash kernel.
    case crashLoaded = 3
  }

  /// What becomes of a request that the host has failed.
  public enum Action: UInt8, Sendable {
    case report = 0
    case ignore = 1
    case hold = 2
  }

  public var kind: Kind
  /// The drive's slot, 0 to 3; 0 where it is none.
  public var slot: UInt8
  /// Whether it was a write that failed.
  public var isWrite: Bool
  /// Whether it failed for want of space on the host.
  public var isFull: Bool
  /// Whether the tray is open now.
  public var isOpen: Bool
  public var action: Action
  /// Why it failed, in words.
  public var reason: String

  public init(
    _ kind: Kind, slot: UInt8 = 0, isWrite: Bool = false, isFull: Bool = false,
    isOpen: Bool = false, action: Action = .report, reason: String = ""
  ) {
    self.kind = kind
    self.slot = slot
    self.isWrite = isWrite
    self.isFull = isFull
    self.isOpen = isOpen
    self.action = action
    self.reason = reason.cut(toBytes: Refusal.longest)
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(kind.rawValue)
    writer.put(slot)
    writer.put(isWrite)
    writer.put(isFull)
    writer.put(isOpen)
    writer.put(action.rawValue)
    writer.put(reason)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    kind = try reader.getCase("kind")
    slot = try reader.get("slot")
    isWrite = try reader.getBool("write flag")
    isFull = try reader.getBool("space flag")
    isOpen = try reader.getBool("tray flag")
    action = try reader.getCase("action")
    reason = try reader.getString("reason", most: Refusal.longest)
    guard slot < 4 else { throw ProtocolError("there is no drive slot \(slot)") }
  }
}

/// ``LaunchRequest/openMedium``: the image of a disc, as the operator names it.
public struct DiscRequest: Equatable, WireCodable {
  public var path: String

  public init(path: String) { self.path = path }

  public func encode(to writer: inout WireWriter) { writer.put(path) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    path = try reader.getString("path", most: 4000)
  }
}

/// The reply to ``LaunchRequest/openMedium``: the image's length in bytes.
public struct DiscReply: Equatable, WireCodable {
  public var byteCount: UInt64

  public init(byteCount: UInt64) { self.byteCount = byteCount }

  public func encode(to writer: inout WireWriter) { writer.put(byteCount) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    byteCount = try reader.get("size")
  }
}
