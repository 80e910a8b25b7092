// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import LinuxSystem

/// A machine with vmdev-piix.
final class PIIXMachine: FakeMachine {
  let log: Descriptor
  /// What the device asked for, as it came.
  private(set) var moves: [MoveRegion] = []
  private(set) var routes: [[UInt8]] = []
  private(set) var power: [PowerRequest] = []
  private(set) var transfers: [DMARequest] = []
  /// The memory behind the fw_cfg window.
  private(set) var guest = [UInt8](repeating: 0xCC, count: 1 << 20)

  /// 2000-02-29 23:59:58 UTC.
  static let unixSeconds: Int64 = 951_868_798

  struct NoSuchPort: Error {}

  init() throws {
    // O_TMPFILE and O_RDWR: a file without a name.
    log = try Descriptor.open("/tmp", 0o20200000 | 2)
    try super.init(role: "piix")
  }

  @discardableResult
  func start(isRestart: Bool = false, console: Descriptor? = nil) throws -> Claims {
    let settings = PIIXSettings(
      common: CommonSettings(machine: "test", isStrict: false), memoryByteCount: 64 << 20,
      cpus: 2, bootOrder: "dc", hasBootMenu: false, drives: [1, 0, 2, 0], serialPorts: 1,
      exitPort: 0x501, hasDebugConsole: true, unixSeconds: Self.unixSeconds)
    return try start(settings: settings.wireBytes, [console ?? log], isRestart: isRestart)
  }

  override func serve(_ packet: Packet, _ core: Channel) throws {
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
      try core.reply(to: packet.header, DMAReply(byteCount: copy(try packet.decode()) ?? 0))
    default: try super.serve(packet, core)
    }
  }

  override func copy(_ request: DMARequest) -> UInt32? {
    transfers.append(request)
    if request.direction == .toGuest, let bounce {
      let bytes = bounce.bytes(at: Int(request.bounceOffset), count: Int(request.byteCount))
      let start = Int(request.windowOffset)
      guest.replaceSubrange(start..<start + bytes.count, with: bytes)
    }
    return request.byteCount
  }

  // MARK: - Accesses

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
