// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol

/// What is done with snapshots of the machine (``ControlRequest/snapshot``).
public struct SnapshotRequest: Equatable, WireCodable, Sendable {
  public enum Action: UInt8, Sendable {
    case list = 0
    case save = 1
    case load = 2
    case delete = 3
    /// Let a drive go on in a new image on top of its own.
    case overlay = 4
  }

  /// The longest id of a job in bytes.
  public static let longestJob = 255

  public var action: Action
  /// The snapshot's name; empty with `list` and `overlay`.
  public var tag: String
  /// Whether `save` may replace a snapshot of that name.
  public var isReplaced: Bool
  /// With `overlay` the drive's slot, 0 to 3, and the path of the new image.
  public var slot: UInt8
  public var path: String
  /// With an id the reply comes at once, and an event (`snapshotEnded`) at the end.
  public var job: String

  public init(
    _ action: Action, tag: String = "", isReplaced: Bool = false, slot: UInt8 = 0,
    path: String = "", job: String = ""
  ) {
    self.action = action
    self.tag = tag
    self.isReplaced = isReplaced
    self.slot = slot
    self.path = path
    self.job = job
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(action.rawValue)
    writer.put(tag)
    writer.put(isReplaced)
    writer.put(slot)
    writer.put(path)
    writer.put(job)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    action = try reader.getCase("action")
    tag = try reader.getString("tag", most: 4000)
    isReplaced = try reader.getBool("replace flag")
    slot = try reader.get("slot")
    path = try reader.getString("path", most: 1023)
    job = try reader.getString("job", most: Self.longestJob)
    guard slot < 4 else { throw ProtocolError("there is no drive slot \(slot)") }
  }
}

/// The reply to ``ControlRequest/snapshot``: with `list` the snapshots, else nothing.
public struct SnapshotReply: Equatable, WireCodable, Sendable {
  /// One snapshot.
  public struct Entry: Equatable, WireCodable, Sendable {
    public var tag: String
    /// The length of the machine's state in bytes; 0 when there is none, only the disks'.
    public var byteCount: UInt64 = 0
    /// When it was taken, in seconds since 1970; 0 when no disk tells.
    public var seconds: UInt32 = 0
    /// How long the guest had run, in nanoseconds.
    public var clock: UInt64 = 0
    /// The drives that have it: bit n for slot n.
    public var drives: UInt8 = 0

    public init(tag: String) { self.tag = tag }

    public func encode(to writer: inout WireWriter) {
      writer.put(tag)
      writer.put(byteCount)
      writer.put(seconds)
      writer.put(clock)
      writer.put(drives)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      tag = try reader.getString("tag", most: SnapshotTag.longest)
      byteCount = try reader.get("size")
      seconds = try reader.get("seconds")
      clock = try reader.get("clock")
      drives = try reader.get("drives")
    }
  }

  /// The most entries of one reply.
  public static let most = 100

  public var entries: [Entry]

  public init(entries: [Entry] = []) { self.entries = Array(entries.prefix(Self.most)) }

  public func encode(to writer: inout WireWriter) { writer.put(entries) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    entries = try reader.getArray("snapshots", most: Self.most)
  }
}
