// SPDX-License-Identifier: Apache-2.0

/// Names of snapshots.
public enum SnapshotTag {
  /// The longest in bytes of UTF-8.
  public static let longest = 127

  /// Whether a text can name a snapshot: it is the name of a file, too.
  public static func isGood(_ tag: String) -> Bool {
    guard (1...longest).contains(tag.utf8.count), !tag.hasPrefix(".") else { return false }
    return tag.unicodeScalars.allSatisfy { $0.value > 0x20 && $0.value != 0x7F && $0 != "/" }
  }
}

/// ``Request/snapshot``: what is done with the internal snapshots of the drives' images, or with
/// the overlay of one drive, whose file comes along.
public struct DriveSnapshotRequest: Equatable, WireCodable {
  public enum Action: UInt8, Sendable {
    /// Tell which there are.
    case list = 0
    /// Take one of every writable disk.
    case create = 1
    /// Look whether every writable disk has one that was taken at this time.
    case check = 2
    /// Make every writable disk what it was.
    case apply = 3
    /// Delete it where it is.
    case delete = 4
    /// Flush the drive `slot`, and make a new qcow2 image on top of its own out of the file that
    /// comes along.
    case overlay = 5
  }

  public var action: Action
  /// The drive of ``Action/overlay``, 0 to 3.
  public var slot: UInt8
  /// The snapshot's name; empty with `list` and `overlay`.
  public var tag: String
  /// When it was taken, in seconds since 1970, and the nanoseconds of that second.
  public var seconds: UInt32
  public var nanoseconds: UInt32
  /// How long the guest had run, in nanoseconds.
  public var clock: UInt64
  /// The name and format of the image below an overlay, as they go into it.
  public var backing: String
  public var backingFormat: String

  public init(
    _ action: Action, tag: String = "", slot: UInt8 = 0, seconds: UInt32 = 0,
    nanoseconds: UInt32 = 0, clock: UInt64 = 0, backing: String = "", backingFormat: String = ""
  ) {
    self.action = action
    self.slot = slot
    self.tag = tag
    self.seconds = seconds
    self.nanoseconds = nanoseconds
    self.clock = clock
    self.backing = backing
    self.backingFormat = backingFormat
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(action.rawValue)
    writer.put(slot)
    writer.put(tag)
    writer.put(seconds)
    writer.put(nanoseconds)
    writer.put(clock)
    writer.put(backing)
    writer.put(backingFormat)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    action = try reader.getCase("action")
    slot = try reader.get("slot")
    tag = try reader.getString("tag", most: SnapshotTag.longest)
    seconds = try reader.get("seconds")
    nanoseconds = try reader.get("nanoseconds")
    clock = try reader.get("clock")
    backing = try reader.getString("backing file", most: 1023)
    backingFormat = try reader.getString("backing format", most: 31)
    guard slot < 4 else { throw ProtocolError("there is no drive slot \(slot)") }
  }
}

/// The reply to ``Request/snapshot``: with `list` the snapshots of every drive, else nothing.
public struct DriveSnapshotReply: Equatable, WireCodable {
  /// One internal snapshot of one drive's image.
  public struct Entry: Equatable, WireCodable, Sendable {
    public var slot: UInt8
    public var tag: String
    public var seconds: UInt32
    public var nanoseconds: UInt32
    public var clock: UInt64

    public init(
      slot: UInt8, tag: String, seconds: UInt32, nanoseconds: UInt32, clock: UInt64
    ) {
      self.slot = slot
      self.tag = tag.cut(toBytes: SnapshotTag.longest)
      self.seconds = seconds
      self.nanoseconds = nanoseconds
      self.clock = clock
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(slot)
      writer.put(tag)
      writer.put(seconds)
      writer.put(nanoseconds)
      writer.put(clock)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      slot = try reader.get("slot")
      tag = try reader.getString("tag", most: SnapshotTag.longest)
      seconds = try reader.get("seconds")
      nanoseconds = try reader.get("nanoseconds")
      clock = try reader.get("clock")
      guard slot < 4 else { throw ProtocolError("there is no drive slot \(slot)") }
    }
  }

  /// The most entries of one reply.
  public static let most = 80

  public var entries: [Entry]

  public init(entries: [Entry] = []) { self.entries = Array(entries.prefix(Self.most)) }

  public func encode(to writer: inout WireWriter) { writer.put(entries) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    entries = try reader.getArray("snapshots", most: Self.most)
  }
}

/// ``LaunchRequest/stateFile``: the file with the machine's state of a snapshot.
public struct StateFileRequest: Equatable, WireCodable {
  public enum Action: UInt8, Sendable {
    /// Tell which there are.
    case list = 0
    /// Make a new one under a name of its own; its descriptor comes with the reply.
    case create = 1
    /// The new one is whole: make it durable, and give it its name.
    case commit = 2
    /// Remove the new one.
    case discard = 3
    /// Open one for reading; its descriptor comes with the reply.
    case open = 4
    /// Remove one, if it is there; the reply says whether it was.
    case delete = 5
  }

  public var action: Action
  /// The snapshot's name; empty with `list`.
  public var tag: String
  /// Whether `create` may be for a name that is there.
  public var isReplaced: Bool

  public init(_ action: Action, tag: String = "", isReplaced: Bool = false) {
    self.action = action
    self.tag = tag
    self.isReplaced = isReplaced
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(action.rawValue)
    writer.put(tag)
    writer.put(isReplaced)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    action = try reader.getCase("action")
    tag = try reader.getString("tag", most: SnapshotTag.longest)
    isReplaced = try reader.getBool("replace flag")
  }
}

/// The reply to ``LaunchRequest/stateFile``.
public struct StateFileReply: Equatable, WireCodable {
  /// One file.
  public struct Entry: Equatable, WireCodable, Sendable {
    public var tag: String
    /// Its length in bytes.
    public var byteCount: UInt64

    public init(tag: String, byteCount: UInt64) {
      self.tag = tag.cut(toBytes: SnapshotTag.longest)
      self.byteCount = byteCount
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(tag)
      writer.put(byteCount)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      tag = try reader.getString("tag", most: SnapshotTag.longest)
      byteCount = try reader.get("size")
    }
  }

  /// The most entries of one reply.
  public static let most = 80

  /// Those there are, with `list`; that which was removed, with `delete`; else nothing.
  public var files: [Entry]

  public init(files: [Entry] = []) { self.files = Array(files.prefix(Self.most)) }

  public func encode(to writer: inout WireWriter) { writer.put(files) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    files = try reader.getArray("files", most: Self.most)
  }
}

/// ``LaunchRequest/overlay``: the image that a drive goes on in.
public struct OverlayRequest: Equatable, WireCodable {
  public enum Action: UInt8, Sendable {
    /// Make a file for it; its descriptor comes with the reply.
    case create = 0
    /// It is an image now: start the drive's process anew on it.
    case use = 1
    /// Remove it.
    case discard = 2
  }

  public var action: Action
  /// 0 to 3: ide0.0, ide0.1, ide1.0, ide1.1.
  public var slot: UInt8
  /// Its path with `create`, as the operator gave it.
  public var path: String

  public init(_ action: Action, slot: UInt8, path: String = "") {
    self.action = action
    self.slot = slot
    self.path = path
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(action.rawValue)
    writer.put(slot)
    writer.put(path)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    action = try reader.getCase("action")
    slot = try reader.get("slot")
    path = try reader.getString("path", most: 1023)
    guard slot < 4 else { throw ProtocolError("there is no drive slot \(slot)") }
  }
}

/// The reply to ``LaunchRequest/overlay``: with `create` the image that is to lie below.
public struct OverlayReply: Equatable, WireCodable {
  /// Its path.
  public var backing: String
  /// `raw` or `qcow2`.
  public var format: String

  public init(backing: String = "", format: String = "") {
    self.backing = backing.cut(toBytes: 1023)
    self.format = format
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(backing)
    writer.put(format)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    backing = try reader.getString("backing file", most: 1023)
    format = try reader.getString("format", most: 31)
  }
}
