// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol
public import LinuxSystem
public import Sandbox

/// A device process after its setup: locks itself down and serves its endpoint.
public struct DeviceServer {
  private let setup: DeviceProcess.Setup
  private let profile: SandboxProfile
  private let level: IsolationLevel
  private let bell: Bell
  /// For sources other than register accesses.
  public let watcher: Watcher
  /// For blocking work.
  public let workers: WorkerPool

  /// The doorbell, which the watcher rings before there is a lane.
  private final class Bell: Sendable {
    private let lane = OnceBox<DeviceLane>()
    func set(_ lane: DeviceLane) { self.lane.set(lane) }
    func ring() { lane.value?.wakeSelf() }
  }

  /// Locks the process down, starts its threads, and tells the launcher what was had.
  ///
  /// When strict isolation cannot be had, the process ends with exit code 3.
  ///
  /// The endpoint gets `workers` threads for blocking work.
  public init(
    _ setup: DeviceProcess.Setup, _ profile: SandboxProfile, _ common: CommonSettings,
    workers: Int = 0
  ) {
    self.setup = setup
    self.profile = profile
    level = common.isStrict ? .strict : .relaxed
    let bell = Bell()
    self.bell = bell
    var watcher: Watcher?
    var pool: WorkerPool?
    Lockdown.enter(profile, common, launcher: setup.launcher) { () throws(SystemError) in
      let new = try Watcher { bell.ring() }
      try new.start()
      watcher = new
      pool = try WorkerPool(workers)
    }
    guard let watcher, let pool else { DeviceProcess.end("the threads were not started") }
    self.watcher = watcher
    self.workers = pool
  }

  /// Serves until the core says to quit; never returns.
  public func serve<E: DeviceEndpoint>(
    _ endpoint: consuming E, role: String, claimDescriptors: [Descriptor] = []
  ) -> Never {
    var endpoint = endpoint
    let claims = endpoint.claims()
    do throws(ChannelError) {
      let (grant, services) = try handshake(role: role, claims, claimDescriptors)
      try endpoint.granted(services)
      var loop = ServiceLoop(services: services, slots: Int(grant.slots))
      if grant.isRestart {
        try loop.restore(&endpoint)
      } else {
        try loop.begin(&endpoint)
      }
      Lockdown.narrow(profile, level)
      try setup.core.request(.ready, Empty())
      loop.run(&endpoint)
    } catch {
      DeviceProcess.end("\(error)")
    }
  }

  private func handshake(role: String, _ claims: Claims, _ descriptors: [Descriptor])
    throws(ChannelError) -> (Grant, HostServices)
  {
    let core = setup.core
    try core.request(.hello, Hello(role: role))
    let hello: Hello = try core.receive(timeout: Self.patience).reply(to: .hello)
    guard hello.version == Hello.version else {
      throw .broken(ProtocolError("the core speaks version \(hello.version)"))
    }
    try core.request(.claim, claims, descriptors)
    let packet = try core.receive(timeout: Self.patience)
    let grant: Grant = try packet.reply(to: .claim)
    var given = packet.descriptors[...]
    func next() throws(ChannelError) -> Descriptor {
      guard let descriptor = given.popFirst() else {
        throw .broken(ProtocolError("the grant has too few descriptors"))
      }
      return descriptor
    }
    let lane = try DeviceLane(next(), slots: Int(grant.slots))
    bell.set(lane)
    let clock = try ClockReader(next())
    let page = try StatePage(next(), byteCount: Int(grant.stateByteCount))
    let bounce =
      claims.bounceByteCount == 0 ? nil : try Self.map(next(), Int(claims.bounceByteCount))
    var backings: [Mapping] = []
    for backing in claims.backings where backing.kind == .readWrite {
      backings.append(try Self.map(next(), Int(backing.byteCount)))
    }
    watcher.add(core.socket.descriptor, .readable)
    var lines: [HostServices.Line] = []
    for claim in claims.lines {
      let event = try next()
      let ended = claim.isLevel ? try next() : nil
      // A line that takes no more events must not hold the device up.
      for end in [event, ended] { try? end?.setNonBlocking(true) }
      let source = ended.map { watcher.add($0, .readable) } ?? 0
      lines.append(HostServices.Line(event: event, ended: ended, source: source))
    }
    let services = HostServices(
      channel: core, lane: lane, clock: clock, page: page, lines: lines, bounce: bounce,
      backings: backings, watcher: watcher)
    return (grant, services)
  }

  /// How long the core may take to answer during the handshake: other devices start, too.
  private static let patience: UInt64 = 30_000_000_000

  private static func map(_ file: Descriptor, _ byteCount: Int) throws(ChannelError) -> Mapping {
    guard MemoryFile.isSealed(file) else {
      throw .broken(ProtocolError("granted memory is not sealed"))
    }
    do throws(SystemError) {
      guard try file.size() >= UInt64(byteCount) else {
        throw SystemError("granted memory is too short", 0)
      }
      return try Mapping(file, byteCount: byteCount, .readWrite)
    } catch {
      throw .system(error)
    }
  }
}
