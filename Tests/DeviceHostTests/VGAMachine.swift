// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import LinuxSystem

/// A machine with vmdev-vga.
final class VGAMachine: FakeMachine {
  private let firmware: Descriptor
  /// What the device has had mapped into the legacy window, in order.
  private(set) var mappings: [WindowMapping] = []

  init() throws {
    firmware = try MemoryFile.make("bios", byteCount: 39936)
    try super.init(role: "vga")
  }

  @discardableResult
  func start(isRestart: Bool) throws -> Claims {
    let settings = VGASettings(
      common: CommonSettings(machine: "test", isStrict: false), videoByteCount: 1 << 20)
    return try start(settings: settings.wireBytes, [firmware], isRestart: isRestart)
  }

  override func serve(_ packet: Packet, _ core: Channel) throws {
    guard Request(rawValue: packet.header.request) == .mapWindow else {
      try super.serve(packet, core)
      return
    }
    mappings.append(try packet.decode())
    try core.reply(to: packet.header, Empty())
  }

  /// The video memory, once it is granted.
  var video: Mapping { backings[0] }

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

  func set(_ port: UInt16, _ index: Int, _ value: UInt8) throws {
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
    let file = try MemoryFile.make("screen", byteCount: byteCount)
    let reply = try ask(
      .screendump, ScreendumpRequest(byteCount: UInt32(byteCount)), [file],
      for: ScreendumpReply.self)
    let count = Int(reply.width) * Int(reply.height) * 4
    return Picture(reply: reply, pixels: try file.read(count, at: 0))
  }
}
