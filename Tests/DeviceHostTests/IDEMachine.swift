// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem

/// A machine with vmdev-ide.
final class IDEMachine: FakeMachine {
  /// What the guest's PRD table describes.
  var memory: [UInt8] = []
  private(set) var isWindowOpen = false
  /// What the launcher opens on request, by name.
  private var files: [String: Descriptor] = [:]

  init() throws {
    try super.init(role: "ide", bulk: 512 << 10)
    clock.start()
  }

  @discardableResult
  func start(
    drives: [IDESettings.Drive], images: [Descriptor], files: [String: Descriptor] = [:],
    isRestart: Bool = false, log: Descriptor? = nil
  ) throws -> Claims {
    self.files = files
    let settings = IDESettings(
      common: CommonSettings(machine: "test", isStrict: false), drives: drives)
    return try start(settings: settings.wireBytes, images, isRestart: isRestart, log: log)
  }

  override func serveLauncher(_ packet: Packet, _ launcher: Channel) throws(ChannelError) {
    guard let request = try? packet.decode(BackingRequest.self), let file = files[request.name]
    else { return try launcher.refuse(packet.header, "there is no such file") }
    try launcher.reply(to: packet.header, Empty(), [file])
  }

  override func serve(_ packet: Packet, _ core: Channel) throws {
    guard packet.header.request == Request.dma.rawValue else {
      return try super.serve(packet, core)
    }
    let request: DMARequest = try packet.decode()
    if request.direction == .close { isWindowOpen = false }
    try core.reply(to: packet.header, DMAReply(byteCount: copy(request) ?? 0))
  }

  override func copy(_ request: DMARequest) -> UInt32? {
    guard isWindowOpen, let bounce, request.windowOffset <= UInt64(memory.count) else { return nil }
    let offset = Int(request.windowOffset)
    let count = min(Int(request.byteCount), memory.count - offset)
    if request.direction == .toGuest {
      let bytes = bounce.bytes(at: Int(request.bounceOffset), count: count)
      memory.replaceSubrange(offset..<offset + count, with: bytes)
    } else {
      bounce.copy(Array(memory[offset..<offset + count]), to: Int(request.bounceOffset))
    }
    return UInt32(count)
  }

  // MARK: - Accesses

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
    return lane.blockMemory.bytes(at: lane.blockOffset(0), count: 2 * count)
  }

  func writeWords(_ region: UInt16, _ bytes: [UInt8]) throws {
    lane.blockMemory.copy(bytes, to: lane.blockOffset(0))
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
    isWindowOpen = true
    var content = WireWriter()
    content.put(UInt64(memory.count))
    content.put(UInt32(1))
    lane.blockMemory.copy(content.bytes, to: lane.blockOffset(0))
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
    isWindowOpen = false
    return status
  }
}
