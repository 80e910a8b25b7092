// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import LinuxSystem
import Sandbox
import Testing

/// A launcher and a core for vmdev-vga: what the process sees of a machine.
final class VGAMachine {
  let lane: CoreLane
  let clock: ClockWriter
  let state: Descriptor
  let video: Mapping
  private let videoFile: Descriptor
  private let firmware: Descriptor
  private var process: ChildProcess?
  private var launcher: Channel?
  private var core: Channel?
  private var head: UInt32 = 0
  private var sequence: UInt32 = 0

  private static let stateByteCount = StateLayoutInPage.byteCount(bulk: 0)
  /// How long anything may take, in nanoseconds.
  private static let patience: UInt64 = 20_000_000_000

  struct TooLate: Error {}

  init() throws {
    lane = try CoreLane(name: "vga", slots: 1)
    clock = try ClockWriter()
    state = try MemoryFile.make("state", byteCount: Self.stateByteCount)
    videoFile = try MemoryFile.make("video", byteCount: 1 << 20)
    video = try Mapping(videoFile, byteCount: 1 << 20, .readWrite)
    firmware = try MemoryFile.make("bios", byteCount: 39936)
  }

  deinit { try? kill() }

  /// Starts a process and does the handshake with it.
  func start(isRestart: Bool) throws -> Claims {
    let (launcher, childLauncher) = try PacketSocket.pair()
    let (core, childCore) = try PacketSocket.pair()
    let null = try Descriptor.open("/dev/null", 2)
    let log = try Descriptor.open("/proc/self/fd/2", 1)
    process = try Sandbox.start(
      executable: Self.executable(), arguments: ["vmdev-vga"],
      descriptors: [
        (null, as: 0), (null, as: 1), (log, as: 2), (childLauncher.descriptor, as: 3),
      ],
      profile: .vga, level: .relaxed, identity: .own)
    self.launcher = Channel(launcher)
    let channel = Channel(core)
    self.core = channel
    let settings = VGASettings(
      common: CommonSettings(machine: "test", isStrict: false), videoByteCount: 1 << 20)
    try Channel(launcher).send(
      LaunchRequest.setup.rawValue, sequence: 0, payload: settings.wireBytes,
      [childCore.descriptor, firmware])

    let hello = try channel.receive(timeout: Self.patience)
    #expect(try hello.decode(Hello.self).role == "vga")
    try channel.reply(to: hello.header, Hello(role: "core"))
    let claim = try channel.receive(timeout: Self.patience)
    let claims = try claim.decode(Claims.self)
    #expect(claim.descriptors.count == 1)
    try channel.reply(
      to: claim.header,
      Grant(slots: 1, isRestart: isRestart, stateByteCount: UInt32(Self.stateByteCount)),
      [lane.file, clock.file, state, videoFile])
    let ready = try channel.receive(timeout: Self.patience)
    #expect(ready.header.request == Request.ready.rawValue)
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
    return "/" + tests.split(separator: "/").dropLast().joined(separator: "/") + "/vmdev-vga"
  }

  // MARK: - Accesses

  private func live(_ access: LaneAccess) throws -> UInt64 {
    sequence += 1
    lane.submit(access, slot: 0, sequence: sequence)
    let end = HostClock.monotonic() + Self.patience
    while !lane.isAnswered(0) {
      guard HostClock.monotonic() < end else { throw TooLate() }
      lane.sleep(0, timeout: 100_000_000)
    }
    return lane.take(0).value
  }

  private func post(_ access: LaneAccess) throws {
    let end = HostClock.monotonic() + Self.patience
    while !lane.post(access, head: head) {
      guard HostClock.monotonic() < end else { throw TooLate() }
    }
    head &+= 1
  }

  private func place(_ port: UInt16) -> (region: UInt16, offset: UInt64) {
    port < 0x3B0 ? (1, UInt64(port - 0x1CE)) : (0, UInt64(port - 0x3B0))
  }

  func out(_ port: UInt16, _ value: UInt64, _ width: AccessWidth = .byte) throws {
    let (region, offset) = place(port)
    let access = LaneAccess(
      .write, width: width.rawValue, region: region, offset: offset, value: value)
    if port == 0x1CF { _ = try live(access) } else { try post(access) }
  }

  func `in`(_ port: UInt16, _ width: AccessWidth = .byte) throws -> UInt64 {
    let (region, offset) = place(port)
    return try live(LaneAccess(.read, width: width.rawValue, region: region, offset: offset))
  }

  /// Writes a byte through the legacy window.
  func put(_ address: UInt64, _ value: UInt8) throws {
    try post(
      LaneAccess(.write, width: 1, region: 2, offset: address - 0xA0000, value: UInt64(value)))
  }

  private func set(_ port: UInt16, _ index: Int, _ value: UInt8) throws {
    try out(port, UInt64(value) << 8 | UInt64(index), .word)
  }

  // MARK: - The screen

  /// Sets mode 3 up, with a font whose rows are the character's code, and writes a word.
  func showHello() throws {
    try out(0x3C2, 0x67)
    for (index, value) in ([3, 0, 3, 0, 2] as [UInt8]).enumerated() {
      try set(0x3C4, index, value)
    }
    let crtc: [UInt8] = [
      0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x20, 0x0E, 0x00, 0x00, 0x00,
      0x00, 0x9C, 0x0E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF,
    ]
    for (index, value) in crtc.enumerated() { try set(0x3D4, index, value) }
    for (index, value) in ([0, 0, 0, 0, 0, 0x10, 0x0E, 0, 0xFF] as [UInt8]).enumerated() {
      try set(0x3CE, index, value)
    }
    _ = try `in`(0x3DA)
    let attributes: [UInt8] = Array(0...15) + [0x0C, 0, 0x0F, 0x08, 0]
    for (index, value) in attributes.enumerated() {
      try out(0x3C0, UInt64(index))
      try out(0x3C0, UInt64(value))
    }
    try out(0x3C0, 0x20)
    try out(0x3C8, 7)
    for _ in 0..<3 { try out(0x3C9, 0x2A) }

    try set(0x3C4, 2, 4)
    try set(0x3C4, 4, 6)
    try set(0x3CE, 5, 0)
    try set(0x3CE, 6, 4)
    for code in "HELO".utf8 {
      for row in 0..<16 { try put(0xA0000 + UInt64(code) * 32 + UInt64(row), code) }
    }
    try set(0x3C4, 2, 3)
    try set(0x3C4, 4, 2)
    try set(0x3CE, 5, 0x10)
    try set(0x3CE, 6, 0x0E)
    for (index, code) in "HELLO".utf8.enumerated() {
      try put(0xB8000 + UInt64(index) * 2, code)
      try put(0xB8000 + UInt64(index) * 2 + 1, 0x07)
    }
  }

  struct Picture {
    var reply: ScreendumpReply
    var pixels: [UInt8]

    func pixel(_ x: Int, _ y: Int) -> [UInt8] {
      let at = (y * Int(reply.width) + x) * 4
      return at + 4 <= pixels.count ? Array(pixels[at..<at + 4]) : []
    }
  }

  func screendump(byteCount: Int = 4 << 20) throws -> Picture {
    guard let core else { throw TooLate() }
    let file = try MemoryFile.make("screen", byteCount: byteCount)
    sequence += 1
    try core.request(
      .screendump, sequence: sequence, ScreendumpRequest(byteCount: UInt32(byteCount)), [file])
    let packet = try core.receive(timeout: Self.patience)
    let reply = try packet.reply(to: .screendump, ScreendumpReply.self)
    let count = Int(reply.width) * Int(reply.height) * 4
    return Picture(reply: reply, pixels: try file.read(count, at: 0))
  }
}
