// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import LinuxSystem
import Sandbox
import Testing

/// A launcher and a core for vmdev-piix: what the process sees of a machine.
final class PIIXMachine {
  let lane: CoreLane
  let clock: ClockWriter
  let log: Descriptor
  let bounce: Mapping
  /// What the device was granted for each line: event, and for a level line its end.
  let events: [Descriptor]
  /// What the device asked for, as it came.
  private(set) var moves: [MoveRegion] = []
  private(set) var routes: [[UInt8]] = []
  private(set) var power: [PowerRequest] = []
  private(set) var transfers: [DMARequest] = []
  /// The memory behind the fw_cfg window.
  private(set) var guest = [UInt8](repeating: 0xCC, count: 1 << 20)

  private let state: Descriptor
  private let bounceFile: Descriptor
  private var claims: Claims?
  private var process: ChildProcess?
  private var launcher: Channel?
  private var core: Channel?
  private var reply: Packet?
  private var head: UInt32 = 0
  private var sequence: UInt32 = 0

  private static let stateByteCount = StateLayoutInPage.byteCount(bulk: 0)
  private static let bounceByteCount = 256 << 10
  /// How long anything may take, in nanoseconds.
  private static let patience: UInt64 = 20_000_000_000
  /// 2000-02-29 23:59:58 UTC.
  static let unixSeconds: Int64 = 951_868_798

  struct TooLate: Error {}
  struct NoSuchPort: Error {}

  init() throws {
    lane = try CoreLane(name: "piix", slots: 1)
    clock = try ClockWriter()
    // O_TMPFILE and O_RDWR: a file without a name.
    log = try Descriptor.open("/tmp", 0o20200000 | 2)
    state = try MemoryFile.make("state", byteCount: Self.stateByteCount)
    bounceFile = try MemoryFile.make("bounce", byteCount: Self.bounceByteCount)
    bounce = try Mapping(bounceFile, byteCount: Self.bounceByteCount, .readWrite)
    events = try (0..<5).map { _ in try EventFile.make() }
  }

  deinit { try? kill() }

  /// Starts a process and does the handshake with it.
  @discardableResult
  func start(isRestart: Bool = false, console: Descriptor? = nil) throws -> Claims {
    let (launcher, childLauncher) = try PacketSocket.pair()
    let (core, childCore) = try PacketSocket.pair()
    let null = try Descriptor.open("/dev/null", 2)
    let errors = try Descriptor.open("/proc/self/fd/2", 1)
    process = try Sandbox.start(
      executable: Self.executable(), arguments: ["vmdev-piix"],
      descriptors: [
        (null, as: 0), (null, as: 1), (errors, as: 2), (childLauncher.descriptor, as: 3),
      ],
      profile: .piix, level: .relaxed, identity: .own)
    self.launcher = Channel(launcher)
    let channel = Channel(core)
    self.core = channel
    let settings = PIIXSettings(
      common: CommonSettings(machine: "test", isStrict: false), memoryByteCount: 64 << 20,
      cpus: 2, bootOrder: "dc", hasBootMenu: false, drives: [1, 0, 2, 0], serialPorts: 1,
      exitPort: 0x501, hasDebugConsole: true, unixSeconds: Self.unixSeconds)
    try Channel(launcher).send(
      LaunchRequest.setup.rawValue, sequence: 0, payload: settings.wireBytes,
      [childCore.descriptor, console ?? log])

    let hello = try channel.receive(timeout: Self.patience)
    #expect(try hello.decode(Hello.self).role == "piix")
    try channel.reply(to: hello.header, Hello(role: "core"))
    let claim = try channel.receive(timeout: Self.patience)
    let claims = try claim.decode(Claims.self)
    try channel.reply(
      to: claim.header,
      Grant(slots: 1, isRestart: isRestart, stateByteCount: UInt32(Self.stateByteCount)),
      [lane.file, clock.file, state, bounceFile] + events)
    let ready = try channel.receive(timeout: Self.patience)
    #expect(ready.header.request == Request.ready.rawValue)
    self.claims = claims
    return claims
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

  private static func executable() throws -> String {
    let tests = try Descriptor.open("/proc/self", 0).link("exe")
    return "/" + tests.split(separator: "/").dropLast().joined(separator: "/") + "/vmdev-piix"
  }

  // MARK: - What the device asks

  /// Does what the device asks, until `condition` holds.
  func serve(until condition: () throws -> Bool) throws {
    let end = HostClock.monotonic() + Self.patience
    while try !condition() {
      guard HostClock.monotonic() < end else { throw TooLate() }
      try serveOnce()
      lane.sleep(0, timeout: 500_000)
    }
  }

  private func serveOnce() throws {
    guard let core else { throw TooLate() }
    while let packet = try core.receive(wait: false) {
      guard !packet.header.flags.contains(.reply) else {
        reply = packet
        continue
      }
      switch Request(rawValue: packet.header.request) {
      case .moveRegion:
        moves.append(try packet.decode())
        try core.reply(to: packet.header, Empty())
      case .routePIRQ:
        routes.append(try packet.decode(PIRQRoutes.self).interrupts)
        try core.reply(to: packet.header, Empty())
      case .power:
        power.append(try packet.decode())
        try core.reply(to: packet.header, Empty())
      case .dma:
        let request: DMARequest = try packet.decode()
        transfers.append(request)
        if request.direction == .toGuest {
          let bytes = bounce.bytes(at: Int(request.bounceOffset), count: Int(request.byteCount))
          let start = Int(request.windowOffset)
          guest.replaceSubrange(start..<start + bytes.count, with: bytes)
        }
        try core.reply(to: packet.header, DMAReply(byteCount: request.byteCount))
      default: Issue.record("the device sent message \(packet.header.request)")
      }
    }
  }

  /// Sends a request to the device and waits for its reply.
  func ask<M: WireCodable>(_ request: Request, _ message: M) throws {
    guard let core else { throw TooLate() }
    sequence += 1
    try core.request(request, sequence: sequence, message)
    reply = nil
    try serve { reply != nil }
    let _: Empty? = try reply?.reply(to: request)
  }

  // MARK: - Accesses

  private func live(_ access: LaneAccess) throws -> UInt64 {
    sequence += 1
    lane.submit(access, slot: 0, sequence: sequence)
    try serve { lane.isAnswered(0) }
    return lane.take(0).value
  }

  private func post(_ access: LaneAccess) throws {
    try serve { lane.post(access, head: head) }
    head &+= 1
  }

  /// The region and the offset of a port, as the claims have it; movable ones by `moves`.
  private func place(_ port: UInt16) throws -> (region: UInt16, offset: UInt64) {
    for claim in claims?.ports ?? [] {
      var base: UInt16? = claim.base
      if claim.isMovable {
        base = moves.last { $0.region == claim.region }.flatMap { $0.isEnabled ? $0.base : nil }
      }
      if let base, port >= base, port - base < claim.count {
        return (claim.region, UInt64(port - base))
      }
    }
    throw NoSuchPort()
  }

  func out(_ port: UInt16, _ value: UInt64, _ width: AccessWidth = .byte) throws {
    let (region, offset) = try place(port)
    let access = LaneAccess(
      .write, width: width.rawValue, region: region, offset: offset, value: value)
    let isPosted = claims?.registers.contains {
      $0.region == region && $0.write == .posted && offset == UInt64($0.offset)
        && UInt32(width.rawValue) == $0.byteCount
    }
    if isPosted == true { try post(access) } else { _ = try live(access) }
  }

  func `in`(_ port: UInt16, _ width: AccessWidth = .byte) throws -> UInt64 {
    let (region, offset) = try place(port)
    return try live(LaneAccess(.read, width: width.rawValue, region: region, offset: offset))
  }

  /// Writes a register of a function's configuration space.
  func configure(_ devfn: UInt8, _ register: UInt64, _ value: UInt64, _ width: AccessWidth) throws {
    guard let region = claims?.functions.first(where: { $0.devfn == devfn })?.region else {
      throw NoSuchPort()
    }
    _ = try live(
      LaneAccess(.write, width: width.rawValue, region: region, offset: register, value: value))
  }

  /// Starts a fw_cfg transfer, with the block that the core would read from guest memory.
  func firmware(control: UInt32, byteCount: UInt32) throws {
    func bytes(_ value: UInt64, _ count: Int) -> [UInt8] {
      (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) }
    }
    let block = bytes(UInt64(control), 4) + bytes(UInt64(byteCount), 4) + bytes(0x10000, 8)
    let (region, offset) = try place(0x518)
    lane.blockMemory.copy(block, to: lane.blockOffset(0))
    _ = try live(
      LaneAccess(
        .write, width: 4, region: region, offset: offset, value: 0x1000,
        descriptorBytes: UInt32(block.count)))
  }

  /// Reads a register of the clock, as it stands in its memory.
  func clockRegister(_ index: UInt64) throws -> UInt64 {
    try out(0x70, index)
    return try `in`(0x71)
  }

  /// Whether the line was raised since the last call.
  func wasRaised(_ line: Int) -> Bool { EventFile.drain(events[line]) }

  func logged() throws -> String {
    String(decoding: try log.read(Int(log.size()), at: 0), as: UTF8.self)
  }
}
