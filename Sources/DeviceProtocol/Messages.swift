// SPDX-License-Identifier: Apache-2.0

/// A message or reply without fields.
public struct Empty: Equatable, WireCodable {
  public init() {}
  public func encode(to writer: inout WireWriter) {}
  public init(from reader: inout WireReader) throws(ProtocolError) {}
}

/// ``Request/hello``: the first message of a device, and the core's answer.
public struct Hello: Equatable, WireCodable {
  /// "BHDP", little-endian.
  public static let magic: UInt32 = 0x5044_4842

  /// The protocol's version that this code speaks.
  public static let version: UInt16 = 1

  public var version: UInt16
  /// Optional parts, none of which exist in version 1; the answer holds those in common.
  public var features: UInt64
  /// The device's role in the machine file, such as `ide`; at most 31 bytes.
  public var role: String

  public init(version: UInt16 = version, features: UInt64 = 0, role: String) {
    self.version = version
    self.features = features
    self.role = role
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(Self.magic)
    writer.put(version)
    writer.put(features)
    writer.put(role)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    let magic = try reader.get(UInt32.self, "magic")
    guard magic == Self.magic else { throw ProtocolError("the magic number is wrong") }
    version = try reader.get("version")
    features = try reader.get("features")
    role = try reader.getString("role", most: 31)
  }
}

/// The reply to ``Request/claim``: what comes with it, in the order of its descriptors.
///
/// The descriptors are: the lane, the clock page, the state page; the bounce buffer when one
/// was claimed; each read-write backing memory; for each line its event, and for a level
/// line the event that the guest has ended the interrupt.
public struct Grant: Equatable, WireCodable {
  /// How many request slots the lane has: one for each vCPU, and one for the operator.
  public var slots: UInt16
  /// Whether the state page holds the state of a predecessor to go on from.
  public var isRestart: Bool
  /// The length of the state page in bytes.
  public var stateByteCount: UInt32

  public init(slots: UInt16, isRestart: Bool, stateByteCount: UInt32) {
    self.slots = slots
    self.isRestart = isRestart
    self.stateByteCount = stateByteCount
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(slots)
    writer.put(isRestart)
    writer.put(stateByteCount)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    slots = try reader.get("slot count")
    isRestart = try reader.getBool("restart flag")
    stateByteCount = try reader.get("state page's size")
    guard (1...UInt16(LaneLayout.mostSlots)).contains(slots) else {
      throw ProtocolError("\(slots) request slots")
    }
    guard stateByteCount >= UInt32(StateLayoutInPage.bulkOffset), stateByteCount <= 64 << 20,
      stateByteCount % 4096 == 0
    else {
      throw ProtocolError("state page of \(stateByteCount) bytes")
    }
  }
}

/// ``Request/dma``: a copy between the bounce buffer and the memory behind a window.
public struct DMARequest: Equatable, WireCodable {
  /// What is copied where.
  public enum Direction: UInt8, Sendable {
    /// From the bounce buffer to guest memory (the device's data in).
    case toGuest = 0
    /// From guest memory to the bounce buffer.
    case fromGuest = 1
    /// Ends the transfer: closes the window. The lengths are 0.
    case close = 2
  }

  public var window: UInt16
  public var direction: Direction
  /// Where in the window's ranges, taken one after the other, the copy begins.
  public var windowOffset: UInt64
  /// Where in the bounce buffer.
  public var bounceOffset: UInt32
  public var byteCount: UInt32

  public init(
    window: UInt16, direction: Direction, windowOffset: UInt64 = 0, bounceOffset: UInt32 = 0,
    byteCount: UInt32 = 0
  ) {
    self.window = window
    self.direction = direction
    self.windowOffset = windowOffset
    self.bounceOffset = bounceOffset
    self.byteCount = byteCount
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(window)
    writer.put(direction.rawValue)
    writer.put(windowOffset)
    writer.put(bounceOffset)
    writer.put(byteCount)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    window = try reader.get("window")
    direction = try reader.getCase("direction")
    windowOffset = try reader.get("window offset")
    bounceOffset = try reader.get("bounce offset")
    byteCount = try reader.get("byte count")
  }
}

/// The reply to ``Request/dma``: how much was copied before the window's end.
public struct DMAReply: Equatable, WireCodable {
  public var byteCount: UInt32

  public init(byteCount: UInt32) { self.byteCount = byteCount }

  public func encode(to writer: inout WireWriter) { writer.put(byteCount) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    byteCount = try reader.get("byte count")
  }
}

/// ``Request/moveRegion``: where a movable port region decodes from now on.
public struct MoveRegion: Equatable, WireCodable {
  public var region: UInt16
  /// Whether it decodes at all.
  public var isEnabled: Bool
  /// The first port.
  public var base: UInt16

  public init(region: UInt16, isEnabled: Bool, base: UInt16) {
    self.region = region
    self.isEnabled = isEnabled
    self.base = base
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(region)
    writer.put(isEnabled)
    writer.put(base)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    region = try reader.get("region")
    isEnabled = try reader.getBool("enabled flag")
    base = try reader.get("base")
  }
}

/// ``Request/routePIRQ``: the ISA interrupts that PIRQ A to D go to; 0xFF for none.
public struct PIRQRoutes: Equatable, WireCodable {
  public var interrupts: [UInt8]

  public init(_ interrupts: [UInt8]) { self.interrupts = interrupts }

  public func encode(to writer: inout WireWriter) {
    for index in 0..<4 { writer.put(index < interrupts.count ? interrupts[index] : 0xFF) }
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    interrupts = []
    for _ in 0..<4 {
      let interrupt = try reader.get(UInt8.self, "interrupt")
      guard interrupt < 16 || interrupt == 0xFF else {
        throw ProtocolError("PIRQ routed to \(interrupt)")
      }
      interrupts.append(interrupt)
    }
  }
}

/// ``Request/power``: what the guest has asked of the machine through this device.
public struct PowerRequest: Equatable, WireCodable {
  public enum Action: UInt8, Sendable {
    case reset = 0
    case powerOff = 1
    /// Ends the machine with `code` (the debug exit port).
    case exit = 2
    /// Holds the vCPUs, while time and the devices go on, until ``wake`` or a reset.
    case suspend = 3
    /// Resets the machine as ``reset`` does, but RAM stays where firmware has its shadow.
    case wake = 4
  }

  public var action: Action
  /// The exit code of ``Action/exit``; 0 otherwise.
  public var code: UInt8

  public init(_ action: Action, code: UInt8 = 0) {
    self.action = action
    self.code = code
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(action.rawValue)
    writer.put(code)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    action = try reader.getCase("action")
    code = try reader.get("code")
  }
}

/// ``Request/screendump``: the size of the memory that comes along, in bytes.
public struct ScreendumpRequest: Equatable, WireCodable {
  public var byteCount: UInt32

  public init(byteCount: UInt32) { self.byteCount = byteCount }

  public func encode(to writer: inout WireWriter) { writer.put(byteCount) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    byteCount = try reader.get("size")
  }
}

/// The reply to ``Request/screendump``: rows of 4-byte pixels (blue, green, red, unused) are
/// in the memory from its start, without gaps.
public struct ScreendumpReply: Equatable, WireCodable {
  public var width: UInt32
  public var height: UInt32
  /// The screen as text, lines separated by newlines, when it is in a text mode.
  public var text: String

  /// The most bytes of text: 160 by 120 cells in UTF-8 would not fit, so long screens are cut.
  public static let mostText = 12000

  public init(width: UInt32, height: UInt32, text: String) {
    self.width = width
    self.height = height
    self.text = text.cut(toBytes: Self.mostText)
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(width)
    writer.put(height)
    writer.put(text)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    width = try reader.get("width")
    height = try reader.get("height")
    text = try reader.getString("text", most: Self.mostText)
    guard width <= 4096, height <= 4096 else {
      throw ProtocolError("screen of \(width) by \(height)")
    }
  }
}

/// ``Request/medium``: a disc of a CD-ROM drive; one descriptor comes with ``Action/insert``.
public struct MediumRequest: Equatable, WireCodable {
  public enum Action: UInt8, Sendable {
    case eject = 0
    case insert = 1
  }

  /// 0 to 3: ide0.0, ide0.1, ide1.0, ide1.1.
  public var slot: UInt8
  public var action: Action
  /// Whether a tray that the guest has locked is opened all the same.
  public var isForced: Bool
  /// The length of the image in bytes; 0 with ``Action/eject``.
  public var byteCount: UInt64

  public init(slot: UInt8, _ action: Action, isForced: Bool, byteCount: UInt64 = 0) {
    self.slot = slot
    self.action = action
    self.isForced = isForced
    self.byteCount = byteCount
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(slot)
    writer.put(action.rawValue)
    writer.put(isForced)
    writer.put(byteCount)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    slot = try reader.get("slot")
    action = try reader.getCase("action")
    isForced = try reader.getBool("force flag")
    byteCount = try reader.get("size")
    guard slot < 4 else { throw ProtocolError("there is no drive slot \(slot)") }
    guard byteCount <= 1 << 62 else { throw ProtocolError("a disc of \(byteCount) bytes") }
  }
}

/// ``Request/hold``: why the machine cannot go on.
public struct HoldRequest: Equatable, WireCodable {
  public var reason: String

  public init(reason: String) { self.reason = reason.cut(toBytes: Refusal.longest) }

  public func encode(to writer: inout WireWriter) { writer.put(reason) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    reason = try reader.getString("reason", most: Refusal.longest)
  }
}

/// ``Request/input``: keys that go down or up, one after the other.
public struct InputRequest: Equatable, WireCodable {
  /// One key event; the names are QMP's.
  public struct Key: Equatable, WireCodable {
    public var name: String
    public var isDown: Bool

    public init(name: String, isDown: Bool) {
      self.name = name
      self.isDown = isDown
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(name)
      writer.put(isDown)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      name = try reader.getString("key", most: 31)
      isDown = try reader.getBool("down flag")
    }
  }

  public var keys: [Key]

  public init(keys: [Key]) { self.keys = keys }

  public func encode(to writer: inout WireWriter) { writer.put(keys) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    keys = try reader.getArray("keys", most: 64)
  }
}
