// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// A call that the kernel refused.
public struct SystemError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What was asked of the kernel, by the call's name.
  public var call: String

  /// The error number, positive, as in errno(3).
  public var number: Int32

  public init(_ call: String, _ number: Int32) {
    self.call = call
    self.number = number
  }

  public var description: String { "\(call): \(Self.text(number))" }

  /// Returns the C library's words for an error number.
  public static func text(_ number: Int32) -> String {
    // SAFETY: strerror returns a string that stays valid until the thread's next call; it is
    // copied at once.
    guard let words = unsafe strerror(number) else { return "error \(number)" }
    return unsafe String(cString: words)
  }

  /// Turns a shim's result, negative for an error, into a value or an error.
  @inlinable
  static func check<T: FixedWidthInteger>(_ call: @autoclosure () -> String, _ result: T)
    throws(SystemError) -> T
  {
    guard result >= 0 else { throw SystemError(call(), Int32(truncatingIfNeeded: 0 - result)) }
    return result
  }
}

extension SystemError {
  /// Whether the call was cut short by a signal (EINTR).
  public var isInterrupted: Bool { number == EINTR }
  /// Whether nothing was ready (EAGAIN), or the wait timed out (ETIMEDOUT).
  public var isNotReady: Bool { number == EAGAIN || number == ETIMEDOUT }
  /// Whether the other end is gone (EPIPE, ECONNRESET).
  public var isDisconnected: Bool { number == EPIPE || number == ECONNRESET }
}
