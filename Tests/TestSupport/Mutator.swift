// SPDX-License-Identifier: Apache-2.0

/// Makes malformed messages out of well-formed ones.
public enum Mutator {
  /// One message to try, and what was done to it.
  public struct Mutation: Sendable {
    public var what: String
    public var bytes: [UInt8]

    public init(what: String, bytes: [UInt8]) {
      self.what = what
      self.bytes = bytes
    }
  }

  /// Every mutation of a message: cut at each length, made longer, each byte and word extreme.
  ///
  /// With `keepsSize` the header's size follows the length.
  public static func mutations(of message: [UInt8], keepsSize: Bool) -> [Mutation] {
    var result: [Mutation] = []
    func add(_ what: String, _ bytes: [UInt8]) {
      var bytes = bytes
      if keepsSize, bytes.count >= 16 { put(UInt32(bytes.count - 16), at: 12, in: &bytes) }
      if bytes != message { result.append(Mutation(what: what, bytes: bytes)) }
    }
    for count in 1..<message.count { add("cut to \(count)", Array(message.prefix(count))) }
    for extra in [1, 4, 4096] {
      add("\(extra) more", message + [UInt8](repeating: 0xA5, count: extra))
    }
    for index in message.indices {
      for value: UInt8 in [0, 1, 2, 0x7F, 0x80, 0xFF] {
        var bytes = message
        bytes[index] = value
        add("byte \(index) is \(value)", bytes)
      }
    }
    for index in stride(from: 0, through: message.count - 4, by: 1) {
      for value: UInt32 in [0xFFFF_FFFF, 0x8000_0000, 0x7FFF_FFFF] {
        var bytes = message
        put(value, at: index, in: &bytes)
        add("word \(index) is \(value)", bytes)
      }
    }
    return result
  }

  public static func put(_ value: UInt32, at index: Int, in bytes: inout [UInt8]) {
    for byte in 0..<4 { bytes[index + byte] = UInt8(truncatingIfNeeded: value >> (8 * byte)) }
  }
}
