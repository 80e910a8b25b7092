// SPDX-License-Identifier: Apache-2.0

/// A message that breaks the protocol; its sender is cut off with this reason.
public struct ProtocolError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What was wrong, in words, with the offending value.
  public var reason: String

  public init(_ reason: String) { self.reason = reason }

  public var description: String { reason }
}

/// Puts the fields of a message together, little-endian and unpadded.
public struct WireWriter: Sendable {
  /// The bytes so far.
  public private(set) var bytes: [UInt8] = []

  public init() {}

  /// Appends an integer in its own width.
  public mutating func put<T: FixedWidthInteger>(_ value: T) {
    for shift in stride(from: 0, to: T.bitWidth, by: 8) {
      bytes.append(UInt8(truncatingIfNeeded: value >> T(truncatingIfNeeded: shift)))
    }
  }

  /// Appends a truth value as one byte, 0 or 1.
  public mutating func put(_ value: Bool) { bytes.append(value ? 1 : 0) }

  /// Appends bytes with their count in 32 bits in front.
  public mutating func put(_ value: [UInt8]) {
    put(UInt32(value.count))
    bytes += value
  }

  /// Appends a text in UTF-8 with its byte count in 32 bits in front.
  public mutating func put(_ value: String) { put(Array(value.utf8)) }

  /// Appends elements with their count in 32 bits in front.
  public mutating func put<E: WireCodable>(_ values: [E]) {
    put(UInt32(values.count))
    for value in values { value.encode(to: &self) }
  }
}

/// Takes a message apart; every count is checked before it is used.
public struct WireReader: Sendable {
  private let bytes: [UInt8]
  private var position = 0

  public init(_ bytes: [UInt8]) { self.bytes = bytes }

  /// How many bytes are left.
  public var remaining: Int { bytes.count - position }

  /// Takes an integer in its own width.
  public mutating func get<T: FixedWidthInteger>(_ type: T.Type, _ name: StaticString)
    throws(ProtocolError) -> T
  {
    let count = T.bitWidth / 8
    guard remaining >= count else { throw ProtocolError("message ends before \(name)") }
    var value: T = 0
    for index in 0..<count {
      value |= T(truncatingIfNeeded: bytes[position + index]) << T(truncatingIfNeeded: 8 * index)
    }
    position += count
    return value
  }

  /// Takes an integer in the width that the context wants.
  public mutating func get<T: FixedWidthInteger>(_ name: StaticString) throws(ProtocolError) -> T {
    try get(T.self, name)
  }

  /// Takes a truth value; any byte but 0 and 1 is an error.
  public mutating func getBool(_ name: StaticString) throws(ProtocolError) -> Bool {
    let byte = try get(UInt8.self, name)
    guard byte <= 1 else { throw ProtocolError("\(name) is \(byte), not 0 or 1") }
    return byte == 1
  }

  /// Takes counted bytes, at most `most`.
  public mutating func getBytes(_ name: StaticString, most: Int) throws(ProtocolError) -> [UInt8] {
    let count = Int(try get(UInt32.self, name))
    guard count <= most else { throw ProtocolError("\(name) has \(count) bytes, most is \(most)") }
    guard remaining >= count else { throw ProtocolError("message ends within \(name)") }
    defer { position += count }
    return Array(bytes[position..<position + count])
  }

  /// Takes a counted text of at most `most` bytes of valid UTF-8.
  public mutating func getString(_ name: StaticString, most: Int) throws(ProtocolError) -> String {
    let bytes = try getBytes(name, most: most)
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw ProtocolError("\(name) is not UTF-8")
    }
    return text
  }

  /// Takes counted elements, at most `most`.
  public mutating func getArray<E: WireCodable>(
    _ name: StaticString, most: Int
  ) throws(ProtocolError) -> [E] {
    let count = Int(try get(UInt32.self, name))
    guard count <= most else {
      throw ProtocolError("\(name) has \(count) entries, most is \(most)")
    }
    var values: [E] = []
    for _ in 0..<count { values.append(try E(from: &self)) }
    return values
  }

  /// Takes an enumeration's raw value; one that the type does not have is an error.
  public mutating func getCase<R: RawRepresentable>(_ name: StaticString)
    throws(ProtocolError) -> R where R.RawValue: FixedWidthInteger
  {
    let raw = try get(R.RawValue.self, name)
    guard let value = R(rawValue: raw) else { throw ProtocolError("\(name) cannot be \(raw)") }
    return value
  }

  /// Checks that nothing is left.
  public func finish() throws(ProtocolError) {
    guard remaining == 0 else { throw ProtocolError("\(remaining) bytes after the message's end") }
  }
}

extension String {
  /// The longest beginning of whole characters' scalars that has at most `most` bytes of UTF-8.
  func cut(toBytes most: Int) -> String {
    guard utf8.count > most else { return self }
    var kept = String.UnicodeScalarView()
    var count = 0
    for scalar in unicodeScalars {
      count += UTF8.width(scalar)
      guard count <= most else { break }
      kept.append(scalar)
    }
    return String(kept)
  }
}

/// A value with a place in messages.
public protocol WireCodable: Sendable {
  /// Appends the value's fields.
  func encode(to writer: inout WireWriter)
  /// Takes the value's fields.
  init(from reader: inout WireReader) throws(ProtocolError)
}

extension WireCodable {
  /// The value's fields as the bytes of one message.
  public var wireBytes: [UInt8] {
    var writer = WireWriter()
    encode(to: &writer)
    return writer.bytes
  }

  /// Reads the value from a message that holds it and nothing else.
  public init(wireBytes: [UInt8]) throws(ProtocolError) {
    var reader = WireReader(wireBytes)
    try self.init(from: &reader)
    try reader.finish()
  }
}
