// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Foundation
import Glibc
import LinuxSystem
import TestSupport
import Testing

/// The core's side of one example device that is a process of its own.
final class ExampleDevice {
  static let stateBytes = 163840

  let lane: CoreLane
  let clock: ClockWriter
  let state: Descriptor
  let line: Descriptor
  private(set) var channel: Channel
  private(set) var process: Process
  private var head: UInt32 = 0
  private var sequence: UInt32 = 0

  init() throws {
    lane = try CoreLane(name: "example", slots: 2)
    clock = try ClockWriter()
    state = try MemoryFile.make("example-state", byteCount: Self.stateBytes)
    line = try EventFile.make()
    let (socket, process) = try ExampleBinary.spawn()
    (channel, self.process) = (Channel(socket), process)
  }

  deinit { kill() }

  func kill() {
    if process.isRunning { _ = Glibc.kill(process.processIdentifier, SIGKILL) }
    process.waitUntilExit()
  }

  func restart() throws {
    kill()
    let (socket, process) = try ExampleBinary.spawn()
    (channel, self.process) = (Channel(socket), process)
    try handshake(isRestart: true)
  }

  static let timeout: UInt64 = 10_000_000_000

  @discardableResult
  func handshake(isRestart: Bool = false) throws -> Claims {
    let hello = try channel.receive(timeout: Self.timeout)
    #expect(hello.header.request == Request.hello.rawValue)
    #expect(try hello.decode(Hello.self).role == "example")
    try channel.reply(to: hello.header, Hello(role: "example"))
    let claim = try channel.receive(timeout: Self.timeout)
    let claims = try claim.decode(Claims.self)
    try channel.reply(
      to: claim.header,
      Grant(slots: 2, isRestart: isRestart, stateByteCount: UInt32(Self.stateBytes)),
      [lane.file, clock.file, state, line])
    let ready = try channel.receive(timeout: Self.timeout)
    #expect(ready.header.request == Request.ready.rawValue)
    return claims
  }

  func submit(_ access: LaneAccess) {
    sequence = sequence == .max ? 1 : sequence + 1
    lane.submit(access, slot: 0, sequence: sequence)
  }

  /// Waits for the answer in slot 0.
  func answer() throws -> (value: UInt64, items: UInt32) {
    let end = HostClock.monotonic() + Self.timeout
    while !lane.isAnswered(0) {
      guard HostClock.monotonic() < end else { throw Failure(reason: "no answer") }
      lane.sleep(0, timeout: 100_000_000)
    }
    return lane.take(0)
  }

  func read(_ offset: UInt64, width: UInt8 = 1) throws -> UInt64 {
    submit(LaneAccess(.read, width: width, region: 0, offset: offset))
    return try answer().value
  }

  func write(_ offset: UInt64, _ value: UInt64, width: UInt8 = 1) throws {
    submit(LaneAccess(.write, width: width, region: 0, offset: offset, value: value))
    _ = try answer()
  }

  /// Posts a write, or makes it a live one when the ring is full; returns whether it was posted.
  func post(_ offset: UInt64, _ value: UInt64) throws -> Bool {
    let access = LaneAccess(.write, width: 1, region: 0, offset: offset, value: value)
    guard lane.post(access, head: head) else {
      submit(access)
      _ = try answer()
      return false
    }
    head &+= 1
    return true
  }

  func mirrored() -> UInt32? { lane.mirrored(0, head: head) }
}
