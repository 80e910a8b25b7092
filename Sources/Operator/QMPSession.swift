// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
public import Monitor

/// One QMP client's side of the conversation: greeting, capabilities, commands, events.
///
/// It does no I/O of its own: bytes go in, and what is to be sent comes out.
public struct QMPSession {
  private let commands: QMPCommands
  private var splitter = MessageSplitter()
  /// Whether the client has finished the greeting.
  public private(set) var hasNegotiated = false

  public init(_ commands: QMPCommands) { self.commands = commands }

  /// What a client is sent first.
  public var greeting: String {
    let value: JSONValue = [
      "QMP": ["version": QMPCommands.version, "capabilities": []]
    ]
    return value.text + "\r\n"
  }

  /// Takes what the client has sent; returns what it is to be sent.
  public mutating func take(_ bytes: [UInt8]) -> String {
    var pieces: [MessageSplitter.Piece] = []
    splitter.add(bytes) { pieces.append($0) }
    var answer = ""
    for piece in pieces {
      switch piece {
      case .refused(let reason):
        answer += Self.failure(CommandError("JSON parse error, \(reason)"), nil)
      case .text(let text): answer += self.answer(text)
      }
    }
    return answer
  }

  /// What the client is sent of something that has happened.
  public func event(_ event: EventMessage, nanoseconds: UInt64) -> String {
    guard hasNegotiated, let text = Self.event(event, commands.machine) else {
      return ""
    }
    var members: [String: JSONValue] = [
      "event": .string(text.name),
      "timestamp": [
        "seconds": .integer(Int64(nanoseconds / 1_000_000_000)),
        "microseconds": .integer(Int64(nanoseconds % 1_000_000_000 / 1000)),
      ],
    ]
    if let data = text.data { members["data"] = data }
    return JSONValue.object(members).text + "\r\n"
  }

  /// The names of all events, as the schema has them.
  static let eventNames = QMPSchema.own?.events ?? []

  /// QMP's name of an event; `nil` where clients are told of none.
  public static func name(of kind: EventMessage.Kind) -> String? {
    switch kind {
    case .resume: "RESUME"
    case .stop: "STOP"
    case .reset: "RESET"
    case .shutdown: "SHUTDOWN"
    case .powerdown: "POWERDOWN"
    case .suspend: "SUSPEND"
    case .wakeup: "WAKEUP"
    case .deviceRestarted: "__org.bulkhead_DEVICE_RESTARTED"
    case .deviceFault: "__org.bulkhead_DEVICE_FAULT"
    case .hostError: "BLOCK_IO_ERROR"
    case .trayMoved: "DEVICE_TRAY_MOVED"
    case .panicked: "GUEST_PANICKED"
    case .crashLoaded: "GUEST_CRASHLOADED"
    case .job: "JOB_STATUS_CHANGE"
    case .debug, .snapshotEnded: nil
    }
  }

  private static func event(
    _ event: EventMessage, _ machine: any MachineAccess
  ) -> (name: String, data: JSONValue?)? {
    let words = event.detail.split(separator: " ", maxSplits: 4).map(String.init)
    let slot = words.first.flatMap { UInt8($0) } ?? 0
    let drive =
      machine.settings.drives.first { $0.slot == slot }.map { QMPCommands.name($0) } ?? ""
    guard let name = Self.name(of: event.kind) else { return nil }
    let guest = JSONValue.bool(event.byGuest)
    switch event.kind {
    case .resume, .stop, .powerdown, .suspend, .wakeup: return (name, nil)
    case .reset:
      let reason: JSONValue = event.byGuest ? "guest-reset" : "host-qmp-system-reset"
      return (name, ["guest": guest, "reason": reason])
    case .shutdown:
      let reason: JSONValue =
        !event.byGuest
        ? "host-qmp-quit"
        : event.detail == "the guest has panicked" ? "guest-panic" : "guest-shutdown"
      return (name, ["guest": guest, "reason": reason])
    case .deviceRestarted: return (name, ["role": .string(event.detail)])
    case .deviceFault: return (name, ["reason": .string(event.detail)])
    case .hostError:
      guard words.count >= 4 else { return nil }
      var data: [String: JSONValue] = [
        "device": .string(drive), "operation": words[1] == "1" ? "write" : "read",
        "action": .string(words[2] == "hold" ? "stop" : words[2]),
        "reason": .string(words.count > 4 ? VisibleText.escape(words[4]) : ""),
      ]
      // QEMU says so only where it stops for it.
      if words[2] == "hold" { data["nospace"] = .bool(words[3] == "1") }
      return (name, .object(data))
    case .trayMoved:
      guard words.count == 2 else { return nil }
      let path = QOMTree.path(ofDrive: slot, machine)
      return (
        name,
        [
          "device": .string(drive), "id": .string(path), "tray-open": .bool(words[1] == "1"),
        ]
      )
    case .panicked:
      return (name, ["action": .string(event.detail == "stop" ? "poweroff" : event.detail)])
    case .crashLoaded: return (name, ["action": "run"])
    case .job:
      let (status, id) = JobList.words(event.detail)
      return (name, ["status": .string(status), "id": .string(id)])
    case .debug, .snapshotEnded: return nil
    }
  }

  // MARK: - Commands

  private mutating func answer(_ bytes: [UInt8]) -> String {
    guard let message = JSONValue(parsing: bytes) else {
      return Self.failure(CommandError("JSON parse error, invalid text"), nil)
    }
    guard let members = message.object else {
      return Self.failure(CommandError("QMP input must be a JSON object"), nil)
    }
    let id = members["id"]
    do throws(CommandError) {
      let value = try run(members)
      return Self.line(["return": value], id)
    } catch {
      return Self.failure(error, id)
    }
  }

  private mutating func run(_ members: [String: JSONValue]) throws(CommandError) -> JSONValue {
    for key in members.keys.sorted() where !["execute", "arguments", "id"].contains(key) {
      throw CommandError("QMP input member '\(key)' is unexpected")
    }
    guard let name = members["execute"] else {
      throw CommandError("QMP input lacks member 'execute'")
    }
    guard let name = name.string else {
      throw CommandError("QMP input member 'execute' must be a string")
    }
    let arguments = members["arguments"] ?? [:]
    guard let arguments = arguments.object else {
      throw CommandError("QMP input member 'arguments' must be an object")
    }
    if !hasNegotiated {
      guard name == "qmp_capabilities" else {
        throw CommandError(
          "Expecting capabilities negotiation with 'qmp_capabilities'", .commandNotFound)
      }
      try commands.schema.check(arguments, of: name)
      guard arguments["enable"]?.array?.isEmpty ?? true else {
        throw CommandError("Capability oob not available")
      }
      hasNegotiated = true
      return [:]
    }
    guard name != "qmp_capabilities" else {
      throw CommandError(
        "Capabilities negotiation is already complete, command ignored", .commandNotFound)
    }
    return try commands.run(name, arguments)
  }

  private static func line(_ members: [String: JSONValue], _ id: JSONValue?) -> String {
    var members = members
    if let id { members["id"] = id }
    return JSONValue.object(members).text + "\r\n"
  }

  private static func failure(_ error: CommandError, _ id: JSONValue?) -> String {
    line(
      [
        "error": [
          "class": .string(error.errorClass.rawValue), "desc": .string(error.description),
        ]
      ], id)
  }
}
