// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// Lists the fields of a device's state: for each its kind, its name's length, its name.
///
/// The kind is the width of an integer in bytes, or 255 for an array of bytes.
public struct StateLayout: StateVisitor {
  /// The kind of an array of bytes.
  public static let array: UInt8 = 255

  public private(set) var bytes: [UInt8] = []
  private var prefix = ""

  public init() {}

  /// Returns the layout of a state.
  public static func of<S: DeviceState>(_ state: S) -> [UInt8] {
    var layout = StateLayout()
    var copy = state
    copy.visitState(&layout)
    return layout.bytes
  }

  private mutating func add(_ name: StaticString, _ kind: UInt8) {
    let full = Array((prefix + "\(name)").utf8.prefix(255))
    bytes += [kind, UInt8(full.count)] + full
  }

  public mutating func field<T: FixedWidthInteger>(_ name: StaticString, _ value: inout T) {
    add(name, UInt8(T.bitWidth / 8))
  }
  public mutating func field(_ name: StaticString, _ value: inout Bool) { add(name, 1) }
  public mutating func field(_ name: StaticString, _ value: inout [UInt8], capacity: Int) {
    add(name, Self.array)
  }

  /// The parts of an array get a number, so that every name is there once.
  private var seen: [String: Int] = [:]

  public mutating func part<S: DeviceState>(_ name: StaticString, _ value: inout S) {
    let outer = prefix
    let full = outer + "\(name)"
    let number = seen[full, default: 0]
    seen[full] = number + 1
    prefix = number == 0 ? full + "." : full + "#\(number)."
    value.visitState(&self)
    prefix = outer
  }
}

/// Reads fields back by their names, from values packed in some layout.
///
/// A field that the layout does not have keeps the value it has; one of another width is
/// cut or extended with zeroes. So a new program can go on from an old one's state.
public struct StateDecoder: StateVisitor {
  private var fields: [String: ArraySlice<UInt8>] = [:]
  private var prefix = ""
  private var seen: [String: Int] = [:]

  /// Takes the values apart.
  ///
  /// - Throws: when layout and values do not fit together.
  public init(layout: [UInt8], values: [UInt8]) throws(ProtocolError) {
    var at = 0
    var position = 0
    while position < layout.count {
      guard position + 2 <= layout.count,
        position + 2 + Int(layout[position + 1]) <= layout.count
      else { throw ProtocolError("state layout ends within an entry") }
      let kind = layout[position]
      let name = String(
        decoding: layout[(position + 2)..<(position + 2 + Int(layout[position + 1]))], as: UTF8.self
      )
      position += 2 + Int(layout[position + 1])
      var count = Int(kind)
      if kind == StateLayout.array {
        guard at + 4 <= values.count else { throw ProtocolError("state ends before \(name)") }
        count = (0..<4).reduce(0) { $0 | Int(values[at + $1]) << (8 * $1) }
        at += 4
      }
      guard count <= values.count - at else { throw ProtocolError("state ends within \(name)") }
      fields[name] = values[at..<at + count]
      at += count
    }
    guard at == values.count else { throw ProtocolError("state is longer than its layout") }
  }

  public mutating func field<T: FixedWidthInteger>(_ name: StaticString, _ value: inout T) {
    guard let bytes = fields[prefix + "\(name)"] else { return }
    var result: T = 0
    for (index, byte) in bytes.prefix(T.bitWidth / 8).enumerated() {
      result |= T(truncatingIfNeeded: byte) << T(truncatingIfNeeded: 8 * index)
    }
    value = result
  }

  public mutating func field(_ name: StaticString, _ value: inout Bool) {
    guard let byte = fields[prefix + "\(name)"]?.first else { return }
    value = byte != 0
  }

  public mutating func field(_ name: StaticString, _ value: inout [UInt8], capacity: Int) {
    guard let bytes = fields[prefix + "\(name)"], bytes.count <= capacity else { return }
    value = Array(bytes)
  }

  public mutating func part<S: DeviceState>(_ name: StaticString, _ value: inout S) {
    let outer = prefix
    let full = outer + "\(name)"
    let number = seen[full, default: 0]
    seen[full] = number + 1
    prefix = number == 0 ? full + "." : full + "#\(number)."
    value.visitState(&self)
    prefix = outer
  }
}
