// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import TestSupport
import Testing

/// The devices that a hostile core is set on.
enum Role: String, CaseIterable, Sendable {
  case serial
  case ide
  case vga
  case piix

  /// Settings that the device starts with.
  var settings: [UInt8] {
    let common = CommonSettings(machine: "test", isStrict: false)
    switch self {
    case .serial:
      return SerialSettings(
        common: common,
        ports: [
          SerialSettings.Port(backend: .file), SerialSettings.Port(backend: .null),
        ]
      ).wireBytes
    case .ide:
      return IDESettings(
        common: common,
        drives: [
          IDESettings.Drive(
            slot: 0, format: .raw, isCDROM: false, isReadOnly: false, serial: "BH1"),
          IDESettings.Drive(slot: 2, format: .raw, isCDROM: true, isReadOnly: true, serial: ""),
        ]
      ).wireBytes
    case .vga: return VGASettings(common: common, videoByteCount: 1 << 20).wireBytes
    case .piix:
      return PIIXSettings(
        common: common, memoryByteCount: 64 << 20, cpus: 2, bootOrder: "dc", hasBootMenu: false,
        drives: [1, 0, 2, 0], serialPorts: 1, exitPort: 0x501, hasDebugConsole: true,
        unixSeconds: 951_868_798
      ).wireBytes
    }
  }

  /// The descriptors that belong to ``settings``.
  func descriptors() throws -> [Descriptor] {
    let files = try (0..<2).map { _ in try temporaryFile() }
    for file in files { try file.truncate(to: 1 << 20) }
    switch self {
    case .serial, .vga, .piix: return [files[0]]
    case .ide: return files
    }
  }

  /// A register that can be read at any time without a consequence.
  var register: LaneAccess {
    switch self {
    case .serial: LaneAccess(.read, width: 1, region: 0, offset: 7)
    case .ide: LaneAccess(.read, width: 1, region: 1, offset: 0)
    case .vga: LaneAccess(.read, width: 1, region: 0, offset: 0x1C)
    case .piix: LaneAccess(.read, width: 1, region: 0, offset: 0)
    }
  }
}

/// A file without a name.
func temporaryFile() throws -> Descriptor { try Descriptor.open("/tmp", 0o20200000 | 2) }

/// A device process in the hands of a core that means it no good.
final class Victim {
  let role: Role
  let process: ChildProcess
  private let log: Descriptor
  private var launcher: Channel?
  private(set) var core: Channel?
  let lane: CoreLane
  let clock: Descriptor
  let state: Descriptor
  private(set) var claims = Claims()
  private var sequence: UInt32 = 100

  /// How long a process may take to answer or to end, in nanoseconds.
  static let patience: UInt64 = 10_000_000_000
  static let stateByteCount = StateLayoutInPage.byteCount(bulk: 512 << 10)

  /// Starts a process with this as its setup's packet, or the right one.
  init(_ role: Role, setup: [UInt8]? = nil) throws {
    self.role = role
    log = try temporaryFile()
    lane = try CoreLane(name: "lane", slots: 2)
    clock = try MemoryFile.make("clock", byteCount: ClockLayout.byteCount)
    state = try MemoryFile.make("state", byteCount: Self.stateByteCount)
    let (core, deviceEnd) = try PacketSocket.pair()
    self.core = Channel(core)
    let (launcher, process) = try FakeMachine.launch(
      role.rawValue, log: log, hasNamespaces: false)
    self.launcher = launcher
    self.process = process
    try? launcher.socket.send(
      setup ?? Self.setup(role), [deviceEnd.descriptor] + role.descriptors())
  }

  deinit { try? process.kill() }

  static func setup(_ role: Role) -> [UInt8] {
    message(LaunchRequest.setup.rawValue, [], role.settings)
  }

  static func message(
    _ request: UInt32, _ flags: Header.Flags = [], sequence: UInt32 = 0, _ payload: [UInt8] = []
  ) -> [UInt8] {
    Header(
      request: request, flags: flags, sequence: sequence, size: UInt32(payload.count)
    ).wireBytes + payload
  }

  // MARK: - The way to a served device

  /// Takes the device's next message; `nil` when the process ends instead.
  func next() throws -> Packet? {
    let end = HostClock.monotonic() + Self.patience
    while HostClock.monotonic() < end {
      do throws(ChannelError) {
        if let packet = try core?.receive(wait: false) {
          guard packet.header.request >= Request.dma.rawValue else { return packet }
          // A restored device may have something to ask before it is ready.
          answer(packet, transferred: 0)
          continue
        }
      } catch {
        return nil
      }
      if try process.status(remembered: &ended) != nil { return nil }
      HostClock.sleep(200_000)
    }
    Issue.record("\(role): neither a message nor an end")
    return nil
  }

  /// Sends a packet as it is.
  func send(_ bytes: [UInt8], _ files: [Descriptor] = []) {
    try? core?.socket.send(bytes, files, wait: false)
  }

  /// Takes the hello and answers it, with this or the right reply.
  func greet(_ reply: [UInt8]? = nil) throws {
    guard try next() != nil else { return }
    send(reply ?? Self.hello)
  }

  static let hello = message(
    Request.hello.rawValue, .reply, Hello(role: "core").wireBytes)
  static let grant = message(
    Request.claim.rawValue, .reply,
    Grant(slots: 2, isRestart: false, stateByteCount: UInt32(stateByteCount)).wireBytes)

  /// Takes the claims; returns the descriptors that belong to them.
  func takeClaims() throws -> [Descriptor] {
    guard let packet = try next() else { return [] }
    claims = try packet.decode()
    var files = [lane.file, clock, state]
    if claims.bounceByteCount > 0 {
      files.append(try MemoryFile.make("bounce", byteCount: Int(claims.bounceByteCount)))
    }
    for backing in claims.backings where backing.kind == .readWrite {
      files.append(try MemoryFile.make("backing", byteCount: Int(backing.byteCount)))
    }
    for line in claims.lines {
      files += try (0..<(line.isLevel ? 2 : 1)).map { _ in try EventFile.make() }
    }
    return files
  }

  /// Brings the device to where it serves.
  func serve() throws {
    try greet()
    send(Self.grant, try takeClaims())
    #expect(try next()?.header.request == Request.ready.rawValue)
  }

  /// Answers what the device asks of its core.
  private func answer(_ packet: Packet, transferred count: UInt32) {
    guard !packet.header.flags.contains(.reply) else { return }
    if packet.header.request == Request.dma.rawValue {
      try? core?.reply(to: packet.header, DMAReply(byteCount: count))
    } else {
      try? core?.reply(to: packet.header, Empty())
    }
  }

  // MARK: - Judging

  private var ended: ChildProcess.Status?

  /// Takes an access to its answer, serving what the device asks; whether there was one.
  ///
  /// `count` is what a transfer's reply says.
  func isAnswered(_ access: LaneAccess, slot: Int = 0, transferred count: UInt32 = 0) throws
    -> Bool
  {
    sequence += 1
    lane.submit(access, slot: slot, sequence: sequence)
    return try awaitAnswer(slot, transferred: count)
  }

  func awaitAnswer(_ slot: Int, transferred count: UInt32 = 0) throws -> Bool {
    let end = HostClock.monotonic() + Self.patience
    while HostClock.monotonic() < end {
      if lane.isAnswered(slot) {
        _ = lane.take(slot)
        return true
      }
      while let packet = try? core?.receive(wait: false) {
        answer(packet, transferred: count)
      }
      if lane.isCopying(slot) { lane.endCopy(slot, count) }
      if try process.status(remembered: &ended) != nil { return false }
      lane.sleep(slot, timeout: 300_000)
    }
    Issue.record("\(role): neither an answer nor an end")
    return false
  }

  /// Takes a request to its reply, serving what the device asks; whether there was one.
  func isObeyed() throws -> Bool {
    let end = HostClock.monotonic() + Self.patience
    while HostClock.monotonic() < end {
      while let packet = try? core?.receive(wait: false) {
        if packet.header.flags.contains(.reply) { return true }
        answer(packet, transferred: 0)
      }
      if try process.status(remembered: &ended) != nil { return false }
      HostClock.sleep(20_000)
    }
    Issue.record("\(role): neither a reply nor an end")
    return false
  }

  /// Whether the device still answers as it should.
  func isSane() throws -> Bool { try isAnswered(role.register, slot: 1) }

  /// Closes the channels and checks how the process ends.
  ///
  /// A device that ends by itself does so with code 1 and one line; one whose core has gone
  /// may do so with 0.
  func judge(_ what: String, codes: Set<Int32> = [0, 1]) throws {
    core = nil
    launcher = nil
    let end = HostClock.monotonic() + Self.patience
    while try process.status(remembered: &ended) == nil, HostClock.monotonic() < end {
      HostClock.sleep(300_000)
    }
    let text = String(decoding: try log.read(4096, at: 0), as: UTF8.self)
    switch ended {
    case nil: Issue.record("\(role), \(what): it does not end")
    case .exited(let code)?:
      #expect(codes.contains(code), "\(role), \(what): exit code \(code): \(text)")
      if code == 1 {
        #expect(text.hasSuffix("\n") && text.utf8.count > 1, "\(role), \(what): no reason")
      }
    case .signalled(let signal)?:
      Issue.record("\(role), \(what): ended by signal \(signal): \(text)")
    }
  }

  /// The process's resident memory in pages.
  func residentPages() throws -> Int {
    let text = try Descriptor.open("/proc/\(process.pid)/statm", 0).read(200)
    let fields = String(decoding: text, as: UTF8.self).split(separator: " ")
    return fields.count > 1 ? Int(fields[1]) ?? 0 : 0
  }
}

extension ChildProcess {
  /// The status, which can be taken only once.
  fileprivate func status(remembered: inout Status?) throws -> Status? {
    if remembered == nil { remembered = try status() }
    return remembered
  }
}

/// Numbers that look random and are the same every time (xorshift).
struct Dice: RandomNumberGenerator {
  private var value: UInt64

  init(_ seed: UInt64) { value = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }

  mutating func next() -> UInt64 {
    value ^= value << 13
    value ^= value >> 7
    value ^= value << 17
    return value
  }

  /// Some of the mutations of a message.
  mutating func mutations(of message: [UInt8], _ count: Int) -> [Mutator.Mutation] {
    let all = [true, false].flatMap { Mutator.mutations(of: message, keepsSize: $0) }
    return Array(all.shuffled(using: &self).prefix(count))
  }
}
