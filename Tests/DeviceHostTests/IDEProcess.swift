// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem

struct TestFailure: Error, Equatable { var reason: String }

/// The real `vmdev-ide`, with this test as its launcher and its core.
final class IDEProcess {
  let launcher: Channel
  let core: Channel
  let process: ChildProcess
  let machine: FakeMachine
  private(set) var claims: Claims?

  /// What stays when the process is replaced.
  final class FakeMachine {
    let lane: CoreLane
    let clock: ClockWriter
    let statePage: Descriptor
    let stateByteCount = StateLayoutInPage.byteCount(bulk: 512 << 10)
    let bounceFile: Descriptor
    let bounce: Mapping
    let lines: [Descriptor]
    var sequence: UInt32 = 0
    var head: UInt32 = 0
    /// What the guest's PRD table describes.
    var memory: [UInt8] = []
    var isWindowOpen = false
    /// The number of DMA requests served.
    var transfers = 0

    init() throws {
      lane = try CoreLane(name: "ide", slots: 1)
      clock = try ClockWriter()
      clock.start()
      statePage = try MemoryFile.make("state", byteCount: stateByteCount)
      bounceFile = try MemoryFile.make("bounce", byteCount: 1 << 20)
      bounce = try Mapping(bounceFile, byteCount: 1 << 20, .readWrite)
      lines = [try EventFile.make(), try EventFile.make()]
    }
  }

  private static let standardError = Descriptor(owning: 2)

  static func folder() throws -> String {
    let tests = try Descriptor.open("/proc/self", 0).link("exe")
    return "/" + tests.split(separator: "/").dropLast().joined(separator: "/")
  }

  /// Starts a process on a machine; `backings` are opened by name on request.
  init(
    _ machine: FakeMachine, drives: [IDESettings.Drive], images: [Descriptor],
    backings: [String: Descriptor] = [:], isRestart: Bool = false, log: Descriptor? = nil
  ) throws {
    self.machine = machine
    (launcher, core, process) = try Self.start(drives, images, log ?? Self.standardError)
    do {
      try serveLauncher(backings)
    } catch is ChannelError {
      let status = try process.wait(timeout: Self.patience)
      throw TestFailure(reason: status.map { "\($0)" } ?? "it is still there")
    }
    try handshake(isRestart)
  }

  /// Starts the process; its ends of the channels are closed here when this returns.
  private static func start(
    _ drives: [IDESettings.Drive], _ images: [Descriptor], _ log: Descriptor
  ) throws -> (Channel, Channel, ChildProcess) {
    let (ours, theirs) = try PacketSocket.pair()
    let (coreEnd, deviceEnd) = try PacketSocket.pair()
    let null = try Descriptor.open("/dev/null", 2)
    let process = try Spawn.start(
      executable: try folder() + "/vmdev-ide", arguments: ["vmdev-ide"],
      environment: ["SWIFT_BACKTRACE=enable=no"],
      descriptors: [(null, as: 0), (null, as: 1), (log, as: 2), (theirs.descriptor, as: 3)],
      namespaces: [], identity: .own)
    let settings = IDESettings(
      common: CommonSettings(machine: "test", isStrict: false), drives: drives)
    let launcher = Channel(ours)
    try launcher.send(
      LaunchRequest.setup.rawValue, sequence: 0, payload: settings.wireBytes,
      [deviceEnd.descriptor] + images)
    return (launcher, Channel(coreEnd), process)
  }

  private static let patience: UInt64 = 20_000_000_000

  /// Answers on the launcher's channel until the device turns to the core.
  private func serveLauncher(_ backings: [String: Descriptor]) throws {
    var hasReport = false
    while true {
      var poller = Poller()
      poller.add(launcher.socket.descriptor, .readable)
      poller.add(core.socket.descriptor, .readable)
      guard try poller.wait(timeout: Self.patience) > 0 else {
        throw TestFailure(reason: "the device does not start")
      }
      guard poller[0] != [] else {
        guard hasReport else { throw TestFailure(reason: "no isolation report") }
        return
      }
      let packet = try launcher.receive(timeout: Self.patience)
      if packet.header.request == LaunchRequest.report.rawValue {
        hasReport = true
        continue
      }
      let request: BackingRequest = try packet.decode()
      guard let file = backings[request.name] else {
        try launcher.refuse(packet.header, "there is no such file")
        continue
      }
      try launcher.reply(to: packet.header, Empty(), [file])
    }
  }

  private func handshake(_ isRestart: Bool) throws {
    let hello = try core.receive(timeout: Self.patience)
    try core.reply(to: hello.header, Hello(role: "core"))
    let claim = try core.receive(timeout: Self.patience)
    claims = try claim.decode()
    try core.reply(
      to: claim.header,
      Grant(slots: 1, isRestart: isRestart, stateByteCount: UInt32(machine.stateByteCount)),
      [machine.lane.file, machine.clock.file, machine.statePage, machine.bounceFile]
        + machine.lines)
    while true {
      let packet = try core.receive(timeout: Self.patience)
      if packet.header.request == Request.ready.rawValue { return }
      try serve(packet)
    }
  }

  // MARK: - The core

  /// Serves what the device asks.
  func serveRequests() throws {
    while let packet = try core.receive(wait: false) { try serve(packet) }
  }

  private func serve(_ packet: Packet) throws {
    guard packet.header.request == Request.dma.rawValue else {
      throw TestFailure(reason: "unexpected request \(packet.header.request)")
    }
    let request: DMARequest = try packet.decode()
    var count = 0
    if request.direction == .close {
      machine.isWindowOpen = false
    } else if machine.isWindowOpen, request.windowOffset <= UInt64(machine.memory.count) {
      let offset = Int(request.windowOffset)
      count = min(Int(request.byteCount), machine.memory.count - offset)
      if request.direction == .toGuest {
        let bytes = machine.bounce.bytes(at: Int(request.bounceOffset), count: count)
        machine.memory.replaceSubrange(offset..<offset + count, with: bytes)
      } else {
        machine.bounce.copy(
          Array(machine.memory[offset..<offset + count]), to: Int(request.bounceOffset))
      }
      machine.transfers += 1
    }
    try core.reply(to: packet.header, DMAReply(byteCount: UInt32(count)))
  }

  func submit(_ access: LaneAccess) {
    machine.sequence += 1
    machine.lane.submit(access, slot: 0, sequence: machine.sequence)
  }

  /// Waits for the answer to what was submitted.
  func answer() throws -> UInt64 {
    let end = HostClock.monotonic() + Self.patience
    while !machine.lane.isAnswered(0) {
      try serveRequests()
      guard HostClock.monotonic() < end else { throw TestFailure(reason: "no answer") }
      HostClock.sleep(20_000)
    }
    return machine.lane.take(0).value
  }

  func read(_ region: UInt16, _ offset: UInt64) throws -> UInt8 {
    submit(LaneAccess(.read, width: 1, region: region, offset: offset))
    return UInt8(truncatingIfNeeded: try answer())
  }

  func write(_ value: UInt8, _ region: UInt16, _ offset: UInt64) throws {
    submit(LaneAccess(.write, width: 1, region: region, offset: offset, value: UInt64(value)))
    _ = try answer()
  }

  func readWords(_ region: UInt16, _ count: Int) throws -> [UInt8] {
    submit(LaneAccess(.readBlock, width: 2, region: region, offset: 0, items: UInt32(count)))
    _ = try answer()
    return machine.lane.blockMemory.bytes(at: machine.lane.blockOffset(0), count: 2 * count)
  }

  func writeWords(_ region: UInt16, _ bytes: [UInt8]) throws {
    machine.lane.blockMemory.copy(bytes, to: machine.lane.blockOffset(0))
    submit(
      LaneAccess(.writeBlock, width: 2, region: region, offset: 0, items: UInt32(bytes.count / 2)))
    _ = try answer()
  }

  /// Waits until BSY is clear and returns the status.
  func waitWhileBusy(_ region: UInt16 = 0) throws -> UInt8 {
    let end = HostClock.monotonic() + Self.patience
    while true {
      let status = try read(region, 7)
      if status & 0x80 == 0 { return status }
      try serveRequests()
      guard HostClock.monotonic() < end else { throw TestFailure(reason: "busy for ever") }
    }
  }

  /// Puts an LBA28 address and a count into the primary channel's master, and the command.
  func command(_ command: UInt8, sector: Int, count: Int) throws {
    try write(0xE0 | UInt8(sector >> 24 & 15), 0, 6)
    try write(UInt8(truncatingIfNeeded: count), 0, 2)
    for place in 0..<3 {
      try write(UInt8(truncatingIfNeeded: sector >> (8 * place)), 0, UInt64(3 + place))
    }
    try write(command, 0, 7)
  }

  /// Opens a window over the fake guest's memory and starts the bus master.
  func startBusMaster(toMemory: Bool) throws {
    machine.isWindowOpen = true
    var content = WireWriter()
    content.put(UInt64(machine.memory.count))
    content.put(UInt32(1))
    machine.lane.blockMemory.copy(content.bytes, to: machine.lane.blockOffset(0))
    submit(
      LaneAccess(
        .write, width: 1, region: 4, offset: 0, value: toMemory ? 9 : 1,
        descriptorBytes: UInt32(content.bytes.count), window: 0))
  }

  /// Waits for the end of a DMA command, stops the bus master and returns the status.
  func finishDMA() throws -> UInt8 {
    let status = try waitWhileBusy()
    try write(0, 4, 0)
    try write(6, 4, 2)
    machine.isWindowOpen = false
    return status
  }

  /// Ends the process as a crash would.
  func kill() throws {
    try process.kill()
    _ = try process.wait(timeout: Self.patience)
  }

  /// Ends the process in an orderly way and returns how it ended.
  func quit() throws -> ChildProcess.Status? {
    try core.request(.quit, sequence: 9, Empty())
    _ = try core.receive(timeout: Self.patience)
    return try process.wait(timeout: Self.patience)
  }
}
