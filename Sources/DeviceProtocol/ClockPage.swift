// SPDX-License-Identifier: Apache-2.0

public import DeviceModel
public import LinuxSystem
internal import Synchronization

/// Where things are in the clock page (protocols/device.md, section 8).
public enum ClockLayout {
  public static let byteCount = 4096
  /// Odd while the page is being changed, 32 bits.
  public static let sequenceOffset = 0
  /// 1 while the clock runs, 32 bits.
  public static let runningOffset = 4
  /// The virtual clock in nanoseconds, 64 bits; while it runs, minus CLOCK_MONOTONIC, wrapping.
  public static let valueOffset = 8
}

/// The machine's virtual clock, as everybody but the core sees it.
public final class ClockReader: Sendable {
  private let memory: Mapping

  /// Maps a clock page that came from the core.
  public init(_ file: Descriptor) throws(ChannelError) {
    guard MemoryFile.isSealed(file) else {
      throw .broken(ProtocolError("the clock page is not sealed"))
    }
    do throws(SystemError) {
      guard try file.size() >= UInt64(ClockLayout.byteCount) else {
        throw SystemError("clock page too short", 0)
      }
      memory = try Mapping(file, byteCount: ClockLayout.byteCount, .readOnly)
    } catch {
      throw .system(error)
    }
  }

  /// Whether the clock runs.
  public var isRunning: Bool { memory.acquire32(at: ClockLayout.runningOffset) != 0 }

  /// How often the page is read again while it is being changed: far longer than that takes.
  private static let mostTries = 1_000_000

  /// The virtual time now.
  ///
  /// A core that dies while it changes the page, or never ends doing so, gets its device a
  /// wrong time, and not stuck.
  public func now() -> VMTime {
    var tries = 0
    while true {
      let before = memory.acquire32(at: ClockLayout.sequenceOffset)
      let running = memory.acquire32(at: ClockLayout.runningOffset)
      let value = memory.acquire64(at: ClockLayout.valueOffset)
      let after = memory.acquire32(at: ClockLayout.sequenceOffset)
      guard before == after && before & 1 == 0 || tries >= Self.mostTries else {
        tries += 1
        Thread.relax()
        continue
      }
      return VMTime(
        nanoseconds: running != 0 ? value &+ HostClock.monotonic() : value)
    }
  }
}

/// The machine's virtual clock, as the core keeps it.
public final class ClockWriter: Sendable {
  public let file: Descriptor
  private let memory: Mapping

  /// What the page says; the core itself never reads the page back.
  private struct State {
    var isRunning = false
    var value: UInt64 = 0

    var now: UInt64 { isRunning ? value &+ HostClock.monotonic() : value }
  }
  private let state = Mutex(State())

  /// Makes a clock that stands still at zero.
  public init() throws(SystemError) {
    (file, memory) = try MemoryFile.makePublished("clock", byteCount: ClockLayout.byteCount)
  }

  /// The virtual time now.
  public func now() -> VMTime { VMTime(nanoseconds: state.withLock { $0.now }) }

  /// Lets the clock run on from where it stands.
  public func start() {
    state.withLock {
      guard !$0.isRunning else { return }
      $0.value = $0.value &- HostClock.monotonic()
      $0.isRunning = true
      publish($0)
    }
  }

  /// Makes the clock stand still.
  public func stop() {
    state.withLock {
      guard $0.isRunning else { return }
      $0.value = $0.now
      $0.isRunning = false
      publish($0)
    }
  }

  /// Sets the virtual time, in nanoseconds, of a clock that stands still.
  public func set(_ nanoseconds: UInt64) {
    state.withLock {
      precondition(!$0.isRunning, "a running clock is not set")
      $0.value = nanoseconds
      publish($0)
    }
  }

  private func publish(_ state: State) {
    memory.add32(1, at: ClockLayout.sequenceOffset)
    memory.release32(state.isRunning ? 1 : 0, at: ClockLayout.runningOffset)
    memory.release64(state.value, at: ClockLayout.valueOffset)
    memory.add32(1, at: ClockLayout.sequenceOffset)
  }
}
