// SPDX-License-Identifier: Apache-2.0

public import DeviceModel

/// Writes a model's state to bytes, or reads it back from them.
public struct StateBytes: StateVisitor {
  public private(set) var bytes: [UInt8] = []
  public private(set) var names: [String] = []
  private var input: ArraySlice<UInt8>?
  private var prefix = ""

  /// Returns the encoded state of `model`.
  public static func encode<S: DeviceState>(_ model: S) -> StateBytes {
    var copy = model
    var visitor = StateBytes()
    copy.visitState(&visitor)
    return visitor
  }

  /// Fills `model` from `bytes`; returns how many were left over.
  @discardableResult
  public static func decode<S: DeviceState>(_ bytes: [UInt8], into model: inout S) -> Int {
    var visitor = StateBytes()
    visitor.input = bytes[...]
    model.visitState(&visitor)
    return visitor.input?.count ?? 0
  }

  private mutating func next() -> UInt8 { input?.popFirst() ?? 0 }

  public mutating func field<T: FixedWidthInteger>(_ name: StaticString, _ value: inout T) {
    names.append(prefix + "\(name)")
    if input != nil {
      var new: T = 0
      for index in 0..<(T.bitWidth / 8) {
        new |= T(truncatingIfNeeded: next()) << T(8 * index)
      }
      value = new
    } else {
      for index in 0..<(T.bitWidth / 8) {
        bytes.append(UInt8(truncatingIfNeeded: value >> T(8 * index)))
      }
    }
  }

  public mutating func field(_ name: StaticString, _ value: inout Bool) {
    var byte: UInt8 = value ? 1 : 0
    field(name, &byte)
    value = byte != 0
  }

  public mutating func field(_ name: StaticString, _ value: inout [UInt8], capacity: Int) {
    var count = UInt32(value.count)
    field(name, &count)
    if input != nil {
      value = (0..<min(Int(count), capacity)).map { _ in next() }
    } else {
      bytes.append(contentsOf: value)
    }
  }

  public mutating func part<S: DeviceState>(_ name: StaticString, _ value: inout S) {
    let outer = prefix
    prefix += "\(name)."
    value.visitState(&self)
    prefix = outer
  }
}

/// Returns the encoded state of a model.
public func encoded<S: DeviceState>(_ model: S) -> [UInt8] { StateBytes.encode(model).bytes }

/// Fills a model from bytes; those past the end are zero.
public func restore<S: DeviceState>(_ bytes: [UInt8], into model: inout S) {
  _ = StateBytes.decode(bytes, into: &model)
}

/// A small seeded generator (SplitMix64), so that a failing run can be repeated.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  public init(seed: UInt64) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}
