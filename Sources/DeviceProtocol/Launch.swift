// SPDX-License-Identifier: Apache-2.0

/// What is said between the launcher and its children (protocols/launch.md).
///
/// Every child inherits one channel, descriptor 3. All else that it may use comes over it.
public enum LaunchRequest: UInt32, Sendable, CaseIterable {
  /// Launcher to child, the first message: its settings, with the descriptors they name.
  case setup = 100
  /// Child to launcher: locked down; this is what was had (``IsolationMessage``).
  case report = 101
  /// Launcher to core: here is the channel of a device (``AttachMessage``, one descriptor).
  case attach = 102
  /// Core to launcher: a device is at fault (``FaultMessage``).
  case fault = 103
  /// Core to launcher: the machine has ended (``EndedMessage``); the core ends then.
  case ended = 104
  /// Launcher to core: end the machine in an orderly way.
  case stop = 105
  /// Device to launcher: open the backing file that an image names (``BackingRequest``); the
  /// reply brings its descriptor.
  case openBacking = 106
  /// Core to launcher: a drive has another disc, or none (``MediumMessage``); with one comes its
  /// descriptor, for the next process of vmdev-ide.
  case medium = 107
  /// Launcher to vmdev-serial: a peer has come to a port's socket (``ConnectionMessage``, one
  /// descriptor).
  case connection = 108
  /// Monitor to launcher: make a file for what the operator wants written (``OutputRequest``); the
  /// reply brings its descriptor.
  case openOutput = 120
  /// Monitor to launcher: which threads the core has; the reply is ``ThreadsReply``.
  case threads = 121
  /// Monitor to launcher: what the machine's processes use; the reply is ``ProcessesReply``.
  case processes = 125
  /// Core to launcher: which lines it writes from now on (``LogLevelMessage``).
  case logLevel = 126
  /// Monitor to launcher: open the image of a disc (``DiscRequest``); the reply brings its
  /// descriptor and size (``DiscReply``).
  case openMedium = 122
  /// Monitor to launcher: make the socket for a debugger, or take it away
  /// (``DebuggerSocketRequest``); the reply (``DebuggerSocketReply``) brings the socket.
  case debuggerSocket = 140
  /// Core to launcher: the file with the machine's state of a snapshot (``StateFileRequest``,
  /// ``StateFileReply``).
  case stateFile = 130
  /// Core to launcher: end every device's process; answered when they are gone.
  case endDevices = 131
  /// Core to launcher: another image for a drive, on top of its own (``OverlayRequest``,
  /// ``OverlayReply``).
  case overlay = 132
}

/// ``LaunchRequest/report``.
public struct IsolationMessage: Equatable, WireCodable {
  /// One line for people.
  public var summary: String
  /// The layers that are missing (relaxed mode), one line each; empty when all are there.
  public var missing: [UInt8]

  public init(summary: String, missing: String) {
    self.summary = summary.cut(toBytes: 4000)
    self.missing = Array(missing.cut(toBytes: 2000).utf8)
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(summary)
    writer.put(missing)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    summary = try reader.getString("summary", most: 4000)
    missing = try reader.getBytes("missing layers", most: 2000)
  }
}

/// ``LaunchRequest/attach``.
public struct AttachMessage: Equatable, WireCodable {
  /// The device's role, such as `ide`.
  public var role: String

  public init(role: String) { self.role = role }

  public func encode(to writer: inout WireWriter) { writer.put(role) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    role = try reader.getString("role", most: 31)
  }
}

/// ``LaunchRequest/fault``.
public struct FaultMessage: Equatable, WireCodable {
  public enum Kind: UInt8, Sendable {
    /// A live access was not answered within the deadline.
    case deadline = 0
    /// The device broke the protocol and was cut off.
    case protocolBroken = 1
    /// The device's channel closed: it has died, or is dying.
    case gone = 2
    /// The device failed again and again on the same request.
    case poison = 3
    /// The operator wants it started anew.
    case operatorRestart = 4
  }

  public var role: String
  public var kind: Kind
  /// The reason in words.
  public var reason: String

  public init(role: String, kind: Kind, reason: String) {
    self.role = role
    self.kind = kind
    self.reason = reason.cut(toBytes: Refusal.longest)
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(role)
    writer.put(kind.rawValue)
    writer.put(reason)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    role = try reader.getString("role", most: 31)
    kind = try reader.getCase("kind")
    reason = try reader.getString("reason", most: Refusal.longest)
  }
}

/// ``LaunchRequest/ended``.
public struct EndedMessage: Equatable, WireCodable {
  /// The exit code that the launcher ends with.
  public var code: UInt8
  /// Why, in words; several lines when a vCPU's registers belong to it.
  public var reason: String

  public init(code: UInt8, reason: String) {
    self.code = code
    self.reason = reason.cut(toBytes: 15000)
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(code)
    writer.put(reason)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    code = try reader.get("code")
    reason = try reader.getString("reason", most: 15000)
  }
}

/// ``LaunchRequest/medium``.
public struct MediumMessage: Equatable, WireCodable {
  /// 0 to 3: ide0.0, ide0.1, ide1.0, ide1.1.
  public var slot: UInt8
  public var isPresent: Bool

  public init(slot: UInt8, isPresent: Bool) {
    self.slot = slot
    self.isPresent = isPresent
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(slot)
    writer.put(isPresent)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    slot = try reader.get("slot")
    isPresent = try reader.getBool("present flag")
    guard slot < 4 else { throw ProtocolError("there is no drive slot \(slot)") }
  }
}

/// ``LaunchRequest/connection``.
public struct ConnectionMessage: Equatable, WireCodable {
  /// The serial port: 0 for COM1.
  public var port: UInt8

  public init(port: UInt8) { self.port = port }

  public func encode(to writer: inout WireWriter) { writer.put(port) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    port = try reader.get("port")
    guard port < 4 else { throw ProtocolError("there is no serial port \(port)") }
  }
}

/// ``LaunchRequest/openBacking``.
public struct BackingRequest: Equatable, WireCodable {
  /// The drive's place in the settings.
  public var drive: UInt8
  /// How many images there are already in front of this one in the chain.
  public var depth: UInt8
  /// The name as it stands in the image.
  public var name: String

  public init(drive: UInt8, depth: UInt8, name: String) {
    self.drive = drive
    self.depth = depth
    self.name = name
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(drive)
    writer.put(depth)
    writer.put(name)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    drive = try reader.get("drive")
    depth = try reader.get("depth")
    name = try reader.getString("name", most: 1023)
  }
}

/// ``LaunchRequest/openOutput``.
public struct OutputRequest: Equatable, WireCodable {
  /// The path, as the operator gave it.
  public var path: String

  public init(path: String) { self.path = path }

  public func encode(to writer: inout WireWriter) { writer.put(path) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    path = try reader.getString("path", most: 4000)
  }
}

/// The reply to ``LaunchRequest/threads``.
public struct ThreadsReply: Equatable, WireCodable {
  /// One thread of the core.
  public struct Entry: Equatable, WireCodable {
    /// Its number on the host.
    public var id: UInt32
    public var name: String

    public init(id: UInt32, name: String) {
      self.id = id
      self.name = name
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(id)
      writer.put(name)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      id = try reader.get("number")
      name = try reader.getString("name", most: 31)
    }
  }

  public var threads: [Entry]

  public init(threads: [Entry]) { self.threads = threads }

  public func encode(to writer: inout WireWriter) { writer.put(threads) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    threads = try reader.getArray("threads", most: 300)
  }
}

/// The reply to ``LaunchRequest/processes``.
public struct ProcessesReply: Equatable, WireCodable, Sendable {
  /// One process of the machine.
  public struct Entry: Equatable, WireCodable, Sendable {
    /// The executable's name, such as `vmcore`.
    public var name: String
    /// Processor time so far, in nanoseconds.
    public var processorTime: UInt64
    /// Memory that it has in RAM, in bytes; shared memory counts whole.
    public var residentBytes: UInt64

    public init(name: String, processorTime: UInt64, residentBytes: UInt64) {
      self.name = name
      self.processorTime = processorTime
      self.residentBytes = residentBytes
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(name)
      writer.put(processorTime)
      writer.put(residentBytes)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      name = try reader.getString("name", most: 31)
      processorTime = try reader.get("processor time")
      residentBytes = try reader.get("resident memory")
    }
  }

  /// Lines of the machine's log that could not be written in time.
  public var lostLines: UInt64
  public var processes: [Entry]

  public init(lostLines: UInt64, processes: [Entry]) {
    self.lostLines = lostLines
    self.processes = processes
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(lostLines)
    writer.put(processes)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    lostLines = try reader.get("lost lines")
    processes = try reader.getArray("processes", most: 16)
  }
}
