// SPDX-License-Identifier: Apache-2.0

import DeviceModel
import DeviceProtocol
import LinuxSystem

/// A machine with vmdev-serial: COM1 and what a guest does with it.
final class SerialMachine: FakeMachine {
  private let settings: SerialSettings
  private let descriptors: [Descriptor]

  init(_ backend: SerialSettings.Backend, _ descriptors: [Descriptor] = [], start: UInt64 = 0)
    throws
  {
    settings = SerialSettings(
      common: CommonSettings(machine: "test", isStrict: false),
      ports: [SerialSettings.Port(backend: backend, start: start)])
    self.descriptors = descriptors
    try super.init(role: "serial")
    clock.start()
  }

  @discardableResult
  func start(isRestart: Bool = false) throws -> Claims {
    try start(settings: settings.wireBytes, descriptors, isRestart: isRestart)
  }

  /// Kills the process and starts a successor.
  func replace() throws {
    try kill()
    try start(isRestart: true)
  }

  func read(_ register: UInt64) throws -> UInt8 {
    UInt8(
      truncatingIfNeeded: try live(LaneAccess(.read, width: 1, region: 0, offset: register)))
  }

  func write(_ value: UInt8, _ register: UInt64) throws {
    _ = try live(
      LaneAccess(.write, width: 1, region: 0, offset: register, value: UInt64(value)))
  }

  /// LSR as the guest gets it: from the mirror, or else from the device.
  func lineStatus() throws -> UInt8 {
    if let value = mirrored(0) { return UInt8(truncatingIfNeeded: value) }
    return try read(5)
  }

  /// Whether the holding register is empty.
  func canSend() throws -> Bool { try lineStatus() & 0x20 != 0 }

  /// Sends bytes as a guest does, sixteen after each look at THRE.
  ///
  /// `idle` is called while the transmitter is busy.
  func send(_ bytes: ArraySlice<UInt8>, idle: () throws -> Void = {}) throws {
    var rest = bytes
    while !rest.isEmpty {
      try serve {
        if try canSend() { return true }
        try idle()
        return false
      }
      for byte in rest.prefix(16) {
        try post(LaneAccess(.write, width: 1, region: 0, offset: 0, value: UInt64(byte)))
      }
      rest = rest.dropFirst(16)
    }
  }

  /// Sends from the front of `bytes` until the transmitter stays busy; returns how many.
  func sendUntilStopped(_ bytes: [UInt8]) throws -> Int {
    var sent = 0
    while sent < bytes.count {
      let end = HostClock.monotonic() + 300_000_000
      while try !canSend() {
        guard HostClock.monotonic() < end else { return sent }
        HostClock.sleep(1_000_000)
      }
      for byte in bytes[sent..<min(sent + 16, bytes.count)] {
        try post(LaneAccess(.write, width: 1, region: 0, offset: 0, value: UInt64(byte)))
      }
      sent = min(sent + 16, bytes.count)
    }
    return sent
  }

  /// Numbered lines, so that what is lost or doubled shows.
  static func text(_ lines: Int) -> [UInt8] {
    Array((0..<lines).map { "line \($0) of the guest\n" }.joined().utf8)
  }
}

/// The reader of a pipe or a terminal at its own pace.
struct OutputReader {
  let descriptor: Descriptor
  private(set) var bytes: [UInt8] = []

  init(_ descriptor: Descriptor) throws {
    self.descriptor = descriptor
    try descriptor.setNonBlocking(true)
  }

  /// Takes what is there, at most `most` bytes.
  mutating func take(_ most: Int = 65536) {
    if let more = try? descriptor.read(most) { bytes += more }
  }

  /// Takes until there are `count` bytes in all, and then what comes in a little while.
  mutating func take(until count: Int) {
    let end = HostClock.monotonic() + FakeMachine.patience
    while bytes.count < count, HostClock.monotonic() < end {
      take()
      HostClock.sleep(500_000)
    }
    HostClock.sleep(20_000_000)
    take()
  }
}

/// A pseudo-terminal in raw mode.
struct TestTerminal {
  let controller: Descriptor
  let terminal: Descriptor

  init() throws {
    let flags: Int32 = 0o400 | 2  // O_NOCTTY, O_RDWR
    controller = try Descriptor.open("/dev/ptmx", flags)
    var number: Int32 = 0
    try controller.control("TIOCSPTLCK", 0x4004_5431, &number)
    try controller.control("TIOCGPTN", 0x8004_5430, &number)
    terminal = try Descriptor.open("/dev/pts/\(number)", flags)
    var settings = [UInt8](repeating: 0, count: 60)
    try terminal.control("TCGETS", 0x5401, bytes: &settings)
    for index in 0..<8 { settings[index] = 0 }  // c_iflag, c_oflag
    for index in 12..<16 { settings[index] = 0 }  // c_lflag
    settings[17 + 6] = 1  // VMIN
    try terminal.control("TCSETS", 0x5402, bytes: &settings)
  }
}
