// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import TestSupport

@testable import MachineCore

/// A device that the test plays, message by message.
final class FakeDevice {
  private(set) var channel: Channel?
  private(set) var lane: DeviceLane?
  private(set) var descriptors: [Descriptor] = []
  let role: String

  /// Those of the C device.
  static let exampleClaims = Claims(
    ports: [PortClaim(region: 0, base: 0x560, count: 8)],
    registers: [
      RegisterClaim(region: 0, offset: 1, write: .posted),
      RegisterClaim(region: 0, offset: 2, read: .mirrored),
    ], lines: [LineClaim(interrupt: 5)])

  static let ideClaims = Claims(
    functions: [
      FunctionClaim(
        devfn: 9, region: 10, vendor: 0x8086, device: 0x7010, classCode: 0x010180, revision: 0,
        bars: [BARClaim(index: 4, kind: .ports, byteCount: 16, region: 11)])
    ],
    descriptors: [
      DescriptorClaim(window: 0, kind: .prd, region: 11, offset: 0, devfn: 9),
      DescriptorClaim(window: 1, kind: .prd, region: 11, offset: 8, devfn: 9),
    ], bounceByteCount: 1 << 20)

  init(_ bench: Bench, _ role: String) throws {
    self.role = role
    channel = try bench.fake(role)
  }

  func open() throws -> Channel {
    guard let channel else { throw Failure(reason: "closed") }
    return channel
  }

  func hello() throws {
    try open().request(.hello, sequence: 1, Hello(role: role))
    let _: Hello = try open().receive(timeout: 5_000_000_000).reply(to: .hello)
  }

  func claim(_ claims: Claims, _ roms: [Descriptor] = []) throws {
    try open().request(.claim, sequence: 2, claims, roms)
    let packet = try open().receive(timeout: 5_000_000_000)
    let grant: Grant = try packet.reply(to: .claim)
    descriptors = packet.descriptors
    lane = try DeviceLane(packet.descriptors[0], slots: Int(grant.slots))
  }

  /// Goes through the whole handshake.
  func comeUp(_ claims: Claims) throws {
    try hello()
    try claim(claims)
    try open().request(.ready, sequence: 3, Empty())
  }

  func close() { channel = nil }
}
