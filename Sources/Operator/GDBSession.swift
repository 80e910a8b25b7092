// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
public import Monitor

/// One debugger's side of gdb's remote serial protocol.
///
/// It does no I/O of its own: bytes go in, and what is to be sent comes out. Threads are vCPUs,
/// counted from 1. The machine stands while the debugger thinks.
public struct GDBSession {
  let machine: any MachineAccess
  /// The vCPU that registers and memory are looked at through.
  var current = 0
  /// The vCPU that `s` and `c` without a thread mean.
  private var stepping = 0
  private var packet: [UInt8] = []
  private var state = State.idle
  private var sum: UInt8 = 0
  private var acknowledges = true
  private var isRunning = true
  var points: [DebugRequest.Point] = []
  /// Whether the debugger is done with the machine.
  public private(set) var hasDetached = false

  /// Whether addresses are physical ones, and no vCPU's page tables count.
  private var isPhysical = false

  private enum State { case idle, data, firstDigit, secondDigit }

  /// The longest packet that is taken.
  static let longest = 0x4000

  public init(_ machine: any MachineAccess) { self.machine = machine }

  /// Holds the machine for a debugger that has connected.
  public mutating func begin() {
    isRunning = false
    try? machine.order(.pause)
  }

  /// Lets the machine go on when the debugger has gone without a word.
  public mutating func end() {
    guard !hasDetached else { return }
    hasDetached = true
    try? detach()
  }

  // MARK: - Packets

  /// Takes what the debugger has sent; returns what it is to be sent.
  public mutating func take(_ bytes: [UInt8]) -> String {
    var answer = ""
    for byte in bytes {
      switch state {
      case .idle:
        if byte == 0x24 {
          state = .data
          packet = []
          sum = 0
        } else if byte == 0x03 {
          answer += interrupt()
        }
      case .data:
        if byte == 0x23 {
          state = .firstDigit
        } else if packet.count < Self.longest {
          packet.append(byte)
          sum &+= byte
        } else {
          state = .idle
        }
      case .firstDigit:
        state = .secondDigit
        sum ^= (Self.digit(byte) ?? 0) << 4
      case .secondDigit:
        state = .idle
        sum ^= Self.digit(byte) ?? 0
        guard sum == 0 || !acknowledges else {
          answer += "-"
          continue
        }
        if acknowledges { answer += "+" }
        if let reply = run(String(decoding: packet, as: UTF8.self)) {
          answer += Self.frame(reply)
        }
      }
    }
    return answer
  }

  static func frame(_ text: String) -> String {
    let sum = text.utf8.reduce(UInt8(0)) { $0 &+ $1 }
    return "$\(text)#\(hex(UInt64(sum), 2))"
  }

  private static func digit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 0x30...0x39: byte - 0x30
    case 0x61...0x66: byte - 0x61 + 10
    case 0x41...0x46: byte - 0x41 + 10
    default: nil
    }
  }

  /// The bytes of a text in hexadecimal digits; `nil` when it is none.
  static func bytes(_ text: Substring) -> [UInt8]? {
    let digits = text.utf8.map { digit($0) }
    guard digits.count % 2 == 0 else { return nil }
    var result: [UInt8] = []
    for at in stride(from: 0, to: digits.count, by: 2) {
      guard let high = digits[at], let low = digits[at + 1] else { return nil }
      result.append(high << 4 | low)
    }
    return result
  }

  static func text(_ bytes: [UInt8]) -> String { bytes.map { hex(UInt64($0), 2) }.joined() }

  // MARK: - Stops

  private mutating func interrupt() -> String {
    guard isRunning else { return "" }
    isRunning = false
    try? machine.order(.pause)
    return Self.frame("T02thread:\(thread(current));")
  }

  private func thread(_ cpu: Int) -> String { hex(UInt64(cpu + 1), 2) }

  /// What the debugger is sent of something that has happened.
  public mutating func event(_ event: EventMessage) -> String {
    switch event.kind {
    case .debug where isRunning:
      isRunning = false
      let words = event.detail.split(separator: " ")
      current = words.first.flatMap { Int($0) } ?? 0
      let kinds: [Substring] = ["watch", "rwatch", "awatch"]
      let reason =
        words.count == 3 && kinds.contains(words[1]) ? "\(words[1]):\(words[2]);" : ""
      return Self.frame("T05thread:\(thread(current));\(reason)")
    case .stop where isRunning && event.detail != "debug":
      isRunning = false
      return Self.frame("T02thread:\(thread(current));")
    case .shutdown:
      isRunning = false
      hasDetached = true
      return Self.frame("W00")
    default: return ""
    }
  }

  private mutating func resume(stepping cpu: Int?, alone: Int? = nil) -> String? {
    do throws(CommandError) {
      let steps = cpu.map { UInt16($0) } ?? DebugRequest.noStep
      let runs = alone.map { UInt16($0) } ?? DebugRequest.all
      _ = try machine.ask(
        .debug, DebugRequest(points: points, steps: steps, runs: runs), as: Empty.self)
      isRunning = true
      try machine.order(.resume)
      return nil
    } catch {
      isRunning = false
      return "E01"
    }
  }

  private func detach() throws(CommandError) {
    _ = try machine.ask(.debug, DebugRequest(), as: Empty.self)
    try machine.order(.resume)
  }

  // MARK: - Commands

  private mutating func run(_ text: String) -> String? {
    let rest = text.dropFirst()
    switch text.first {
    case "?": return "T05thread:\(thread(current));"
    case "g": return registers()
    case "G": return setRegisters(rest)
    case "p": return UInt64(rest, radix: 16).map { register(Int(clamping: $0)) } ?? "E01"
    case "P": return setRegister(rest)
    case "m": return memory(rest)
    case "M": return setMemory(rest)
    case "H": return choose(rest)
    case "T":
      guard let number = Int(rest, radix: 16), (1...count()).contains(number) else { return "E01" }
      return "OK"
    case "c": return resume(stepping: nil)
    case "s": return resume(stepping: stepping)
    case "v": return verbose(text)
    case "Z", "z": return point(rest, isSet: text.first == "Z")
    case "q", "Q": return query(text)
    case "D":
      hasDetached = true
      return (try? detach()) != nil ? "OK" : "E01"
    case "k":
      hasDetached = true
      try? machine.order(.stop)
      return nil
    default: return ""
    }
  }

  private func count() -> Int { (try? machine.status()).map { Int($0.cpus) } ?? 1 }

  /// Takes `g` or `c` and a thread: 0 and -1 mean any.
  private mutating func choose(_ rest: Substring) -> String {
    guard let number = Int(rest.dropFirst(), radix: 16), number <= count() else { return "E01" }
    guard number > 0 else { return "OK" }
    if rest.first == "g" { current = number - 1 } else { stepping = number - 1 }
    return "OK"
  }

  private mutating func verbose(_ text: String) -> String? {
    if text == "vCont?" { return "vCont;c;C;s;S" }
    guard text.hasPrefix("vCont;") else { return "" }
    // The first that steps decides. Where no other thread is told to go on, it runs alone.
    var steps: Int?
    var named: [Int] = []
    var isForAll = false
    for action in text.dropFirst(6).split(separator: ";") {
      let parts = action.split(separator: ":")
      let number = parts.count > 1 ? Int(parts[1], radix: 16) ?? -1 : -1
      if number > 0 { named.append(min(number, count()) - 1) } else { isForAll = true }
      guard steps == nil, parts.first?.first == "s" || parts.first?.first == "S" else { continue }
      steps = number > 0 ? min(number, count()) - 1 : stepping
    }
    let alone = !isForAll && named.count == 1 && count() > 1 ? named[0] : nil
    return resume(stepping: steps, alone: alone)
  }

  private mutating func query(_ text: String) -> String? {
    switch text {
    case "qC": return "QC\(thread(current))"
    case "qAttached": return "1"
    case "QStartNoAckMode":
      acknowledges = false
      return "OK"
    case "qfThreadInfo":
      return "m" + (0..<count()).map { thread($0) }.joined(separator: ",")
    case "qsThreadInfo": return "l"
    default: break
    }
    if text.hasPrefix("qSupported") {
      let size = String(Self.longest, radix: 16)
      return "PacketSize=\(size);qXfer:features:read+;QStartNoAckMode+;vContSupported+"
    }
    if text == "qqemu.PhyMemMode" { return isPhysical ? "1" : "0" }
    if text.hasPrefix("Qqemu.PhyMemMode:") {
      isPhysical = text.last == "1"
      return "OK"
    }
    if text.hasPrefix("qXfer:features:read:target.xml:") {
      return slice(GDBTarget.description, text.split(separator: ":").last ?? "")
    }
    if text.hasPrefix("qThreadExtraInfo,") {
      let number = text.split(separator: ",").last.flatMap { Int($0, radix: 16) } ?? 0
      let isHalted = (try? machine.vcpu(number - 1))?.isHalted ?? false
      return Self.text(Array("CPU#\(number - 1) [\(isHalted ? "halted" : "running")]".utf8))
    }
    if text.hasPrefix("qRcmd,") {
      guard let bytes = Self.bytes(text.dropFirst(6)) else { return "E01" }
      let human = HumanMonitor(machine)
      let answer =
        (try? human.run(String(decoding: bytes, as: UTF8.self), cpu: current)) ?? "it failed\n"
      guard !answer.isEmpty else { return "OK" }
      return Self.text(Array(answer.utf8.prefix(Self.longest / 2 - 8)))
    }
    return ""
  }

  private func slice(_ text: String, _ range: Substring) -> String {
    let numbers = range.split(separator: ",").compactMap { Int($0, radix: 16) }
    guard numbers.count == 2, numbers[0] >= 0, numbers[1] >= 0 else { return "E01" }
    let bytes = Array(text.utf8)
    let start = min(numbers[0], bytes.count)
    let end = min(start + min(numbers[1], Self.longest - 16), bytes.count)
    return (end < bytes.count ? "m" : "l") + String(decoding: bytes[start..<end], as: UTF8.self)
  }

  // MARK: - Memory and points

  private func numbers(_ text: Substring) -> (UInt64, Int)? {
    let parts = text.split(separator: ",")
    guard parts.count == 2, let address = UInt64(parts[0], radix: 16),
      let count = Int(parts[1], radix: 16), count >= 0
    else { return nil }
    return (address, count)
  }

  private func memory(_ rest: Substring) -> String {
    guard let (address, count) = numbers(rest), let cpu = try? machine.vcpu(current) else {
      return "E01"
    }
    func read(_ count: Int) -> [UInt8]? {
      isPhysical ? machine.physical(address, count) : machine.linear(address, count, cpu)
    }
    let most = min(count, Self.longest / 2 - 8)
    if let bytes = read(most) { return Self.text(bytes) }
    // As much as there is, up to the end of a page.
    guard let bytes = read(min(most, 4096 - Int(address & 0xFFF))) else { return "E14" }
    return Self.text(bytes)
  }

  private func setMemory(_ rest: Substring) -> String {
    let parts = rest.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2, let (address, count) = numbers(parts[0]),
      let bytes = Self.bytes(parts[1]), bytes.count == count,
      let cpu = try? machine.vcpu(current)
    else { return "E01" }
    var done = 0
    while done < count {
      let at = address &+ UInt64(done)
      let piece = min(count - done, 4096 - Int(at & 0xFFF))
      guard let place = isPhysical ? at : machine.translate(at, cpu) else { return "E14" }
      let request = MemoryBytes(address: place, bytes: Array(bytes[done..<done + piece]))
      guard (try? machine.ask(.writeMemory, request, as: Empty.self)) != nil else { return "E14" }
      done += piece
    }
    return "OK"
  }

  /// Takes `TYPE,ADDRESS,KIND`; software and hardware breakpoints are the same here.
  private mutating func point(_ rest: Substring, isSet: Bool) -> String {
    let parts = rest.split(separator: ",")
    guard parts.count >= 3, let address = UInt64(parts[1], radix: 16),
      let kind = UInt8(parts[2].prefix { $0 != ";" }, radix: 16)
    else { return "E01" }
    let isKVM = (try? machine.status().accelerator.hasPrefix("kvm")) ?? false
    let known: DebugRequest.Point.Kind
    switch parts[0] {
    case "0", "1": known = .execution
    case "2": known = .write
    // A processor's debug registers cannot tell reads alone.
    case "3" where !isKVM: known = .read
    case "4": known = .access
    default: return ""
    }
    points.removeAll { $0.kind == known && $0.address == address }
    guard isSet else { return "OK" }
    if known == .execution {
      points.append(DebugRequest.Point(.execution, address: address))
    } else {
      guard (1...8).contains(kind), let cpu = try? machine.vcpu(current),
        let place = machine.translate(address, cpu)
      else { return "E14" }
      if isKVM, kind & (kind - 1) != 0 || address & UInt64(kind - 1) != 0 { return "E16" }
      points.append(
        DebugRequest.Point(known, address: address, physical: place, byteCount: kind))
    }
    guard points.count <= (isKVM ? 4 : 64) else {
      points.removeLast()
      return "E01"
    }
    return "OK"
  }
}
