// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import Monitor

/// Keys and the mouse, as `send-key` and `input-send-event` bring them.
struct InputEvents {
  let machine: any MachineAccess

  private static let mostEvents = 32

  /// Does `send-key`.
  func sendKeys(_ arguments: [String: JSONValue]) throws(CommandError) {
    var names: [String] = []
    for value in arguments["keys"]?.array ?? [] {
      if let name = try key(value) { names.append(name) }
    }
    guard names.count <= 16 else { throw CommandError("at most 16 keys are accepted") }
    guard !names.isEmpty else { return }
    let keys =
      names.map { InputRequest.Key(name: $0, isDown: true) }
      + names.reversed().map { InputRequest.Key(name: $0, isDown: false) }
    _ = try machine.ask(.input, InputRequest(keys: keys), as: Empty.self)
  }

  /// The name of a key; `nil` for a number that no key has, which does nothing, as with QEMU.
  private func key(_ value: JSONValue?) throws(CommandError) -> String? {
    guard let value, let data = value["data"] else { throw CommandError("a key without data") }
    if let name = data.string { return name }
    return data.integer.flatMap { Int(exactly: $0) }.flatMap { KeyStrokes.name(number: $0) }
  }

  private enum Step {
    case keys([InputRequest.Key])
    case pointer(PointerRequest)
  }

  /// Does `input-send-event`: the events in their order.
  func send(_ arguments: [String: JSONValue]) throws(CommandError) {
    // There is one screen, which no command names.
    if let device = arguments["device"]?.string {
      throw CommandError("Device '\(device)' not found", .deviceNotFound)
    }
    // A suspended machine is woken by them.
    guard try ["running", "suspended"].contains(machine.status().state) else {
      throw CommandError("VM not running")
    }
    let events = arguments["events"]?.array ?? []
    guard events.count <= Self.mostEvents else {
      throw CommandError("at most \(Self.mostEvents) events are accepted")
    }
    var steps: [Step] = []
    for event in events {
      let data = event["data"] ?? .null
      let isDown = data["down"]?.bool ?? false
      switch event["type"]?.string {
      case "key":
        guard let name = try key(data["key"]) else { continue }
        let key = InputRequest.Key(name: name, isDown: isDown)
        if case .keys(let before) = steps.last {
          steps[steps.count - 1] = .keys(before + [key])
        } else {
          steps.append(.keys([key]))
        }
      case "rel": add(try motion(data), to: &steps)
      case "btn":
        guard let request = try button(data["button"]?.string ?? "", isDown) else { continue }
        steps.append(.pointer(request))
      case let type:
        // As QEMU says it where no tablet is plugged in.
        throw CommandError("Input handler not found for event type \(type ?? "")")
      }
    }
    for step in steps {
      switch step {
      case .keys(let keys): _ = try machine.ask(.input, InputRequest(keys: keys), as: Empty.self)
      case .pointer(let request): try point(request)
      }
    }
  }

  func point(_ request: PointerRequest) throws(CommandError) {
    _ = try machine.ask(.pointer, request, as: Empty.self)
  }

  /// Joins motions that follow each other: the mouse reports them as one.
  private func add(_ motion: PointerRequest, to steps: inout [Step]) {
    if case .pointer(var last) = steps.last, last.pressed | last.released == 0, last.wheel == 0 {
      last.dx &+= motion.dx
      last.dy &+= motion.dy
      steps[steps.count - 1] = .pointer(last)
    } else {
      steps.append(.pointer(motion))
    }
  }

  private func motion(_ data: JSONValue) throws(CommandError) -> PointerRequest {
    guard let value = data["value"]?.integer, abs(value) <= 1 << 20 else {
      throw CommandError("a motion beyond 1048576 counts")
    }
    return data["axis"]?.string == "y"
      ? PointerRequest(dy: Int32(value)) : PointerRequest(dx: Int32(value))
  }

  /// What a button does; `nil` for the end of a turn of the wheel.
  private func button(_ name: String, _ isDown: Bool) throws(CommandError) -> PointerRequest? {
    if name == "wheel-up" || name == "wheel-down" {
      return isDown ? PointerRequest(wheel: name == "wheel-up" ? -1 : 1) : nil
    }
    guard let place = ["left", "right", "middle", "side", "extra"].firstIndex(of: name) else {
      throw CommandError("the mouse has no \(name)")
    }
    let mask = UInt8(1 << place)
    return isDown ? PointerRequest(pressed: mask) : PointerRequest(released: mask)
  }
}
