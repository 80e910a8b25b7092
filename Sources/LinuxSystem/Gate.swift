// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Synchronization

/// A word that threads of this process sleep on until its value is another.
public final class Gate: Sendable {
  private let memory: Mapping

  /// Makes a gate whose value is zero.
  public init() throws(SystemError) {
    memory = try Mapping(try MemoryFile.make("gate", byteCount: 4096), byteCount: 4096, .readWrite)
  }

  /// The value; setting it wakes whoever waits.
  public var value: UInt32 {
    get { memory.loadSequential32(at: 0) }
    set {
      memory.storeSequential32(newValue, at: 0)
      memory.wake(at: 0)
    }
  }

  /// Adds to the value, wakes whoever waits, and returns the new value.
  @discardableResult
  public func add(_ amount: UInt32) -> UInt32 {
    let new = memory.add32(amount, at: 0)
    memory.wake(at: 0)
    return new
  }

  /// Sleeps while the value is `value`, at most `timeout` nanoseconds; may return early.
  public func wait(while value: UInt32, timeout: UInt64? = nil) {
    memory.wait(at: 0, while: value, timeout: timeout)
  }
}
