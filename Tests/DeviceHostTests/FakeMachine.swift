// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import LinuxSystem
import Sandbox

struct TestFailure: Error, Equatable { var reason: String }

/// A launcher and a core for one device: what its process sees of a machine.
///
/// It stays when the process is replaced. What is granted follows from the claims.
class FakeMachine {
  let role: String
  let lane: CoreLane
  let clock: ClockWriter
  let state: Descriptor
  let stateByteCount: Int
  private(set) var claims: Claims?
  private(set) var bounce: Mapping?
  private(set) var backings: [Mapping] = []
  /// For each line its event, and after it, for a level line, its end.
  private(set) var events: [Descriptor] = []
  /// The bounce buffer and the backings, as they are granted.
  private var memories: [Descriptor] = []

  private(set) var process: ChildProcess?
  private(set) var launcher: Channel?
  private(set) var core: Channel?
  private var reply: Packet?
  private var head: UInt32 = 0
  private var sequence: UInt32 = 0

  /// How long anything may take, in nanoseconds.
  static let patience: UInt64 = 20_000_000_000

  init(role: String, bulk: Int = 0) throws {
    self.role = role
    stateByteCount = StateLayoutInPage.byteCount(bulk: bulk)
    lane = try CoreLane(name: role, slots: 1)
    clock = try ClockWriter()
    state = try MemoryFile.make("state", byteCount: stateByteCount)
  }

  deinit { try? kill() }

  // MARK: - Starting and ending

  /// Starts a device's program with its channel to the launcher, in namespaces or, which is
  /// faster, without.
  static func launch(_ role: String, log: Descriptor? = nil, hasNamespaces: Bool = true) throws
    -> (Channel, ChildProcess)
  {
    let tests = try Descriptor.open("/proc/self", 0).link("exe")
    let folder = "/" + tests.split(separator: "/").dropLast().joined(separator: "/")
    guard let profile = SandboxProfile.all.first(where: { $0.name == role }) else {
      throw TestFailure(reason: "no such role")
    }
    let (ours, theirs) = try PacketSocket.pair()
    let null = try Descriptor.open("/dev/null", 2)
    let descriptors: [(Descriptor, as: Int32)] = [
      (null, as: 0), (null, as: 1),
      (try log ?? Descriptor.open("/proc/self/fd/2", 1), as: 2), (theirs.descriptor, as: 3),
    ]
    let path = "\(folder)/vmdev-\(role)"
    let process =
      hasNamespaces
      ? try Sandbox.start(
        executable: path, arguments: ["vmdev-\(role)"], descriptors: descriptors,
        profile: profile, level: .relaxed, identity: .own)
      : try Spawn.start(
        executable: path, arguments: ["vmdev-\(role)"],
        environment: ["SWIFT_BACKTRACE=enable=no"], descriptors: descriptors, namespaces: [],
        identity: .own)
    return (Channel(ours), process)
  }

  /// Starts a process and does the handshake with it.
  @discardableResult
  func start(
    settings: [UInt8], _ descriptors: [Descriptor], isRestart: Bool = false,
    log: Descriptor? = nil
  ) throws -> Claims {
    let (launcher, process) = try Self.launch(role, log: log)
    let (core, deviceEnd) = try PacketSocket.pair()
    self.launcher = launcher
    self.process = process
    let channel = Channel(core)
    self.core = channel
    try launcher.send(
      LaunchRequest.setup.rawValue, sequence: 0, payload: settings,
      [deviceEnd.descriptor] + descriptors)
    let hello = try firstMessage(launcher, channel)
    guard try hello.decode(Hello.self).role == role else {
      throw TestFailure(reason: "the device has another role")
    }
    try channel.reply(to: hello.header, Hello(role: "core"))
    let claim = try channel.receive(timeout: Self.patience)
    let claims: Claims = try claim.decode()
    if self.claims == nil { try makeGrant(claims) }
    self.claims = claims
    try channel.reply(
      to: claim.header,
      Grant(slots: 1, isRestart: isRestart, stateByteCount: UInt32(stateByteCount)),
      [lane.file, clock.file, state] + memories + events)
    while true {
      let packet = try channel.receive(timeout: Self.patience)
      if packet.header.request == Request.ready.rawValue { return claims }
      try serve(packet, channel)
    }
  }

  /// Answers on the launcher's channel until the device turns to the core.
  private func firstMessage(_ launcher: Channel, _ core: Channel) throws -> Packet {
    while true {
      var poller = Poller()
      poller.add(launcher.socket.descriptor, .readable)
      poller.add(core.socket.descriptor, .readable)
      guard try poller.wait(timeout: Self.patience) > 0 else {
        throw TestFailure(reason: "the device does not start")
      }
      do throws(ChannelError) {
        if poller[1] != [], let packet = try core.receive(wait: false) { return packet }
        guard poller[0] != [], let packet = try launcher.receive(wait: false) else { continue }
        guard packet.header.request != LaunchRequest.report.rawValue else { continue }
        try serveLauncher(packet, launcher)
      } catch {
        let status = try process?.wait(timeout: Self.patience)
        throw TestFailure(reason: status.map { "\($0)" } ?? "it is still there")
      }
    }
  }

  private func makeGrant(_ claims: Claims) throws {
    func make(_ byteCount: UInt32) throws -> Mapping {
      let file = try MemoryFile.make("memory", byteCount: Int(byteCount))
      memories.append(file)
      return try Mapping(file, byteCount: Int(byteCount), .readWrite)
    }
    if claims.bounceByteCount > 0 { bounce = try make(claims.bounceByteCount) }
    for backing in claims.backings where backing.kind == .readWrite {
      backings.append(try make(backing.byteCount))
    }
    for line in claims.lines {
      events += try (0..<(line.isLevel ? 2 : 1)).map { _ in try EventFile.make() }
    }
  }

  /// Ends the process at whatever instruction it is.
  func kill() throws {
    guard let process else { return }
    try process.kill(9)
    _ = try process.wait(timeout: Self.patience)
    self.process = nil
    core = nil
    launcher = nil
  }

  /// Ends the process in an orderly way and returns how it ended.
  func quit() throws -> ChildProcess.Status? {
    try ask(.quit, Empty())
    let status = try process?.wait(timeout: Self.patience)
    process = nil
    return status
  }

  // MARK: - What the device asks

  /// Answers a request of the device to the launcher.
  func serveLauncher(_ packet: Packet, _ launcher: Channel) throws(ChannelError) {
    try launcher.refuse(packet.header, "there is no such thing here")
  }

  /// Answers a request of the device to the core.
  func serve(_ packet: Packet, _ core: Channel) throws {
    throw TestFailure(reason: "the device sent message \(packet.header.request)")
  }

  /// Does a copy that the device asks for, by a message or while a vCPU waits; `nil` where no
  /// window is open.
  func copy(_ request: DMARequest) -> UInt32? { nil }

  /// Copies that were asked for in the slot.
  private(set) var copyCount = 0

  private func serveCopy() throws {
    guard lane.isCopying(0) else { return }
    guard let request = lane.copy(0) else { throw TestFailure(reason: "a copy that is none") }
    copyCount += 1
    lane.endCopy(0, copy(request))
  }

  /// Does what the device has asked by now.
  func serveRequests() throws {
    try serveCopy()
    while let core, let packet = try core.receive(wait: false) {
      guard packet.header.flags.contains(.reply) else {
        try serve(packet, core)
        continue
      }
      // What comes behind the reply may be the channel's end.
      reply = packet
      return
    }
  }

  /// Does what the device asks, until `condition` holds.
  func serve(until condition: () throws -> Bool) throws {
    let end = HostClock.monotonic() + Self.patience
    while try !condition() {
      guard HostClock.monotonic() < end else { throw TestFailure(reason: "too late") }
      guard core != nil else { throw TestFailure(reason: "there is no process") }
      try serveRequests()
      if !lane.isAnswered(0) { lane.sleep(0, timeout: 500_000) }
    }
  }

  /// Sends a request to the device.
  func send<M: WireCodable>(_ request: Request, _ message: M, _ files: [Descriptor] = []) throws {
    guard let core else { throw TestFailure(reason: "there is no process") }
    sequence += 1
    try core.request(request, sequence: sequence, message, files)
    reply = nil
  }

  /// Sends a request to the device and waits for its reply.
  @discardableResult
  func ask<M: WireCodable, R: WireCodable>(
    _ request: Request, _ message: M, _ files: [Descriptor] = [], for type: R.Type = Empty.self
  ) throws -> R {
    try send(request, message, files)
    try serve { reply != nil }
    guard let reply else { throw TestFailure(reason: "no reply") }
    return try reply.reply(to: request)
  }

  // MARK: - Accesses

  /// Puts a live access into the slot.
  func submit(_ access: LaneAccess) {
    sequence += 1
    lane.submit(access, slot: 0, sequence: sequence)
  }

  /// Waits for the answer to what was submitted.
  @discardableResult
  func answer() throws -> UInt64 {
    try serve { lane.isAnswered(0) }
    return lane.take(0).value
  }

  func live(_ access: LaneAccess) throws -> UInt64 {
    submit(access)
    return try answer()
  }

  func post(_ access: LaneAccess) throws {
    if !lane.post(access, head: head) { try serve { lane.post(access, head: head) } }
    head &+= 1
  }

  /// A mirrored register's value; `nil` when the device must be asked.
  func mirrored(_ entry: Int) -> UInt32? { lane.mirrored(entry, head: head) }

  /// Whether every posted write is done.
  var isDrained: Bool { lane.isDrained(head: head) }
}
